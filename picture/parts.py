"""The parts of a body: which bone each has, how wide it is, and how far places in a picture are from it."""

import numpy as np

from motion.body import landmark_point
from Skeleton import HIPS, NOSE, SHOULDERS

# Each part's bone (a pair stands for the point between two landmarks) and its radius in body heights.
PARTS = {
    "torso": (SHOULDERS, HIPS, 0.13), "head": (SHOULDERS, NOSE, 0.10),
    "left upper arm": (11, 13, 0.055), "left forearm": (13, 15, 0.045),
    "right upper arm": (12, 14, 0.055), "right forearm": (14, 16, 0.045),
    "left thigh": (23, 25, 0.075), "left shin": (25, 27, 0.055), "left foot": (27, 31, 0.04),
    "right thigh": (24, 26, 0.075), "right shin": (26, 28, 0.055), "right foot": (28, 32, 0.04),
}
PARTS_OF = {
    "torso": ["torso"], "head": ["head"],
    "left arm": ["left upper arm", "left forearm"], "right arm": ["right upper arm", "right forearm"],
    "left leg": ["left thigh", "left shin", "left foot"], "right leg": ["right thigh", "right shin", "right foot"],
}
ARMS = {"left arm": "left forearm", "right arm": "right forearm"}
CHAINS = tuple(PARTS_OF)  # each is taken from one frame of the target
NUMBER = {part: number for number, part in enumerate(PARTS)}
HAND = 1.8  # a hand is so many times as long as from the wrist to the knuckles, for the fingers
HEM = 0.1  # torso lengths below the hips down to which clothes move with the torso


def distances(places, joints, height):
    """float (12, ...): how far `places` (..., 2) in canvas units are from the bone of each of PARTS, in its radii."""
    ends = [(number, *pair) for part, number in NUMBER.items() for pair in segments(joints, part)]
    numbers, starts, stops = (np.array(each) for each in zip(*ends, strict=True))
    away = distance_to_segment(places.reshape(-1, 2), starts[:, None], stops[:, None])
    away = np.minimum.reduceat(away, np.flatnonzero(np.diff(numbers, prepend=-1)))
    radii = height * np.array([radius for *_, radius in PARTS.values()])
    return (away / radii[:, None]).reshape(len(PARTS), *places.shape[:-1])


def distance_to_segment(points, start, end):
    """(...,): the distance of points (..., 2) from the line segments between start and end, (2,) or (..., 2)."""
    (x, y), (along_x, along_y) = np.moveaxis(points - start, -1, 0), np.moveaxis(end - start, -1, 0)
    share = np.clip((x * along_x + y * along_y) / np.maximum(along_x ** 2 + along_y ** 2, 1e-9), 0, 1)
    return np.hypot(x - share * along_x, y - share * along_y)


def segments(joints, part):
    """[(start, end)], x and y, around which a part's pixels lie: its bone, which is longer at feet and head, where the
    body goes on beyond the landmark, and the hand, which belongs to the forearm and may be bent."""
    start, end = (landmark_point(joints, landmark)[:2] for landmark in PARTS[part][:2])
    along = end - start
    if "forearm" in part:
        knuckles = landmark_point(joints, (17, 19) if part == "left forearm" else (18, 20))[:2]
        return [(start, end), (end, end + HAND * (knuckles - end))]
    if part == "torso":  # a hem hangs down from it
        return [(start, end + HEM * along)]
    if part == "head":
        return [(start + 0.1 * along, end + 0.9 * along)]
    if "foot" in part:
        return [(start - 0.2 * along, end + 0.35 * along)]
    return [(start, end)]
