"""Where a training runs: device, precision, and how many processes, as torchrun or Lightning Fabric starts them.

    torchrun --nproc-per-node=2 GenVanillaNN.py                    # on two GPUs, or else two processes on the CPU
    fabric run --devices 2 --precision bf16-mixed GenVanillaNN.py  # the same (`fabric` needs the package click)

Every process ("rank") holds the networks, takes its share of each batch, and steps along the mean of everyone's
gradients (DistributedDataParallel). --batch-size is that of all together, its images are those that one process would
take, and batch normalisation sees all of them: so N processes go the way of one, up to rounding. The first process
alone writes, prints and looks at the held-out frames.
"""

import atexit
import contextlib
import inspect
import logging
import os
import shutil
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.nn.functional as F
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from CommandLine import UserError

PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed")  # Fabric's names; mixed: autocast, weights in float32
COMPILERS = ("c++", "g++", "clang++", "cl")  # one of which torch.compile needs
PATIENCE = timedelta(days=7)  # that the others have while the first process finds the poses of a long video


def launched():
    """Whether torchrun started this process; `fabric run` does it through torchrun."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def pick_device(name):
    """A torch.device for "auto", "cpu", "cuda" or "mps"; UserError where there is none."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, available in there.items() if available)
    if not there.get(name):
        raise UserError(f"there is no {name} device here; use --device cpu")
    return torch.device(name)


def pick_precision(device):
    """Fabric's precision for a device: bfloat16 autocast where it is fast, else float32."""
    if device.type == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    if device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported():  # torch has no public question for it
        return "bf16-mixed"
    return "32-true"


def launch(args):
    """Fabric on args.device, for this process or those of a launcher, with every random number seeded.

    All have the same seed, for the same first weights; from Loop on, each has random numbers of its own.
    """
    device = pick_device(_launcher_says("accelerator", args.device))
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # else it tells its precision on every start
    fabric = _fabric(device, pick_precision(device) if args.precision == "auto" else args.precision)
    if args.batch_size % fabric.world_size:
        raise UserError(f"--batch-size {args.batch_size} is no multiple of the {fabric.world_size} processes; "
                        "give one that is")
    fabric.launch()
    if fabric.world_size > 1:
        atexit.register(dist.destroy_process_group)  # else its threads may abort a process that ends
    fabric.seed_everything(args.seed, verbose=False)
    return fabric


def setup(fabric, args, network, optimizer):
    """The two as Fabric's `setup` makes them, the network fit for several processes, and compiled if args say so."""
    if fabric.world_size > 1:
        network = _synchronise(network, fabric.device)
    if args.compile:
        if not any(map(shutil.which, COMPILERS)):
            raise UserError("--compile needs a C++ compiler; install one (g++), or leave --compile out")
        network = torch.compile(network)
    return fabric.setup(network, optimizer)


def _launcher_says(name, otherwise):
    """What `fabric run` was told of "accelerator", "devices", "precision" or "strategy", else `otherwise`.

    It is taken out of the environment: Fabric would refuse it there beside what it is given in the code.
    """
    os.environ.pop("LT_CLI_USED", None)  # which tells Fabric to start, for us too early, and to refuse `launch`
    return os.environ.pop(f"LT_{name.upper()}", None) or otherwise


def _fabric(device, precision):
    """A Fabric on `device` (a torch.device), still to be launched, for the processes that there are."""
    everywhere, here = (int(os.environ[name]) if launched() else 1 for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    strategy, devices = _launcher_says("strategy", "ddp"), _launcher_says("devices", "auto")
    if strategy not in ("auto", "ddp"):
        raise UserError(f"these trainings don't run with the strategy {strategy}; use ddp, or leave --strategy out")
    if everywhere > 1 and device.type == "mps":
        raise UserError("only one process can train on this device; use --device cpu or start one")
    if device.type == "cuda" and here > torch.cuda.device_count():
        raise UserError(f"{here} processes for {torch.cuda.device_count()} GPUs; start one a GPU, or use --device cpu")
    if here > 1:  # torchrun says 1 thread each, Fabric all cores to each
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(max(1, cores // here))
    # buffers are the same everywhere already: no need to send them along with every pass
    sending = {"forward_sync_buffers", "broadcast_buffers"} & set(inspect.signature(DistributedDataParallel).parameters)
    sending = {max(sending): False}  # the former is the latter's new name in later versions of torch
    strategy = DDPStrategy(gradient_as_bucket_view=True, **sending) if everywhere > 1 else "auto"
    return Fabric(accelerator=device.type, devices=here if devices == "auto" else devices, num_nodes=everywhere // here,
                  strategy=strategy, precision=_launcher_says("precision", precision))


class Team:
    """The processes of one training, kept in step; a process alone agrees with itself.

    leads: this is the process that writes and prints. size: how many there are. Each method is called by all.
    """

    def __init__(self, fabric):
        self.leads, self.size, self._device = fabric.is_global_zero, fabric.world_size, fabric.device
        # beside GPUs too a group over gloo: their kernels need not end before the processes can talk
        self._group = dist.new_group(backend="gloo", timeout=PATIENCE) if self.size > 1 else None

    def __str__(self):
        return f"{self.size} x {self._device.type}" if self.size > 1 else str(self._device)

    def gather(self, thing):
        """[the `thing` of each process]."""
        things = [thing]
        if self._group:
            things *= self.size
            dist.all_gather_object(things, thing, self._group)
        return things

    def any(self, *flags):
        """For each of the flags, whether it is set on any process."""
        if self._group:
            flags = torch.tensor(flags, dtype=torch.uint8)
            dist.all_reduce(flags, dist.ReduceOp.MAX, self._group)
        return [bool(flag) for flag in flags]

    def mean(self, values):
        """The mean over the processes of each of {name: number}."""
        everyone = self.gather(values)
        return {name: sum(theirs[name] for theirs in everyone) / self.size for name in values}

    def share(self, thing):
        """What `thing` is on the first process."""
        things = [thing]
        if self._group:
            dist.broadcast_object_list(things, 0, self._group)
        return things[0]

    @contextlib.contextmanager
    def together(self):
        """What is done inside succeeds for all or, with the UserError of one, for none; so nobody is waited for."""
        error = None
        try:
            yield
        except UserError as raised:
            error = str(raised)
        for told in self.gather(error):
            if told:
                raise UserError(told)

    def in_turn(self, call):
        """call() by the first process, then by the first of each other machine, then by the rest, who all find in the
        cache what the former left there; returns what it gives."""
        mine = 0 if self.leads else 1 if os.environ["LOCAL_RANK"] == "0" else 2
        for turn in range(3 if self._group else 1):
            with self.together():
                if turn == mine:
                    result = call()
        return result


def _synchronise(network, device):
    """Replace the network's BatchNorm2d by those that see the batch of all processes; same names, same values."""
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                other = SyncBatchNorm(child.num_features)
                vars(other).update(vars(child))
                setattr(module, name, other)
    return network


class SyncBatchNorm(nn.BatchNorm2d):
    """BatchNorm2d over equal shares of a batch, one a process; on a CPU, where torch's own SyncBatchNorm is not."""

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        mean, var, count = self._statistics(x.detach())
        return _Normalise.apply(x, self.weight, self.bias, mean, var, self.eps, count)

    @torch.no_grad()
    def _statistics(self, x):
        """Mean and variance (C,) of all shares, and of how many values; they go into the running ones."""
        mean, var = torch.batch_norm_update_stats(x, self.running_mean, self.running_var, 0.0)  # updates nothing yet
        mean = mean.double()  # the difference of squares below would cancel in float32
        moments = torch.stack([mean, var.double() + mean ** 2])
        dist.all_reduce(moments)
        mean, square = moments / dist.get_world_size()
        mean, var = mean.float(), (square - mean ** 2).float()
        count = x.numel() // x.shape[1] * dist.get_world_size()
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(var * count / (count - 1), self.momentum)
        self.num_batches_tracked += 1
        return mean, var, count


class _Normalise(torch.autograd.Function):
    """Batch normalisation with the mean and variance of all shares, through which gradients flow between processes
    (Ioffe and Szegedy, ICML 2015; the last formula of section 3), by the CPU's fused kernels."""

    @staticmethod
    def forward(ctx, x, weight, bias, mean, var, eps, count):
        ctx.save_for_backward(x, weight, mean, var)
        ctx.eps, ctx.count = eps, count
        return F.batch_norm(x, mean, var, weight, bias, eps=eps)

    @staticmethod
    def backward(ctx, grad):
        x, weight, mean, var = ctx.saved_tensors

        def fixed(grad, *wanted):  # gradients of x, weight and bias, were mean and variance constants
            return torch.ops.aten.native_batch_norm_backward(grad, x, weight, mean, var, None, None, False, ctx.eps,
                                                             wanted)

        _, of_weight, of_bias = fixed(grad, False, True, True)
        sums = torch.stack([of_weight, of_bias])
        dist.all_reduce(sums)
        through = F.batch_norm(x, mean, var, *(sums / ctx.count), eps=ctx.eps)  # what x does to mean and variance
        of_x, _, _ = fixed(grad - through, True, False, False)
        return of_x, of_weight, of_bias, None, None, None, None
