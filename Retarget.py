"""The source's motion placed on the target's canvas: same body height, same ground, same middle.

In the spirit of the global pose normalization of Everybody Dance Now (Chan et al., ICCV 2019): one scale and one
shift for the whole clip, from robust statistics of both tracks, so that movement across the picture is kept.
"""

from itertools import pairwise

import numpy as np

from Skeleton import ANKLES, HIPS, NOSE, SHOULDERS, PoseDetector
from VideoReader import VideoReader

LOOK = 600  # frames at the beginning of a file that are looked at before the first one is placed
SAMPLES = 24  # of them in which the pose is detected: about a second of work
STANDING = 90  # percentile of the body heights seen: bending and foreshortening only ever shorten a body
GROUND = 90  # percentile of the lowest ankle: jumps and steps only ever lift it
LIVE_FRAMES = 300  # of a live source that the running estimate remembers


class Retarget:
    """Places source skeletons on the canvas of `target` (a VideoSkeleton).

    source: float32 (N, 33, 3) joints seen in the source, in its own units, or None for a live source: then `place`
    fits to the last LIVE_FRAMES skeletons that it was given.
    """

    def __init__(self, target, source=None):
        self._goal = _stance(target.joints)
        self._seen = []
        self._live = source is None or len(source) == 0
        if not self._live:
            self._fit(source)

    def place(self, skeleton):
        """The Skeleton in canvas units."""
        if self._live:
            self._seen = [*self._seen[1 - LIVE_FRAMES:], skeleton.joints]
            self._fit(np.stack(self._seen))
        return skeleton.moved(self._scale, self._shift)

    def _fit(self, joints):
        height, middle, ground = _stance(joints)
        goal_height, goal_middle, goal_ground = self._goal
        self._scale = goal_height / height
        self._shift = goal_middle - self._scale * middle, goal_ground - self._scale * ground


def _stance(joints):
    """(body height, x of the middle, y of the ground) of a track (N, 33, 3).

    The height is that of the body's own chain: nose to shoulders to hips to knees to ankles, in the picture plane.
    """
    points = joints[:, :, :2]
    chain = [points[:, NOSE], *(points[:, pair].mean(1) for pair in (SHOULDERS, HIPS, (25, 26), ANKLES))]
    heights = sum(np.linalg.norm(b - a, axis=1) for a, b in pairwise(chain))
    ground = np.percentile(points[:, ANKLES, 1].max(1), GROUND)
    return float(np.percentile(heights, STANDING)), float(np.median(points[:, HIPS, 0])), float(ground)


def look(source, model="full"):
    """Joints float32 (n, 33, 3) of up to SAMPLES frames spread over the first LOOK of a file; n may be 0."""
    joints = []
    with VideoReader(source) as reader, PoseDetector(mode="image", model=model) as detector:
        every = max(1, min(reader.frame_count or LOOK, LOOK) // SAMPLES)
        for number, frame in enumerate(reader):
            if number == LOOK:
                break
            if number % every == 0 and (found := detector.detect(frame)[0]) is not None:
                joints.append(found.joints)
    return np.array(joints, np.float32).reshape(-1, 33, 3)
