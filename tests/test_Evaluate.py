"""The scoreboard on a clip whose truth is known: the person who follows herself."""

import argparse
import json

import cv2
import numpy as np
import pytest
from conftest import SAMPLE

import Evaluate
import Scoreboard
from Metrics import StLpips
from VideoReader import VideoReader


def test_tables_pictures_and_json(clip, target, weights, script, tmp_path):
    words = ["--gen-types", "1,3", "--source", clip, "--target", clip, "--output", tmp_path / "score"]
    status, said, _ = script(Evaluate.main, *words, "--truth", clip)
    assert status == 0 and "GenVanillaFromSkeim is left out: " in said and "python GenVanillaNN.py --target" in said
    told = json.loads((tmp_path / "score.json").read_text())
    assert set(told) == {"machine", "commit", "date", "rows"} and told["machine"]["cores"] > 0
    rows = {(row["task"], row["generator"], row["region"]): row["metrics"] for row in told["rows"]}
    assert {key[1] for key in rows} == {"GenNearest", "mean frame", "background plate"}
    assert {key[2] for key in rows if key[0] == "cross"} == {"frame", "person", "raw"}
    nearest, plate = (rows["cross", name, "person"] for name in ("GenNearest", "background plate"))
    assert set(nearest) == {"L1", "PSNR", "SSIM", "MS-SSIM", "ST-LPIPS", "tOF", "AKD", "MKR", "jitter"}
    assert nearest["PSNR"] > plate["PSNR"] + 5 and nearest["ST-LPIPS"] < 0.1 < plate["ST-LPIPS"]
    assert nearest["AKD"] < 6 and nearest["MKR"] < 0.05 < 0.9 < plate["MKR"] and plate["jitter"] is None
    # the self task's frames are held out: nearest may not answer with the frame that is asked for
    assert rows["self", "GenNearest", "frame"]["L1"] > 1
    assert cv2.imread(str(tmp_path / "score.png")).shape == (24 + 5 * 200, 3 * 200, 3)
    assert len(list(VideoReader(tmp_path / "score.mp4"))) == 40 and (tmp_path / "score-bars.png").stat().st_size > 5000
    assert {path.name for path in tmp_path.iterdir()} == {"score.json", "score.png", "score.mp4", "score-bars.png"}


def test_after_several_trainings_the_table_has_the_last_and_the_curves_have_all(tmp_path):
    assert Evaluate.minutes("1,2.5") == [1, 2.5]
    for text in ("3,1", "0", "1,1", "x", ""):
        with pytest.raises(argparse.ArgumentTypeError):
            Evaluate.minutes(text)

    def row(generator, trained, psnr):
        return {"task": "cross", "generator": generator, "minutes": trained, "region": "person",
                "metrics": {"PSNR": psnr, "ST-LPIPS": 0.1, "AKD": None}}

    rows = [row("GenNearest", None, 20.0), *(row("GenWarp", m, 21.0 + m) for m in (0, 1, 3)), row("GenGAN", 1, 19.0)]
    assert [line.split(" | ")[0] for line in Scoreboard.table(rows, "cross", "person")[3:]] == [
        "| GenNearest", "| GenWarp, untrained", "| GenWarp", "| GenGAN"]
    assert "| GenWarp | 24 | 0.1 | - |" in Scoreboard.table(rows, "cross", "person")
    Scoreboard.curves(rows, "cross", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 5000


def test_a_truth_of_another_length_is_refused(clip, target, script, tmp_path):
    status, _, error = script(Evaluate.main, "--gen-types", 1, "--source", clip, "--target", clip,
                              "--truth", SAMPLE / "truth.mp4", "--output", tmp_path / "score")
    assert status == 2 and "frame by frame" in error.splitlines()[-1]


def test_no_input_is_overwritten(clip, script, tmp_path):
    mine = tmp_path / "me.mp4"
    mine.write_bytes(clip.read_bytes())
    status, _, error = script(Evaluate.main, "--source", clip, "--target", mine, "--output", tmp_path / "me")
    assert status == 2 and "one of the inputs" in error and mine.read_bytes() == clip.read_bytes()


@pytest.fixture(scope="module")
def real():
    with VideoReader(SAMPLE / "truth.mp4") as reader:
        images = [cv2.resize(frame, (256, 256), interpolation=cv2.INTER_AREA)
                  for number, frame in enumerate(reader) if number < 31]
    return Evaluate.Clip(images, 30)


def test_the_constant_shift_is_undone_for_the_person_alone(real):
    moved = Evaluate.Clip([np.roll(image, (4, 9), (0, 1)) for image in real.images], 30)
    told = Evaluate.judge(real, moved, (-9, -4), StLpips(), raw=True)
    assert told["person"]["PSNR"] > told["raw"]["PSNR"] + 6 and told["person"]["ST-LPIPS"] < 0.03
    assert told["person"]["AKD"] < 2 < 8 < told["raw"]["AKD"] < 12
    assert told["person"]["jitter"] == pytest.approx(1, abs=0.2)
    assert told["frame"]["L1"] > 3


def test_a_frozen_clip_wins_nothing_but_the_calm_of_its_background(real):
    blurred = Evaluate.Clip([cv2.GaussianBlur(image, (0, 0), 1.5) for image in real.images], 30)
    frozen = Evaluate.Clip([real.images[15]] * 31, 30)
    soft, still = (Evaluate.judge(real, clip, (0, 0), StLpips(), raw=False) for clip in (blurred, frozen))
    person = still["person"]
    assert person["tOF"] > soft["person"]["tOF"] and person["AKD"] > soft["person"]["AKD"]
    assert person["PSNR"] < soft["person"]["PSNR"] and person["jitter"] < 0.5  # away from 1, the ideal
    assert still["frame"]["flicker"] == 0


def test_the_boxes_hold_the_truths_joints_and_stay_inside():
    rng = np.random.default_rng(0)
    for _ in range(100):
        points = rng.uniform(0, 512, 2) + rng.normal(0, 60, (13, 2))
        points = np.clip(points, 0, 511).astype(np.float32)
        rows, columns = Evaluate.person_box(points, np.ones(13, bool), 512)
        assert 0 <= rows.start < rows.stop <= 512 and 0 <= columns.start < columns.stop <= 512
        assert rows.stop - rows.start == columns.stop - columns.start >= 176
        low, high = points.min(0), points.max(0)
        assert columns.start <= low[0] + 1 and high[0] <= columns.stop + 1 and rows.start <= low[1] + 1
