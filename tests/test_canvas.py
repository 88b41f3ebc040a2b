"""The canvas: it holds every point, and a crop is black outside the image."""

import numpy as np
import pytest

from picture import canvas
from picture.canvas import canvas_box, crop


@pytest.mark.parametrize("size", [(640, 360), (360, 640), (512, 512)])
def test_canvas_holds_every_point_with_a_margin_or_reaches_the_border(size):
    rng = np.random.default_rng(0)
    for _ in range(200):
        low = rng.uniform(-50, 300, 2)
        points = low + rng.uniform(0, 1, (30, 2)) * rng.uniform(20, 400, 2)
        x, y, side = canvas_box(points, size)
        assert side % 2 == 0 or side == max(size)
        inside = np.clip(points, 0, size)
        for corner, axis in ((x, 0), (y, 1)):
            assert corner <= inside[:, axis].min() and inside[:, axis].max() <= corner + side
            if side <= size[axis]:
                assert corner >= 0 and corner + side <= size[axis]  # inside the frame where it fits
            else:
                assert corner <= 0 and corner + side >= size[axis]
        extent = (inside.max(0) - inside.min(0)).max()
        assert side >= min(max(size), extent / (1 - 2 * canvas.MARGIN))


def test_crop_is_black_outside_the_image():
    image = np.arange(1, 13, dtype=np.uint8).reshape(3, 4, 1).repeat(3, 2)
    cut = crop(image, (-1, 1, 4), 4)
    assert cut.shape == (4, 4, 3) and not cut[:, 0].any() and not cut[2:].any()
    assert np.array_equal(cut[:2, 1:], image[1:, :3])
