"""Retrieval for limb warping: for each part of the body, which frame of the target shows it most alike.

The body is divided into six chains. Each chain is retrieved on its own, in a sequence of frames that changes little, in
the line of Video-based Characters (Xu et al., SIGGRAPH 2011).
"""

import numpy as np
from scipy.spatial import cKDTree

from motion.body import landmark_point
from Skeleton import HIPS, NOSE, SHOULDERS

CHAINS = ("torso", "head", "left arm", "right arm", "left leg", "right leg")
# The shape of a chain: vectors (to landmark, from landmark, weight). A pair stands for the point between two landmarks.
SHAPES = {
    "torso": [(11, HIPS, 1), (12, HIPS, 1), (23, HIPS, 1), (24, HIPS, 1)],
    "head": [(NOSE, SHOULDERS, 0.7), (7, NOSE, 1.4), (8, NOSE, 1.4), (7, 8, 1.4), (11, 12, 0.35)],
    "left arm": [(13, 11, 1), (15, 13, 1), (19, 15, 1), (11, SHOULDERS, 0.7)],
    "right arm": [(14, 12, 1), (16, 14, 1), (20, 16, 1), (12, SHOULDERS, 0.7)],
    "left leg": [(25, 23, 1), (27, 25, 1), (31, 27, 1), (23, HIPS, 0.7)],
    "right leg": [(26, 24, 1), (28, 26, 1), (32, 28, 1), (24, HIPS, 0.7)],
}
DEPTH = 0.35  # weight of z in a shape, because the detector is less sure of it
CANDIDATES = 64  # frames that are considered for a chain in each pose
CONTINUITY = 0.3  # cost of a change of the shape's error from one pose to the next
SWITCH = 0.0005  # cost of going on with another frame than the one that follows in the video
NEAR = 0.13  # body heights: limbs that are nearer to each other than this overlap in the picture
ARM_JOINTS = (13, 14, 15, 16, 19, 20)  # elbows, wrists and index fingers


def shapes(joints, chain, height):
    """float (N, D): the shape of a chain in each pose of a track (N, 33, 3), in body heights; where the chain is in the
    picture does not change it. height: of the body, a number or (N,)."""
    parts = [(landmark_point(joints, tip) - landmark_point(joints, root)) * np.float32([1, 1, DEPTH]) * weight
             for tip, root, weight in SHAPES[chain]]
    return np.concatenate(parts, -1) / np.reshape(height, (-1, 1))


def overlap(joints, chain, height):
    """(N,): how much other limbs overlap a chain in each pose of a track (N, 33, 3), from 0 up. Where they do, not all
    pixels there belong to the chain."""
    top, bottom = landmark_point(joints, SHOULDERS)[:, :2], landmark_point(joints, HIPS)[:, :2]

    def nearness(distance):
        return np.clip(NEAR - distance / height, 0, None)

    def apart(one, other):
        return np.linalg.norm(joints[:, one, :2] - joints[:, other, :2], axis=1)

    on_torso = {joint: nearness(distance_to_segment(joints[:, joint, :2], top, bottom)) for joint in ARM_JOINTS}
    if chain == "torso":  # fingers often lie on the hips
        return sum(on_torso.values()) + sum(nearness(apart(finger, hip)) for finger in (19, 20) for hip in HIPS)
    if chain == "head":
        return sum(nearness(apart(joint, NOSE)) for joint in ARM_JOINTS)
    if "arm" in chain:
        elbow, wrist = (13, 15) if chain == "left arm" else (14, 16)
        return on_torso[elbow] + on_torso[wrist] + nearness(apart(wrist, NOSE)) + nearness(apart(15, 16))
    return np.zeros(len(joints))


def distance_to_segment(points, start, end):
    """(...,): the distance of points (..., 2) from the line segments between start and end, (2,) or (..., 2)."""
    (x, y), (along_x, along_y) = np.moveaxis(points - start, -1, 0), np.moveaxis(end - start, -1, 0)
    share = np.clip((x * along_x + y * along_y) / np.maximum(along_x ** 2 + along_y ** 2, 1e-9), 0, 1)
    return np.hypot(x - share * along_x, y - share * along_y)


class FrameChooser:
    """Chooses the frames for one chain. known: float (frames, D), the shape of the chain in each frame of the target.

    The cost of a sequence of frames is the sum of its squared errors, of CONTINUITY times the squared changes of the
    error, and of SWITCH for each jump to another frame. Only the CANDIDATES most alike frames of each pose, and the
    ones that go on from the pose before, are considered.
    """

    def __init__(self, known):
        self._known, self._tree = known, cKDTree(known)
        self.forget()

    def forget(self):
        """The next pose need not go on from the one before."""
        # Of the last pose: its candidate frames (K,), their errors (K, D), and the costs of the paths to them (K,).
        self._last = None

    def plan(self, wanted):
        """int (M,): the cheapest sequence of frames for the shapes `wanted` (M, D) of a whole shot (Viterbi 1967)."""
        self.forget()
        steps = []  # for each pose: the candidates (K,), and for each of them which candidate came before it (K,)
        for shape in wanted:
            before = self._step(shape)
            steps.append((self._last[0].astype(np.int32), before.astype(np.int16)))
        best, frames = int(self._last[2].argmin()), []
        for candidates, before in reversed(steps):
            frames.append(candidates[best])
            best = before[best]
        self.forget()
        return np.array(frames[::-1])

    def choose(self, wanted):
        """The frame for one more shape (D,), without knowing what comes: it goes on from what was chosen before."""
        self._step(wanted)
        frames, errors, costs = self._last
        best = int(costs.argmin())
        self._last = frames[[best]], errors[[best]], costs[[best]]
        return int(frames[best])

    def _step(self, wanted):
        """Go on to the next shape (D,); returns for each of its candidates the number of the candidate before it."""
        near = np.atleast_1d(self._tree.query(wanted, min(CANDIDATES, len(self._known)))[1])
        if self._last is None:
            errors, before = self._known[near] - wanted, np.zeros(len(near), int)
            cost = (errors ** 2).sum(1)
        else:
            frames, old, old_cost = self._last
            best = frames[old_cost.argmin()]
            near = np.append(near, [best, min(best + 1, len(self._known) - 1)])
            errors = self._known[near] - wanted
            own = (errors ** 2).sum(1)
            change = own[:, None] + (old ** 2).sum(1) - 2 * errors @ old.T  # |a - b|^2 of every pair
            switched = (near[:, None] != frames) & (near[:, None] != frames + 1)
            total = old_cost + CONTINUITY * change + SWITCH * switched
            before = total.argmin(1)
            cost = total.min(1) + own
        self._last = near, errors, cost - cost.min()  # only differences count, and the sum must not grow without end
        return before
