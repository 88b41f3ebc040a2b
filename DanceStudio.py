"""A page in the browser that does the whole job without a terminal: target, source, generator, dance.

    pip install -r requirements-page.txt
    python DanceStudio.py                                       # then open http://127.0.0.1:7860; Ctrl-C ends it
    python DanceStudio.py --host 0.0.0.0 --password "a secret"  # other machines may open it too, with the password

The page computes nothing itself: each button queues the command line of a script (common/jobs.py), and the page shows
that command line and what the script prints. All tabs show the same, and closing one stops nothing. A Stop button does
what Ctrl-C does in a terminal. Uploads, the weights of each target, and the dances are in data/Dance/studio."""

import hashlib
import hmac
import os
import signal
import time
from dataclasses import replace
from functools import lru_cache, partial
from itertools import zip_longest
from pathlib import Path

from common.command_line import Parser, UserError, positive, refuse_other_hosts, require_packages, run, writable_folder
from common.files import shorten
from common.jobs import Jobs
from common.paths import DANCE, SAMPLE_SOURCE, SAMPLE_TARGET
from dancing.generators import GENERATORS
from dancing.studio_page import CSS, HEAD, img, job_panel, source_panel, target_panel
from dancing.studio_videos import PREVIEWS, first_people, playable, with_part
from motion.extraction import content_sha256
from video.clip import SIDES, Clip
from video.film import part_of
from VideoSkeleton import VideoSkeleton

LOCAL = ("127.0.0.1", "localhost")  # the names of this machine for itself
PROXIES = [name for kind in ("http", "https", "all") for name in (f"{kind}_proxy", f"{kind}_proxy".upper())]
LONGEST_STEM = 70  # bytes that the name of a video takes in the names of its dances and weights
MINUTES = 5  # the length of a training that the page proposes
STUDIO, UPLOADS, DANCES = (DANCE / "studio" / folder for folder in ("", "uploads", "dances"))
SAMPLES = {"target": SAMPLE_TARGET, "source": SAMPLE_SOURCE}
ORDER = (5, 1, 3, 4, 2)  # the GEN_TYPEs as the page lists them, the best ones first
SECTIONS = {1: ("Target", "Who is to be seen: the whole body, the camera still, half a minute or more of movement."),
            2: ("Source", "The dance: the whole body in the picture."),
            3: ("Generator", "How the picture is made. Training goes on where it stopped; Stop keeps the best so far."),
            4: ("Dance", "The target dances like the source. The film is marked as synthetic.")}
load_target = lru_cache(4)(VideoSkeleton.load)


class Studio:
    """The two chosen videos, as Clips, and the queue of jobs, which all tabs share. warn: shows a person a sentence."""

    def __init__(self, warn):
        self.videos, self.jobs, self._warn = dict.fromkeys(SAMPLES), Jobs(), warn

    def choose(self, role, clip):
        """Take a Clip, or None for no video, as "target" or "source"; a target's poses are found at once."""
        if clip and role == "target":
            self.jobs.add(1, f"Looking at {clip.path.name}", ["VideoSkeleton.py", clip.path, *clip.words()])
        self.videos[role] = clip

    def trim(self, role, begin, end):
        """Take another part of the chosen video; begin, end: texts such as "1:05", or "" for none."""
        if clip := self.videos[role]:
            try:
                part = with_part(clip, begin, end)
            except UserError as error:
                return self._warn(f"{error}.")
            if (part.begin, part.end) != (clip.begin, clip.end):
                self.choose(role, part)

    def follow(self, role, person):
        """Follow another person of the chosen video; see Clip.person."""
        clip = self.videos[role]
        if clip and person and person != clip.person:
            self.choose(role, replace(clip, person=person))

    def train(self, gen_type, minutes):
        """Queue a training on the target, which goes on where an earlier one has stopped by the time it starts."""
        entry, target = GENERATORS[gen_type], self.videos["target"]
        if not entry.trainer or not target:
            return self._warn("Choose a target in step 1 first, and a generator that can be trained.")
        path = checkpoint_path(target, gen_type)
        words = [*entry.trainer, "--target", target.path, *target.words("target-"), "--checkpoint", path,
                 "--minutes", f"{minutes or MINUTES:g}", "--epochs", "1000000"]  # so many that the minutes end it
        last, samples = path.with_name(f"{path.stem}-last.pth"), path.with_name(f"{path.stem}-samples.png")
        self.jobs.add(3, f"Training {entry.title}", lambda: words + ["--resume"] * last.exists(), samples)

    def dance(self, gen_type, agreed):
        """Queue the dance of the target like the source, with the weights that there are by the time it starts."""
        entry, target, source = GENERATORS[gen_type], *self.videos.values()
        if not agreed or not target or not source:
            return self._warn("Choose a target and a source in steps 1 and 2 first, and confirm that the people have "
                              "agreed.")
        names = (shorten(clip.path.stem, LONGEST_STEM) for clip in (target, source))
        name = f"{entry.name}-{'-like-'.join(names)}-{time.strftime('%Y%m%d-%H%M%S')}"
        film, result, motion = dance_files(DANCES / f"{name}.mp4")
        words = ["DanceDemo.py", "--no-window", "--gen-type", str(gen_type), "--source", source.path, *source.words(),
                 "--target", target.path, *target.words("target-"), "--output", film, "--result", result,
                 "--motion", motion]
        path = checkpoint_path(target, gen_type)  # where weights are needed and missing, the demo says so
        self.jobs.add(4, f"Dancing with {entry.title}", lambda: words + ["--checkpoint", path] * (
            path.exists() or not entry.works_untrained), part_of(film))


def dance_files(film):
    """The files of a dance: the film of source and result side by side, the film of the result alone, the motion."""
    return film, film.with_name(f"{film.stem}-result.mp4"), film.with_suffix(".bvh")


@lru_cache(64)
def checkpoint_path(clip, gen_type):
    """Where the page keeps the weights of a generator for the target that a Clip shows."""
    key = content_sha256(clip.path)
    if clip.words():  # another part or person is another target
        key = hashlib.sha256(" ".join([key, *clip.words()]).encode()).hexdigest()
    return STUDIO / f"{shorten(clip.path.stem, LONGEST_STEM)}-{key[:16]}" / f"{GENERATORS[gen_type].name}.pth"


@lru_cache(64)
def training_state(path, changed, network, target):
    """One line on the checkpoint at `path`. changed: when it was written, so that a newer one is read again."""
    from learning.checkpoint import helped, load_checkpoint  # imports torch, which takes seconds

    try:
        state = load_checkpoint(path, network, "Train, below", target)
        if not helped(state["held_out"]):
            return "● trained on this target, but frames kept aside look hardly better with it, so it works without"
        return f"● trained on this target: {state['step']} steps, {state['held_out']['psnr']:.1f} dB on held-out frames"
    except UserError as error:
        return f"○ {error}"


def generator_choices(target=None):
    """[(label, GEN_TYPE)] of all generators. target: a VideoSkeleton, or None where no training state is known."""
    choices = []
    for gen_type in ORDER:
        entry, state = GENERATORS[gen_type], ""
        if not entry.trainer:
            state = "\n● nothing to train"
        elif target:
            path = checkpoint_path(target.clip, gen_type)
            state = "\n" + (training_state(path, path.stat().st_mtime, entry.network, target) if path.exists() else
                            f"○ not trained on this target yet{', works all the same' * entry.works_untrained}")
        choices.append((f"{entry.title}\n{entry.sentence}{state}", gen_type))
    return choices


def finished_dances():
    """[(label, path of the film)] of the dances that are complete, the newest first."""
    films = sorted((film.stat().st_mtime, film) for film in DANCES.glob("*.mp4") if dance_files(film)[1].exists())
    return [(f"{time.strftime('%d %b, %H:%M', time.localtime(when))} · {film.stem[:-16]}", str(film))
            for when, film in reversed(films)]


def page(studio):
    """The page, as Gradio's Blocks. Its callbacks run in the server; `refresh` is called every second by each tab."""
    import gradio as gr

    def choose(role, path):
        """Take the video at `path`, or none, and return what `controls` returns."""
        studio.choose(role, Clip(Path(path)) if path else None)
        return controls(role)

    def controls(role):
        """What is shown of a chosen video: the film for its player, and the limits of its part."""
        clip = studio.videos[role]
        return playable(clip.path) if clip else None, *(f"{limit:g}" if limit else "" for limit in (
            clip and clip.begin, clip and clip.end))

    def people(clip):
        """Updates of the picture of the people in a Clip, and of the choice among them, where there are several."""
        picture, points = first_people(replace(clip, person=SIDES[-1])) if clip else (None, [])
        several = len(points) > 1
        choices = [(f"Person {number}", point) for number, point in enumerate(points, 1)]
        value = clip.person if clip and clip.person in points else None
        return (img(picture, 720, "the people, numbered") if several else "",
                gr.update(choices=choices, value=value, visible=several))

    def show(film):
        """Show a finished dance and offer its files; nothing for any other path that a browser may send."""
        paths = dance_files(Path(film)) if film in dict(finished_dances()).values() else ()
        film, result, motion = [str(path) if path.exists() else None for path in paths] or [None] * 3
        return film, *(gr.DownloadButton(value=path, visible=bool(path)) for path in (result, film, motion))

    def refresh(seen):
        """What has changed since this tab was last updated. seen: the updates that it was given then, [] at first."""
        (video, source), films = studio.videos.values(), finished_dances()
        jobs = [studio.jobs.current(number) for number in SECTIONS]
        target = load_target(video) if video and jobs[0][-1].state == "done" else None
        panels = ["".join(map(job_panel, current)) for current in jobs]
        panels[0] = panels[0] * bool(video) + (target_panel(target) if target else "")
        panels[1] = source_panel(source) if source else ""
        updates = [*panels, *people(video), *people(source), gr.update(choices=generator_choices(target)),
                   gr.update(choices=films, value=films[0][1] if films else None), gr.update(visible=bool(films)),
                   *(gr.update(visible=not all(job.is_over for job in current)) for current in jobs)]
        return updates, *(gr.skip() if old == new else new for old, new in zip_longest(seen, updates))

    panels, stops, players, crowds = [], [], {}, []
    with gr.Blocks(title="Dance like them", analytics_enabled=False) as blocks:
        gr.HTML("<h1>Dance like them</h1><p class=quiet>Two videos in, one video out. Nothing leaves this machine.</p>")
        for number, (title, text) in SECTIONS.items():
            with gr.Column(elem_classes="card"):
                gr.HTML(f"<h2><i>{number}</i>{title}</h2><p class=quiet>{text}</p>")
                role = title.lower()
                if role in SAMPLES:
                    video = gr.Video(sources=["upload", "webcam"], show_label=False, elem_id=role,
                                     webcam_options=gr.WebcamOptions(mirror=False))
                    with gr.Row():
                        limits = [gr.Textbox(label=label, placeholder=hint, max_lines=1, elem_id=f"{role}-{label[:5]}")
                                  for label, hint in (("Start", "0:00"), ("End", "to the end"))]
                    outputs = players[role] = [video, *limits]
                    gr.on([video.upload, video.stop_recording, video.clear], partial(choose, role), video, outputs)
                    gr.on([event for limit in limits for event in (limit.submit, limit.blur)],
                          partial(studio.trim, role), limits)
                    crowds += [gr.HTML(elem_classes="crowd"), gr.Radio(
                        [], label="Whom to follow; if none is chosen, the largest one", visible=False,
                        elem_id=f"{role}-person")]
                    crowds[-1].input(partial(studio.follow, role), crowds[-1])
                    label, act, inputs = f"Use the sample {role}", partial(choose, role, SAMPLES[role]), None
                elif title == "Generator":
                    generator = gr.Radio(generator_choices(), value=ORDER[0], show_label=False, elem_classes="choices")
                    minutes = gr.Number(MINUTES, label="Minutes of training", minimum=0.05, maximum=24 * 60)
                    label, act, inputs, outputs = "Train", studio.train, [generator, minutes], None
                else:
                    agreed = gr.Checkbox(label="The people in both videos are me, or have agreed to this.")
                    label, act, inputs, outputs = "Dance", studio.dance, [generator, agreed], None
                with gr.Row():
                    gr.Button(label, variant="primary" if inputs else "secondary").click(act, inputs, outputs)
                    stops.append(gr.Button("Stop", visible=False, elem_id=f"stop{number}"))
                    stops[-1].click(partial(studio.jobs.stop, number))
                panels.append(gr.HTML())
        with gr.Column(elem_classes="card", visible=False) as finished:
            gr.HTML("<h2>Results</h2>")
            earlier = gr.Dropdown([], show_label=False)
            player = gr.Video(show_label=False, interactive=False, buttons=[], elem_id="player")
            with gr.Row():
                files = ("Video (mp4)", "Side by side (mp4)", "Motion (BVH, for Blender)")
                downloads = [gr.DownloadButton(name, size="sm") for name in files]
        earlier.change(show, earlier, [player, *downloads])
        for role in SAMPLES:
            blocks.load(partial(controls, role), outputs=players[role])
        shown = [gr.State([]), *panels, *crowds, generator, earlier, finished, *stops]
        gr.on([blocks.load, gr.Timer(1).tick], refresh, shown[0], shown, show_progress="hidden")
    return blocks


def main():
    parser = Parser(__doc__)
    parser.add_argument("--host", default=LOCAL[0], help="address to listen on; any other one needs --password")
    parser.add_argument("--port", type=positive(int), default=7860, help="port to listen on")
    parser.add_argument("--password", help="password that the page asks for, with any user name")
    parser.add_argument("--upload-limit", type=positive(float), default=2000.0, metavar="MB", help="of one video")
    args = parser.parse_args()
    if args.host not in LOCAL and not args.password:
        raise UserError(f"--host {args.host} lets other machines in; give a --password for them")
    require_packages("gradio", file="requirements-page.txt")
    writable_folder(DANCES)
    writable_folder(PREVIEWS)
    refuse_other_hosts({args.host, *LOCAL})
    for name in PROXIES:  # Gradio asks its own page whether it is there, which no proxy can answer
        os.environ.pop(name, None)
    os.environ |= {"GRADIO_TEMP_DIR": str(UPLOADS), "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
    import gradio as gr
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    gr.set_static_paths([DANCES, PREVIEWS, *SAMPLES.values()])  # besides these, only uploaded files are served
    hosts = LOCAL if args.host in LOCAL else ["*"]  # a request by another name of this machine gets no answer
    check = args.password and (lambda _, password: hmac.compare_digest(password.encode(), args.password.encode()))
    theme = gr.themes.Default(primary_hue="teal", neutral_hue="slate", font=["system-ui", "sans-serif"])
    theme.set(body_text_color_subdued="*neutral_600", checkbox_border_color_dark="*neutral_400")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the jobs are ended then, too
    studio = Studio(gr.Warning)
    try:
        page(studio).launch(server_name=args.host, server_port=args.port, auth=check, share=False, quiet=True,
                            max_file_size=round(args.upload_limit * 1e6), prevent_thread_lock=True, ssr_mode=False,
                            footer_links=[], run_history=False, theme=theme, css_paths=CSS, head=HEAD,
                            app_kwargs={"middleware": [Middleware(TrustedHostMiddleware, hosts)]})
        print(f"the page is at http://{args.host}:{args.port} (Ctrl-C ends it)", flush=True)
        while True:
            time.sleep(1)
    except OSError:
        raise UserError(f"can't listen on {args.host}:{args.port}; name another --host or --port") from None
    finally:
        studio.jobs.close()


if __name__ == "__main__":
    run(main)
