"""Checkpoints: a dict of plain types and tensors, written whole or not at all, and checked before it is used.

{schema, generator, config, target, frames, model, epoch, step, seed, batch_size, held_out}: a generator is rebuilt from
the file alone. `frames` is how many it was trained on; `model` holds the weights averaged over the last steps;
`held_out` has their HeldOutErrors and, as "untrained", the unlikeness without the network, where that draws, too (None:
it does not). Reading a file runs no code in it (weights_only).
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from common.command_line import UserError
from common.files import atomic_write, require_uncompressed

SCHEMA = 2  # to be raised when a stored value changes its meaning
# A network has helped if its `gain` is at least this. Held-out frames are few and much alike, and reward limbs that are
# drawn thinner: on real clips, gains of 4.6 % and 8.4 % there were losses of 1.8 % and 2.9 % elsewhere (ST-LPIPS).
LEAST_GAIN = 0.15
IMAGE_SIZES = (64, 128, 256)  # pixels of the square images that networks are trained on
POSES = ("reduced", "full", "image")  # the inputs of networks, see dataset.pose_input


@dataclass(frozen=True)
class NetworkConfig:
    """What the layers of a network depend on. pose: its input, one of POSES; image_size: one of IMAGE_SIZES."""

    pose: str
    image_size: int


def save_checkpoint(state, path, previous=None):
    """Write `state` to `path`. previous: a path under which the file that was at `path` is kept. Raises UserError where
    the disk does not take it."""
    with atomic_write(path) as part:
        try:
            torch.save(state, part)
        except RuntimeError:  # torch reports a write that failed in several lines without the system's error
            raise OSError(None, "the disk took only a part of it") from None
        if previous and path.exists():
            previous.unlink(missing_ok=True)
            try:
                os.link(path, previous)  # a second name for the file, so that `path` exists at every moment
            except OSError:  # this file system has no hard links
                os.replace(path, previous)


def load_checkpoint(path, generator, train, target=None):
    """The dict in the checkpoint at `path`. generator: the name that it must bear, or None for any; target: the
    VideoSkeleton that it must have been trained for, if given; train: the command that makes such a checkpoint, for the
    message. Raises UserError for all else."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there are no trained weights at {path}; train them with: {train}")
    try:
        require_uncompressed(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        schema, made_by, owner, _, _ = (state[key] for key in ("schema", "generator", "target", "config", "model"))
        if not (isinstance(schema, int) and isinstance(made_by, str) and isinstance(owner, dict)):
            raise TypeError
    except Exception:  # zipfile and pickle raise exceptions of many kinds for a file that is something else
        raise UserError(f"{path} is no checkpoint of this program; use: {train}") from None
    if generator is not None and (schema, made_by) != (SCHEMA, generator):
        raise UserError(f"{path} is of {made_by} (schema {schema}), not {generator} ({SCHEMA}); train it with: {train}")
    if target is not None and owner != target.identity:
        raise UserError(f"{path} was trained for another target than {target.path}; train this one with: {train}")
    return state


def gain(held_out):
    """float: by which share the held-out frames look more like the real ones than without the network; below 0 where
    they look less so; infinite where nothing is drawn without it. held_out: of a checkpoint."""
    untrained = held_out.get("untrained")
    return math.inf if untrained is None else 1 - float(held_out["unlikeness"]) / max(float(untrained), 1e-12)


def helped(held_out):
    """Whether a network has helped enough for its weights to be used. held_out: of a checkpoint."""
    return gain(held_out) >= LEAST_GAIN


def load_network(build, path, generator, train, target):
    """(network, config, state) of the checkpoint at `path`: what build(config) makes, with its trained weights, in
    evaluation mode on the CPU, the NetworkConfig, and the dict that `load_checkpoint` gives, whose other arguments and
    errors are the same."""
    state = load_checkpoint(path, generator, train, target)
    try:
        config = NetworkConfig(str(state["config"]["pose"]), int(state["config"]["image_size"]))
        if config.pose not in POSES or config.image_size not in IMAGE_SIZES:
            raise ValueError
        network = build(config)
        network.load_state_dict(state["model"])
        if not all(torch.isfinite(values).all() for values in network.state_dict().values()):
            raise ValueError
        helped(state.setdefault("held_out", {}))  # it raises here what it would raise later
        if state.setdefault("frames", 0) < 0:  # a file without them is of an earlier version
            raise ValueError
        return network.eval(), config, state
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError):
        raise UserError(f"the weights in {path} don't fit {generator}; train it with: {train}") from None
