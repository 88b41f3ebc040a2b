"""The background plate and the way back into it, on painted scenes whose truth is known."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from picture.canvas import Patch
from picture.scene import BORDER, Scene, background
from picture.seamless import without_seams
from picture.window import scene_window


def room(seed=0, width=240, height=160):
    """A textured scene."""
    noise = np.random.default_rng(seed).integers(0, 255, (height // 8, width // 8, 3), np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def walk(scene, count, shift=0):
    """Frames of a green figure that walks through a scene (that moves `shift` px a frame), and its masks."""
    frames, masks = [], []
    for number in range(count):
        frame, mask = np.roll(scene, shift * number, 1).copy(), np.zeros(scene.shape[:2], np.uint8)
        left = 20 + number * 160 // count
        cv2.rectangle(mask, (left, 40), (left + 30, 130), 255, -1)
        frame[mask > 0] = (0, 200, 0)
        frames.append(frame)
        masks.append(mask)
    return frames, masks


def pan(step, count, middle):
    """What `background` takes for a camera that pans by `step` px a frame: how frames lie on number `middle`."""
    return [np.float64([[1, 0, step * (number - middle)], [0, 1, 0]]) for number in range(count)], middle


def test_the_plate_of_a_still_camera_is_the_scene():
    scene = room()
    plate, still = background(*walk(scene, 24), *pan(0, 24, 12))
    assert still and np.abs(plate.astype(int) - scene).max() <= 1


def test_a_place_never_seen_is_painted_from_around():
    scene = np.full((160, 240, 3), 100, np.uint8)
    frames, masks = walk(scene, 12)
    for frame, mask in zip(frames, masks, strict=True):
        frame[60:100, 100:110], mask[60:100, 100:110] = 255, 255
    plate, still = background(frames, masks, *pan(0, 12, 6))
    assert still and np.abs(plate.astype(int) - 100).max() <= 2


def test_with_a_moving_camera_the_plate_is_one_real_frame_without_its_person():
    wide = room(3, 480)
    frames, masks = [], []
    for number in range(16):
        frame, mask = wide[:, 6 * number:6 * number + 240].copy(), np.zeros((160, 240), np.uint8)
        left = 150 - 8 * number
        cv2.rectangle(mask, (left, 30), (left + 25, 140), 255, -1)
        frame[mask > 0] = (0, 200, 0)
        frames.append(frame)
        masks.append(mask)
    plate, still = background(frames, masks, *pan(6, 16, 8))
    real = wide[:, 6 * 8:6 * 8 + 240]
    away = np.abs(plate.astype(int) - real).max(2)
    assert not still and np.array_equal(plate[masks[8] == 0][:50], real[masks[8] == 0][:50])
    assert np.median(away[masks[8] > 0]) < 12 and (away > 60).mean() < 0.03


def test_with_a_moving_camera_the_shadow_beside_the_person_fades_from_the_plate():
    wide = (room(3, 960, 320) // 2 + 100).astype(np.uint8)
    frames, masks, shadows = [], [], []
    for number in range(16):
        frame, mask, shadow = wide[:, 12 * number:12 * number + 480].copy(), *np.zeros((2, 320, 480), np.uint8)
        left = 300 - 16 * number
        cv2.rectangle(mask, (left, 60), (left + 50, 280), 255, -1)
        cv2.rectangle(shadow, (left + 51, 200), (left + 65, 280), 255, -1)  # partly beyond the grown mask
        frame[shadow > 0] //= 2
        frame[mask > 0] = (0, 200, 0)
        frames.append(frame)
        masks.append(mask)
        shadows.append(shadow > 0)
    plate, still = background(frames, masks, *pan(12, 16, 8))
    real = wide[:, 12 * 8:12 * 8 + 480].astype(int)
    left, was = (np.abs(each.astype(int) - real)[shadows[8]].mean() for each in (plate, frames[8]))
    assert not still and left < 0.3 * was
    assert np.array_equal(plate[:, 320:], real[:, 320:])  # far from her, it is the real frame


def shown(plate, box):
    """What a Scene asks of a target."""
    return SimpleNamespace(plate=plate, box=box, window=scene_window(plate))


@pytest.mark.parametrize("box", [(40, 10, 100), (0, 0, 160), (-20, -40, 240), (60, 0, 200)])
def test_put_gives_the_videos_size_and_blends_only_inside_the_picture(box):
    plate = room()
    image = np.full((64, 64, 3), 250, np.uint8)
    frame = Scene(shown(plate, box)).put(Patch(image, None, 64))
    x, y, side = box
    band = int(np.ceil(side * BORDER))
    inside = np.zeros(plate.shape[:2], bool)
    inside[max(y, 0):y + side, max(x, 0):x + side] = True
    assert frame.shape == plate.shape and np.array_equal(frame[~inside], plate[~inside])
    core = np.zeros_like(inside)
    core[max(y + band, 0) if y > 0 else 0:y + side - band if y + side < 160 else None,
         max(x + band, 0) if x > 0 else 0:x + side - band if x + side < 240 else None] = True
    assert (frame[core & inside] == 250).all()


def test_a_mask_takes_the_person_and_leaves_the_scene_to_the_last_level():
    plate = room()
    scene = Scene(shown(plate, (40, 10, 100)))
    image = np.full((100, 100, 3), 250, np.uint8)
    mask = np.full((100, 100), 12, np.uint8)  # of 255: a network's haze
    mask[30:70, 30:70] = 230
    frame = scene.put(Patch(image, mask, 100))
    assert (frame[40:80, 70:110] == 250).all()
    frame[40:80, 70:110] = plate[40:80, 70:110]
    assert np.array_equal(frame, plate)


@pytest.mark.parametrize(("box", "size"), [((40, 10, 100), 100), ((-20, -40, 240), 240), ((40, 10, 100), 64)])
@pytest.mark.parametrize("masked", [True, False])
def test_a_part_of_the_canvas_is_put_where_the_whole_canvas_would_put_it(box, size, masked):
    """Without a mask, for which it must be of the scene's own size, and be the scene where nobody is."""
    plate, (x, y, side) = room(), box
    scene, size = Scene(shown(plate, box)), size if masked else side
    whole, mask = room(1, 240, 240)[:size, :size].copy(), np.zeros((size, size), np.uint8)
    if not masked:
        whole = cv2.copyMakeBorder(plate, 300, 300, 300, 300, cv2.BORDER_REPLICATE)[300 + y:, 300 + x:][:side, :side]
        whole = whole.copy()
    person = np.s_[size // 3:size // 2, size // 4:size // 2]
    whole[person], mask[person] = (10, 250, 10), 255
    part = np.s_[size // 3 - 4:size // 2 + 9, size // 4 - 5:size // 2 + 7]
    alone = Patch(whole[part], mask[part] if masked else None, size, (size // 4 - 5, size // 3 - 4))
    assert np.array_equal(whole[alone.place], alone.image)
    # OpenCV counts in steps of 1/32 of a pixel where it enlarges.
    away = np.abs(scene.put(alone).astype(int) - scene.put(Patch(whole, mask, size)))
    assert away.max() <= (0 if size == side else 8)


def test_the_plate_of_a_still_camera_has_no_shadow_where_it_is_seen_without_one_at_times():
    scene = np.full((160, 240, 3), 150, np.uint8)
    frames, masks = walk(scene, 20)
    for number, frame in enumerate(frames):
        if number % 5 < 3:  # the ground lies in the shadow in most frames
            frame[140:155, 60:90] = 90
    plate, still = background(frames, masks, *pan(0, 20, 10))
    assert still and np.abs(plate[140:155, 60:90].astype(int) - 150).max() <= 1


def test_a_border_that_stays_where_it_is_does_not_move_into_the_scene():
    wide, frames, masks = room(3, 960, 320) // 2, [], []
    for number in range(16):  # the camera begins to move in the middle
        frame, mask = wide[:, 8 * max(number - 8, 0):][:, :480].copy(), np.zeros((320, 480), np.uint8)
        frame[:, :120] = frame[:, -30:] = 255
        cv2.rectangle(mask, (135, 60), (145, 280), 255, -1)  # thin, so that some frames show what is behind
        cv2.rectangle(mask, (135, 60), (400, 70), 255, -1)
        frame[mask > 0] = (0, 200, 0)
        frames.append(frame)
        masks.append(mask)
    ways = [np.float64([[1, 0, 8 * max(number - 8, 0)], [0, 1, 0]]) for number in range(16)]
    plate, still = background(frames, masks, ways, 8)
    assert not still and (plate[:, 123:-33] < 180).all()


def test_light_that_changes_from_frame_to_frame_leaves_no_seam_where_the_person_was():
    """Each place behind her is seen in other frames than the place beside it."""
    wide = (room(3, 960, 320) // 3 + 90).astype(np.uint8)
    frames, masks = [], []
    for number in range(16):
        frame, mask = wide[:, 8 * number:8 * number + 480].copy(), np.zeros((320, 480), np.uint8)
        frame = cv2.convertScaleAbs(frame, beta=float(40 * np.sin(1.7 * number)))
        cv2.rectangle(mask, (260 - 14 * number, 60), (330 - 14 * number, 280), 255, -1)
        frame[mask > 0] = (0, 200, 0)
        frames.append(frame)
        masks.append(mask)
    plate, _ = background(frames, masks, *pan(8, 16, 8))
    light = int(np.median(frames[8][:50, -50:].astype(int) - wide[:50, 64 + 430:64 + 480]))
    off = plate[5:-5, 5:-5].astype(int) - wide[5:-5, 69:539] - light
    steps = np.abs(np.diff(off.mean(2), axis=1))
    assert np.abs(off).mean() < 4 and np.percentile(steps, 99) < 6


def test_gradients_give_the_picture_back():
    picture = room(2)
    share = np.zeros(picture.shape[:2], np.float32)
    share[30:120, 50:200] = 1
    other = picture.copy()
    other[60:90, 80:150] = 0  # what is put together from colours has a hole; the frames' gradients have none
    brighter = [cv2.convertScaleAbs(picture, beta=float(beta)) for beta in (-3, 0, 5)]
    hidden = [np.zeros(picture.shape[:2], np.uint8) for _ in brighter]
    made = without_seams(other, share, brighter, hidden, 3)
    assert np.abs(made.astype(int) - picture).mean() < 1.5 and np.array_equal(made[:20], picture[:20])
    nothing = [np.full_like(each, 1) for each in hidden]
    assert np.abs(without_seams(picture, share, brighter, nothing, 3).astype(int) - picture).max() <= 1


@pytest.mark.parametrize("bars", [(0, 0, 0, 0), (30, 0, 25, 0), (0, 18, 0, 20), (12, 9, 40, 31)])
@pytest.mark.parametrize("level", [0, 16, 35])
def test_bars_beside_the_scene_are_found_and_nobody_is_put_there(bars, level):
    """The bars are of one dark colour, with noise of two levels and, above the scene, a title."""
    left, top, right, bottom = bars
    plate = room()
    height, width = plate.shape[:2]
    window = left, top, width - right, height - bottom
    inside = np.zeros((height, width), bool)
    inside[top:height - bottom, left:width - right] = True
    plate[~inside] = level
    if top:
        cv2.putText(plate, "a title", (left + 20, top - 3), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (230, 230, 230))
    noise = np.random.default_rng(0).integers(-2, 3, plate.shape)
    plate = np.clip(plate + noise, 0, 255).astype(np.uint8)
    assert scene_window(plate) == window
    frame = Scene(shown(plate, (0, 0, width))).put(Patch(np.full((64, 64, 3), 250, np.uint8), None, 64))
    assert np.array_equal(frame[~inside], plate[~inside]) and (frame[inside] == 250).all()


def test_a_dark_stage_and_a_white_studio_have_no_bars():
    """A stage is dark at its edges, a studio is white everywhere; both have a light spot in the middle."""
    y, x = np.mgrid[:160, :240]
    spot = np.exp(-((x - 120) ** 2 + (y - 80) ** 2) / 2 / 30 ** 2)[:, :, None]
    noise = np.random.default_rng(0).normal(0, 2, (160, 240, 3))
    for dark, light in ((8, 150), (240, 255), (0, 0)):
        picture = np.clip(dark + spot * (light - dark) + noise, 0, 255).astype(np.uint8)
        assert scene_window(picture) == (0, 0, 240, 160)
