"""Matting: how opaque the person is at each pixel of a frame, by the detector's coarse mask and the frame's colours.

The detector's mask has 256 x 256 pixels for a whole person. So its edge is off by some pixels of the frame, fingers
grow together, and shoes are cut off where its square ends. Near that edge, and around hands and feet, colours decide.
In each neighbourhood, the colours that are surely the person's have a normal distribution, and those that are surely
behind her have another one. Linear discriminant analysis (Fisher 1936) finds the direction in which the two differ
most. A colour's place between the two means in that direction is how opaque the pixel is, because an edge or hair mixes
both colours. Where the two hardly differ, as a white shirt before a white wall, the mask is kept. That a matte is
locally a linear function of colour is the model of Levin et al. (A Closed-Form Solution to Natural Image Matting, PAMI
2008).
"""

import cv2
import numpy as np

from picture.scene import SHARES, SURE_BACKGROUND, SURE_PERSON

GRAIN = 1 / 180  # of the body's height: pixels by which the edge of the detector's mask may be off, the band
BAND = 3  # pixels: a picture whose band is wider is reduced first, which saves time
STEP = 4  # pixels for one neighbourhood, since neighbourhoods change slowly
REACH = 3.0  # bands: how wide a neighbourhood is, as the standard deviation of a Gauss curve
FAR = 4.0  # where a neighbourhood shows one of the two hardly at all, one that is so many times wider helps
LEAST = 0.02  # share of a neighbourhood that must be of each of the two, so that no wider one is needed
NOISE = 0.03  # of 1: colours of one thing differ at least so much (standard deviation)
# Squared distances in standard deviations. Up to the first of these distances of the two means the mask decides, from
# the second on colours do.
DIFFERENT = (4.0, 16.0)
# Up to the first of these distances from the line between the means, a colour is a mixture of the two; from the second
# on it is something else, for example a hand at a white sleeve. Then the mask decides.
MIXED = (9.0, 25.0)
CLEAR = (0.4, 0.15)  # of 1: up to the second value, a pixel near a hand is clearly background; from the first, not
FAINT = 0.08  # what is less opaque than this is nothing, and the same from the other end
PAIRS = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]  # rows and columns of a symmetric 3 x 3 matrix
# Landmarks between which hands and feet are, how far they go on beyond the second one, as a share of the distance, and
# their width in body heights. Of a hand, the inside of the mask is uncertain too, because of the gaps between fingers.
HANDS = [((15, 17), 0.8, 0.045), ((15, 19), 0.8, 0.045), ((16, 18), 0.8, 0.045), ((16, 20), 0.8, 0.045)]
FEET = [((29, 31), 0.25, 0.06), ((30, 32), 0.25, 0.06)]


def matte(image, mask, joints, height):
    """uint8 h x w: how opaque the person is in a picture, 255 all the way. image: uint8 h x w x 3 BGR; mask: uint8 h x
    w, the detector's, 255 where the person is; joints: (33, 2), in pixels; height: of the body, in pixels."""
    scale = min(1, BAND / (GRAIN * height))
    size = [max(1, round(length * scale)) for length in mask.shape[::-1]]
    if scale < 1:
        small = [cv2.resize(each, size, interpolation=cv2.INTER_AREA) for each in (image, mask)]
        return cv2.resize(_matte(*small, joints * scale, height * scale), mask.shape[::-1])
    return _matte(image, mask, joints, height)


def _matte(image, mask, joints, height):
    band, share = max(1, round(GRAIN * height)), SHARES[mask]
    hands, feet = (_around(limbs, joints, height, mask.shape) for limbs in (HANDS, FEET))
    edge = np.ones((2 * band + 1,) * 2, np.uint8)
    person = cv2.erode(_where(mask > SURE_PERSON), edge) & ~hands
    behind = ~(cv2.dilate(_where(mask > SURE_BACKGROUND), edge) | hands | feet)
    unknown = ~(person | behind)
    if not unknown.any() or not person.any() or not behind.any():
        return (share * 255).round().astype(np.uint8)
    # A model of a hand's colours needs the hand, though there is some background between its fingers.
    shown = person | hands & _where(mask > SURE_PERSON)
    y, x = np.nonzero(unknown)
    opaque, sure = _mixture(image, shown, behind, unknown, x, y, band)
    # A hand that moves fast is blurred, so its colours are hardly known. Only what is clearly background is taken out.
    taken_out = (hands[y, x] > 0) & (opaque < share[y, x])
    sure = np.where(taken_out, sure * _ramp(opaque, CLEAR), sure)
    share[y, x] += sure * (opaque - share[y, x])
    # Colours that look like the person's are behind her as well, so nothing is believed far outside of the mask.
    outside = cv2.distanceTransform(_where(mask <= 127), cv2.DIST_L2, 3)
    limit = np.clip(2 * (band + 1 - outside) / band, 0, 1)
    limit[(hands | feet) > 0] = 1
    share = np.clip((np.minimum(share, limit) - FAINT) / (1 - 2 * FAINT), 0, 1)
    return (_whole(share, person, behind) * 255).round().astype(np.uint8)


def _around(limbs, joints, height, shape):
    """uint8 h x w: 255 around HANDS or FEET. joints: (33, 2), and height, of the body, in pixels; shape: (h,
    w)."""
    drawn = np.zeros(shape, np.uint8)
    for (root, tip), beyond, width in limbs:
        begin, along = joints[root], joints[tip] - joints[root]
        ends = np.clip([begin, begin + (1 + beyond) * along], -1e4, 1e4).astype(int).tolist()
        cv2.line(drawn, *ends, 255, max(1, round(width * height)))
    return drawn


def _where(condition):
    """uint8: 255 where a condition holds, which is a bool array."""
    return condition.astype(np.uint8) * np.uint8(255)


def _mixture(image, person, behind, unknown, x, y, band):
    """Two float32 (N,): how opaque the pixels at (x, y) are by their colours, and how far this is to be believed, both
    in [0, 1]. person, behind, unknown: uint8 h x w, 255 where a pixel is surely of the one, of the other, or of
    neither."""
    size = [-(-length // STEP) for length in image.shape[1::-1]]
    colours = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    near = cv2.dilate(cv2.resize(unknown, size, interpolation=cv2.INTER_AREA), np.ones((3, 3), np.uint8)) > 0
    weights = (cv2.resize(sure, size, interpolation=cv2.INTER_AREA) for sure in (person, behind))
    (mine, own_spread, own), (other, other_spread, others) = (_colours(colours, each, near, band) for each in weights)
    inverse = np.linalg.inv((own_spread + other_spread) / 2 + NOISE ** 2 * np.eye(3, dtype=np.float32))
    direction = (inverse @ (mine - other)[:, :, None])[:, :, 0]
    apart = (direction * (mine - other)).sum(1)
    believed = _ramp(apart, DIFFERENT) * (np.minimum(own, others) > 0)
    planes = np.zeros((*size[::-1], 16), np.float32)
    planes[near, :14] = np.column_stack([direction / np.maximum(apart, 1e-6)[:, None], other, apart, believed,
                                         *(inverse[:, row, column] for row, column in PAIRS)])
    # OpenCV looks up at most 32767 rows at a time, so the pixels lie in rows of 256.
    x_small, y_small = (np.pad((each.astype(np.float32) + 0.5) / STEP - 0.5, (0, -len(x) % 256)).reshape(-1, 256)
                        for each in (x, y))
    found = [cv2.remap(np.ascontiguousarray(planes[:, :, first:first + 4]), x_small, y_small, cv2.INTER_LINEAR,
                       borderMode=cv2.BORDER_REPLICATE).reshape(-1, 4)[:len(x)].T for first in range(0, 16, 4)]
    planes = np.concatenate(found)
    away = (image[y, x].astype(np.float32) / 255).T - planes[3:6]
    along = (planes[:3] * away).sum(0)
    opaque = along.clip(0, 1)
    distance = sum(planes[8 + number] * away[row] * away[column] * (1 if row == column else 2)
                   for number, (row, column) in enumerate(PAIRS))
    distance += planes[6] * (opaque - 2 * along) * opaque  # now from the line between the means
    return opaque, planes[7] * (1 - _ramp(distance, MIXED))


def _colours(colours, weights, near, band):
    """(mean (N, 3), covariance (N, 3, 3), weight (N,)) of the colours around each of the N places that are `near` (bool
    h x w), where the weights (uint8 h x w) tell which colours count. colours: float32 h x w x 3."""
    values = [np.ones_like(colours[:, :, 0]), *np.moveaxis(colours, 2, 0)]
    values += [colours[:, :, row] * colours[:, :, column] for row, column in PAIRS]
    weights, sums = weights.astype(np.float32) / 255, None
    for width in (REACH, FAR * REACH):
        wide = np.stack([cv2.GaussianBlur(weights * value, (0, 0), width * band / STEP)[near] for value in values], 1)
        sums = wide if sums is None else sums + wide * (1 - _ramp(sums[:, :1], (0, LEAST)))
    means = sums[:, 1:] / np.maximum(sums[:, :1], 1e-8)
    covariance = np.empty((len(sums), 3, 3), np.float32)
    for number, (row, column) in enumerate(PAIRS):
        covariance[:, row, column] = means[:, 3 + number] - means[:, row] * means[:, column]
        covariance[:, column, row] = covariance[:, row, column]
    return means[:, :3], covariance, sums[:, 0]


def _whole(share, person, behind):
    """The matte `share`, float32 h x w, in place, without what does not hang together with the person (uint8 h x w, 255
    where that is sure), and without holes that do not reach what is surely `behind`."""
    for values, inside, other in ((share, person, 0), (1 - share, behind, 1)):
        count, pieces = cv2.connectedComponents((values > 0.3).astype(np.uint8))
        kept = np.zeros(count, bool)
        kept[0], kept[pieces[inside > 0]] = True, True
        share[~kept[pieces]] = other
    return share


def foreground(image, opaque, height):
    """The picture, uint8 h x w x 3 BGR, with the person's own colours wherever she is transparent in part, so that
    nothing of the old background is seen before a new one. opaque: her matte, uint8 h x w; height: of the body, in
    pixels. By blur fusion (Forte, Approximate Fast Foreground Colour Estimation, ICIP 2021): the colours of person and
    background are averages of what is near, corrected so that the mixture of the two is the pixel that was seen."""
    y, x = np.nonzero((opaque > 0) & (opaque < 255))
    size = [-(-length // STEP) for length in opaque.shape[::-1]]
    small, share = (cv2.resize(each, size, interpolation=cv2.INTER_AREA).astype(np.float32) for each in (image, opaque))
    share = share[:, :, None] / 255
    width = 2 * round(2 * max(1, GRAIN * height) / STEP) + 1
    mine, other = (cv2.blur(small * part, (width, width)) / (cv2.blur(part, (width, width))[:, :, None] + 1e-4)
                   for part in (share, 1 - share))
    mine, other = (cv2.resize(each, opaque.shape[::-1])[y, x] for each in (mine, other))
    share, result = opaque[y, x, None].astype(np.float32) / 255, image.copy()
    colours = mine + share * (image[y, x] - share * mine - (1 - share) * other)
    result[y, x] = colours.clip(0, 255).round().astype(np.uint8)
    return result


def _ramp(values, limits):
    """Values from 0 up to 1 between two limits."""
    return ((values - limits[0]) / (limits[1] - limits[0])).clip(0, 1)
