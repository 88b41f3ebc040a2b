"""A target: its images, masks and plate, what is left out, and what its command line says."""

import copy

import cv2
import numpy as np
import pytest

import VideoSkeleton as VideoSkeletonScript
from common.command_line import UserError
from common.paths import SAMPLE_JOINTS
from motion import segments
from motion.extraction import load_track
from motion.segments import small_size
from picture import target_pictures
from picture.canvas import CANVAS, crop
from picture.parts import CHAINS
from video.camera import CutDetector, small_picture, thumbnail
from video.film import VideoWriter
from VideoReader import VideoReader
from VideoSkeleton import VideoSkeleton


def test_images_are_visually_lossless_and_joints_lie_on_them(clip, target, frames):
    assert len(target) == len(frames) == target.frames_read and target.size <= CANVAS
    with VideoReader(clip) as reader:
        decoded = list(reader)
    for index in (0, 17, 39):
        real = crop(decoded[index], target.box, target.size).astype(float)
        person, matte, (left, top) = target.person(index)
        place = np.s_[top:top + len(person), left:left + person.shape[1]]
        # At the person's edge, and in the JPEG blocks there, her own colours are stored instead of what was filmed.
        edge = cv2.dilate(((matte > 0) & (matte < 255)).astype(np.uint8), np.ones((17, 17), np.uint8)) > 0
        assert 10 * np.log10(255 ** 2 / ((person - real[place])[~edge] ** 2).mean()) > 42 and edge.mean() < 0.65
        mask = target.mask(index) > 20
        assert not mask[:top].any() and mask.sum() == mask[place].sum()  # the whole person is in the box
        # The camera stands still, so beside the box the plate is what was filmed, up to a shadow.
        assert 10 * np.log10(255 ** 2 / ((target.image(index) - real) ** 2).mean()) > 33
    with np.load(SAMPLE_JOINTS) as joints:
        truth = joints["target_uv"][:240:6]
    x, y, side = target.box
    found = target.reduced.reshape(-1, 13, 2) * side + [x, y]
    assert np.linalg.norm(found - truth, axis=2).mean() <= 6


def test_second_load_comes_from_the_cache(clip, target, monkeypatch):
    monkeypatch.setattr(segments, "detect_everyone", lambda *_, **__: pytest.fail("poses are found again"))
    again = VideoSkeleton.load(clip)
    assert np.array_equal(again.joints, target.joints) and np.array_equal(again.image(5), target.image(5))
    assert (again.box, again.fps, again.frame_size) == (target.box, 10, (512, 512))


def test_frames_in_which_two_shots_are_blended_are_left_out(frames, cache, tmp_path):
    """Between two shots lie two frames that show the person half transparent before another picture. The cut detector
    counts the first one to the shot before it, and the second one as a shot; the person is found in them."""
    path, away = tmp_path / "blended.mp4", cv2.resize(frames[0][::-1, 200:400], (512, 512))
    blends = [cv2.addWeighted(frame, 0.5, other, 0.5, 0) for frame, other in zip(
        frames[10:12], (away, away[:, ::-1]), strict=True)]
    with VideoWriter(path, 10) as writer:
        for frame in [*frames[:10], *blends, *(frame[:, ::-1] for frame in frames[12:20])]:
            writer.write(frame)
    track = load_track(path)
    assert track.shots.tolist() == [0, 11, 12] and track.present[10:12].any()
    assert VideoSkeleton.load(path).frames.tolist() == [*range(10), *range(13, 20)]


def test_masks_lie_on_the_person_and_the_plate_shows_nobody(target, frames):
    assert target.still and target.plate.shape == frames[0].shape
    plate = crop(target.plate, target.box, target.size).astype(int)
    for index in (0, 17, 39):
        mask, image = target.mask(index), target.image(index)
        assert mask.shape == (target.size, target.size) and mask.dtype == np.uint8
        torso = (target.joints[index, [11, 12, 23, 24], :2].mean(0) * target.size).astype(int)
        assert mask[torso[1], torso[0]] > 200 and mask[:20].max() < 20
        away = np.abs(image - plate).max(2)
        assert away[mask < 20].mean() < 6 < 30 < away[mask > 235].mean()  # the person is gone, the room is not
    part = target.first(7)
    assert len(part) == 7 and len(part.reduced) == 7 and part.identity == target.identity
    assert np.array_equal(part.image(6), target.image(6))


def test_frames_without_a_person_are_left_out_and_counted(short, cache):
    target = VideoSkeleton.load(short)
    assert target.frames_read == 9 and target.frames.tolist() == [1, 2, 3, 5, 6, 7]


def test_a_folder_of_unrelated_photos_is_a_target(frames, cache, tmp_path):
    """Each photo is a shot of its own, and none is dropped for being short."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, frame in enumerate(frames[:4]):
        turned = frame if number % 2 else cv2.flip(cv2.resize(frame[50:450, 50:450], (512, 512)), 1)
        cv2.imwrite(str(folder / f"{number}.png"), turned)
    cuts = CutDetector()
    with VideoReader(folder) as reader:
        small = [small_picture(photo, small_size(photo.shape[1::-1])) for photo in reader]
    assert [cuts(thumbnail(picture)) for picture in small] == [False, True, True, True]
    assert VideoSkeleton.load(folder).frames.tolist() == [0, 1, 2, 3]


def test_force_replaces_the_cache(short, cache):
    first = VideoSkeleton.load(short)
    (first.folder / "contact-sheet.png").write_bytes(b"of the old one")
    again = VideoSkeleton.load(short, force=True)
    assert not (again.folder / "contact-sheet.png").exists() and np.array_equal(first.joints, again.joints)
    assert list(cache.iterdir()) == [again.folder.parent]


def test_nobody_in_the_video(frames, cache, tmp_path):
    path = tmp_path / "empty room.mp4"
    with VideoWriter(path, 10) as writer:
        for _ in range(3):
            writer.write(np.full_like(frames[0], 90))
    with pytest.raises(UserError, match="nobody is seen in the 3 frames"):
        VideoSkeleton.load(path)
    assert list(cache.iterdir()) == []


def test_command_line(short, cache, script):
    status, out, err = script(VideoSkeletonScript.main, short)
    assert status == 0 and "9 frames, 6 with a person" in out and err
    sheet, = cache.glob("*/target-*/contact-sheet.png")
    assert sheet.stat().st_size > 1000 and str(sheet) in out
    status, out, _ = script(VideoSkeletonScript.main, short)
    assert status == 0 and "from the cache" in out
    status, _, err = script(VideoSkeletonScript.main, "missing.mp4")
    assert (status, err) == (2, "error: there is no video 'missing.mp4'; check the path\n")


def test_what_the_target_does_and_what_would_be_better(target):
    """40 frames of 4 seconds, in which the sample's target raises arms and legs; then the same, spoilt one by one."""
    assert VideoSkeletonScript.movements(target)["arms up"] > 0.1
    told = VideoSkeletonScript.advice(target)
    assert [sentence for sentence in told if sentence.startswith("Record longer: 4 seconds")]
    assert not [sentence for sentence in told if sentence.startswith(("Step back", "Keep the camera", "Stay in"))]
    stiff = copy.copy(target)
    stiff.joints, stiff.visibility = target.joints[:1].repeat(40, 0), target.visibility.copy()
    stiff.visibility[:20, 27] = 0.1
    stiff.still, stiff.frames_read, stiff.fps = False, 900, 30
    told = VideoSkeletonScript.advice(stiff)
    assert [sentence.split(":")[0] for sentence in told] == [
        "Move more", "Stay in the picture, in good light", "Step back so that the feet show",
        "Keep the camera still, on a tripod"]
    assert "40 of 900 frames" in told[1] and "50%" in told[2] and "arms up" in told[0]
    assert max(VideoSkeletonScript.movements(stiff).values()) in (0, 1)


@pytest.mark.parametrize("size", [None, 100, 700])
def test_a_mask_can_be_had_at_any_size(target, size):
    """It is the canvas's mask, reduced or enlarged."""
    whole, mask = target.mask(9).astype(np.float32), target.mask(9, size).astype(np.float32)
    assert mask.shape == (size or target.size,) * 2
    smaller = size and size < target.size
    wanted = cv2.resize(whole, mask.shape, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    assert np.abs(mask - wanted).mean() < 1 and np.abs(mask.mean() - whole.mean()) < 0.5


def test_behind_a_moving_camera_an_image_shows_the_plate_around_the_person(target):
    moving = copy.copy(target)
    moving.still = False
    image, plate = moving.image(17).astype(int), target.canvas_plate
    mask = target.mask(17)
    person, matte, (left, top) = target.person(17)
    place, share = np.s_[top:top + len(person), left:left + person.shape[1]], matte[:, :, None] / 255
    wanted = plate.astype(float)
    wanted[place] = share * person + (1 - share) * wanted[place]
    assert np.abs(image - wanted).max() <= 1 and (mask == 255).mean() > 0.05
    far = cv2.dilate(mask, np.ones((61, 61), np.uint8)) < 20
    assert np.array_equal(image[far], plate[far])


def test_a_hand_that_the_matte_has_lost_is_transparent(target):
    """Around the left hand nothing is left of the matte. So a part of that arm is not opaque, and nothing else
    changes where the hand is away from the body."""
    hands = target.joints[:, [15, 17, 19], :2]
    middle = hands[:, 0] + 0.9 * (hands[:, 1:].mean(1) - hands[:, 0])

    class Mattes:
        def read(self, index, flags, size):
            matte = target._matte(index)
            x, y = (middle[index] * target.size - target._boxes[index, :2]).astype(int).tolist()
            return cv2.circle(matte, (x, y), round(0.06 * target.size), 0, -1)

    canvas = target_pictures._Canvas(target.frame_size, target.box, target.size, None, target.joints, target._boxes)
    sharpness, opacity = target_pictures._clarity(target._images, Mattes(), canvas)
    assert np.array_equal(sharpness, target.sharpness)
    arm, torso, head = (CHAINS.index(chain) for chain in ("left arm", "torso", "head"))
    assert (target.opacity[:, arm] > 0.9).all()
    lost = target.opacity[:, arm] - opacity[:, arm]
    assert (lost > 0.15).all()
    others = target.joints[:, [0, 7, 8, 11, 12, 23, 24], :2]
    apart = np.linalg.norm(others - middle[:, None], axis=2).min(1) > 0.2
    assert apart.sum() > 10
    assert np.array_equal(opacity[apart][:, [torso, head]], target.opacity[apart][:, [torso, head]])
