"""Checkpoints: a dict of plain types and tensors, written whole or not at all, never believed before it is checked.

{schema, generator, config, target, model, epoch, step, seed, held_out}: a generator is rebuilt from it without a flag;
`model` holds the weights averaged over the last steps (EMA). Reading one runs no code out of it (weights_only).
"""

import os
from pathlib import Path

import torch

from CommandLine import UserError
from Storage import check_stored, whole

SCHEMA = 2  # raise it when a stored value changes its meaning
IMAGE_SIZES = (64, 128, 256)
POSES = ("reduced", "full", "image")  # what a network takes: see PoseDataset.pose_input


def save_checkpoint(state, path, previous=None):
    """Write `state` (plain types and tensors) to `path`, whole or not at all; what is there is kept as `previous`."""
    with whole(path) as part:
        try:
            torch.save(state, part)
        except RuntimeError:  # torch's own word for a write that failed, in several lines
            raise OSError(None, "the disk took only a part of it") from None
        if previous and path.exists():
            previous.unlink(missing_ok=True)
            try:
                os.link(path, previous)  # a second name, so that `path` is never missing
            except OSError:  # a file system without
                os.replace(path, previous)


def load_checkpoint(path, generator, train, target=None):
    """The checkpoint at `path`: of `generator` (a name) and of `target` (a VideoSkeleton), where these are given.

    train: the command that makes it, for the error text. Raises UserError; never runs code out of the file.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there are no trained weights at {path}; train them with: {train}")
    try:
        check_stored(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        schema, made_by, owner, _, _ = (state[key] for key in ("schema", "generator", "target", "config", "model"))
        if not (isinstance(schema, int) and isinstance(made_by, str) and isinstance(owner, dict)):
            raise TypeError
    except Exception:  # whatever a file that is none can cause: zip, pickle, key and type errors
        raise UserError(f"{path} is no checkpoint of this program; use: {train}") from None
    if generator is not None and (schema, made_by) != (SCHEMA, generator):
        raise UserError(f"{path} is of {made_by} (schema {schema}), not {generator} ({SCHEMA}); train it with: {train}")
    if target is not None and owner != target.identity:
        raise UserError(f"{path} was trained for another target than {target.path}; train this one with: {train}")
    return state


def load_network(build, path, generator, train, target):
    """(network that build(config) made, with its weights, ready for use; config), of what load_checkpoint gives."""
    state = load_checkpoint(path, generator, train, target)
    try:
        config = {"pose": str(state["config"]["pose"]), "image_size": int(state["config"]["image_size"])}
        if config["pose"] not in POSES or config["image_size"] not in IMAGE_SIZES:
            raise ValueError
        network = build(config)
        network.load_state_dict(state["model"])
        if not all(torch.isfinite(values).all() for values in network.state_dict().values()):
            raise ValueError
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError):
        raise UserError(f"the weights in {path} don't fit {generator}; train it with: {train}") from None
    return network.eval(), config
