"""The motion of a dance as a file for other programs: BVH (Blender, game engines), JSON or NPZ.

The BVH file has a joint for each of MediaPipe's 33 landmarks and two more, `hips` and `neck`, halfway between the hips
and between the shoulders. The person faces +z, y is up, and the unit is the metre, for a body of HEIGHT. Lengths in a
picture change from frame to frame, so each joint has its place as well as its rotation (six channels): with the places,
the joints are exactly where they were drawn; with the rotations, the motion can be put on another skeleton. Format:
Meredith and Maddock, Motion Capture File Formats Explained, University of Sheffield 2001.
"""

import json
import warnings

import numpy as np
from scipy.spatial.transform import Rotation

from common.files import atomic_write
from motion.body import body_height, landmark_point
from motion.track import frame_rate
from Skeleton import HIPS, SHOULDERS

ENDINGS = (".bvh", ".json", ".npz")
HEIGHT = 1.7  # metres, of the body in a BVH file
MEASURED = 0.87  # of a body's height lies between nose and ankles, which is what body_height measures
LANDMARKS = (
    "nose", "left_eye_inner", "left_eye", "left_eye_outer", "right_eye_inner", "right_eye", "right_eye_outer",
    "left_ear", "right_ear", "mouth_left", "mouth_right", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_pinky", "right_pinky", "left_index", "right_index", "left_thumb",
    "right_thumb", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle", "left_heel",
    "right_heel", "left_foot_index", "right_foot_index")  # MediaPipe's names, in its order
NECK, ROOT = 33, 34  # the numbers of the two more joints
NAMES = (*LANDMARKS, "neck", "hips")
# The tree: {joint: those that hang on it}.
CHILDREN = {ROOT: (NECK, 23, 24), NECK: (0, 11, 12), 0: tuple(range(1, 11)), 11: (13,), 13: (15,), 15: (17, 19, 21),
            12: (14,), 14: (16,), 16: (18, 20, 22), 23: (25,), 25: (27,), 27: (29, 31), 24: (26,), 26: (28,),
            28: (30, 32)}
# Of the joints that turn with one bone: the joint at its other end, and the bone's direction at rest, a T-pose.
AIMS = {11: (13, (1, 0, 0)), 13: (15, (1, 0, 0)), 15: (19, (1, 0, 0)), 12: (14, (-1, 0, 0)), 14: (16, (-1, 0, 0)),
        16: (20, (-1, 0, 0)), 23: (25, (0, -1, 0)), 25: (27, (0, -1, 0)), 27: (31, (0, 0, 1)), 24: (26, (0, -1, 0)),
        26: (28, (0, -1, 0)), 28: (32, (0, 0, 1))}
CHANNELS = "Xposition Yposition Zposition Zrotation Xrotation Yrotation"


def write_motion(path, skeletons, found, seconds, fps, box, size):
    """Write the motion of a dance to `path`; its ending is one of ENDINGS.

    skeletons: of each frame its Skeleton in canvas units, or None; found: of each frame, whether the person was seen
    there; seconds: of each frame; fps: frames per second; box: (x, y, side) of the canvas in the film's pixels; size:
    (width, height) of the film in pixels.

    .npz: joints float32 (frames, 33, 3) in the film's pixels, NaN where nobody is; detected bool (frames,); fps.
    .json: MediaPipe's normalised landmarks: x and z in widths, y in heights of the film, [] where nobody is.
    .bvh: see above, evenly spaced in time; where nobody is, the pose stays as it was.
    """
    x, y, side = box
    nowhere = np.full((33, 3), np.nan, np.float32)
    joints = np.array([nowhere if skeleton is None else skeleton.joints * side + np.float32([x, y, 0])
                       for skeleton in skeletons], np.float32)
    with atomic_write(path) as part:
        if path.suffix == ".npz":
            with open(part, "wb") as file:
                np.savez(file, joints=joints, fps=fps, detected=np.array(found, bool))
        elif path.suffix == ".json":
            part.write_text(json.dumps(landmarks_json(skeletons, joints, seconds, fps, size)) + "\n")
        else:
            part.write_text(bvh(joints, np.array(seconds), fps))


def landmarks_json(skeletons, joints, seconds, fps, size):
    """The dict of the JSON file. joints: (N, 33, 3) in pixels; for the others see `write_motion`."""
    frames, (width, height) = [], size
    for skeleton, pose, time in zip(skeletons, joints.astype(float), seconds, strict=True):
        marks = [] if skeleton is None else [
            dict(zip(("x", "y", "z", "visibility"), np.round(mark, 6).tolist(), strict=True))
            for mark in np.column_stack([pose / (width, height, width), skeleton.visibility])]
        frames.append({"seconds": round(float(time), 6), "landmarks": marks})
    return {"fps": float(fps), "width": width, "height": height, "frames": frames}


def metres(joints):
    """float (N, 35, 3): where joints (N, 33, 3) in pixels, the neck and the hips are, in metres: x right, y up, z
    towards the camera. 0 is below the hips, on the ground."""
    scale = HEIGHT * MEASURED / max(body_height(joints), 1e-6)
    origin = np.array([np.median(landmark_point(joints, HIPS)[:, 0]), joints[:, :, 1].max()])
    points = np.concatenate([joints, *(landmark_point(joints, pair)[:, None] for pair in (SHOULDERS, HIPS))], 1)
    return (points - [*origin, 0]) * scale * [1, -1, -1]


def bvh(joints, seconds, fps):
    """The text of the BVH file of joints (N, 33, 3) in pixels, NaN where nobody is, at these seconds (N,)."""
    known = np.flatnonzero(~np.isnan(joints[:, 0, 0]))
    rate = frame_rate(seconds, fps)
    times = np.arange(round((seconds[-1] - seconds[0]) * rate) + 1) / rate + seconds[0]
    nearest = np.searchsorted((seconds[1:] + seconds[:-1]) / 2, times)
    # Where nobody is, the pose before; before the first one, the first one.
    held = np.maximum(np.searchsorted(known, nearest, "right") - 1, 0)
    places = metres(joints[known].astype(float))[held]
    turns, lines, columns = {}, ["HIERARCHY"], []

    def add(joint, parent, depth):
        turn = turns[joint] = _turn(joint, parent, places, turns)
        place, local = places[:, joint], turn
        if parent is not None:
            back = turns[parent].inv()
            place, local = back.apply(place - places[:, parent]), back * turn
        with warnings.catch_warnings():
            # Where a joint is bent by a right angle, many angles mean the same rotation; SciPy warns and takes one.
            warnings.simplefilter("ignore", UserWarning)
            columns.extend([place, local.as_euler("ZXY", degrees=True)])
        tab, offset = "\t" * depth, " ".join(f"{value:.6f}" for value in np.median(place, 0))
        lines.extend([f"{tab}{'ROOT' if parent is None else 'JOINT'} {NAMES[joint]}", f"{tab}{{",
                      f"{tab}\tOFFSET {offset}", f"{tab}\tCHANNELS 6 {CHANNELS}"])
        for child in CHILDREN.get(joint, ()):
            add(child, joint, depth + 1)
        if joint not in CHILDREN:
            lines.extend([f"{tab}\tEnd Site", f"{tab}\t{{", f"{tab}\t\tOFFSET 0 0.02 0", f"{tab}\t}}"])
        lines.append(f"{tab}}}")

    add(ROOT, None, 0)
    rows = [" ".join(f"{value:.6f}" for value in row) for row in np.concatenate(columns, 1)]
    return "\n".join([*lines, "MOTION", f"Frames: {len(rows)}", f"Frame Time: {1 / rate:.8f}", *rows, ""])


def _turn(joint, parent, places, turns):
    """The Rotation of a joint in each frame, from its rest. turns: {joint: Rotation} of the joints above it."""
    if joint in (ROOT, NECK):
        right, left = (24, 23) if joint == ROOT else (12, 11)
        return _axes(places[:, left] - places[:, right], places[:, NECK] - places[:, ROOT])
    if joint == 0:  # the head: the ears are at its sides, and the nose is before them
        side = places[:, 7] - places[:, 8]
        return _axes(side, np.cross(places[:, 0] - places[:, [7, 8]].mean(1), side))
    if joint not in AIMS:
        return turns[parent]
    end, rest = AIMS[joint]
    return _shortest(turns[parent].apply(rest), places[:, end] - places[:, joint]) * turns[parent]


def _axes(side, up):
    """The Rotations that carry y along the vectors `up` (N, 3), and x along `side` (N, 3) as far as y lets it."""
    y = _unit(up)
    x = side - (side * y).sum(1, keepdims=True) * y
    x = _unit(np.where(np.linalg.norm(x, axis=1, keepdims=True) > 1e-9, x, _across(y)))
    return Rotation.from_matrix(np.stack([x, y, np.cross(x, y)], 2))


def _shortest(start, goal):
    """The Rotations that carry vectors (N, 3) in the directions of others, by the smallest angles."""
    start, goal = _unit(start), _unit(goal)
    axis, cosine = np.cross(start, goal), (start * goal).sum(1, keepdims=True)
    sine = np.linalg.norm(axis, axis=1, keepdims=True)
    # Where the two are opposite, any axis across them serves.
    axis = np.where(sine > 1e-9, axis / np.maximum(sine, 1e-9), _unit(_across(start)))
    return Rotation.from_rotvec(axis * np.arctan2(sine, cosine))


def _across(vectors):
    """For each of the vectors (N, 3) one that is at a right angle to it."""
    return np.cross(vectors, np.eye(3)[np.abs(vectors).argmin(1)])


def _unit(vectors):
    """Vectors (N, 3) of length 1. A vector without a length becomes y."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.where(lengths > 1e-9, vectors / np.maximum(lengths, 1e-9), [0.0, 1.0, 0.0])
