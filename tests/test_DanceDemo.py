"""The demo end to end: frames, sound, report, skeletons, and how it says no."""

import json
import shutil
import subprocess
import sys
import time

import av
import cv2
import numpy as np
import pytest
from conftest import SAMPLE
from test_VideoReader import sound, tone

import DanceDemo
from CommandLine import ROOT
from Skeleton import REDUCED
from VideoReader import VideoReader, VideoWriter


def test_side_by_side_with_report_and_skeletons(clip, target, script, tmp_path):
    out, report, skeletons = tmp_path / "out.mp4", tmp_path / "r.json", tmp_path / "s.npz"
    status, said, _ = script(DanceDemo.main, "--gen-type", 1, "--source", clip, "--target", clip, "--output", out,
                             "--no-window", "--report", report, "--skeletons", skeletons)
    assert status == 0
    assert said.startswith(f"{out}: 40 frames, 0 without a person, ") and said.count("\n") == 1
    with VideoReader(out) as reader:
        pictures = list(reader)
        assert reader.fps == 10 and reader.size == (512 * target.size // 512 + target.size, target.size)
    assert len(pictures) == 40
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
    with np.load(SAMPLE / "joints.npz") as true:
        assert np.linalg.norm(joints - true["target_uv"][:240:6], axis=2).mean() < 10


def test_result_layout_is_the_generated_image_and_equals_the_nearest_frames(clip, target, script, tmp_path):
    out = tmp_path / "out.mp4"
    assert script(DanceDemo.main, "--source", clip, "--target", clip, "--output", out, "--layout", "result",
                  "--max-frames", 6, "--gen-type", 1)[0] == 0
    with VideoReader(out) as reader:
        pictures = list(reader)
    assert len(pictures) == 6
    for number, picture in enumerate(pictures):
        difference = [np.abs(picture.astype(int) - target.image(i)).mean() for i in range(len(target))]
        assert min(difference) < 3  # a frame of the target, but for the video's compression
        assert abs(int(np.argmin(difference)) - number) <= 2  # that very frame, or one of its like


def test_frames_without_a_person_repeat_the_last_image(frames, clip, target, tmp_path, script):
    source, out, empty = tmp_path / "source.mp4", tmp_path / "out.mp4", np.full_like(frames[0], 90)
    with VideoWriter(source, 15) as writer:
        for frame in [empty, empty, *frames[:4], empty, empty, empty, *frames[4:6]]:
            writer.write(frame)
    status, said, _ = script(DanceDemo.main, "--source", source, "--target", clip, "--output", out, "--gen-type", 1,
                             "--layout", "result")
    assert status == 0 and "11 frames, 5 without a person" in said
    with VideoReader(out) as reader:
        pictures = [p.astype(int) for p in reader]
        assert reader.fps == 15
    assert len(pictures) == 11
    assert np.abs(pictures[0] - target.image(0)).mean() < 3  # before the first person: the target's first frame
    for index in (6, 7, 8):
        assert np.abs(pictures[index] - pictures[5]).mean() < 1


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
        assert reader.size == (target.size, target.size) and len(list(reader)) == 8


def test_constants_edited_by_hand_are_checked(script, monkeypatch):
    for name in ("GEN_TYPE", "LAYOUT"):
        monkeypatch.setattr(DanceDemo, name, 9)
        status, _, error = script(DanceDemo.main)
        assert status == 2 and "GEN_TYPE is one of [1, 2, 3, 4]" in error


def test_evaluate_against_a_truth(clip, target, script, tmp_path):
    """A person following herself by nearest frames is her own truth, but for the detector's two modes."""
    import Evaluate

    words = ["--gen-types", 1, "--source", clip, "--target", clip, "--sheet", tmp_path / "sheet.png"]
    status, said, _ = script(Evaluate.main, *words, "--truth", clip)
    psnr = float(said.splitlines()[-1].split("|")[3])
    assert status == 0 and psnr > 20 and cv2.imread(str(tmp_path / "sheet.png")).shape == (26 + 4 * 200, 4 * 200, 3)
    status, _, error = script(Evaluate.main, *words, "--truth", SAMPLE / "truth.mp4")
    assert status == 2 and "not as many frames" in error.splitlines()[-1]


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
    """A stand-in for cv2.VideoCapture: 20 frames/s where it claims 30, and opened a second before it is needed."""

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
    out = tmp_path / "out.mp4"
    status, said, _ = script(DanceDemo.main, "--source", 0, "--target", clip, "--output", out, "--gen-type", 1,
                             "--max-frames", 12, "--no-window")
    assert status == 0 and "12 frames, 0 without a person" in said and Camera.taken == -1
    with VideoReader(out) as reader:
        gaps = np.diff([seconds for seconds, _ in reader.timed()])
    assert len(gaps) == 11 and gaps.min() > 0.04 and np.median(gaps) < 0.2 and gaps.max() < 0.9


def test_a_picture_folder_is_a_source(frames, clip, tmp_path, script):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, frame in enumerate(frames[:5]):
        cv2.imwrite(str(folder / f"{i:03}.png"), frame)
    out = tmp_path / "out.mp4"
    assert script(DanceDemo.main, "--source", folder, "--target", clip, "--output", out, "--gen-type", 1)[0] == 0
    assert len(list(VideoReader(out))) == 5
