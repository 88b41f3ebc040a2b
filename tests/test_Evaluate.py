"""The scoreboard on a clip whose truth is known: the person who follows herself."""

import argparse
import contextlib
import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

import DanceDemo
import Evaluate
import measuring.real
from common.paths import SAMPLE_JOINTS, SAMPLE_SOURCE, SAMPLE_TARGET, SAMPLE_TRUTH
from measuring import judging
from measuring.scoreboard import Row, markdown_table, write_curves
from video.film import VideoWriter
from VideoReader import VideoReader


@pytest.fixture(scope="module")
def small(frames, tmp_path_factory):
    """A video of 22 frames of 192 x 192: few and small, since the learned metric is slow."""
    path = tmp_path_factory.mktemp("small") / "small.mp4"
    with VideoWriter(path, 10) as writer:
        for frame in frames[:22]:
            writer.write(cv2.resize(frame, (192, 192), interpolation=cv2.INTER_AREA))
    return path


@pytest.fixture(scope="module")
def evaluation(small, tmp_path_factory):
    """What a run of Evaluate.py has printed, and the folder with what it has written, as score.*."""
    folder, said = tmp_path_factory.mktemp("evaluation"), io.StringIO()
    words = ["--gen-types", "1,3", "--source", small, "--target", small, "--truth", small, "--output", folder / "score"]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.setattr(sys, "argv", ["Evaluate.py", *map(str, words)])
        patch.setattr(judging, "SLOW_EVERY", 100)  # only the last frame
        Evaluate.main()
    return SimpleNamespace(said=said.getvalue(), folder=folder)


def test_tables_and_json(evaluation):
    assert "GenVanillaFromSkeim is left out: " in evaluation.said
    assert "python GenVanillaNN.py --target" in evaluation.said and "| cross, person, raw |" in evaluation.said
    told = json.loads((evaluation.folder / "score.json").read_text())
    assert set(told) == {"machine", "commit", "date", "rows"} and told["machine"]["cores"] > 0
    assert set(told["rows"][0]) == {"task", "generator", "minutes", "region", "metrics"}
    rows = {(row["task"], row["generator"], row["region"]): row["metrics"] for row in told["rows"]}
    assert {key[1] for key in rows} == {"GenNearest", "mean frame", "background plate"}
    assert {key[2] for key in rows if key[0] == "cross"} == {"frame", "person", "raw", "faces"}
    nearest, plate = (rows["cross", name, "person"] for name in ("GenNearest", "background plate"))
    assert set(nearest) == {"L1", "PSNR", "SSIM", "MS-SSIM", "ST-LPIPS", "tOF", "AKD", "MKR", "jitter"}
    assert nearest["PSNR"] > plate["PSNR"] + 5 and nearest["ST-LPIPS"] < 0.1 < plate["ST-LPIPS"]
    assert nearest["AKD"] < 3 and nearest["MKR"] < 0.05 < 0.9 < plate["MKR"] and plate["jitter"] is None
    # In the self task the frames are held out, so the nearest frame can't be the one that is asked for.
    assert rows["self", "GenNearest", "frame"]["L1"] > 1


def test_film_sheet_and_bars(evaluation):
    names = {path.name for path in evaluation.folder.iterdir()}
    assert names == {"score.json", "score.png", "score.mp4", "score-bars.png"}
    assert cv2.imread(str(evaluation.folder / "score.png")).shape == (24 + 5 * 200, 3 * 200, 3)
    assert len(list(VideoReader(evaluation.folder / "score.mp4"))) == 22
    assert (evaluation.folder / "score-bars.png").stat().st_size > 5000


@pytest.mark.parametrize("edited", [Path("mine.mp4"), 0])
def test_the_shipped_clips_are_not_the_demos_constants(edited, small, script, monkeypatch, tmp_path):
    """Whatever the demo's SOURCE is: the shipped clip is the default, and only the shipped pair has its truth."""
    runs = []
    monkeypatch.setattr(DanceDemo, "SOURCE", edited)
    monkeypatch.setattr(Evaluate, "evaluate", lambda args, outputs: runs.append(args))
    for words in ([], ["--truth", SAMPLE_TRUTH], ["--truth", small], ["--source", small], ["--target", small],
                  ["--source", "mine.mp4", "--truth", SAMPLE_TRUTH]):
        assert script(Evaluate.main, "--output", tmp_path / "score", *words)[0] == 0
    assert (runs[0].source, runs[0].target) == (SAMPLE_SOURCE, SAMPLE_TARGET)
    assert [Evaluate.truth_files(args) for args in runs] == [
        (SAMPLE_TRUTH, SAMPLE_JOINTS), (SAMPLE_TRUTH, SAMPLE_JOINTS), (small, None), (None, None), (None, None),
        (SAMPLE_TRUTH, None)]


def test_after_several_trainings_the_table_has_the_last_and_the_curves_have_all(tmp_path):
    assert Evaluate.minutes_list("1,2.5") == [1, 2.5]
    for text in ("3,1", "0", "1,1", "x", ""):
        with pytest.raises(argparse.ArgumentTypeError):
            Evaluate.minutes_list(text)

    def row(generator, minutes, psnr):
        return Row("cross", generator, minutes, "person", {"PSNR": psnr, "ST-LPIPS": 0.1, "AKD": None})

    rows = [row("GenNearest", None, 20.0), *(row("GenWarp", m, 21.0 + m) for m in (0, 1, 3)), row("GenGAN", 1, 19.0)]
    assert [line.split(" | ")[0] for line in markdown_table(rows, "cross", "person")[3:]] == [
        "| GenNearest", "| GenWarp, untrained", "| GenWarp", "| GenGAN"]
    assert "| GenWarp | 24 | 0.1 | - |" in markdown_table(rows, "cross", "person")
    write_curves(rows, "cross", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 5000


def test_a_truth_of_another_length_or_size_is_refused(small, clip, script, tmp_path):
    words = ["--gen-types", 1, "--source", clip, "--target", small, "--output", tmp_path / "score"]
    for truth, why in ((small, "frame by frame"), (clip, "filmed as the target")):
        status, _, error = script(Evaluate.main, *words, "--truth", truth)
        assert status == 2 and why in error.splitlines()[-1]


def test_no_input_is_overwritten(clip, script, tmp_path):
    mine = tmp_path / "me.mp4"
    mine.write_bytes(clip.read_bytes())
    status, _, error = script(Evaluate.main, "--source", clip, "--target", mine, "--output", tmp_path / "me")
    assert status == 2 and "one of the inputs" in error and mine.read_bytes() == clip.read_bytes()


@pytest.fixture(scope="module")
def real():
    with VideoReader(SAMPLE_TRUTH) as reader:
        images = [cv2.resize(frame, (256, 256), interpolation=cv2.INTER_AREA)
                  for frame, _ in zip(reader, range(21), strict=False)]
    return judging.detect_clip(images, 30)


@pytest.fixture
def judged(real, monkeypatch):
    """{region: metrics} of images against the real ones, moved by `shift`."""
    def judge(images, shift=(0, 0)):
        return {row.region: row.metrics for row in
                judging.judge("it", None, {"cross": images, "self": images}, {"cross": (real, shift)})}

    monkeypatch.setattr(judging, "SLOW_EVERY", 20)
    return judge


def test_the_constant_shift_is_undone_for_the_person_alone(real, judged):
    told = judged([np.roll(image, (4, 9), (0, 1)) for image in real.images], (-9, -4))
    assert told["person"]["PSNR"] > told["raw"]["PSNR"] + 6 and told["person"]["ST-LPIPS"] < 0.03
    assert told["person"]["AKD"] < 2 < 8 < told["raw"]["AKD"] < 12
    assert told["person"]["jitter"] == pytest.approx(1, abs=0.2)
    assert told["frame"]["L1"] > 3


def test_a_frozen_clip_wins_nothing_but_the_calm_of_its_background(real, judged):
    soft = judged([cv2.GaussianBlur(image, (0, 0), 1.5) for image in real.images])
    still = judged([real.images[10]] * 21)
    person = still["person"]
    assert person["tOF"] > soft["person"]["tOF"] and person["AKD"] > soft["person"]["AKD"]
    assert person["PSNR"] < soft["person"]["PSNR"] and person["jitter"] < 0.5  # 1 is ideal
    assert still["frame"]["flicker"] == 0


def test_the_boxes_hold_the_truths_joints_and_stay_inside():
    rng = np.random.default_rng(0)
    for _ in range(100):
        joints = rng.uniform(0, 512, 2) + rng.normal(0, 60, (13, 2))
        joints = np.clip(joints, 0, 511).astype(np.float32)
        rows, columns = judging.person_box(joints, np.ones(13, bool), 512)
        assert 0 <= rows.start < rows.stop <= 512 and 0 <= columns.start < columns.stop <= 512
        assert rows.stop - rows.start == columns.stop - columns.start >= 176
        low, high = joints.min(0), joints.max(0)
        assert columns.start <= low[0] + 1 and high[0] <= columns.stop + 1 and rows.start <= low[1] + 1


@pytest.fixture(scope="module")
def real_clip(frames, tmp_path_factory):
    """A clip of 112 frames of 192 x 160 that shows the 22 movements five times: its end was seen before."""
    path = tmp_path_factory.mktemp("real") / "real.mp4"
    with VideoWriter(path, 10) as writer:
        for number in range(112):
            frame = cv2.resize(frames[number % 22], (192, 192), interpolation=cv2.INTER_AREA)
            writer.write(frame[16:176])
    return path


def test_a_real_clip_is_judged_against_its_own_end(real_clip, tmp_path, script, monkeypatch):
    monkeypatch.setattr(measuring.real, "SLOW_EVERY", 20)
    status, out, _ = script(Evaluate.main, "--real", real_clip, "--gen-types", "1,5", "--output", tmp_path / "b")
    told = json.loads((tmp_path / "b.json").read_text())["rows"]
    rows = {row["generator"]: row["metrics"] for row in told if row["region"] == "real"}
    assert status == 0 and "| real, mean |" in out and {row["region"] for row in told} == {"real", "mean"}
    # The target has shown each frame of the end, so the nearest frame is nearly the true one.
    nearest, warp = rows["GenNearest"], rows["GenWarp"]
    assert nearest["ST-LPIPS 256"] < 0.05 and nearest["PSNR"] > 25 and warp["PSNR"] > 20
    assert abs(warp["height"] - 1) < 0.03 and warp["aside"] < 0.02 and 0.7 < warp["sharpness"] < 1.3
    sheet = cv2.imread(str(tmp_path / "b-real.png"))
    assert sheet.shape[1] == 3 * (4 * measuring.real.DETAIL + 4) and len(sheet) > 3 * measuring.real.DETAIL


def test_real_clips_that_cannot_be_judged_are_refused(small, real_clip, tmp_path, refused):
    same = tmp_path / "real.mp4"
    same.write_bytes(real_clip.read_bytes())
    for words, hint in (((small,), "frames"), ((real_clip, same), "rename"), ((tmp_path / "none.mp4",), "no video")):
        line = refused(words, Evaluate.main, "--real", *words, "--output", tmp_path / "r")
        assert hint in line, line
    assert not list(tmp_path.glob("r*.json"))
