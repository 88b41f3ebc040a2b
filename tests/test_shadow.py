"""The shadow under a foot: learned from drawn frames whose shadow is known, and drawn where the feet are."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from warping.shadow import AROUND, FEET, LIFTED, Shadow, ShadowFinder, feet

SIZE, HEIGHT, GROUND = 400, 0.7, 0.85


def standing(x, lift=0.0):
    """(33, 3): a pose whose feet are 0.12 beside x on the ground, the right one lifted."""
    joints = np.full((33, 3), 0.5, np.float32)
    for foot, place, y in zip(FEET, (x - 0.12, x + 0.12), (GROUND, GROUND - lift), strict=True):
        joints[list(foot), :2] = [(place, y - 0.02), (place - 0.01, y + 0.01), (place + 0.01, y + 0.01)]
    return joints


def filmed(count, dark):
    """(target, plate, [(image, matte, corner)]): somebody who stands at different places on a patterned floor and takes
    a share `dark` of the light away in an ellipse below each foot."""
    random = np.random.default_rng(0)
    plate = cv2.resize(random.integers(60, 220, (40, 40, 3), np.uint8), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    poses = [standing(x) for x in np.linspace(0.3, 0.7, count)]
    frames = []
    for pose in poses:
        light, matte = np.ones((SIZE, SIZE), np.float32), np.zeros((SIZE, SIZE), np.uint8)
        for x, y in (feet(pose) * SIZE).round().astype(int):
            cv2.ellipse(light, (int(x), int(y) + 6), (24, 9), 0, 0, 360, 1 - dark, -1)
            cv2.rectangle(matte, (int(x) - 6, 100), (int(x) + 6, int(y) + 5), 255, -1)
        image = (plate * light[:, :, None]).round().astype(np.uint8)
        image[matte > 0] = (200, 30, 30)
        frames.append((image, matte, (0, 0)))
    return SimpleNamespace(joints=np.stack(poses), size=SIZE), plate, frames


def learned(target, plate, frames):
    finder = ShadowFinder(target, plate, HEIGHT)
    for index, frame in enumerate(frames):
        finder.look(index, *frame)
    return finder.shadow()


@pytest.mark.parametrize("pixels", [SIZE, 240])
def test_a_shadow_is_learned_as_dark_as_it_is_and_no_pattern_of_the_floor_is(pixels):
    target, plate, frames = filmed(12, 0.4)
    shadow = learned(target, cv2.resize(plate, (pixels, pixels), interpolation=cv2.INTER_AREA), frames)
    beside = shadow.light[38, 20:24]  # left of the foot and a little below its middle
    assert np.abs(beside - 0.6).max() < 0.08
    assert (shadow.light[:12] > 0.97).all() and (shadow.light[:, :6] > 0.97).all()


def test_where_the_ground_is_as_light_as_the_plate_there_is_no_shadow():
    assert learned(*filmed(12, 0.0)) is None
    target, plate, frames = filmed(2, 0.4)
    assert learned(target, plate, frames) is None  # too few feet to tell it from anything else
    target, plate, frames = filmed(12, 0.4)
    hidden = [(image, np.full_like(matte, 255), corner) for image, matte, corner in frames]
    assert learned(target, plate, hidden) is None


def drawn(shadow, joints, corner=(0, 0), size=(SIZE, SIZE)):
    image, mask = np.full((*size[::-1], 3), 200, np.uint8), np.zeros(size[::-1], np.uint8)
    shadow.draw(shadow.squares(joints, SIZE), image, mask, corner)
    return image, mask


@pytest.fixture
def shadow():
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    light = 1 - 0.5 * np.clip(1 - np.hypot(x, y), 0, 1).astype(np.float32)
    return Shadow(light, GROUND, HEIGHT)


def test_a_shadow_lies_under_both_feet_and_only_there(shadow):
    joints = standing(0.5)
    image, mask = drawn(shadow, joints)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    reach = AROUND * HEIGHT * SIZE
    for x, y in feet(joints) * SIZE:
        near = np.hypot(columns - x, rows - y) < 0.2 * reach
        assert (image[near] < 130).all() and (mask[near] == 255).all()
    away = np.min([np.hypot(columns - x, rows - y) for x, y in feet(joints) * SIZE], 0) > 1.1 * reach
    assert (image[away] == 200).all() and (mask[away] == 0).all() and (image[mask == 0] == 200).all()


def test_a_part_of_the_picture_shows_what_the_whole_shows(shadow):
    whole, mask = drawn(shadow, standing(0.5))
    part, own = drawn(shadow, standing(0.5), (130, 320), (60, 45))
    assert np.array_equal(part, whole[320:365, 130:190]) and np.array_equal(own, mask[320:365, 130:190])
    beside, _ = drawn(shadow, standing(0.02))  # one foot is outside of the canvas
    assert beside.min() < 130


def test_a_lifted_foot_leaves_its_shadow(shadow):
    darkest = []
    for lift in (0, sum(LIFTED) / 2 * HEIGHT, 1.1 * LIFTED[1] * HEIGHT):
        image, _ = drawn(shadow, standing(0.5, lift))
        darkest.append(int(image[:, SIZE // 2:].min()))
    assert darkest[0] < 110 and 130 < darkest[1] < 170 and darkest[2] == 200


def test_somebody_in_the_air_casts_none(shadow):
    joints = standing(0.5)
    joints[:, 1] -= 0.2
    assert shadow.squares(joints, SIZE) == []
