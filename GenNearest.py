"""GEN_TYPE 1, nearest neighbour: the frame of the target whose skeleton is closest. No learning.

    python DanceDemo.py --gen-type 1

Realistic, since every answer is a real frame, and deterministic; but it jumps from frame to frame.
"""

import numpy as np
from scipy.spatial import cKDTree

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


class GenNearest:
    """Generator 1. target: a VideoSkeleton; full: compare all 99 values instead of the 26."""

    def __init__(self, target, full=False):
        self._target, self._full = target, full
        self._nearest = NearestSkeleton(target.full if full else target.reduced)

    def generate(self, skeleton):
        """The stored canvas image (uint8 H x W x 3 BGR) of the skeleton closest to `skeleton`."""
        return self._target.image(self._nearest.query(skeleton.full if self._full else skeleton.reduced))
