"""The training loop: repeatable, resumable, interruptible, and checkpoints that run no code."""

import os
import pickle
import signal
import time

import cv2
import pytest
import torch

import DanceDemo
import GenGAN
import GenVanillaNN
import GenWarp
from common.command_line import UserError
from learning import training as loop_module
from learning.checkpoint import SCHEMA, load_checkpoint, save_checkpoint
from learning.dataset import PoseDataset
from learning.flags import pick_device
from video.film import VideoWriter

SCRIPTS = pytest.mark.parametrize("module", [GenVanillaNN, GenGAN], ids=["GenVanillaNN", "GenGAN"])
SMALL = [("GenVanillaNN", "CHANNELS", 4), ("GenGAN", "CHANNELS", 4), ("GenWarp", "WIDTHS", (8, 8, 8, 8))]


@pytest.fixture(scope="module", autouse=True)
def small_and_on_one_thread():
    """Small networks for what a test of this file trains. Where other programs are running, several threads wait for
    each other much longer than one thread computes."""
    threads, modules = torch.get_num_threads(), {"GenVanillaNN": GenVanillaNN, "GenGAN": GenGAN, "GenWarp": GenWarp}
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        for name, constant, value in SMALL:
            patch.setattr(modules[name], constant, value)
        yield
    torch.set_num_threads(threads)


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
def test_resumed_equals_uninterrupted_and_seeds_repeat(module, training, tmp_path, script, monkeypatch):
    """Three epochs at once give the same files, weights and optimizer states as one epoch, one stopped by Ctrl-C in its
    second step, and the rest. Another seed gives other weights, and leaves the first ones under another name."""
    training.checkpoint, training.epochs = tmp_path / "whole" / "weights.pth", 3
    module.train(training)
    whole, best = last(training), torch.load(training.checkpoint, weights_only=True)
    assert {path.name for path in (tmp_path / "whole").iterdir()} == {"weights.pth", "weights-last.pth",
                                                                     "weights-samples.png", "runs"}
    assert list(tmp_path.glob("whole/runs/weights/*/events.out.tfevents*"))
    assert best["schema"] == SCHEMA and best["generator"] == module.__name__ and best["held_out"]["psnr"] > 0
    assert set(best) == {"schema", "generator", "config", "target", "frames", "seed", "batch_size", "epoch", "step",
                         "model", "held_out"}
    training.seed, training.epochs = 4, 1
    module.train(training)
    assert not equal(whole["weights"], last(training)["weights"])
    assert equal(best["model"], torch.load(tmp_path / "whole" / "weights-previous.pth", weights_only=True)["model"])

    training.checkpoint, training.seed = tmp_path / "parts" / "weights.pth", 3
    module.train(training)
    step, calls = module.step, []

    def step_and_stop(*given):
        calls.append(given)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return step(*given)

    with monkeypatch.context() as patch:
        patch.setattr(module, "step", step_and_stop)
        status, _, said = script(module.main, "--target", training.target, "--checkpoint", training.checkpoint,
                                 "--seed", 3, "--batch-size", 8, "--image-size", 64, "--device", "cpu", "--resume")
    assert status == 130 and said.count("interrupted") == 1 and "Traceback" not in said
    assert last(training)["step"] == 6 and training.checkpoint.exists()
    training.epochs, training.resume = 3, True
    module.train(training)
    for key in ("weights", "optimizers", "ema", "model", "epoch", "step", "seed", "config", "target"):
        assert equal(whole[key], last(training)[key]), key
    assert whole["step"] == 3 * (36 // 8) and whole["epoch"] == 3


def test_the_minutes_end_it(training, capsys):
    training.epochs, training.minutes = 10 ** 6, 0.02
    start = time.monotonic()
    GenVanillaNN.train(training)
    assert time.monotonic() - start < 30 and 0 < last(training)["step"] < 10 ** 4
    assert "held-out PSNR" in capsys.readouterr().out


def test_the_time_of_the_preparation_belongs_to_the_minutes(training, monkeypatch):
    prepare = PoseDataset.__init__

    def slowly(*given):
        time.sleep(1.3)
        prepare(*given)

    monkeypatch.setattr(PoseDataset, "__init__", slowly)
    training.epochs, training.minutes = 10 ** 6, 0.02
    GenVanillaNN.train(training)
    assert last(training)["step"] == 1


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


def test_a_training_resumed_before_its_first_evaluation_keeps_the_former_weights(training, monkeypatch):
    """An older training's weights are there; a new one is killed between its first save and its first evaluation."""
    training.epochs = 1
    GenVanillaNN.train(training)
    former = torch.load(training.checkpoint, weights_only=True)
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(loop_module, "SAVE_SECONDS", 0)
        patch.setattr(loop_module.Training, "_evaluate", lambda *_: 1 / 0)
        training.seed = 5
        GenVanillaNN.train(training)
    assert equal(torch.load(training.checkpoint, weights_only=True)["model"], former["model"])
    training.resume, training.epochs = True, 2
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
    training.checkpoint = training.checkpoint.with_name(f"{'é' * 119}.pth")  # 242 bytes, and X-samples.png is longer
    with pytest.raises(UserError, match="too long"):
        GenVanillaNN.train(training)
    for words in (("--seed", "-1"), ("--seed", 2 ** 32), ("--image-size", 100), ("--epochs", 0), ("--minutes", "nan")):
        status, _, error = script(GenGAN.main, *words)
        assert status == 2 and error.count("\n") == 1 and words[0] in error


def test_checkpoint_round_trip_is_bit_equal_and_whole_or_not_at_all(tmp_path):
    path = tmp_path / "w.pth"
    state = {"schema": SCHEMA, "generator": "G", "target": {"content": "c", "box": [0, 0, 8]}, "config": {},
             "model": {"a": torch.randn(3, 4), "b": torch.randn(2).to(torch.bfloat16), "n": torch.tensor(5)}}
    save_checkpoint(state, path)
    assert equal(load_checkpoint(path, "G", "train"), state)
    before = path.read_bytes()
    with pytest.raises(Exception):  # noqa: B017 - torch does not say which exception a function in the dict raises
        save_checkpoint({"model": lambda: 0}, path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_a_checkpoint_never_runs_code_and_no_checkpoint_is_refused_in_one_line(tmp_path):
    path, trap = tmp_path / "w.pth", tmp_path / "the payload ran"
    makers = [lambda: torch.save({"schema": SCHEMA, "model": Payload(trap)}, path),
              lambda: path.write_bytes(pickle.dumps(Payload(trap))),
              lambda: path.write_text("text"), lambda: path.write_bytes(b""),
              lambda: torch.save([1, 2], path), lambda: torch.save({"schema": 1}, path),
              lambda: torch.save(torch.nn.Linear(2, 2), path)]
    for make in makers:
        make()
        with pytest.raises(UserError, match="is no checkpoint") as refusal:
            load_checkpoint(path, "G", "train")
        assert "\n" not in str(refusal.value) and not trap.exists()
    torch.save({"schema": SCHEMA + 1, "generator": "G", "target": {}, "config": {}, "model": {}}, path)
    with pytest.raises(UserError, match="schema"):
        load_checkpoint(path, "G", "train")


def test_cuda_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="--device cpu"):
        pick_device("cuda")
    assert pick_device("auto").type in ("cpu", "mps")


@pytest.mark.parametrize("gen_type, module, flags", [(2, GenVanillaNN, ("--input", "ske")), (3, GenVanillaNN, ()),
                                                     (4, GenGAN, ()), (5, GenWarp, ("--image-size", 64))],
                         ids=["2", "3", "4", "5"])
@pytest.mark.parametrize("kind", ["photo", "one frame", "equal frames"])
def test_a_target_with_a_single_pose_trains_and_dances(kind, gen_type, module, flags, frames, script, tmp_path):
    target, weights, out = tmp_path / ("a.jpg" if kind == "photo" else "a.mp4"), tmp_path / "w.pth", tmp_path / "o.mp4"
    if kind == "photo":
        cv2.imwrite(str(target), frames[0])
    else:
        with VideoWriter(target, 10) as writer:
            for _ in range(1 if kind == "one frame" else 4):
                writer.write(frames[0])
    status, _, error = script(module.main, "--target", target, *flags, "--epochs", 4, "--checkpoint", weights)
    assert status == 0 and weights.exists() and "Traceback" not in error, error
    status, _, error = script(DanceDemo.main, "--gen-type", gen_type, "--source", target, "--target", target,
                              "--checkpoint", weights, "--output", out)
    assert status == 0 and "Traceback" not in error, error
