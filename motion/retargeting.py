"""Retargeting: the source's motion on the target's body and canvas, with the same ground, middle, height and limbs.

The placement follows the global pose normalization of Everybody Dance Now (Chan et al., ICCV 2019): one scale and one
shift for a whole shot, from robust statistics of both tracks, so movement across the picture is kept. Each bone keeps
the direction and foreshortening that it has in the source's picture and takes the target's length. After a cut the
camera may be elsewhere, so each shot has a placement of its own.
"""

import numpy as np

from motion import body
from motion.body import BONES, HIPS, bone_lengths, landmark_point, lowest_joint, standing_point
from Skeleton import Skeleton

LIVE_FRAMES = 300  # poses of a webcam's dancer to which the placement is fitted: the last ones
# How many times longer or shorter a limb may become beside the body's scale. No two bodies differ more, but a limb that
# was always seen foreshortened seems to.
MOST_UNLIKE = 1.8
MOST_BENT = 1.15  # how far the scale by the whole body's height may be from the scale by the length of most bones


def place(track, target):
    """The Track `track` (steady) on the body and canvas of `target` (a VideoSkeleton), in canvas units; NaN where
    nobody is. Each shot is placed on its own, by all of its poses."""
    joints, present, retargeting = track.joints.copy(), track.present, Retargeting(target)
    for shot in track.shot_slices:
        if present[shot].any():
            shown = joints[shot][present[shot]]
            retargeting.fit(shown)
            joints[shot][present[shot]] = retargeting.apply(shown)
    return track.with_poses(joints, track.visibility)


class Retargeting:
    """Puts source poses, float32 (N, 33, 3) in any unit, on the body and canvas of `target` (a VideoSkeleton).

    scale: how many times larger than in the source the body is, after `fit`.
    """

    def __init__(self, target):
        self._goal_lengths, self._goal_height = bone_lengths(target.joints), body.body_height(target.joints)
        self._goal_point = standing_point(target.joints)

    def fit(self, joints):
        """Choose scale, bone lengths and shift by the poses `joints` of the source."""
        ratios = self._goal_lengths / np.maximum(bone_lengths(joints), 1e-6)
        # Somebody who sits or bends all the time measures less than when standing, but most bones have their length.
        typical = np.median(ratios[body.WELL_MEASURED])
        scale = self._goal_height / max(body.body_height(joints), 1e-6)
        self.scale = np.clip(scale, typical / MOST_BENT, typical * MOST_BENT)
        self._ratios = np.clip(ratios, self.scale / MOST_UNLIKE, self.scale * MOST_UNLIKE)
        self._shift = np.float32([*(self._goal_point - standing_point(self._rebuild(joints))), 0])

    def apply(self, joints):
        """The poses in canvas units, with the target's limbs."""
        return self._rebuild(joints) + self._shift

    def _rebuild(self, joints):
        """The poses with the target's bone lengths, and with the lowest joint as high as in the scaled source."""
        scaled = joints * self.scale
        new, points = np.empty_like(scaled), {HIPS: landmark_point(scaled, HIPS)}
        for (child, parent, carried), ratio in zip(BONES, self._ratios, strict=True):
            old = landmark_point(joints, child)
            points[child] = points[parent] + (old - landmark_point(joints, parent)) * ratio
            if isinstance(child, int):
                new[:, child] = points[child]
            for landmark in carried:
                new[:, landmark] = points[child] + (joints[:, landmark] - old) * ratio
        new[:, :, 1] += (lowest_joint(scaled) - lowest_joint(new))[:, None]
        return new


class LiveRetargeting:
    """The same for a webcam, whose motion is not known: the placement is fitted to the last LIVE_FRAMES poses."""

    def __init__(self, target):
        self._retargeting, self._seen = Retargeting(target), []

    def place(self, skeleton):
        """The Skeleton in canvas units, with the target's limbs."""
        self._seen = [*self._seen[1 - LIVE_FRAMES:], skeleton.joints]
        self._retargeting.fit(np.stack(self._seen))
        return Skeleton(self._retargeting.apply(skeleton.joints[None])[0], skeleton.visibility)
