"""GEN_TYPE 4, conditional GAN: the generator of GEN_TYPE 3 against a discriminator that judges patches.

    python GenGAN.py
    python GenGAN.py --target me.mp4 --image-size 128 --minutes 30
    python GenGAN.py --resume --epochs 400 --minutes 30        # go on
    python DanceDemo.py --gen-type 4

pix2pix (Isola et al., CVPR 2017): binary cross-entropy on (skeleton image, image) pairs plus 100 x L1.
Saves data/Dance/DanceGenGAN.pth, curves for TensorBoard in data/Dance/runs and a grid [skeleton | generated | real]
of held-out poses beside the weights.
"""

import torch
import torch.nn.functional as F
from torch import nn

import Distributed
import Training
from CommandLine import run
from GenVanillaNN import GenVanillaNN, build

EPOCHS = 120
MINUTES = 9.0  # on a slower machine this ends the training before EPOCHS do
BATCH_SIZE = 16
LEARNING_RATE = 1e-3  # the generator's, as in GenVanillaNN
LEARNING_RATE_D = 1e-4  # the paper's 2e-4 for both lets the discriminator run away: noisy limbs
BETAS = (0.5, 0.999)  # this and the next as in the paper
LAMBDA_L1 = 100.0
CHANNELS = 32  # of the discriminator's first layer: half the paper's, as good here and twice as fast
CHECKPOINT = Training.DANCE / "DanceGenGAN.pth"


class Discriminator(nn.Module):
    """PatchGAN: one logit for each overlapping patch of a (skeleton image, image) pair, real or generated.

    Two strided layers at 64 pixels (patches of 34 x 34), three at 128 and 256 (70 x 70).
    """

    def __init__(self, image_size):
        super().__init__()
        strides = [2, 2, 1] if image_size <= 64 else [2, 2, 2, 1]
        layers, before = [], 6
        for level, stride in enumerate(strides):
            after = CHANNELS << level
            layers += [nn.Conv2d(before, after, 4, stride, 1)]
            layers += [nn.BatchNorm2d(after)] if level else []  # none on the first, as in the paper
            layers += [nn.LeakyReLU(0.2)]
            before = after
        self.layers = nn.Sequential(*layers, nn.Conv2d(before, 1, 4, 1, 1))

    def forward(self, pose, image):  # both (B, 3, S, S)
        return self.layers(torch.cat([pose, image], 1))  # (B, 1, patches, patches)


def discriminator_loss(real_logits, fake_logits):
    """Binary cross-entropy: real patches should give 1, generated ones 0."""
    real = F.binary_cross_entropy_with_logits(real_logits, torch.ones_like(real_logits))
    fake = F.binary_cross_entropy_with_logits(fake_logits, torch.zeros_like(fake_logits))
    return (real + fake) / 2


def adversarial_loss(fake_logits):
    """Binary cross-entropy of the generator, whose patches should give 1."""
    return F.binary_cross_entropy_with_logits(fake_logits, torch.ones_like(fake_logits))


def image_loss(generated, real):
    """Mean absolute error of images and masks in [-1, 1]."""
    return F.l1_loss(generated, real)


class GenGAN(GenVanillaNN):
    """Generator 4 for a target (VideoSkeleton), from its checkpoint: the network of 3, trained otherwise."""

    name, script, checkpoints = "GenGAN", "GenGAN.py", {"skeim": CHECKPOINT}

    def __init__(self, target, checkpoint=None, device="auto", runtime="auto"):
        super().__init__(target, "skeim", checkpoint, device, runtime)


def step(fabric, network, discriminator, optimizer, optimizer_d, pose, real):
    """One training step of the discriminator and one of the generator; returns their losses."""
    fake = network(pose)
    image = fake[:, :3]  # the discriminator sees no masks
    judged = discriminator_loss(discriminator(pose, real[:, :3]), discriminator(pose, image.detach()))
    optimizer_d.zero_grad()
    fabric.backward(judged)
    optimizer_d.step()

    discriminator.requires_grad_(False)  # the generator's step needs no gradients of its weights
    fooled, l1 = adversarial_loss(discriminator(pose, image)), image_loss(fake, real)
    optimizer.zero_grad()
    fabric.backward(fooled + LAMBDA_L1 * l1)
    optimizer.step()
    discriminator.requires_grad_(True)
    return {"discriminator": judged, "adversarial": fooled, "l1": l1}


def train(args):
    fabric = Distributed.launch(args)
    config = {"pose": "image", "image_size": args.image_size}
    network, discriminator = build(config), Discriminator(args.image_size)
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE, BETAS)
    optimizer_d = torch.optim.Adam(discriminator.parameters(), LEARNING_RATE_D, BETAS)
    network, optimizer = Distributed.setup(fabric, args, network, optimizer)
    discriminator, optimizer_d = Distributed.setup(fabric, args, discriminator, optimizer_d)
    modules = {"model": network, "discriminator": discriminator}
    optimizers = {"model": optimizer, "discriminator": optimizer_d}
    loop = Training.Loop(fabric, args, GenGAN.name, config, modules, optimizers)
    for pose, real in loop:
        loop.log(**step(fabric, network, discriminator, optimizer, optimizer_d, pose, real))


def main():
    parser = Training.parser(__doc__, CHECKPOINT, EPOCHS, MINUTES, BATCH_SIZE)
    args = parser.parse_args()
    train(args)


if __name__ == "__main__":
    run(main)
