"""What every generator is: something that draws a target in the pose of a skeleton."""


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
