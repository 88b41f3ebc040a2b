"""A page in the browser on which one person does the whole job: target, source, generator, dance.

    pip install -r requirements-page.txt
    python DanceStudio.py                                       # then open http://127.0.0.1:7860; Ctrl-C ends it
    python DanceStudio.py --host 0.0.0.0 --password "a secret"  # for other machines too, which must say the password

The page computes nothing: each button queues the command line of a script (Jobs.py) and shows it, and the page tells
what that says of itself. All tabs show the same; they may come and go. Stop is the script's own Ctrl-C.
What comes and what is made stays in data/Dance/studio: uploads, a folder of weights for each target, dances.
"""

import base64
import contextlib
import functools
import hmac
import html
import os
import signal
import time
from datetime import datetime
from pathlib import Path

import cv2
import numpy as np

import DanceDemo
from CommandLine import ROOT, Parser, UserError, need, positive, run, stay_here, writable_folder
from Jobs import Jobs
from VideoReader import VideoReader, latest_frame
from VideoSkeleton import VideoSkeleton, advice, cache_folder, movements

HOST, PORT = "127.0.0.1", 7860
LOCAL = ("127.0.0.1", "localhost")  # this machine's names for itself
UPLOAD_LIMIT = 2000.0  # MB of one video
MINUTES = 5  # of training, to begin with
EPOCHS = "1000000"  # more than there is time for: the minutes end a training
STUDIO = ROOT / "data" / "Dance" / "studio"
UPLOADS, DANCES = STUDIO / "uploads", STUDIO / "dances"
SAMPLES = {"target": DanceDemo.TARGET, "source": DanceDemo.SOURCE}
CONSENT = "The people in both videos are me, or have agreed to this."
STEPS = {1: ("Target", "Who is to be seen: one person, whole, the camera still, half a minute or more of movement."),
         2: ("Source", "The dance: one person, the whole body in the picture."),
         3: ("Generator", "How the picture is made. Training goes on where it stopped; Stop keeps the best so far."),
         4: ("Dance", "The target dances like the source. The film is marked as synthetic.")}
# GEN_TYPE: (what it is, what it is good for, whose checkpoints it reads, its training command), the best first
GENERATORS = {
    5: ("Warp", "Sharp and smooth. Works at once; minutes of training make it cleaner.", "GenWarp", ["GenWarp.py"]),
    1: ("Nearest frame", "Real pictures and nothing to train. Jumps from one to the next.", None, None),
    3: ("Network, from a drawing", "Smooth motion, but small and blurry.", "GenVanillaNN", ["GenVanillaNN.py"]),
    4: ("GAN", "The network above against an adversary, to see what that adds.", "GenGAN", ["GenGAN.py"]),
    2: ("Network, from 26 numbers", "The smallest one, to see how a network learns.", "GenVanillaNN",
        ["GenVanillaNN.py", "--input", "ske"])}
CSS = """
.gradio-container, .gradio-container .main {max-width: 46rem !important; margin: auto; padding: .5rem !important}
.html-container {padding: 0 !important} h1 {font-size: 1.7rem; margin: 1.5rem 0 .3rem}
.step {border: 1px solid var(--border-color-primary); border-radius: 14px; padding: 1.3rem; gap: .9rem; margin: .5rem 0}
.step h2 {font-size: 1.25rem; margin: 0 0 .2rem} .step h2 i {font-style: normal; color: #0d9488; margin-right: .6rem}
.quiet, .state {color: var(--body-text-color-subdued)} .prose p {margin: 0 0 .4rem} .job .state {float: right}
.error {color: var(--error-text-color); font-weight: 600; overflow-wrap: anywhere} .job {margin-bottom: 1rem}
.job code {display: block; font-size: .78rem; color: inherit; background: var(--background-fill-secondary); border: 0;
           border-radius: 6px; padding: .45rem .6rem; overflow-wrap: anywhere}
.prose img {border-radius: 8px; width: 100%; display: block; margin: 0} .job img {margin-top: .8rem}
.strip {display: grid; grid-template-columns: repeat(3, 1fr); gap: .4rem; margin-bottom: .8rem}
.bars {display: grid; grid-template-columns: 11rem 1fr 2.6rem; gap: .2rem .6rem; align-items: center; margin: 0 0 .8rem}
.bars b {text-align: right; font-weight: 400} .bar i {display: block; height: 100%; background: #14b8a6}
progress, .bar {display: block; width: 100%; height: .5rem; border: 0; border-radius: 4px; overflow: hidden;
                appearance: none; background: var(--border-color-primary); color: #14b8a6; margin: .3rem 0}
progress::-webkit-progress-bar {background: none} progress::-webkit-progress-value {background: #14b8a6}
progress::-moz-progress-bar {background: #14b8a6} progress:indeterminate::-moz-progress-bar {width: 0}
.curves {display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .8rem; margin-top: .8rem}
.curves figure {margin: 0; font-size: .85rem} .curves svg {width: 100%; height: 3rem; margin: 0}
.curves polyline {fill: none; stroke: #14b8a6; stroke-width: 2; vector-effect: non-scaling-stroke}
.choices label {width: 100%; align-items: flex-start !important} .choices label span {white-space: pre-line}
.choices label span::first-line {font-weight: 600} [aria-label^="Trim video"], [aria-label^="Reset v"] {display: none}
#target video, #source video {max-height: 17rem} @media (max-width: 500px) {
    .step {padding: .9rem} .bars {grid-template-columns: 9.2rem 1fr 2.4rem; font-size: .85rem}}
"""
# Gradio's own scripts would fetch some things from elsewhere (its video cutter does): the browser lets none through
HEAD = "<meta http-equiv='Content-Security-Policy' " \
       "content=\"default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'\">"
loaded = functools.lru_cache(4)(VideoSkeleton.load)


class Desk:
    """What the page is about: the two videos that were chosen, and the command lines that its buttons queue."""

    def __init__(self):
        self.videos, self.jobs = dict.fromkeys(SAMPLES), Jobs()

    def choose(self, role, video):
        self.videos[role] = Path(video) if video else None
        if video and role == "target":
            self.jobs.add(1, f"Looking at {Path(video).name}", ["VideoSkeleton.py", self.videos[role]])

    def train(self, gen_type, minutes):
        target = self.videos["target"]
        path = weights(target, gen_type)
        words = [*GENERATORS[gen_type][3], "--target", target, "--checkpoint", path, "--minutes", f"{minutes:g}",
                 "--epochs", EPOCHS]
        words += ["--resume"] * path.with_name(f"{path.stem}-last.pth").exists()
        self.jobs.add(3, f"Training {GENERATORS[gen_type][0]}", words, path.with_name(f"{path.stem}-samples.png"))

    def dance(self, gen_type):
        target, source = self.videos["target"], self.videos["source"]
        name = f"{DanceDemo.GENERATORS[gen_type][0]}-{target.stem[:40]}-like-{source.stem[:40]}"
        film, result, motion = dance_files(DANCES / f"{name}-{datetime.now():%Y%m%d-%H%M%S}.mp4")
        path = weights(target, gen_type)
        words = ["DanceDemo.py", "--no-window", "--gen-type", str(gen_type), "--source", source, "--target", target,
                 "--output", film, "--result", result, "--skeletons", motion]
        if gen_type not in (1, 5) or path.exists():  # without, 5 works, and of the others the demo says what to do
            words += ["--checkpoint", path]
        self.jobs.add(4, f"Dancing with {GENERATORS[gen_type][0]}", words, film.with_name(f".{film.name}.part"))

    def target(self):
        """The VideoSkeleton of the target, once its job is done; None before."""
        jobs, video = self.jobs.current(1), self.videos["target"]
        return loaded(video) if video and jobs and jobs[-1].state == "done" else None


def dance_files(film):
    """What a dance leaves: source and result side by side, the result alone, the skeletons."""
    return film, film.with_name(f"{film.stem}-result.mp4"), film.with_suffix(".npz")


@functools.lru_cache(64)
def weights(video, gen_type):
    """Where a generator's checkpoint for this target belongs."""
    return STUDIO / cache_folder(video).name / f"{DanceDemo.GENERATORS[gen_type][0]}.pth"


@functools.lru_cache(64)
def trained(path, changed, learned, target):
    """One line on the checkpoint at `path`, which is there since it `changed`."""
    import Checkpoint  # torch, which takes seconds

    try:
        state = Checkpoint.load_checkpoint(path, learned, "Train, below", target)
        return f"● trained on this target: {state['step']} steps, {state['held_out']['psnr']:.1f} dB on held-out frames"
    except UserError as error:
        return f"○ {error}"


def choices(target):
    """The five generators as the page lists them, with their training state where there is a target."""
    listed = []
    for gen_type, (title, good_for, learned, _) in GENERATORS.items():
        state = "" if learned else "\n● nothing to train"
        if target and learned:
            path = weights(target.path, gen_type)
            state = "\n" + (trained(path, path.stat().st_mtime, learned, target) if path.exists() else
                            f"○ not trained on this target yet{', works all the same' * (gen_type == 5)}")
        listed.append((f"{title}\n{good_for}{state}", gen_type))
    return listed


def results():
    """The dances that are complete, the newest first: [(how it is listed, its path)]."""
    films = sorted((film.stat().st_mtime, film) for film in DANCES.glob("*.mp4") if dance_files(film)[1].exists())
    return [(f"{datetime.fromtimestamp(when):%d %b, %H:%M} · {film.stem[:-16]}", str(film))
            for when, film in films[::-1]]


def picture(image, width, alt):
    """An <img> of a BGR image, at most so wide, that needs no file."""
    scale = min(1, width / image.shape[1])
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    data = base64.b64encode(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 85])[1]).decode()
    return f'<img alt="{alt}" src="data:image/jpeg;base64,{data}">'


@functools.lru_cache(16)
def growing_picture(path, size):
    """The picture in a file that has come to this size, or the last one of a film in the making."""
    image = cv2.imread(str(path)) if path.suffix == ".png" else latest_frame(path)
    return "" if image is None else picture(image, 960, "what there is so far")


def curve(name, values):
    """The values of a loss as a line, the last one in words."""
    low, span = min(values), max(max(values) - min(values), 1e-9)
    points = " ".join(f"{100 * i / max(1, len(values) - 1):.1f},{30 - 28 * (value - low) / span:.1f}"
                      for i, value in enumerate(values))
    line = f'<svg viewBox="0 0 100 32" preserveAspectRatio="none"><polyline points="{points}"/></svg>'
    return f'<figure>{html.escape(name)} <b>{values[-1]:g}</b>{line if len(values) > 1 else ""}</figure>'


def job_panel(job):
    """How a job is getting on: its bar and the time left, what it said, its command line, curves and picture."""
    told, bar = job.progress, ""
    if job.state in ("running", "stopping"):
        done, total = int(told.get("done") or 0), int(told.get("total") or 0)
        text = f"{told['what'] or ''} {done}{f' of {total}' * bool(total)}" if told else "starting"
        text += f", {told['left']} left" if total and told["left"] not in (None, "?") else ""
        bar = f"<progress {f'value={done} max={total}' * bool(total)}></progress><p class=quiet>{html.escape(text)}</p>"
    state = {"waiting": "waits for its turn", "stopping": "stopping, keeps what there is"}.get(job.state, job.state)
    said = "".join(f'<p class="{"quiet" if line.startswith("warning: ") else "error"}">{html.escape(line)}</p>'
                   for line in job.said)
    curves = "".join(curve(*entry) for entry in job.curves.items())
    grown = ""
    with contextlib.suppress(FileNotFoundError):  # the picture is not there yet, or no longer
        grown = growing_picture(job.picture, job.picture.stat().st_size) if job.picture else ""
    return (f'<div class="job"><p><span class=state>{state}</span><b>{html.escape(job.title)}</b></p>{bar}{said}'
            f'<code>{html.escape(job.command)}</code><div class=curves>{curves}</div>{grown}</div>')


@functools.lru_cache(4)
def target_panel(target):
    """What was found in the target: pictures, how varied it is, advice."""
    strip = "".join(picture(target.skeleton(i).draw(target.image(i)), 256, "the target with the skeleton")
                    for i in np.linspace(0, len(target) - 1, 6).round().astype(int))
    bars = "".join(f'{name}<span class=bar><i style="width: {share:.1%}"></i></span><b>{share:.0%}</b>'
                   for name, share in movements(target).items())
    lines = advice(target) or ["Good material: varied and whole, and the camera stands still."]
    return (f'<div class="strip">{strip}</div><p>A person is seen in <b>{len(target)} of {target.read} frames</b>. '
            f'How varied the movement is, in shares of the time:</p><div class="bars">{bars}</div>'
            f'{"".join(f"<p>→ {html.escape(line)}</p>" for line in lines)}')


@functools.lru_cache(4)
def source_panel(video):
    try:
        with VideoReader(video) as reader:
            length = f"{reader.frame_count / reader.fps:.1f} seconds, " if reader.frame_count else ""
            return f"<p>{length}{reader.size[0]} x {reader.size[1]} pixels, {reader.fps:.4g} frames a second</p>"
    except UserError as error:
        return f'<p class="error">error: {html.escape(str(error))}</p>'


def page(desk):
    """The page, as Gradio's Blocks."""
    import gradio as gr

    def sample(role):
        desk.choose(role, SAMPLES[role])
        return str(SAMPLES[role])

    def train(gen_type, minutes):
        if gen_type == 1 or not desk.videos["target"]:
            gr.Warning("The nearest frame has nothing to train." if gen_type == 1 else "First a target, in step 1.")
        else:
            desk.train(gen_type, minutes or MINUTES)

    def dance(gen_type, agreed):
        if not agreed or not all(desk.videos.values()):
            gr.Warning("First a target and a source, in steps 1 and 2, and your word on the people in them.")
        else:
            desk.dance(gen_type)

    def show(film):
        paths = dance_files(Path(film)) if film in dict(results()).values() else ()
        film, result, motion = (str(path) if path.exists() else None for path in paths or [DANCES / "none"] * 3)
        return film, *(gr.DownloadButton(value=path, visible=bool(path)) for path in (result, film, motion))

    def tick(seen):
        """What has changed since this tab has `seen` it."""
        target, films, jobs = desk.target(), results(), [desk.jobs.current(number) for number in STEPS]
        shown = ["".join(map(job_panel, some)) for some in jobs]
        shown[0] = shown[0] * bool(desk.videos["target"]) + (target_panel(target) if target else "")
        shown[1] = source_panel(desk.videos["source"]) if desk.videos["source"] else ""
        listed, busy = choices(target), [any(not job.over for job in some) for some in jobs]
        now = [*shown, listed, films, bool(films), *busy]
        updates = [*shown, gr.Radio(choices=listed), gr.Dropdown(films, value=films[0][1] if films else None),
                   gr.Column(visible=bool(films)), *(gr.Button(visible=works) for works in busy)]
        return now, *(gr.skip() if old == new else update
                      for old, new, update in zip(seen or [None] * len(now), now, updates, strict=True))

    def buttons(number, label, act, inputs=None, outputs=None, variant="primary"):
        """A step's button, its Stop, and the place for what its jobs tell."""
        with gr.Row():
            gr.Button(label, variant=variant).click(act, inputs, outputs)
            stops.append(gr.Button("Stop", visible=False, elem_id=f"stop{number}"))
            stops[-1].click(functools.partial(desk.jobs.stop, number))
        panels.append(gr.HTML())

    panels, stops, videos = [], [], []
    with gr.Blocks(title="Dance like them", analytics_enabled=False) as blocks:
        gr.HTML("<h1>Dance like them</h1><p class=quiet>Two videos in, one video out. Nothing leaves this machine.</p>")
        for number, (title, text) in STEPS.items():
            with gr.Column(elem_classes="step"):
                gr.HTML(f"<h2><i>{number}</i>{title}</h2><p class=quiet>{text}</p>")
                role = title.lower()
                if role in SAMPLES:
                    videos.append(gr.Video(sources=["upload", "webcam"], show_label=False, elem_id=role,
                                           webcam_options=gr.WebcamOptions(mirror=False)))
                    came = [videos[-1].upload, videos[-1].stop_recording, videos[-1].clear]
                    gr.on(came, functools.partial(desk.choose, role), videos[-1])
                    pick = functools.partial(sample, role)
                    buttons(number, f"Use the sample {role}", pick, None, videos[-1], "secondary")
                elif title == "Generator":
                    generator = gr.Radio(choices(None), value=5, show_label=False, elem_classes="choices")
                    minutes = gr.Number(MINUTES, label="Minutes of training", minimum=0.05, maximum=24 * 60)
                    buttons(number, "Train", train, [generator, minutes])
                else:
                    agreed = gr.Checkbox(label=CONSENT)
                    buttons(number, "Dance", dance, [generator, agreed])
        with gr.Column(elem_classes="step", visible=False) as finished:
            gr.HTML("<h2>Results</h2>")
            earlier = gr.Dropdown([], show_label=False)
            player = gr.Video(show_label=False, interactive=False, buttons=[], elem_id="player")
            with gr.Row():
                files = ("Video (mp4)", "Side by side (mp4)", "Motion (npz)")
                downloads = [gr.DownloadButton(name, size="sm") for name in files]
        earlier.change(show, earlier, [player, *downloads])
        blocks.load(lambda: [path and str(path) for path in desk.videos.values()], outputs=videos)
        told = [gr.State(), *panels, generator, earlier, finished, *stops]
        gr.on([blocks.load, gr.Timer(1).tick], tick, told[0], told, show_progress="hidden")
    return blocks


def main():
    parser = Parser(__doc__)
    parser.add_argument("--host", default=HOST, help="address to listen on; another than this needs --password")
    parser.add_argument("--port", type=positive(int), default=PORT, help="to listen on")
    parser.add_argument("--password", help="that the page asks for, with any name")
    parser.add_argument("--upload-limit", type=positive(float), default=UPLOAD_LIMIT, metavar="MB", help="of a video")
    args = parser.parse_args()
    if args.host not in LOCAL and not args.password:
        raise UserError(f"--host {args.host} lets other machines in; give a --password for them")
    need("gradio", file="requirements-page.txt")
    writable_folder(DANCES)
    stay_here({args.host, *LOCAL})
    os.environ |= {"GRADIO_TEMP_DIR": str(UPLOADS), "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
    import gradio as gr
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    gr.set_static_paths([DANCES, *SAMPLES.values()])  # these are served as they are; others only if uploaded
    named = LOCAL if args.host in LOCAL else ["*"]  # a site that gives this machine its own name gets no answer
    knows = args.password and (lambda _, said: hmac.compare_digest(said.encode(), args.password.encode()))
    theme = gr.themes.Default(primary_hue="teal", neutral_hue="slate", font=["system-ui", "sans-serif"])
    theme.set(body_text_color_subdued="*neutral_600", checkbox_border_color_dark="*neutral_400")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the jobs too
    desk = Desk()
    try:
        page(desk).launch(server_name=args.host, server_port=args.port, auth=knows, share=False, quiet=True,
                          max_file_size=round(args.upload_limit * 1e6), prevent_thread_lock=True, ssr_mode=False,
                          footer_links=[], run_history=False, theme=theme, css=CSS, head=HEAD,
                          app_kwargs={"middleware": [Middleware(TrustedHostMiddleware, named)]})
        print(f"the page is at http://{args.host}:{args.port} (Ctrl-C ends it)", flush=True)
        while True:
            time.sleep(1)
    except OSError:
        raise UserError(f"can't listen on {args.host}:{args.port}; name another --host or --port") from None
    finally:
        desk.jobs.close()


if __name__ == "__main__":
    run(main)
