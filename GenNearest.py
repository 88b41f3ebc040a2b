"""GEN_TYPE 1, nearest neighbour: the frame of the target whose skeleton is closest. Nothing is learned.

    python DanceDemo.py --gen-type 1
    python DanceDemo.py --gen-type 1 --continuity 4

It is realistic, because every image is a real frame, and deterministic; but it jumps from frame to frame. With a
continuity the frames of a whole shot are planned together: of all sequences of frames, the one that is near to every
pose and whose error changes least from frame to frame, because a jump is a change of the error (dynamic programming, as
in Video Textures: Schoedl et al., SIGGRAPH 2000).
"""

import numpy as np
from scipy.spatial import cKDTree

from picture.canvas import Generator

CANDIDATES = 64  # frames that are considered for each pose when a sequence is planned
SLACK = 1e-9  # relative difference that two orders of summation may make in float64


class NearestSkeleton:
    """Exact nearest neighbour among skeleton vectors by Euclidean distance; ties go to the lowest index.

    vectors: (N, D) array. A k-d tree (Bentley 1975; scipy's cKDTree) finds the least distance. All vectors at that
    distance, up to rounding, are then compared by one formula, so the answer is that of a search through all vectors.
    """

    def __init__(self, vectors):
        self._vectors = np.ascontiguousarray(vectors, np.float64)
        self._tree = cKDTree(self._vectors)

    def query(self, vector):
        """Index of the vector nearest to `vector` (D,)."""
        vector = np.asarray(vector, np.float64)
        distance, _ = self._tree.query(vector)
        tied = np.sort(self._tree.query_ball_point(vector, distance * (1 + SLACK)))
        return int(tied[((self._vectors[tied] - vector) ** 2).sum(1).argmin()])

    def candidates(self, vectors, count):
        """(M, count) indices of the `count` nearest to each of `vectors` (M, D), nearest first."""
        count = min(count, len(self._vectors))
        return self._tree.query(np.asarray(vectors, np.float64), count)[1].reshape(len(vectors), count)


def plan_sequence(vectors, wanted, candidates, continuity):
    """int (M,): for each wanted[i] one of candidates[i], such that this sum is least:
    sum |error_i|^2 + continuity x sum |error_i - error_(i-1)|^2 where error_i = vectors[index_i] - wanted[i].

    vectors (N, D), wanted (M, D), candidates int (M, K). It is the exact minimum (Viterbi 1967).
    """
    before = vectors[candidates[0]].astype(np.float64) - wanted[0]  # errors (K, D)
    past = cost = (before ** 2).sum(1)
    came_from = []
    for indices, pose in zip(candidates[1:], wanted[1:], strict=True):
        after = vectors[indices].astype(np.float64) - pose
        own = (after ** 2).sum(1)
        change = np.maximum(past[:, None] + own[None] - 2 * before @ after.T, 0)  # |a - b|^2 of every pair
        total = cost[:, None] + continuity * change
        came_from.append(total.argmin(0).astype(np.int16))
        cost, before, past = total.min(0) + own, after, own
    path = [int(cost.argmin())]
    for back in reversed(came_from):
        path.append(int(back[path[-1]]))
    return candidates[np.arange(len(candidates)), path[::-1]]


class GenNearest(Generator):
    """Generator 1. target: a VideoSkeleton; continuity: 0, or the weight in `plan_sequence` for planning each shot."""

    def __init__(self, target, continuity=0.0):
        self._target, self._continuity, self._nearest = target, continuity, NearestSkeleton(target.reduced)
        self._planned = {}  # of each announced pose, as bytes: the number of the target's frame

    def prepare(self, placed):
        self._planned = {}
        for shot in placed.shot_slices if self._continuity else ():
            skeletons = [skeleton for number in range(shot.start, shot.stop) if (skeleton := placed.skeleton(number))]
            if skeletons:
                wanted = np.stack([skeleton.reduced for skeleton in skeletons])
                nearest = self._nearest.candidates(wanted, CANDIDATES)
                frames = plan_sequence(self._target.reduced, wanted, nearest, self._continuity).tolist()
                self._planned |= {s.joints.tobytes(): frame for s, frame in zip(skeletons, frames, strict=True)}

    def generate(self, skeleton):
        frame = self._planned.get(skeleton.joints.tobytes())
        if frame is None:
            frame = self._nearest.query(skeleton.reduced)
        # A frame of a camera that stood still fits into the scene as it is, with its floor and shadow.
        self.mask = None if self._target.still else self._target.mask(frame)
        return self._target.image(frame)
