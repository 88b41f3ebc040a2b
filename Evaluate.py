"""Quality, measured: every generator through the demo's own path, judged against real frames.

    python Evaluate.py                                # what has its weights, on the shipped clips
    python Evaluate.py --minutes 2                    # trains each learned generator for two minutes first
    python Evaluate.py --minutes 1,3,5,10,15 --image-size 256     # and judges it after 1, 3, 5... minutes
    python Evaluate.py --gen-types 1,3 --source a.mp4 --target b.mp4

Two tasks. **self**: the held-out last tenth of the target video, driven by its own skeletons, the rest of the video
being all that a generator knows; the truth is the frame itself. **cross**: the source drives the target; the truth is
the shipped clip of the target's body in the source's exact motion, frame by frame (--truth for clips of your own;
without one, only what needs no truth is told).

Each metric (Metrics.py) is taken over the whole canvas, and over the person: each clip's own person by MediaPipe's
mask of that clip, set on plain grey, in the padded box of the truth's skeleton. Where the dancer stands is a
convention, so in the cross task the person is moved by one constant shift of the whole clip (the median difference of
the truth's joints and the placed ones, in whole pixels); L1, PSNR and AKD are also given as they come ("raw").
Baselines: GEN_TYPE 1, the mean frame, the background plate, and GEN_TYPE 5 before its training. L1, PSNR, AKD, MKR,
flicker and jitter take every frame; SSIM, MS-SSIM, ST-LPIPS and tOF every EVERY-th.

Prints Markdown tables; writes beside --output: .json, .png (contact sheet), .mp4 (side by side), -bars.png and, with
more than one number of minutes, -curves.png. JSON: {"machine", "commit", "date", "rows": [{"task", "generator",
"minutes": of training here or null, "region": "frame", "person" or "raw", "metrics": {}}]}; the row of the generator
"retargeting" has, in px at the truth clip's size, what Retarget.py made of the source.
"""

import argparse
import subprocess
import sys
from contextlib import closing
from functools import partial
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

import Metrics
from Canvas import crop
from Checkpoint import IMAGE_SIZES
from CommandLine import ROOT, Parser, UserError, need, positive, run
from DanceDemo import GENERATORS, SOURCE, check_output, dance, foreseen
from LimbWarp import LimbWarp
from PoseDataset import training_frames
from Scene import Scene
from Scoreboard import bars, curves, label, pictures, save, small, table
from Skeleton import REDUCED
from VideoReader import VideoReader
from VideoSkeleton import TARGET, VideoSkeleton

TRUTH = ROOT / "data" / "sample" / "truth.mp4"
OUTPUT = ROOT / "data" / "Dance" / "Evaluate"
TRAINING = {2: ["GenVanillaNN.py", "--input", "ske"], 3: ["GenVanillaNN.py"], 4: ["GenGAN.py"], 5: ["GenWarp.py"]}
EVERY = 10  # frames between those of the slow metrics
PAD = 0.15  # of the box around the truth's skeleton
GREY = 128
FEWEST = 20  # frames of a target that can be judged


def gen_types(text):
    """argparse type: "1,3" -> [1, 3]."""
    numbers = [int(word) if word.isdigit() else 0 for word in text.split(",")]
    if not set(numbers) <= set(GENERATORS):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of {', '.join(map(str, GENERATORS))}")
    return numbers


def minutes(text):
    """argparse type: "1,3" -> [1.0, 3.0], each longer than the one before."""
    numbers = [positive(float)(word) for word in text.split(",")]
    if any(after <= before for before, after in pairwise(numbers)):
        raise argparse.ArgumentTypeError(f"{text!r}: each number of minutes must be above the one before")
    return numbers


def baselines(known):
    """{"mean frame", "background plate"}: canvas images to answer always, whatever is asked."""
    total = np.zeros((known.size, known.size, 3))
    for index in range(len(known)):
        total += known.image(index)
    return {"mean frame": (total / len(known)).round().astype(np.uint8),
            "background plate": crop(known.plate, known.box, known.size)}


class Clip:
    """Canvas images with what is detected in them: points, present, masks (Metrics.watch)."""

    def __init__(self, images, fps):
        self.images, self.fps = images, fps
        self.points, self.present, self.masks = Metrics.watch(images, fps)


def danced(source, target, generator):
    """(canvas images, steps without pictures) of the cross task."""
    images, steps = [], []
    with VideoReader(source) as reader, closing(dance(reader, target, generator)) as dancing:
        for step in tqdm(dancing, total=reader.frame_count, desc="cross", unit="frame", leave=False):
            images.append(crop(step["image"], target.box, target.size))
            steps.append(step | {"image": None, "frame": None})
    return images, steps


def reenacted(target, numbers, generator):
    """Canvas images of the self task."""
    scene, skeletons = Scene(target), [target.skeleton(index) for index in numbers]
    if getattr(generator, "continuity", 0):
        generator.plan([skeletons])
    steps = foreseen(({"cut": False, "pose": s, "placed": s} for s in skeletons), generator)
    return [crop(scene.put(*generator.paint(step["placed"])), target.box, target.size) for step in steps]


def judged(name, trained, made, real, shift, perceptual):
    """Rows of one generator after `trained` minutes. made: {task: images}; real: {task: Clip} of the tasks that have a
    truth."""
    rows = []
    for task in made.keys() & real.keys():
        truth = real[task]
        moved = shift if task == "cross" else (0, 0)
        clip = Clip(made[task], truth.fps)
        for region, metrics in judge(truth, clip, moved, perceptual, raw=task == "cross").items():
            rows.append({"task": task, "generator": name, "minutes": trained, "region": region, "metrics": metrics})
    return rows


def judge(real, made, shift, perceptual, raw):
    """{region: metrics} of the Clip `made` against the Clip `real`; shift (x, y) in px moves the made person."""
    size = len(real.images[0])
    move = np.float32([[1, 0, shift[0]], [0, 1, shift[1]]])
    pairs = {"frame": [], "person": [], "raw": []}
    slow = {"frame": [], "person": []}
    for number, image in enumerate(made.images):
        box = person_box(real.points[number], real.present[number], size)
        truth, person = (on_grey(c.images[number], c.masks[number]) for c in (real, made))
        moved = cv2.warpAffine(person, move, (size, size), borderValue=(GREY,) * 3)
        both = {"frame": (real.images[number], image), "person": (truth[box], moved[box]),
                "raw": (truth[box], person[box])}
        for region, pair in both.items():
            pairs[region].append((Metrics.l1(*pair), Metrics.squared_error(*pair)))
        if number and (number % EVERY == 0 or number == len(made.images) - 1):
            before = (on_grey(c.images[number - 1], c.masks[number - 1]) for c in (real, made))
            past = next(before), cv2.warpAffine(next(before), move, (size, size), borderValue=(GREY,) * 3)
            earlier = {"frame": (real.images[number - 1], made.images[number - 1]),
                       "person": tuple(p[box] for p in past)}
            for region, values in slow.items():
                (a, b), (c, d) = both[region], earlier[region]
                values.append((Metrics.ssim(a, b), Metrics.ms_ssim(a, b), perceptual(a, b),
                               Metrics.flow_error((c, a), (d, b))))
    told = {}
    for region in ("frame", "person", *(["raw"] if raw else [])):
        absolute, squared = np.mean(pairs[region], 0)
        told[region] = {"L1": absolute, "PSNR": Metrics.psnr(squared)}
        if region in slow:
            told[region] |= dict(zip(("SSIM", "MS-SSIM", "ST-LPIPS", "tOF"), np.mean(slow[region], 0), strict=True))
    akd = {"person": made.points + np.float32(shift), "raw": made.points}
    for region in told.keys() & akd.keys():
        told[region]["AKD"], missing = Metrics.keypoint_errors(real.points, real.present, akd[region], made.present)
    told["person"] |= {"MKR": missing, "jitter": jitter(made) / (jitter(real) or np.nan)}
    both = [np.maximum(*masks) for masks in zip(real.masks, made.masks, strict=True)]
    told["frame"] |= {"flicker": Metrics.flicker(made.images, both),
                      "flicker outside the truth": Metrics.flicker(made.images, real.masks)}
    return {region: {name: round(float(value), 4) if np.isfinite(value) else None for name, value in metrics.items()}
            for region, metrics in told.items()}


def jitter(clip):
    return Metrics.acceleration(clip.points, clip.present)


def on_grey(image, mask):
    share = mask.astype(np.float32) / 255
    return cv2.blendLinear(image, np.full_like(image, GREY), share, 1 - share)


def person_box(points, present, size):
    """Index of the padded square around the present points, at least Metrics.SMALLEST wide and inside the canvas."""
    points = points[present] if present.any() else np.array([[0, 0], [size, size]])
    low, high = points.min(0), points.max(0)
    side = int(np.clip((high - low).max() * (1 + 2 * PAD), min(Metrics.SMALLEST, size), size))
    x, y = np.clip(((low + high - side) / 2).round().astype(int), 0, size - side)
    return np.s_[y:y + side, x:x + side]


def retargeting(steps, target, truth, source_size):
    """Metrics of the placed joints against the truth's joints.npz, where it lies beside the truth clip, or None."""
    path = truth.with_name("joints.npz")
    if not path.is_file() or not all(step["pose"] for step in steps):
        return None
    with np.load(path) as joints:
        true, source = joints["truth_uv"], joints["source_uv"]
    placed = np.stack([step["placed"].joints[REDUCED, :2] for step in steps]) * target.box[2] + target.box[:2]
    away = placed - true
    found = np.stack([step["pose"].joints[REDUCED, :2] for step in steps]) * max(source_size)
    visible = np.stack([step["pose"].visibility[REDUCED] for step in steps]) > 0.9
    told = {"joint error": np.linalg.norm(away, axis=2).mean(),
            "after one shift": np.linalg.norm(away - away.mean((0, 1)), axis=2).mean()}
    told |= Metrics.wrist_timing(found, source, visible)
    return {name: round(float(value), 3) for name, value in told.items()}


def train(gen_type, args, before, after):
    """Train one generator, `before` minutes old, until it is `after`, in a process of its own; returns its weights."""
    path = args.output.parent / f"{args.output.name}-{GENERATORS[gen_type][0]}-{args.image_size}px.pth"
    command = [sys.executable, ROOT / TRAINING[gen_type][0], *TRAINING[gen_type][1:], "--target", args.target,
               "--minutes", str(after - before), "--epochs", "1000000", "--image-size", str(args.image_size),
               "--checkpoint", path, *(["--resume"] if before else [])]
    if subprocess.run(command).returncode:
        raise UserError(f"the training failed: {' '.join(map(str, command))}")
    return path


def main():
    parser = Parser(__doc__)
    parser.add_argument("--gen-types", type=gen_types, default=list(GENERATORS), help="which, with commas between")
    parser.add_argument("--source", default=SOURCE, type=Path, help="motion: a video or a folder of images")
    parser.add_argument("--target", default=TARGET, type=Path, help="appearance: video of the person")
    parser.add_argument("--truth", type=Path, help="the target doing the source's motion; default: the shipped one "
                                                   "for the shipped pair")
    parser.add_argument("--minutes", type=minutes, default=[], help="train each learned generator so long first; with "
                                                                    "commas between, judge it after each")
    parser.add_argument("--image-size", type=int, choices=IMAGE_SIZES, default=64, help="pixels of those trained")
    parser.add_argument("--continuity", type=positive(float), help="also GEN_TYPE 1 with this --continuity")
    parser.add_argument("--output", default=OUTPUT, type=Path, help="where pictures and JSON go, without ending")
    parser.add_argument("--json", type=Path, help="JSON to write; default: beside the pictures")
    args = parser.parse_args()
    need("skimage", "torchmetrics", "stlpips_pytorch", "matplotlib")
    outputs = {ending: args.output.with_name(args.output.name + ending) for ending in (".png", ".mp4", "-bars.png")}
    if len(args.minutes) > 1:
        outputs["-curves.png"] = args.output.with_name(args.output.name + "-curves.png")
    outputs[".json"] = args.json or args.output.with_name(args.output.name + ".json")
    for path in outputs.values():
        check_output(path, filter(None, (args.source, args.target, args.truth)))
    evaluate(args, outputs)


def evaluate(args, outputs):
    shipped = (args.source.resolve(), args.target.resolve()) == (SOURCE, TARGET)
    truth = args.truth or (TRUTH if shipped else None)
    target = VideoSkeleton.load(args.target)
    if len(target) < FEWEST:
        raise UserError(f"{args.target} shows a person in {len(target)} frames; it takes {FEWEST} to judge anything")
    count = training_frames(target)
    missing = []
    perceptual = Metrics.StLpips()
    with VideoReader(args.source) as reader:
        fps, source_size, frames = reader.fps, reader.size, [small(frame) for frame in reader]
    real = {"self": Clip([target.image(index) for index in range(count, len(target))], target.fps)}
    columns = {"source": frames}
    if truth:
        with VideoReader(truth) as reader:
            if reader.size != target.frame_size:
                raise UserError(f"{truth} is of {reader.size} pixels and {args.target} of {target.frame_size}; "
                                "a truth is filmed as the target is")
            real["cross"] = Clip([crop(frame, target.box, target.size) for frame in reader], fps)
        columns["truth"] = [small(image) for image in real["cross"].images]
    rows, shift, steps = [], (0, 0), []
    for name, trained, make in makers(args):
        tqdm.write(f"{label(name, trained)} ...", file=sys.stderr)
        try:
            generator, blind = make(target), make(target.first(count))  # for the self task it knows no held-out frame
        except UserError as error:
            missing.append(f"{name} is left out: {error}")
            continue
        images, steps = danced(args.source, target, generator)
        columns[label(name, trained)] = [small(image) for image in images]
        if truth and len(images) != len(real["cross"].images):
            raise UserError(f"{truth} has {len(real['cross'].images)} frames and the result {len(images)}; "
                            "a truth shows the source's motion frame by frame")
        if truth and not rows:
            shift = common_shift(real["cross"], steps, target.size)
            told = retargeting(steps, target, truth, source_size)
            if told:
                rows.append({"task": "cross", "generator": "retargeting", "minutes": None, "region": "13 joints",
                             "metrics": told})
        made = {"cross": images}
        if not args.minutes or trained in (None, 0, args.minutes[-1]) or not truth:  # else for the curves alone
            made["self"] = reenacted(target, range(count, len(target)), blind)
        rows += judged(name, trained, made, real, shift, perceptual)
    for name, image in baselines(target.first(count)).items():
        rows += judged(name, None, {task: [image] * len(clip.images) for task, clip in real.items()}, real, shift,
                       perceptual)
    told = save(rows, outputs[".json"])
    pictures(columns, fps, outputs)
    bars(rows, "cross" if truth else "self", outputs["-bars.png"])
    if len(args.minutes) > 1:
        curves(rows, "cross" if truth else "self", outputs["-curves.png"])
    report(told, missing, args, outputs)


def makers(args):
    """Yields (name, minutes of training or None, maker(target) of a generator), trained where args.minutes says so."""
    for gen_type in args.gen_types:
        name, make = GENERATORS[gen_type]
        if gen_type not in TRAINING or not args.minutes:
            yield name, None, partial(make, checkpoint=None)
        if gen_type == 1 and args.continuity:
            yield f"{name}, continuity", None, partial(make, checkpoint=None, continuity=args.continuity)
        if gen_type == 5 and args.minutes:
            yield name, 0, LimbWarp
        if gen_type in TRAINING:
            for before, after in pairwise([0, *args.minutes]):
                yield name, after, partial(make, checkpoint=train(gen_type, args, before, after))


def common_shift(real, steps, size):
    """(x, y) whole pixels: the median of the truth's detected joints less the placed ones."""
    away = [(points - step["placed"].joints[REDUCED, :2] * size)[present]
            for points, present, step in zip(real.points, real.present, steps, strict=False) if step["placed"]]
    return tuple(np.median(np.concatenate(away), 0).round().astype(int).tolist()) if away else (0, 0)


def report(told, missing, args, outputs):
    sizes = f"trained {args.minutes[-1]:g} min at {args.image_size} px, " if args.minutes else ""
    print(f"{told['machine']['processor']}, {told['machine']['cores']} cores; {sizes}{told['date']}, {told['commit']}")
    for task, region in (("cross", "13 joints"), ("cross", "person"), ("cross", "raw"), ("cross", "frame"),
                         ("self", "person"), ("self", "frame")):
        for line in table(told["rows"], task, region):
            print(line)
    print("", *missing, f"written: {', '.join(map(str, outputs.values()))}", sep="\n")


if __name__ == "__main__":
    run(main)
