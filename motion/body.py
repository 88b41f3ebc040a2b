"""The human body as MediaPipe's landmarks show it: its bones, their lengths and motion, and its two sides.

In all functions `joints` is a float array (..., 33, 3) as in `Skeleton`: x, y, z on one scale.
"""

import numpy as np

from Skeleton import ANKLES, HIPS, NOSE, REDUCED, SHOULDERS

KNEES = (25, 26)

# The skeleton as a tree: (child, parent, landmarks that move with the child), parents first. A pair of landmarks stands
# for the point halfway between them. The first parent, the middle of the hips, is the root.
BONES = [
    (SHOULDERS, HIPS, ()), (11, SHOULDERS, ()), (12, SHOULDERS, ()), (NOSE, SHOULDERS, tuple(range(1, 11))),
    (13, 11, ()), (14, 12, ()), (15, 13, (17, 19, 21)), (16, 14, (18, 20, 22)),
    (23, HIPS, ()), (24, HIPS, ()), (25, 23, ()), (26, 24, ()), (27, 25, (29, 31)), (28, 26, (30, 32)),
]
ARMS_AND_LEGS = [bone for bone in BONES if bone[0] in (13, 14, 15, 16, 25, 26, 27, 28)]  # they hide behind the body
MIRRORED_BONES = [(1, 2), (4, 5), (6, 7), (8, 9), (10, 11), (12, 13)]  # pairs of numbers in BONES: left and right

# Landmarks on the left and on the right that change places together: the arms with the face, and the legs.
SIDES = [([11, 13, 15, 17, 19, 21, 1, 2, 3, 7, 9], [12, 14, 16, 18, 20, 22, 4, 5, 6, 8, 10]),
         ([23, 25, 27, 29, 31], [24, 26, 28, 30, 32])]

LENGTHEN = (0.6, 1.5)  # least and most stretch of a part along its bone, beside the change of the body's height
WIDEN = (0.9, 1.1)  # least and most stretch across the bone
SCALE = (0.8, 1.25)  # least and most scale of head and torso as a whole

# Lengths and places are percentiles over a track, because the extremes are errors of the detector.
LONGEST = 80  # a bone is longest where it lies in the picture plane, and shorter in every other direction
STANDING = 90  # a body is longest where it stands, and shorter where it bends
GROUND = 90  # the lowest joint is on the ground mostly, and higher in a jump; y points down
WELL_MEASURED = [0, 4, 6, 10, 12]  # in BONES: torso, upper arm, forearm, thigh, shin; the others are short or turn away


def landmark_point(joints, landmark):
    """(..., 3): the place of a landmark, or of the point halfway between a pair of landmarks."""
    return joints[..., landmark, :] if isinstance(landmark, int) else joints[..., landmark, :].mean(-2)


def mirrored(joints):
    """The poses (..., 33, 3) in canvas units, as a mirror beside the canvas shows them: what was left is right."""
    joints = joints.copy()
    joints[..., 0] = 1 - joints[..., 0]
    for left, right in SIDES:
        joints[..., left + right, :] = joints[..., right + left, :]
    return joints


def body_lengths(joints):
    """(N,): the length of each body of a track (N, 33, 3), in the picture plane, from the nose to the ankles."""
    chain = np.stack([landmark_point(joints, landmark) for landmark in (NOSE, SHOULDERS, HIPS, KNEES, ANKLES)])
    return np.linalg.norm(np.diff(chain[:, :, :2], axis=0), axis=2).sum(0)


def body_height(joints):
    """float: the length of the body of a track (N, 33, 3) while it stands."""
    return float(np.percentile(body_lengths(joints), STANDING))


def picture_lengths(joints):
    """(N, 14): the length of each of BONES in the picture, in each pose of a track (N, 33, 3)."""
    return np.stack([_length(landmark_point(joints, child) - landmark_point(joints, parent))
                     for child, parent, _ in BONES], 1)


def bone_lengths(joints):
    """float (14,): how long each of BONES is in a track (N, 33, 3) where nothing foreshortens it; left as right."""
    lengths = np.percentile(picture_lengths(joints), LONGEST, axis=0)
    for pair in MIRRORED_BONES:
        lengths[list(pair)] = lengths[list(pair)].mean()
    return lengths


def lowest_joint(joints):
    """(N,): y of the lowest joint of each body of a track (N, 33, 3): an ankle, or what else the body rests on."""
    return joints[:, REDUCED, 1].max(1)


def standing_point(joints):
    """(x, y) of where the body of a track (N, 33, 3) stands or lies: below the middle of its hips, on the ground."""
    return np.array([np.median(landmark_point(joints, HIPS)[:, 0]), np.percentile(lowest_joint(joints), GROUND)])


def _length(vectors):
    """The lengths in the picture plane of vectors (N, 3)."""
    return np.linalg.norm(vectors[:, :2], axis=1)


def similarity(start, end, size=1.0):
    """(..., 2, 3): the rotation, scale and shift that lay points (..., N, 2) on others with the least squared error
    (Umeyama 1991, in the plane, where a rotation with a scale is a complex factor). The scale stays within SCALE times
    `size`."""
    start, end = (points[..., 0] + 1j * points[..., 1] for points in (start, end))
    middle, goal = start.mean(-1), end.mean(-1)
    a, b = start - middle[..., None], end - goal[..., None]
    turn = (a.conj() * b).sum(-1) / np.maximum((a.conj() * a).real.sum(-1), 1e-9)
    scale = np.maximum(np.abs(turn), 1e-9)
    turn = turn / scale * np.clip(scale, SCALE[0] * size, SCALE[1] * size)
    shift = goal - turn * middle
    maps = np.stack([turn.real, -turn.imag, shift.real, turn.imag, turn.real, shift.imag], -1)
    return maps.reshape(*turn.shape, 2, 3)


def bone_maps(starts, goals, size=1.0):
    """(..., P, 2, 3): the maps that lay the middles of P bones on those of others and turn them in their directions.
    starts, goals: (..., P, 2, 2), the ends of the bones. A map stretches along its bone within LENGTHEN and across it
    within WIDEN, both times `size`."""
    old, new = (ends[..., 1, :] - ends[..., 0, :] for ends in (starts, goals))
    lengths = np.maximum(np.linalg.norm(old, axis=-1), 1e-6)
    stretch = np.linalg.norm(new, axis=-1) / lengths / size
    angle = np.arctan2(new[..., 1], new[..., 0]) - np.arctan2(old[..., 1], old[..., 0])
    along = old / lengths[..., None]
    across = np.stack([-along[..., 1], along[..., 0]], -1)
    scale = sum(np.clip(stretch, *limits)[..., None, None] * (axis[..., :, None] * axis[..., None, :])
                for limits, axis in ((LENGTHEN, along), (WIDEN, across)))
    cosine, sine = size * np.cos(angle), size * np.sin(angle)
    turn = np.stack([cosine, -sine, sine, cosine], -1).reshape(scale.shape) @ scale
    shift = goals.mean(-2)[..., None] - turn @ starts.mean(-2)[..., None]
    return np.concatenate([turn, shift], -1)
