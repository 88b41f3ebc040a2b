"""GEN_TYPE 5, retrieve and warp: each limb from the frame where it looked most alike, carried to where it is wanted.

    python DanceDemo.py --gen-type 5        # no training: works at once

The body is five chains (trunk with head, arms, legs) of twelve parts. For each chain the target's frame is retrieved
whose chain has the most similar shape, apart from where it is; each part of it is carried by an affine map from its
bone there to its bone here, and drawn, far to near, over the background. Every pixel is a real one, so it is sharp;
every limb goes where it is asked to, so it moves smoothly. In the line of Xu et al. (Video-based Characters, SIGGRAPH
2011: retrieval, then warping) and Balakrishnan et al. (CVPR 2018: a warp for each limb, over a background).
"""

from collections import OrderedDict

import cv2
import numpy as np
from scipy.spatial import cKDTree

from PoseTrack import heights, point
from Skeleton import HIPS, NOSE, SHOULDERS
from VideoSkeleton import crop

# Each part's bone (a pair of landmarks stands for the point between them) and its radius in body heights.
PARTS = {
    "torso": (SHOULDERS, HIPS, 0.13), "head": (SHOULDERS, NOSE, 0.10),
    "left upper arm": (11, 13, 0.055), "left forearm": (13, 15, 0.045),
    "right upper arm": (12, 14, 0.055), "right forearm": (14, 16, 0.045),
    "left thigh": (23, 25, 0.075), "left shin": (25, 27, 0.055), "left foot": (27, 31, 0.04),
    "right thigh": (24, 26, 0.075), "right shin": (26, 28, 0.055), "right foot": (28, 32, 0.04),
}
CHAINS = {
    "trunk": ["torso", "head"],
    "left arm": ["left upper arm", "left forearm"], "right arm": ["right upper arm", "right forearm"],
    "left leg": ["left thigh", "left shin", "left foot"], "right leg": ["right thigh", "right shin", "right foot"],
}
# A chain's shape: differences (landmark, from landmark, weight).
SHAPES = {
    "trunk": [(11, HIPS, 1), (12, HIPS, 1), (23, HIPS, 1), (24, HIPS, 1), (NOSE, SHOULDERS, 2), (7, SHOULDERS, 1.5),
              (8, SHOULDERS, 1.5)],
    "left arm": [(13, 11, 1), (15, 13, 1), (19, 15, 1), (11, SHOULDERS, 0.7)],
    "right arm": [(14, 12, 1), (16, 14, 1), (20, 16, 1), (12, SHOULDERS, 0.7)],
    "left leg": [(25, 23, 1), (27, 25, 1), (31, 27, 1), (23, HIPS, 0.7)],
    "right leg": [(26, 24, 1), (28, 26, 1), (32, 28, 1), (24, HIPS, 0.7)],
}
DEPTH = 0.35  # weight of z in a shape: the detector is less sure of it
CONTINUITY, SWITCH = 0.7, 0.001  # costs of a change of a shape's error, and of going on with another frame
CANDIDATES = 48  # frames considered for a chain
OVERLAP, NEAR = 0.3, 0.13  # cost, in shape^2 per body height, of an arm that in its frame is NEAR the trunk or a hand
LABELS = 128  # pixels of a part's mask
SHARED, REACH = 0.35, 2.4  # in radii: how far a part goes on beneath its neighbour, and from its bone
SOLID = 0.35, 0.65  # between these a part's mask goes from nothing to all
LENGTHEN, WIDEN = (0.6, 1.5), (0.9, 1.1)  # what a part may be stretched along and across its bone
KEPT = 64  # frames whose parts stay in memory


def shapes(joints, chain, height):
    """float (N, D): what makes a chain of a track (N, 33, 3) look alike, in body heights, wherever it is."""
    parts = [(point(joints, tip) - point(joints, root)) * np.float32([1, 1, DEPTH]) * weight
             for tip, root, weight in SHAPES[chain]]
    return np.concatenate(parts, -1) / height


def arm_overlap(joints, chain, height):
    """(N,): how much an arm lies on the trunk, the head or the other hand: there the pixels are not all its own."""
    elbow, wrist, other = (13, 15, 16) if chain == "left arm" else (14, 16, 15)
    top, bottom = point(joints, SHOULDERS)[:, :2], point(joints, HIPS)[:, :2]
    total = 0
    for joint in (elbow, wrist):
        total = total + np.clip(NEAR - _to_segment(joints[:, joint, :2], top, bottom) / height, 0, None)
    for place in (other, NOSE):
        away = np.linalg.norm(joints[:, wrist, :2] - joints[:, place, :2], axis=1)
        total = total + np.clip(NEAR - away / height, 0, None)
    return total


def _to_segment(points, start, end):
    """Distance of points (..., 2) from the segment start-end."""
    along = end - start
    share = ((points - start) * along).sum(-1) / np.maximum((along * along).sum(-1), 1e-9)
    return np.linalg.norm(points - (start + np.clip(share, 0, 1)[..., None] * along), axis=-1)


class GenWarp:
    """Generator 5 for a target (a VideoSkeleton). It remembers what it showed last: `reset` at a cut."""

    def __init__(self, target):
        self._target, self._size = target, target.size
        self._plate = crop(target.plate, target.box, target.size)
        self._height = float(np.percentile(heights(target.joints), 90))
        self._shapes, self._trees, self._known = {}, {}, OrderedDict()
        for chain in CHAINS:
            values = shapes(target.joints, chain, self._height)
            cost = np.zeros(len(target))
            if "arm" in chain:
                cost = OVERLAP * arm_overlap(target.joints, chain, self._height)
            self._shapes[chain] = np.concatenate([values, np.sqrt(cost)[:, None]], 1)  # wanted: no overlap
            self._trees[chain] = cKDTree(self._shapes[chain])
        self._grid = (np.mgrid[:LABELS, :LABELS][::-1].transpose(1, 2, 0) + 0.5).astype(np.float32) / LABELS
        self.reset()

    def reset(self):
        """Forget what was shown before."""
        self._last = {}

    def generate(self, skeleton):
        """The image (uint8 H x W x 3 BGR, the canvas's size) of a Skeleton."""
        return self.paint(skeleton)[0]

    def paint(self, skeleton):
        """The image, and the person's mask in it (uint8 H x W, 255 inside)."""
        joints, drawn = skeleton.joints, []
        for chain, parts in CHAINS.items():
            index = self._retrieve(chain, joints)
            image, masks = self._parts(index)
            for part in parts:
                drawn.append((self._depth(part, joints), image, masks[part], self._map(part, index, joints)))
        picture, cover = self._plate.copy(), np.zeros((self._size, self._size), np.float32)
        for _, image, mask, matrix in sorted(drawn, key=lambda item: -item[0]):
            self._draw(picture, cover, image, mask, matrix)
        # its soft edges are on the background already: the mask holds all of them
        return picture, cv2.dilate((cover > 0).astype(np.uint8) * 255, np.ones((5, 5), np.uint8))

    def _retrieve(self, chain, joints):
        """Index of the frame whose chain is like the wanted one and goes on from the one shown before."""
        known, wanted = self._shapes[chain], np.append(shapes(joints, chain, self._height), 0)
        near = np.atleast_1d(self._trees[chain].query(wanted, min(CANDIDATES, len(known)))[1])
        if chain in self._last:
            index, error = self._last[chain]
            near = np.append(near, [index, min(index + 1, len(known) - 1)])
        errors = known[near] - wanted
        cost = (errors ** 2).sum(1)
        if chain in self._last:
            cost += CONTINUITY * ((errors - error) ** 2).sum(1) + SWITCH * (near != index)
        best = cost.argmin()
        self._last[chain] = int(near[best]), errors[best]
        return int(near[best])

    def _parts(self, index):
        """(canvas image, {part: mask float32 LABELS x LABELS in [0, 1]}) of a frame of the target."""
        if index not in self._known:
            joints = self._target.joints[index]
            person = cv2.resize(self._target.mask(index), (LABELS, LABELS), interpolation=cv2.INTER_AREA)
            person = person.astype(np.float32) / 255
            away = {part: _to_segment(self._grid, *_bone(joints, part)) / (radius * self._height)
                    for part, (_, _, radius) in PARTS.items()}
            nearest = np.min(list(away.values()), 0)
            masks = {part: person * np.clip((nearest + SHARED - own) / SHARED, 0, 1) * np.clip((REACH - own) * 2, 0, 1)
                     for part, own in away.items()}
            self._known[index] = self._target.image(index), masks
            if len(self._known) > KEPT:
                self._known.popitem(last=False)
        self._known.move_to_end(index)
        return self._known[index]

    def _depth(self, part, joints):
        """Larger is farther. Legs stay close to the trunk's depth, whatever the detector thinks of theirs."""
        if part in ("torso", "head"):
            return 0.0 if part == "torso" else -0.08
        z = (point(joints, PARTS[part][0])[2] + point(joints, PARTS[part][1])[2]) / 2
        return float(z if "arm" in part else 0.3 * z + 0.02)

    def _map(self, part, index, joints):
        """2 x 3 affine map from the frame's canvas to this one, in pixels."""
        there, here = self._target.joints[index], joints
        if part in ("torso", "head"):
            some = [11, 12, 23, 24] if part == "torso" else [0, 7, 8, 11, 12]
            return similarity(there[some, :2] * self._size, here[some, :2] * self._size)
        (a, b), (c, d) = ([point(j, end)[:2] * self._size for end in PARTS[part][:2]] for j in (there, here))
        return bone_map(a, b, c, d)

    def _draw(self, picture, cover, image, mask, matrix):
        """Draw a part onto the picture, in the box that holds it."""
        rows, columns = np.flatnonzero(mask.max(1) > SOLID[0]), np.flatnonzero(mask.max(0) > SOLID[0])
        if not len(rows):
            return
        scale = self._size / LABELS
        x, y = np.array([columns[0], columns[-1] + 1]) * scale, np.array([rows[0], rows[-1] + 1]) * scale
        corners = np.array([[x[i], y[j], 1] for i in (0, 1) for j in (0, 1)]) @ matrix.T
        left, top = np.clip(np.floor(corners.min(0)) - 1, 0, self._size).astype(int)
        right, bottom = np.clip(np.ceil(corners.max(0)) + 1, 0, self._size).astype(int)
        if right <= left or bottom <= top:
            return
        size, inside = (right - left, bottom - top), np.s_[top:bottom, left:right]
        matrix = matrix - np.array([[0, 0, left], [0, 0, top]])
        grown = matrix @ np.array([[scale, 0, scale / 2 - 0.5], [0, scale, scale / 2 - 0.5], [0, 0, 1]])
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


def similarity(start, end):
    """2 x 3: turn, scale and shift that lay points (N, 2) on others with least squares (Umeyama 1991, in the plane)."""
    middle, goal = start.mean(0), end.mean(0)
    a, b = start - middle, end - goal
    size = max((a * a).sum(), 1e-9)
    cosine, sine = (a * b).sum() / size, (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum() / size
    turn = np.array([[cosine, -sine], [sine, cosine]])
    return np.column_stack([turn, goal - turn @ middle])


def bone_map(a, b, c, d):
    """2 x 3: lays the bone a-b on c-d by its middle, stretched along within LENGTHEN and across within WIDEN."""
    old, new = b - a, d - c
    length = max(np.linalg.norm(old), 1e-6)
    stretch, angle = np.linalg.norm(new) / length, np.arctan2(new[1], new[0]) - np.arctan2(old[1], old[0])
    along = old / length
    across = np.array([-along[1], along[0]])
    scale = np.clip(stretch, *LENGTHEN) * np.outer(along, along) + np.clip(stretch, *WIDEN) * np.outer(across, across)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ scale
    return np.column_stack([turn, (c + d) / 2 - turn @ (a + b) / 2])
