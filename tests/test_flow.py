"""Optical flow around places: known shifts of known pictures, in pictures of any size."""

import cv2
import numpy as np
import pytest

from video import flow
from video.flow import EXACT, FAST, flow_around


@pytest.fixture
def texture():
    noise = np.random.default_rng(3).integers(0, 256, (200, 240), dtype=np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)


@pytest.mark.parametrize("preset", [FAST, EXACT])
def test_each_side_moves_in_its_own_way_and_what_does_not_count_is_not_followed(texture, preset):
    moved = cv2.warpAffine(texture, np.float32([[1, 0, 2.5], [0, 1, -1.5]]), texture.shape[::-1])
    after = np.hstack([moved[:, :120], cv2.warpAffine(texture, np.float32([[1, 0, 0], [0, 1, 3]]),
                                                      texture.shape[::-1])[:, 120:]])
    points = [[50, 100], [190, 60], [110, 100], [-90, 50]]
    share = np.ones(texture.shape, np.float32)
    share[:, 125:] = 0
    moves, sure = flow_around(texture, after, np.ones_like(share), points, 8, preset)
    assert np.allclose(moves[:2], [[2.5, -1.5], [0, 3]], atol=0.2) and (sure[:2] > 0.8).all()
    mixed = np.linalg.norm(moves[2] - [2.5, -1.5])  # the third point is near what moves in the other way
    moves, sure = flow_around(texture, after, share, points, 8, preset)
    assert np.allclose(moves[0], [2.5, -1.5], atol=0.2) and np.linalg.norm(moves[2] - [2.5, -1.5]) < 0.9 * mixed
    assert sure[1] < 0.01 and sure[3] == 0 and np.isfinite(moves).all()


def test_plain_places_hardly_count(texture):
    texture[:, :120] = 100
    known = flow.texture(texture)
    assert known[:, :100].max() < 0.01 and known[:, 140:].mean() > 0.5


def test_what_looks_different_afterwards_is_not_sure(texture):
    other = np.random.default_rng(4).integers(0, 256, texture.shape, dtype=np.uint8)
    _, sure = flow_around(texture, other, np.ones(texture.shape, np.float32), [[100, 100]], 8)
    assert sure < 0.2


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (16, 300), (300, 16), (47, 49)])
def test_pictures_of_any_size_are_followed(shape):
    picture = np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)
    middle = [[(shape[1] - 1) / 2, (shape[0] - 1) / 2]]
    moves, sure = flow_around(picture, picture.copy(), np.ones(shape, np.float32), middle, 0.5)
    assert np.allclose(moves, 0, atol=0.1) and sure > 0.5
