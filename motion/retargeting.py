"""Retargeting: the source's motion on the target's body and canvas, with the same ground, size and limbs.

The placement follows the global pose normalization of Everybody Dance Now (Chan et al., ICCV 2019): one scale and one
shift for a whole shot, from robust statistics of both tracks, so movement across the picture is kept. A body looks
small where it bends, so its size is compared in poses that are alike in both tracks. Each bone keeps the direction and
foreshortening that it has in the source's picture and takes the target's length. The body stands where the target
stands; but where both videos seem to be filmed by one camera, it stays where it is in the source's picture. After a cut
the camera may be elsewhere, so each shot has a placement of its own. Where the body would leave the target's picture
although it stays in the source's, its way across the picture becomes shorter.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from motion import body
from motion.body import (
    BONES,
    HIPS,
    MIRRORED_BONES,
    bone_lengths,
    landmark_point,
    lowest_joint,
    picture_lengths,
    standing_point,
)
from Skeleton import REDUCED, Skeleton

LIVE_FRAMES = 300  # poses of a webcam's dancer to which the placement is fitted: the last ones
LIVE_FIRST, LIVE_EVERY = 100, 10  # it is fitted for each of the first poses, and then for every tenth pose
ALIKE = 5  # poses with which each pose is compared
CLOSEST = 0.5  # share of the poses that count: those that are most like poses of the other track
# Distances of shapes: up to the first one, pairs of poses tell the scale; from the second one on they are so unlike
# that the lengths of bones and bodies in each whole track tell it.
UNLIKE = (0.45, 0.8)
STRETCHED = 0.7  # of its longest: a bone that is shorter in the picture points towards the camera or away
FEW = 20  # pairs of poses in which a bone must be measured at least
# How much of a limb's difference from the body's scale is believed, as an exponent: all of it or, where one camera
# seems to have filmed both videos, less, because it is often one person, whose limbs differ by errors of measurement.
TRUST = 1.0
TRUST_ONE_CAMERA = 0.25
# Two videos seem to be filmed by one camera if their pictures have one shape, the bodies are of one size in them up to
# SAME_SIZE, and the source stands on the target's ground up to SAME_GROUND, and not farther than ASIDE beside places
# where the target has been; both in body heights.
SAME_SHAPE = 0.02
SAME_SIZE = 0.1
SAME_GROUND = 0.06
ASIDE = 0.3
# How many times longer or shorter a limb may become beside the body's scale. No two bodies differ more, but a limb that
# was always seen foreshortened seems to.
MOST_UNLIKE = 1.8
MOST_BENT = 1.15  # how far the scale may be from the scale by the length of most bones
# The body should stay in the picture: these landmarks of it, since hands may leave it, and a margin in body heights
# beyond them, to the left, to the top, to the right and to the bottom. The landmarks of the head end at its eyes.
STAYING = [0, 7, 8, 11, 12, 23, 24, 25, 26, 27, 28]
AROUND = (0.05, 0.12, 0.05, 0.05)
SELDOM = 0.02  # share of the poses that may leave it: these are errors of the detector, or leaps
SHARES = np.linspace(1, 0, 21)  # of its way across the picture that may be left
LOSS = 20  # a body that is outside by a body height, as the mean of all poses, counts so many times as much as the way


def place(track, target):
    """The Track `track` (steady) on the body and canvas of `target` (a VideoSkeleton), in canvas units; NaN where
    nobody is. Each shot is placed on its own, by all of its poses."""
    joints, present, retargeting = track.joints.copy(), track.present, Retargeting(target)
    inside = _inside(track.in_pictures().joints, track.size)
    for shot in track.shot_slices:
        if present[shot].any():
            shown = joints[shot][present[shot]]
            retargeting.fit(shown, track.size, inside[shot][present[shot]])
            joints[shot][present[shot]] = retargeting.apply(shown)
    return track.with_poses(joints, track.visibility)


@dataclass(frozen=True, eq=False)
class Poses:
    """What is compared of the poses (N, 33, 3) of a track. shapes: (N, 26), the 13 joints around their middle, divided
    by their size; sizes: (N,), their root mean square distance from the middle; lengths: (N, 14), of each of BONES in
    the picture; longest: (14,), as `bone_lengths` gives them; tree: a k-d tree of the shapes."""

    shapes: np.ndarray
    sizes: np.ndarray
    lengths: np.ndarray
    longest: np.ndarray
    tree: cKDTree

    @classmethod
    def of(cls, joints):
        points = joints[:, REDUCED, :2] - joints[:, REDUCED, :2].mean(1, keepdims=True)
        sizes = np.maximum(np.sqrt((points ** 2).sum(2).mean(1)), 1e-6)
        shapes = (points / sizes[:, None, None]).reshape(len(joints), -1)
        return cls(shapes, sizes, np.maximum(picture_lengths(joints), 1e-6), np.maximum(bone_lengths(joints), 1e-6),
                   cKDTree(shapes))

    def ratios(self, other):
        """(scale, float (14,), distance): how many times larger the poses `other` are, by those pairs of poses that are
        most alike, and how many times longer each bone, where it is foreshortened in neither; NaN where this is hardly
        ever so. distance: the median distance of the shapes in these pairs."""
        away, alike = other.tree.query(self.shapes, np.arange(1, min(ALIKE, len(other.sizes)) + 1))
        closest = away[:, 0] <= np.quantile(away[:, 0], CLOSEST)
        alike = alike[closest]
        shown = (self.lengths[closest] > STRETCHED * self.longest)[:, None] & (
            other.lengths[alike] > STRETCHED * other.longest)
        ratio = np.where(shown, other.lengths[alike] / self.lengths[closest][:, None], np.nan).reshape(-1, len(BONES))
        both = {bone: pair for pair in MIRRORED_BONES for bone in pair}
        ratio = [ratio[:, both.get(bone, (bone,))] for bone in range(len(BONES))]
        bones = [np.nanmedian(each) if np.isfinite(each).sum() >= FEW else np.nan for each in ratio]
        return np.median(other.sizes[alike] / self.sizes[closest, None]), np.array(bones), np.median(away[closest, 0])


@dataclass(frozen=True)
class Way:
    """How a body's way across the target's picture changes along one axis, so that it stays inside. share: which part
    of its distance from the `middle` is left; shift: how far all of it is moved, in canvas units, as `middle` is."""

    share: float = 1.0
    middle: float = 0.0
    shift: float = 0.0

    def change(self, place):
        """(N,): how far bodies at these places (N,) are moved."""
        return (self.share - 1) * (place - self.middle) + self.shift


class Retargeting:
    """Puts source poses, float32 (N, 33, 3) in any unit, on the body and canvas of `target` (a VideoSkeleton).

    scale: how many times larger than in the source the body is, after `fit`.
    """

    def __init__(self, target):
        self._target, self._goal = target, Poses.of(target.joints)
        self._goal_point, self._goal_height = standing_point(target.joints), body.body_height(target.joints)

    def fit(self, joints, picture=None, inside=None):
        """Choose scale, bone lengths and shift by the poses `joints` of the source. picture: (width, height) of the
        source's picture, whose longer side is the unit of the joints; inside: bool (N,), which of the poses it shows as
        a whole; None where these are not known."""
        own = Poses.of(joints)
        # The most similar poses are, on average, a little less extreme than the poses that they are compared with. In
        # both directions together, this evens out.
        (scale, bones, away), (inverse, inverse_bones, far) = own.ratios(self._goal), self._goal.ratios(own)
        # Somebody who sits or bends all the time measures less than when standing, but most bones have their length.
        typical = np.median((self._goal.longest / own.longest)[body.WELL_MEASURED])
        height = self._goal_height / max(body.body_height(joints), 1e-6)
        share = np.clip((UNLIKE[1] - (away + far) / 2) / (UNLIKE[1] - UNLIKE[0]), 0, 1)  # of the pairs' word
        scale = np.exp(share * np.log(scale / inverse) / 2 + (1 - share) * np.log(typical * height) / 2)
        self.scale = np.clip(scale, typical / MOST_BENT, typical * MOST_BENT)
        known = np.stack([np.log(bones), -np.log(inverse_bones)])
        count = (~np.isnan(known)).sum(0)
        ratios = np.where(count, np.exp(np.nansum(known, 0) / np.maximum(count, 1)), self.scale)
        point = self._point_of_one_camera(joints, picture)
        trust, point = (TRUST, self._goal_point) if point is None else (TRUST_ONE_CAMERA, point)
        ratios = self.scale * (ratios / self.scale) ** trust
        self._ratios = np.clip(ratios, self.scale / MOST_UNLIKE, self.scale * MOST_UNLIKE)
        placed = self._rebuild(joints)
        self._shift = np.float32([*(point - standing_point(placed)), 0])
        shown = placed if inside is None else placed[inside]
        self._ways = [self._way(shown + self._shift, axis) if len(shown) else Way() for axis in (0, 1)]

    def _way(self, placed, axis):
        """The Way along an axis by which the bodies `placed` (N, 33, 3), in canvas units, lose least: a shorter way is
        weighed against a body that is partly outside of the picture."""
        corner, side = self._target.box[axis], self._target.box[2]
        first, last = ((edge - corner) / side for edge in self._target.window[axis::2])
        begin, end = _extent(placed, axis, self._goal_height)
        place = _place_of(placed, axis)
        middle, found = np.median(place), []
        for share in SHARES:
            moved = Way(share, middle).change(place)
            low, high = first - begin - moved, last - end - moved  # the shifts that keep each pose inside
            least, most = np.quantile(low, 1 - SELDOM), np.quantile(high, SELDOM)
            shift = np.clip(0, least, most) if least <= most else (least + most) / 2
            outside = (np.maximum(low - shift, 0) + np.maximum(shift - high, 0)).mean() / self._goal_height
            found.append((LOSS * outside + 1 - share, share, shift))
        _, share, shift = min(found)
        return Way(share, middle, shift)

    def _point_of_one_camera(self, joints, picture):
        """(x, y) on the canvas where the source stands in its own picture, or None where another camera seems to have
        filmed it."""
        if picture is None:
            return None
        box, frame = self._target.box, self._target.frame_size
        if abs(np.log(picture[0] / picture[1] * frame[1] / frame[0])) > SAME_SHAPE:
            return None
        unit = max(frame) / box[2]  # of the source's joints, in canvas units
        corner = np.array(box[:2]) / box[2]
        height, (x, y) = self._goal_height, standing_point(joints) * unit - corner
        places, own = (landmark_point(poses, HIPS)[:, 0] for poses in (self._target.joints, joints * unit))
        own = np.percentile(own, [5, 95]) - corner[0]
        same = (abs(np.log(self.scale / unit)) < SAME_SIZE and abs(y - self._goal_point[1]) < SAME_GROUND * height
                and own[0] > places.min() - ASIDE * height and own[1] < places.max() + ASIDE * height)
        return np.array([x, y]) if same else None

    def apply(self, joints):
        """The poses in canvas units, with the target's limbs."""
        placed = self._rebuild(joints) + self._shift
        for axis, way in enumerate(self._ways):
            placed[:, :, axis] += way.change(_place_of(placed, axis))[:, None]
        return placed

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


def _place_of(joints, axis):
    """(N,): where the bodies (N, 33, 3) are along an axis: the middle of the hips, and the ground under them."""
    return landmark_point(joints, HIPS)[:, 0] if axis == 0 else lowest_joint(joints)


def _extent(joints, axis, height):
    """Two (N,): where the bodies (N, 33, 3) of a height begin and end along an axis, without the arms."""
    along = joints[:, STAYING, axis]
    return along.min(1) - AROUND[axis] * height, along.max(1) + AROUND[axis + 2] * height


def _inside(joints, picture):
    """bool (N,): whether the bodies (N, 33, 3) of a source are inside its picture (width, height), whose longer side is
    their unit."""
    inside = np.ones(len(joints), bool)
    for axis in (0, 1):
        begin, end = _extent(joints, axis, 0)
        inside &= (begin >= 0) & (end <= picture[axis] / max(picture))
    return inside


class LiveRetargeting:
    """The same for a webcam, whose motion is not known: the placement is fitted to the last LIVE_FRAMES poses."""

    def __init__(self, target):
        self._retargeting, self._seen, self._count = Retargeting(target), [], 0

    def place(self, skeleton):
        """The Skeleton in canvas units, with the target's limbs."""
        self._seen = [*self._seen[1 - LIVE_FRAMES:], skeleton.joints]
        if self._count < LIVE_FIRST or self._count % LIVE_EVERY == 0:
            self._retargeting.fit(np.stack(self._seen))
        self._count += 1
        return Skeleton(self._retargeting.apply(skeleton.joints[None])[0], skeleton.visibility)
