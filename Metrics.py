"""Formulas of Evaluate.py: how far a generated clip is from the real one. Images are uint8 H x W x 3 BGR.

| metric | better | what |
|---|---|---|
| L1 | lower | mean absolute error, levels of 0 to 255 |
| PSNR | higher | 10 log10(255^2 / mean squared error over all pixels of all frames), dB, float64 |
| SSIM | higher | Wang et al., IEEE TIP 2004, its own settings: Gaussian window, sigma 1.5, K 0.01 and 0.03 (scikit-image) |
| MS-SSIM | higher | Wang et al., Asilomar 2003: five scales, the same window (torchmetrics) |
| ST-LPIPS | lower | learned perceptual distance, net alex: Ghildyal and Liu, ECCV 2022 (stlpips-pytorch) |
| AKD | lower | mean distance in px of the joints detected in both frames (Siarohin et al., CVPR 2019; here MediaPipe, 13 joints) |
| MKR | lower | share of the joints seen in the real frame that are missing in the generated one (same source) |
| tOF | lower | end-point error in px between the optical flows of consecutive real and generated frames (Chu et al., SIGGRAPH 2020; Farneback's flow) |
| flicker | lower | mean absolute difference of consecutive frames outside the person, levels |
| jitter | 1 | mean acceleration of the joints detected in the generated clip over the real one's |
"""  # noqa: E501, a table

import cv2
import numpy as np
import torch

from PoseDataset import to_tensor
from Skeleton import REDUCED, PoseDetector

PRESENT = 0.5  # visibility from which a joint counts as detected
SMALLEST = 176  # pixels that five scales of MS-SSIM need
FARNEBACK = {"pyr_scale": 0.5, "levels": 4, "winsize": 21, "iterations": 3, "poly_n": 7, "poly_sigma": 1.5, "flags": 0}


def l1(real, made):
    return cv2.norm(real, made, cv2.NORM_L1) / real.size


def squared_error(real, made):
    """Mean squared difference; OpenCV adds up whole numbers, in float64."""
    return cv2.norm(real, made, cv2.NORM_L2SQR) / real.size


def psnr(mean_squared_error):
    return float(10 * np.log10(255 ** 2 / max(mean_squared_error, 1e-10)))


def ssim(real, made):
    from skimage.metrics import structural_similarity  # here, as below: what is not in requirements.txt

    return float(structural_similarity(real, made, channel_axis=2, data_range=255, gaussian_weights=True, sigma=1.5,
                                       use_sample_covariance=False))


def ms_ssim(real, made):
    """Of square images; smaller ones than SMALLEST are enlarged to it."""
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    if len(real) < SMALLEST:
        real, made = (cv2.resize(image, (SMALLEST, SMALLEST), interpolation=cv2.INTER_CUBIC) for image in (real, made))
    pair = [torch.from_numpy(image.transpose(2, 0, 1)[None].astype(np.float32)) for image in (real, made)]
    return float(multiscale_structural_similarity_index_measure(*pair, data_range=255.0, sigma=1.5, kernel_size=11))


class StLpips:
    """st_lpips(real, made); the network is made once."""

    def __init__(self):
        from stlpips_pytorch import stlpips

        network = stlpips.LPIPS(net="alex", variant="shift_tolerant", verbose=False)
        self._network = network.to(memory_format=torch.channels_last)  # the same values in half the time on a CPU

    @torch.inference_mode()
    def __call__(self, real, made):
        pair = (to_tensor(image)[None].to(memory_format=torch.channels_last) for image in (real, made))
        return float(self._network(*pair))


def watch(images, fps):
    """Detect the person in the frames of one clip: (points float32 (N, 13, 2) in px, present bool (N, 13), masks: list
    of uint8 H x W)."""
    points, present, masks = [], [], []
    with PoseDetector(fps=fps, mask=True) as detector:
        for image in images:
            skeleton, mask = detector.detect(image)
            if skeleton is None:
                points.append(np.zeros((13, 2), np.float32))
                present.append(np.zeros(13, bool))
                masks.append(np.zeros(image.shape[:2], np.uint8))
            else:
                points.append(skeleton.joints[REDUCED, :2] * max(image.shape[:2]))
                present.append(skeleton.visibility[REDUCED] >= PRESENT)
                masks.append((mask * 255).round().astype(np.uint8))
    return np.array(points), np.array(present), masks


def keypoint_errors(real, real_present, made, made_present):
    """(AKD, MKR) of points (N, J, 2) and whether each is present (N, J). AKD is NaN where no joint is in both."""
    both = real_present & made_present
    distance = np.linalg.norm(real - made, axis=2)
    missing = (real_present & ~made_present).sum() / max(1, real_present.sum())
    return (float(distance[both].mean()) if both.any() else float("nan")), float(missing)


def acceleration(points, present):
    """Mean length of the second difference of each joint, px per frame^2, where it is present three times in a row."""
    second = np.linalg.norm(points[2:] - 2 * points[1:-1] + points[:-2], axis=2)
    three = present[2:] & present[1:-1] & present[:-2]
    return float(second[three].mean()) if three.any() else float("nan")


def flow(before, after):
    """Farneback's dense optical flow, float32 (H, W, 2) in px."""
    before, after = (cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) for image in (before, after))
    return cv2.calcOpticalFlowFarneback(before, after, None, **FARNEBACK)


def flow_error(real, made):
    """tOF of two (before, after) pairs of images."""
    return float(np.linalg.norm(flow(*real) - flow(*made), axis=2).mean())


def flicker(images, masks):
    """Mean absolute difference of consecutive frames outside the person of both, which is grown by a fortieth."""
    size = 2 * (max(images[0].shape) // 40) + 1
    people = [cv2.dilate((mask > 25).astype(np.uint8), np.ones((size, size), np.uint8)) > 0 for mask in masks]
    changes = [cv2.absdiff(a, b)[~(p | q)].mean(dtype=np.float64)
               for a, b, p, q in zip(images, images[1:], people, people[1:], strict=False) if not (p | q).all()]
    return float(np.mean(changes)) if changes else float("nan")


def wrist_timing(found, true, visible):
    """{"wrist lag", in frames; "wrist peak speed", found over true} of tracks (N, 13, 2), where the wrists are visible.

    The lag is the shift in time (tenths of a frame) with the least distance; the peak speed is the slope of found on
    true velocity over the fastest tenth of the frames, so that noise neither raises nor lowers it.
    """
    lags, ratios = [], []
    frames = np.arange(len(true))
    for joint in (5, 6):
        seen = visible[:, joint]
        middle = seen & (frames >= 3) & (frames < len(frames) - 3)

        def distance(lag, joint=joint, middle=middle):
            later = np.stack([np.interp(frames + lag, frames, found[:, joint, axis]) for axis in (0, 1)], 1)
            away = later - true[:, joint]
            return np.linalg.norm((away - np.median(away[middle], 0))[middle], axis=1).mean()

        ours, theirs = np.diff(found[:, joint], axis=0), np.diff(true[:, joint], axis=0)
        speed = np.linalg.norm(theirs, axis=1)
        steady = seen[1:] & seen[:-1]
        if middle.sum() < 10 or steady.sum() < 10:  # a wrist that is never seen tells nothing
            continue
        lags.append(min(np.arange(-20, 21) / 10, key=distance))
        fast = steady & (speed > np.percentile(speed[steady], 90))
        ratios.append((ours[fast] * theirs[fast]).sum() / (theirs[fast] ** 2).sum())
    return {"wrist lag": np.mean(lags), "wrist peak speed": np.mean(ratios)} if lags else {}
