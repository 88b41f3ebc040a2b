"""Checkpoints, caches and motion files of strangers: one line that says what to do, and no code in them runs."""

import json
import pickle
import shutil
import struct
import zipfile

import numpy as np
import pytest
import torch
from conftest import complaint, read_film

import DanceDemo
import VideoSkeleton
from common.command_line import UserError
from common.paths import SAMPLE_SOURCE
from dancing.generators import GENERATORS
from motion.extraction import load_track
from motion.following import FoundPeople
from video.clip import Clip
from VideoReader import VideoReader


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
            "words for weights": {"model": dict.fromkeys(state["model"], "x")},
            "words for what it gained": {"held_out": {"unlikeness": "x", "untrained": "y"}},
            "half of what it gained": {"held_out": {"untrained": 1.0}}, "a list of it": {"held_out": [1]}}.items():
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
        FoundPeople(folder, Clip(folder))


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
            "a camera of one frame": {"camera": arrays["camera"][:1]},
            "a camera nowhere": {"camera": arrays["camera"] * 0},
            "NaN for a camera": {"camera": arrays["camera"] * np.float32(np.nan)},
            "no JSON": {"about": "{"}, "a list for what it is about": {"about": "[1, 2]"}}.items():
        np.savez(path, **arrays | changes)
        yield what
    for what, changes in {"no size": {"size": [0, 0]}, "three sizes": {"size": [512, 512, 512]},
                          "an absurd size": {"size": [10 ** 12, 1]}, "no fps": {"fps": 0},
                          "NaN for fps": {"fps": float("nan")}, "an hour for a frame": {"fps": 1e-4},
                          "a million fps": {"fps": 999999}}.items():
        np.savez(path, **arrays | {"about": json.dumps(about | changes)})
        yield what
    for name in set(arrays) - {"camera"}:  # files of earlier versions have none
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
    """--motion writes an .npz, too, but in the target's picture: it says so instead of dancing wrongly."""
    words = ["--no-window", "--gen-type", 1, "--target", clip, "--max-frames", 3, "--output", tmp_path / "o.mp4"]
    assert script(DanceDemo.main, *words, "--source", clip, "--motion", tmp_path / "s.npz")[0] == 0
    assert "is no motion file" in refused("motion", DanceDemo.main, *words, "--source", tmp_path / "s.npz")


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
