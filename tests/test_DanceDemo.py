"""The demo end to end: frames, sound, report, skeletons, and how it says no."""

import itertools
import json
import shutil
import subprocess
import sys
import time

import av
import cv2
import numpy as np
import pytest
from test_VideoReader import sound, tone

import DanceDemo
from common import paths
from common.paths import ROOT, SAMPLE_JOINTS, SAMPLE_SOURCE
from motion import segments
from motion.extraction import load_track
from motion.mending import steady
from motion.retargeting import place
from picture.canvas import Patch, crop
from picture.scene import Scene
from Skeleton import REDUCED
from video.film import VideoWriter
from VideoReader import VideoReader
from warping.limb_warp import LimbWarp


def test_side_by_side_with_report_and_skeletons(clip, target, script, tmp_path):
    out, report, skeletons = tmp_path / "out.mp4", tmp_path / "r.json", tmp_path / "s.npz"
    result = tmp_path / "result.mp4"
    status, said, _ = script(DanceDemo.main, "--gen-type", 1, "--source", clip, "--target", clip, "--output", out,
                             "--no-window", "--report", report, "--motion", skeletons, "--result", result)
    assert status == 0
    assert said.startswith(f"{out}: 40 frames, 0 without a person, ") and said.count("\n") == 1
    with VideoReader(out) as reader:
        pictures = list(reader)
        assert reader.fps == 10 and reader.size == (1024, 512)
    assert len(pictures) == 40
    for whole, alone in zip(pictures, VideoReader(result), strict=True):  # the right half, in a film of its own
        assert np.abs(whole[:, 512:].astype(int) - alone).mean() < 2
    told = json.loads(report.read_text())
    assert set(told) == {"generator", "source", "target", "frames", "frames_without_person", "video_fps", "seconds",
                         "frames_per_second", "stage_ms", "output"}
    assert set(told["stage_ms"]) == {"read", "pose", "generate", "write"} and min(told["stage_ms"].values()) > 0
    assert (told["frames"], told["frames_without_person"], told["video_fps"]) == (40, 0, 10)
    with np.load(skeletons) as stored:
        assert stored["joints"].shape == (40, 33, 3) and stored["joints"].dtype == np.float32
        assert stored["detected"].all() and stored["fps"] == 10
        joints = stored["joints"][:, REDUCED, :2]
    # a person who follows herself stays where she is: the placement must be the identity, in pixels of the frame
    with np.load(SAMPLE_JOINTS) as true:
        assert np.linalg.norm(joints - true["target_uv"][:240:6], axis=2).mean() < 10


def test_result_layout_is_the_targets_frame_and_equals_the_nearest_frames(clip, target, frames, script, tmp_path):
    out = tmp_path / "out.mp4"
    assert script(DanceDemo.main, "--source", clip, "--target", clip, "--output", out, "--layout", "result",
                  "--max-frames", 6, "--gen-type", 1)[0] == 0
    with VideoReader(out) as reader:
        pictures = list(reader)
    assert len(pictures) == 6
    for number, picture in enumerate(pictures):
        assert picture.shape == frames[0].shape
        inside = crop(picture, target.box, target.size).astype(int)
        difference = [np.abs(inside - target.image(i)).mean() for i in range(len(target))]
        assert min(difference) < 4  # a frame of the target, but for the video's compression and the canvas's border
        assert abs(int(np.argmin(difference)) - number) <= 2  # that very frame, or one of its like


def test_gaps_are_filled_long_ones_hold_and_before_the_first_person_the_target_stands(frames, clip, target, tmp_path,
                                                                                       script):
    source, out, skeletons = tmp_path / "source.mp4", tmp_path / "out.mp4", tmp_path / "s.npz"
    empty = np.full_like(frames[0], 90)
    with VideoWriter(source, 10) as writer:
        for frame in [empty] * 4 + frames[:6] + [empty] * 4 + frames[6:12] + [empty] * 12 + frames[12:18]:
            writer.write(frame)
    status, said, _ = script(DanceDemo.main, "--source", source, "--target", clip, "--output", out, "--gen-type", 1,
                             "--layout", "result", "--motion", skeletons)
    assert status == 0 and "38 frames, 20 without a person" in said
    with VideoReader(out) as reader:
        pictures = [p.astype(int) for p in reader]
        assert reader.fps == 10
    assert len(pictures) == 38
    assert np.abs(crop(pictures[0], target.box, target.size) - target.image(0)).mean() < 4
    with np.load(skeletons) as stored:
        joints, detected = stored["joints"], stored["detected"]
    assert np.isnan(joints[:4]).all() and detected.sum() == 18
    steps = np.linalg.norm(np.diff(joints[9:15, REDUCED, :2], axis=0), axis=2)
    assert steps.min(0).max() > 0 and np.allclose(steps[1:-1], steps[2:3], rtol=0.5, atol=1)  # a straight line
    for index in range(20, 32):  # too long to be filled: it holds
        assert np.array_equal(joints[index], joints[19]) and np.abs(pictures[index] - pictures[19]).mean() < 1


@pytest.mark.parametrize("shape, fps", [("portrait", 30), ("late", 10), ("as it is", 60), ("as it is", 15)])
def test_sources_of_every_shape_and_rate(shape, fps, frames, clip, tmp_path, script):
    """Portrait; a person who enters late and leaves early; 60 and 15 frames/s."""
    source, out, report = tmp_path / "source.mp4", tmp_path / "out.mp4", tmp_path / "r.json"
    shown = frames[:24]
    if shape == "portrait":
        shown = [cv2.copyMakeBorder(frame[:, 110:400], 60, 60, 0, 0, cv2.BORDER_REPLICATE) for frame in shown]
    if shape == "late":
        shown = [np.full_like(shown[0], 90)] * 8 + shown[:10] + [np.full_like(shown[0], 90)] * 15
    with VideoWriter(source, fps) as writer:
        for frame in shown:
            writer.write(frame)
    status, said, _ = script(DanceDemo.main, "--source", source, "--target", clip, "--output", out, "--gen-type", 1,
                             "--layout", "result", "--report", report)
    assert status == 0 and said.startswith(f"{out}: {len(shown)} frames, {23 if shape == 'late' else 0} without")
    with VideoReader(out) as reader:
        assert reader.fps == fps and reader.size == (512, 512) and len(list(reader)) == len(shown)


def test_the_background_stands_still_behind_a_network(clip, target, weights, tmp_path, script):
    """GEN_TYPE 3 in the target's scene: outside the person nothing moves, but for the video's compression."""
    from measuring.judging import detect_clip
    from measuring.metrics import flicker

    out = tmp_path / "out.mp4"
    assert script(DanceDemo.main, "--gen-type", 3, "--checkpoint", weights[3], "--source", clip, "--target", clip,
                  "--output", out, "--layout", "result")[0] == 0
    pictures, real = list(VideoReader(out)), list(VideoReader(clip))
    assert flicker(pictures, detect_clip(real, 10).masks) <= 1


def test_continuity_plans_the_whole_dance(clip, target, tmp_path, script):
    outs = [tmp_path / "plain.mp4", tmp_path / "calm.mp4"]
    for out, words in zip(outs, ([], ["--continuity", 8]), strict=True):
        status, said, _ = script(DanceDemo.main, "--source", SAMPLE_SOURCE, "--target", clip, "--output", out,
                                 "--gen-type", 1, "--layout", "result", "--max-frames", 60, *words)
        assert status == 0 and "60 frames, 0 without" in said
    plain, calm = ([frame.astype(int) for frame in VideoReader(out)] for out in outs)

    def jumps(images):
        return sum(np.abs(a - b).mean() > 3 for a, b in itertools.pairwise(images))

    assert jumps(calm) < jumps(plain)
    status, _, error = script(DanceDemo.main, "--gen-type", 3, "--continuity", 1)
    assert status == 2 and "GEN_TYPE 1 only" in error
    for number in ("-1", "nan", "inf"):
        status, _, error = script(DanceDemo.main, "--gen-type", 1, "--continuity", number)
        assert status == 2 and "from 0 up" in error


def test_a_smaller_canvas_draws_the_same_dance_with_fewer_pixels(clip, target, tmp_path, script):
    films = {}
    for canvas in (None, 160, 4000):  # 4000 is more than the video has
        words = ["--canvas", canvas] if canvas else []
        out = tmp_path / f"{canvas}.mp4"
        assert script(DanceDemo.main, "--gen-type", 5, "--source", clip, "--target", clip, "--layout", "result",
                      "--max-frames", 3, "--output", out, *words)[0] == 0
        films[canvas] = np.stack(list(VideoReader(out))).astype(int)
    assert films[None].shape == films[160].shape and np.array_equal(films[None], films[4000])
    assert 0.2 < np.abs(films[None] - films[160]).mean() < 4
    for words in (["--gen-type", 1, "--canvas", 256], ["--canvas", 8], ["--canvas", 0]):
        status, _, error = script(DanceDemo.main, *words)
        assert status == 2 and "--canvas" in error and error.count("\n") == 1


def test_a_second_run_finds_no_poses_and_gives_the_same_frames(frames, clip, target, tmp_path, script, monkeypatch):
    """With the poses of a new source found, then from the cache with another GEN_TYPE between, then from a motion
    file."""
    source, motion = tmp_path / "source.mp4", tmp_path / "motion.npz"
    with VideoWriter(source, 12) as writer:
        for frame in frames[7:27]:
            writer.write(frame)
    words = ["--target", clip, "--layout", "result", "--no-window"]

    def danced(name, *more):
        out = tmp_path / name
        status, said, error = script(DanceDemo.main, *words, "--output", out, *more)
        assert status == 0 and "20 frames, 0 without a person" in said, error
        with VideoReader(out) as reader:
            assert reader.fps == 12
            return list(reader), error

    first, told = danced("first.mp4", "--source", source, "--save-motion", motion)
    assert "poses of source.mp4" in told  # a progress bar of its own
    monkeypatch.setattr(segments, "detect_everyone", lambda *_, **__: pytest.fail("poses are found again"))
    danced("other.mp4", "--source", source, "--gen-type", 1)
    for name, given in (("second.mp4", source), ("third.mp4", motion)):
        again, told = danced(name, "--source", given)
        assert "poses of" not in told and all(map(np.array_equal, first, again))


def test_sound_and_rate_are_the_sources(frames, clip, tmp_path, script):
    silent, source, out = tmp_path / "silent.mp4", tmp_path / "so und é.mp4", tmp_path / "out.mp4"
    with VideoWriter(silent, 10) as writer:
        for frame in frames[:20]:
            writer.write(frame)
    with VideoWriter(source, 10, audio_from=tone(tmp_path / "tone.mp4", "aac", 2)) as writer:
        for frame in frames[:20]:
            writer.write(frame)
    assert script(DanceDemo.main, "--source", source, "--target", clip, "--output", out, "--gen-type", 1)[0] == 0
    codec, samples, rate = sound(out)
    assert codec == "aac" and len(samples) / rate == pytest.approx(2, abs=0.1)
    with av.open(str(out)) as container:
        assert container.metadata["comment"] == "synthetic"


@pytest.mark.parametrize("gen_type", [2, 3, 4])
def test_the_learned_generators_dance(gen_type, clip, target, weights, tmp_path, script):
    out = tmp_path / "out.mp4"
    status, said, _ = script(DanceDemo.main, "--gen-type", gen_type, "--checkpoint", weights[gen_type],
                             "--source", clip, "--target", clip, "--output", out, "--max-frames", 8,
                             "--layout", "result")
    assert status == 0 and said.startswith(f"{out}: 8 frames, 0 without a person")
    with VideoReader(out) as reader:
        assert reader.size == target.frame_size and len(list(reader)) == 8


def test_constants_edited_by_hand_are_checked(script, monkeypatch):
    for name in ("GEN_TYPE", "LAYOUT"):
        monkeypatch.setattr(DanceDemo, name, 9)
        status, _, error = script(DanceDemo.main)
        assert status == 2 and "GEN_TYPE is one of [1, 2, 3, 4, 5]" in error


def test_from_another_folder_on_the_shipped_clips(tmp_path):
    """The README's command, from elsewhere, without a display."""
    out = tmp_path / "out.mp4"
    words = ["--output", out, "--max-frames", "20", "--gen-type", "1"]
    run = subprocess.run([sys.executable, ROOT / "DanceDemo.py", *words], cwd=tmp_path,
                         capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert len(list(VideoReader(out))) == 20 and list(tmp_path.iterdir()) == [out]


def test_errors_are_one_line_with_status_2(clip, target, script, tmp_path, frames):
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    copy = tmp_path / "copy.mp4"
    shutil.copy(clip, copy)
    nobody = tmp_path / "nobody.mp4"
    with VideoWriter(nobody, 10) as writer:
        for _ in range(5):
            writer.write(np.full_like(frames[0], 90))
    out = tmp_path / "out.mp4"
    out.write_bytes(b"earlier work")
    common = ["--target", clip, "--output", out]
    cases = [
        (["--gen-type", 9, *common], "9"), (["--gen-type", "x", *common], "x"),
        (["--source", tmp_path / "none.mp4", *common], "none.mp4"), (["--source", text, *common], "text.mp4"),
        (["--source", 77, *common], "camera 77"), (["--source", nobody, *common], "nobody is seen"),
        (["--source", clip, "--target", tmp_path / "none.mp4", "--output", out], "none.mp4"),
        (["--source", copy, "--target", clip, "--output", copy], "one of the inputs"),
        (["--source", copy, "--target", clip, "--output", tmp_path], "is a folder"),
        (["--source", copy, "--report", copy, *common], "one of the inputs"),
        (["--source", copy, "--report", out, *common], "each its own"),
        (["--source", copy, "--report", tmp_path / "r.mp4", *common], "end in .json"),
        (["--max-frames", "-1", *common], "--max-frames"),
        (["--gen-type", 1, "--checkpoint", copy, *common], "--checkpoint"),
        (["--gen-type", 3, "--source", copy, "--checkpoint", tmp_path / "no.pth", *common], "python GenVanillaNN.py"),
    ]
    for words, expected in cases:
        status, said, error = script(DanceDemo.main, *words, "--no-window")
        assert status == 2 and said == "", words
        line = error.splitlines()[-1]
        assert line.startswith("error: ") and expected in line and "Traceback" not in error, (words, error)
        assert out.read_bytes() == b"earlier work", words
    assert copy.stat().st_size == clip.stat().st_size
    assert {p.name for p in tmp_path.iterdir()} == {"text.mp4", "copy.mp4", "nobody.mp4", "out.mp4"}


def test_a_webcam_is_a_source_in_real_time(frames, clip, target, tmp_path, script, monkeypatch):
    """A stand-in for cv2.VideoCapture: 20 frames/s where it claims 30, and opened a second before it is needed. The
    webcam's number is the constant SOURCE, as students write it; the report has the true frame rate."""

    class Camera:
        taken = 0

        def __init__(self, index):
            assert index == 0

        def isOpened(self):
            return True

        def get(self, _):
            return 30.0

        def read(self):
            time.sleep(0.05)
            Camera.taken += 1
            return True, frames[Camera.taken % len(frames)]

        def release(self):
            Camera.taken = -1

    load = DanceDemo.VideoSkeleton.load
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    monkeypatch.setattr(DanceDemo.VideoSkeleton, "load", lambda video: (time.sleep(1), load(video))[1])
    monkeypatch.setattr(DanceDemo, "SOURCE", 0)
    out, report = tmp_path / "out.mp4", tmp_path / "r.json"
    status, said, _ = script(DanceDemo.main, "--target", clip, "--output", out, "--gen-type", 1, "--max-frames", 12,
                             "--no-window", "--report", report)
    assert status == 0 and "12 frames, 0 without a person" in said and Camera.taken == -1
    with VideoReader(out) as reader:
        gaps = np.diff([seconds for seconds, _ in reader.timed()])
    assert len(gaps) == 11 and gaps.min() > 0.04 and np.median(gaps) < 0.2 and gaps.max() < 0.9
    told = json.loads(report.read_text())
    assert told["video_fps"] == pytest.approx(1 / gaps.mean(), rel=0.01) and 0 < told["stage_ms"]["delay"] < 400


def test_a_picture_folder_is_a_source(frames, clip, tmp_path, script):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, frame in enumerate(frames[:5]):
        cv2.imwrite(str(folder / f"{i:03}.png"), frame)
    out = tmp_path / "out.mp4"
    assert script(DanceDemo.main, "--source", folder, "--target", clip, "--output", out, "--gen-type", 1)[0] == 0
    assert len(list(VideoReader(out))) == 5


WITHOUT_TORCH = """
import sys
for package in ("torch", "torchvision", "lightning_fabric", "tensorboard"):
    sys.modules[package] = None  # importing it raises ModuleNotFoundError, as if it were not installed
from pathlib import Path
from common import paths
from common.command_line import run
paths.CACHE, paths.DANCE = Path(sys.argv.pop(1)), Path(sys.argv.pop(1))
import DanceDemo
run(DanceDemo.main)
"""


@pytest.mark.parametrize("gen_type, checkpoint", [(1, False), (5, False), (5, True), (3, False)])
def test_nearest_frames_and_the_warp_need_no_pytorch(gen_type, checkpoint, clip, target, tmp_path):
    """Where it is missing, the generators without a network dance, and the others say what is missing."""
    out = tmp_path / "o.mp4"
    if checkpoint:
        (tmp_path / "DanceGenWarp.pth").touch()
    words = [sys.executable, "-c", WITHOUT_TORCH, paths.CACHE, tmp_path, "--gen-type", gen_type, "--source", clip,
             "--target", clip, "--output", out, "--max-frames", 5, "--no-window"]
    done = subprocess.run(list(map(str, words)), cwd=ROOT, capture_output=True, text=True, timeout=120)
    said = [line for line in done.stderr.splitlines() if "PyTorch" in line]
    if gen_type == 3:
        assert done.returncode == 2 and not out.exists() and len(said) == 1 and "requirements.txt" in said[0], done
    else:
        assert done.returncode == 0 and out.exists(), done.stderr
        assert len(said) == bool(checkpoint)
    assert "Traceback" not in done.stderr


def test_the_film_shows_what_a_plain_loop_draws(clip, target, script, tmp_path, monkeypatch):
    """The demo draws, puts in and writes only the part of a frame that changes, in several threads. A plain loop draws
    and puts in whole canvases, one after the other. Both give the same frames; the film shows them with little loss."""
    out, given, write = tmp_path / "out.mp4", [], VideoWriter.write

    def noted(self, image, *time):
        given.append(image.copy())
        write(self, image, *time)

    monkeypatch.setattr(VideoWriter, "write", noted)
    assert script(DanceDemo.main, "--gen-type", 5, "--source", clip, "--target", clip, "--output", out, "--layout",
                  "result", "--no-window")[0] == 0
    generator, scene = LimbWarp(target), Scene(target)
    placed = place(steady(load_track(clip)), target)
    generator.prepare(placed)
    for number, (image, film) in enumerate(zip(given, VideoReader(out), strict=True)):
        picture = generator.generate(placed.skeleton(number))
        plain = scene.put(Patch(picture, generator.mask, len(picture)))
        assert np.abs(image.astype(int) - plain).max() <= 1
        luma, shown = (cv2.cvtColor(each, cv2.COLOR_BGR2GRAY).astype(float) for each in (image, film))
        assert 10 * np.log10(255 ** 2 / ((luma - shown) ** 2).mean()) > 42
    assert len(given) == 40
