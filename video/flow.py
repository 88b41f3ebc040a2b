"""How what a picture shows moves on to the next one: the mean optical flow around some places in it."""

import cv2
import numpy as np

UNLIKE = 12.0  # levels of difference, after the flow, from which a place counts less than half
BLUR = 3  # pixels, as a standard deviation, over which this difference is averaged
PLAIN = 6.0  # levels a pixel: a gradient that counts half; on plain cloth, the flow is a guess
SMALLEST = 48  # pixels: smaller pictures are extended to this, since OpenCV's flow ends the process over some of them
FAST, EXACT = cv2.DISOPTICAL_FLOW_PRESET_FAST, cv2.DISOPTICAL_FLOW_PRESET_MEDIUM


def texture(picture):
    """float32 h x w in [0, 1]: how well each place of a picture (uint8 h x w, grey) can be found again, by how much the
    brightness changes around it."""
    smooth = cv2.GaussianBlur(picture, (0, 0), 1)
    steps = [cv2.Scharr(smooth, cv2.CV_32F, *axis) / 32 for axis in ((1, 0), (0, 1))]  # in levels a pixel
    square = cv2.GaussianBlur(steps[0] ** 2 + steps[1] ** 2, (0, 0), BLUR)
    return square / (square + PLAIN ** 2)


def flow_around(before, after, share, points, reach, preset=FAST):
    """(moves, sure): how far what the picture `before` shows around each of the points lies from there in the picture
    `after`, float32 (P, 2) in pixels, x to the right and y down; and how sure this is, float32 (P,): the share of a
    point's surroundings that counts and looks alike in both pictures, in [0, 1].

    before, after: uint8 h x w, grey; share: float32 h x w in [0, 1], how much each pixel of `before` counts; points:
    float (P, 2), in pixels; reach: of the surroundings in pixels, as the standard deviation of a normal distribution;
    preset: FAST, or EXACT, which takes twice as long. The flow is that of Kroeger et al. (ECCV 2016).
    """
    height, width = before.shape
    extend = 0, max(0, SMALLEST - height), 0, max(0, SMALLEST - width)
    before, after = (cv2.copyMakeBorder(picture, *extend, cv2.BORDER_REPLICATE) for picture in (before, after))
    flow = cv2.DISOpticalFlow_create(preset).calc(before, after, None)
    x, y = np.meshgrid(*(np.arange(length, dtype=np.float32) for length in before.shape[::-1]))
    again = cv2.remap(after, x + flow[:, :, 0], y + flow[:, :, 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    unlike = cv2.GaussianBlur(cv2.absdiff(again, before).astype(np.float32), (0, 0), BLUR)[:height, :width]
    counts = share / (1 + (unlike / UNLIKE) ** 2)
    sums = np.dstack([flow[:height, :width] * counts[:, :, None], counts])
    near = cv2.getGaussianKernel(2 * int(3 * reach) + 1, reach, cv2.CV_32F)
    sums = cv2.sepFilter2D(sums, -1, near, near, borderType=cv2.BORDER_CONSTANT)
    sums = cv2.remap(sums, *np.float32(points).T[:, :, None], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)[:, 0]
    return sums[:, :2] / np.maximum(sums[:, 2:], 1e-6), sums[:, 2]
