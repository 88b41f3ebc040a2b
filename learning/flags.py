"""The flags of the training scripts, the device and the precision that they choose, and the scripts' command lines."""

import argparse
import shlex
from pathlib import Path

import torch

from common.command_line import Parser, UserError, positive
from common.paths import SAMPLE_TARGET
from learning.checkpoint import IMAGE_SIZES
from video.clip import add_clip_flags, clip_of

PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed")  # Fabric's names; mixed: autocast, weights in float32
SEEDS = 2 ** 32  # seeds are below this number, since numpy takes no others


class _TrainingParser(Parser):
    """A Parser whose `target` is a Clip."""

    def parse_args(self, *words):
        args = super().parse_args(*words)
        args.target = clip_of(args, args.target, "target-")
        return args


def training_parser(doc, checkpoint, epochs, minutes, batch_size, image_size=IMAGE_SIZES[0]):
    """A Parser with the flags of every training script; the arguments are its docstring and its defaults."""
    flags = _TrainingParser(doc)
    flags.add_argument("--target", default=SAMPLE_TARGET, help="video of the person to learn")
    add_clip_flags(flags, "the target", "target-", "")
    flags.add_argument("--epochs", type=positive(int), default=epochs, help="end after this many epochs in all")
    flags.add_argument("--minutes", type=positive(float), default=minutes, help="end after this many, if sooner")
    flags.add_argument("--image-size", type=int, choices=IMAGE_SIZES, default=image_size, help="pixels")
    flags.add_argument("--batch-size", type=positive(int), default=batch_size, help="images a step, of all processes")
    flags.add_argument("--checkpoint", default=checkpoint, type=Path, help="where the weights are saved")
    flags.add_argument("--resume", action="store_true", help="go on from the last weights saved there")
    flags.add_argument("--seed", type=_seed, default=0, help="seed of every random choice")
    flags.add_argument("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto", help="where to compute")
    flags.add_argument("--precision", choices=PRECISIONS, default="auto", help="auto: bfloat16 where it is fast")
    flags.add_argument("--compile", action="store_true", help="let torch.compile speed up the networks: a slow start")
    flags.add_argument("--dry-run", action="store_true", help="make one step and write no file, as a check")
    return flags


def _seed(text):
    """An argparse type: a seed that every library here accepts."""
    if not text.isdecimal() or int(text) >= SEEDS:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 to {SEEDS - 1}")
    return int(text)


def training_command(generator, target, checkpoint=None, words=()):
    """The command line, quoted for a shell, that trains a generator for a target (VideoSkeleton). generator: the name
    of its script; checkpoint: a path for the weights, if not the script's own; words: further flags."""
    command = ["python", f"{generator}.py", *words]
    command += ["--checkpoint", str(checkpoint)] if checkpoint else []
    command += [] if target.path == SAMPLE_TARGET else ["--target", str(target.path)]
    return shlex.join(command + target.clip.words("target-"))


def pick_device(name):
    """The torch.device for "auto", "cpu", "cuda" or "mps". Raises UserError where this machine has no such device."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, there in available.items() if there)
    if not available.get(name):
        raise UserError(f"there is no {name} device here; use --device cpu")
    return torch.device(name)


def pick_precision(device):
    """The precision for a torch.device, one of PRECISIONS: bfloat16 where it is fast, else float32, or float16 on a GPU
    without bfloat16."""
    if device.type == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    fast = device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()  # torch has no public function for it
    return "bf16-mixed" if fast else "32-true"
