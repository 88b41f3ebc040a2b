"""The training loop: repeatable, resumable, interruptible, and checkpoints that run no code."""

import os
import pickle
import signal
import subprocess
import sys
import time

import pytest
import torch

import Checkpoint
import Distributed
import GenGAN
import GenVanillaNN
import Training
from CommandLine import ROOT, UserError

SCRIPTS = pytest.mark.parametrize("module", [GenVanillaNN, GenGAN], ids=["GenVanillaNN", "GenGAN"])


def last(args):
    return torch.load(args.checkpoint.with_name("weights-last.pth"), weights_only=True)


def equal(a, b):
    """Deep, bitwise equality of nested dicts, lists and tensors."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


@SCRIPTS
def test_resumed_equals_uninterrupted_and_seeds_repeat(module, training, tmp_path, capsys):
    """Two epochs, then two more, give the same weights and optimizer state as four."""
    def run(name, *epochs, seed=3):
        training.checkpoint, training.seed = tmp_path / name / "weights.pth", seed
        for number, training.epochs in enumerate(epochs):
            training.resume = number > 0
            module.train(training)
        return last(training)

    whole, parts, other = run("whole", 4), run("parts", 2, 4), run("other", 1, seed=4)
    for key in ("weights", "optimizers", "ema", "model", "epoch", "step", "seed", "config", "target"):
        assert equal(whole[key], parts[key]), key
    assert whole["step"] == 4 * (36 // 8) and whole["epoch"] == 4
    assert not equal(whole["weights"], other["weights"])
    assert "held-out PSNR" in capsys.readouterr().out


def test_resuming_in_the_middle_of_an_epoch_is_exact(training, tmp_path, monkeypatch):
    training.checkpoint = tmp_path / "whole" / "weights.pth"
    GenVanillaNN.train(training)
    whole = last(training)
    training.checkpoint = tmp_path / "parts" / "weights.pth"
    log = Training.Loop.log

    def log_and_stop(loop, **losses):
        log(loop, **losses)
        if loop.step == 1 and not training.resume:  # in the second step of four
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Training.Loop, "log", log_and_stop)
    with pytest.raises(KeyboardInterrupt):
        GenVanillaNN.train(training)
    assert last(training)["step"] == 2 and training.checkpoint.exists()
    training.resume = True
    GenVanillaNN.train(training)
    assert equal(whole["weights"], last(training)["weights"]) and equal(whole["ema"], last(training)["ema"])


@SCRIPTS
def test_what_a_training_leaves(module, training):
    training.epochs = 1
    module.train(training)
    folder = training.checkpoint.parent
    names = {path.name for path in folder.iterdir()}
    assert names == {"weights.pth", "weights-last.pth", "weights-samples.png", "runs"}
    assert list(folder.glob("runs/weights/*/events.out.tfevents*"))
    best = torch.load(training.checkpoint, weights_only=True)
    assert best["schema"] == Checkpoint.SCHEMA and best["generator"] == module.__name__ and best["held_out"]["psnr"] > 0
    assert set(best) == {"schema", "generator", "config", "target", "seed", "batch_size", "epoch", "step", "model",
                         "held_out"}
    module.train(training)
    previous = torch.load(folder / "weights-previous.pth", weights_only=True)
    assert equal(best["model"], previous["model"])  # a new training keeps the old weights


def test_the_minutes_end_it(training):
    training.epochs, training.minutes = 10 ** 6, 0.02
    start = time.monotonic()
    GenVanillaNN.train(training)
    assert time.monotonic() - start < 30 and 0 < last(training)["step"] < 10 ** 4


def test_dry_run_writes_nothing(training, capsys):
    training.dry_run = True
    GenGAN.train(training)
    assert not training.checkpoint.parent.exists() or not list(training.checkpoint.parent.iterdir())
    assert "works" in capsys.readouterr().out


def test_resume_is_refused_where_it_can_not_be_exact(training):
    training.resume = True
    with pytest.raises(UserError, match=r"weights-last\.pth.*without --resume"):
        GenVanillaNN.train(training)
    training.resume, training.epochs = False, 1
    GenVanillaNN.train(training)
    training.resume = True
    with pytest.raises(UserError, match="--epochs"):
        GenVanillaNN.train(training)
    training.epochs = 3
    for name, other in (("image_size", 128), ("batch_size", 4), ("seed", 9)):
        before = getattr(training, name)
        setattr(training, name, other)
        with pytest.raises(UserError, match=rf"{name}.* {before}.*give the same flags"):
            GenVanillaNN.train(training)
        setattr(training, name, before)


def test_a_training_resumed_before_its_first_look_keeps_the_former_weights(training, monkeypatch):
    """An older training's weights are there; a new one is killed between its first save and its first look."""
    GenVanillaNN.train(training)
    former = torch.load(training.checkpoint, weights_only=True)
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(Training, "SAVE", 0)
        patch.setattr(Training.Loop, "_evaluate", lambda *_: 1 / 0)
        training.seed = 5
        GenVanillaNN.train(training)
    assert equal(torch.load(training.checkpoint, weights_only=True)["model"], former["model"])
    training.resume, training.epochs = True, 3
    GenVanillaNN.train(training)
    previous = torch.load(training.checkpoint.with_name("weights-previous.pth"), weights_only=True)
    assert equal(previous["model"], former["model"])


def test_what_is_no_checkpoint_is_not_moved_aside(training, script):
    for make in (lambda p: p.write_text("my thesis"), lambda p: p.mkdir()):
        training.checkpoint.unlink(missing_ok=True)
        make(training.checkpoint)
        with pytest.raises(UserError, match="another --checkpoint"):
            GenVanillaNN.train(training)
        assert [path.name for path in training.checkpoint.parent.iterdir()] == ["weights.pth"]
    for words in (("--seed", "-1"), ("--seed", 2 ** 32), ("--image-size", 100), ("--epochs", 0), ("--minutes", "nan")):
        status, _, error = script(GenGAN.main, *words)
        assert status == 2 and error.count("\n") == 1 and words[0] in error


def test_checkpoint_round_trip_is_bit_equal_and_whole_or_not_at_all(tmp_path):
    path = tmp_path / "w.pth"
    state = {"schema": Checkpoint.SCHEMA, "generator": "G", "target": {"content": "c", "box": [0, 0, 8]}, "config": {},
             "model": {"a": torch.randn(3, 4), "b": torch.randn(2).to(torch.bfloat16), "n": torch.tensor(5)}}
    Checkpoint.save_checkpoint(state, path)
    assert equal(Checkpoint.load_checkpoint(path, "G", "train"), state)
    before = path.read_bytes()
    with pytest.raises(Exception):  # noqa: B017 - whatever torch says of a function that can't be pickled
        Checkpoint.save_checkpoint({"model": lambda: 0}, path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_a_checkpoint_never_runs_code_and_no_checkpoint_is_refused_in_one_line(tmp_path):
    path, trap = tmp_path / "w.pth", tmp_path / "the payload ran"
    makers = [lambda: torch.save({"schema": Checkpoint.SCHEMA, "model": Payload(trap)}, path),
              lambda: path.write_bytes(pickle.dumps(Payload(trap))),
              lambda: path.write_text("text"), lambda: path.write_bytes(b""),
              lambda: torch.save([1, 2], path), lambda: torch.save({"schema": 1}, path),
              lambda: torch.save(torch.nn.Linear(2, 2), path)]
    for make in makers:
        make()
        with pytest.raises(UserError, match="is no checkpoint") as refusal:
            Checkpoint.load_checkpoint(path, "G", "train")
        assert "\n" not in str(refusal.value) and not trap.exists()
    torch.save({"schema": Checkpoint.SCHEMA + 1, "generator": "G", "target": {}, "config": {}, "model": {}}, path)
    with pytest.raises(UserError, match="schema"):
        Checkpoint.load_checkpoint(path, "G", "train")


def test_cuda_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="--device cpu"):
        Distributed.pick_device("cuda")
    assert Distributed.pick_device("auto").type in ("cpu", "mps")


def test_ctrl_c_saves_and_leaves_with_130(clip, tmp_path, target):
    """The real script, interrupted as a person would."""
    checkpoint = tmp_path / "w.pth"
    command = [sys.executable, ROOT / "GenVanillaNN.py", "--target", clip, "--checkpoint", checkpoint]
    code = f"import sys, VideoSkeleton; sys.argv = {list(map(str, command[1:]))!r}; " \
           f"from pathlib import Path; VideoSkeleton.CACHE = Path({str(target.folder.parent)!r}); " \
           "import GenVanillaNN, CommandLine; CommandLine.run(GenVanillaNN.main)"
    run = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 130 and "Traceback" not in said
    assert torch.load(tmp_path / "w-last.pth", weights_only=True)["step"] > 0
