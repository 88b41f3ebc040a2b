"""Mattes against pictures whose true matte is known: a figure of known shape before a known background."""

import cv2
import numpy as np
import pytest

from picture.matting import foreground, matte
from picture.scene import SHARES

HEIGHT, SIZE = 400, (480, 320)  # pixels: of the body; and of the picture, height and width
SHIRT, SKIN, WALL = (60, 40, 200), (120, 150, 210), (200, 180, 90)  # BGR


def drawn(colour, behind, noise=6.0):
    """(image, true matte in [0, 1], joints) of a figure with spread fingers at the left, before a wall. It is drawn
    four times as large and then reduced, so that its edge is soft."""
    rng, (rows, columns) = np.random.default_rng(0), SIZE
    figure, hand = np.zeros((4 * rows, 4 * columns), np.uint8), np.zeros((4 * rows, 4 * columns), np.uint8)
    cv2.ellipse(figure, (800, 960), (180, 760), 0, 0, 360, 255, -1)
    cv2.line(figure, (720, 800), (330, 640), 255, 90)
    cv2.circle(hand, (300, 620), 50, 255, -1)
    for degrees in (-150, -115, -80):
        tip = (300 + 130 * np.cos(np.radians(degrees)), 620 + 130 * np.sin(np.radians(degrees)))
        cv2.line(hand, (300, 620), tuple(int(each) for each in tip), 255, 22)
    colours = np.where(hand[:, :, None] > 0, SKIN, colour)
    alpha = (cv2.max(figure, hand) / 255.0)[:, :, None]
    image = cv2.resize(alpha * colours + (1 - alpha) * behind, (columns, rows), interpolation=cv2.INTER_AREA)
    alpha = cv2.resize(alpha[:, :, 0], (columns, rows), interpolation=cv2.INTER_AREA)
    joints = np.full((33, 2), -1000.0)  # the other landmarks are outside of the picture
    joints[[14, 16, 18, 20]] = [[150, 185], [80, 158], [72, 148], [76, 146]]
    return np.clip(image + rng.normal(0, noise, image.shape), 0, 255).astype(np.uint8), alpha, joints


def coarse(alpha):
    """A mask like the detector's: as if it had pixels of 3 x 3 and were a little off."""
    small = cv2.GaussianBlur(np.roll(alpha, (2, -2), (0, 1)), (0, 0), 3)
    small = cv2.resize(small, (SIZE[1] // 3, SIZE[0] // 3), interpolation=cv2.INTER_AREA)
    return (cv2.resize(small, SIZE[::-1]) * 255).round().clip(0, 255).astype(np.uint8)


def test_a_matte_is_much_nearer_to_the_truth_than_the_mask():
    image, alpha, joints = drawn(SHIRT, WALL)
    mask = coarse(alpha)
    found = matte(image, mask, joints, HEIGHT) / 255
    edge = cv2.dilate(alpha, np.ones((15, 15))) - cv2.erode(alpha, np.ones((15, 15))) > 0
    assert np.abs(found - alpha)[edge].mean() < 0.35 * np.abs(SHARES[mask] - alpha)[edge].mean()
    gap = (alpha[115:145, 45:90] == 0) & (mask[115:145, 45:90] > 127)  # between the fingers
    assert gap.sum() > 30 and found[115:145, 45:90][gap].mean() < 0.2


def test_where_the_colours_do_not_differ_the_mask_is_kept():
    image, alpha, joints = drawn(SHIRT, SHIRT)
    image[:] = np.clip(np.random.default_rng(1).normal(SHIRT, 12, image.shape), 0, 255)
    mask = coarse(alpha)
    found = matte(image, mask, joints, HEIGHT).astype(float)
    inside = np.abs(cv2.blur(mask, (9, 9)).astype(int) - mask) < 60
    assert np.abs(found - SHARES[mask] * 255)[inside].mean() < 4


def test_a_thing_of_the_same_colour_beside_the_person_does_not_belong_to_her():
    image, alpha, joints = drawn(SHIRT, WALL)
    cv2.circle(image, (40, 400), 25, SHIRT, -1)
    assert matte(image, coarse(alpha), joints, HEIGHT)[370:430, 10:70].max() == 0


def test_a_shirt_of_the_walls_colour_gets_no_hole():
    image, alpha, joints = drawn(SHIRT, WALL)
    cv2.circle(image, (200, 240), 18, WALL, -1)
    assert matte(image, coarse(alpha), joints, HEIGHT)[220:260, 180:220].min() == 255


def test_nothing_of_the_old_background_is_seen_before_a_new_one():
    image, alpha, _ = drawn(SHIRT, WALL, noise=1.0)
    opaque = (alpha * 255).round().astype(np.uint8)
    wanted, true, _ = drawn(SHIRT, (0, 0, 0), noise=1.0)

    def before_black(picture):
        return picture * (opaque[:, :, None] / 255)

    edge = (opaque > 0) & (opaque < 255)
    own = foreground(image, opaque, HEIGHT)
    off, was = (np.abs(before_black(picture) - wanted)[edge].mean() for picture in (own, image))
    assert off < 0.35 * was and np.array_equal(own[~edge], image[~edge]) and np.array_equal(true, alpha)


@pytest.mark.parametrize("shape", [(2, 2), (3, 50), (40, 7)])
@pytest.mark.parametrize("level", [0, 120, 255])
def test_pictures_of_any_size_have_a_matte(shape, level):
    image, mask = np.full((*shape, 3), 90, np.uint8), np.full(shape, level, np.uint8)
    for height in (1.0, 30.0, 5000.0):
        found = matte(image, mask, np.zeros((33, 2)), height)
        assert found.shape == shape and found.dtype == np.uint8
        assert np.array_equal(foreground(image, found, height), image)


def test_a_large_picture_has_the_matte_of_a_small_one():
    image, alpha, joints = drawn(SHIRT, WALL, noise=0.0)
    mask = coarse(alpha)
    small = matte(image, mask, joints, HEIGHT).astype(float)
    larger = [cv2.resize(each, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC) for each in (image, mask)]
    large = matte(*larger, joints * 3, HEIGHT * 3)
    assert np.abs(cv2.resize(large, SIZE[::-1], interpolation=cv2.INTER_AREA) - small).mean() < 2
