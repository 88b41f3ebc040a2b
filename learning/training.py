"""The training of a generator: steps, saving, resuming, curves and samples.

X.pth has the best weights on held-out frames; X-last.pth has, besides, all that --resume needs: {weights, optimizers,
ema, best, rng}. A new training keeps the weights that were there as X-previous.pth. See checkpoint.py.
"""

import contextlib
import math
import os
import signal
import time
from dataclasses import asdict
from datetime import datetime
from functools import partial

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, DistributedSampler
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from common.ahead import ahead
from common.command_line import UserError, writable_folder
from common.files import LONGEST_NAME, file_lock, write_png
from learning.checkpoint import LEAST_GAIN, SCHEMA, gain, helped, load_checkpoint, save_checkpoint
from learning.dataset import HeldOut, PoseDataset, normalise
from learning.processes import ProcessGroup, launch, setup, under_torchrun
from VideoSkeleton import VideoSkeleton

EMA_DECAY = 0.995  # of the exponential moving average of the weights: it remembers about the last 200 steps
EVALUATION_STEPS = 100  # about this many steps lie between two evaluations, which come at the end of an epoch
BATCHES_AHEAD = 2  # batches, at most, that are made before they are needed
PATIENCE = 8  # evaluations in a row without PROGRESS that end the training of a network that draws well before it
PROGRESS = 0.005  # share by which held-out frames must look more like the real ones than at any time before
SAVE_SECONDS = 60  # at most this many seconds lie between two saves of the last weights


class Training:
    """The training of a generator's networks. With args.resume it goes on where X-last.pth stopped, with the same batch
    and the same random numbers. Raises UserError for files that can't be read or written, and for flags that differ
    from those before.

    args: the flags of flags.training_parser; generator: the name for the checkpoint; config: the NetworkConfig of the
    generator's network; networks: {"model": (the function that builds this network from the config, its learning rate),
    any others}; betas: of Adam; dataset: PoseDataset or a subclass with other inputs; draws_untrained: whether the
    network draws well before the training. Then its best weights are those whose pictures of held-out frames look best
    (perception.py), and they are compared with the untrained ones; otherwise those with the least L1 error.
    """

    def __init__(self, args, generator, config, networks, betas=(0.9, 0.999), dataset=PoseDataset,
                 draws_untrained=False):
        self._args, self._fabric, self._networks, self._optimizers = args, launch(args), {}, {}
        for name, (build, learning_rate) in networks.items():
            network = build(config)
            optimizer = torch.optim.Adam(network.parameters(), learning_rate, betas)
            self._networks[name], self._optimizers[name] = setup(self._fabric, args, network, optimizer)
        self._group = group = ProcessGroup(self._fabric)
        target = group.first_then_others(lambda: VideoSkeleton.load(args.target))
        start = time.monotonic()
        data = group.first_then_others(lambda: dataset(target, config.pose, args.image_size))
        self._prepared = 0 if args.resume else time.monotonic() - start  # seconds, which belong to args.minutes
        self._frames, held_out = data.split()
        share = min(args.batch_size, len(self._frames)) // group.size
        if not share:
            raise UserError(f"{len(self._frames)} frames are too few for {group.size} processes; start fewer")
        self._batch_size, rank, device = share * group.size, self._fabric.global_rank, self._fabric.device
        # Process number n of N takes every N-th image from the n-th on: together they take the batch of one process.
        self._sampler = DistributedSampler(self._frames, group.size, rank, seed=args.seed, drop_last=True)
        self._loader = DataLoader(self._frames, share, sampler=self._sampler, drop_last=True,
                                  generator=torch.Generator(), pin_memory=device.type == "cuda")
        self._held_out = HeldOut(target, held_out, self._batch_size, args.image_size, device)
        self._averaged = AveragedModel(self._networks["model"].module, multi_avg_fn=_average, use_buffers=True)
        self._settings = {"schema": SCHEMA, "generator": generator, "config": asdict(config),
                          "target": target.identity, "frames": len(self._frames), "seed": args.seed,
                          "batch_size": args.batch_size}
        self._path = args.checkpoint
        self._last_path, self._previous_path, self._samples_path = (
            self._path.with_name(self._path.stem + end) for end in ("-last.pth", "-previous.pth", "-samples.png"))
        self.step, self._evaluated_step, self._best, self._loss_sums, self._interrupted = 0, 0, math.inf, {}, False
        self._draws_untrained, self._untrained = draws_untrained, None  # the unlikeness before the training
        self._mark, self._in_vain = math.inf, 0  # the score at the last PROGRESS; evaluations since then
        state = group.broadcast(group.on_first(partial(self._check_files, target)))
        if state:
            self._restore(state)
        if not group.is_first:  # the first process goes on with the stored random numbers, each other one with new ones
            seeds = np.random.SeedSequence([args.seed, self.step, rank])
            torch.manual_seed(int(seeds.generate_state(1)[0]))

    def _check_files(self, target):
        """The state to resume from, or None. Raises UserError where this training must not or can't write its files."""
        try:
            str(self._path.absolute()).encode()
        except UnicodeEncodeError:
            raise UserError(f"the name {str(self._path)!r} is no text, so TensorBoard can't write beside it; choose "
                            "another --checkpoint") from None
        if len(os.fsencode(self._samples_path.name)) > LONGEST_NAME - len("..part"):
            raise UserError(f"the name {self._path.name!r} is too long; choose a shorter one for --checkpoint")
        if self._path.exists():  # it will be renamed, so it must not be anything else than a checkpoint
            load_checkpoint(self._path, None, "another --checkpoint")
        given = self._last_path, self._settings["generator"], "the same command without --resume", target
        state = load_checkpoint(*given) if self._args.resume else None
        if not self._args.dry_run:
            writable_folder(self._path.parent)
        return state

    def _restore(self, state):
        """Go on from what `_save_last` wrote."""
        same = ("config", "seed", "batch_size")
        if any(state.get(name) != self._settings[name] for name in same):
            before = ", ".join(f"{name} {state.get(name)}" for name in same)
            raise UserError(f"{self._last_path} was trained with {before}; give the same flags")
        try:
            for name, network in self._networks.items():
                network.module.load_state_dict(state["weights"][name])
                self._optimizers[name].load_state_dict(state["optimizers"][name])
            self._averaged.load_state_dict(state["ema"])
            self.step = self._evaluated_step = int(state["step"])
            self._best, self._untrained = float(state["best"]), state.get("untrained")
            torch.set_rng_state(state["rng"])
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError):
            raise UserError(f"{self._last_path} is damaged; train anew without --resume") from None

    @property
    def epoch(self):
        """The number of epochs that are complete."""
        return self.step // len(self._loader)

    def run(self, step):
        """Train until args.epochs or args.minutes are over, and save. After Ctrl-C, save and raise KeyboardInterrupt.
        step(fabric, *networks, *optimizers, pose, image) makes one step and returns {name: loss (0-dim tensor)} for the
        curves. pose: a batch of the networks' inputs; image: images with masks (B, 4, S, S); both in [-1, 1]."""
        args, group, first_step = self._args, self._group, self.step
        last_step, allowed = args.epochs * len(self._loader), max(0, args.minutes * 60 - self._prepared)  # seconds
        steps_between = max(1, round(EVALUATION_STEPS / len(self._loader))) * len(self._loader)
        if first_step >= last_step:
            raise UserError(f"{self._last_path} is already trained for {self.epoch} epochs; ask for more with --epochs")
        with contextlib.ExitStack() as stack:
            if not args.dry_run:
                group.on_first(partial(self._open_files, stack))
            for number in (signal.SIGINT, signal.SIGTERM):
                stack.callback(signal.signal, number, signal.signal(number, self._end_after_step))
            progress = stack.enter_context(tqdm(desc=self._path.stem, initial=first_step, total=last_step, unit="step",
                                                dynamic_ncols=True, disable=not group.is_first))
            if self._draws_untrained and not first_step and not args.dry_run:
                group.on_first(self._judge_untrained)
            start = saved = time.monotonic()
            evaluation_seconds, stop = 0.0, False
            batches = self._batches(first_step)
            if self._frames.dataset.takes_long:  # a thread makes the next batches during a step
                batches = ahead(batches, BATCHES_AHEAD)
            stack.callback(batches.close)
            while not stop:
                losses = step(self._fabric, *self._networks.values(), *self._optimizers.values(), *next(batches))
                for name, loss in losses.items():
                    self._loss_sums[name] = self._loss_sums.get(name, 0) + loss.detach()
                if group.is_first:
                    self._averaged.update_parameters(self._networks["model"].module)
                self.step += 1
                progress.update()
                now = time.monotonic()
                progress.total = round(min(last_step, first_step + (self.step - first_step) * allowed / (now - start)))
                if args.dry_run:
                    group.on_first(lambda: print(f"dry run: one step of {self._path.stem} on {group} works"))
                    return
                # Each process has its own clock and receives its own signals, but all must make the same steps.
                interrupted, late, due = group.any(self._interrupted, now - start > allowed, now - saved > SAVE_SECONDS)
                stop = interrupted or late or self.step >= last_step
                if due or interrupted:  # not only after the evaluation: torchrun kills 30 s after Ctrl-C
                    group.on_first(self._save_last)
                    saved = now
                if stop or self.step % steps_between == 0:
                    now = time.monotonic()
                    errors = group.on_first(partial(self._evaluate, self._mean_losses(), progress))
                    saved = time.monotonic()
                    evaluation_seconds += saved - now
                    stop |= group.any(self._in_vain >= PATIENCE)[0]
            seconds, images = time.monotonic() - start, (self.step - first_step) * self._batch_size
            rate = images / (seconds - evaluation_seconds)
            group.on_first(partial(self._report, errors, seconds + self._prepared, rate))
        if self._interrupted:
            raise KeyboardInterrupt

    def _open_files(self, stack):
        """Take the lock of the checkpoint and open the curves until `stack` is closed."""
        stack.enter_context(file_lock(self._path, "training into"))
        folder = self._path.parent / "runs" / self._path.stem / datetime.now().strftime("%Y%m%d-%H%M%S")
        with _curve_errors(folder):
            self._curves = SummaryWriter(folder)

        @stack.callback
        def close():
            with contextlib.suppress(OSError):  # a full disk has been reported already
                self._curves.close()

    def _end_after_step(self, *_):
        """What SIGTERM and Ctrl-C do: the training ends after the current step. A second signal ends it at once."""
        if self._interrupted and not under_torchrun():  # torchrun sends its processes the signal once more
            raise KeyboardInterrupt
        self._interrupted = True

    def _batches(self, step):
        """Yield the batches from this step on, epoch after epoch, in the order that seed and epoch determine."""
        while True:
            epoch, done = divmod(step, len(self._loader))
            self._sampler.set_epoch(epoch)
            self._frames.dataset.set_epoch(self._args.seed, epoch)
            for number, (pose, image) in enumerate(self._loader):
                if number >= done:
                    step += 1
                    yield self._fabric.to_device(pose), normalise(self._fabric.to_device(image))

    def _mean_losses(self):
        """{name: mean loss} over the steps since the last evaluation and over all processes."""
        steps = self.step - self._evaluated_step
        means = self._group.gather({name: float(value) / steps for name, value in self._loss_sums.items()})
        self._evaluated_step, self._loss_sums = self.step, {}
        return {name: sum(process[name] for process in means) / len(means) for name in means[0]}

    def _judge_untrained(self):
        """Note how the held-out frames look before the first step."""
        self._untrained = self._held_out.errors(self._averaged.module.eval()).unlikeness

    def _evaluate(self, losses, progress):
        """Evaluate the averaged weights on the held-out frames, save them if they are the best so far, and write the
        last weights, the curves and the samples. Returns the HeldOutErrors."""
        network = self._averaged.module.eval()
        errors = self._held_out.errors(network)
        score = errors.unlikeness if self._draws_untrained else errors.l1
        if score < self._mark * (1 - PROGRESS):
            self._mark, self._in_vain = score, 0
        elif self._draws_untrained:
            self._in_vain += 1
        if score < self._best:
            model = {name: value.cpu() for name, value in network.state_dict().items()}
            # Before the first evaluation the weights at X.pth are of an earlier training, even if this one was resumed.
            previous = self._previous_path if math.isinf(self._best) else None
            self._best, held_out = score, asdict(errors) | {"untrained": self._untrained}
            self._save(self._path, {"model": model, "held_out": held_out}, previous)
        progress.set_postfix(losses | {"held-out psnr": round(errors.psnr, 2)})
        with _curve_errors(self._curves.log_dir):
            for name, value in (losses | {f"held_out/{k}": v for k, v in asdict(errors).items()}).items():
                self._curves.add_scalar(name, value, self.step)
        write_png(self._samples_path, self._held_out.samples(network))
        self._save_last()
        return errors

    def _save_last(self):
        """Write X-last.pth."""
        self._save(self._last_path, {
            "weights": {name: network.module.state_dict() for name, network in self._networks.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self._optimizers.items()},
            "model": self._averaged.module.state_dict(), "ema": self._averaged.state_dict(), "best": self._best,
            "untrained": self._untrained, "rng": torch.get_rng_state()})

    def _save(self, path, state, previous=None):
        """Write a checkpoint with `state` and what all checkpoints of this training say. See save_checkpoint."""
        save_checkpoint(self._settings | {"epoch": self.epoch, "step": self.step} | state, path, previous)

    def _report(self, errors, seconds, images_per_second):
        """Print how long it took and how good the weights are: they should be better than always the mean image."""
        mean = self._frames.dataset.images[:len(self._frames), :3].mean(0, dtype=np.float64)
        mean = torch.from_numpy(mean) / 127.5 - 1
        mean_errors = self._held_out.errors(lambda poses: mean.expand(len(poses), -1, -1, -1))
        print(f"{self.epoch} epochs, {self.step} steps, {seconds / 60:.1f} min on {self._group}, "
              f"{images_per_second:.4g} images/s; held-out PSNR {errors.psnr:.2f} dB (the mean training frame: "
              f"{mean_errors.psnr:.2f} dB)\n  weights {self._path}\n  samples {self._samples_path}")
        if self._in_vain >= PATIENCE:
            print(f"  it ended before its time, because the last {PATIENCE} evaluations have brought hardly anything")
        if self._untrained is not None:
            held_out = {"unlikeness": self._best, "untrained": self._untrained}
            verdict = "it helped" if helped(held_out) else f"below {LEAST_GAIN:.0%}, it did not help"
            print(f"  held-out frames look {gain(held_out):.1%} more like the real ones than without the network; "
                  f"{verdict}")


@contextlib.contextmanager
def _curve_errors(folder):
    """Inside, an error of TensorBoard while it writes into `folder` is raised as UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"can't write the curves in {folder}: {error.strerror}; make room") from None


def _average(averaged, current, count):
    """The `multi_avg_fn` of AveragedModel: an exponential moving average that forgets the first, untrained weights
    faster (its decay begins with (1 + n) / (10 + n) after n steps)."""
    get_ema_multi_avg_fn(min(EMA_DECAY, (1 + int(count)) / (10 + int(count))))(averaged, current, count)
