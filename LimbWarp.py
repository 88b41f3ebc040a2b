"""Limb-wise warping: each limb from the frame of the target where it looked most alike, carried to where it is wanted.

The body is six chains (torso, head, arms, legs) of twelve parts. For each chain the frame is retrieved whose chain has
the most similar shape, apart from where it is, in a sequence that changes little (Viterbi, with a short look ahead);
each part of it is carried by an affine map from its bone there to its bone here, and drawn, far to near, over the
background. Every pixel is a real one, so it is sharp; every limb goes where it is asked to, so it moves smoothly. In
the line of Xu et al. (Video-based Characters, SIGGRAPH 2011: coherent retrieval, then warping) and Balakrishnan et al.
(CVPR 2018: a warp for each limb, over a background). Nothing is learnt: GenWarp.py, GEN_TYPE 5, refines the result.
"""

from collections import OrderedDict

import cv2
import numpy as np
from scipy.ndimage import percentile_filter
from scipy.spatial import cKDTree

from Canvas import crop, resize
from PoseTrack import heights, point
from Retarget import STANDING
from Skeleton import HIPS, NOSE, SHOULDERS

# Each part's bone (a pair of landmarks stands for the point between them) and its radius in body heights.
PARTS = {
    "torso": (SHOULDERS, HIPS, 0.13), "head": (SHOULDERS, NOSE, 0.10),
    "left upper arm": (11, 13, 0.055), "left forearm": (13, 15, 0.045),
    "right upper arm": (12, 14, 0.055), "right forearm": (14, 16, 0.045),
    "left thigh": (23, 25, 0.075), "left shin": (25, 27, 0.055), "left foot": (27, 31, 0.04),
    "right thigh": (24, 26, 0.075), "right shin": (26, 28, 0.055), "right foot": (28, 32, 0.04),
}
CHAINS = {
    "torso": ["torso"], "head": ["head"],
    "left arm": ["left upper arm", "left forearm"], "right arm": ["right upper arm", "right forearm"],
    "left leg": ["left thigh", "left shin", "left foot"], "right leg": ["right thigh", "right shin", "right foot"],
}
# A chain's shape: differences (landmark, from landmark, weight).
SHAPES = {
    "torso": [(11, HIPS, 1), (12, HIPS, 1), (23, HIPS, 1), (24, HIPS, 1)],
    "head": [(NOSE, SHOULDERS, 0.7), (7, NOSE, 1.4), (8, NOSE, 1.4), (7, 8, 1.4), (11, 12, 0.35)],
    "left arm": [(13, 11, 1), (15, 13, 1), (19, 15, 1), (11, SHOULDERS, 0.7)],
    "right arm": [(14, 12, 1), (16, 14, 1), (20, 16, 1), (12, SHOULDERS, 0.7)],
    "left leg": [(25, 23, 1), (27, 25, 1), (31, 27, 1), (23, HIPS, 0.7)],
    "right leg": [(26, 24, 1), (28, 26, 1), (32, 28, 1), (24, HIPS, 0.7)],
}
DEPTH = 0.35  # weight of z in a shape: the detector is less sure of it
CONTINUITY, SWITCH = 0.3, 0.0005  # costs of a change of a shape's error, and of going on with another frame
LOOK_AHEAD = 10  # poses that a retrieval may know of what comes
CANDIDATES = 64  # frames considered for a chain
OVERLAP, NEAR = 0.3, 0.13  # cost, in shape^2 per body height, of limbs that in their frame are so NEAR each other
ZOOM, NEARBY = 80, 2.0  # percentile, over so many seconds to each side, of the heights that tell a frame's body height
LABELS = 128  # pixels of a part's mask
SHARED, REACH = 0.35, 2.4  # in radii: how far a part goes on beneath its neighbour, and from its bone
SOLID = 0.35, 0.65  # between these a part's mask goes from nothing to all
LENGTHEN, WIDEN = (0.6, 1.5), (0.9, 1.1)  # what a part may be stretched along and across its bone,
SCALE = 0.8, 1.25  # and head and torso as a whole, beside the change of the body's height in the picture
KEPT = 64  # frames whose parts stay in memory, 0.9 MB each at 512 pixels


def shapes(joints, chain, height):
    """float (N, D): what makes a chain of a track (N, 33, 3) look alike, in body heights, wherever it is."""
    parts = [(point(joints, tip) - point(joints, root)) * np.float32([1, 1, DEPTH]) * weight
             for tip, root, weight in SHAPES[chain]]
    return np.concatenate(parts, -1) / np.reshape(height, (-1, 1))


def overlap(joints, chain, height):
    """(N,): how much arms lie on a chain of a track, or it on others: there the pixels are not all its own."""
    top, bottom = point(joints, SHOULDERS)[:, :2], point(joints, HIPS)[:, :2]

    def near(distance):
        return np.clip(NEAR - distance / height, 0, None)

    def apart(one, other):
        return np.linalg.norm(joints[:, one, :2] - joints[:, other, :2], axis=1)

    arms = (13, 14, 15, 16, 19, 20)  # elbows, wrists, fingers
    on_torso = {joint: near(_to_segment(joints[:, joint, :2], top, bottom)) for joint in arms}
    if chain == "torso":  # fingers also lie on the hips
        return sum(on_torso.values()) + sum(near(apart(finger, hip)) for finger in (19, 20) for hip in HIPS)
    if chain == "head":
        return sum(near(apart(joint, NOSE)) for joint in arms)
    if "arm" in chain:
        elbow, wrist = (13, 15) if chain == "left arm" else (14, 16)
        return on_torso[elbow] + on_torso[wrist] + near(apart(wrist, NOSE)) + near(apart(15, 16))
    return np.zeros(len(joints))


def _to_segment(points, start, end):
    """Distance of points (..., 2) from the segment start-end."""
    along = end - start
    share = ((points - start) * along).sum(-1) / np.maximum((along * along).sum(-1), 1e-9)
    return np.linalg.norm(points - (start + np.clip(share, 0, 1)[..., None] * along), axis=-1)


class Path:
    """The frames chosen for one chain, pose by pose: `see` takes the next wanted shape, `choose` gives the frame of the
    oldest one not yet chosen, knowing all that was seen (the Viterbi algorithm, over CANDIDATES a pose)."""

    def __init__(self, known):
        self._known, self._tree = known, cKDTree(known)
        self.reset()

    def reset(self):
        """Forget everything: what comes next need not go on from it."""
        self._columns, self._last = [], None  # (frames, the candidate before each) a pose; the end of every path

    def see(self, wanted):
        near = np.atleast_1d(self._tree.query(wanted, min(CANDIDATES, len(self._known)))[1])
        before = np.zeros(len(near), int)
        if self._last:
            frames, old, cost = self._last
            best = frames[cost.argmin()]
            near = np.append(near, [best, min(best + 1, len(self._known) - 1)])
            errors = self._known[near] - wanted
            moved = (near[:, None] != frames) & (near[:, None] != frames + 1)
            total = cost + CONTINUITY * ((errors[:, None] - old) ** 2).sum(2) + SWITCH * moved
            before = total.argmin(1)
            cost = total.min(1) + (errors ** 2).sum(1)
        else:
            errors = self._known[near] - wanted
            cost = (errors ** 2).sum(1)
        self._columns.append((near, before))
        self._last = near, errors, cost - cost.min()

    def choose(self):
        end = int(self._last[2].argmin())
        best = end
        for _, before in reversed(self._columns[1:]):
            best = before[best]
        frames, _ = self._columns.pop(0)
        if not self._columns:  # nothing ahead: the path goes on from what was chosen, whatever comes
            self._last = tuple(values[end:end + 1] for values in self._last)
        return int(frames[best])


class LimbWarp:
    """Draws a target (a VideoSkeleton) limb by limb. size: pixels of what is drawn, by default the canvas's;
    kept: frames of the target that stay in memory.

    Call `see` for each pose, in order and ahead of `paint` where what comes is known (LOOK_AHEAD poses are enough);
    `reset` at a cut.
    """

    def __init__(self, target, size=None, kept=KEPT):
        self._target, self.size, self._most = target, size or target.size, kept
        self.plate = resize(crop(target.plate, target.box, target.size), self.size)
        seen = heights(target.joints)
        self._height = float(np.percentile(seen, STANDING))  # that of the skeletons asked for
        # and in each frame: as it moves closer or the camera zooms, a body grows
        self._heights = percentile_filter(seen, ZOOM, int(2 * NEARBY * target.fps) + 1, mode="nearest")
        self._known = {}
        for chain in CHAINS:
            cost = np.sqrt(OVERLAP * overlap(target.joints, chain, self._heights))  # wanted: none
            self._known[chain] = np.column_stack([shapes(target.joints, chain, self._heights), cost])
        self._paths = {chain: Path(known) for chain, known in self._known.items()}
        self._grid = (np.mgrid[:LABELS, :LABELS][::-1].transpose(1, 2, 0) + 0.5).astype(np.float32) / LABELS
        self._kept = OrderedDict()
        self._waiting = 0

    def reset(self):
        """Forget what was seen and shown before."""
        self._waiting = 0
        for path in self._paths.values():
            path.reset()

    def see(self, skeleton):
        """Take note of the next Skeleton that will be painted."""
        for chain, path in self._paths.items():
            path.see(self._wanted(chain, skeleton.joints))
        self._waiting += 1

    def generate(self, skeleton):
        """The image (uint8 H x W x 3 BGR) of a Skeleton."""
        return self.paint(skeleton)[0]

    def paint(self, skeleton):
        """The image, and the person's mask in it (uint8 H x W, 255 inside)."""
        picture, cover = self.draw(skeleton.joints, self.follow(skeleton))
        # its soft edges are on the background already: the mask holds all of them
        return picture, cv2.dilate((cover > 0).astype(np.uint8) * 255, np.ones((5, 5), np.uint8))

    def follow(self, skeleton):
        """{chain: frame} for the oldest Skeleton seen but not painted; for this one, where none was seen ahead."""
        if not self._waiting:
            self.see(skeleton)
        self._waiting -= 1
        return {chain: path.choose() for chain, path in self._paths.items()}

    def alike(self, chain, joints):
        """Every frame of the target, those whose chain is most alike first."""
        return ((self._known[chain] - self._wanted(chain, joints)) ** 2).sum(1).argsort()

    def draw(self, joints, frames):
        """The picture (uint8 S x S x 3 BGR) of {chain: frame} carried to `joints`, over the plate, and how far each
        pixel belongs to the person (float32 S x S)."""
        drawn = []
        for chain, parts in CHAINS.items():
            image, masks = self._parts(frames[chain])
            for part in parts:
                drawn.append((self._depth(part, joints), image, masks[part], self._map(part, frames[chain], joints)))
        picture, cover = self.plate.copy(), np.zeros((self.size, self.size), np.float32)
        for _, image, mask, matrix in sorted(drawn, key=lambda item: -item[0]):
            self._draw(picture, cover, image, *mask, matrix)
        return picture, cover

    def _wanted(self, chain, joints):
        return np.append(shapes(joints[None], chain, self._height)[0], 0)

    def _parts(self, index):
        """(image, {part: (mask float32 in [0, 1], its left, its top)}) of a frame; masks in pixels of LABELS."""
        if index not in self._kept:
            joints = self._target.joints[index]
            person = cv2.resize(self._target.mask(index), (LABELS, LABELS), interpolation=cv2.INTER_AREA)
            person = person.astype(np.float32) / 255
            left, top, width, height = cv2.boundingRect((person > SOLID[0]).astype(np.uint8))
            person, grid = (x[top:top + height, left:left + width] for x in (person, self._grid))
            away = {part: _to_segment(grid, *_bone(joints, part)) / (radius * self._heights[index])
                    for part, (_, _, radius) in PARTS.items()}
            nearest = np.min(list(away.values()), 0)
            masks = {}
            for part, own in away.items():
                mask = person * np.clip((nearest + SHARED - own) / SHARED, 0, 1) * np.clip((REACH - own) * 2, 0, 1)
                x, y, width, height = cv2.boundingRect((mask > SOLID[0]).astype(np.uint8))
                x, y = max(x - 1, 0), max(y - 1, 0)  # a pixel more on each side: the mask ends softly
                mask = mask[y:y + height + 2, x:x + width + 2].copy() if width else mask[:0]
                masks[part] = mask, left + x, top + y
            self._kept[index] = resize(self._target.image(index), self.size), masks
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
        self._kept.move_to_end(index)
        return self._kept[index]

    def _depth(self, part, joints):
        """Larger is farther. Legs stay close to the trunk's depth, whatever the detector thinks of theirs."""
        if part in ("torso", "head"):
            return 0.0 if part == "torso" else -0.08
        z = (point(joints, PARTS[part][0])[2] + point(joints, PARTS[part][1])[2]) / 2
        return float(z if "arm" in part else 0.3 * z + 0.02)

    def _map(self, part, index, joints):
        """2 x 3 affine map from the frame's canvas to this one, in pixels."""
        there, here = self._target.joints[index], joints
        size = self._height / self._heights[index]
        if part in ("torso", "head"):
            some = [11, 12, 23, 24] if part == "torso" else [0, 7, 8, 11, 12]
            return similarity(there[some, :2] * self.size, here[some, :2] * self.size, size)
        (a, b), (c, d) = ([point(j, end)[:2] * self.size for end in PARTS[part][:2]] for j in (there, here))
        return bone_map(a, b, c, d, size)

    def _draw(self, picture, cover, image, mask, left, top, matrix):
        """Draw a part onto the picture, in the box that holds it."""
        if not mask.size:
            return
        scale = self.size / LABELS
        x, y = np.array([left, left + mask.shape[1]]) * scale, np.array([top, top + mask.shape[0]]) * scale
        corners = np.array([[x[i], y[j], 1] for i in (0, 1) for j in (0, 1)]) @ matrix.T
        west, north = np.clip(np.floor(corners.min(0)) - 1, 0, self.size).astype(int)
        east, south = np.clip(np.ceil(corners.max(0)) + 1, 0, self.size).astype(int)
        if east <= west or south <= north:
            return
        size, inside = (east - west, south - north), np.s_[north:south, west:east]
        matrix = matrix - np.array([[0, 0, west], [0, 0, north]])
        grown = matrix @ np.array([[scale, 0, x[0] + scale / 2 - 0.5], [0, scale, y[0] + scale / 2 - 0.5], [0, 0, 1]])
        colours = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        share = (cv2.warpAffine(mask, grown, size, flags=cv2.INTER_LINEAR) - SOLID[0]) / (SOLID[1] - SOLID[0])
        share = np.clip(share, 0, 1)
        picture[inside] = cv2.blendLinear(colours, np.ascontiguousarray(picture[inside]), share, 1 - share)
        cover[inside] = np.maximum(cover[inside], share)


def _bone(joints, part):
    """The segment (start, end), x and y, around which a part's pixels are: its bone, longer where flesh goes on."""
    start, end = (point(joints, landmark)[:2] for landmark in PARTS[part][:2])
    along = end - start
    if "forearm" in part:  # the hand
        return start, end + 0.55 * along
    if part == "head":
        return start + 0.1 * along, end + 0.9 * along
    if "foot" in part:
        return start - 0.2 * along, end + 0.35 * along
    return start, end


def similarity(start, end, size=1.0):
    """2 x 3: turn, scale and shift that lay points (N, 2) on others with least squares (Umeyama 1991, in the plane);
    the scale stays within SCALE times `size`."""
    middle, goal = start.mean(0), end.mean(0)
    a, b = start - middle, end - goal
    spread = max((a * a).sum(), 1e-9)
    turn = np.array([(a * b).sum(), (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()]) / spread
    scale = max(np.linalg.norm(turn), 1e-9)
    cosine, sine = turn / scale * np.clip(scale, SCALE[0] * size, SCALE[1] * size)
    turn = np.array([[cosine, -sine], [sine, cosine]])
    return np.column_stack([turn, goal - turn @ middle])


def bone_map(a, b, c, d, size=1.0):
    """2 x 3: lays the bone a-b on c-d by its middle, stretched along within LENGTHEN and across within WIDEN, times
    `size`."""
    old, new = b - a, d - c
    length = max(np.linalg.norm(old), 1e-6)
    stretch, angle = np.linalg.norm(new) / length / size, np.arctan2(new[1], new[0]) - np.arctan2(old[1], old[0])
    along = old / length
    across = np.array([-along[1], along[0]])
    scale = np.clip(stretch, *LENGTHEN) * np.outer(along, along) + np.clip(stretch, *WIDEN) * np.outer(across, across)
    turn = size * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ scale
    return np.column_stack([turn, (c + d) / 2 - turn @ (a + b) / 2])
