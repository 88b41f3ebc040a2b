"""The source's motion on the target's body and canvas: same ground, same middle, same height, the target's limbs.

Placement in the spirit of the global pose normalization of Everybody Dance Now (Chan et al., ICCV 2019): one scale and
one shift for a whole shot, from robust statistics of both tracks, so that movement across the picture is kept. Each
bone keeps the direction and foreshortening that it has in the source's picture and takes the target's length. After a
cut the camera may be elsewhere: each shot has a placement of its own.
"""

import cv2
import numpy as np

from PoseTrack import Cuts, heights, point, thumbnail
from Skeleton import ANKLES, HIPS, NOSE, SHOULDERS, Skeleton, detect_all
from VideoReader import VideoReader

LOOK = 600  # frames at the beginning of a shot that are looked at before its first one is placed,
EVERY, SHORT = 10, 2  # every so many of them has its pose found; in a shot that gives fewer than FEWEST, of these
FEWEST = 8
LOOK_SIZE = 640  # pixels of the longer side in which it is found
LIVE_FRAMES = 300  # of a live source that the running estimate remembers
# Percentiles over a track. A bone is never longer than when it lies in the picture plane, a standing body never
# shorter than a bent one, and the lower ankle leaves the ground only upwards; but the extremes are the detector's.
LONGEST, STANDING, GROUND = 80, 90, 90
MOST_UNLIKE = 1.8  # times longer or shorter than the body's scale says: the limits of a limb

# (child, parent, landmarks that go with the child), parents first. A pair stands for the point halfway between its
# two landmarks; the first parent, between the hips, is the root.
BONES = [
    (SHOULDERS, HIPS, ()), (11, SHOULDERS, ()), (12, SHOULDERS, ()), (NOSE, SHOULDERS, tuple(range(1, 11))),
    (13, 11, ()), (14, 12, ()), (15, 13, (17, 19, 21)), (16, 14, (18, 20, 22)),
    (23, HIPS, ()), (24, HIPS, ()), (25, 23, ()), (26, 24, ()), (27, 25, (29, 31)), (28, 26, (30, 32)),
]
MIRRORED = [(1, 2), (4, 5), (6, 7), (8, 9), (10, 11), (12, 13)]  # left and right bones, taken as equally long


class Retarget:
    """Places source skeletons on the canvas of `target` (a VideoSkeleton).

    source: float32 (N, 33, 3) joints seen in the source, in its own units, or None for a live source: then `place`
    fits to the last LIVE_FRAMES skeletons that it was given.
    """

    def __init__(self, target, source=None):
        self._goal = target.joints
        self._goal_lengths, self._goal_height = bone_lengths(target.joints), body_height(target.joints)
        self._seen = []
        self._live = source is None or len(source) == 0
        if not self._live:
            self._fit(source)

    def place(self, skeleton):
        """The Skeleton in canvas units, with the target's limbs."""
        if self._live:
            self._seen = [*self._seen[1 - LIVE_FRAMES:], skeleton.joints]
            self._fit(np.stack(self._seen))
        return Skeleton(self._rebuild(skeleton.joints[None])[0] + self._shift, skeleton.visibility)

    def _fit(self, joints):
        self._scale = self._goal_height / body_height(joints)
        ratios = self._goal_lengths / np.maximum(bone_lengths(joints), 1e-6)
        # no two bodies differ more than this; a limb that was always seen foreshortened seems to
        self._ratios = np.clip(ratios, self._scale / MOST_UNLIKE, self._scale * MOST_UNLIKE)
        self._shift = np.float32([*(_stand(self._goal) - _stand(self._rebuild(joints))), 0])

    def _rebuild(self, joints):
        """The track (N, 33, 3) with the target's bone lengths, the lower foot as high as in the scaled source."""
        scaled = joints * self._scale
        new, points = np.empty_like(scaled), {HIPS: point(scaled, HIPS)}
        for (child, parent, carried), ratio in zip(BONES, self._ratios, strict=True):
            old = point(joints, child)
            points[child] = points[parent] + (old - point(joints, parent)) * ratio
            if isinstance(child, int):
                new[:, child] = points[child]
            for landmark in carried:
                new[:, landmark] = points[child] + (joints[:, landmark] - old) * ratio
        new[:, :, 1] += (_lower_foot(scaled) - _lower_foot(new))[:, None]
        return new


def bone_lengths(joints):
    """float (bones,): how long each of BONES is in the picture plane when nothing shortens it, left as right."""
    lengths = np.array([np.percentile(np.linalg.norm((point(joints, a) - point(joints, b))[:, :2], axis=1), LONGEST)
                        for a, b, _ in BONES])
    for pair in MIRRORED:
        lengths[list(pair)] = lengths[list(pair)].mean()
    return lengths


def body_height(joints):
    """Height of a standing body: nose to shoulders to hips to knees to ankles, in the picture plane."""
    return float(np.percentile(heights(joints), STANDING))


def _lower_foot(joints):
    return joints[:, ANKLES, 1].max(1)


def _stand(joints):
    """(x, y) of where a track stands: the middle of the hips and the ground."""
    return np.array([np.median(point(joints, HIPS)[:, 0]), np.percentile(_lower_foot(joints), GROUND)])


def look(source, model="full"):
    """Yield for each shot of a file joints float32 (n, 33, 3), of every EVERY-th of its first LOOK frames (of more in a
    short shot); n may be 0.

    Reads no further than it must, so the first shot is known within a second or two, however long the file is.
    """
    cuts, samples, count = Cuts(), [], 0

    def joints():
        chosen = [image for number, image in samples if count < FEWEST * EVERY or number % EVERY == 0]
        found = [skeleton.joints for _, skeleton, _ in detect_all(chosen, model) if skeleton is not None]
        return np.array(found, np.float32).reshape(-1, 33, 3)

    with VideoReader(source) as reader:
        for frame in reader:
            if cuts(thumbnail(frame)):
                if count < LOOK:
                    yield joints()
                samples, count = [], 0
            if count < LOOK and (count % EVERY == 0 or (count < FEWEST * EVERY and count % SHORT == 0)):
                scale = min(1, LOOK_SIZE / max(frame.shape[:2]))
                samples.append((count, cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)))
            count += 1
            if count == LOOK:
                yield joints()
    if count < LOOK:
        yield joints()
