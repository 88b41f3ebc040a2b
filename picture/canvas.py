"""The canvas: one square crop of a target video, the same in all frames, so that the background stands still; and what
every generator is: something that draws on it.

It holds every skeleton of the video with a margin. All coordinates of a target are in units of this square.
"""

from dataclasses import dataclass

import cv2
import numpy as np

CANVAS = 1280  # pixels: a larger crop is reduced to this size, a smaller one keeps its own
MARGIN = 0.15  # share of the canvas on each side of the skeletons: hands, hair and shoes reach beyond the joints


def canvas_box(points, frame_size):
    """The square (x, y, side), in whole pixels, that holds `points` (..., 2) in pixels with MARGIN around them.

    frame_size: (width, height). Points outside the frame count as points on its border. The side is at most the frame's
    longer one. The square lies inside the frame where it fits, and is centred on the frame where it does not.
    """
    points = np.clip(points.reshape(-1, 2), 0, frame_size)
    low, high = points.min(0), points.max(0)
    side = min(int(np.ceil((high - low).max() / (1 - 2 * MARGIN))), max(frame_size))
    side += side % 2  # an even side needs no padding in a video
    corner = []
    for middle, length in zip((low + high) / 2, frame_size, strict=True):
        inside = length - side
        corner.append(int(np.clip(round(middle - side / 2), 0, inside)) if inside >= 0 else inside // 2)
    return (*corner, side)


def crop(image, box, size):
    """The square `box` (x, y, side) of `image`, at size x size pixels; black where it leaves the image."""
    x, y, side = box
    height, width = image.shape[:2]
    top, left, bottom, right = max(-y, 0), max(-x, 0), max(y + side - height, 0), max(x + side - width, 0)
    image = image[max(y, 0):y + side, max(x, 0):x + side]
    if top or left or bottom or right:
        image = cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT)
    return image if side == size else cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)


def resize(image, size):
    """A square image at size x size pixels: averaged where it shrinks, bicubic where it grows."""
    if image.shape[0] == size:
        return image
    shrink = size < image.shape[0]
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_CUBIC)


def faded(height, width, band, fades):
    """float32 height x width: 1, and less towards the sides that fade, over `band` pixels. fades: four booleans, for
    left, right, top and bottom."""
    across = np.minimum(_ramp(width, band, fades[0]), _ramp(width, band, fades[1])[::-1])
    down = np.minimum(_ramp(height, band, fades[2]), _ramp(height, band, fades[3])[::-1])
    return np.minimum(down[:, None], across[None])


def _ramp(length, band, fades):
    """float32 (length,): from 0 up to 1 over `band` pixels where it `fades`, else 1."""
    if not fades:
        return np.ones(length, np.float32)
    return np.clip((np.arange(length, dtype=np.float32) + 0.5) / band, 0, 1)


@dataclass(frozen=True, eq=False)
class Patch:
    """A part of a canvas image. image: uint8 h x w x 3 BGR; mask: uint8 h x w, 255 where the person is, or None: all of
    the image is to be shown; size: pixels of the whole canvas image; corner: (left, top), where the part begins."""

    image: np.ndarray
    mask: np.ndarray | None
    size: int
    corner: tuple = (0, 0)

    @property
    def place(self):
        """Rows and columns of the part in the canvas image, to index it with."""
        (left, top), (height, width) = self.corner, self.image.shape[:2]
        return np.s_[top:top + height, left:left + width]


class Generator:
    """Base of all generators of a target (a VideoSkeleton). The same calls in order give the same images. No input is
    changed.

    mask: where the person is in the image that was generated last: uint8 H x W, 255 inside; None if the whole image is
    to be shown, because it fits into the target's scene as it is.
    """

    mask = None

    def prepare(self, placed):
        """Learn the whole dance before its first image. placed: the Track in canvas units that is going to be drawn.

        A generator that plans ahead overrides this. Skeletons that were not announced can be drawn all the same.
        """

    def generate(self, skeleton):
        """The image of the target in the pose of `skeleton` (a Skeleton in canvas units): uint8 size x size x 3 BGR, of
        the canvas's size. It also sets `mask`."""
        raise NotImplementedError

    def patch(self, skeleton):
        """The same as a Patch. A generator that changes only a part of the scene overrides this: it gives that part
        alone, which saves time, and need not set `mask`."""
        image = self.generate(skeleton)
        return Patch(image, self.mask, len(image))
