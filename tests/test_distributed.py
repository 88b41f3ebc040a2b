"""Several processes train as one does: the same curve, the same files, one voice, and all of them end.

The processes are real ones, on the CPU and this machine alone: torchrun starts two that train one script after another,
and what they leave is compared with what a process alone leaves.
"""

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

import Distributed
import GenGAN
import GenVanillaNN
import GenWarp
import Training
from CommandLine import ROOT, UserError

SCRIPTS = ("GenVanillaNN", "GenGAN", "GenWarp")
FABRIC = "from argparse import Namespace; from lightning_fabric.cli import main; import sys; " \
         "main(Namespace(accelerator='cpu', strategy=None, devices='2', num_nodes=1, node_rank=0, " \
         "main_address='127.0.0.1', main_port=int(sys.argv[1]), precision='32-true', script=sys.argv[2]), sys.argv[3:])"
WORKER = """
import importlib, json, os, sys
from pathlib import Path

sys.path.insert(0, {root!r})
import torch
import CommandLine, Distributed, Training, VideoSkeleton

Path({pids!r}, str(os.getpid())).touch()
VideoSkeleton.CACHE = Path({cache!r})
Training.EVALUATE = 1  # a point of the curve each epoch


def checks():
    "What only processes that are connected can show; the first one writes it down."
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    team, told = Distributed.Team(fabric[-1]), {{}}
    told["seeds"] = team.gather(torch.initial_seed())
    told["threads"] = torch.get_num_threads()
    told["any"] = team.any(False, rank == 1)
    try:
        with team.together():
            if rank == 1:
                raise CommandLine.UserError("the second has no disk")
    except CommandLine.UserError as error:
        told["errors"] = team.gather(str(error))
    for half in (False, True):
        torch.manual_seed(1)
        plain = torch.nn.BatchNorm2d(5)
        torch.nn.init.normal_(plain.weight)
        shared = Distributed._synchronise(torch.nn.Sequential(plain), torch.device("cpu"))[0]
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
        told["half" if half else "float"] = max(((a - b).float().norm() / b.float().norm()).item() for a, b in pairs)
    if rank == 0:
        Path(sys.argv[1]).write_text(json.dumps(told))


fabric, launch = [], Distributed.launch
Distributed.launch = lambda args: fabric.append(launch(args)) or fabric[-1]
jobs = json.loads(sys.argv[1])
for name, *words in jobs:
    sys.argv = [name, *words]
    CommandLine.run(checks if name == "checks" else importlib.import_module(name).main)
"""


@pytest.fixture(autouse=True)
def one_thread():
    """What this process itself trains is tiny, and on a busy machine threads that wait for each other take long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def worker(target, tmp_path_factory):
    folder = tmp_path_factory.mktemp("worker")
    (folder / "pids").mkdir()
    path = folder / "worker.py"
    path.write_text(WORKER.format(root=str(ROOT), cache=str(target.folder.parent), pids=str(folder / "pids")))
    return path


def start(worker, jobs, launcher=("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")):
    """The worker with its jobs [(script or "checks", flags...)], under a launcher, in a process that is returned."""
    words = [sys.executable, *launcher, worker, json.dumps([list(map(str, job)) for job in jobs])]
    return subprocess.Popen(words, cwd=worker.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env=os.environ | {"OMP_NUM_THREADS": "1"})


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def end(running, timeout=120):
    """(exit status, output, errors) of what `start` gave."""
    out, error = running.communicate(timeout=timeout)
    return running.returncode, out, error


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
    """A folder of a training, elsewhere, for a test that goes on in it."""
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("runs"))
    return to / "w.pth"


@pytest.fixture(scope="module")
def trained(worker, clip, tmp_path_factory):
    """The folder of what one process ("one/GenGAN" ...) and two ("two/GenGAN" ...) left, and what they printed."""
    folder = tmp_path_factory.mktemp("trained")
    said = {}
    for number, launcher in (("one", ()), ("two", start.__defaults__[0])):
        jobs = [job(script, clip, folder / number / script / "w.pth", 2) for script in SCRIPTS]
        if number == "one":
            jobs.append(job("GenVanillaNN", clip, folder / "whole" / "w.pth", 4))
        else:
            path = copied(folder / "one" / "GenVanillaNN", folder / "one, then two")
            jobs += [job("GenVanillaNN", clip, path, 4, "--resume"), ("checks", folder / "checks.json")]
        status, said[number], error = end(start(worker, jobs, launcher))
        assert status == 0, error
        assert "Warning" not in error
    return SimpleNamespace(folder=folder, said=said, checks=json.loads((folder / "checks.json").read_text()))


def curves(folder):
    """{name: losses, one an epoch} of the one training whose curves are in `folder`."""
    run, = folder.glob("runs/*/*")
    file, = run.iterdir()
    events = EventAccumulator(str(file)).Reload()
    return {name: [event.value for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


def last(folder):
    return torch.load(folder / "w-last.pth", weights_only=True)


@pytest.mark.parametrize("script", SCRIPTS)
def test_two_processes_go_the_way_of_one(trained, script):
    one, two = (curves(trained.folder / number / script) for number in ("one", "two"))
    losses = [name for name in one if not name.startswith("held_out/")]
    assert one.keys() == two.keys() and len(losses) == {"GenVanillaNN": 1, "GenGAN": 3, "GenWarp": 3}[script]
    for name in losses:
        assert len(one[name]) == 2 and two[name] == pytest.approx(one[name], abs=1e-3), name
    assert two["held_out/psnr"] == pytest.approx(one["held_out/psnr"], abs=0.1)  # of the weights averaged over time


@pytest.mark.parametrize("script", SCRIPTS)
def test_one_process_writes_and_what_it_writes_is_the_same(trained, script):
    one, two = (trained.folder / number / script for number in ("one", "two"))
    names = {path.name for path in two.iterdir()}
    assert names == {path.name for path in one.iterdir()} == {"w.pth", "w-last.pth", "w-samples.png", "runs"}
    a, b = last(one), last(two)
    assert a.keys() == b.keys() and a["step"] == b["step"] == 8 and a["batch_size"] == b["batch_size"]
    for part, values in a["weights"].items():
        shapes = [{name: value.shape for name, value in them.items()} for them in (values, b["weights"][part])]
        assert shapes[0] == shapes[1]
    assert a["model"].keys() == b["model"].keys()


def test_the_first_speaks_and_tells_the_speed(trained):
    assert trained.said["one"].count("on cpu, ") == 4 and trained.said["two"].count("on 2 x cpu, ") == 4
    assert trained.said["two"].count(" images/s; held-out PSNR ") == 4


def test_one_then_two_and_two_then_one(trained, training, clip):
    """Whoever goes on goes on at the same image, as if nobody had stopped."""
    training.checkpoint = copied(trained.folder / "two" / "GenVanillaNN", trained.folder / "two, then one")
    training.epochs, training.resume, training.precision = 4, True, "32-true"
    before, Training.EVALUATE = Training.EVALUATE, 1
    try:
        GenVanillaNN.train(training)
    finally:
        Training.EVALUATE = before
    whole = curves(trained.folder / "whole")["mse"]
    for name in ("one, then two", "two, then one"):
        parts = trained.folder / name
        assert last(parts)["step"] == 16 and curves(parts)["mse"] == pytest.approx(whole[2:], abs=1e-3), name


def test_what_is_agreed_between_processes(trained):
    told = trained.checks
    assert len(set(told["seeds"])) == 2  # each has random numbers of its own
    assert told["any"] == [False, True]
    assert told["errors"] == ["the second has no disk"] * 2
    assert told["threads"] == max(1, len(os.sched_getaffinity(0)) // 2 if hasattr(os, "sched_getaffinity")
                                  else os.cpu_count() // 2)


def test_batch_normalisation_sees_the_whole_batch(trained):
    assert trained.checks["float"] < 1e-4 and trained.checks["half"] < 0.02


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("how", ["Ctrl-C under torchrun", "SIGTERM under Fabric's launcher"])
def test_a_signal_to_the_launcher_saves_and_ends_all(worker, clip, tmp_path, how):
    checkpoint, launcher, sent = tmp_path / "w.pth", start.__defaults__[0], signal.SIGINT
    if "Fabric" in how:
        launcher, sent = ("-c", FABRIC, str(free_port())), signal.SIGTERM
    running = start(worker, [job("GenVanillaNN", clip, checkpoint, 10 ** 6)], launcher)
    deadline = time.monotonic() + 60
    while not checkpoint.exists() and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(sent)
    begin = time.monotonic()
    status, out, error = end(running)
    assert status != 0 and time.monotonic() - begin < 25, error  # torchrun kills after 30 s
    assert last(tmp_path)["step"] > 0 and "on 2 x cpu" in out and error.count("interrupted") == 1
    assert alive(worker) == []


def test_an_error_is_told_once_and_ends_all(worker, tmp_path):
    status, _, error = end(start(worker, [job("GenGAN", tmp_path / "nobody.mp4", tmp_path / "w.pth", 1)]))
    assert status != 0 and error.count("error: there is no video") == 1 and "abort" not in error
    assert "worker.py\", line" not in error  # no traceback of ours
    assert alive(worker) == [] and list(tmp_path.iterdir()) == []


@pytest.fixture
def two_here(monkeypatch):
    """As torchrun tells the first of two processes on a machine."""
    for name, value in {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "RANK": 0, "LOCAL_RANK": 0,
                        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))


def test_what_several_processes_can_not_do_is_said_before_they_connect(training, two_here, monkeypatch):
    training.batch_size = 7
    with pytest.raises(UserError, match="--batch-size 7 is no multiple of the 2 processes"):
        Distributed.launch(training)
    monkeypatch.setenv("LT_STRATEGY", "deepspeed")
    with pytest.raises(UserError, match="use ddp"):
        Distributed.launch(training)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    training.device = "cuda"
    with pytest.raises(UserError, match="2 processes for 1 GPUs"):
        Distributed.launch(training)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    training.device = "mps"
    with pytest.raises(UserError, match="--device cpu"):
        Distributed.launch(training)


def test_the_precision_of_a_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    assert Distributed.pick_precision(torch.device("cuda")) == "bf16-mixed"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    assert Distributed.pick_precision(torch.device("cuda")) == "16-mixed"
    assert Distributed.pick_precision(torch.device("mps")) == "32-true"
    with pytest.raises(UserError, match="no tpu device"):
        Distributed.pick_device("tpu")


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
    fabric = Distributed.launch(training)
    probe = Probe(2, 2)
    network, _ = Distributed.setup(fabric, training, probe, torch.optim.Adam(probe.parameters()))
    assert network(torch.ones(1, 2)).dtype == torch.float32 and probe.seen == seen


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_memory_is_pinned_for_a_gpu(training, kind):
    fabric = SimpleNamespace(device=torch.device(kind), world_size=1, global_rank=0, is_global_zero=True)
    network = SimpleNamespace(module=GenVanillaNN.GenNNSkeImToImage(64))
    training.dry_run = True
    loop = Training.Loop(fabric, training, "GenVanillaNN", {"pose": "image"}, {"model": network}, {})
    assert loop._loader.pin_memory == (kind == "cuda")


def test_compiled_it_trains_the_same_network(training, monkeypatch):
    """By a backend that needs no compiler: what is asked here is that checkpoints stay as they are."""
    training.epochs, training.precision = 1, "32-true"
    GenVanillaNN.train(training)
    plain = torch.load(training.checkpoint.with_name("weights-last.pth"), weights_only=True)
    compiled, calls = torch.compile, []
    monkeypatch.setattr(torch, "compile", lambda network, **_: calls.append(1) or compiled(network, backend="eager"))
    monkeypatch.setattr(Distributed, "shutil", SimpleNamespace(which=lambda name: name))
    training.compile = True
    GenVanillaNN.train(training)
    other = torch.load(training.checkpoint.with_name("weights-last.pth"), weights_only=True)
    assert calls and plain["weights"]["model"].keys() == other["weights"]["model"].keys()
    for name, value in plain["model"].items():
        assert torch.allclose(value, other["model"][name], atol=1e-3), name
    monkeypatch.setattr(Distributed, "shutil", SimpleNamespace(which=lambda name: None))
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
