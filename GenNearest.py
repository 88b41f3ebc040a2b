"""GEN_TYPE 1, nearest neighbour: the frame of the target whose skeleton is closest. No learning.

    python DanceDemo.py --gen-type 1
    python DanceDemo.py --gen-type 1 --continuity 4

Realistic, since every answer is a real frame, and deterministic; but it jumps from frame to frame. With a continuity
the whole dance is planned at once: of all sequences of frames, the one that is near to every pose and whose error
changes least from frame to frame, as a jump is a change of error (dynamic programming, as in Video Textures: Schoedl
et al., SIGGRAPH 2000).
"""

from collections import deque

import numpy as np
from scipy.spatial import cKDTree

CANDIDATES = 64  # frames considered for each pose when a sequence is planned
SLACK = 1e-9  # relative: what two orders of summation may differ by in float64


class NearestSkeleton:
    """Exact nearest neighbour among skeleton vectors by Euclidean distance; ties go to the lowest index.

    vectors: (N, D) array. A k-d tree (Bentley 1975; scipy's cKDTree) finds the distance; all vectors at that distance
    up to rounding are then compared by one formula, so that the answer is that of the brute-force search.
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
    """Indices (M,), one of candidates[i] for each wanted[i], with the least
    sum |error_i|^2 + continuity x sum |error_i - error_(i-1)|^2 where error_i = vectors[index_i] - wanted[i].

    vectors (N, D), wanted (M, D), candidates (M, K); the exact minimum (Viterbi 1967).
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


class GenNearest:
    """Generator 1. target: a VideoSkeleton; full: compare all 99 values instead of the 26.

    continuity: 0, or the weight of `plan_sequence`; then `plan` is to be called before the first `generate`.
    """

    def __init__(self, target, full=False, continuity=0.0):
        self._target, self._full, self.continuity = target, full, continuity
        self._vectors = target.full if full else target.reduced
        self._nearest = NearestSkeleton(self._vectors)
        self._planned = deque()

    def plan(self, shots):
        """Fix the answers to the next calls. shots: lists of the Skeletons to come; a cut is between them."""
        for shot in shots:
            wanted = np.stack([self._values(skeleton) for skeleton in shot])
            nearest = self._nearest.candidates(wanted, CANDIDATES)
            self._planned.extend(plan_sequence(self._vectors, wanted, nearest, self.continuity).tolist())

    def generate(self, skeleton):
        """The stored canvas image (uint8 H x W x 3 BGR) of the skeleton closest to `skeleton`."""
        return self._target.image(self._choose(skeleton))

    def paint(self, skeleton):
        """The image, and the person's mask where she must be cut out of it (uint8 H x W, 255 inside), or None: a real
        frame of a still camera fits into its scene with floor and shadow."""
        index = self._choose(skeleton)
        return self._target.image(index), None if self._target.still else self._target.mask(index)

    def _choose(self, skeleton):
        return self._planned.popleft() if self._planned else self._nearest.query(self._values(skeleton))

    def _values(self, skeleton):
        return skeleton.full if self._full else skeleton.reduced
