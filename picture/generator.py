"""What every generator is: something that draws a target in the pose of a skeleton."""

from dataclasses import dataclass

import numpy as np


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
