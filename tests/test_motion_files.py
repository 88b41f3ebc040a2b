"""The motion of a dance for other programs: what a reader of these formats gets is what was drawn."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import DanceDemo
from dancing.motion_files import LANDMARKS, NAMES, metres, write_motion
from motion.detector import PoseDetector
from Skeleton import REDUCED, Skeleton
from VideoReader import VideoReader

SIZE, BOX = (640, 480), (100, -40, 512)  # of the film, and of the canvas in it


@dataclass
class Bvh:
    """parents: {joint: its parent or None}; offsets: {joint: (3,)}; rows: (frames, channels); step: seconds."""

    parents: dict
    offsets: dict
    rows: np.ndarray
    step: float

    def places(self, turning=True):
        """{joint: (frames, 3)}: forward kinematics as BVH defines it. turning: False takes the offsets in the place of
        the positions, as programs do that know no other positions than the root's."""
        turns, places = {}, {}
        for number, (joint, parent) in enumerate(self.parents.items()):
            values = self.rows[:, 6 * number:6 * number + 6]
            turn, place = Rotation.from_euler("ZXY", values[:, 3:], degrees=True), values[:, :3]
            if parent is not None:
                place = place if turning else np.tile(self.offsets[joint], (len(place), 1))
                place, turn = places[parent] + turns[parent].apply(place), turns[parent] * turn
            turns[joint], places[joint] = turn, place
        return places


def read_bvh(path):
    """The Bvh in a file, read word by word."""
    hierarchy, motion = path.read_text().split("MOTION")
    parents, offsets, stack, name = {}, {}, [], None
    for line in hierarchy.splitlines()[1:]:
        words = line.split()
        if words[0] in ("ROOT", "JOINT", "End"):
            name = words[1]
        elif words[0] == "{":
            if name != "Site":
                parents[name] = stack[-1] if stack else None
            stack.append(name)
        elif words[0] == "OFFSET" and stack[-1] != "Site":
            offsets[stack[-1]] = np.array(words[1:], float)
        elif words[0] == "CHANNELS":
            assert words[1:] == ["6", "Xposition", "Yposition", "Zposition", "Zrotation", "Xrotation", "Yrotation"]
        elif words[0] == "}":
            stack.pop()
    frames, step, *rows = motion.strip().splitlines()
    rows = np.array([row.split() for row in rows], float)
    assert not stack and len(rows) == int(frames.split(":")[1])
    return Bvh(parents, offsets, rows, float(step.split(":")[1]))


@pytest.fixture
def dance(target):
    """The skeletons of some frames, nobody in the first two."""
    return [None, None, *(target.skeleton(index) for index in range(30))]


def written(path, dance, seconds=None):
    write_motion(path, dance, [skeleton is not None for skeleton in dance],
                 np.arange(len(dance)) / 25 if seconds is None else seconds, 25.0, BOX, SIZE)
    return path


def pixels(dance):
    return np.array([skeleton.joints for skeleton in dance]) * BOX[2] + np.float32([*BOX[:2], 0])


def test_a_bvh_has_the_joints_within_a_millimetre(dance, tmp_path):
    bvh = read_bvh(written(tmp_path / "d.bvh", dance))
    assert set(bvh.parents) == set(NAMES) and bvh.step == pytest.approx(1 / 25)
    expected = metres(pixels(dance[2:]))
    places = bvh.places()
    for number, name in enumerate(NAMES):
        assert np.abs(places[name][2:] - expected[:, number]).max() < 1e-3, name
        assert np.abs(places[name][:2] - expected[0, number]).max() < 1e-3  # nobody yet: the first pose
    # The unit is the metre: she is a person of usual height, upright, who looks at the camera.
    nose, ankle = places["nose"], places["left_ankle"]
    assert 1.2 < np.median(nose[:, 1] - ankle[:, 1]) < 1.8 and -0.1 < np.median(ankle[:, 1]) < 0.3
    assert np.median(places["left_shoulder"][:, 0] - places["right_shoulder"][:, 0]) > 0.1
    assert np.median(nose[:, 2] - (places["left_ear"] + places["right_ear"])[:, 2] / 2) > 0


def test_the_rotations_alone_give_the_motion(dance, tmp_path):
    """With offsets that never change, each limb still points where it did."""
    bvh = read_bvh(written(tmp_path / "d.bvh", dance))
    true, turned = bvh.places(), bvh.places(turning=False)
    for end, start in (("left_wrist", "left_elbow"), ("right_elbow", "right_shoulder"), ("left_ankle", "left_knee"),
                       ("right_knee", "right_hip"), ("neck", "hips"), ("left_foot_index", "left_ankle")):
        one, other = (places[end] - places[start] for places in (true, turned))
        cosine = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
        assert cosine.min() > 0.9999, end


def test_frames_at_uneven_times_become_even(dance, tmp_path):
    seconds = np.cumsum([0.04, 0.2] * 16) - 0.04
    bvh = read_bvh(written(tmp_path / "d.bvh", dance, seconds))
    assert len(bvh.rows) == pytest.approx(seconds[-1] / bvh.step + 1, abs=1)
    expected = metres(pixels(dance[2:]))
    last = bvh.places()["left_wrist"][-1]
    assert np.abs(last - expected[-1, LANDMARKS.index("left_wrist")]).max() < 1e-3


def test_wild_poses_make_a_valid_file(tmp_path):
    """All joints in one place, a limb that points against its rest, and a single frame."""
    still = Skeleton(np.full((33, 3), 0.5), np.ones(33))
    turned = np.full((33, 3), 0.5)
    turned[[11, 13, 15], 0] = 0.5, 0.4, 0.3
    for dance in ([still], [still, Skeleton(turned, np.ones(33))]):
        bvh = read_bvh(written(tmp_path / "d.bvh", dance))
        assert len(bvh.rows) == len(dance) and np.isfinite(bvh.rows).all()
        expected = metres(pixels(dance))
        assert np.abs(bvh.places()["left_wrist"] - expected[:, 15]).max() < 1e-3


def test_json_and_npz_hold_the_landmarks(dance, tmp_path):
    stored = json.loads(written(tmp_path / "d.json", dance).read_text())
    assert (stored["fps"], stored["width"], stored["height"]) == (25, *SIZE) and len(stored["frames"]) == len(dance)
    assert stored["frames"][0]["landmarks"] == [] and stored["frames"][5]["seconds"] == 0.2
    marks = stored["frames"][5]["landmarks"]
    expected = pixels(dance[5:6])[0]
    for mark, place, seen in zip(marks, expected, dance[5].visibility, strict=True):
        assert np.allclose([mark["x"] * SIZE[0], mark["y"] * SIZE[1], mark["z"] * SIZE[0]], place, atol=1e-3)
        assert mark["visibility"] == pytest.approx(seen, abs=1e-5)
    with np.load(written(tmp_path / "d.npz", dance)) as arrays:
        assert np.isnan(arrays["joints"][:2]).all() and np.allclose(arrays["joints"][5], expected, atol=1e-3)
        assert arrays["detected"].tolist() == [False] * 2 + [True] * 30 and arrays["fps"] == 25


def test_the_demo_writes_it_and_its_joints_lie_on_the_film(clip, target, script, tmp_path):
    out, motion = tmp_path / "o.mp4", tmp_path / "m.bvh"
    status, _, error = script(DanceDemo.main, "--source", clip, "--target", clip, "--layout", "result", "--no-window",
                              "--output", out, "--motion", motion)
    assert status == 0, error
    bvh = read_bvh(motion)
    places = np.stack([bvh.places()[name] for name in LANDMARKS], 1)  # (frames, 33, 3)
    pairs = []  # of each frame in which somebody is found: the joints in the file and those on the film
    with VideoReader(out) as film, PoseDetector("image") as detector:
        for frame, pose in zip(film, places, strict=True):
            found = detector.detect(frame)[0]
            if found is not None:
                pairs.append((pose[REDUCED, :2] * [1, -1], found.joints[REDUCED, :2] * max(frame.shape[:2])))
    drawn, seen = (np.array(each) for each in zip(*pairs, strict=True))
    # One scale and one place for the whole film lay metres on pixels.
    middle, goal = drawn.mean((0, 1)), seen.mean((0, 1))
    scale = ((drawn - middle) * (seen - goal)).sum() / ((drawn - middle) ** 2).sum()
    distance = np.linalg.norm((drawn - middle) * scale + goal - seen, axis=2)
    assert len(pairs) > 30 and distance.mean() * 512 / max(target.frame_size) < 2
