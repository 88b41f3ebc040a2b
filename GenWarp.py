"""GEN_TYPE 5, retrieve, warp, refine: limbs of real frames, carried to their places, mended by a small network.

    python DanceDemo.py                                   # no training needed: limb-wise warping works at once
    python GenWarp.py                                     # learns to mend what that leaves: seams, fringes, shadows
    python GenWarp.py --target me.mp4 --minutes 15
    python GenWarp.py --resume --epochs 400 --minutes 15  # go on

LimbWarp.py draws the person from the target's own pixels. The network sees that picture small (LOW pixels) and tells
three things for every place: how the picture should shift (flow), what to add to its colours, and where the person is
not or is missing. The full picture is only sampled and blended, and what is taken away has a sharp edge, so it stays
as sharp as the video. It is trained on the target video itself: each frame is drawn from others, those around it in
time barred, as it will be in use. After Siarohin et al. (NeurIPS 2019: flow and occlusion from a small network) and
Balakrishnan et al. (CVPR 2018: what limb-wise warps leave is for a network).

Saves data/Dance/DanceGenWarp.pth, curves for TensorBoard in data/Dance/runs and a grid [skeleton | generated | real]
of held-out poses beside the weights.
"""

import math

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import Checkpoint
import Distributed
import Runtime
import Training
from CommandLine import run
from LimbWarp import CHAINS, LimbWarp
from PoseDataset import PoseDataset, pose_input, to_levels, to_tensor, training_frames

EPOCHS = 400
MINUTES = 15.0
BATCH_SIZE = 8
LEARNING_RATE = 1e-3
CHECKPOINT = Training.DANCE / "DanceGenWarp.pth"
LOW = 128  # pixels, at most, of what the network sees
PLANES = 10  # of its input: warped picture, background, skeleton (RGB each), and how far each pixel is the person's
WIDTHS = (32, 64, 96, 128)  # channels at each halving
FLOW = 0.06  # of the picture: the longest shift
SMOOTH = 8  # pixels of LOW: colours change no faster than over so many, so that they shade and do not paint
EDGE = 0.3, 0.4  # where the person begins to be taken away, and how much further she is gone: half a person is none
AROUND = 0.06  # of the picture: so far beside the person it may change (her shadow)
PERSON = 4.0  # weight of an error on the person, besides 1 for the whole picture
DETAIL, MASK = 1.0, 0.5  # weights of the losses of detail and of masks
BARRED = 0.3, 2.0  # seconds around a frame that may not be used for it, from and to
KEPT = 1500  # frames that stay in memory while training, 0.3 MB each at 256 pixels
RANKS = 6  # a chain is taken from one of so many most alike frames


class Refiner(nn.Module):
    """Stack (B, PLANES, S, S) in [-1, 1] -> image and mask (B, 4, S, S) in [-1, 1].

    The network (U-Net: Ronneberger et al., MICCAI 2015) begins as the identity: its last layer starts at zero.
    """

    def __init__(self):
        super().__init__()
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        before = PLANES
        for after in WIDTHS:
            self.down.append(nn.Sequential(_block(before, after, stride=2), _block(after, after)))
            before = after
        for after in WIDTHS[-2::-1]:
            self.up.append(_block(before + after, after))
            before = after
        self.last = nn.Conv2d(before, 6 * 4, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, stack):
        size = stack.shape[-1]
        change = self.change(shrink(stack))
        change = F.interpolate(change.float(), size=(size, size), mode="bilinear", align_corners=False)
        return compose(stack, change)

    def change(self, low):
        """(B, PLANES, s, s) -> (B, 6, s, s): flow x and y as shares of the picture, colours to add to those in [-1, 1],
        and the person: from -1, taken away, to 1, missing."""
        stages, x = [], low
        for layer in self.down:
            x = layer(x)
            stages.append(x)
        stages.pop()
        for layer in self.up:
            x = layer(torch.cat([F.interpolate(x, scale_factor=2.0), stages.pop()], 1))
        change = F.pixel_shuffle(self.last(x), 2)
        flow, colour, person = change.split([2, 3, 1], 1)
        colour = F.interpolate(F.avg_pool2d(colour, SMOOTH), low.shape[-2:], mode="bilinear", align_corners=False)
        reach = 2 * round(AROUND * low.shape[-1]) + 1
        near = F.max_pool2d(low[:, 9:], (reach, 1), 1, (reach // 2, 0))  # rows, then columns: faster than both at once
        near = (F.max_pool2d(near, (1, reach), 1, (0, reach // 2)) > -1).to(colour.dtype)
        return torch.cat([FLOW * torch.tanh(flow), colour, torch.tanh(person)], 1) * near


def build():
    """The network, with its weights channels_last as in GenVanillaNN.build."""
    return Refiner().to(memory_format=torch.channels_last)


def _block(before, after, stride=1):
    return nn.Sequential(nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.LeakyReLU(0.1))


def shrink(stack):
    """A stack at LOW pixels, or as it is."""
    return F.adaptive_avg_pool2d(stack, LOW) if stack.shape[-1] > LOW else stack


def compose(stack, change):
    """The refined image and mask: the picture and its cover sampled where the flow says, the background where the
    person is taken away, and the colours added. Both (B, ., S, S)."""
    picture, plate, cover = stack[:, :3], stack[:, 3:6], stack[:, 9:]
    size = stack.shape[-1]
    place = (torch.arange(size, device=stack.device, dtype=torch.float32) + 0.5) / size
    grid = torch.stack([place[None, :].expand(size, size), place[:, None].expand(size, size)], -1)
    grid = (grid + change[:, :2].permute(0, 2, 3, 1)) * 2 - 1
    moved = F.grid_sample(torch.cat([picture, cover], 1), grid, padding_mode="border", align_corners=False)
    person = change[:, 5:]
    erased = ((-person - EDGE[0]) / EDGE[1]).clamp(0, 1)
    erased = erased * erased * (3 - 2 * erased)
    image = moved[:, :3] * (1 - erased) + plate * erased + change[:, 2:5]
    return torch.cat([image, (moved[:, 3:] + 2 * (torch.relu(person) - erased)).clamp(-1, 1)], 1)


class WarpDataset(PoseDataset):
    """Pairs (stack, image) of a target: each frame drawn from others by LimbWarp, as (PLANES, S, S) in [-1, 1], and
    its real image and mask. Which others differs from epoch to epoch."""

    def __init__(self, target, kind, image_size):
        super().__init__(target, kind, image_size)
        self._known = training_frames(target)  # a held-out frame is drawn from these too
        self._warp = LimbWarp(target.first(self._known), image_size, KEPT)
        self._plate = to_tensor(self._warp.plate)
        self._seconds = target.frames / target.fps
        self._random = 0, 0

    def set_epoch(self, seed, epoch):
        self._random = seed, epoch

    def __getitem__(self, index):
        drawn, image = super().__getitem__(index)
        rng = np.random.default_rng([*self._random, index])
        joints = self._target.joints[index]
        away = np.abs(self._seconds[:self._known] - self._seconds[index]) > rng.uniform(*BARRED)
        if not away.any():
            away[:] = True
        frames = {}
        for chain in CHAINS:
            alike = self._warp.alike(chain, joints)
            alike = alike[away[alike]]
            frames[chain] = int(alike[rng.integers(min(RANKS, len(alike)))])
        if not self._target.still:  # behind a moving camera each frame has another background: the plate stands for it
            share = image[3:] / 255
            image[:3] = (image[:3] * share + to_levels(self._plate) * (1 - share)).round().to(torch.uint8)
        return stack(*self._warp.draw(joints, frames), self._plate, drawn), image


def step(fabric, network, optimizer, stack, real):
    """One training step; returns its losses."""
    losses = loss(network(stack), real)
    optimizer.zero_grad()
    fabric.backward(sum(losses.values()))
    optimizer.step()
    return losses


def stack(picture, cover, plate, drawn):
    """The network's input (PLANES, S, S) of what LimbWarp drew and of tensors of the plate and the drawn skeleton."""
    return torch.cat([to_tensor(picture), plate, drawn, torch.from_numpy(cover)[None] * 2 - 1])


def loss(made, real):
    """{name: loss} of images and masks (B, 4, S, S) in [-1, 1]: the person counts more than the background, and what
    is lost of the differences between neighbouring pixels, at three scales, is an error of its own."""
    weight = 1 + PERSON * (F.max_pool2d(torch.maximum(made.detach()[:, 3:], real[:, 3:]), 9, 1, 4) * 0.5 + 0.5)
    image, truth = made[:, :3], real[:, :3]
    colour = (weight * (image - truth).abs()).mean()
    detail = 0
    for _ in range(3):
        for axis in (2, 3):
            difference = torch.diff(image, dim=axis) - torch.diff(truth, dim=axis)
            detail = detail + (difference.abs() * weight.narrow(axis, 0, difference.shape[axis])).mean()
        image, truth, weight = (F.avg_pool2d(x, 2) for x in (image, truth, weight))
    return {"colour": colour, "detail": DETAIL * detail, "mask": MASK * F.l1_loss(made[:, 3:], real[:, 3:])}


class GenWarp(LimbWarp):
    """Generator 5 for a target (a VideoSkeleton), refined by the network of its checkpoint."""

    name = "GenWarp"

    def __init__(self, target, checkpoint=None, device="auto", size=None, runtime="auto"):
        super().__init__(target, size)
        words = ["--checkpoint", str(checkpoint)] if checkpoint else []
        train = Training.command("GenWarp.py", words, target.path)
        path = checkpoint or CHECKPOINT
        network, config = Checkpoint.load_network(lambda _: build(), path, self.name, train, target)
        self._image_size = config["image_size"]
        self._low = min(LOW, self._image_size)
        device = Distributed.pick_device(device)
        # half the digits where they are fast: 0.7 of the time on a CPU, as ONNX Runtime, and a level of difference at
        # most edges
        half = runtime != "onnx" and Distributed.pick_precision(device) == "bf16-mixed"
        self._type = torch.bfloat16 if half else torch.float32
        network.forward = network.change  # all that is asked of it here
        self._network, self._device = Runtime.ready(network.to(self._type), (1, PLANES, self._low, self._low), path,
                                                    "torch" if half else runtime, device)
        self._plate_low = to_tensor(self._lower(self.plate))
        self._reach = np.ones((2 * round(AROUND * self._low) + 3,) * 2, np.uint8)  # one more: the change is enlarged
        x = np.arange(self.size, dtype=np.float32)
        self._place = np.dstack(np.meshgrid(x, x))
        torch.set_num_threads(Runtime.threads())

    def paint(self, skeleton):
        """The image, and a mask (uint8 H x W, 255 inside) that holds all of it that is not background."""
        picture, cover = self.draw(skeleton.joints, self.follow(skeleton))
        near = cv2.dilate((self._lower(cover) > 0).astype(np.uint8) * 255, self._reach)
        x, y, width, height = cv2.boundingRect(near)
        if not width:
            return picture, np.zeros((self.size, self.size), np.uint8)
        # nothing changes outside the box: what follows is done inside it
        change = self._change(picture, cover, skeleton)
        scale = self.size / self._low
        left, top = int(x * scale), int(y * scale)
        inside = np.s_[top:math.ceil((y + height) * scale), left:math.ceil((x + width) * scale)]
        flow, colour, person = (cv2.resize(part, (self.size, self.size))[inside] for part in change)
        erased = np.clip((-person - EDGE[0]) / EDGE[1], 0, 1)
        erased *= erased * (3 - 2 * erased)
        moved = cv2.remap(picture, self._place[inside] + flow * self.size, None, cv2.INTER_LINEAR,
                          borderMode=cv2.BORDER_REPLICATE)
        moved = cv2.blendLinear(moved, np.ascontiguousarray(self.plate[inside]), 1 - erased, erased)
        picture[inside] = cv2.add(moved, colour * 127.5, dtype=cv2.CV_8U)
        return picture, cv2.resize(near, (self.size, self.size), interpolation=cv2.INTER_NEAREST)

    def _lower(self, image):
        return cv2.resize(image, (self._low, self._low), interpolation=cv2.INTER_AREA)

    @torch.inference_mode()
    def _change(self, picture, cover, skeleton):
        """Flow (s x s x 2), colours (s x s x 3 BGR) and person (s x s) that the network wants changed."""
        drawn = F.adaptive_avg_pool2d(pose_input(skeleton, "image", self._image_size), self._low)
        pictures = stack(self._lower(picture), self._lower(cover), self._plate_low, drawn)[None]
        change = self._network(pictures.to(self._device, self._type))[0]
        change = np.ascontiguousarray(change.float().cpu().permute(1, 2, 0).numpy())
        return change[:, :, :2], change[:, :, 4:1:-1], change[:, :, 5]


def train(args):
    fabric = Distributed.launch(args)
    config = {"pose": "image", "image_size": args.image_size}
    network = build()
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE)
    network, optimizer = Distributed.setup(fabric, args, network, optimizer)
    loop = Training.Loop(fabric, args, GenWarp.name, config, {"model": network}, {"model": optimizer}, WarpDataset)
    for pictures, real in loop:
        loop.log(**step(fabric, network, optimizer, pictures, real))


def main():
    parser = Training.parser(__doc__, CHECKPOINT, EPOCHS, MINUTES, BATCH_SIZE, image_size=256)
    train(parser.parse_args())


if __name__ == "__main__":
    run(main)
