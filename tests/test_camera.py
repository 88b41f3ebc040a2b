"""A camera that moves: its motion is found, and the people stand in one scene whatever it does, where the truth is
known: painted scenes, and the frames of a still camera as a moving one would have filmed them."""

import cv2
import numpy as np
import pytest
from conftest import track_of

from motion.body import body_lengths
from motion.mending import steady
from motion.track import Track
from Skeleton import Skeleton
from video.camera import STANDING, apply, camera_path, inverse, matrices, relative, small_picture
from video.film import VideoWriter
from VideoSkeleton import VideoSkeleton

SIZE = (320, 180)


def room(seed=0, width=900, height=600):
    """A scene with large and small things in it."""
    random, scene = np.random.default_rng(seed), np.zeros((height, width, 3), np.uint8)
    for cell in (60, 16):
        noise = random.integers(0, 255, (height // cell, width // cell, 3), np.uint8)
        scene = cv2.addWeighted(scene, 0.6, cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC), 0.6, 0)
    return cv2.GaussianBlur(scene, (0, 0), 1.5)


def ways(count):
    """float (count, 2, 3): how each picture lies in a wide scene, for a camera that pans, turns and zooms."""
    time = np.linspace(0, 1, count)
    turn = np.exp(0.25 * np.sin(3 * time) + 0.1j * np.sin(5 * time))
    shift = 250 + 200 * time + 60 * np.sin(9 * time) + 1j * (200 + 40 * np.sin(7 * time))
    return np.stack([turn.real, -turn.imag, shift.real, turn.imag, turn.real, shift.imag], -1).reshape(-1, 2, 3)


def filmed(scene, maps):
    """The scene's frames as that camera shows them, and the masks of a figure that walks before it."""
    frames, masks = [], []
    for number, way in enumerate(maps):
        frame = cv2.warpAffine(scene, way, SIZE, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        mask = np.zeros(SIZE[::-1], np.uint8)
        cv2.ellipse(mask, (100 + 3 * number, 90), (22, 60), 0, 0, 360, 255, -1)
        frame[mask > 0] = (0, 200, 0)
        frames.append(frame)
        masks.append(mask)
    return frames, masks


def path_of(frames, masks, shots=(0,)):
    small = [small_picture(frame, SIZE) for frame in frames]
    return camera_path(small.__getitem__, lambda number: [masks[number]], np.array(shots), len(frames))


def corners_off(path, maps):
    """How far, in px, the corners of each picture are from where they lie in truth in the first picture."""
    whole = np.concatenate([maps, np.tile([[[0, 0, 1.0]]], (len(maps), 1, 1))], 1)
    truth = (np.linalg.inv(whole[0]) @ whole)[:, :2]
    corners = np.float64([[0, 0, 1], [SIZE[0], 0, 1], [0, SIZE[1], 1], [*SIZE, 1]])
    return np.linalg.norm((matrices(path, max(SIZE)) - truth) @ corners.T, axis=1).max(1)


def test_pans_turns_and_zooms_are_found_behind_somebody_who_walks():
    maps = ways(40)
    assert corners_off(path_of(*filmed(room(), maps)), maps).max() < 1.5  # it has left the first picture behind


def test_a_border_with_titles_does_not_hold_the_camera():
    maps, title = ways(40), room(5)[:180, :320]
    frames, masks = filmed(room(), maps)
    for number, frame in enumerate(frames):
        frame[:30], frame[-30:] = title[:30], title[-30:]
        quality = [cv2.IMWRITE_JPEG_QUALITY, 80 + number % 5]  # the noise is another one in each picture
        frame[:] = cv2.imdecode(cv2.imencode(".jpg", frame, quality)[1], cv2.IMREAD_COLOR)
    assert corners_off(path_of(frames, masks), maps).max() < 3


@pytest.mark.parametrize("kind", ["moving things", "plain", "noise", "one frame"])
def test_a_camera_that_stands_still_stands_still_to_the_last_digit(kind):
    count = 1 if kind == "one frame" else 30
    scene = np.full_like(room(), 90) if kind == "plain" else room()
    frames, masks = filmed(scene, np.tile(ways(40)[:1], (count, 1, 1)))
    random = np.random.default_rng(0)
    for number, frame in enumerate(frames):
        if kind == "moving things":  # a third of the picture moves
            frame[:, 210:] = room(3)[3 * number:3 * number + 180, :110]
        elif kind == "noise":
            frame[:] = np.clip(frame + random.normal(0, 6, frame.shape), 0, 255)
    assert (path_of(frames, masks) == np.float32(STANDING)).all()


def test_each_shot_has_a_path_of_its_own():
    maps = ways(30)
    first, second, third = filmed(room(), maps), filmed(room(1), maps), filmed(room(2), np.tile(maps[:1], (10, 1, 1)))
    path = path_of(*([*a, *b, *c] for a, b, c in zip(first, second, third, strict=True)), (0, 30, 60))
    assert corners_off(path[:30], maps).max() < 2.5 and corners_off(path[30:60], maps).max() < 2.5
    assert (path[60:] == np.float32(STANDING)).all()


def test_where_nothing_is_seen_for_a_moment_the_path_goes_on_afterwards():
    maps = ways(40)
    frames, masks = filmed(room(), maps)
    for frame in frames[20:23]:
        frame[:] = 0
    assert corners_off(path_of(frames, masks), maps)[25:].max() < 2


def test_points_are_laid_into_the_scene_and_back():
    path = np.float32([[1.2, 0.3, 0.1, -0.2], [0.8, -0.1, 0.5, 0.4]])
    points = np.random.default_rng(0).random((2, 33, 3)).astype(np.float32)
    placed = apply(path, points)
    assert np.allclose(apply(inverse(path), placed), points, atol=1e-5)
    assert np.allclose(placed[:, :, 2], points[:, :, 2] * np.hypot(path[:, :1], path[:, 1:2]), atol=1e-6)
    pixel = (placed[1, 7, :2] * 200) - 0.5
    assert np.allclose(matrices(path, 200)[1] @ [*(points[1, 7, :2] * 200 - 0.5), 1], pixel, atol=1e-3)
    assert np.allclose(relative(path, path[1])[1], STANDING, atol=1e-6)


@pytest.fixture
def filmed_body(target):
    """(the target's poses, a path of a camera that zooms and pans, the Track that it sees)."""
    joints = target.joints[::2]
    time = np.linspace(0, 1, len(joints))
    path = np.float32(np.stack([1 + 0.2 * np.sin(6 * time), 0.05 * time, 0.3 * time, -0.1 * time], 1))
    seen = apply(inverse(path), joints)
    track = track_of([Skeleton(pose, np.ones(33)) for pose in seen])
    return joints, path, Track(seen, track.visibility, track.seconds, track.shots, (512, 512), 30.0, track.found,
                               camera=path)


def test_in_the_scene_a_zoom_changes_no_size_and_a_pan_no_place(filmed_body):
    joints, path, track = filmed_body
    scene, middle = track.in_scene(), len(joints) // 2
    still = np.tile(inverse(path[middle:middle + 1]), (len(joints), 1))
    assert np.allclose(scene.joints, apply(still, joints), atol=1e-4)
    assert np.allclose(scene.in_pictures().joints, track.joints, atol=1e-5)


def test_a_camera_that_comes_along_with_the_person_changes_no_size_either(filmed_body):
    """The scene comes nearer in the pictures, but the person stays as large as she was."""
    joints, _, track = filmed_body
    track = track.with_poses(joints, track.visibility)
    assert np.array_equal(track.in_scene().joints, joints)


def test_a_motion_file_keeps_the_camera_and_may_lack_it(filmed_body, tmp_path):
    track = filmed_body[2]
    track.save(tmp_path / "m.npz")
    assert np.array_equal(Track.load(tmp_path / "m.npz").camera, track.camera)
    arrays = dict(np.load(tmp_path / "m.npz"))
    del arrays["camera"]
    np.savez(tmp_path / "older.npz", **arrays)
    assert (Track.load(tmp_path / "older.npz").camera == np.float32(STANDING)).all()


def test_a_target_behind_a_zooming_camera_has_one_size_and_stands_in_one_picture(frames, target, tmp_path):
    """The same dance before a camera that zooms in and out by a tenth and pans."""
    count = len(frames)
    sides = (600 + 60 * np.sin(np.linspace(0, 7, count))).round().astype(int)
    lefts = (30 + 20 * np.sin(np.linspace(0, 5, count))).round().astype(int)
    with VideoWriter(tmp_path / "zoom.mp4", 10) as writer:
        for frame, side, left in zip(frames, sides, lefts, strict=True):
            wide = cv2.copyMakeBorder(frame, 100, 100, 100, 100, cv2.BORDER_REFLECT)
            writer.write(cv2.resize(wide[left:, left:][:side, :side], (400, 400), interpolation=cv2.INTER_AREA))
    moving = VideoSkeleton.load(tmp_path / "zoom.mp4")
    real = np.isin(target.frames, moving.frames)
    ratio = body_lengths(moving.joints) / body_lengths(target.joints[real])
    assert not moving.still and (sides / sides.mean()).std() > 0.06 and ratio.std() < 0.02 * ratio.mean()
    # The pictures show the person where the joints are: her mask ends at her feet and begins above her eyes.
    for index in range(0, len(moving), 9):
        rows = np.flatnonzero((moving.mask(index) > 127).any(1)) / moving.size
        y = moving.joints[index, :, 1]
        assert abs(rows.max() - y.max()) < 0.04 and -0.02 < y.min() - rows.min() < 0.1
    assert steady(track_of([moving.skeleton(index) for index in range(5)])).present.all()
