"""What Evaluate.py and Benchmark.py show and keep of their rows: tables, JSON, charts, a film and a contact sheet."""

import contextlib
import json
import os
import platform
import re
import subprocess
from collections import namedtuple
from datetime import date
from pathlib import Path

import cv2
import numpy as np

from common.files import atomic_write, write_png
from common.paths import ROOT
from picture.canvas import crop
from video.film import VideoWriter

SHEET_ROWS = 5  # frames on the contact sheet
CELL = 200  # pixels of one picture on the contact sheet and in the film
LOWER_IS_BETTER = ("ms", "s", "MB")  # units of figures
REGION_TITLES = {"frame": "whole frame", "raw": "person, raw"}  # of tables, where they differ from the region's name
BARS = ["ST-LPIPS", "PSNR", "AKD", "tOF", "jitter"]  # the metrics of the bar chart
CURVES = ["ST-LPIPS", "PSNR", "AKD"]  # the metrics of the curves
BETTER = {"PSNR": "higher is better", "jitter": "1 is ideal"}  # of the others, lower is better

# A row of Evaluate.py: {metric: value, or None where it can't be measured} of one generator in one region of one task.
# minutes: of training in this run, or None.
Row = namedtuple("Row", "task generator minutes region metrics")
# A row of Benchmark.py. against: what the reference is. The last three are None where there is no reference.
Figure = namedtuple("Figure", "name value unit reference against ratio")


class FigureTable:
    """Collects Figures and prints each as a line of Markdown when it is known."""

    def __init__(self):
        self.rows = []
        print("| what | here | reference | times better |\n|---|---|---|---|", flush=True)

    def add(self, name, value, unit, reference=None, against=None):
        ratio, words = None, " | "
        if reference is not None:
            ratio = reference / value if unit in LOWER_IS_BETTER else value / reference
            words = f"{reference:.4g} {against} | {ratio:.2f}"
        rounded = [None if number is None else float(f"{number:.4g}") for number in (value, reference, ratio)]
        self.rows.append(Figure(name, rounded[0], unit, rounded[1], against, rounded[2]))
        print(f"| {name}, {unit} | {value:.4g} | {words} |", flush=True)


def save_rows(rows, path):
    """Write {"machine", "commit", "date", "rows"} as JSON. rows: list of Row or Figure. Returns two strings: processor
    and cores, date and commit. The commit is that of the code, with "+" if the code was changed since."""
    cpuinfo = Path("/proc/cpuinfo")  # on Linux, platform knows the architecture only
    found = re.search(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else None
    processor = found[1] if found else platform.processor() or platform.machine()
    machine = {"processor": processor, "cores": os.cpu_count(), "system": platform.platform(),
               "python": platform.python_version()}
    today, commit = date.today().isoformat(), ""
    words = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--exclude=*"]
    with contextlib.suppress(OSError):  # git is not installed everywhere
        commit = subprocess.run(words, capture_output=True, text=True).stdout.strip()
    content = {"machine": machine, "commit": commit, "date": today, "rows": [row._asdict() for row in rows]}
    with atomic_write(path) as part:
        part.write_text(json.dumps(content, indent=1) + "\n")
    return f"{processor}, {os.cpu_count()} cores", f"{today}, {commit}"


def row_label(generator, minutes):
    """The words for a generator after so many minutes of training (None: it was not trained in this run)."""
    return f"{generator}, untrained" if minutes == 0 else generator


def final_metrics(rows, task, region):
    """{label: metrics} of a task and region: of a trained generator, untrained and after its longest training only."""
    rows = [row for row in rows if (row.task, row.region) == (task, region)]
    last = {row.generator: row.minutes for row in rows}
    return {row_label(row.generator, row.minutes): row.metrics for row in rows
            if row.minutes in (0, last[row.generator])}


def mean_rows(rows):
    """Rows of the region "mean": the mean over all regions of the rows of the same task, generator and minutes."""
    groups = {}
    for row in rows:
        groups.setdefault((row.task, row.generator, row.minutes), []).append(row.metrics)
    return [Row(*group, "mean", {name: _mean([metrics[name] for metrics in members]) for name in members[0]})
            for group, members in groups.items()]


def _mean(values):
    """The mean of those values that could be measured, or None."""
    values = [value for value in values if value is not None]
    return round(float(np.mean(values)), 4) if values else None


def markdown_table(rows, task, region):
    """The Markdown lines of the rows of one task and region; none where there are no such rows."""
    lines = []
    for label, metrics in final_metrics(rows, task, region).items():
        title = f"{task}, {REGION_TITLES.get(region, region)}"
        lines = lines or ["", f"| {title} | {' | '.join(metrics)} |", "|---" * (len(metrics) + 1) + "|"]
        values = ["-" if value is None else f"{value:.4g}" for value in metrics.values()]
        lines.append(f"| {label} | {' | '.join(values)} |")
    return lines


@contextlib.contextmanager
def _chart(path, title, count, width, height):
    """Yield `count` axes of a PNG, each width x height inches, that is written when the block ends."""
    import matplotlib.figure  # imported here: only the programs that measure need it

    figure = matplotlib.figure.Figure((width * count, height), layout="constrained")
    figure.suptitle(title, fontsize=10)
    yield figure.subplots(1, count)
    with atomic_write(path) as part:
        figure.savefig(part, dpi=110)


def write_bars(rows, task, path):
    """Write a bar chart of the BARS metrics of a task over the person. rows: list of Row."""
    final = dict(reversed(final_metrics(rows, task, "person").items()))
    with _chart(path, f"{task} task, over the person", len(BARS), 3, 3) as axes:
        for axis, metric in zip(axes, BARS, strict=True):
            axis.barh(list(final), [metrics[metric] or 0 for metrics in final.values()])
            axis.set_title(f"{metric} ({BETTER.get(metric, 'lower is better')})", fontsize=9)
            axis.tick_params(labelsize=8, labelleft=axis is axes[0])


def write_curves(rows, task, path):
    """Write the CURVES metrics of a task over the person against the minutes of training: a line for each generator
    that was trained, and a dotted level for each other one."""
    rows = [row for row in rows if (row.task, row.region) == (task, "person")]
    longest = max(row.minutes or 0 for row in rows)
    with _chart(path, f"{task} task, over the person", len(CURVES), 4, 3.5) as axes:
        for axis, metric in zip(axes, CURVES, strict=True):
            for name in dict.fromkeys(row.generator for row in rows):
                points = [(row.minutes, row.metrics[metric]) for row in rows if row.generator == name]
                minutes, values = np.array(points, float).T  # None becomes NaN, which is not drawn
                if np.isnan(minutes[0]):
                    axis.axhline(values[0], linestyle=":", color="grey")
                    axis.text(longest, values[0], name, fontsize=7, ha="right", va="bottom")
                else:
                    axis.plot(minutes, values, "o-", label=name)
            axis.set(xlabel="minutes of training", title=f"{metric} ({BETTER.get(metric, 'lower is better')})")
            axis.legend(fontsize=7)


def write_growth(curves, path):
    """Write the cost against the size, log-log, with the exponent of the power law fitted to each curve. curves:
    {(what the size counts, what the cost is): {label: [(size, cost)]}}, a chart for each pair."""
    with _chart(path, None, len(curves), 4.2, 4) as axes:
        for axis, ((size, cost), lines) in zip(axes, curves.items(), strict=True):
            for label, points in lines.items():
                sizes, costs = np.array(points).T
                exponent = np.polyfit(np.log(sizes), np.log(costs), 1)[0]
                axis.loglog(sizes, costs, "o-", label=f"{label}: size^{exponent:.2f}")
            axis.set(xlabel=size, ylabel=cost)
            axis.grid(True, which="both", alpha=0.3)
            axis.legend(fontsize=8)


def cell(image):
    """An image (uint8 H x W x 3 BGR) with its shape kept inside a black square of CELL x CELL px."""
    height, width = image.shape[:2]
    side = max(height, width)
    return crop(image, ((width - side) // 2, (height - side) // 2, side), CELL)


def write_pictures(columns, fps, output):
    """Write a film (.mp4) of the columns side by side and some of its frames as a contact sheet (.png), below their
    names. columns: {name: list of N cells}. output: the path of both, without the endings."""
    head = title_line(columns, CELL)
    rows = [np.hstack(row) for row in zip(*columns.values(), strict=True)]
    with VideoWriter(Path(f"{output}.mp4"), fps) as writer:
        for row in rows:
            writer.write(np.vstack([head, row]))
    shown = np.linspace(0, len(rows) - 1, SHEET_ROWS + 2).round().astype(int)[1:-1]
    write_png(Path(f"{output}.png"), np.vstack([head, *(rows[number] for number in shown)]))


def title_line(names, width):
    """A white line, uint8 24 x (len(names) * width) x 3, that names the columns below it."""
    head = np.full((24, width * len(names), 3), 255, np.uint8)
    for number, name in enumerate(names):
        cv2.putText(head, name, (number * width + 4, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return head
