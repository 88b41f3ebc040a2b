"""From a VideoSkeleton to tensors: images, network inputs, the torch Dataset and its held-out part.

to_tensor and to_image are the only way between uint8 images and tensors, and pose_input the only one from a skeleton
to a network's input: training and `generate` both call them, so they can't drift apart.
"""

import io
import math
import os

import numpy as np
import torch
from torch.utils.data import Dataset, Subset
from tqdm import tqdm

from Canvas import resize
from CommandLine import UserError, warn
from Storage import alone

HELD_OUT = 0.1  # of the video, its end: neighbouring frames are nearly equal, so a random split would leak


def to_tensor(image):
    """uint8 H x W x 3 BGR -> float32 3 x H x W RGB in [-1, 1]."""
    return normalise(torch.from_numpy(_rgb_planes(image)))


def to_image(tensor):
    """Float 3 x H x W RGB in [-1, 1] (clipped to it) -> uint8 H x W x 3 BGR. to_image(to_tensor(x)) equals x."""
    return np.ascontiguousarray(to_levels(tensor).numpy().transpose(1, 2, 0)[:, :, ::-1])


def to_levels(tensor):
    """Float in [-1, 1] (clipped to it) -> uint8 of the same shape, on the CPU; the inverse of `normalise`."""
    return ((tensor.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def normalise(levels):
    """uint8 tensor of any shape -> float32 in [-1, 1]."""
    return levels.float() / 127.5 - 1


def _rgb_planes(image):
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3, "uint8 BGR images only"
    return np.ascontiguousarray(image[:, :, ::-1].transpose(2, 0, 1))


def pose_input(skeleton, kind, image_size):
    """What a network sees of a Skeleton, as float32 in [-1, 1] inside the canvas.

    kind: "reduced" -> (26,), "full" -> (99,), "image" -> (3, image_size, image_size), the skeleton drawn on black.
    """
    if kind == "image":
        return to_tensor(skeleton.draw(np.zeros((image_size, image_size, 3), np.uint8)))
    values = skeleton.full if kind == "full" else skeleton.reduced
    return torch.from_numpy(values * 2 - 1)


class PoseDataset(Dataset):
    """Pairs (pose, image) of a target: pose_input of each skeleton, and its image as uint8 4 x S x S: RGB, and the
    person's mask (255 inside).

    The images are reduced once and memory-mapped from the target's cache: no file is decoded while training, and
    memory does not grow with the video. They stay uint8 up to the device (`normalise`).
    """

    def __init__(self, target, kind, image_size):
        self._target, self._kind, self._image_size = target, kind, image_size
        self.images = reduced_images(target, image_size)

    def __len__(self):
        return len(self._target)

    def __getitem__(self, index):
        image = torch.from_numpy(self.images[index].copy())
        return pose_input(self._target.skeleton(index), self._kind, self._image_size), image

    def set_epoch(self, seed, epoch):
        """A new epoch begins; here, every epoch has the same pairs."""

    def split(self):
        """(training, held out): the held-out frames are the last tenth of the video, at least one of two."""
        count = training_frames(self._target)
        return Subset(self, range(count)), Subset(self, range(count, len(self)) if len(self) > 1 else range(1))


def training_frames(target):
    """How many frames of the target, from the first, are trained on; those after them are held out."""
    return len(target) - max(1, round(len(target) * HELD_OUT)) if len(target) > 1 else 1


def reduced_images(target, image_size):
    """The target's images and masks as a memory-mapped uint8 (N, 4, S, S) array, made in its cache when first asked."""
    path, shape = target.folder / f"images-{image_size}.npy", (len(target), 4, image_size, image_size)
    with alone(path, "writing", wait=True):
        if not path.exists():
            _reduce(target, path, shape)
        try:
            images = np.load(path, mmap_mode="r", allow_pickle=False)
            if images.shape != shape or images.dtype != np.uint8:
                raise ValueError
        except Exception:  # whatever a file that is none can cause
            images = None  # a mapped file can't be removed everywhere
            warn(f"{path} is damaged; it is made anew")
            path.unlink()
            _reduce(target, path, shape)
            images = np.load(path, mmap_mode="r", allow_pickle=False)
    return images


def _reduce(target, path, shape):
    """Write that array, and go on with the one that an earlier run has begun."""
    part, header, row = path.with_name(f".{path.name}"), io.BytesIO(), math.prod(shape[1:])
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    begin = len(header.getvalue())
    try:
        done = max(0, (part.stat().st_size - begin) // row) if part.exists() else 0
        with open(part, "r+b" if done else "wb") as file:  # row by row: a full disk is an error here, not a crash
            file.write(header.getvalue())
            file.seek(begin + done * row)
            file.truncate()
            for index in tqdm(range(done, len(target)), desc=f"images at {shape[-1]} px", unit="frame"):
                file.write(_rgb_planes(resize(target.image(index), shape[-1])))
                file.write(resize(target.mask(index), shape[-1]))
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UserError(f"can't write {path}: {error.strerror}") from None
