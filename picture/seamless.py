"""A picture that is put together from many, without seams: their gradients are put together instead of their colours.

Where a person has stood, each place was seen in other frames than the place beside it, in another light or in her
shadow. So neighbouring colours don't fit, but differences of neighbouring pixels do. The median of a difference over
time is what stays when light and shadows move (Weiss, ICCV 2001). The picture with these differences solves Poisson's
equation (Pérez et al., SIGGRAPH 2003), here in a rectangle, by sine transforms.
"""

import cv2
import numpy as np
from scipy.fft import dstn, idstn

MARGIN = 2  # pixels of the picture around what is put together, which stay as they are
SURE = 1 / 3  # share from which on the picture is the one that is put together
STRIP = 64  # rows that are done at a time, because sorting copies its input
UNSEEN = 1000  # a difference that no two pixels have; it is sorted behind all others


def without_seams(picture, share, frames, hidden, few):
    """The picture (uint8 H x W x 3), where `share` (float32 H x W in [0, 1]) is above 0 with the gradients of `frames`
    (a list of uint8 H x W x 3), and where share is 0 as it is. hidden: list of uint8 H x W, 0 where a frame counts;
    few: how many of them must show both of two neighbouring pixels; elsewhere the picture's own gradient is kept."""
    x, y, width, height = cv2.boundingRect((share > 0).astype(np.uint8))
    box = np.s_[max(0, y - MARGIN):y + height + MARGIN, max(0, x - MARGIN):x + width + MARGIN]
    inside = picture[box]
    if min(inside.shape[:2]) < 3:
        return picture
    steps = [_steps(inside, share[box] > 0, [frame[box] for frame in frames], [each[box] for each in hidden], few, axis)
             for axis in (0, 1)]
    made = _integrate(inside.astype(np.float32), *steps).clip(0, 255)
    weight = np.clip(share[box] / SURE, 0, 1)[:, :, None]
    result = picture.copy()
    result[box] = (inside * (1 - weight) + made * weight).round()
    return result


def _steps(picture, where, frames, hidden, few, axis):
    """float32: the differences to the next pixel along an axis: the picture's own or, `where` both pixels are (bool
    h x w) and enough frames show them, the median of theirs."""
    steps, before, after = np.diff(picture.astype(np.float32), axis=axis), [slice(None)] * 2, [slice(None)] * 2
    before[axis], after[axis] = slice(None, -1), slice(1, None)
    before, after = tuple(before), tuple(after)
    for top in range(0, len(steps), STRIP):
        rows = slice(top, top + STRIP + (axis == 0))
        chosen = where[rows][before] & where[rows][after]
        covered = np.stack([(each[rows][before] | each[rows][after])[chosen] > 0 for each in hidden])
        seen, own = (~covered).sum(0), steps[top:top + STRIP]
        rank, enough = (np.maximum(seen - 1, 0) // 2)[:, None], seen >= few
        for channel in range(3):
            levels = (frame[rows, :, channel].astype(np.int16) for frame in frames)
            values = np.stack([np.diff(each, axis=axis)[chosen] for each in levels])
            values[covered] = UNSEEN
            median = np.take_along_axis(np.sort(np.ascontiguousarray(values.T), 1), rank, 1)[:, 0]
            own[:, :, channel][chosen] = np.where(enough, median, own[:, :, channel][chosen])
    return steps


def _integrate(picture, down, across):
    """float32 h x w x 3: the picture whose differences to the next pixel below and on the right are nearest to `down`
    (h - 1, w, 3) and `across` (h, w - 1, 3). At its border it is `picture`."""
    height, width = (length - 2 for length in picture.shape[:2])
    target = np.diff(down[:, 1:-1], axis=0) + np.diff(across[1:-1], axis=1)  # the Laplacian inside the border
    target[0] -= picture[0, 1:-1]
    target[-1] -= picture[-1, 1:-1]
    target[:, 0] -= picture[1:-1, 0]
    target[:, -1] -= picture[1:-1, -1]
    waves = [2 * np.cos(np.pi * np.arange(1, length + 1) / (length + 1)) - 2 for length in (height, width)]
    values = (waves[0][:, None] + waves[1][None]).astype(np.float32)[:, :, None]
    result = picture.copy()
    result[1:-1, 1:-1] = idstn(dstn(target, type=1, axes=(0, 1)) / values, type=1, axes=(0, 1))
    return result
