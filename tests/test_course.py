"""The teacher's page: its sixth generator is run and judged as the page says."""

import importlib
import json
import re
import sys

import numpy as np

import DanceDemo
import Evaluate
from common.paths import ROOT
from dancing import generators
from measuring import judging
from VideoReader import VideoReader

PAGE = (ROOT / "docs" / "course.md").read_text()


def test_the_sixth_generator_dances_and_is_judged(clip, target, script, monkeypatch, tmp_path):
    file, line = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
    (tmp_path / "GenMine.py").write_text(file)
    monkeypatch.syspath_prepend(tmp_path)
    entry = eval(line.strip().rstrip(","), vars(generators))
    monkeypatch.setitem(generators.GENERATORS, 6, entry)
    monkeypatch.setattr(judging, "SLOW_EVERY", 100)  # only the last frame
    try:
        film, scores = tmp_path / "o.mp4", tmp_path / "s"
        status, _, error = script(DanceDemo.main, "--gen-type", 6, "--source", clip, "--target", clip, "--no-window",
                                  "--output", film, "--max-frames", 5)
        assert status == 0 and len(list(VideoReader(film))) == 5, error
        status, said, error = script(Evaluate.main, "--gen-types", "1,6", "--source", clip, "--target", clip,
                                     "--truth", clip, "--output", scores)
        assert status == 0 and "| GenMine |" in said, error
        rows = {(row["generator"], row["task"], row["region"]): row["metrics"]
                for row in json.loads((tmp_path / "s.json").read_text())["rows"]}
        # As the page says: each frame is its own nearest one, and a mean of several differs from it.
        assert rows["GenMine", "cross", "frame"]["L1"] > rows["GenNearest", "cross", "frame"]["L1"]
        mine = importlib.import_module("GenMine")
        nearest = np.linalg.norm(target.reduced - target.skeleton(9).reduced, axis=1).argsort()[:mine.NEAREST]
        mean = np.mean([target.image(index) for index in nearest], 0)
        assert np.abs(mine.GenMine(target).generate(target.skeleton(9)) - mean).max() <= 0.5
    finally:
        sys.modules.pop("GenMine", None)


def test_every_name_on_the_page_is_in_its_file():
    """Files that are named exist, and names in the same cell are defined in them."""
    cells = [cell for row in PAGE.splitlines() if row.startswith("| ") for cell in row.split("|")]
    named = 0
    for cell in cells:
        files = re.findall(r"`(\S+\.py)`", cell)
        text = "".join((ROOT / file).read_text() for file in files)
        for name in re.findall(r"`(\w+)`", cell) if files else ():
            assert re.search(rf"\b{name}\b", text), (name, files)
            named += 1
    assert named >= 8
