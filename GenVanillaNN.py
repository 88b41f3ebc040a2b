"""GEN_TYPE 2 and 3, vanilla networks: skeleton -> image of the target, trained with the mean squared error.

    python GenVanillaNN.py                                     # GEN_TYPE 3: skeleton image -> image (recommended)
    python GenVanillaNN.py --input ske                         # GEN_TYPE 2: 26 values -> image
    python GenVanillaNN.py --target me.mp4 --image-size 128 --minutes 15
    python GenVanillaNN.py --resume --epochs 400 --minutes 15  # go on
    python DanceDemo.py --gen-type 3

Saves data/Dance/DanceGenVanillaFromSkeim.pth (or ...FromSke.pth), curves for TensorBoard in data/Dance/runs and a
grid [skeleton | generated | real] of held-out poses beside the weights.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

import Checkpoint
import Distributed
import Runtime
import Training
from Canvas import resize
from CommandLine import UserError, run
from PoseDataset import pose_input, to_image, to_levels

EPOCHS = 120
MINUTES = 4.5  # on a slower machine this ends the training before EPOCHS do
BATCH_SIZE = 16
LEARNING_RATE = 1e-3
CHANNELS = 32  # of the layer nearest to the image; doubled at each halving of the picture
MAX_CHANNELS = 256
PLANES = 4  # of what is generated: red, green, blue, and the person's mask
CHECKPOINTS = {"ske": Training.DANCE / "DanceGenVanillaFromSke.pth",
               "skeim": Training.DANCE / "DanceGenVanillaFromSkeim.pth"}


def widths(image_size):
    """Channels at each halving of the picture, down to 4 x 4: (32, 64, 128, 256) for 64 pixels."""
    return [min(MAX_CHANNELS, CHANNELS << level) for level in range(image_size.bit_length() - 3)]


class GenNNSkeToImage(nn.Module):
    """26 or 99 values -> image, by transposed convolutions (as DCGAN's generator: Radford et al., ICLR 2016)."""

    def __init__(self, values, image_size):
        super().__init__()
        sizes = widths(image_size)[::-1]
        layers = [nn.ConvTranspose2d(values, sizes[0], 4), nn.BatchNorm2d(sizes[0]), nn.ReLU()]  # 4 x 4
        for before, after in pairwise(sizes):
            layers += [nn.ConvTranspose2d(before, after, 4, 2, 1), nn.BatchNorm2d(after), nn.ReLU()]  # twice the size
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(sizes[-1], PLANES, 4, 2, 1), nn.Tanh())

    def forward(self, pose):  # (B, values)
        return self.layers(pose[:, :, None, None])  # (B, PLANES, S, S)


class GenNNSkeImToImage(nn.Module):
    """Skeleton image -> image, an encoder-decoder whose decoder also sees each stage of the encoder (U-Net:
    Ronneberger et al., MICCAI 2015; as pix2pix's generator: Isola et al., CVPR 2017)."""

    def __init__(self, image_size):
        super().__init__()
        sizes = widths(image_size)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        before = 3
        for after in sizes:
            self.down.append(nn.Sequential(nn.Conv2d(before, after, 4, 2, 1), nn.BatchNorm2d(after), nn.LeakyReLU(0.2)))
            before = after
        for level in reversed(range(1, len(sizes))):
            after = sizes[level - 1]
            self.up.append(nn.Sequential(nn.ConvTranspose2d(before, after, 4, 2, 1), nn.BatchNorm2d(after), nn.ReLU()))
            before = 2 * after  # its own and the encoder's
        self.last = nn.ConvTranspose2d(before, PLANES, 4, 2, 1)

    def forward(self, pose):  # (B, 3, S, S)
        stages = []
        for layer in self.down:
            pose = layer(pose)  # (B, widths[i], S / 2^(i+1), S / 2^(i+1))
            stages.append(pose)
        stages.pop()
        for layer in self.up:
            pose = torch.cat([layer(pose), stages.pop()], 1)
        return torch.tanh(self.last(pose))  # (B, PLANES, S, S)


def build(config):
    """The network of a checkpoint's config: {"pose": "reduced", "full" or "image", "image_size": pixels}.

    Its weights lie channels_last, which convolutions on a CPU prefer: 1.15 to 1.35 times the images/s here.
    """
    if config["pose"] == "image":
        network = GenNNSkeImToImage(config["image_size"])
    else:
        network = GenNNSkeToImage(99 if config["pose"] == "full" else 26, config["image_size"])
    return network.to(memory_format=torch.channels_last)


def image_loss(generated, real):
    """Mean squared error of images and masks in [-1, 1]."""
    return F.mse_loss(generated, real)


class GenVanillaNN:
    """Generator 2 ("ske") or 3 ("skeim") for a target (VideoSkeleton), from its checkpoint."""

    name, script, checkpoints = "GenVanillaNN", "GenVanillaNN.py", CHECKPOINTS

    def __init__(self, target, kind="skeim", checkpoint=None, device="auto", runtime="auto"):
        words = ["--input", "ske"] if kind == "ske" else []
        words += ["--checkpoint", str(checkpoint)] if checkpoint else []
        train = Training.command(self.script, words, target.path)
        path, self._size = checkpoint or self.checkpoints[kind], target.size
        network, self._config = Checkpoint.load_network(build, path, self.name, train, target)
        if (self._config["pose"] == "image") != (kind == "skeim"):
            raise UserError(f"{checkpoint} takes another input (pose: {self._config['pose']}); train with: {train}")
        example = pose_input(target.skeleton(0), self._config["pose"], self._config["image_size"])[None]
        device = Distributed.pick_device(device)
        self._network, self._device = Runtime.ready(network, example.shape, path, runtime, device)
        torch.set_num_threads(Runtime.threads())

    def generate(self, skeleton):
        """The image (uint8 H x W x 3 BGR, the canvas's size) that the network makes of a Skeleton."""
        return self.paint(skeleton)[0]

    @torch.inference_mode()
    def paint(self, skeleton):
        """The image, and the person's mask in it (uint8 H x W, 255 inside)."""
        pose = pose_input(skeleton, self._config["pose"], self._config["image_size"])
        made = self._network(pose[None].to(self._device))[0]
        return resize(to_image(made[:3]), self._size), resize(to_levels(made[3]).numpy(), self._size)


def step(fabric, network, optimizer, pose, real):
    """One training step; returns its losses."""
    loss = image_loss(network(pose), real)
    optimizer.zero_grad()
    fabric.backward(loss)
    optimizer.step()
    return {"mse": loss}


def train(args):
    fabric = Distributed.launch(args)
    config = {"pose": "image" if args.input == "skeim" else args.skeleton, "image_size": args.image_size}
    network = build(config)
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE)
    network, optimizer = Distributed.setup(fabric, args, network, optimizer)
    loop = Training.Loop(fabric, args, GenVanillaNN.name, config, {"model": network}, {"model": optimizer})
    for pose, real in loop:
        loop.log(**step(fabric, network, optimizer, pose, real))


def main():
    parser = Training.parser(__doc__, None, EPOCHS, MINUTES, BATCH_SIZE)
    parser.add_argument("--input", choices=list(CHECKPOINTS), default="skeim", help="values, or a skeleton image")
    parser.add_argument("--skeleton", choices=["reduced", "full"], default="reduced", help="26 or 99 values, for ske")
    args = parser.parse_args()
    args.checkpoint = args.checkpoint or CHECKPOINTS[args.input]
    train(args)


if __name__ == "__main__":
    run(main)
