"""What Benchmark.py does with its figures; the figures themselves are not for tests."""

import json
import sys

import pytest

import Benchmark
from common import paths
from common.command_line import UserError
from common.paths import SAMPLE_TARGET
from dancing.generators import GENERATORS
from measuring.references import empty_cache, median_seconds, run_demo, write_untrained
from measuring.scoreboard import FigureTable, save_rows, write_growth


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
    curves = {"k-d tree query": [(10, 1.0), (1000, 2.0)], "training GEN_TYPE 3": [(64, 1.0), (128, 4.0)]}
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
