"""What the training scripts share: their flags, the loop around the steps, curves and sample grids.

X.pth has the best weights on held-out frames; X-last.pth has, besides, all that --resume needs: {weights, optimizers,
ema, rng, best}. A new training keeps the weights that were there as X-previous.pth. See Checkpoint.py.
"""

import argparse
import contextlib
import math
import shlex
import signal
import time
from datetime import datetime
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, DistributedSampler
from torch.utils.tensorboard import SummaryWriter
from torchvision.utils import make_grid
from tqdm import tqdm

from Checkpoint import IMAGE_SIZES, SCHEMA, load_checkpoint, save_checkpoint
from CommandLine import ROOT, Parser, UserError, positive, writable_folder
from Distributed import PRECISIONS, Team, launched
from PoseDataset import PoseDataset, normalise, pose_input, to_image, to_levels
from Storage import alone, whole
from VideoSkeleton import TARGET, VideoSkeleton

DANCE = ROOT / "data" / "Dance"
EMA = 0.995  # of the average kept at each step: it remembers some 200 steps
EVALUATE = 100  # steps, about, between two looks at the held-out frames (always at the end of an epoch)
SAVE = 60  # seconds, at most, between two saves
SAMPLES = 8  # held-out poses in the grid


def parser(doc, checkpoint, epochs, minutes, batch_size, image_size=IMAGE_SIZES[0]):
    """The flags of every training script, with its defaults."""
    flags = Parser(doc)
    flags.add_argument("--target", default=TARGET, help="video of the person to learn")
    flags.add_argument("--epochs", type=positive(int), default=epochs, help="end after so many in all")
    flags.add_argument("--minutes", type=positive(float), default=minutes, help="end after so many, if sooner")
    flags.add_argument("--image-size", type=int, choices=IMAGE_SIZES, default=image_size, help="pixels")
    flags.add_argument("--batch-size", type=positive(int), default=batch_size, help="images a step, of all processes")
    flags.add_argument("--checkpoint", default=checkpoint, type=Path, help="where the weights go")
    flags.add_argument("--resume", action="store_true", help="go on from the last weights saved there")
    flags.add_argument("--seed", type=_seed, default=0, help="of every random choice")
    flags.add_argument("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto", help="where to compute")
    flags.add_argument("--precision", choices=PRECISIONS, default="auto", help="auto: bfloat16 where it is fast")
    flags.add_argument("--compile", action="store_true", help="let torch.compile speed up the networks: a slow start")
    flags.add_argument("--dry-run", action="store_true", help="one step into no file, to see that all is there")
    return flags


def _seed(text):
    """An argparse type: what every library here takes as a seed."""
    if not text.isdecimal() or int(text) >= 2 ** 32:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 to {2 ** 32 - 1}")
    return int(text)


def command(script, args=(), target=None):
    """A command line to print for the user, quoted where it must be."""
    words = ["python", script, *args]
    return shlex.join(words if target in (None, TARGET) else [*words, "--target", str(target)])


class Loop:
    """Iterates the training batches and does all that is around a step.

        for pose, image in loop:            # on the device; image in [-1, 1]
            ...one step of the optimizers...
            loop.log(mse=loss)

    modules: {"model": the generator's network, ...}; optimizers: {name: optimizer}. Both belong to Fabric (`setup`).
    The loop ends after args.epochs, after args.minutes, or at Ctrl-C, saves, and leaves with status 130 after the
    latter. With args.resume it begins where X-last.pth stopped, to the same batch and the same random numbers.
    dataset: PoseDataset, or what has its interface, where the network takes something else than a pose.
    """

    def __init__(self, fabric, args, generator, config, modules, optimizers, dataset=PoseDataset):
        self._fabric, self._args, self._modules, self._optimizers = fabric, args, modules, optimizers
        self._team = Team(fabric)
        target, data = self._team.in_turn(lambda: _load(args, dataset, config["pose"]))
        training, held_out = data.split()
        share = min(args.batch_size, len(training)) // self._team.size
        if not share:
            raise UserError(f"{len(training)} frames are too few for {self._team.size} processes; start fewer")
        self._batch = share * self._team.size
        # of N processes the n-th takes every N-th image, so that all their shares together are the batch of one
        self._sampler = DistributedSampler(training, self._team.size, fabric.global_rank, seed=args.seed,
                                           drop_last=True)
        self._loader = DataLoader(training, share, sampler=self._sampler, drop_last=True, generator=torch.Generator(),
                                  pin_memory=fabric.device.type == "cuda")
        self._held_out, self._training = DataLoader(held_out, self._batch), training
        chosen = np.linspace(0, len(held_out) - 1, min(SAMPLES, len(held_out))).astype(int)
        drawn = [target.skeleton(held_out.indices[i]) for i in chosen]
        drawn = torch.stack([pose_input(skeleton, "image", args.image_size) for skeleton in drawn])
        self._fixed = [drawn, *map(torch.stack, zip(*(held_out[i] for i in chosen), strict=True))]
        self._ema = AveragedModel(modules["model"].module, multi_avg_fn=_average, use_buffers=True)
        self._about = {"schema": SCHEMA, "generator": generator, "config": config, "target": target.identity,
                       "seed": args.seed, "batch_size": args.batch_size}
        self._path = args.checkpoint
        self._last = self._path.with_name(f"{self._path.stem}-last.pth")
        self._previous = self._path.with_name(f"{self._path.stem}-previous.pth")
        self._fresh = not args.resume  # the first weights of a new training replace those of an older one
        self.step, self._looked, self._best, self._sums = 0, 0, math.inf, {}
        self._interrupted, state = False, None
        with self._team.together():
            if self._team.leads:  # the others need none of the files
                if self._path.exists():  # it will be moved aside, so it must be one of ours
                    load_checkpoint(self._path, None, "another --checkpoint")
                if args.resume:
                    state = load_checkpoint(self._last, generator, "the same command without --resume", target)
                if not args.dry_run:
                    writable_folder(self._path.parent)
        if args.resume:
            self._resume(self._team.share(state))
            self._fresh = math.isinf(self._best)  # stopped before its first look: what is there is an older training's
        if not self._team.leads:  # the first goes on in the stored sequence, the others in fresh ones of their own:
            chance = np.random.SeedSequence([args.seed, self.step, fabric.global_rank])  # so any number may resume
            torch.manual_seed(int(chance.generate_state(1)[0]))

    @property
    def epoch(self):
        return self.step // len(self._loader)

    def log(self, **losses):
        """Note the losses (0-dim tensors) of this step."""
        for name, loss in losses.items():
            self._sums[name] = self._sums.get(name, 0) + loss.detach()

    def __iter__(self):
        per_epoch, args = len(self._loader), self._args
        total, between = args.epochs * per_epoch, max(1, round(EVALUATE / per_epoch))
        if self.step >= total:
            raise UserError(f"{self._last} is already trained for {self.epoch} epochs; ask for more with --epochs")
        leads, team, stop, held, board = self._team.leads, self._team, False, contextlib.ExitStack(), None
        runs = self._path.parent / "runs" / self._path.stem / datetime.now().strftime("%Y%m%d-%H%M%S")
        with team.together():
            if leads and not args.dry_run:
                held.enter_context(alone(self._path, "training into"))
                with _curves(runs):
                    board = SummaryWriter(runs)
        before = {number: signal.signal(number, self._interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        start = saved = time.monotonic()
        first, aside = self.step, 0  # aside: seconds not spent on steps
        progress = tqdm(desc=self._path.stem, initial=first, total=total, unit="step", dynamic_ncols=True,
                        disable=not leads)
        try:
            while self.step < total and not stop:
                for pose, image in self._batches():
                    yield pose, image
                    if leads:
                        self._ema.update_parameters(self._modules["model"].module)
                    self.step += 1
                    progress.update()
                    now = time.monotonic()
                    spent = now - start
                    progress.total = round(min(total, first + (self.step - first) * args.minutes * 60 / spent))
                    if args.dry_run:
                        if leads:
                            print(f"dry run: one step of {self._path.stem} on {self._team} works")
                        return
                    # every process has its own clock and its own signals, but all must do the same steps
                    interrupted, late, due = team.any(self._interrupted, spent > args.minutes * 60, now - saved > SAVE)
                    stop = interrupted or late
                    if due or interrupted:  # before the look at the held-out frames: torchrun waits half a minute
                        with team.together():
                            if leads:
                                self._save_last()
                        saved = now
                    if stop:
                        break
                at_end = stop or self.step >= total
                if at_end or self.epoch % between == 0:
                    now, means = time.monotonic(), self._means()
                    with team.together():
                        if leads:
                            self._evaluate(means, board, progress)
                            self._save_last()
                        aside += time.monotonic() - now
                        if leads and at_end:
                            seconds = time.monotonic() - start
                            self._report(seconds, (self.step - first) * self._batch / (seconds - aside))
                    saved = time.monotonic()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            progress.close()
            with contextlib.suppress(OSError):  # as it may have said before
                if board:
                    board.close()
            held.close()
        if self._interrupted:
            raise KeyboardInterrupt

    def _interrupt(self, *_):
        if self._interrupted and not launched():  # asked twice: leave at once; but torchrun passes on what came already
            raise KeyboardInterrupt
        self._interrupted = True

    def _batches(self):
        """The batches of this epoch that are still to do, in the order that seed and epoch give."""
        self._sampler.set_epoch(self.epoch)
        self._training.dataset.set_epoch(self._args.seed, self.epoch)
        done = self.step % len(self._loader)
        for number, (pose, image) in enumerate(self._loader):
            if number >= done:
                yield self._fabric.to_device(pose), normalise(self._fabric.to_device(image))

    def _means(self):
        """The mean of each loss over the steps since the last look, of the batches of all processes."""
        steps = max(1, self.step - self._looked)
        means = self._team.mean({name: float(value) / steps for name, value in self._sums.items()})
        self._looked, self._sums = self.step, {}
        return means

    @torch.no_grad()
    def _evaluate(self, means, board, progress):
        """Judge the averaged weights on the held-out frames, keep them if they are the best, write curves and grid."""
        self._ema.eval()
        self._held = held_out_errors(self._ema.module, self._held_out, self._fabric.device)
        if self._held["l1"] < self._best:
            self._best = self._held["l1"]
            model = {name: value.cpu() for name, value in self._ema.module.state_dict().items()}
            save_checkpoint(self._about | self._where() | {"model": model, "held_out": self._held}, self._path,
                            self._previous if self._fresh else None)
            self._fresh = False
        progress.set_postfix(means | {"held-out psnr": round(self._held["psnr"], 2)})
        with _curves(board.log_dir):
            for name, value in (means | {f"held_out/{k}": v for k, v in self._held.items()}).items():
                board.add_scalar(name, value, self.step)
        with whole(self._path.with_name(f"{self._path.stem}-samples.png")) as part:
            part.write_bytes(cv2.imencode(".png", self._grid())[1])

    def _grid(self):
        """[skeleton | generated | real] of the fixed held-out poses, as an image."""
        drawn, poses, images = self._fixed
        made = self._ema.module(poses.to(self._fabric.device)).float().cpu()
        cells = torch.stack([drawn, made[:, :3], normalise(images[:, :3])], 1).flatten(0, 1)
        return to_image(make_grid(cells, nrow=6, padding=2))

    def _where(self):
        return {"epoch": self.epoch, "step": self.step}

    def _save_last(self):
        state = {"weights": {k: m.module.state_dict() for k, m in self._modules.items()},
                 "optimizers": {k: o.state_dict() for k, o in self._optimizers.items()},
                 "model": self._ema.module.state_dict(), "ema": self._ema.state_dict(), "best": self._best,
                 "rng": torch.get_rng_state()}
        save_checkpoint(self._about | self._where() | state, self._last)

    def _resume(self, state):
        same = ("config", "seed", "batch_size")
        if any(state.get(name) != self._about[name] for name in same):
            was = ", ".join(f"{name} {state.get(name)}" for name in same)
            raise UserError(f"{self._last} was trained with {was}; give the same flags")
        try:
            for name, module in self._modules.items():
                module.module.load_state_dict(state["weights"][name])
            for name, optimizer in self._optimizers.items():
                optimizer.load_state_dict(state["optimizers"][name])
            self._ema.load_state_dict(state["ema"])
            self.step = self._looked = int(state["step"])
            self._best = float(state["best"])
            torch.set_rng_state(state["rng"])
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError):
            raise UserError(f"{self._last} is damaged; train anew without --resume") from None

    def _report(self, seconds, rate):
        mean = self._training.dataset.images[:len(self._training), :3].mean(0, dtype=np.float64)
        base = -10 * math.log10(_mean_squared(torch.from_numpy(mean), self._held_out))
        print(f"{self.epoch} epochs, {self.step} steps, {seconds / 60:.1f} min on {self._team}, {rate:.4g} images/s; "
              f"held-out PSNR {self._held['psnr']:.2f} dB (the mean training frame: {base:.2f} dB)\n"
              f"  weights {self._path}\n  samples {self._path.with_name(self._path.stem + '-samples.png')}")


def _load(args, dataset, pose):
    """The target, found in its video where that was never done, and its dataset."""
    target = VideoSkeleton.load(args.target)
    return target, dataset(target, pose, args.image_size)


@contextlib.contextmanager
def _curves(folder):
    """TensorBoard writes into `folder` inside: UserError where the disk does not take it."""
    try:
        yield
    except OSError as error:
        raise UserError(f"can't write the curves in {folder}: {error.strerror}; make room") from None


def _average(averaged, current, count):
    """Moving average of weights that forgets the first, untrained ones faster (decay (1 + n) / (10 + n) at first)."""
    get_ema_multi_avg_fn(min(EMA, (1 + int(count)) / (10 + int(count))))(averaged, current, count)


@torch.no_grad()
def held_out_errors(network, loader, device):
    """{l1, psnr} of a network over a loader: mean absolute error in [0, 255] levels, and PSNR in dB of the mean
    squared error over all pixels of the images (not the masks), after rounding to levels."""
    absolute = squared = count = 0
    for pose, image in loader:
        difference = to_levels(network(pose.to(device))[:, :3]).double() - image[:, :3]
        absolute += difference.abs().sum().item()
        squared += (difference ** 2).sum().item()
        count += difference.numel()
    return {"l1": absolute / count, "psnr": 10 * math.log10(255 ** 2 / max(squared / count, 1e-12))}


def _mean_squared(mean, loader):
    """Mean squared difference, in units of 255, of the loader's images to `mean`."""
    total = sum(((image[:, :3].double() - mean) ** 2).mean((1, 2, 3)).sum().item() for _, image in loader)
    return total / len(loader.dataset) / 255 ** 2
