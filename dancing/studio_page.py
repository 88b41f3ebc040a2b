"""The HTML of the page (DanceStudio.py): its style sheet, and the panels that show a job, the target and the source."""

import base64
import contextlib
import functools
import html
import shlex
from pathlib import Path

import cv2
import numpy as np

from common.command_line import UserError
from motion.track import frame_rate
from video.decoding import read_index
from VideoReader import VideoReader, latest_frame
from VideoSkeleton import advice, movements

CSS = Path(__file__).with_name("studio_page.css")
# Some of Gradio's own scripts fetch files from other sites (its video cutter does). This makes the browser refuse that.
HEAD = "<meta http-equiv='Content-Security-Policy' " \
       "content=\"default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'\">"


def img(image, width, alt):
    """An <img> that contains its image (uint8 H x W x 3 BGR), made at most `width` pixels wide."""
    scale = min(1, width / image.shape[1])
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    data = base64.b64encode(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 85])[1]).decode()
    return f'<img alt="{alt}" src="data:image/jpeg;base64,{data}">'


@functools.lru_cache(16)
def growing_picture(path, size):
    """An <img> of a PNG file or a film's last frame, or "". size: in bytes, so that a file that grew is read again."""
    image = cv2.imread(str(path)) if path.suffix == ".png" else latest_frame(path)
    return "" if image is None else img(image, 960, "the result so far")


def curve(name, values):
    """A line chart of the values of a loss, with the last value as text."""
    low, span = min(values), max(max(values) - min(values), 1e-9)
    points = " ".join(f"{100 * i / max(1, len(values) - 1):.1f},{30 - 28 * (value - low) / span:.1f}"
                      for i, value in enumerate(values))
    line = f'<svg viewBox="0 0 100 32" preserveAspectRatio="none"><polyline points="{points}"/></svg>'
    return f'<figure>{html.escape(name)} <b>{values[-1]:g}</b>{line if len(values) > 1 else ""}</figure>'


def job_panel(job):
    """A Job (common/jobs.py): progress bar and time left, messages, command line, curves and picture."""
    progress, bar, picture = job.progress, "", ""
    if job.state in ("running", "stopping"):
        done, total = int(progress.get("done") or 0), int(progress.get("total") or 0)
        text = f"{progress['what'] or ''} {done}{f' of {total}' * bool(total)}" if progress else "starting"
        text += f", {progress['left']} left" if total and progress["left"] not in (None, "?") else ""
        bar = f"<progress {f'value={done} max={total}' * bool(total)}></progress><p class=quiet>{html.escape(text)}</p>"
    state = {"waiting": "waits for its turn", "stopping": "stopping, keeps what there is"}.get(job.state, job.state)
    messages = "".join(f'<p class="{"quiet" if line.startswith("warning: ") else "error"}">{html.escape(line)}</p>'
                       for line in job.messages)
    curves = f'<div class=curves>{"".join(curve(*entry) for entry in job.curves.items())}</div>'
    with contextlib.suppress(FileNotFoundError):  # the file is not there yet, or has been moved to its final place
        picture = growing_picture(job.picture, job.picture.stat().st_size) if job.picture else ""
    return (f'<div class="job"><p><span class=state>{state}</span><b>{html.escape(job.title)}</b></p>{bar}{messages}'
            f'<code>{html.escape(shlex.join(["python", *job.words]))}</code>{curves}{picture}</div>')


@functools.lru_cache(4)
def target_panel(target):
    """What was found in a target (VideoSkeleton): six pictures, how varied its movement is, and advice."""
    strip = "".join(img(target.skeleton(i).draw(target.image(i)), 256, "the target with the skeleton")
                    for i in np.linspace(0, len(target) - 1, 6).round().astype(int))
    bars = "".join(f'{name}<span class=bar><i style="width: {share:.1%}"></i></span><b>{share:.0%}</b>'
                   for name, share in movements(target).items())
    lines = advice(target) or ["Good material: varied and whole, and the camera stands still."]
    return (f'<div class="strip">{strip}</div><p>A person is seen in <b>{len(target)} of {target.frames_read} frames'
            f'</b>. How varied the movement is, in shares of the time:</p><div class="bars">{bars}</div>'
            f'{"".join(f"<p>→ {html.escape(line)}</p>" for line in lines)}')


@functools.lru_cache(4)
def source_panel(clip):
    """Length, size and frame rate of a source (a Clip), or why it can't be read."""
    try:
        with VideoReader(clip) as reader:
            seconds = read_index(clip.path).seconds
            seconds = seconds[clip.holds(seconds)]
            rate = frame_rate(seconds - seconds[0], reader.fps) if len(seconds) else reader.fps
            length = f"{seconds[-1] - seconds[0] + 1 / rate:.1f} seconds, " if len(seconds) else ""
            return f"<p>{length}{reader.size[0]} x {reader.size[1]} pixels, {rate:.4g} frames a second</p>"
    except UserError as error:
        return f'<p class="error">error: {html.escape(str(error))}</p>'
