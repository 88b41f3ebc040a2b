"""Training in one process or in several, as torchrun or Lightning Fabric starts them.

    torchrun --nproc-per-node=2 GenVanillaNN.py                    # on two GPUs, or else two processes on the CPU
    fabric run --devices 2 --precision bf16-mixed GenVanillaNN.py  # the same (`fabric` needs the package click)

Each process holds the networks, takes its share of each batch, and makes its step with the mean of the gradients of all
processes (DistributedDataParallel). --batch-size counts the images of all processes together. They are the same images
that a single process would take, and batch normalisation sees all of them: so the losses of N processes are those of
one, up to rounding. Only the first process writes files, prints, and evaluates the held-out frames.
"""

import atexit
import contextlib
import inspect
import logging
import os
import shutil
import sys
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.nn.functional as F
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from common.command_line import UserError
from learning.flags import pick_device, pick_precision

COMPILERS = ("c++", "g++", "clang++", "cl")  # torch.compile needs one of these programs
GROUP_TIMEOUT = timedelta(days=7)  # the other processes wait while the first one finds the poses of a long video


def under_torchrun():
    """Whether torchrun has started this process. `fabric run` starts processes through torchrun, too."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def launch(args):
    """A Fabric for the flags of flags.training_parser, connected to the other processes if a launcher started several.
    It has seeded every random number, equally in all processes, so that the first weights are the same. Raises
    UserError where this machine can't do it."""
    device = pick_device(_launcher_option("accelerator", args.device))
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # else Fabric logs its precision at every start
    fabric = _make_fabric(device, pick_precision(device) if args.precision == "auto" else args.precision)
    if args.batch_size % fabric.world_size:
        raise UserError(f"--batch-size {args.batch_size} is no multiple of the {fabric.world_size} processes; "
                        "give one that is")
    fabric.launch()
    if fabric.world_size > 1:
        atexit.register(dist.destroy_process_group)  # else its threads may abort the process while it ends
    fabric.seed_everything(args.seed, verbose=False)
    return fabric


def setup(fabric, args, network, optimizer):
    """(network, optimizer) of Fabric's `setup`, with batch normalisation over all processes, and compiled if asked."""
    if fabric.world_size > 1:
        network = synchronise_batch_norm(network, fabric.device)
    if args.compile:
        if not any(map(shutil.which, COMPILERS)):
            raise UserError("--compile needs a C++ compiler; install one (g++), or leave --compile out")
        network = torch.compile(network)
    return fabric.setup(network, optimizer)


def _launcher_option(name, default):
    """The value that `fabric run` was given for "accelerator", "devices", "precision" or "strategy", else `default`.
    The environment variable with it is removed, since Fabric refuses to have a value both there and in the code."""
    os.environ.pop("LT_CLI_USED", None)  # with this variable Fabric would start at once and refuse `launch`
    return os.environ.pop(f"LT_{name.upper()}", None) or default


def _make_fabric(device, precision):
    """A Fabric on `device` (a torch.device) for the processes that the launcher started; it is not launched yet."""
    world_size, local_size = (int(os.environ[name]) if under_torchrun() else 1
                              for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    strategy, devices = _launcher_option("strategy", "ddp"), _launcher_option("devices", "auto")
    if strategy not in ("auto", "ddp"):
        raise UserError(f"these trainings don't run with the strategy {strategy}; use ddp, or leave --strategy out")
    if world_size > 1 and device.type == "mps":
        raise UserError("only one process can train on this device; use --device cpu or start one")
    if device.type == "cuda" and local_size > torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise UserError(f"{local_size} processes for {count} GPUs; start one a GPU, or use --device cpu")
    if local_size > 1:  # torchrun gives each process one thread, and Fabric gives each process all cores
        cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
        torch.set_num_threads(max(1, cores // local_size))
    # The buffers of the networks are equal in all processes already: they need not be sent with every pass.
    known = inspect.signature(DistributedDataParallel).parameters
    no_sending = {"forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": False}
    strategy = DDPStrategy(gradient_as_bucket_view=True, **no_sending) if world_size > 1 else "auto"
    return Fabric(accelerator=device.type, devices=local_size if devices == "auto" else devices,
                  num_nodes=world_size // local_size, strategy=strategy,
                  precision=_launcher_option("precision", precision))


class ProcessGroup:
    """The processes of one training. Every method must be called by all of them; a process may also be alone.
    is_first: whether this process is the one that writes and prints; size: the number of processes."""

    def __init__(self, fabric):
        self.is_first, self.size, self._device = fabric.is_global_zero, fabric.world_size, fabric.device
        # With GPUs, too, this group talks over gloo: through NCCL it would have to wait for the GPU's work to end.
        self._group = dist.new_group(backend="gloo", timeout=GROUP_TIMEOUT) if self.size > 1 else None

    def __str__(self):
        return f"{self.size} x {self._device.type}" if self.size > 1 else str(self._device)

    def gather(self, value):
        """The values of all processes, as a list in the order of the processes."""
        values = [value] * self.size
        if self._group:
            dist.all_gather_object(values, value, self._group)
        return values

    def any(self, *flags):
        """For each of the flags (bool), whether it is set in any process: a list of bool."""
        if self._group:
            flags = torch.tensor(flags, dtype=torch.uint8)
            dist.all_reduce(flags, dist.ReduceOp.MAX, self._group)
        return [bool(flag) for flag in flags]

    def broadcast(self, value):
        """The value that the first process has."""
        values = [value]
        if self._group:
            dist.broadcast_object_list(values, 0, self._group)
        return values[0]

    @contextlib.contextmanager
    def shared_errors(self):
        """Raise a UserError of one process inside the block in all of them, since the others would wait for it."""
        error = None
        try:
            yield
        except UserError as raised:
            error = str(raised)
        for message in self.gather(error):
            if message:
                raise UserError(message)

    def on_first(self, call):
        """Run call() in the first process only and return its result there, None in the others."""
        with self.shared_errors():
            return call() if self.is_first else None

    def first_then_others(self, call):
        """The result of call(), which fills a cache: the first process runs it, then the first process of each other
        machine, then all others, which find in the cache what the former ones have stored."""
        mine = 0 if self.is_first else 1 if os.environ["LOCAL_RANK"] == "0" else 2
        for turn in range(3 if self._group else 1):
            with self.shared_errors():
                if turn == mine:
                    result = call()
        return result


def synchronise_batch_norm(network, device):
    """Let each BatchNorm2d in `network` normalise with the mean and variance of all processes. Returns the network."""
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = SyncBatchNorm  # it has the same attributes and differs in `forward` only
    return network


class SyncBatchNorm(nn.BatchNorm2d):
    """BatchNorm2d over a batch (B, C, H, W) of which each process has an equal share. Each process must call it."""

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        with torch.no_grad():
            # With a momentum of 0.0 this computes the statistics of this share (C,) and updates nothing yet.
            mean, var = torch.batch_norm_update_stats(x.detach(), self.running_mean, self.running_var, 0.0)
            mean = mean.double()  # in float32 the difference of squares below would lose its digits
            moments = torch.stack([mean, var.double() + mean ** 2])
            dist.all_reduce(moments)
            mean, square = moments / dist.get_world_size()
            mean, var = mean.float(), (square - mean ** 2).float()
            count = x.numel() // x.shape[1] * dist.get_world_size()  # values in each channel of all shares
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * count / (count - 1), self.momentum)
            self.num_batches_tracked += 1
        return _Normalise.apply(x, self.weight, self.bias, mean, var, self.eps, count)


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

        def constant_statistics(grad, *wanted):
            """The gradients of x, weight and bias (those that are wanted) if mean and variance were constants."""
            return torch.ops.aten.native_batch_norm_backward(grad, x, weight, mean, var, None, None, False, ctx.eps,
                                                             wanted)

        _, weight_grad, bias_grad = constant_statistics(grad, False, True, True)
        sums = torch.stack([weight_grad, bias_grad])
        dist.all_reduce(sums)
        through_statistics = F.batch_norm(x, mean, var, *(sums / ctx.count), eps=ctx.eps)
        x_grad, _, _ = constant_statistics(grad - through_statistics, True, False, False)
        return x_grad, weight_grad, bias_grad, None, None, None, None
