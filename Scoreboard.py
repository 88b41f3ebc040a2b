"""What Evaluate.py shows of its rows: tables, the contact sheet, the film side by side, bar charts, curves."""

import cv2
import numpy as np

from VideoReader import VideoWriter

ROWS, CELL = 5, 200  # frames on the contact sheet, pixels of one there and in the film
CHART = ["ST-LPIPS", "PSNR", "AKD", "tOF", "jitter"]
CURVES = ["ST-LPIPS", "PSNR", "AKD"]


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
    outputs[".png"].write_bytes(cv2.imencode(".png", np.vstack([head, *(rows[n] for n in shown)]))[1])


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
    figure.savefig(path, dpi=110)


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
    figure.savefig(path, dpi=110)
