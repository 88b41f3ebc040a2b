"""GEN_TYPE 5, retrieve, warp, refine: limbs of real frames, carried to their places, mended by a small network.

    python DanceDemo.py                                   # no training needed: limb-wise warping works at once
    python GenWarp.py                                     # learns to mend what that leaves: small shifts, shading
    python GenWarp.py --target me.mp4 --minutes 15
    python GenWarp.py --resume --epochs 400 --minutes 15  # go on

warping/limb_warp.py draws the person from the target's own pixels. The network sees that picture at LOW pixels and
predicts on a coarse grid, so that nothing is torn, how the picture should be shifted (flow) and what should be added to
its colours. The full picture is only sampled, with cubic interpolation, so the result stays nearly as sharp as the
video. (With linear interpolation, a network learns to shift everything by half a pixel: that is blur, which a mean
error likes.) In training, each frame is drawn from other frames of the target video, but not from those around it in
time, since in use there are none either. After Siarohin et al. (NeurIPS 2019: flow from a small network) and
Balakrishnan et al. (CVPR 2018: a network repairs what limb-wise warps leave).

Before that, the frames are registered with each other (warping/registration.py): it takes a minute or two, and then
their limbs arrive where they should. A few hundred frames of real footage often have too little in common for a network
to learn from. So the trained weights are only used where held-out frames look clearly better with them than without
(learning/perception.py), and the training says so. It ends early where the network gains nothing any more.

Saves data/Dance/DanceGenWarp.pth, and beside it curves for TensorBoard (runs) and pictures of held-out poses.
"""

import math
from itertools import pairwise

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from common import paths
from common.command_line import run, warn
from learning.checkpoint import NetworkConfig, helped, load_network
from learning.dataset import PoseDataset, normalise, pose_input, to_levels, to_tensor, training_frames
from learning.flags import pick_device, pick_precision, training_command, training_parser
from picture.canvas import Patch
from Skeleton import Skeleton
from warping.limb_warp import LimbWarp
from warping.registration import registered

EPOCHS = 400
MINUTES = 15.0  # on a slower machine this ends the training before EPOCHS do
BATCH_SIZE = 8
LEARNING_RATE = 1e-3
CHECKPOINT = paths.DANCE / "DanceGenWarp.pth"
LOW = 128  # pixels of what the network sees, at most
PLANES = 10  # of the network's input, see network_input
WIDTHS = (32, 64, 96, 128)  # channels at each halving of the picture
HALVINGS = 2  # of LOW for the grid of changes: so coarse, they can move and shade the picture but not paint on it
MAX_FLOW = 0.06  # of the picture's side: the longest shift
AROUND = 0.02  # of the picture's side: the network may change the picture this far beside the person, at her edge
FACE = [0, 7, 8]  # nose and ears: in the middle of them is the face
FACE_REACH = 0.08  # body heights from there: up to here nothing is changed, and from twice as far on everything is
PERSON_WEIGHT = 4.0  # of an error on the person, in addition to 1 for the whole picture
MASK_WEIGHT = 0.5  # of the loss of the masks; the others have 1
# Frames nearer in time than this are not used to draw a frame: a random number of seconds between these two.
BARRED_SECONDS = (0.3, 2.0)
JITTER = 0.008  # body heights: standard deviation, about each axis, by which joints are moved in training
KEPT = 1500  # frames that stay in memory during the training, 0.3 MB each at 256 pixels


class Refiner(nn.Module):
    """The network (U-Net: Ronneberger et al., MICCAI 2015) that refines what LimbWarp has drawn. Before the training it
    changes nothing, because the weights of its last layer are zero."""

    def __init__(self):
        super().__init__()
        self.down = nn.ModuleList(nn.Sequential(_block(before, after, stride=2), _block(after, after))
                                  for before, after in pairwise([PLANES, *WIDTHS]))
        widths = WIDTHS[HALVINGS - 1:]  # of the stages that have no more pixels than the grid
        self.up = nn.ModuleList(_block(before + after, after) for before, after in pairwise(widths[::-1]))
        self.last = nn.Conv2d(widths[0], 5, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, pictures):
        """Inputs of `network_input` (B, PLANES, S, S) in [-1, 1] -> image and mask (B, 4, S, S) in [-1, 1]."""
        size = pictures.shape[-1]
        change = self.change(F.adaptive_avg_pool2d(pictures, LOW) if size > LOW else pictures)
        change = F.interpolate(change.float(), size=(size, size), mode="bilinear", align_corners=False)
        return compose(pictures, change)

    def change(self, low):
        """The same inputs with at most LOW pixels (B, PLANES, s, s) -> the changes (B, 5, s, s): flow x and y in units
        of the picture's side, and what to add to the three colours in [-1, 1]. They are zero farther than AROUND from
        the person."""
        stages, x = [], low
        for layer in self.down:
            x = layer(x)
            stages.append(x)
        stages.pop()
        for layer in self.up:
            x = layer(torch.cat([F.interpolate(x, scale_factor=2.0), stages.pop()], 1))
        flow, colour = self.last(x).split([2, 3], 1)
        change = torch.cat([MAX_FLOW * torch.tanh(flow), colour], 1)
        change = F.interpolate(change, low.shape[-2:], mode="bicubic", align_corners=False)
        reach = 2 * round(AROUND * low.shape[-1]) + 1
        near = F.max_pool2d(low[:, 9:], (reach, 1), 1, (reach // 2, 0))  # rows, then columns: faster than both at once
        return change * (F.max_pool2d(near, (1, reach), 1, (0, reach // 2)) > -1).to(change.dtype)


def _block(before, after, stride=1):
    return nn.Sequential(nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.LeakyReLU(0.1))


def build(config=None):
    """The network, which is the same for every NetworkConfig, with its weights channels_last as in GenVanillaNN."""
    return Refiner().to(memory_format=torch.channels_last)


def network_input(picture, cover, plate, skeleton):
    """The network's input, float32 (PLANES, S, S) in [-1, 1]: the picture that LimbWarp drew (uint8 S x S x 3 BGR), the
    plate and the drawn skeleton (tensors 3 x S x S), and the cover (float32 S x S), the share of the person."""
    return torch.cat([to_tensor(picture), plate, skeleton, torch.from_numpy(cover)[None] * 2 - 1])


def compose(pictures, change):
    """Image and mask (B, 4, S, S) in [-1, 1], of the network's input (B, PLANES, S, S) and the changes (B, 5, S, S):
    picture and cover are shifted by the flow, and the colours are added."""
    picture, cover, size = pictures[:, :3], pictures[:, 9:], pictures.shape[-1]
    place = (torch.arange(size, device=pictures.device, dtype=torch.float32) + 0.5) / size
    grid = torch.stack(torch.meshgrid(place, place, indexing="xy"), -1)
    grid = (grid + change[:, :2].permute(0, 2, 3, 1)) * 2 - 1
    shifted = F.grid_sample(torch.cat([picture, cover], 1), grid, "bicubic", "border", align_corners=False)
    return torch.cat([shifted[:, :3] + change[:, 2:], shifted[:, 3:].clamp(-1, 1)], 1)


def refiner_losses(made, real):
    """{name: loss} of images and masks (B, 4, S, S) in [-1, 1]. An error on the person counts more than one on the
    background. The loss of detail compares the differences between neighbouring pixels, at three scales."""
    weight = 1 + PERSON_WEIGHT * (F.max_pool2d(torch.maximum(made.detach()[:, 3:], real[:, 3:]), 9, 1, 4) * 0.5 + 0.5)
    image, truth = made[:, :3], real[:, :3]
    colour = (weight * (image - truth).abs()).mean()
    detail = 0
    for _ in range(3):
        for axis in (2, 3):
            difference = torch.diff(image, dim=axis) - torch.diff(truth, dim=axis)
            detail = detail + (difference.abs() * weight.narrow(axis, 0, difference.shape[axis])).mean()
        image, truth, weight = (F.avg_pool2d(x, 2) for x in (image, truth, weight))
    mask = F.l1_loss(made[:, 3:], real[:, 3:])
    return {"colour": colour, "detail": detail, "mask": MASK_WEIGHT * mask}


class WarpDataset(PoseDataset):
    """Pairs (pictures, image) of a target: the network's input for a frame that LimbWarp draws from other frames, and
    the real person and mask. From which other frames differs from epoch to epoch. In training the joints are moved a
    little, as the detector's errors move those of a source."""

    takes_long = True

    def __init__(self, target, kind, image_size):
        super().__init__(target, kind, image_size)
        self._count = training_frames(target)  # held-out frames, too, are drawn from the training frames
        self._warp = LimbWarp(registered(target.first(self._count), self._count), image_size, KEPT)
        self._plate = to_tensor(self._warp.plate)
        self._seed_and_epoch = 0, 0

    def set_epoch(self, seed, epoch):
        self._seed_and_epoch = seed, epoch

    def __getitem__(self, index):
        # A held-out frame is always drawn from the same frames, so that the errors of different weights are comparable.
        training, seconds = index < self._count, self._target.seconds
        seed, epoch = self._seed_and_epoch if training else (0, 0)
        rng = np.random.default_rng([seed, epoch, index])
        skeleton = self._target.skeleton(index)
        if training:
            moves = rng.normal(0, JITTER * self._warp.height, (len(skeleton.joints), 2))
            skeleton = Skeleton(skeleton.joints + np.pad(moves, ((0, 0), (0, 1))), skeleton.visibility)
        joints = skeleton.joints
        away = np.abs(seconds[:self._count] - seconds[index])
        allowed = away >= min(rng.uniform(*BARRED_SECONDS), away.max() / 2)  # in a short video, no frame is far away
        frames = self._warp.some_frames(joints, allowed, rng)
        picture, cover, _ = self._warp.draw(joints, frames)
        cover = cv2.resize(cover, picture.shape[:2], interpolation=cv2.INTER_NEAREST)
        drawn = pose_input(skeleton, self._kind, self._image_size)
        return network_input(picture, cover, self._plate, drawn), self._in_scene(index)

    def _in_scene(self, index):
        """uint8 4 x S x S: the real person and her mask, before the background that LimbWarp draws, with its shadow. If
        the real pictures had another background, the network would learn to hide that: without the shadow, for example,
        it shrinks the feet."""
        image = torch.from_numpy(self.images[index].copy())
        real, person = normalise(image[:3]), image[3:] / 255
        background = to_tensor(self._warp.background(self._target.joints[index]))
        image[:3] = to_levels(real * person + background * (1 - person))
        return image


class GenWarp(LimbWarp):
    """Generator 5 for a target (VideoSkeleton): its frames are registered as for the training, and the picture is
    refined by the network of its checkpoint, if that has helped. device: see pick_device; size: pixels of what is
    generated, see LimbWarp. Raises UserError where this target has no checkpoint."""

    name = "GenWarp"

    def __init__(self, target, checkpoint=None, device="auto", size=None):
        train = training_command(self.name, target, checkpoint)
        network, config, state = load_network(build, checkpoint or CHECKPOINT, self.name, train, target)
        super().__init__(registered(target, state["frames"]), size)
        self._helps = helped(state["held_out"])
        if not self._helps:
            warn(f"the network in {checkpoint or CHECKPOINT} did not help: held-out frames look hardly better with it; "
                 "going on without it")
        self._image_size, self._low = config.image_size, min(LOW, config.image_size)
        self._device = pick_device(device)
        # bfloat16 where it is fast: 0.7 of the time on a CPU, and most edges differ by one level at most
        self._type = torch.bfloat16 if pick_precision(self._device) == "bf16-mixed" else torch.float32
        self._network = network.to(self._device, self._type)
        self._low_plate = to_tensor(self._shrink(self.plate))
        self._reach = np.ones((2 * round(AROUND * self._low) + 3,) * 2, np.uint8)  # one more: the change is enlarged

    def generate(self, skeleton):
        """The refined image of a Skeleton: uint8 H x W x 3 BGR. Sets a mask of all that may differ from the plate."""
        if not self._helps:
            return super().generate(skeleton)
        picture, self.mask, _ = self._refined(skeleton)
        return picture

    def patch(self, skeleton):
        if not self._helps:
            return super().patch(skeleton)
        picture, mask, box = self._refined(skeleton)
        return self._for_scene(Patch(picture[box], mask[box], self.size, (box[1].start, box[0].start)))

    @torch.inference_mode()
    def _refined(self, skeleton):
        """(picture, mask, box): what `generate` gives, and rows and columns of all that may differ from the plate."""
        picture, cover, mask = self.draw(skeleton.joints, self.frames_for(skeleton))
        near = cv2.dilate((self._shrink(cover) > 0).astype(np.uint8) * 255, self._reach)
        mask |= cv2.resize(near, (self.size, self.size), interpolation=cv2.INTER_NEAREST)
        x, y, width, height = cv2.boundingRect(mask)
        whole = np.s_[y:y + height, x:x + width]
        x, y, width, height = cv2.boundingRect(near)
        scale = self.size / self._low
        left, top = int(x * scale), int(y * scale)
        box = np.s_[top:math.ceil((y + height) * scale), left:math.ceil((x + width) * scale)]
        if not width:
            return picture, mask, whole
        drawn = F.adaptive_avg_pool2d(pose_input(skeleton, "image", self._image_size), self._low)
        pictures = network_input(self._shrink(picture), self._shrink(cover), self._low_plate, drawn)[None]
        change = self._network.change(pictures.to(self._device, self._type))[0]
        change = np.ascontiguousarray(change.float().cpu().permute(1, 2, 0).numpy())
        change *= self._beside_face(skeleton.joints)
        # Nothing changes outside the box, so what follows is done inside it only. It does the same as `compose`.
        matrix = np.float64([[1 / scale, 0, (left + 0.5) / scale - 0.5], [0, 1 / scale, (top + 0.5) / scale - 0.5]])
        size, flags = (box[1].stop - left, box[0].stop - top), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        # The parts are the flow, and the colours as BGR.
        flow, colour = (cv2.warpAffine(part, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
                        for part in (change[:, :, :2], change[:, :, 4:1:-1]))
        pixels = np.dstack(np.meshgrid(*(np.arange(first, first + length, dtype=np.float32)
                                         for first, length in zip((left, top), size, strict=True))))
        shifted = cv2.remap(picture, pixels + flow * self.size, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        picture[box] = cv2.add(shifted, colour * 127.5, dtype=cv2.CV_8U)
        return picture, mask, whole

    def _beside_face(self, joints):
        """float32 (low, low, 1): how much may change at each place: nothing at the face, which real frames show whole,
        and whose features would be bent."""
        place = (np.arange(self._low, dtype=np.float32) + 0.5) / self._low
        x, y = joints[FACE, :2].mean(0)
        away = np.hypot(place[None] - x, place[:, None] - y) / (FACE_REACH * self.height)
        return np.clip(away - 1, 0, 1)[:, :, None]

    def _shrink(self, image):
        """An image of any size and type, at the pixels that the network sees."""
        return cv2.resize(image, (self._low, self._low), interpolation=cv2.INTER_AREA)


def step(fabric, network, optimizer, pictures, real):
    """One training step with inputs (B, PLANES, S, S) and images (B, 4, S, S) in [-1, 1]. Returns {name: loss}."""
    losses = refiner_losses(network(pictures), real)
    optimizer.zero_grad()
    fabric.backward(sum(losses.values()))
    optimizer.step()
    return losses


def train(args):
    """Train and save the network; args: the flags that `main` parses. For the errors see Training."""
    from learning.training import Training  # imported here, since drawing needs neither Fabric nor TensorBoard

    config, networks = NetworkConfig("image", args.image_size), {"model": (build, LEARNING_RATE)}
    Training(args, GenWarp.name, config, networks, dataset=WarpDataset, draws_untrained=True).run(step)


def main():
    train(training_parser(__doc__, CHECKPOINT, EPOCHS, MINUTES, BATCH_SIZE, image_size=256).parse_args())


if __name__ == "__main__":
    run(main)
