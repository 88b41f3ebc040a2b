"""The metrics of Evaluate.py: how far a generated clip is from the real one.

Images are uint8 H x W x 3 BGR, and the images of a pair have the same size. A level is a step of uint8: 0 to 255.
"""

import functools
from itertools import pairwise

import cv2
import numpy as np
import torch

from learning.dataset import to_tensor
from picture.canvas import resize

MS_SSIM_SIDE = 176  # pixels: the smallest square for the five scales of MS-SSIM
FARNEBACK = {"pyr_scale": 0.5, "levels": 4, "winsize": 21, "iterations": 3, "poly_n": 7, "poly_sigma": 1.5, "flags": 0}
WRISTS = (5, 6)  # their places among the 13 joints
WRIST_LAGS = np.arange(-20, 21) / 10  # frames: the lags that are tried
WRIST_FRAMES = 10  # in which a wrist must be seen at least, otherwise it is not measured


def l1(real, generated):
    """Mean absolute error of two images in levels, 0 to 255; lower is better."""
    return cv2.norm(real, generated, cv2.NORM_L1) / real.size


def squared_error(real, generated):
    """Mean squared error of two images in levels^2. OpenCV adds whole numbers up in float64, so nothing wraps."""
    return cv2.norm(real, generated, cv2.NORM_L2SQR) / real.size


def psnr(mean_squared_error):
    """Peak signal-to-noise ratio in dB, of a mean squared error in levels^2 over all frames; higher is better."""
    return float(10 * np.log10(255 ** 2 / max(mean_squared_error, 1e-10)))


def ssim(real, generated):
    """Structural similarity, at most 1; higher is better. Wang et al., IEEE TIP 2004, with the paper's settings:
    Gaussian window, sigma 1.5, K 0.01 and 0.03 (scikit-image)."""
    from skimage.metrics import structural_similarity  # imported here: requirements.txt does not bring it

    return float(structural_similarity(real, generated, channel_axis=2, data_range=255, gaussian_weights=True,
                                       sigma=1.5, use_sample_covariance=False))


def ms_ssim(real, generated):
    """The same at five scales, of square images; smaller ones are enlarged to MS_SSIM_SIDE. Wang et al., Asilomar 2003
    (torchmetrics)."""
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    pair = (resize(image, max(len(image), MS_SSIM_SIDE)).transpose(2, 0, 1) for image in (real, generated))
    pair = (torch.from_numpy(planes[None].astype(np.float32)) for planes in pair)
    return float(multiscale_structural_similarity_index_measure(*pair, data_range=255.0, sigma=1.5, kernel_size=11))


@functools.cache
def _st_lpips_network():
    from stlpips_pytorch import stlpips

    network = stlpips.LPIPS(net="alex", variant="shift_tolerant", verbose=False)
    return network.to(memory_format=torch.channels_last)  # the same values in half the time on a CPU


@torch.inference_mode()
def st_lpips(real, generated):
    """Learned perceptual distance, 0 and up; lower is better. Ghildyal and Liu, ECCV 2022 (stlpips-pytorch, alex)."""
    pair = (to_tensor(image)[None].to(memory_format=torch.channels_last) for image in (real, generated))
    return float(_st_lpips_network()(*pair))


def keypoint_errors(real, real_present, generated, generated_present):
    """(AKD, MKR) of Siarohin et al., CVPR 2019, here of MediaPipe's joints: the mean distance in px of those present in
    both clips (NaN where there are none), and the share, 0 to 1, of the real ones that are missing in the generated
    clip; lower is better. Joints: (N, J, 2) in px, with bool (N, J) that tell whether each is present."""
    both = real_present & generated_present
    distance = np.linalg.norm(real - generated, axis=2)
    missing = (real_present & ~generated_present).sum() / max(1, real_present.sum())
    return (float(distance[both].mean()) if both.any() else float("nan")), float(missing)


def acceleration(joints, present):
    """Mean length, in px per frame^2, of the second difference of joints (as above) where they are present three times
    in a row; else NaN. Jitter is the generated clip's value over the real one's; 1 is ideal."""
    second = np.linalg.norm(joints[2:] - 2 * joints[1:-1] + joints[:-2], axis=2)
    three = present[2:] & present[1:-1] & present[:-2]
    return float(second[three].mean()) if three.any() else float("nan")


def flow_error(real, generated):
    """tOF: mean end-point error in px between the optical flows of two pairs (image before, image after); lower is
    better. Chu et al., SIGGRAPH 2020, here with the dense flow of Farneback, SCIA 2003."""
    grey = ([cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) for image in images] for images in (real, generated))
    real_flow, flow = (cv2.calcOpticalFlowFarneback(*images, None, **FARNEBACK) for images in grey)
    return float(np.linalg.norm(real_flow - flow, axis=2).mean())


def flicker(images, masks):
    """Mean absolute difference of consecutive images outside the person, in levels; lower is better; NaN where the
    person fills all. masks: uint8 H x W each, 255 where the person is; they are grown by a fortieth of the picture."""
    size = 2 * (max(images[0].shape) // 40) + 1
    empty = [cv2.dilate(mask, np.ones((size, size), np.uint8)) <= 25 for mask in masks]
    rooms = (before & after for before, after in pairwise(empty))
    changes = [cv2.absdiff(before, after)[room].mean(dtype=np.float64)
               for (before, after), room in zip(pairwise(images), rooms, strict=True) if room.any()]
    return float(np.mean(changes)) if changes else float("nan")


def wrist_timing(found, true, visible):
    """{"wrist lag": in frames, "wrist peak speed": found over true}; 0 and 1 are ideal; empty where no wrist is seen.
    found and true: joints (N, 13, 2) in px; visible: bool (N, 13). The lag is the shift in time with the least
    distance. The peak speed is the slope of the found velocity on the true one over the fastest tenth of the frames, so
    noise neither raises nor lowers it."""
    lags, ratios, frames = [], [], np.arange(len(true))
    for joint in WRISTS:
        own, ideal, seen = found[:, joint].T, true[:, joint].T, visible[:, joint]
        seen_twice = seen[1:] & seen[:-1]
        middle = seen & (frames >= 3) & (frames < len(frames) - 3)  # the ends are not known to every lag
        if min(middle.sum(), seen_twice.sum()) < WRIST_FRAMES:
            continue
        later = np.array([[np.interp(frames + lag, frames, line) for line in own] for lag in WRIST_LAGS])
        away = (later - ideal)[:, :, middle]  # (lags, 2, frames)
        distances = np.linalg.norm(away - np.median(away, 2, keepdims=True), axis=1).mean(1)
        lags.append(WRIST_LAGS[distances.argmin()])
        step, ideal_step = np.diff(own), np.diff(ideal)
        speed = np.linalg.norm(ideal_step, axis=0)
        fast = seen_twice & (speed > np.percentile(speed[seen_twice], 90))
        ratios.append((step * ideal_step)[:, fast].sum() / (ideal_step[:, fast] ** 2).sum())
    return {"wrist lag": np.mean(lags), "wrist peak speed": np.mean(ratios)} if lags else {}
