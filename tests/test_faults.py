"""Odd files and odd words, given to every script: one line that says what to do, status 2, nothing half-written."""

import json
import pickle
import struct
import zipfile

import av
import cv2
import numpy as np
import pytest
import torch
from conftest import SAMPLE

import Benchmark
import DanceDemo
import Evaluate
import GenGAN
import GenVanillaNN
import GenWarp
import VideoSkeleton
from CommandLine import UserError
from VideoReader import VideoReader
from VideoWriter import VideoWriter

SCRIPTS = {
    "the demo's source": (DanceDemo.main, "--no-window", "--gen-type", "1", "--output", "OUT/o.mp4", "--source"),
    "the demo's target": (DanceDemo.main, "--no-window", "--gen-type", "1", "--output", "OUT/o.mp4", "--target"),
    "the demo's target, warped": (DanceDemo.main, "--no-window", "--output", "OUT/o.mp4", "--target"),
    "extraction": (VideoSkeleton.main,),
    "training 3": (GenVanillaNN.main, "--checkpoint", "OUT/w.pth", "--target"),
    "training 4": (GenGAN.main, "--checkpoint", "OUT/w.pth", "--target"),
    "training 5": (GenWarp.main, "--checkpoint", "OUT/w.pth", "--target"),
    "the scoreboard": (Evaluate.main, "--gen-types", "1", "--output", "OUT/e", "--target"),
}


def audio_only(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        for number in range(20):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts = 44100, number * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def grey(path, count=5, size=(64, 64)):
    with VideoWriter(path, 10) as writer:
        for _ in range(count):
            writer.write(np.full((*size[::-1], 3), 90, np.uint8))


def make(kind, path):
    """Write a bad input of a kind at `path`."""
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("not a video\n" * 50)
    elif kind == "half a header":
        path.write_bytes((SAMPLE / "source.mp4").read_bytes()[:600])
    elif kind == "an image":
        path.write_bytes(cv2.imencode(".png", np.full((64, 64, 3), 90, np.uint8))[1].tobytes())
    elif kind == "sound alone":
        audio_only(path)
    elif kind == "no frames":
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=30)
            stream.width = stream.height = 64
            container.start_encoding()
    elif kind == "8 x 8 pixels":
        grey(path, size=(8, 8))
    elif kind == "nobody":
        grey(path, size=(320, 240))
    elif kind == "one frame of nobody":
        grey(path, 1)
    elif kind == "a folder":
        path.mkdir()


def complaint(error):
    """The lines on standard error without progress bars."""
    lines = [line.strip() for line in error.replace("\r", "\n").split("\n")]
    return [line for line in lines if line and "[00:" not in line and "%|" not in line]


KINDS = ["missing", "empty", "text", "half a header", "an image", "sound alone", "no frames", "8 x 8 pixels", "nobody",
         "one frame of nobody", "a folder"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_bad_video_is_one_line_and_leaves_nothing(name, kind, script, tmp_path, monkeypatch):
    monkeypatch.setattr(VideoSkeleton, "CACHE", tmp_path / "cache")
    bad, out = tmp_path / "-it's \"bad\" é.mp4", tmp_path / "out"
    out.mkdir()
    make(kind, bad)
    main, *words = SCRIPTS[name]
    if name == "the demo's source":
        monkeypatch.setattr(VideoSkeleton, "CACHE", tmp_path.parent / "shared cache")  # its target is a good one
    status, _, error = script(main, *(word.replace("OUT", str(out)) for word in words), bad)
    assert status == 2
    assert len(complaint(error)) == 1 and complaint(error)[0].startswith("error: "), error
    assert list(out.iterdir()) == [] and not list((tmp_path / "cache").glob("*/*"))


@pytest.mark.parametrize("words", [
    ("--gen-type", "9"), ("--gen-type", "one"), ("--max-frames", "0"), ("--max-frames", "-5"), ("--continuity", "nan"),
    ("--continuity", "-1"), ("--layout", "upside-down"), ("--source", "99"), ("--checkpoint", "none.pth"),
    ("--output", "OUT"), ("--output", "OUT/file/o.mp4"), ("--skeletons", "OUT"), ("--output", "CLIP")])
def test_odd_words_to_the_demo(words, clip, script, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "file").write_text("mine")
    before = clip.read_bytes()
    words = [word.replace("OUT", str(out)).replace("CLIP", str(clip)) for word in words]
    given = ["--source", clip, "--target", clip, "--output", out / "o.mp4", "--no-window"]
    status, _, error = script(DanceDemo.main, *given, *words)
    assert status == 2 and len(complaint(error)) == 1 and complaint(error)[0].startswith("error: "), error
    assert clip.read_bytes() == before and [p.name for p in out.iterdir()] == ["file"]
    assert (out / "file").read_text() == "mine"


@pytest.mark.parametrize("main", [GenVanillaNN.main, GenGAN.main, GenWarp.main])
@pytest.mark.parametrize("words", [
    ("--epochs", "0"), ("--minutes", "nan"), ("--minutes", "-3"), ("--image-size", "65"), ("--batch-size", "0"),
    ("--seed", "-1"), ("--device", "cuda"), ("--device", "tpu"), ("--resume",), ("--checkpoint", "OUT"),
    ("--checkpoint", "OUT/file")])
def test_odd_words_to_a_training(main, words, clip, script, tmp_path):
    if words == ("--device", "cuda") and torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    (tmp_path / "file").write_text("mine")
    given = ["--target", clip, "--checkpoint", tmp_path / "w.pth"]
    status, _, error = script(main, *given, *(word.replace("OUT", str(tmp_path)) for word in words))
    assert status == 2 and len(complaint(error)) == 1 and complaint(error)[0].startswith("error: "), error
    assert [p.name for p in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("main, words", [
    (VideoSkeleton.main, ("--stride", "0")), (VideoSkeleton.main, ("--stride", "x")),
    (VideoSkeleton.main, ("--model", "x")), (VideoSkeleton.main, ("--model", "CLIP")),
    (VideoSkeleton.main, ("--nonsense",)), (Evaluate.main, ("--gen-types", "1,9")),
    (Evaluate.main, ("--minutes", "3,2")), (Evaluate.main, ("--minutes", "-1")),
    (Evaluate.main, ("--image-size", "65")), (Evaluate.main, ("--continuity", "0")),
    (Evaluate.main, ("--output", "CLIP/e")), (Evaluate.main, ("--truth", "none.mp4", "--gen-types", "1")),
    (Benchmark.main, ("--output", "CLIP/b")), (Benchmark.main, ("--quicker",))])
def test_odd_words_to_the_other_programs(main, words, clip, script):
    status, _, error = script(main, *(word.replace("CLIP", str(clip)) for word in words),
                              *(["--target", clip] if main is Evaluate.main else []))
    assert status == 2 and len(complaint(error)) == 1 and complaint(error)[0].startswith("error: "), error


def unusual(kind, frames):
    """A few pictures of an unusual but good video."""
    if kind == "one frame":
        return frames[:1]
    if kind == "641 x 359":
        return [cv2.resize(frame, (641, 359)) for frame in frames[:5]]
    if kind == "3840 x 2160":
        return [cv2.copyMakeBorder(cv2.resize(frame, (2160, 2160)), 0, 0, 840, 840, cv2.BORDER_REPLICATE)
                for frame in frames[:2]]
    if kind == "two people":
        return [np.hstack([cv2.copyMakeBorder(cv2.resize(frame, (432, 432)), 80, 0, 40, 40, cv2.BORDER_REPLICATE),
                           frame]) for frame in frames[::8]]
    return [frame[:, frame.shape[1] // 2:] for frame in frames[:5]]  # half a person


def write_odd(path, pictures):
    """Write pictures of any size: VideoWriter would pad odd ones."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.options = "yuv444p", {"preset": "ultrafast"}
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="bgr24")))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("kind", ["one frame", "641 x 359", "3840 x 2160", "two people", "half a person"])
def test_an_unusual_video_works_as_source_as_target_and_to_learn_from(kind, frames, clip, script, tmp_path,
                                                                      monkeypatch):
    odd, out = tmp_path / "-odd 'é\".mp4", tmp_path / "not" / "there" / "o.mp4"
    write_odd(odd, unusual(kind, frames))
    with VideoReader(odd) as reader:
        pictures = list(reader)
    words = ["--no-window", "--layout", "result", "--output", out]
    status, _, error = script(DanceDemo.main, *words, "--gen-type", 1, f"--source={odd}", "--target", clip)
    assert status == 0, error
    with VideoReader(out) as reader:
        assert len(list(reader)) == len(pictures)
    if kind == "two people":
        assert sum("people are seen; following one of them" in line for line in complaint(error)) == 1
    monkeypatch.setattr(VideoSkeleton, "CACHE", tmp_path / "cache")
    for gen_type in (1, 5):
        status, _, error = script(DanceDemo.main, *words, "--gen-type", gen_type, f"--source={odd}", f"--target={odd}")
        assert status == 0, error
        with VideoReader(out) as reader:
            height, width = pictures[0].shape[:2]
            assert reader.size == (width + width % 2, height + height % 2) and len(list(reader)) == len(pictures)
    assert script(GenVanillaNN.main, f"--target={odd}", "--dry-run")[0] == 0
    assert script(GenWarp.main, f"--target={odd}", "--dry-run", "--image-size", 64)[0] == 0


def test_a_truncated_video_is_used_as_far_as_it_goes(script, clip, tmp_path):
    broken = tmp_path / "broken.mp4"
    whole = (SAMPLE / "source.mp4").read_bytes()
    broken.write_bytes(whole[:len(whole) // 4])
    status, _, error = script(DanceDemo.main, "--gen-type", 1, "--no-window", "--source", broken, "--target", clip,
                                 "--output", tmp_path / "o.mp4")
    with VideoReader(tmp_path / "o.mp4") as reader:
        count = len(list(reader))
    assert status == 0 and 30 < count < 128
    assert len(complaint(error)) == 1 and f"breaks off after {count} of 258 frames" in complaint(error)[0]


class Payload:
    """A pickle that would write a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def strangers(good, path, marker):
    """(name, file) of checkpoints that are not to be trusted, made from a good one."""
    state = torch.load(good, weights_only=True)
    raw = good.read_bytes()

    def saved(**changes):
        torch.save(state | changes, path)
        return path

    yield "a pickle with a payload", (path.write_bytes(pickle.dumps(Payload(marker))), path)[1]
    torch.save({"model": Payload(marker)}, path)
    yield "a payload inside", path
    yield "truncated", (path.write_bytes(raw[:len(raw) // 2]), path)[1]
    yield "bytes", (path.write_bytes(np.random.default_rng(0).bytes(5000)), path)[1]
    with zipfile.ZipFile(good) as archive:
        parts = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    largest = max(parts, key=lambda name: len(parts[name]))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:  # a small file that unpacks to 200 MB
        for name, data in parts.items():
            with archive.open(name, "w", force_zip64=True) as entry:
                for _ in range(2 if name == largest else 1):
                    entry.write(bytes(10 ** 8) if name == largest else data)
    yield "a bomb", path
    yield "another schema", saved(schema=99)
    yield "another generator", saved(generator="GenSomething")
    yield "a list", (torch.save([1, 2], path), path)[1]
    yield "no config", saved(config=None)
    yield "an absurd size", saved(config=state["config"] | {"image_size": 10 ** 9})
    name = next(iter(state["model"]))
    yield "other shapes", saved(model=state["model"] | {name: torch.zeros(3)})
    yield "a missing layer", saved(model={k: v for k, v in state["model"].items() if k != name})
    yield "NaN", saved(model=state["model"] | {name: torch.full_like(state["model"][name], float("nan"))})
    yield "words for weights", saved(model={k: "x" for k in state["model"]})


@pytest.mark.parametrize("gen_type", [2, 3, 4, 5])
def test_a_strangers_checkpoint_is_refused_in_one_line_and_runs_nothing(gen_type, weights, target, tmp_path):
    marker, build = tmp_path / "it ran", DanceDemo.GENERATORS[gen_type][1]
    for name, path in strangers(weights[gen_type], tmp_path / "w.pth", marker):
        with pytest.raises(UserError, match=r"train|use") as raised:
            build(target, path)
        assert "\n" not in str(raised.value) and not marker.exists(), name


def test_a_declared_array_larger_than_its_file_is_not_believed(target, tmp_path):
    """A cache whose header promises 10 GB in a file of 1 kB."""
    folder = tmp_path / "cache"
    folder.mkdir()
    for file in target.folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    header = json.dumps(0).encode()  # anything short
    array = b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + \
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (25000000, 33, 3), }".ljust(117) + b"\n" + header
    with zipfile.ZipFile(folder / "skeletons.npz", "w") as archive:
        archive.writestr("joints.npy", array)
    with pytest.raises(UserError, match="is damaged"):
        VideoSkeleton.VideoSkeleton(target.path, folder)


def test_training_says_nothing_but_its_progress(clip, training, capsys):
    training.dry_run = True
    GenWarp.train(training)
    assert complaint(capsys.readouterr().err) == []
