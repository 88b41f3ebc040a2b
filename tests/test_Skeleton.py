"""The skeleton's numbers and its drawing."""

import cv2
import numpy as np
import pytest
from conftest import moved, random_skeleton

from Skeleton import LIMBS, REDUCED, Skeleton


def test_values_and_distance():
    rng = np.random.default_rng(0)
    a, b = random_skeleton(rng), random_skeleton(rng)
    assert a.reduced.shape == (26,) and a.full.shape == (99,) and a.reduced.dtype == np.float32
    assert np.array_equal(a.reduced, [a.joints[j, k] for j in REDUCED for k in (0, 1)])
    for full, n in ((False, 26), (True, 99)):
        x, y = ((s.full if full else s.reduced).astype(float) for s in (a, b))
        assert a.distance(b, full) == pytest.approx(sum((x[i] - y[i]) ** 2 for i in range(n)) ** 0.5, rel=1e-6)
    with pytest.raises(ValueError, match="33 joints"):
        Skeleton(np.zeros((13, 2)), np.zeros(13))


def test_drawing_tells_left_from_right_and_covers_the_joints():
    skeleton = random_skeleton(np.random.default_rng(1))
    mirrored = skeleton.joints.copy()
    pairs = [(j, j + 1) for j in range(11, 33, 2)]
    for left, right in pairs:
        mirrored[[left, right]] = mirrored[[right, left]]
    assert len({colour for *_, colour in LIMBS}) == len(LIMBS)
    first = skeleton.draw(np.zeros((256, 256, 3), np.uint8))
    second = Skeleton(mirrored, skeleton.visibility).draw(np.zeros((256, 256, 3), np.uint8))
    assert (first != second).any()
    for joint in (13, 14, 25, 26):  # elbows and knees lie on two limbs
        x, y = (skeleton.joints[joint, :2] * 256).astype(int)
        assert first[y, x].any()


def test_drawing_moves_by_less_than_a_pixel_and_scales():
    skeleton = random_skeleton(np.random.default_rng(2))
    size = 64
    still = skeleton.draw(np.zeros((size, size, 3), np.uint8)).astype(float)
    shifted = moved(skeleton, 1, (0.25 / size, 0)).draw(np.zeros((size, size, 3), np.uint8)).astype(float)
    assert 0 < np.abs(still - shifted).mean() < np.abs(still - np.roll(still, 1, 1)).mean()
    large = skeleton.draw(np.zeros((512, 512, 3), np.uint8))
    small = cv2.resize(large, (size, size), interpolation=cv2.INTER_AREA).astype(float)
    assert np.corrcoef(small.ravel(), still.ravel())[0, 1] > 0.9


def test_drawing_survives_far_joints_and_leaves_out_hidden_ones():
    joints = np.full((33, 3), 1e9, np.float32)
    Skeleton(joints, np.ones(33)).draw(np.zeros((32, 32, 3), np.uint8))
    skeleton = random_skeleton(np.random.default_rng(3))
    assert not Skeleton(skeleton.joints, np.zeros(33)).draw(np.zeros((64, 64, 3), np.uint8)).any()
