"""A page in the browser that does the whole job without a terminal: target, sources, dance, results.

    pip install -r requirements-page.txt
    python DanceStudio.py                                       # then open http://127.0.0.1:7860; Ctrl-C ends it
    python DanceStudio.py --host 0.0.0.0 --password "a secret"  # a phone may open it too, with the password

The page computes nothing itself: each button queues the command line of a script (common/jobs.py), and the page shows
how far it is. All tabs show the same, and closing one stops nothing. A Stop button does what Ctrl-C does in a terminal.
Uploads, the weights of each target, and the dances are in data/Dance/studio; the page shows their sizes and deletes
them. What a tab shows comes as values from `refresh`, and what a person does there goes to `Studio.obey`
(dancing/studio_work.py)."""

import os
import signal
import time
from contextlib import contextmanager
from functools import lru_cache, partial
from itertools import zip_longest

from common.command_line import Parser, UserError, positive, refuse_other_hosts, require_packages, run, writable_folder
from common.door import Door, address_for_others, qr_code
from dancing.generators import GENERATORS
from dancing.studio_files import DANCES, PREVIEWS, UPLOADS
from dancing.studio_page import (
    CSS,
    DOOR,
    comparison,
    for_people,
    gallery_value,
    head,
    job_panel,
    kept_panel,
    phone_panel,
    target_panel,
    video_value,
)
from dancing.studio_videos import Later
from dancing.studio_work import (
    DANCING,
    LOOKING,
    MINUTES,
    SAMPLES,
    TARGET,
    TRAINING,
    Studio,
    before_after_path,
    checkpoint_path,
)
from VideoSkeleton import VideoSkeleton

LOCAL = ("127.0.0.1", "localhost")  # the names of this machine for itself
PROXIES = [name for kind in ("http", "https", "all") for name in (f"{kind}_proxy", f"{kind}_proxy".upper())]
ORDER = (5, 1, 3, 4, 2)  # the GEN_TYPEs as the page lists them, the best ones first
CONSENT = "The people in both videos are me, or have agreed to this."
QUALITIES = {"Full": False, "Faster": True}  # whether to draw on a smaller canvas
load_target = lru_cache(4)(VideoSkeleton.load)


@lru_cache(64)
def training_state(path, changed, network, target):
    """One line on the checkpoint at `path`. changed: when it was written, so that a newer one is read again."""
    from learning.checkpoint import gain, helped, load_checkpoint  # imports torch, which takes seconds

    try:
        state = load_checkpoint(path, network, "Train", target)
    except UserError as error:
        return f"○ {for_people(str(error))}"
    held_out = state["held_out"]
    if held_out.get("untrained") is None:
        return f"● trained on this target: {state['step']} steps, {held_out['psnr']:.1f} dB on frames kept aside"
    if helped(held_out):
        return f"● trained on this target: frames kept aside look {gain(held_out):.0%} more like the real ones"
    return "● trained on this target, but frames kept aside look hardly better with the network, so it is not used"


def generator_states(target):
    """{GEN_TYPE: one line on its training}. target: a VideoSkeleton, or None where there is nothing to say."""
    states = {}
    for gen_type, entry in GENERATORS.items():
        path = checkpoint_path(target.clip, gen_type) if target and entry.trainer else None
        if not entry.trainer:
            states[gen_type] = "● nothing to train"
        elif path and path.exists():
            states[gen_type] = training_state(path, path.stat().st_mtime, entry.network, target)
        else:
            works = ", works all the same" if entry.works_untrained else ""
            states[gen_type] = f"○ not trained on this target yet{works}" if path else ""
    return states


def generator_choices(target=None):
    """[(label, GEN_TYPE)] of all generators. target: a VideoSkeleton, or None where no training state is known."""
    states = generator_states(target)
    return [(f"{GENERATORS[number].title}{' (recommended)' * (number == ORDER[0])}\n{GENERATORS[number].sentence}\n"
             f"{states[number]}".rstrip(), number) for number in ORDER]


def comparisons(target, opened):
    """What the trainings on a target (VideoSkeleton) have brought; a picture that is older than its weights is not
    shown, because a training has gone on since then. opened: whether that is open at first."""
    states, shown = generator_states(target), ""
    for gen_type in ORDER:
        path = checkpoint_path(target.clip, gen_type)
        picture = before_after_path(path)
        if picture.exists() and path.exists() and picture.stat().st_mtime >= path.stat().st_mtime:
            shown += comparison(GENERATORS[gen_type].title, states[gen_type].lstrip("●○ "), picture, opened)
    return shown


def page(studio, address=None):
    """The page, as Gradio's Blocks. Its callbacks run in the server; `refresh` is called every second by each tab.
    address: of the page for other machines, or None where they are not let in."""
    import gradio as gr

    later, stills = Later(), Later()  # the second one is for the gallery, so that a chosen video need not wait for it

    def obey(message):
        """Do what the page's own script asks for; returns what to tell the person, "" if nothing."""
        try:
            studio.obey(message)
        except UserError as error:
            return for_people(str(error))
        return ""

    def asked(work, *arguments):
        """Do what a button asks for, and show the person why it can't be done."""
        try:
            work(*arguments)
        except UserError as error:
            gr.Warning(str(error), title="One thing first")

    def refresh(seen):
        """What has changed since this tab was last updated. seen: the updates that it was given then, [] at first."""
        looking = studio.jobs.of(LOOKING)
        known = studio.target and looking and looking[-1].state == "done"
        target = load_target(studio.target) if known else None
        videos = [[video_value(key, clip, later) for key, clip in chosen] for chosen in (
            [(TARGET, studio.target)] * bool(studio.target), studio.sources.items())]
        panels = ["".join(map(job_panel, studio.jobs.of(section))) for section in (LOOKING, DANCING, TRAINING)]
        panels[0] = target_panel(target) if target else panels[0] * bool(studio.target)
        panels[2] += comparisons(target, bool(studio.jobs.of(TRAINING))) if target else ""
        updates = [*videos, gallery_value(stills), *panels, kept_panel(), gr.update(choices=generator_choices(target))]
        return updates, *(gr.skip() if old == new else new for old, new in zip_longest(seen, updates))

    def own(kind):
        """A part of the page that its own script draws, from its value; see dancing/studio_page.js."""
        return gr.HTML([], html_template="<div class=own></div>", elem_id=kind,
                       js_on_load=f"studio.draw.{kind}(element, props, watch)")

    @contextmanager
    def step(number, title, text):
        """One step of the way, as a card."""
        with gr.Column(elem_classes="card"):
            gr.HTML(f"<h2><i>{number}</i>{title}</h2><p class=quiet>{text}</p>")
            yield

    with gr.Blocks(title="Dance like them", analytics_enabled=False) as blocks:
        gr.HTML("<h1>Dance like them</h1><p class=quiet>Two videos in, one video out. Nothing leaves this machine.</p>")
        gr.HTML(phone_panel(address, address and qr_code(address)), elem_id="phone")
        bus = gr.HTML("", js_on_load="studio.connect(server, () => trigger('input'))", server_functions=[obey],
                      elem_id="bus")
        with step(1, "Target", "Who is to be seen: the whole body, a still camera, half a minute or more of movement."):
            target, looks = own("target"), gr.HTML()
        with step(2, "Source", "The dance: the whole body in the picture. Give several, and each is danced."):
            sources = own("source")
        with step(3, "Dance", "The target dances like the source. The film is marked as synthetic."):
            agreed = gr.Checkbox(label=CONSENT)
            dance = gr.Button("Dance", variant="primary")
            dances = gr.HTML()
            with gr.Accordion("Ways of drawing, quality, training", open=False):
                generator = gr.Radio(generator_choices(), value=ORDER[0], label="How the picture is made",
                                     elem_classes="choices")
                quality = gr.Radio(list(QUALITIES), value="Full", label="Quality",
                                   info="“Faster” draws the warp with fewer pixels, for slow computers.")
                with gr.Row(elem_classes="training"):
                    minutes = gr.Number(MINUTES, label="Minutes of training", minimum=0.05, maximum=24 * 60)
                    train = gr.Button("Train")
            trainings = gr.HTML()
        with gr.Column(elem_classes="card", elem_id="results"):
            gallery = own("gallery")
        kept = gr.HTML(elem_id="kept")
        dance.click(lambda kind, yes, how: asked(studio.dance, kind, yes, QUALITIES[how]), [generator, agreed, quality])
        train.click(partial(asked, studio.train), [generator, minutes])
        shown = [gr.State([]), target, sources, gallery, looks, dances, trainings, kept, generator]
        gr.on([blocks.load, gr.Timer(1).tick, bus.input, dance.click, train.click], refresh, shown[0], shown,
              show_progress="hidden")
    return blocks


def main():
    parser = Parser(__doc__)
    parser.add_argument("--host", default=LOCAL[0], help="address to listen on; any other one needs --password")
    parser.add_argument("--port", type=positive(int), default=7860, help="port to listen on")
    parser.add_argument("--password", help="password that the page asks each browser for, once")
    parser.add_argument("--upload-limit", type=positive(float), default=2000.0, metavar="MB", help="of one video")
    args = parser.parse_args()
    if args.host not in LOCAL and not args.password:
        raise UserError(f"--host {args.host} lets other machines in; give a --password for them")
    require_packages("gradio", "segno", file="requirements-page.txt")
    for folder in (DANCES, PREVIEWS, UPLOADS):
        writable_folder(folder)
    others = args.host not in LOCAL and address_for_others(args.host)
    refuse_other_hosts({args.host, *LOCAL})
    for name in PROXIES:  # Gradio asks its own page whether it is there, which no proxy can answer
        os.environ.pop(name, None)
    os.environ |= {"GRADIO_TEMP_DIR": str(UPLOADS), "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
    import gradio as gr
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    gr.set_static_paths([DANCES, PREVIEWS, *SAMPLES.values()])  # besides these, only uploaded files are served
    hosts = LOCAL if args.host in LOCAL else ["*"]  # a request by another name of this machine gets no answer
    guards = [Middleware(TrustedHostMiddleware, hosts)]
    if args.password:
        guards.append(Middleware(Door, args.password, DOOR.read_text(encoding="utf-8")))
    theme = gr.themes.Default(primary_hue="teal", neutral_hue="slate", font=["system-ui", "sans-serif"])
    theme.set(body_text_color_subdued="*neutral_600", checkbox_border_color_dark="*neutral_400")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the jobs are ended then, too
    studio, address = Studio(), f"http://{others}:{args.port}" if others else None
    try:
        page(studio, address).launch(server_name=args.host, server_port=args.port, share=False, quiet=True,
                                     max_file_size=round(args.upload_limit * 1e6), prevent_thread_lock=True,
                                     ssr_mode=False, footer_links=[], run_history=False, theme=theme, css_paths=CSS,
                                     head=head(), app_kwargs={"middleware": guards})
        print(f"the page is at {address or f'http://{args.host}:{args.port}'} (Ctrl-C ends it)", flush=True)
        if address:
            qr_code(address).terminal(compact=True)
        while True:
            time.sleep(1)
    except OSError:
        raise UserError(f"can't listen on {args.host}:{args.port}; name another --host or --port") from None
    finally:
        studio.jobs.close()


if __name__ == "__main__":
    run(main)
