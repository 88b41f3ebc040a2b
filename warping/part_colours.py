"""Which colours the parts of a body have, learned from the frames of the target themselves.

Where an arm lies before the body or beside it, the distances from the bones do not tell where the arm ends and the
shirt begins, or the skirt: fingers reach farther than their landmarks, and sleeves and waists differ. Nor do they tell
where a shoe begins that points at the camera. Colours tell. They are counted where the distances leave no doubt, then
once more where the colours found so far leave none, as in GrabCut (Rother et al., SIGGRAPH 2004). Where two parts are
dressed alike, colours say nothing and distances decide.
"""

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter

from picture.parts import NUMBER, PARTS, PARTS_OF, distances

# What is told apart by colours. Within a group distances decide alone: torso and legs mostly come from one frame.
GROUPS = [[NUMBER[part] for part in parts] for parts in (
    ["torso", "left thigh", "left shin", "right thigh", "right shin"], ["head"], PARTS_OF["left arm"],
    PARTS_OF["right arm"], ["left foot"], ["right foot"])]
# The number of each part's kind. A left and a right part are of one kind, because they mostly have the same colours.
KINDS, KIND_OF = np.unique([part.removeprefix("left ").removeprefix("right ") for part in PARTS], return_inverse=True)
LEVELS = (8, 16, 16)  # of L, a and b (CIELAB)
FARTHEST = 64  # of a and b: hardly any colour of skin or cloth is farther from grey
BINS = int(np.prod(LEVELS))
SPREAD = (0.7, 1.0, 1.0)  # levels over which a count is spread: light and noise change a colour by so much
FRAMES = 40  # of the target, from which colours are learned
INSIDE = 0.95  # of a matte: what is less may show the background
# Radii. A pixel surely belongs to a part if it is nearer to its bone than the first of these, and if every other group
# is farther away than that bone by at least the second.
CLEAR = (1.0, 0.9)
FEW = 60.0  # pixels: a part with fewer is expected to have the colours of the whole body rather than its own
ANY = 0.02  # share of pixels that have any colour of the body, whatever the part
DOUBT = 1.0  # nats: a smaller difference of two surprises says nothing
MOST = 5.0  # nats: a greater one counts no more
PER_NAT = 0.5  # radii that a difference of one nat is worth


class PartColours:
    """The colours of the parts of a body. samples: (image, person, joints, height) of some frames: uint8 S x S x 3
    BGR and float32 S x S in [0, 1], the canvas and where the person is on it; (33, 3) and a number, in canvas units."""

    def __init__(self, samples):
        pixels = [_pixels(*sample) for sample in samples]
        away, colours = np.concatenate([each for each, _ in pixels], 1), np.concatenate([each for _, each in pixels])
        self._surprise = _learned(away, colours)
        self._surprise = _learned(self._costs(away, self._surprises(away, colours)), colours)

    def costs(self, away, image, person):
        """float32 (12, h, w): how badly the pixels of an `image` (uint8 h x w x 3 BGR) fit each of PARTS: `away`, their
        distances from its bone in its radii, and more where the colour is not one of this part. person: float32 h x w
        in [0, 1], where the person is."""
        surprises = self._surprises(away, _bins(image)) * person
        # A pixel is judged together with its neighbours, those of the person.
        weight = np.maximum(cv2.blur(person, (3, 3)), 1e-3)
        return self._costs(away, np.stack([cv2.blur(each, (3, 3)) / weight for each in surprises]))

    def _surprises(self, away, colours):
        """float32 (groups, ...): how unlikely each of the colours (whole numbers, of any shape) is in each of GROUPS,
        in nats; in a group, it would belong to the nearest part."""
        nearest = [np.array(group)[away[group].argmin(0)] for group in GROUPS]
        return np.stack([self._surprise[KIND_OF[part], colours] for part in nearest])

    def _costs(self, away, surprises):
        """The same as `costs`, of the surprises in each group."""
        more = np.clip(surprises - surprises.min(0) - DOUBT, 0, MOST - DOUBT) * np.float32(PER_NAT)
        costs = away.copy()
        for group, each in zip(GROUPS, more, strict=True):
            costs[group] += each
        return costs


def _pixels(image, person, joints, height):
    """((12, P), (P,)): how far the pixels of the person are from each bone, in its radii, and the bins of their
    colours. The arguments are those of a sample."""
    rows, columns = np.nonzero(person > INSIDE)
    places = (np.stack([columns, rows], 1) + 0.5) / len(person)
    return distances(places, joints, height).astype(np.float32), _bins(image)[rows, columns]


def _bins(image):
    """int h x w: the bin of each colour of an image (uint8 h x w x 3 BGR)."""
    light, red, yellow = np.moveaxis(cv2.cvtColor(image, cv2.COLOR_BGR2LAB).astype(np.int32), 2, 0)
    light = light * LEVELS[0] // 256
    red, yellow = (np.clip((each - 128 + FARTHEST) * levels // (2 * FARTHEST), 0, levels - 1)
                   for each, levels in ((red, LEVELS[1]), (yellow, LEVELS[2])))
    return (light * LEVELS[1] + red) * LEVELS[2] + yellow


def _learned(costs, colours):
    """float32 (KINDS, BINS): the surprise of each colour in each kind of part, in nats. costs: (12, P), how badly each
    pixel fits each part; colours: (P,), their bins."""
    best, other = np.sort([costs[group].min(0) for group in GROUPS], 0)[:2]
    clear = (best < CLEAR[0]) & (other > best + CLEAR[1])
    kinds = KIND_OF[costs[:, clear].argmin(0)]
    counts = np.bincount(kinds * BINS + colours[clear], minlength=len(KINDS) * BINS).reshape(len(KINDS), BINS)
    counts = np.concatenate([counts, np.bincount(colours, minlength=BINS)[None]]).reshape(-1, *LEVELS)
    *counts, body = gaussian_filter(counts.astype(np.float32), (0, *SPREAD)).reshape(-1, BINS)
    counts, body = np.array(counts), body / max(body.sum(), 1e-6)
    shares = (counts + FEW * body) / (counts.sum(1, keepdims=True) + FEW)
    return -np.log((1 - ANY) * shares + ANY * body + 1e-6).astype(np.float32)
