"""How different two pictures look, by which the best weights are chosen: a blurred or ragged picture must not win.

A mean squared or absolute error likes a picture that is soft where the place is uncertain. So textures are compared,
too, as in the structural texture similarity of Zujovic, Pappas and Neuhoff (IEEE TIP 2013), in the bands of a Laplacian
pyramid (Burt and Adelson, IEEE TCOM 1983): in a small window, a blurred band varies less than the real one, and a
ragged one varies more. Where exactly a fold of cloth lies hardly matters.
"""

import torch.nn.functional as F

BANDS = 4  # of the pyramid, each half as wide and high as the one before
WINDOW = 7  # pixels
SMALLEST = 0.02  # standard deviations in a window, of pictures in [-1, 1], that are below this hardly count
AROUND = 9  # pixels: the person and what is around her is compared


def unlikeness(made, real, mask):
    """float: 0 where pictures (B, 3, S, S) look the same, more where they differ, around the person. mask: (B, 1, S, S)
    with 1 where the person is and -1 elsewhere; all in [-1, 1]."""
    near = F.max_pool2d(mask, AROUND, 1, AROUND // 2) * 0.5 + 0.5
    made, real = made.clamp(-1, 1) * near, real * near
    share = near.mean().clamp(min=1e-6)
    error = (made - real).abs().mean()
    for one, other in zip(_bands(made), _bands(real), strict=True):
        one, other = (F.avg_pool2d(band * band, WINDOW, 1, WINDOW // 2) for band in (one, other))  # variances
        like = (2 * (one * other).sqrt() + SMALLEST ** 2) / (one + other + SMALLEST ** 2)
        error = error + (1 - like).mean()
    return float(error / share)


def _bands(pictures):
    """The BANDS of the Laplacian pyramid of pictures (B, 3, S, S), fine ones first."""
    for _ in range(BANDS):
        smaller = F.avg_pool2d(pictures, 2)
        yield pictures - F.interpolate(smaller, pictures.shape[-2:], mode="bilinear", align_corners=False)
        pictures = smaller
