"""GEN_TYPE 4, conditional GAN: the generator of GEN_TYPE 3 against a discriminator that judges patches.

    python GenGAN.py
    python GenGAN.py --target me.mp4 --image-size 128 --minutes 30
    python GenGAN.py --resume --epochs 400 --minutes 30        # go on
    python DanceDemo.py --gen-type 4

pix2pix (Isola et al., CVPR 2017): binary cross-entropy on (skeleton image, image) pairs plus 100 x L1.
Saves data/Dance/DanceGenGAN.pth, and beside it curves for TensorBoard (runs) and pictures of held-out poses.
"""

import torch
import torch.nn.functional as F
from torch import nn

from common import paths
from common.command_line import run
from GenVanillaNN import GenVanillaNN, build
from learning.checkpoint import NetworkConfig
from learning.flags import training_parser

EPOCHS = 120
MINUTES = 9.0  # on a slower machine this ends the training before EPOCHS do
BATCH_SIZE = 16
LEARNING_RATE = 1e-3  # the generator's, as in GenVanillaNN
LEARNING_RATE_D = 1e-4  # the discriminator's; with the paper's 2e-4 for both it becomes too strong: noisy limbs
BETAS = (0.5, 0.999)  # of Adam, as in the paper
LAMBDA_L1 = 100.0  # the weight of image_loss, as in the paper
CHANNELS = 32  # of the discriminator's first layer: half the paper's, as good here and twice as fast
CHECKPOINT = paths.DANCE / "DanceGenGAN.pth"


class Discriminator(nn.Module):
    """PatchGAN: one logit for each overlapping patch of a (skeleton image, image) pair, real or generated. Two strided
    layers at 64 pixels (patches of 34 x 34), three at 128 and 256 (70 x 70)."""

    def __init__(self, image_size):
        super().__init__()
        strides = [2, 2, 1] if image_size <= 64 else [2, 2, 2, 1]
        layers, before = [], 6
        for level, stride in enumerate(strides):
            after = CHANNELS << level
            normalisation = [nn.BatchNorm2d(after)] if level else []  # none on the first, as in the paper
            layers += [nn.Conv2d(before, after, 4, stride, 1), *normalisation, nn.LeakyReLU(0.2)]
            before = after
        self.layers = nn.Sequential(*layers, nn.Conv2d(before, 1, 4, 1, 1))

    def forward(self, pose, image):
        """Two images (B, 3, S, S) in [-1, 1] -> logits (B, 1, patches, patches)."""
        return self.layers(torch.cat([pose, image], 1))


def discriminator_loss(real_logits, fake_logits):
    """Binary cross-entropy: real patches should give 1, generated ones 0."""
    real = F.binary_cross_entropy_with_logits(real_logits, torch.ones_like(real_logits))
    fake = F.binary_cross_entropy_with_logits(fake_logits, torch.zeros_like(fake_logits))
    return (real + fake) / 2


def adversarial_loss(fake_logits):
    """Binary cross-entropy of the generator, whose patches should give 1."""
    return F.binary_cross_entropy_with_logits(fake_logits, torch.ones_like(fake_logits))


def image_loss(generated, real):
    """Mean absolute error of images and masks (B, PLANES, S, S) in [-1, 1]."""
    return F.l1_loss(generated, real)


class GenGAN(GenVanillaNN):
    """Generator 4: the network of generator 3, trained in another way. For arguments and errors see GenVanillaNN."""

    name, checkpoints = "GenGAN", {"skeim": CHECKPOINT}


def step(fabric, network, discriminator, optimizer, optimizer_d, pose, real):
    """One training step of the discriminator and one of the generator, with a batch of skeleton images (B, 3, S, S) and
    their images (B, PLANES, S, S), both in [-1, 1]. Returns {name: loss}."""
    fake = network(pose)
    image = fake[:, :3]  # the discriminator is not shown the masks
    judged = discriminator_loss(discriminator(pose, real[:, :3]), discriminator(pose, image.detach()))
    optimizer_d.zero_grad()
    fabric.backward(judged)
    optimizer_d.step()

    discriminator.requires_grad_(False)  # the generator's step needs no gradients of the discriminator's weights
    fooled, l1 = adversarial_loss(discriminator(pose, image)), image_loss(fake, real)
    optimizer.zero_grad()
    fabric.backward(fooled + LAMBDA_L1 * l1)
    optimizer.step()
    discriminator.requires_grad_(True)
    return {"discriminator": judged, "adversarial": fooled, "l1": l1}


def train(args):
    """Train and save the networks; args: the flags that `main` parses. For the errors see Training."""
    from learning.training import Training  # imported here, since drawing needs neither Fabric nor TensorBoard

    networks = {"model": (build, LEARNING_RATE),
                "discriminator": (lambda config: Discriminator(config.image_size), LEARNING_RATE_D)}
    Training(args, GenGAN.name, NetworkConfig("image", args.image_size), networks, BETAS).run(step)


def main():
    train(training_parser(__doc__, CHECKPOINT, EPOCHS, MINUTES, BATCH_SIZE).parse_args())


if __name__ == "__main__":
    run(main)
