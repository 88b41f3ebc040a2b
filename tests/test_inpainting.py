"""Holes filled with texture, in pictures whose hidden part is known."""

import cv2
import numpy as np
import pytest

from picture.inpainting import fill


def stripes(height=150, width=200):
    """Slanted stripes, which go on behind any hole."""
    y, x = np.mgrid[:height, :width]
    grey = (127 + 90 * np.sin((x + 0.5 * y) * 2 * np.pi / 12)).astype(np.uint8)
    return np.stack([grey, grey // 2, 255 - grey], 2)


def a_hole(shape, rows, columns):
    hole = np.zeros(shape[:2], bool)
    hole[rows, columns] = True
    return hole


def error(picture, truth, hole):
    return np.abs(picture.astype(int) - truth)[hole].mean()


@pytest.mark.parametrize("enlarge", [1, 4])
def test_stripes_go_on_through_a_hole(enlarge):
    truth = cv2.resize(stripes(), None, fx=enlarge, fy=enlarge, interpolation=cv2.INTER_CUBIC)
    hole = cv2.resize(a_hole((150, 200), np.s_[50:100], np.s_[70:125]).astype(np.uint8), truth.shape[1::-1]) > 0
    damaged = np.where(hole[..., None], np.uint8(0), truth)
    smooth = cv2.inpaint(damaged, hole.astype(np.uint8), 5, cv2.INPAINT_TELEA)
    filled = fill(damaged, hole)
    assert error(filled, truth, hole) < error(smooth, truth, hole) / 3
    assert np.array_equal(filled[~hole], truth[~hole]), "only the hole is changed"
    assert np.array_equal(fill(damaged, hole), filled), "the same input gives the same picture"


def test_an_edge_between_two_surfaces_goes_on_through_a_hole():
    truth = np.full((120, 160, 3), 200, np.uint8)
    truth[70:] = (40, 60, 80)
    hole = a_hole(truth.shape, np.s_[45:95], np.s_[60:90])
    assert error(fill(np.where(hole[..., None], np.uint8(0), truth), hole), truth, hole) < 8


def test_the_grain_of_a_surface_is_in_the_hole_too():
    truth = np.random.default_rng(0).integers(90, 160, (600, 800, 3), np.uint8)  # twice as large as what is searched
    hole = a_hole(truth.shape, np.s_[200:400], np.s_[300:500])
    filled = fill(np.where(hole[..., None], np.uint8(0), truth), hole)
    assert filled[hole].std() > truth[hole].std() / 2


def test_no_texture_comes_from_another_hole():
    truth = np.full((120, 200, 3), 150, np.uint8)
    hole = a_hole(truth.shape, np.s_[40:80], np.s_[40:80]) | a_hole(truth.shape, np.s_[40:80], np.s_[100:140])
    filled = fill(np.where(hole[..., None], np.uint8(255), truth), hole)
    assert np.abs(filled.astype(int) - 150).max() <= 1


@pytest.mark.parametrize("rows, columns", [(np.s_[:], np.s_[:]), (np.s_[:], np.s_[2:]), (np.s_[:30], np.s_[:]),
                                           (np.s_[5:8], np.s_[-4:]), (np.s_[9:10], np.s_[9:10])])
@pytest.mark.parametrize("shape", [(40, 60, 3), (11, 9, 3), (2, 300, 3)])
def test_holes_at_edges_and_pictures_with_hardly_anything_around(shape, rows, columns):
    truth = np.full(shape, 90, np.uint8)
    hole = a_hole(shape, rows, columns)
    filled = fill(np.where(hole[..., None], np.uint8(90 if hole.all() else 0), truth), hole)
    assert filled.shape == shape and (hole.all() or np.abs(filled.astype(int) - 90).max() <= 1)
