"""What the page shows, as HTML and as values for its own script: a chosen video, a job, a target, results, files."""

import base64
import contextlib
import functools
import html
import json
import re
import shlex
import time
from pathlib import Path
from urllib.parse import quote

import cv2
import numpy as np

from dancing.generators import GENERATORS
from dancing.studio_files import dance_files, dance_names, dances, size_text, trainings, uploads
from dancing.studio_videos import first_look, length_and_facts, playable, thumbnail
from VideoReader import latest_frame
from VideoSkeleton import advice, movements

CSS = Path(__file__).with_name("studio_page.css")
SCRIPTS = [Path(__file__).with_name(f"studio_{name}.js") for name in ("page", "videos", "gallery")]
DOOR = Path(__file__).with_name("studio_door.html")
# Some of Gradio's own scripts fetch files from other sites (its video cutter does). This makes the browser refuse that.
POLICY = "<meta http-equiv='Content-Security-Policy' " \
         "content=\"default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'\">"
SHOWN = 6  # pictures of a target
AROUND = 0.15  # of a person's size: so much is shown around the person in them
STATES = {"waiting": "waits for its turn", "stopping": "stopping, keeps what there is"}  # all others are words already
# What the scripts say to people with a terminal, and what it means on the page. The script's own words are in Details.
TRANSLATIONS = [(r"^(error|warning): ", ""), (r"""(['"])(?:[^'"]*/)?([^/]+?\.\w+)\1""", r"“\2”"),
                (r"[^\s']*data/Dance/studio/(?:[^/\s;:']+/)*", ""),
                (r"; train (them|it|this one) with: .*|; use: .*", "; press Train"),
                (r" \((another one: --person|python )[^)]*\)", ""),
                (r"the one who is (\w+) at its beginning", r"the one who is \1 (choose another one in the picture)"),
                (r"choose another --from and --to", "choose another part"), (r"; --to is after --from", ""),
                (r"; run: pip install .*", ""), (r"; (give it rights, )?(make )?room( or|, or) .*", "; make room"),
                (r"GEN_TYPE (\d)", lambda match: f"“{GENERATORS[int(match[1])].title}”")]


def head():
    """What the page has in its <head>: the policy and its own scripts."""
    return POLICY + "<script>" + "\n".join(path.read_text(encoding="utf-8") for path in SCRIPTS) + "</script>"


EXPECTED = "going on without its network"  # what a warning says where nothing was trained, which is no fault


def for_people(line):
    """A script's error or warning in the words of the page, which has buttons instead of flags."""
    for pattern, words in TRANSLATIONS:
        line = re.sub(pattern, words, line)
    return line[:1].upper() + line[1:]


def url(path):
    """The address of a file that the page serves."""
    return f"gradio_api/file={quote(Path(path).as_posix())}"


def jpeg_url(data):
    """The address of a picture that is contained in it. data: JPEG bytes."""
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()


def img(image, width, alt):
    """An <img> that contains its image (uint8 H x W x 3 BGR), made at most `width` pixels wide."""
    scale = min(1, width / image.shape[1])
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
    return f'<img alt="{alt}" src="{jpeg_url(data)}">'


def details(key, summary, content, opened=False):
    """A part that is folded away until somebody opens it. key: under which the script of the page remembers that;
    opened: whether it is open when a tab sees it for the first time."""
    return f'<details data-key="{key}"{" data-opened" * opened}><summary>{summary}</summary>{content}</details>'


def video_value(key, clip, later):
    """A chosen video (a Clip) for the script of the page. later: a Later, so what takes time is None at first. The
    people and their picture are None again after another start was chosen, until they are found there."""
    known = later.get(length_and_facts, clip.path)
    seconds, shape, facts, error = known or (0.0, 1.0, "", "")
    look = later.get(first_look, clip.path, clip.begin) if known and not error else None
    film = later.get(playable, clip.path) if known and not error else None
    return {"key": key, "name": clip.path.name, "film": film and url(film), "seconds": round(seconds, 2),
            "shape": round(shape, 3), "facts": facts, "error": error and for_people(error),
            "begin": clip.begin, "end": clip.end,
            "picture": jpeg_url(look.picture) if look and look.picture else None,
            "people": look.people(clip.person) if look else None}


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
    """A Job (common/jobs.py): progress bar and time left, messages and picture; command line and curves are folded."""
    progress, bar, picture, stop = job.progress, "", "", ""
    if job.state in ("running", "stopping"):
        done, total = int(progress.get("done") or 0), int(progress.get("total") or 0)
        text = f"{progress['what'] or ''} {done}{f' of {total}' * bool(total)}" if progress else "starting"
        text += f", {progress['left']} left" if total and progress["left"] not in (None, "?") else ""
        bar = f"<progress {f'value={done} max={total}' * bool(total)}></progress><p class=quiet>{html.escape(text)}</p>"
        with contextlib.suppress(FileNotFoundError):  # the file is not there yet, or has been moved to its final place
            picture = growing_picture(job.picture, job.picture.stat().st_size) if job.picture else ""
    if job.state in ("running", "waiting"):
        message = html.escape(json.dumps({"do": "stop", "number": job.number}))
        stop = f'<button class=small data-send="{message}">Stop</button>'
    messages = "".join(f'<p class="{"quiet" if line.startswith("warning: ") else "error"}">'
                       f'{html.escape(for_people(line))}</p>' for line in job.messages if EXPECTED not in line)
    curves = f'<div class=curves>{"".join(curve(*entry) for entry in job.curves.items())}</div>' * bool(job.curves)
    said = "".join(f"<p class=quiet>{html.escape(line)}</p>" for line in job.messages)
    command = f'<code>{html.escape(shlex.join(["python", *job.words]))}</code>'
    line = f"<b>{html.escape(job.title)}</b><span class=state>{STATES.get(job.state, job.state)}</span>"
    return (f'<div class="job {job.state}">{stop}{details(f"job-{job.number}", line, command + said + curves)}'
            f'{bar}{messages}{picture}</div>')


def person_window(target, index):
    """Rows and columns, as slices, of what is shown of a target's canvas image: the person, with something around, and
    nothing outside the video."""
    box, size = target.box, target.size
    places = target.joints[index, :, :2]
    half = np.ptp(places, axis=0).max() * (0.5 + AROUND) * np.array([0.75, 1])
    middle = (places.min(0) + places.max(0)) / 2
    low = np.maximum(np.maximum(0, -np.array(box[:2]) / box[2]), middle - half)
    high = np.minimum(np.minimum(1, (np.array(target.frame_size) - box[:2]) / box[2]), middle + half)
    (left, top), (right, bottom) = (low * size).astype(int), (high * size).astype(int)
    return np.s_[top:bottom, left:right]


@functools.lru_cache(4)
def target_panel(target):
    """What was found in a target (VideoSkeleton): advice and, folded, pictures and how varied its movement is."""
    indices = np.linspace(0, len(target) - 1, SHOWN).round().astype(int)
    strip = "".join(img(target.skeleton(i).draw(target.image(i))[person_window(target, i)], 256,
                        "the target with the skeleton") for i in indices)
    bars = "".join(f'{name}<span class=bar><i style="width: {share:.1%}"></i></span><b>{share:.0%}</b>'
                   for name, share in movements(target).items())
    lines = advice(target)
    hints = f"{len(lines)} hint{'s' * (len(lines) > 1)} for a better recording" if lines else \
        "good material: varied and whole, and the camera stands still"
    found = (f'<ul>{"".join(f"<li>{html.escape(line)}</li>" for line in lines)}</ul><div class="strip">{strip}</div>'
             f'<p>How varied the movement is, in shares of the time:</p><div class="bars">{bars}</div>')
    return (f'<p class=found>A person is seen in <b>{len(target)} of {target.frames_read} frames</b>.</p>'
            f'{details("target", f"What was found: {hints}", found)}')


def comparison(title, verdict, picture, opened):
    """What a training has brought. verdict: one line; picture: the Path of what dancing/before_after.py has drawn;
    opened: as for `details`."""
    image = growing_picture(picture, picture.stat().st_size).replace("the result so far", "before, after, real frame")
    columns = "<span>before</span><span>after</span><span>real frame</span>"
    key = f"training-{picture.stat().st_mtime_ns}"
    return details(key, f"What the training of “{html.escape(title)}” has brought",
                   f"<p>{html.escape(verdict[:1].upper() + verdict[1:])}.</p>"
                   f"<figure class=comparison><figcaption>{columns}</figcaption>{image}</figure>", opened)


def gallery_value(later):
    """The dances for the script of the page, the newest first. later: a Later."""
    titles = {entry.name: entry.title for entry in GENERATORS.values()}
    values = []
    for kept in dances():
        film, result, motion = dance_files(kept.path)
        generator, target, source = dance_names(film)
        picture, middle, moving = later.get(thumbnail, result) or (b"", (50, 50), None)
        values.append({"key": kept.key, "target": target, "source": source, "film": url(film), "result": url(result),
                       "motion": url(motion) if motion.exists() else None, "size": size_text(kept.size),
                       "about": f"{titles.get(generator, generator)}, "
                                f"{time.strftime('%d %b, %H:%M', time.localtime(kept.made))}",
                       "middle": f"{middle[0]}% {middle[1]}%", "picture": jpeg_url(picture) if picture else "",
                       "moving": url(moving) if moving else ""})
    return values


def kept_panel():
    """What the page keeps on the disk, with sizes, and buttons that delete it."""
    films, others = dances(), [*uploads(), *trainings()]
    total = sum(kept.size for kept in [*films, *others])
    if not total:
        return ""
    rows = "".join(f'<li><span>{html.escape(kept.name)}</span><span class=quiet>{size_text(kept.size)}</span>'
                   f'{_delete_button("Delete", {"do": "delete", "key": kept.key})}</li>' for kept in others)
    if films:
        rows += (f'<li><span>{len(films)} dance{"s" * (len(films) > 1)}</span><span class=quiet>'
                 f'{size_text(sum(kept.size for kept in films))}</span><span class=quiet>in Results</span></li>')
    text = "<p class=quiet>With a video goes what was found in it. The samples stay.</p>"
    return details("kept", f"Kept on this computer: {size_text(total)}", f'{text}<ul class=kept>{rows}</ul>'
                   f'{_delete_button("Delete everything", {"do": "clear"})}')


def _delete_button(label, message):
    return (f'<button class=small data-send="{html.escape(json.dumps(message))}" data-confirm="Really delete?">'
            f'{label}</button>')


def phone_panel(address, code):
    """How a phone opens the page. address: for other machines, or None where only this one is let in; code: its QR code
    (see common/door.py), or None."""
    if not address:
        return details("phone", "Open it on a phone", "<p>Now this page is for this computer only. To open it on a "
                       "phone in the same network, end it and start it with a password:</p><code>python DanceStudio.py "
                       '--host 0.0.0.0 --password "a secret"</code>')
    drawing = code.svg_inline(border=3, light="#fff", omitsize=True)
    return details("phone", "Open it on a phone", f"<div class=qr>{drawing}<p>In the same network, point the phone's "
                   f"camera at this, or type <b>{html.escape(address)}</b> there. The password is asked for once.</p>"
                   "</div>")
