"""Quality, measured: every generator dances as in the demo and is judged against real frames.

    python Evaluate.py                                # those that have their weights, on the shipped clips
    python Evaluate.py --minutes 2                    # trains each learned generator for two minutes first
    python Evaluate.py --minutes 1,3,5,10,15 --image-size 256     # and judges it after 1, 3, 5... minutes
    python Evaluate.py --gen-types 1,3 --source a.mp4 --target b.mp4
    python Evaluate.py --gen-types 1,5 --real a.mp4 b.mp4         # real clips of your own, each for itself

There are two tasks for a pair of clips. **self**: the held-out last tenth of the target video is driven by its own
skeletons, and a generator knows only the rest of the video; the truth is the real frame. **cross**: the source drives
the target; the truth is a clip of the target's body in the source's exact motion, frame by frame. The project ships one
for its own two clips; give --truth for clips of your own. Without a truth, only the faces of the cross task are judged:
whether heads turn as the source's do, and whether they keep their shape (measuring/faces.py). The metrics are explained
in measuring/metrics.py, and the regions of the image in which they are taken in measuring/judging.py. With **--real**,
each clip is judged for itself: its first 80 % are the target, the rest (up to 72 frames) is the source and the truth
(measuring/real.py). A sheet at full size is written for each clip.

Prints Markdown tables. Writes beside --output: .json, .png (contact sheet), .mp4 (side by side), -bars.png and, with
more than one number of minutes, -curves.png. JSON: {"machine", "commit", "date", "rows": [{"task", "generator",
"minutes": of training here or null, "region": "frame", "person", "raw" or "faces", "metrics": {}}]}. The row of the
generator "retargeting" tells, in px of the truth clip, how far the placed joints are from the true ones of the shipped
clips.
"""

import argparse
import subprocess
import sys
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
from tqdm import tqdm

from common.command_line import Parser, UserError, check_output, positive, require_packages, run
from common.paths import DANCE, ROOT, SAMPLE_JOINTS, SAMPLE_SOURCE, SAMPLE_TARGET, SAMPLE_TRUTH
from dancing.dance import dance
from dancing.generators import GENERATORS
from learning.checkpoint import IMAGE_SIZES
from learning.dataset import training_frames
from measuring import scoreboard
from measuring.faces import DrivenFaces
from measuring.judging import common_shift, detect_clip, judge, retargeting_errors, rounded
from measuring.real import MeanFrame, RealCase, write_sheet
from measuring.scoreboard import Row, cell
from motion.extraction import load_track
from motion.mending import steady
from motion.retargeting import place
from motion.track import Track
from picture.canvas import crop
from VideoReader import VideoReader
from VideoSkeleton import VideoSkeleton

FEWEST = 20  # frames of a target that can be judged
TABLES = (("cross", "13 joints"), ("cross", "person"), ("cross", "raw"), ("cross", "frame"), ("cross", "faces"),
          ("self", "person"), ("self", "frame"))  # (task, region) of the tables, in the order in which they are printed


def gen_type_list(text):
    """argparse type: "1,3" -> [1, 3]."""
    numbers = [int(word) if word.isdigit() else 0 for word in text.split(",")]
    if not set(numbers) <= set(GENERATORS):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of {', '.join(map(str, GENERATORS))}")
    return numbers


def minutes_list(text):
    """argparse type: "1,3" -> [1.0, 3.0], each longer than the one before."""
    numbers = [positive(float)(word) for word in text.split(",")]
    if numbers != sorted(set(numbers)):
        raise argparse.ArgumentTypeError(f"{text!r}: each number of minutes must be above the one before")
    return numbers


def truth_files(args):
    """(truth clip or None, file of the true joints or None): the shipped ones for the shipped pair of videos only."""
    shipped = args.source.resolve() == SAMPLE_SOURCE.resolve() and args.target.resolve() == SAMPLE_TARGET.resolve()
    truth = args.truth or (SAMPLE_TRUTH if shipped else None)
    return truth, SAMPLE_JOINTS if shipped and truth.resolve() == SAMPLE_TRUTH.resolve() else None


def read_truth(path, target, placed):
    """The Clip of the truth. Raises UserError where it is not of the target's picture size or has not as many frames as
    the Track `placed`."""
    with VideoReader(path) as reader:
        if reader.size != target.frame_size:
            raise UserError(f"{path} is of {reader.size} pixels and {target.path} of {target.frame_size}; "
                            "a truth is filmed as the target is")
        images = [crop(frame, target.box, target.size) for frame in reader]
    if len(images) != len(placed):
        raise UserError(f"{path} has {len(images)} frames and the source {len(placed)}; "
                        "a truth shows the source's motion frame by frame")
    return detect_clip(images, placed.fps)


def canvas_images(task, placed, target, generator):
    """The dance of a Track in canvas units, as a list of canvas images. task: for the progress bar."""
    frames = tqdm(dance(placed, target, generator), total=len(placed), desc=task, unit="frame", leave=False)
    return [crop(frame, target.box, target.size) for frame in frames]


def candidates(args, clip):
    """Yield (name, minutes of training in this run or None, make(target) -> Generator) of all that is to be judged.
    clip: the Clip of the target, for the trainings."""
    for entry in (GENERATORS[number] for number in args.gen_types):
        if not entry.trainer or not (args.minutes or args.real):
            yield entry.name, None, entry.make
        if entry.number == 1 and args.continuity:
            yield f"{entry.name}, continuity", None, partial(entry.make, continuity=args.continuity)
        if entry.untrained and (args.minutes or args.real):
            yield entry.name, 0, entry.make_untrained
        for before, after in pairwise([0, *args.minutes]) if entry.trainer else ():
            yield entry.name, after, partial(entry.make, checkpoint=train(entry, args, clip, before, after))


def train(entry, args, clip, before, after):
    """Train a generator for the target `clip` from `before` minutes of training to `after`; returns the Path of its
    weights."""
    of = f"-{clip.path.stem}" if args.real else ""
    path = Path(f"{args.output}{of}-{entry.name}-{args.image_size}px.pth")
    script, *words = entry.trainer
    command = [sys.executable, ROOT / script, *words, "--target", clip.path, *clip.words(), "--minutes",
               str(after - before), "--epochs", "1000000", "--image-size", str(args.image_size), "--checkpoint", path,
               *(["--resume"] if before else [])]
    if subprocess.run(command).returncode:
        raise UserError(f"the training failed: {' '.join(map(str, command))}")
    return path


def main():
    parser = Parser(__doc__)
    parser.add_argument("--gen-types", type=gen_type_list, default=list(GENERATORS), help="which, with commas between")
    parser.add_argument("--source", default=SAMPLE_SOURCE, type=Path, help="motion: a video or a folder of images")
    parser.add_argument("--target", default=SAMPLE_TARGET, type=Path, help="appearance: video of the person")
    parser.add_argument("--truth", type=Path, help="the target in the source's motion; default: the shipped pair's")
    parser.add_argument("--real", nargs="+", type=Path, default=[], metavar="CLIP",
                        help="judge each of these clips for itself, instead of a pair")
    parser.add_argument("--minutes", type=minutes_list, default=[],
                        help="train each learned generator so long first; with commas between, judge it after each")
    parser.add_argument("--image-size", type=int, choices=IMAGE_SIZES, default=64, help="pixels of those trained")
    parser.add_argument("--continuity", type=positive(float), help="also GEN_TYPE 1 with this --continuity")
    parser.add_argument("--output", default=DANCE / "Evaluate", type=Path, help="files to write, without the endings")
    parser.add_argument("--json", type=Path, help="JSON to write; default: beside the pictures")
    args = parser.parse_args()
    require_packages("skimage", "torchmetrics", "stlpips_pytorch", "matplotlib")
    endings = [".png", ".mp4", "-bars.png", *(["-curves.png"] if len(args.minutes) > 1 else [])]
    if args.real:
        endings = [f"-{path.stem}.png" for path in args.real]
        if len(set(endings)) < len(endings):
            raise UserError("two of the clips after --real have one name, and so would their sheets; rename one")
    outputs = [Path(f"{args.output}{ending}") for ending in endings]
    outputs.append(args.json or Path(f"{args.output}.json"))
    for path in outputs:
        check_output(path, args.real or filter(None, (args.source, args.target, args.truth)))
    (evaluate_real if args.real else evaluate)(args, outputs)


def evaluate(args, outputs):
    """Judge all candidates; write and print what was measured. outputs: the Paths to write, the JSON last."""
    truth, true_joints = truth_files(args)
    target = VideoSkeleton.load(args.target)
    if len(target) < FEWEST:
        raise UserError(f"{args.target} shows a person in {len(target)} frames; it takes {FEWEST} to judge anything")
    source = steady(load_track(args.source))
    placed, count = place(source, target), training_frames(target)
    known, seconds = target.first(count), target.seconds[count:] - target.seconds[count]
    held_out = Track(target.joints[count:], target.visibility[count:], seconds, np.zeros(1, int),
                     (target.size, target.size), target.fps, np.ones(len(seconds), bool))
    with VideoReader(args.source) as reader:
        columns = {"source": [cell(frame) for frame in reader]}
    with VideoReader(args.source) as reader:
        driven = DrivenFaces(reader, source, target)
    real = detect_clip([target.image(index) for index in range(count, len(target))], target.fps)
    truths, rows, missing = {"self": (real, (0, 0))}, [], []
    if truth:
        real = read_truth(truth, target, placed)
        truths["cross"] = real, common_shift(real, placed, target.size)
        columns["truth"] = [cell(image) for image in real.images]
    if true_joints:
        errors = retargeting_errors(source, placed, target, true_joints)
        rows.append(Row("cross", "retargeting", None, "13 joints", errors))
    for name, minutes, make in candidates(args, target.clip):
        label = scoreboard.row_label(name, minutes)
        tqdm.write(f"{label} ...", file=sys.stderr)
        try:
            generator, blind = make(target), make(known)
        except UserError as error:
            missing.append(f"{name} is left out: {error}")
            continue
        images = {"cross": canvas_images("cross", placed, target, generator)}
        columns[label] = [cell(image) for image in images["cross"]]
        rows.append(Row("cross", name, minutes, "faces", rounded(driven.judge(images["cross"], placed), 4)))
        # Between two trainings only the curves need figures, and they show one task.
        if minutes in (None, 0, *args.minutes[-1:]) or not truth:
            images["self"] = canvas_images("self", held_out, target, blind)
        rows += judge(name, minutes, images, truths)
    mean = sum(known.image(index).astype(float) for index in range(count)) / count
    for name, image in (("mean frame", mean.round().astype(np.uint8)), ("background plate", known.canvas_plate)):
        rows += judge(name, None, {task: [image] * len(clip.images) for task, (clip, _) in truths.items()}, truths)
    machine, version = scoreboard.save_rows(rows, outputs[-1])
    scoreboard.write_pictures(columns, placed.fps, args.output)
    task = "cross" if truth else "self"
    scoreboard.write_bars(rows, task, Path(f"{args.output}-bars.png"))
    if len(args.minutes) > 1:
        scoreboard.write_curves(rows, task, Path(f"{args.output}-curves.png"))
    trained = f"trained {args.minutes[-1]:g} min at {args.image_size} px, " if args.minutes else ""
    lines = [line for table in TABLES for line in scoreboard.markdown_table(rows, *table)]
    print(f"{machine}; {trained}{version}", *lines, "", *missing, f"written: {', '.join(map(str, outputs))}", sep="\n")


def evaluate_real(args, outputs):
    """Judge all candidates on each real clip; write and print what was measured. outputs: the Paths of the sheets, and
    that of the JSON last."""
    rows, missing = [], []
    for path, sheet in zip(args.real, outputs, strict=False):
        case = RealCase(path)
        columns = {"truth": case.truth}
        for name, minutes, make in candidates(args, case.target.clip):
            tqdm.write(f"{path.name}, {scoreboard.row_label(name, minutes)} ...", file=sys.stderr)
            try:
                generator = make(case.target)
            except UserError as error:
                missing.append(f"{name} is left out: {error}")
                continue
            row, columns[scoreboard.row_label(name, minutes)] = case.judge(name, minutes, generator)
            rows.append(row)
        rows.append(case.judge(MeanFrame.name, None, MeanFrame(case.target))[0])
        write_sheet(columns, sheet)
    rows += scoreboard.mean_rows(rows)
    machine, version = scoreboard.save_rows(rows, outputs[-1])
    lines = [line for region in dict.fromkeys(row.region for row in rows)
             for line in scoreboard.markdown_table(rows, "real", region)]
    print(f"{machine}; {version}", *lines, "", *missing, f"written: {', '.join(map(str, outputs))}", sep="\n")


if __name__ == "__main__":
    run(main)
