"""What Benchmark.py does with its figures; the figures themselves are not for tests."""

import json
import sys
import time

import cv2
import numpy as np
import pytest

import Benchmark
from common import paths
from common.command_line import UserError
from common.paths import SAMPLE_TARGET
from dancing.generators import GENERATORS
from measuring import references
from measuring.references import CAMERA_FPS, RecordedCamera, empty_cache, median_seconds, run_demo, write_untrained
from measuring.scoreboard import FigureTable, save_rows, write_growth
from VideoReader import VideoReader


def test_rows_ratios_json_and_plot(tmp_path, capsys):
    table = FigureTable()
    table.add("speed", 30.0, "frames/s", 20.0, "another")
    table.add("time", 2.0, "ms", 8.0, "another")
    table.add("alone", 1.0, "s")
    assert [row.ratio for row in table.rows] == [1.5, 4.0, None]
    assert capsys.readouterr().out.splitlines()[-1] == "| alone, s | 1 |  |  |"
    save_rows(table.rows, tmp_path / "b.json")
    told = json.loads((tmp_path / "b.json").read_text())
    assert set(told) == {"machine", "commit", "date", "rows"}
    assert told["rows"][2] == {"name": "alone", "value": 1.0, "unit": "s", "reference": None, "against": None,
                               "ratio": None}
    curves = {("poses", "ms a query"): {"k-d tree query": [(10, 1.0), (1000, 2.0)]},
              ("pixels", "ms an image"): {"training GEN_TYPE 3": [(64, 1.0), (128, 4.0)]}}
    write_growth(curves, tmp_path / "b.png")
    assert (tmp_path / "b.png").stat().st_size > 5000


def test_nearest_measures_the_same_answers(target):
    table = FigureTable()
    curves = Benchmark.nearest(table, target.reduced, [100, 20000])
    assert [size for size, _ in curves["brute force"]] == [100, 20000] and len(table.rows) == 3


def test_what_is_measured_with(target, tmp_path):
    calls = []
    assert len(median_seconds(2, lambda: calls.append(1), lambda: calls.append(2))) == 2 and calls == [1, 2, 1, 2]
    before = paths.CACHE
    with empty_cache() as cache:
        assert cache == paths.CACHE and not list(cache.iterdir())
    assert before == paths.CACHE and not cache.exists()
    for entry in list(GENERATORS.values())[1:]:
        generator = entry.make(target, write_untrained(entry, target, 64, tmp_path / "weights.pth"))
        assert generator.generate(target.skeleton(0)).shape == (target.size, target.size, 3)


def test_a_run_of_the_demo_gives_its_peak_memory_and_its_report_or_its_last_error(clip, target):
    peak, report = run_demo(1, clip, clip)
    assert report["frames"] == 40 and (100 < peak < 10_000 or sys.platform != "linux")
    with pytest.raises(UserError, match=r"^the demo failed: error: .*none\.mp4"):
        run_demo(1, "none.mp4", clip)


def test_an_input_is_no_output(script):
    status, _, error = script(Benchmark.main, "--json", SAMPLE_TARGET)
    assert status == 2 and "one of the inputs" in error


def test_a_recorded_camera_gives_waiting_frames_first_and_then_keeps_its_pace(monkeypatch):
    monkeypatch.setattr(references, "bare_read", None)  # it would open the camera that this one stands in for
    camera = RecordedCamera(0)
    begin = camera._begin
    time.sleep(0.5)  # 15 frames, most of which are lost
    numbers, times = [], []
    for _ in range(8):
        there, image = camera.read()
        assert there and image.shape == (480, 640, 3)
        numbers.append(camera._number)
        times.append(time.monotonic() - begin)
    assert numbers[0] >= 10 and np.diff(numbers).min() >= 1
    assert all(moment >= number / CAMERA_FPS - 1e-3 for number, moment in zip(numbers, times, strict=True))


@pytest.mark.parametrize("size", [(160, 90), (90, 160)])
def test_an_enlarged_video_shows_the_whole_one_in_the_middle(size, clip, frames, tmp_path):
    references.enlarge(clip, tmp_path / "large.mp4", *size, 5)
    with VideoReader(tmp_path / "large.mp4") as reader:
        large = list(reader)
    assert len(large) == 5 and reader.size == size
    top, left = (size[1] - 90) // 2, (size[0] - 90) // 2
    shown, real = large[2][top:top + 90, left:left + 90], cv2.resize(frames[2], (90, 90), interpolation=cv2.INTER_CUBIC)
    assert np.abs(shown.astype(int) - real).mean() < 6


def test_a_live_dance_is_measured(target, capsys):
    table = FigureTable()
    Benchmark.live(table, target, 5)
    assert [row.unit for row in table.rows] == ["frames/s", "ms", "ms"] * 2
    assert all(0 < row.value < 5000 for row in table.rows)
