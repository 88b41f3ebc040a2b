"""GEN_TYPE 2 and 3, vanilla networks: skeleton -> image of the target, trained with the mean squared error.

    python GenVanillaNN.py                                     # GEN_TYPE 3: skeleton image -> image (recommended)
    python GenVanillaNN.py --input ske                         # GEN_TYPE 2: 26 values -> image
    python GenVanillaNN.py --target me.mp4 --image-size 128 --minutes 15
    python GenVanillaNN.py --resume --epochs 400 --minutes 15  # go on
    python DanceDemo.py --gen-type 3

Saves data/Dance/DanceGenVanillaFromSkeim.pth (or ...FromSke.pth), and beside it curves for TensorBoard (runs) and
pictures of held-out poses: [skeleton | generated | real].
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from common import paths
from common.command_line import UserError, run
from learning.checkpoint import NetworkConfig, load_network
from learning.dataset import pose_input, to_image, to_levels
from learning.flags import pick_device, training_command, training_parser
from picture.canvas import Generator, resize

EPOCHS = 120
MINUTES = 4.5  # on a slower machine this ends the training before EPOCHS do
BATCH_SIZE = 16
LEARNING_RATE = 1e-3
CHANNELS = 32  # of the layer nearest to the image; doubled at each halving of the picture
MAX_CHANNELS = 256
PLANES = 4  # of what is generated: red, green, blue, and the person's mask
CHECKPOINTS = {"ske": paths.DANCE / "DanceGenVanillaFromSke.pth",
               "skeim": paths.DANCE / "DanceGenVanillaFromSkeim.pth"}


class GenNNSkeToImage(nn.Module):
    """26 or 99 values -> image, by transposed convolutions (as DCGAN's generator: Radford et al., ICLR 2016)."""

    def __init__(self, values, image_size):
        super().__init__()
        sizes = widths(image_size)[::-1]
        layers = [nn.ConvTranspose2d(values, sizes[0], 4), nn.BatchNorm2d(sizes[0]), nn.ReLU()]  # 4 x 4
        for before, after in pairwise(sizes):
            layers += [nn.ConvTranspose2d(before, after, 4, 2, 1), nn.BatchNorm2d(after), nn.ReLU()]  # twice the size
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(sizes[-1], PLANES, 4, 2, 1), nn.Tanh())

    def forward(self, pose):
        """(B, values) -> (B, PLANES, S, S) in [-1, 1]."""
        return self.layers(pose[:, :, None, None])


class GenNNSkeImToImage(nn.Module):
    """Skeleton image -> image, an encoder-decoder whose decoder also sees each stage of the encoder (U-Net:
    Ronneberger et al., MICCAI 2015; as pix2pix's generator: Isola et al., CVPR 2017)."""

    def __init__(self, image_size):
        super().__init__()
        sizes = widths(image_size)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for before, after in pairwise([3, *sizes]):
            self.down.append(nn.Sequential(nn.Conv2d(before, after, 4, 2, 1), nn.BatchNorm2d(after), nn.LeakyReLU(0.2)))
        before = sizes[-1]
        for after in sizes[-2::-1]:
            self.up.append(nn.Sequential(nn.ConvTranspose2d(before, after, 4, 2, 1), nn.BatchNorm2d(after), nn.ReLU()))
            before = 2 * after  # the channels of the decoder's stage and those of the encoder's
        self.last = nn.ConvTranspose2d(before, PLANES, 4, 2, 1)

    def forward(self, pose):
        """(B, 3, S, S) in [-1, 1] -> (B, PLANES, S, S) in [-1, 1]."""
        stages = []
        for layer in self.down:
            pose = layer(pose)  # (B, widths[i], S / 2^(i+1), S / 2^(i+1))
            stages.append(pose)
        stages.pop()
        for layer in self.up:
            pose = torch.cat([layer(pose), stages.pop()], 1)
        return torch.tanh(self.last(pose))


def widths(image_size):
    """The channels at each halving of the picture, down to 4 x 4: [32, 64, 128, 256] for 64 pixels."""
    return [min(MAX_CHANNELS, CHANNELS << level) for level in range(image_size.bit_length() - 3)]


def build(config):
    """The network for a NetworkConfig. Its weights are stored channels_last, which convolutions on a CPU prefer: 1.15
    to 1.35 times the images/s here."""
    if config.pose == "image":
        network = GenNNSkeImToImage(config.image_size)
    else:
        network = GenNNSkeToImage(99 if config.pose == "full" else 26, config.image_size)
    return network.to(memory_format=torch.channels_last)


def image_loss(generated, real):
    """Mean squared error of images and masks (B, PLANES, S, S) in [-1, 1]."""
    return F.mse_loss(generated, real)


class GenVanillaNN(Generator):
    """Generator 2 (kind "ske") or 3 ("skeim") for a target (VideoSkeleton), from its checkpoint. device: see
    pick_device. Raises UserError where there is no checkpoint for this target and this kind."""

    name, checkpoints = "GenVanillaNN", CHECKPOINTS

    def __init__(self, target, kind="skeim", checkpoint=None, device="auto"):
        train = training_command(self.name, target, checkpoint, ["--input", "ske"] if kind == "ske" else [])
        path, self._size = checkpoint or self.checkpoints[kind], target.size
        network, self._config, _ = load_network(build, path, self.name, train, target)
        if (self._config.pose == "image") != (kind == "skeim"):
            raise UserError(f"{path} takes another input (pose: {self._config.pose}); train with: {train}")
        self._device = pick_device(device)
        self._network = network.to(self._device)

    @torch.inference_mode()
    def generate(self, skeleton):
        """The image that the network makes of a Skeleton: uint8 H x W x 3 BGR of the canvas's size. Sets the mask."""
        pose = pose_input(skeleton, self._config.pose, self._config.image_size)
        made = self._network(pose[None].to(self._device))[0]
        self.mask = resize(to_levels(made[3]).numpy(), self._size)
        return resize(to_image(made[:3]), self._size)


def step(fabric, network, optimizer, pose, real):
    """One training step with a batch of poses and their images (B, PLANES, S, S) in [-1, 1]. Returns {name: loss}."""
    loss = image_loss(network(pose), real)
    optimizer.zero_grad()
    fabric.backward(loss)
    optimizer.step()
    return {"mse": loss}


def train(args):
    """Train and save the network; args: the flags that `main` parses. For the errors see Training."""
    from learning.training import Training  # imported here, since drawing needs neither Fabric nor TensorBoard

    config = NetworkConfig("image" if args.input == "skeim" else args.skeleton, args.image_size)
    Training(args, GenVanillaNN.name, config, {"model": (build, LEARNING_RATE)}).run(step)


def main():
    parser = training_parser(__doc__, None, EPOCHS, MINUTES, BATCH_SIZE)
    parser.add_argument("--input", choices=list(CHECKPOINTS), default="skeim", help="values, or a skeleton image")
    parser.add_argument("--skeleton", choices=["reduced", "full"], default="reduced", help="26 or 99 values, for ske")
    args = parser.parse_args()
    args.checkpoint = args.checkpoint or CHECKPOINTS[args.input]
    train(args)


if __name__ == "__main__":
    run(main)
