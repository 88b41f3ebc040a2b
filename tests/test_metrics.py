"""The metrics: ideal values for identical clips, and the right direction under a known shift, blur or freeze."""

import itertools

import cv2
import numpy as np
import pytest

from common.paths import SAMPLE_TRUTH
from measuring import metrics
from measuring.judging import detect_clip
from VideoReader import VideoReader


@pytest.fixture(scope="module")
def dance():
    """Twelve consecutive frames of the truth clip in fast movement, 192 x 192."""
    with VideoReader(SAMPLE_TRUTH) as reader:
        return [cv2.resize(frame, (192, 192), interpolation=cv2.INTER_AREA)
                for frame in itertools.islice(reader, 60, 72)]


def changed(image, how):
    if how == "blur":
        return cv2.GaussianBlur(image, (0, 0), 3)
    if how == "shift":
        return np.roll(image, 6, 1)
    return np.clip(image.astype(int) + np.random.default_rng(0).normal(0, 15, image.shape), 0, 255).astype(np.uint8)


def test_identical_images_are_ideal(dance):
    image = dance[0]
    assert metrics.l1(image, image) == 0 and metrics.psnr(metrics.squared_error(image, image)) > 140
    assert metrics.ssim(image, image) == pytest.approx(1) and metrics.ms_ssim(image, image) == pytest.approx(1)
    assert metrics.st_lpips(image, image) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("how", ["blur", "shift", "noise"])
def test_every_change_costs_in_every_image_metric(how, dance):
    image, other = dance[0], changed(dance[0], how)
    assert metrics.l1(image, other) > 1 and metrics.psnr(metrics.squared_error(image, other)) < 35
    assert metrics.ssim(image, other) < 0.95 and metrics.ms_ssim(image, other) < 0.99
    assert metrics.st_lpips(image, other) > 0.01


def test_psnr_and_l1_by_hand():
    """uint8 arithmetic would wrap: 250 - 5 and 5 - 250 are the same distance."""
    a, b = np.full((8, 8, 3), 5, np.uint8), np.full((8, 8, 3), 250, np.uint8)
    for pair in ((a, b), (b, a)):
        assert metrics.l1(*pair) == 245 and metrics.squared_error(*pair) == 245 ** 2
    assert metrics.psnr(255 ** 2 / 100) == pytest.approx(20)


def test_ssim_is_wangs(dance):
    """Against the formula written out: 11 x 11 Gaussian window, sigma 1.5, K 0.01 and 0.03."""
    a, b = (image.astype(float) for image in (dance[0], changed(dance[0], "noise")))

    def window(x):
        return cv2.GaussianBlur(x, (11, 11), 1.5)

    mean_a, mean_b = window(a), window(b)
    var_a, var_b = window(a * a) - mean_a ** 2, window(b * b) - mean_b ** 2
    both = window(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    formula = (2 * mean_a * mean_b + c1) * (2 * both + c2) / ((mean_a ** 2 + mean_b ** 2 + c1) * (var_a + var_b + c2))
    inside = formula[5:-5, 5:-5].mean()
    assert metrics.ssim(dance[0], changed(dance[0], "noise")) == pytest.approx(inside, abs=1e-3)


def test_keypoint_errors_by_hand():
    real = np.zeros((4, 13, 2), np.float32)
    present, made_present = np.ones((4, 13), bool), np.ones((4, 13), bool)
    made_present[0] = False
    akd, mkr = metrics.keypoint_errors(real, present, real + np.float32([3, 4]), made_present)
    assert akd == pytest.approx(5) and mkr == pytest.approx(0.25)
    present[1] = False  # a joint that the truth does not show counts nowhere
    assert metrics.keypoint_errors(real, present, real, made_present) == (0, pytest.approx(1 / 3))
    akd, mkr = metrics.keypoint_errors(real, present, real, np.zeros((4, 13), bool))
    assert np.isnan(akd) and mkr == 1


def test_acceleration_by_hand():
    time = np.arange(10.0)
    points = np.stack([3 * time ** 2, 4 * time ** 2], 1)[:, None].repeat(13, 1).astype(np.float32)
    present = np.ones((10, 13), bool)
    assert metrics.acceleration(points, present) == pytest.approx(10)
    present[4] = False
    points[4] = 1e6
    assert metrics.acceleration(points, present) == pytest.approx(10)


def test_a_frozen_clip_loses_in_flow_and_a_shaking_one_in_jitter(dance):
    frozen = [dance[0]] * len(dance)
    own, still = (np.mean([metrics.flow_error((a, b), (c, d)) for a, b, c, d in
                           zip(dance, dance[1:], other, other[1:], strict=False)]) for other in (dance, frozen))
    assert own == 0 and still > 0.05
    shaking = [np.roll(image, 3 * (number % 2), 1) for number, image in enumerate(dance)]
    calm, wild = (detect_clip(images, 30) for images in (dance, shaking))
    assert metrics.acceleration(wild.joints, wild.present) > 1.5 * metrics.acceleration(calm.joints, calm.present)
    akd, mkr = metrics.keypoint_errors(calm.joints, calm.present, wild.joints, wild.present)
    assert 0.5 < akd < 4 and mkr < 0.05


def test_flicker_is_of_the_background_alone():
    rng = np.random.default_rng(0)
    room = rng.integers(60, 190, (120, 120, 3), np.uint8)
    masks = [np.zeros((120, 120), np.uint8) for _ in range(6)]
    for mask in masks:
        mask[40:80, 40:80] = 255
    images = [room.copy() for _ in range(6)]
    for image in images:
        image[40:80, 40:80] = rng.integers(0, 255, (40, 40, 3))
    assert metrics.flicker(images, masks) == 0
    blinking = [np.clip(image.astype(int) + 4 * (number % 2), 0, 255).astype(np.uint8)
                for number, image in enumerate(images)]
    assert metrics.flicker(blinking, masks) == pytest.approx(4)


def test_wrist_timing_measures_lag_and_speed():
    frames = np.arange(120)
    true = np.zeros((120, 13, 2))
    true[:, 5:7, 0] = 50 * np.sin(frames / 4)[:, None]
    late = np.stack([np.interp(frames - 0.6, frames, true[:, j, k]) for j in range(13) for k in (0, 1)], 1)
    seen = np.ones((120, 13), bool)
    told = metrics.wrist_timing(late.reshape(120, 13, 2), true, seen)
    assert told["wrist lag"] == pytest.approx(0.6, abs=0.05)
    assert metrics.wrist_timing(0.8 * true, true, seen) == {"wrist lag": 0, "wrist peak speed": pytest.approx(0.8)}
