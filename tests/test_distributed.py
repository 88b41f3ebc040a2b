"""Several processes train as one does: the same curve, the same files, one voice, and all of them end.

The processes are real ones, on the CPU and this machine alone: torchrun starts two that train one script after another,
and what they leave is compared with what one process leaves.
"""

import contextlib
import importlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_training import SMALL, last, small_and_on_one_thread  # noqa: F401 - a fixture for this file, too

import GenGAN
import GenVanillaNN
import GenWarp
from common.command_line import UserError
from common.paths import ROOT
from learning import flags, processes
from learning import training as loop_module
from learning.checkpoint import NetworkConfig

SCRIPTS = ("GenVanillaNN", "GenGAN", "GenWarp")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
FABRIC = "from argparse import Namespace; from lightning_fabric.cli import main; import sys; " \
         "main(Namespace(accelerator='cpu', strategy=None, devices='2', num_nodes=1, node_rank=0, " \
         "main_address='127.0.0.1', main_port=int(sys.argv[1]), precision='32-true', script=sys.argv[2]), sys.argv[3:])"
WORKER = """
import importlib, json, os, sys
from pathlib import Path

sys.path.insert(0, {root!r})
import torch
from common import command_line, paths
from learning import processes, training
from learning.processes import synchronise_batch_norm

Path({pids!r}, str(os.getpid())).touch()
paths.CACHE, paths.LOCKS = Path({cache!r}), Path({locks!r})
training.EVALUATION_STEPS = 1  # a point of the curve for each epoch
for name, constant, value in {small!r}:
    setattr(importlib.import_module(name), constant, value)


def checks():
    "What only processes that are connected can show; the first one writes it down."
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    group, seen = processes.ProcessGroup(fabric[-1]), {{}}
    seen["seeds"] = group.gather(torch.initial_seed())
    seen["threads"] = torch.get_num_threads()
    seen["any"] = group.any(False, rank == 1)
    try:
        with group.shared_errors():
            if rank == 1:
                raise command_line.UserError("the second has no disk")
    except command_line.UserError as error:
        seen["errors"] = group.gather(str(error))
    for half in (False, True):
        torch.manual_seed(1)
        plain = torch.nn.BatchNorm2d(5)
        torch.nn.init.normal_(plain.weight)
        shared = synchronise_batch_norm(torch.nn.Sequential(plain), torch.device("cpu"))[0]
        plain = torch.nn.BatchNorm2d(5)
        plain.load_state_dict(shared.state_dict())
        x = 30 + torch.randn(6, 5, 4, 4)
        x, way = (x.bfloat16() if half else x), torch.randn(6, 5, 4, 4)
        whole, mine = x.clone().requires_grad_(), x[rank::size].clone().requires_grad_()
        made, truth = shared(mine), plain(whole)
        (truth.float() ** 2 * way).mean().backward()
        (made.float() ** 2 * way[rank::size]).mean().backward()
        pairs = [(made, truth[rank::size]), (mine.grad / size, whole.grad[rank::size])]
        for a, b in zip(shared.parameters(), plain.parameters()):
            torch.distributed.all_reduce(a.grad)
            pairs.append((a.grad / size, b.grad))
        pairs += zip(shared.buffers(), plain.buffers())
        seen["half" if half else "float"] = max(((a - b).float().norm() / b.float().norm()).item() for a, b in pairs)
    if rank == 0:
        Path(sys.argv[1]).write_text(json.dumps(seen))


fabric, launch = [], training.launch
training.launch = lambda args: fabric.append(launch(args)) or fabric[-1]
for name, *words in json.loads(sys.argv[1]):
    sys.argv = [name, *words]
    command_line.run(checks if name == "checks" else importlib.import_module(name).main)
"""


@pytest.fixture(scope="module")
def worker(target, tmp_path_factory):
    folder = tmp_path_factory.mktemp("worker")
    (folder / "pids").mkdir()
    path = folder / "worker.py"
    path.write_text(WORKER.format(root=str(ROOT), cache=str(target.folder.parent), locks=str(folder / "locks"),
                                  pids=str(folder / "pids"), small=SMALL))
    return path


def start(worker, jobs, launcher=TORCHRUN):
    """The worker with its jobs [(script or "checks", flags...)], under a launcher, in a process that is returned."""
    words = [sys.executable, *launcher, worker, json.dumps([list(map(str, job)) for job in jobs])]
    return subprocess.Popen(words, cwd=worker.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env=os.environ | {"OMP_NUM_THREADS": "1"})


def stop_when_there(running, path, number):
    """Send a signal to a launcher as soon as `path` exists. Returns what the launcher and its processes printed."""
    deadline = time.monotonic() + 120
    while not path.exists() and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(number)
    sent = time.monotonic()
    out, error = running.communicate(timeout=120)
    assert running.returncode != 0 and time.monotonic() - sent < 25, error  # torchrun kills after 30 s
    return out, error


def alive(worker):
    """Processes of the worker that still run."""
    left = []
    for path in (worker.parent / "pids").iterdir():
        try:
            os.kill(int(path.name), 0)
            left.append(int(path.name))
        except ProcessLookupError:
            pass
    return left


def job(script, clip, checkpoint, epochs, *more):
    return (script, "--target", clip, "--checkpoint", checkpoint, "--epochs", epochs, "--image-size", 64,
            "--batch-size", 8, "--seed", 3, "--device", "cpu", "--precision", "32-true", "--minutes", 5, *more)


def copied(folder, to):
    """The checkpoint in a copy of a training's folder, for a test that goes on in it."""
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("runs"))
    return to / "weights.pth"


@pytest.fixture(scope="module")
def trained(worker, clip, tmp_path_factory):
    """The folder of what one process ("one/GenGAN" ...) and two ("two/GenGAN" ...) left, and what they printed.

    A fourth training of the two, "stopped", has no end: it is stopped by a Ctrl-C to torchrun.
    """
    if sys.platform == "win32":
        pytest.skip("signals of POSIX")
    folder, said = tmp_path_factory.mktemp("trained"), {}

    def jobs(number):
        return [job(script, clip, folder / number / script / "weights.pth", 2) for script in SCRIPTS]

    def go_on(start, way):
        return job("GenVanillaNN", clip, copied(folder / start / "GenVanillaNN", folder / way), 4, "--resume")

    def alone(*jobs):
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as out:
            patch.setattr(loop_module, "EVALUATION_STEPS", 1)
            for words in jobs:
                patch.setattr(sys, "argv", list(map(str, words)))
                importlib.import_module(words[0]).main()
        return out.getvalue()

    said["one"] = alone(*jobs("one"), job("GenVanillaNN", clip, folder / "whole" / "weights.pth", 4))
    endless = folder / "stopped" / "weights.pth"
    running = start(worker, [*jobs("two"), go_on("one", "one, then two"), ("checks", folder / "checks.json"),
                             job("GenVanillaNN", clip, endless, 10 ** 6)])
    said["two"], error = stop_when_there(running, endless, signal.SIGINT)
    assert "Warning" not in error and error.count("interrupted") == 1, error
    assert alive(worker) == []
    alone(go_on("two", "two, then one"))
    return SimpleNamespace(folder=folder, said=said, checks=json.loads((folder / "checks.json").read_text()))


def curves(folder):
    """{name: losses, one an epoch} of the one training whose curves are in `folder`."""
    run, = folder.glob("runs/*/*")
    file, = run.iterdir()
    events = EventAccumulator(str(file)).Reload()
    return {name: [event.value for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


def last_of(folder):
    return last(SimpleNamespace(checkpoint=folder / "weights.pth"))


@pytest.mark.journey
@pytest.mark.parametrize("script", SCRIPTS)
def test_two_processes_go_the_way_of_one(trained, script):
    one, two = (curves(trained.folder / number / script) for number in ("one", "two"))
    losses = [name for name in one if not name.startswith("held_out/")]
    assert one.keys() == two.keys() and len(losses) == {"GenVanillaNN": 1, "GenGAN": 3, "GenWarp": 3}[script]
    for name in losses:
        assert len(one[name]) == 2 and two[name] == pytest.approx(one[name], abs=1e-3), name
    assert two["held_out/psnr"] == pytest.approx(one["held_out/psnr"], abs=0.1)  # of the weights averaged over time


@pytest.mark.journey
@pytest.mark.parametrize("script", SCRIPTS)
def test_one_process_writes_and_what_it_writes_is_the_same(trained, script):
    one, two = (trained.folder / number / script for number in ("one", "two"))
    names = {path.name for path in two.iterdir()}
    assert names == {path.name for path in one.iterdir()} == {"weights.pth", "weights-last.pth", "weights-samples.png",
                                                              "runs"}
    a, b = last_of(one), last_of(two)
    assert a.keys() == b.keys() and a["step"] == b["step"] == 8 and a["batch_size"] == b["batch_size"]
    for part, values in a["weights"].items():
        shapes = [{name: value.shape for name, value in them.items()} for them in (values, b["weights"][part])]
        assert shapes[0] == shapes[1]
    assert a["model"].keys() == b["model"].keys()


@pytest.mark.journey
def test_the_first_speaks_and_tells_the_speed(trained):
    assert trained.said["one"].count("on cpu, ") == 4 and trained.said["two"].count("on 2 x cpu, ") == 5
    assert trained.said["two"].count(" images/s; held-out PSNR ") == 5
    assert last_of(trained.folder / "stopped")["step"] > 0


@pytest.mark.journey
def test_one_then_two_and_two_then_one(trained):
    """Whoever goes on goes on at the same image, as if nobody had stopped."""
    whole = curves(trained.folder / "whole")["mse"]
    for name in ("one, then two", "two, then one"):
        parts = trained.folder / name
        assert last_of(parts)["step"] == 16 and curves(parts)["mse"] == pytest.approx(whole[2:], abs=1e-3), name


@pytest.mark.journey
def test_what_is_agreed_between_processes(trained):
    seen = trained.checks
    assert len(set(seen["seeds"])) == 2  # each has random numbers of its own
    assert seen["any"] == [False, True]
    assert seen["errors"] == ["the second has no disk"] * 2
    assert seen["threads"] == max(1, len(os.sched_getaffinity(0)) // 2 if sys.platform == "linux"
                                  else os.cpu_count() // 2)
    assert seen["float"] < 1e-4 and seen["half"] < 0.02  # batch normalisation sees the batch of both


@pytest.mark.journey
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_sigterm_to_the_launcher_of_fabric_saves_and_ends_all(worker, clip, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    checkpoint = tmp_path / "weights.pth"
    running = start(worker, [job("GenVanillaNN", clip, checkpoint, 10 ** 6)], ("-c", FABRIC, str(port)))
    out, error = stop_when_there(running, checkpoint, signal.SIGTERM)
    assert last_of(tmp_path)["step"] > 0 and "on 2 x cpu" in out and error.count("interrupted") == 1
    assert alive(worker) == []


@pytest.mark.journey
def test_an_error_is_told_once_and_ends_all(worker, tmp_path):
    running = start(worker, [job("GenGAN", tmp_path / "nobody.mp4", tmp_path / "weights.pth", 1)])
    _, error = running.communicate(timeout=120)
    assert running.returncode != 0 and error.count("error: there is no video") == 1 and "abort" not in error
    assert "worker.py\", line" not in error  # no traceback of ours
    assert alive(worker) == [] and list(tmp_path.iterdir()) == []


@pytest.fixture
def two_here(monkeypatch):
    """The environment of the first of two processes that torchrun starts on a machine."""
    for name, value in {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "RANK": 0, "LOCAL_RANK": 0,
                        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))


def test_what_several_processes_can_not_do_is_said_before_they_connect(training, two_here, monkeypatch):
    training.batch_size = 7
    with pytest.raises(UserError, match="--batch-size 7 is no multiple of the 2 processes"):
        processes.launch(training)
    monkeypatch.setenv("LT_STRATEGY", "deepspeed")
    with pytest.raises(UserError, match="use ddp"):
        processes.launch(training)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    training.device = "cuda"
    with pytest.raises(UserError, match="2 processes for 1 GPUs"):
        processes.launch(training)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    training.device = "mps"
    with pytest.raises(UserError, match="--device cpu"):
        processes.launch(training)


def test_the_precision_of_a_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    assert flags.pick_precision(torch.device("cuda")) == "bf16-mixed"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    assert flags.pick_precision(torch.device("cuda")) == "16-mixed"
    assert flags.pick_precision(torch.device("mps")) == "32-true"
    with pytest.raises(UserError, match="no tpu device"):
        flags.pick_device("tpu")


class Probe(torch.nn.Linear):
    def forward(self, x):
        self.seen = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu")
        return super().forward(x)


@pytest.mark.parametrize("flag, launcher, seen", [("32-true", None, False), ("bf16-mixed", None, torch.bfloat16),
                                                  ("bf16-mixed", "32-true", False)])
def test_autocast_is_what_the_flag_says_or_else_the_launcher(training, monkeypatch, flag, launcher, seen):
    training.precision = flag
    if launcher:
        monkeypatch.setenv("LT_PRECISION", launcher)
    fabric = processes.launch(training)
    probe = Probe(2, 2)
    network, _ = processes.setup(fabric, training, probe, torch.optim.Adam(probe.parameters()))
    assert network(torch.ones(1, 2)).dtype == torch.float32 and probe.seen == seen


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_memory_is_pinned_for_a_gpu(training, kind, monkeypatch):
    fabric = SimpleNamespace(device=torch.device(kind), world_size=1, global_rank=0, is_global_zero=True,
                             setup=lambda network, optimizer: (SimpleNamespace(module=network), optimizer))
    monkeypatch.setattr(loop_module, "launch", lambda args: fabric)
    training.dry_run = True
    loop = loop_module.Training(training, "GenVanillaNN", NetworkConfig("image", 64),
                                {"model": (GenVanillaNN.build, GenVanillaNN.LEARNING_RATE)})
    assert loop._loader.pin_memory == (kind == "cuda")


def test_compiled_it_trains_the_same_network(training, monkeypatch):
    """By a backend that needs no compiler: what is asked here is that checkpoints stay as they are."""
    training.epochs, training.precision = 1, "32-true"
    GenVanillaNN.train(training)
    plain = last(training)
    compiled, calls = torch.compile, []
    monkeypatch.setattr(torch, "compile", lambda network, **_: calls.append(1) or compiled(network, backend="eager"))
    monkeypatch.setattr(processes, "shutil", SimpleNamespace(which=lambda name: name))
    training.compile = True
    GenVanillaNN.train(training)
    other = last(training)
    assert calls and plain["weights"]["model"].keys() == other["weights"]["model"].keys()
    for name, value in plain["model"].items():
        assert torch.allclose(value, other["model"][name], atol=1e-3), name
    monkeypatch.setattr(processes, "shutil", SimpleNamespace(which=lambda name: None))
    with pytest.raises(UserError, match="leave --compile out"):
        GenVanillaNN.train(training)


def test_a_mistake_on_the_command_line_is_told_by_the_first(script, monkeypatch):
    naps = []
    monkeypatch.setattr(time, "sleep", naps.append)
    for rank, waits in (("0", 0), ("1", 1)):  # the second waits for the end that torchrun makes of it, then speaks too
        monkeypatch.setenv("LOCAL_RANK", rank)
        for main in (GenGAN.main, GenWarp.main):
            naps.clear()
            status, _, error = script(main, "--epochs", "0")
            assert status == 2 and error.count("\n") == 1 and len(naps) == waits
