"""What Benchmark.py does with its figures; the figures themselves are not for tests."""

import json

import Benchmark
import Scoreboard
from CommandLine import ROOT


def test_rows_ratios_json_and_plot(tmp_path, capsys):
    table = Benchmark.Table()
    table.add("speed", 30.0, "frames/s", 20.0, "another")
    table.add("time", 2.0, "ms", 8.0, "another")
    table.add("alone", 1.0, "s")
    assert [row["ratio"] for row in table.rows] == [1.5, 4.0, None]
    assert capsys.readouterr().out.splitlines()[-1] == "| alone, s | 1 |  |  |"
    told = Scoreboard.save(table.rows, tmp_path / "b.json")
    assert json.loads((tmp_path / "b.json").read_text()) == told and set(told) == {"machine", "commit", "date", "rows"}
    curves = {"k-d tree query": [(10, 1.0), (1000, 2.0)], "training GEN_TYPE 3": [(64, 1.0), (128, 4.0)]}
    Scoreboard.growth(curves, tmp_path / "b.png")
    assert (tmp_path / "b.png").stat().st_size > 5000


def test_nearest_measures_the_same_answers(target):
    table = Benchmark.Table()
    curves = Benchmark.nearest(table, target.reduced, [100, 1000])
    assert [size for size, _ in curves["brute force"]] == [100, 1000] and len(table.rows) >= 3


def test_an_input_is_no_output(script):
    status, _, error = script(Benchmark.main, "--json", ROOT / "data" / "sample" / "target.mp4")
    assert status == 2 and "one of the inputs" in error
