"""Odd files and odd words, given to every script: one line that says what to do, status 2, and nothing half-written.

Most scripts run in the process of the tests, one refusal after the other, because starting Python takes longer than
refusing something.
"""

import json
import pickle
import shutil
import struct
import zipfile

import av
import cv2
import numpy as np
import pytest
import torch

import Benchmark
import DanceDemo
import Evaluate
import GenGAN
import GenVanillaNN
import GenWarp
import VideoSkeleton
from common import command_line, paths
from common.command_line import UserError
from common.paths import SAMPLE_SOURCE
from dancing.generators import GENERATORS
from motion.extraction import load_track
from motion.following import FoundPeople
from picture.film import VideoWriter
from VideoReader import VideoReader

# Each script with its words up to the name of the video that is bad. OUT stands for an empty folder, CLIP for a good
# video.
SCRIPTS = {
    "the demo's source": (DanceDemo.main, "--no-window", "--gen-type", "1", "--output", "OUT/o.mp4",
                          "--save-motion", "OUT/m.npz", "--target", "CLIP", "--source"),
    "the demo's target": (DanceDemo.main, "--no-window", "--gen-type", "1", "--output", "OUT/o.mp4",
                          "--source", "CLIP", "--target"),
    "extraction": (VideoSkeleton.main,),
    "training 3": (GenVanillaNN.main, "--checkpoint", "OUT/w.pth", "--target"),
    "the demo's target, warped": (DanceDemo.main, "--no-window", "--output", "OUT/o.mp4", "--target"),
    "training 4": (GenGAN.main, "--checkpoint", "OUT/w.pth", "--target"),
    "training 5": (GenWarp.main, "--checkpoint", "OUT/w.pth", "--target"),
    "the scoreboard's target": (Evaluate.main, "--gen-types", "1", "--output", "OUT/e", "--target"),
    "the scoreboard's source": (Evaluate.main, "--gen-types", "1", "--output", "OUT/e", "--target", "CLIP",
                                "--source"),
}
KINDS = ["missing", "empty", "text", "half a header", "an image", "sound alone", "no frames", "8 x 8 pixels", "nobody",
         "one frame of nobody", "a folder"]
# These scripts are given every kind. The others read videos by the same functions, so they are given two.
EVERY_KIND = ["the demo's source", "the demo's target", "extraction", "training 3"]


def sound_alone(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        for number in range(20):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts = 44100, number * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def grey_video(path, count, size):
    with VideoWriter(path, 10) as writer:
        for _ in range(count):
            writer.write(np.full((*size[::-1], 3), 90, np.uint8))


def write_bad_video(kind, path):
    """Write a bad video of one of KINDS at `path`."""
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("not a video\n" * 50)
    elif kind == "half a header":
        path.write_bytes(SAMPLE_SOURCE.read_bytes()[:600])
    elif kind == "an image":
        path.write_bytes(cv2.imencode(".png", np.full((64, 64, 3), 90, np.uint8))[1].tobytes())
    elif kind == "sound alone":
        sound_alone(path)
    elif kind == "no frames":
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=30)
            stream.width = stream.height = 64
            container.start_encoding()
    elif kind == "8 x 8 pixels":
        grey_video(path, 2, (8, 8))
    elif kind == "nobody":
        grey_video(path, 3, (320, 240))
    elif kind == "one frame of nobody":
        grey_video(path, 1, (64, 64))
    elif kind == "a folder":
        path.mkdir()


def complaint(error):
    """The lines on standard error, without progress bars."""
    lines = [line.strip() for line in error.replace("\r", "\n").split("\n")]
    return [line for line in lines if line and "[00:" not in line and "%|" not in line]


@pytest.fixture
def refused(script):
    """refused(what, main, *words): check that the script refuses these words with one line; returns that line."""

    def call(what, main, *words):
        command_line._warned.clear()  # each call counts as a process of its own
        status, _, error = script(main, *words)
        lines = complaint(error)
        assert status == 2 and len(lines) == 1 and lines[0].startswith("error: "), (what, words, status, error)
        return lines[0]

    return call


def kept_files():
    """{path: size} of everything in the cache of the tests."""
    return {path: path.stat().st_size for path in paths.CACHE.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def bad_videos(tmp_path_factory):
    """{kind: path} of a bad video of each of KINDS, under a name that is hard to handle, too."""
    videos = {kind: tmp_path_factory.mktemp("bad") / "-it's \"bad\" é.mp4" for kind in KINDS}
    for kind, path in videos.items():
        write_bad_video(kind, path)
    return videos


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_bad_video_is_refused_in_one_line_and_leaves_nothing(name, bad_videos, clip, target, refused, tmp_path):
    main, *words = SCRIPTS[name]
    words = [word.replace("OUT", str(tmp_path)).replace("CLIP", str(clip)) for word in words]
    before = kept_files()
    for kind in KINDS if name in EVERY_KIND else ("missing", "text"):
        refused(kind, main, *words, bad_videos[kind])
        assert list(tmp_path.iterdir()) == [] and kept_files() == before, kind


def test_odd_words_to_the_demo(clip, target, refused, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    load_track(clip).save(tmp_path / "m.npz")
    before = {path: path.read_bytes() for path in (clip, tmp_path / "file", tmp_path / "m.npz")}
    film = tmp_path / "o.mp4"
    given = ["--source", clip, "--target", clip, "--output", film, "--no-window"]
    for words in (
            ("--gen-type", "9"), ("--gen-type", "one"), ("--max-frames", "0"), ("--max-frames", "-5"),
            ("--continuity", "nan"), ("--continuity", "-1"), ("--layout", "upside-down"), ("--source", "99"),
            ("--checkpoint", "none.pth"), ("--runtime", "onnx"), ("--output", tmp_path / "folder"),
            ("--output", tmp_path / "file" / "o.mp4"), ("--skeletons", tmp_path / "folder"), ("--output", clip),
            ("--save-motion", tmp_path / "folder"), ("--save-motion", tmp_path / "file" / "m.npz"),
            ("--save-motion", clip), ("--save-motion", film), ("--source", tmp_path / "none.npz"),
            ("--source", tmp_path / "m.npz", "--save-motion", tmp_path / "m.npz")):
        refused("demo", DanceDemo.main, *given, *words)
        assert all(path.read_bytes() == content for path, content in before.items()), words
        assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "m.npz"], words


@pytest.mark.parametrize("main", [GenVanillaNN.main, GenGAN.main, GenWarp.main])
def test_odd_words_to_a_training(main, clip, target, refused, tmp_path):
    """The three scripts share their flags, so one of them gets all words."""
    (tmp_path / "file").write_text("mine")
    given = ["--target", clip, "--checkpoint", tmp_path / "w.pth"]
    flags = [("--minutes", "nan"), ("--minutes", "-3"), ("--image-size", "65"), ("--batch-size", "0"), ("--seed", "-1"),
             ("--device", "tpu"), ("--checkpoint", tmp_path)]
    if not torch.cuda.is_available():
        flags.append(("--device", "cuda"))
    for words in [("--epochs", "0"), ("--resume",), ("--checkpoint", tmp_path / "file"),
                  *(flags if main is GenVanillaNN.main else [])]:
        refused("training", main, *given, *words)
        assert [path.name for path in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_text() == "mine"


def test_odd_words_to_the_other_programs(clip, target, refused):
    for main, *words in (
            (VideoSkeleton.main, "--workers", "0"), (VideoSkeleton.main, "--workers", "x"),
            (VideoSkeleton.main, "--nonsense"), (Evaluate.main, "--gen-types", "1,9"),
            (Evaluate.main, "--minutes", "3,2"), (Evaluate.main, "--minutes", "-1"),
            (Evaluate.main, "--image-size", "65"), (Evaluate.main, "--continuity", "0"),
            (Evaluate.main, "--output", clip / "e"), (Evaluate.main, "--truth", "none.mp4", "--gen-types", "1"),
            (Benchmark.main, "--output", clip / "b"), (Benchmark.main, "--quicker")):
        given = ("--source", clip, "--target", clip) if main is Evaluate.main else ()
        refused("program", main, *given, *words)


def unusual_pictures(kind, frames):
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


def write_any_size(path, pictures):
    """Write a video of pictures of any size. VideoWriter would pad odd sizes."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.options = "yuv444p", {"preset": "ultrafast"}
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="bgr24")))
        container.mux(stream.encode(None))


def read_film(path):
    with VideoReader(path) as reader:
        return list(reader)


@pytest.mark.parametrize("kind", ["one frame", "641 x 359", pytest.param("3840 x 2160", marks=pytest.mark.journey),
                                  "two people", "half a person"])
def test_an_unusual_video_works_as_source_as_target_and_to_learn_from(kind, frames, clip, target, script, tmp_path):
    """Its poses are found by the first run and used by all others."""
    odd, film = tmp_path / "-odd 'é\".mp4", tmp_path / "not" / "there" / "o.mp4"
    pictures = unusual_pictures(kind, frames)
    write_any_size(odd, pictures)
    words = ["--no-window", "--layout", "result", "--output", film]
    status, _, error = script(DanceDemo.main, *words, "--gen-type", 1, f"--source={odd}", "--target", clip)
    assert status == 0, error
    assert len(read_film(film)) == len(pictures)
    if kind == "two people":
        assert sum("people are seen; following one of them" in line for line in complaint(error)) == 1
    for gen_type in (1, 5):
        status, _, error = script(DanceDemo.main, *words, "--gen-type", gen_type, f"--source={odd}", f"--target={odd}")
        assert status == 0 and "poses of" not in error, error
        height, width = pictures[0].shape[:2]
        assert [picture.shape for picture in read_film(film)] == \
            [(height + height % 2, width + width % 2, 3)] * len(pictures)
    assert script(GenVanillaNN.main, f"--target={odd}", "--dry-run")[0] == 0
    assert script(GenWarp.main, f"--target={odd}", "--dry-run", "--image-size", 64)[0] == 0


def test_a_truncated_video_is_used_as_far_as_it_goes(script, clip, target, tmp_path):
    """Its index stands at the beginning, as in videos for the web, so the index promises more than there is."""
    whole, broken, film = tmp_path / "whole.mp4", tmp_path / "broken.mp4", tmp_path / "o.mp4"
    with av.open(str(clip)) as container, av.open(str(whole), "w", options={"movflags": "faststart"}) as out:
        stream = out.add_stream_from_template(container.streams.video[0])
        for packet in container.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    content = whole.read_bytes()
    broken.write_bytes(content[:len(content) // 2])
    status, _, error = script(DanceDemo.main, "--gen-type", 1, "--no-window", "--source", broken, "--target", clip,
                              "--output", film)
    count = len(read_film(film))
    assert status == 0 and 5 < count < 35, error
    assert len(complaint(error)) == 1 and f"breaks off after {count} of 40 frames" in complaint(error)[0]


class Payload:
    """A pickle that would write a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def bad_checkpoints(good, path, marker):
    """Write at `path`, one after the other, checkpoints that are not to be trusted, made from a good one.

    Yields the name of each. Those with a payload would write `marker`.
    """
    state = torch.load(good, weights_only=True)
    raw = good.read_bytes()
    path.write_bytes(pickle.dumps(Payload(marker)))
    yield "a pickle with a payload"
    torch.save({"model": Payload(marker)}, path)
    yield "a payload inside"
    path.write_bytes(raw[:len(raw) // 2])
    yield "truncated"
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    yield "random bytes"
    with zipfile.ZipFile(good) as archive:
        parts = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    largest = max(parts, key=lambda name: len(parts[name]))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, bytes(2 * 10 ** 7) if name == largest else data)
    yield "a small file that unpacks to 20 MB"
    name = next(iter(state["model"]))
    for what, changes in {
            "another schema": {"schema": 99}, "another generator": {"generator": "GenSomething"},
            "no config": {"config": None}, "an absurd size": {"config": state["config"] | {"image_size": 10 ** 9}},
            "other shapes": {"model": state["model"] | {name: torch.zeros(3)}},
            "a missing layer": {"model": {key: value for key, value in state["model"].items() if key != name}},
            "NaN": {"model": state["model"] | {name: torch.full_like(state["model"][name], float("nan"))}},
            "words for weights": {"model": dict.fromkeys(state["model"], "x")}}.items():
        torch.save(state | changes, path)
        yield what
    torch.save([1, 2], path)
    yield "a list"


@pytest.mark.parametrize("gen_type", [2, 3, 4, 5])
def test_a_bad_checkpoint_is_refused_in_one_line_and_runs_nothing(gen_type, weights, target, tmp_path):
    path, marker = tmp_path / "w.pth", tmp_path / "it ran"
    for name in bad_checkpoints(weights[gen_type], path, marker):
        with pytest.raises(UserError, match=r"train|use") as raised:
            GENERATORS[gen_type].make(target, path)
        assert "\n" not in str(raised.value) and not marker.exists(), name
    shutil.copy(weights[gen_type], path)
    GENERATORS[gen_type].make(target, path)  # the good one, from which they were made, is taken


def npz_that_promises(path, name, shape):
    """Write an .npz of some bytes whose header promises a float32 array of that shape."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"some")


def test_a_declared_array_larger_than_its_file_is_not_believed(target, tmp_path):
    """The header promises 10 GB in a file of 1 kB, in the cache of a target and in that of any video."""
    folder = shutil.copytree(target.folder.parent, tmp_path / "cache")
    npz_that_promises(folder / target.folder.name / "skeletons.npz", "joints", (25000000, 33, 3))
    with pytest.raises(UserError, match="is damaged"):
        VideoSkeleton.VideoSkeleton(target.path, folder / target.folder.name)
    npz_that_promises(folder / "poses.npz", "joints", (25000000, 33, 3))
    with pytest.raises(UserError, match="is damaged"):
        FoundPeople(folder)


def bad_motions(good, path, marker):
    """Write at `path`, one after the other, motion files that are not to be trusted, made from a good one.

    Yields the name of each. The one with a payload would write `marker`.
    """
    raw = good.read_bytes()
    with np.load(good) as stored:
        arrays = dict(stored)
    count, about = len(arrays["joints"]), json.loads(str(arrays["about"]))
    for what, content in {
            "empty": b"", "text": b"not a motion\n" * 50, "a video": SAMPLE_SOURCE.read_bytes()[:50000],
            "cut short": raw[:len(raw) // 2], "random bytes": np.random.default_rng(0).bytes(5000)}.items():
        path.write_bytes(content)
        yield what
    np.savez_compressed(path, **arrays)
    yield "packed"
    npz_that_promises(path, "joints", (25000000, 33, 3))
    yield "10 GB promised"
    with open(path, "wb") as file:
        np.savez(file, **arrays | {"about": np.array([Payload(marker)], object)})
    yield "a payload inside"

    def with_one(name, index, value):
        changed = arrays[name].copy()
        changed[index] = value
        return {name: changed}

    for what, changes in {
            "NaN in one joint": with_one("joints", (3, 5, 1), np.nan),
            "an infinite joint": with_one("joints", (3, 5, 1), np.inf),
            "a joint in another galaxy": with_one("joints", (3, 5, 1), 1e30),
            "NaN for a visibility": with_one("visibility", (3, 5), np.nan),
            "an absurd visibility": with_one("visibility", (3, 5), 1e38),
            "times that go back": with_one("seconds", 3, 1e3), "NaN for a time": with_one("seconds", 3, np.nan),
            "times of ages": {"seconds": arrays["seconds"] * 1e15},
            "fewer times than frames": {"seconds": arrays["seconds"][:-1]},
            "fewer visibilities": {"visibility": arrays["visibility"][:-1]},
            "no frames": {name: arrays[name][:0] for name in ("joints", "visibility", "seconds", "found")},
            "33 joints in a plane": {"joints": arrays["joints"][:, :, :2]},
            "words for joints": {"joints": arrays["joints"].astype(str)},
            "whole numbers for joints": {"joints": np.ones((count, 33, 3), int)},
            "complex joints": {"joints": arrays["joints"].astype(complex)},
            "complex times": {"seconds": arrays["seconds"].astype(complex)},
            "flags for times": {"seconds": np.ones(count, bool)},
            "no shot": {"shots": np.zeros(0, int)}, "a shot after the end": {"shots": np.array([0, 10 ** 6])},
            "no first shot": {"shots": np.array([1])}, "shots twice": {"shots": np.array([0, 5, 5])},
            "broken shots": {"shots": np.array([0.0])},
            "no JSON": {"about": "{"}, "a list for what it is about": {"about": "[1, 2]"}}.items():
        np.savez(path, **arrays | changes)
        yield what
    for what, changes in {"no size": {"size": [0, 0]}, "three sizes": {"size": [512, 512, 512]},
                          "an absurd size": {"size": [10 ** 12, 1]}, "no fps": {"fps": 0},
                          "NaN for fps": {"fps": float("nan")}, "an hour for a frame": {"fps": 1e-4},
                          "a million fps": {"fps": 999999}}.items():
        np.savez(path, **arrays | {"about": json.dumps(about | changes)})
        yield what
    for name in arrays:
        np.savez(path, **{other: array for other, array in arrays.items() if other != name})
        yield f"without {name}"


def test_a_bad_motion_file_is_refused_in_one_line_and_leaves_nothing(clip, target, refused, tmp_path):
    good, bad, out, marker = (tmp_path / name for name in ("good.npz", "-it's bad é.npz", "out", "it ran"))
    out.mkdir()
    load_track(clip).save(good)
    words = ["--no-window", "--gen-type", 1, "--target", clip, "--output", out / "o.mp4", f"--source={bad}"]
    for name in bad_motions(good, bad, marker):
        refused(name, DanceDemo.main, *words)
        assert list(out.iterdir()) == [] and not marker.exists(), name
    shutil.copy(target.folder.parent / "poses.npz", bad)
    refused("the poses in the cache, which are those of everybody", DanceDemo.main, *words)


def test_the_placed_skeletons_are_no_motion_file(clip, target, script, refused, tmp_path):
    """--skeletons writes an .npz, too, but in the target's picture: it says so instead of dancing wrongly."""
    words = ["--no-window", "--gen-type", 1, "--target", clip, "--max-frames", 3, "--output", tmp_path / "o.mp4"]
    assert script(DanceDemo.main, *words, "--source", clip, "--skeletons", tmp_path / "s.npz")[0] == 0
    assert "is no motion file" in refused("skeletons", DanceDemo.main, *words, "--source", tmp_path / "s.npz")


def test_a_motion_file_dances_as_its_video_does(clip, target, script, tmp_path):
    """Frame by frame the same, and without a picture of the source beside."""
    words = ["--no-window", "--gen-type", 1, "--target", clip]
    motion, films = tmp_path / "m.npz", [tmp_path / f"{number}.mp4" for number in range(3)]
    for film, more in zip(films, (["--source", clip, "--save-motion", motion, "--layout", "result"],
                                  ["--source", motion, "--layout", "result"], ["--source", motion]), strict=True):
        status, _, error = script(DanceDemo.main, *words, "--output", film, *more)
        assert status == 0 and complaint(error) == [], error
    pictures = [np.stack(read_film(film)) for film in films]
    assert pictures[0].shape == (40, *target.frame_size[::-1], 3)
    assert np.array_equal(pictures[0], pictures[1]) and np.array_equal(pictures[0], pictures[2])
    with VideoReader(films[0]) as video, VideoReader(films[1]) as from_motion:
        assert video.fps == from_motion.fps == 10


def test_training_says_nothing_but_its_progress(clip, training, capsys):
    training.dry_run = True
    GenWarp.train(training)
    assert complaint(capsys.readouterr().err) == []
