"""From a target video to tensors: images, inputs of networks, the torch Dataset, and the errors on its held-out part.

`to_tensor` and `to_image` are the only conversions between uint8 images and tensors, and `pose_input` is the only one
from a skeleton to a network's input. Training and `generate` call the same functions, so both see the same inputs.
"""

import io
import math
import os
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from common.command_line import UserError, warn
from common.files import file_lock
from learning.perception import unlikeness
from picture.canvas import resize

# The share of the video, at its end, that is held out. Neighbouring frames are nearly equal, so with a random choice a
# network would be tested on what it was trained on.
HELD_OUT = 0.1
SAMPLES = 8  # held-out poses in the picture of samples


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
    """uint8 H x W x 3 BGR -> uint8 3 x H x W RGB."""
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3, "uint8 BGR images only"
    return np.ascontiguousarray(image[:, :, ::-1].transpose(2, 0, 1))


def pose_input(skeleton, kind, image_size):
    """What a network is given for a Skeleton: float32 that lies in [-1, 1] where the skeleton is inside the canvas.
    kind: "reduced" -> (26,), "full" -> (99,), "image" -> (3, image_size, image_size), the skeleton drawn on black."""
    if kind == "image":
        return to_tensor(skeleton.draw(np.zeros((image_size, image_size, 3), np.uint8)))
    values = skeleton.full if kind == "full" else skeleton.reduced
    return torch.from_numpy(values * 2 - 1)


class PoseDataset(Dataset):
    """Pairs (pose, image) of a target (VideoSkeleton): the `pose_input` of a skeleton, and its image as uint8
    4 x S x S: RGB, and the person's mask (255 inside). The images are reduced to S pixels once and memory-mapped from
    the target's cache: no file is decoded during the training, and memory does not grow with the video. They stay uint8
    until they are on the device (`normalise`)."""

    # Whether a batch takes about as long as a training step. If it does not, a thread that makes batches beside the
    # step costs more than it gains.
    takes_long = False

    def __init__(self, target, kind, image_size):
        self._target, self._kind, self._image_size = target, kind, image_size
        self.images = reduced_images(target, image_size)

    def __len__(self):
        return len(self._target)

    def __getitem__(self, index):
        image = torch.from_numpy(self.images[index].copy())
        return pose_input(self._target.skeleton(index), self._kind, self._image_size), image

    def set_epoch(self, seed, epoch):
        """Called before each epoch. A dataset whose pairs change from epoch to epoch derives them from both numbers."""

    def split(self):
        """(training part, held-out part): the last tenth of the video is held out. A single frame is in both."""
        count = training_frames(self._target)
        return Subset(self, range(count)), Subset(self, range(count, len(self)) if len(self) > 1 else range(1))


def training_frames(target):
    """The number of frames of the target, from its first one, that networks are trained on. The rest is held out."""
    return len(target) - max(1, round(len(target) * HELD_OUT)) if len(target) > 1 else 1


def reduced_images(target, image_size):
    """The target's images and masks as a memory-mapped uint8 array (N, 4, S, S) with S = image_size. It is stored in
    the target's cache when it is asked for the first time. Raises UserError for a full disk."""
    path, shape = target.folder / f"images-{image_size}.npy", (len(target), 4, image_size, image_size)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    header = header.getvalue()
    with file_lock(path, "writing", wait=True):
        if path.exists():
            with open(path, "rb") as file:
                whole = file.read(len(header)) == header and path.stat().st_size == len(header) + math.prod(shape)
            if not whole:
                warn(f"{path} is damaged; it is made anew")
                path.unlink()
        if not path.exists():
            _write_reduced(target, path, shape, header)
        return np.load(path, mmap_mode="r", allow_pickle=False)


def _write_reduced(target, path, shape, header):
    """Write that array. Where an earlier run was stopped while it wrote, the rows that it has finished are kept."""
    part, row = path.with_name(f".{path.name}"), math.prod(shape[1:])
    try:
        done = max(0, (part.stat().st_size - len(header)) // row) if part.exists() else 0
        with open(part, "r+b" if done else "wb") as file:  # a full disk is an error here, in a mapped file a crash
            file.write(header)
            file.seek(len(header) + done * row)
            file.truncate()
            for index in tqdm(range(done, len(target)), desc=f"images at {shape[-1]} px", unit="frame"):
                file.write(_rgb_planes(resize(target.image(index), shape[-1])))
                file.write(resize(target.mask(index), shape[-1]))
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UserError(f"can't write {path}: {error.strerror}") from None


@dataclass(frozen=True)
class HeldOutErrors:
    """l1: mean absolute error in levels from 0 to 255; psnr: dB of the mean squared error over all frames together;
    unlikeness: see perception.py. They compare images (not masks) that are rounded to whole levels."""

    l1: float
    psnr: float
    unlikeness: float


class HeldOut:
    """The held-out frames of a target (VideoSkeleton). frames: the second part of its dataset's `split`."""

    def __init__(self, target, frames, batch_size, image_size, device):
        self._loader, self._device = DataLoader(frames, batch_size), device
        chosen = np.linspace(0, len(frames) - 1, min(SAMPLES, len(frames))).astype(int)
        skeletons = [target.skeleton(frames.indices[number]) for number in chosen]
        self._skeletons = torch.stack([pose_input(skeleton, "image", image_size) for skeleton in skeletons])
        self._poses, self._images = map(torch.stack, zip(*(frames[number] for number in chosen), strict=True))

    @torch.no_grad()
    def errors(self, network):
        """The HeldOutErrors of a network in evaluation mode, or of any function from poses to images in [-1, 1]."""
        absolute = squared = count = unlike = 0
        for pose, image in self._loader:
            made = to_levels(network(pose.to(self._device))[:, :3])
            difference = made.double() - image[:, :3]
            absolute += difference.abs().sum().item()
            squared += (difference ** 2).sum().item()
            count += difference.numel()
            unlike += len(image) * unlikeness(normalise(made), *normalise(image).split([3, 1], 1))
        return HeldOutErrors(absolute / count, 10 * math.log10(255 ** 2 / max(squared / count, 1e-12)),
                             unlike / len(self._loader.dataset))

    @torch.no_grad()
    def samples(self, network):
        """[skeleton | generated | real] of some poses, two poses in each row, as an image uint8 H x W x 3 BGR."""
        from torchvision.utils import make_grid  # imported here, since drawing does not need it

        generated = network(self._poses.to(self._device)).float().cpu()
        cells = torch.stack([self._skeletons, generated[:, :3], normalise(self._images[:, :3])], 1).flatten(0, 1)
        return to_image(make_grid(cells, nrow=6, padding=2))
