"""What Evaluate.py and Benchmark.py show and keep of their rows: JSON, tables, contact sheet, film, charts."""

import json
import os
import platform
import subprocess
from datetime import date
from pathlib import Path

import cv2
import numpy as np

from CommandLine import ROOT
from Storage import whole
from VideoWriter import VideoWriter

ROWS, CELL = 5, 200  # frames on the contact sheet, pixels of one there and in the film
CHART = ["ST-LPIPS", "PSNR", "AKD", "tOF", "jitter"]
CURVES = ["ST-LPIPS", "PSNR", "AKD"]


def machine():
    """{"processor", "cores", "system", "python"} of this machine."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():  # Linux: platform tells the architecture only
        names = [line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        processor = names[0] if names else processor
    return {"processor": processor, "cores": os.cpu_count(), "system": platform.platform(),
            "python": platform.python_version()}


def commit():
    """Short hash of the code's commit, with "+" if it was changed since; "" outside git."""
    words = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(words, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def save(rows, path):
    """Write {"machine", "commit", "date", "rows"} as JSON, whole or not at all; returns it."""
    told = {"machine": machine(), "commit": commit(), "date": date.today().isoformat(), "rows": rows}
    with whole(path) as part:
        part.write_text(json.dumps(told, indent=1) + "\n")
    return told


def label(name, trained):
    return f"{name}, untrained" if trained == 0 else name


def table(rows, task, region):
    """Markdown lines of the rows of one task and region."""
    rows = final(rows, task, region)
    if not rows:
        return []
    names = list(rows[0]["metrics"])
    where = {"frame": "whole frame", "person": "person", "raw": "person, raw"}.get(region, region)
    lines = ["", f"| {task}, {where} | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for row in rows:
        values = " | ".join("-" if row["metrics"][name] is None else f"{row['metrics'][name]:.4g}" for name in names)
        lines.append(f"| {label(row['generator'], row['minutes'])} | {values} |")
    return lines


def final(rows, task, region):
    """The rows of a task and region, without those of generators that were trained for longer later."""
    rows = [row for row in rows if (row["task"], row["region"]) == (task, region)]
    last = {row["generator"]: row["minutes"] for row in rows}
    return [row for row in rows if row["minutes"] in (0, last[row["generator"]])]


def small(image):
    """The image inside a CELL x CELL square, its shape kept."""
    scale = CELL / max(image.shape[:2])
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    height, width = image.shape[:2]
    top, left = (CELL - height) // 2, (CELL - width) // 2
    return cv2.copyMakeBorder(image, top, CELL - height - top, left, CELL - width - left, cv2.BORDER_CONSTANT)


def pictures(columns, fps, outputs):
    """Write the film and the contact sheet. columns: {name: CELL x CELL images}, all equally many."""
    head = np.full((24, CELL * len(columns), 3), 255, np.uint8)
    for number, name in enumerate(columns):
        cv2.putText(head, name, (number * CELL + 4, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    rows = [np.hstack(row) for row in zip(*columns.values(), strict=True)]
    with VideoWriter(outputs[".mp4"], fps) as writer:
        for row in rows:
            writer.write(np.vstack([head, row]))
    shown = np.linspace(0, len(rows) - 1, ROWS + 2).round().astype(int)[1:-1]
    with whole(outputs[".png"]) as part:
        part.write_bytes(cv2.imencode(".png", np.vstack([head, *(rows[n] for n in shown)]))[1])


def _pyplot():
    import matplotlib  # here: only the programs that measure need it

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def bars(rows, task, path):
    """Bar chart of the CHART metrics over the person."""
    pyplot = _pyplot()
    rows = final(rows, task, "person")
    names = [label(row["generator"], row["minutes"]) for row in rows][::-1]
    figure, axes = pyplot.subplots(1, len(CHART), figsize=(3 * len(CHART), 3), layout="constrained")
    arrow = {"PSNR": "higher is better", "jitter": "1 is ideal"}
    for axis, name in zip(axes, CHART, strict=True):
        axis.barh(names, [row["metrics"][name] or 0 for row in rows][::-1])
        axis.set_title(f"{name} ({arrow.get(name, 'lower is better')})", fontsize=9)
        axis.tick_params(labelsize=8, labelleft=axis is axes[0])
    figure.suptitle(f"{task} task, over the person", fontsize=10)
    with whole(path) as part:
        figure.savefig(part, dpi=110)


def curves(rows, task, path):
    """Quality over the person against minutes of training, each generator a line."""
    pyplot = _pyplot()
    rows = [row for row in rows if (row["task"], row["region"]) == (task, "person")]
    longest = max(row["minutes"] or 0 for row in rows)
    figure, axes = pyplot.subplots(1, len(CURVES), figsize=(4 * len(CURVES), 3.5), layout="constrained")
    for axis, metric in zip(axes, CURVES, strict=True):
        for name in dict.fromkeys(row["generator"] for row in rows):
            points = [(row["minutes"], row["metrics"][metric]) for row in rows if row["generator"] == name]
            if points[0][0] is None:  # learns nothing
                axis.axhline(np.nan if points[0][1] is None else points[0][1], linestyle=":", color="grey")
                axis.text(longest, points[0][1] or np.nan, name, fontsize=7, ha="right", va="bottom")
            else:
                axis.plot(*zip(*points, strict=True), "o-", label=name)
        better = "higher" if metric == "PSNR" else "lower"
        axis.set(xlabel="minutes of training", title=f"{metric} ({better} is better)")
        axis.legend(fontsize=7)
    figure.suptitle(f"{task} task, over the person", fontsize=10)
    with whole(path) as part:
        figure.savefig(part, dpi=110)


def growth(curves, path):
    """Cost against size, log-log, with the exponent of a power law fitted to each."""
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for label, points in curves.items():
        sizes, costs = np.array(points).T
        exponent = np.polyfit(np.log(sizes), np.log(costs), 1)[0]
        axes[int("training" in label)].loglog(sizes, costs, "o-", label=f"{label}: size^{exponent:.2f}")
    for axis, what in zip(axes, (("poses", "ms a query"), ("pixels", "ms an image")), strict=True):
        axis.set(xlabel=what[0], ylabel=what[1])
        axis.grid(True, which="both", alpha=0.3)
        axis.legend(fontsize=8)
    with whole(path) as part:
        figure.savefig(part, dpi=110)
