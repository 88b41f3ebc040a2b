"""Speed, memory and growth, measured: each figure beside a reference taken in the same run, since machines differ.

    python Benchmark.py                        # on the shipped clips: about a quarter of an hour on 2 cores
    python Benchmark.py --quick                # fewer sizes and repeats: under five minutes

Figures are medians of the repeats, which take turns with their references. A reference is what one would write without
this project: a bare loop over OpenCV's reader and MediaPipe's detect_for_video; numpy's brute force, whose answers must
be the same; a plain float32 training loop that decodes image files and draws its skeletons. A dance is compared with a
plain transcode of its film, the demo with its pose detection alone, and its second run, which finds the poses in the
cache, with a run without it.

Prints a Markdown table; writes beside --output: .json and .png (cost against size, log-log, with the fitted exponent).
JSON: {"machine", "commit", "date", "rows": [{"name", "value", "unit", "reference", "against", "ratio"}]}; ratio is how
many times better than the reference; the last three are null where there is none.
"""

import itertools
import os
import shutil
import tempfile
import time
from contextlib import closing
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np
import torch
from lightning_fabric import Fabric
from torch.utils.data import DataLoader

import GenGAN
import GenVanillaNN
import GenWarp
from common.command_line import Parser, check_output, require_packages, run
from common.paths import DANCE, SAMPLE_SOURCE, SAMPLE_TARGET
from dancing.dance import LAYOUTS, compose, live_moments
from dancing.generators import GENERATORS
from GenNearest import NearestSkeleton
from learning.checkpoint import NetworkConfig
from learning.dataset import PoseDataset, normalise
from learning.flags import pick_device, pick_precision
from measuring import references
from measuring.references import (
    bare_detection,
    bare_read,
    empty_cache,
    median_seconds,
    run_demo,
    transcode,
    write_untrained,
)
from measuring.scoreboard import FigureTable, save_rows, write_growth
from motion.detector import PoseDetector, detect_everyone
from motion.extraction import cache_folder, load_track
from motion.mending import steady
from motion.retargeting import place
from motion.segments import SEGMENT
from video.film import VideoWriter
from VideoReader import VideoReader
from VideoSkeleton import VideoSkeleton
from warping.limb_warp import LimbWarp

FILMED = ((1280, 720), (1080, 1920))  # pixels: width and height of what people film
DETECTED = 150  # frames in which poses are detected
QUERIES = 50  # of the nearest neighbour
BATCH = 16  # images of a training step
WARM_UP = 2  # training steps that are not measured
LIVE_WARM_UP = 30  # pictures of a webcam's dance that are not measured
GENERATED = 120  # frames that each generator draws


def pose_and_extraction(table, repeats):
    """Frames/s of reading, of the detectors, and of all that a new target needs."""
    with VideoReader(SAMPLE_TARGET) as reader:
        frames, count = list(itertools.islice(reader, DETECTED)), reader.frame_count

    def track_poses(mask):
        with PoseDetector(mask=mask) as detector:
            for frame in frames:
                detector.detect(frame)

    def extract():
        with empty_cache():
            VideoSkeleton.load(SAMPLE_TARGET)

    ours, bare = median_seconds(repeats, lambda: sum(1 for _ in VideoReader(SAMPLE_TARGET)),
                                lambda: sum(1 for _ in bare_read(SAMPLE_TARGET)))
    table.add("decoding", count / ours, "frames/s", count / bare, "OpenCV's reader")
    kinds = {"pose, tracking": lambda: track_poses(mask=False),
             "pose, tracking, with mask": lambda: track_poses(mask=True),
             "pose, stills, with mask": lambda: sum(1 for _ in detect_everyone(frames, SEGMENT, workers=1)),
             "pose, stills, with mask, one detector a core": lambda: sum(1 for _ in detect_everyone(frames, SEGMENT))}
    bare, *times = median_seconds(repeats, lambda: bare_detection(frames), *kinds.values())
    for name, taken in zip(kinds, times, strict=True):
        table.add(name, len(frames) / taken, "frames/s", len(frames) / bare, "bare detect_for_video loop")
    ours, bare, masked = median_seconds(repeats, extract, lambda: bare_detection(bare_read(SAMPLE_TARGET)),
                                        lambda: bare_detection(bare_read(SAMPLE_TARGET), mask=True))
    table.add("extraction (poses, masks, plate, cache)", count / ours, "frames/s", count / bare,
              "bare read + detect_for_video loop")
    table.add("the same", count / ours, "frames/s", count / masked, "bare loop with masks")


def nearest(table, poses, sizes):
    """Milliseconds of a query among as many poses as `sizes` say, blended from pairs of real ones. poses: (N, 26).
    Returns {label: [(size, ms)]}."""
    rng, ours, brute = np.random.default_rng(0), [], []
    for size in sizes:
        one, other = rng.integers(len(poses), size=(2, size))
        share = rng.random((size, 1))
        vectors = poses[one] * share + poses[other] * (1 - share) + rng.normal(0, 0.002, (size, poses.shape[1]))
        queries = vectors[rng.integers(size, size=QUERIES)] + rng.normal(0, 0.01, (QUERIES, poses.shape[1]))
        start = time.perf_counter()
        tree = NearestSkeleton(vectors)
        built = time.perf_counter()
        answers = [tree.query(query) for query in queries]
        answered = time.perf_counter()
        assert answers == [int(((vectors - query) ** 2).sum(1).argmin()) for query in queries]
        ours.append((size, (answered - built) / QUERIES * 1e3))
        brute.append((size, (time.perf_counter() - answered) / QUERIES * 1e3))
        table.add(f"nearest of {size} poses, one query", ours[-1][1], "ms", brute[-1][1], "numpy's brute force")
    table.add("its tree built", built - start, "s")
    return {"k-d tree query": ours, "brute force": brute}


def training(table, target, sizes, steps):
    """Images/s of the training of each network with images of `sizes` px; returns {label: [(pixels, ms an image)]}."""
    torch.set_num_threads(os.cpu_count() or 1)
    fast, curves = pick_precision(pick_device("cpu")), {}

    def speed(precision, module, config, pairs):
        fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
        made = [GenWarp.build() if module is GenWarp else GenVanillaNN.build(config)]
        made += [GenGAN.Discriminator(config.image_size)] if module is GenGAN else []
        networks, optimizers = zip(*(fabric.setup(network, torch.optim.Adam(network.parameters(), 1e-3))
                                     for network in made), strict=True)
        loader = itertools.islice(DataLoader(pairs, BATCH, shuffle=True), steps + WARM_UP)
        for number, (pose, image) in enumerate(loader):
            if number == WARM_UP:
                start = time.perf_counter()
            module.step(fabric, *networks, *optimizers, pose, normalise(image))
        return steps * BATCH / (time.perf_counter() - start)

    kinds = ((2, GenVanillaNN, "reduced"), (3, GenVanillaNN, "image"), (4, GenGAN, "image"), (5, GenWarp, "image"))
    for (gen_type, module, pose), size in itertools.product(kinds, sizes):
        label, config = f"training GEN_TYPE {gen_type}", NetworkConfig(pose, size)
        if module is GenWarp:  # it draws its pictures during the training: there are no files to compare with
            pairs, precisions, reference = GenWarp.WarpDataset(target, pose, size), {fast}, ()
        else:
            pairs, precisions = PoseDataset(target, pose, size), dict.fromkeys(("32-true", fast))
            with tempfile.TemporaryDirectory() as folder:
                files = references.ImageFiles(target, pairs, Path(folder), (steps + WARM_UP) * BATCH)
                reference = speed("32-true", module, config, files), "float32 loop over image files"
        for precision in precisions:
            rate = speed(precision, module, config, pairs)
            table.add(f"{label} at {size} px, {precision}", rate, "images/s", *reference)
        curves.setdefault(label, []).append((size ** 2, 1e3 / rate))
    return curves


def generation(table, target, sizes, repeats):
    """Milliseconds that each generator takes for a pose of the source, planning included; networks are not trained.
    Returns {label: [(pixels, ms)]} of GEN_TYPE 5 without its network; its largest target is what a phone films."""
    def add(name, generator, shown=target):
        placed = place(steady(load_track(SAMPLE_SOURCE)), shown).first(GENERATED)
        skeletons = [placed.skeleton(number) for number in np.flatnonzero(placed.present)]

        def draw():
            generator.prepare(placed)
            for skeleton in skeletons:
                generator.generate(skeleton)

        generator.generate(skeletons[0])  # the first image takes longer
        taken = median_seconds(repeats, draw)[0] / len(skeletons) * 1e3
        table.add(f"generate, {name}", taken, "ms")
        return taken

    add(GENERATORS[1].name, GENERATORS[1].make(target))
    drawing = [(size ** 2, add(f"LimbWarp at {size} px", LimbWarp(target, size))) for size in (256, 512)]
    with tempfile.TemporaryDirectory() as folder, empty_cache():
        references.enlarge(SAMPLE_TARGET, Path(folder) / "large.mp4", *FILMED[-1], GENERATED)
        large = VideoSkeleton.load(Path(folder) / "large.mp4")
        drawing.append((large.size ** 2, add(f"LimbWarp at {large.size} px", LimbWarp(large), large)))
    for gen_type, size in [*itertools.product((2, 3, 4, 5), sizes), (5, 512)]:  # GEN_TYPE 5: the size that is drawn
        entry, options = GENERATORS[gen_type], {"size": size} if gen_type == 5 else {}
        with tempfile.TemporaryDirectory() as folder:
            path = write_untrained(entry, target, min(size, 256), Path(folder) / "weights.pth")
            add(f"{entry.name} at {size} px", entry.make(target, path, **options))
    return {"GEN_TYPE 5, untrained": drawing}


def films(table, repeats):
    """Frames/s of GEN_TYPE 5 without its network, beside a plain transcode of the same film: the first run, which finds
    the source's poses, and later ones; with the shipped target, and the same enlarged to what a phone films."""
    with tempfile.TemporaryDirectory() as folder, empty_cache():
        folder, targets = Path(folder), {"512 px": SAMPLE_TARGET}
        film = folder / "film.mp4"
        for width, height in FILMED:
            targets[f"{width} x {height}"] = folder / f"{width}.mp4"
            references.enlarge(SAMPLE_TARGET, targets[f"{width} x {height}"], width, height, GENERATED)
        for (name, target), layout in itertools.product(targets.items(), LAYOUTS):
            words, rates = (SAMPLE_SOURCE, target, "--layout", layout, "--output", film), []
            VideoSkeleton.load(target)
            for _ in range(repeats):
                shutil.rmtree(cache_folder(SAMPLE_SOURCE), ignore_errors=True)
                first, (peak, told) = run_demo(5, *words)[1], run_demo(5, *words)
                plain, = median_seconds(1, lambda: transcode(film, folder))
                rates.append((told["frames_per_second"], first["frames_per_second"], told["frames"] / plain))
            later, first, plain = np.median(rates, axis=0)
            table.add(f"dance at {name}, {layout}", later, "frames/s", plain, "plain transcode of the film")
            table.add("the first run, poses included", first, "frames/s", plain, "plain transcode of the film")
        if peak:
            table.add(f"peak memory of the dance at {name}, {layout}", peak, "MB")
        weights = write_untrained(GENERATORS[5], VideoSkeleton.load(SAMPLE_TARGET), 256, folder / "weights.pth")
        for name, more in (("", ()), (", with its network", ("--checkpoint", weights))):
            words = SAMPLE_SOURCE, SAMPLE_TARGET, "--max-frames", "1", *more
            seconds, = median_seconds(repeats + 1, lambda words=words: run_demo(5, *words))
            table.add(f"start, poses in the cache, until a film of one frame is there{name}", seconds, "s")


def live(table, target, count):
    """A webcam's dance: pictures a second, and how long after a frame's arrival its picture is ready. count: pictures.
    A recorded clip stands in for the webcam."""
    for gen_type, make in ((1, GENERATORS[1].make), (5, GENERATORS[5].make_untrained)):
        with patch.object(cv2, "VideoCapture", references.RecordedCamera), VideoReader(0) as reader:
            delays, generator = [], make(target)
            with closing(live_moments(reader, target, generator, count + LIVE_WARM_UP)) as shown:
                for number, moment in enumerate(shown):
                    if number == LIVE_WARM_UP:
                        start = time.perf_counter()
                    compose(moment, LAYOUTS[0])
                    delays.append((time.monotonic() - reader.began - moment.seconds) * 1e3)
            rate = count / (time.perf_counter() - start)
        name = f"live, GEN_TYPE {gen_type}, {references.CAMERA_SIZE[0]} x {references.CAMERA_SIZE[1]}"
        table.add(name, rate, "frames/s", references.CAMERA_FPS, "the camera")
        for words, share in (("median", 50), ("95 % are below", 95)):
            table.add(f"{name}, delay, {words}", np.percentile(delays[LIVE_WARM_UP:], share), "ms")


def demo(table, times):
    """The demo end to end on a clip `times` as long as the source, its stages and its memory: GEN_TYPE 1, then GEN_TYPE
    5 with the poses that the first run has left in the cache, and again without them. Returns {label: [(frames, s)]}
    of the second."""
    with tempfile.TemporaryDirectory() as folder, empty_cache():
        long, weights = Path(folder) / "long.mp4", Path(folder) / "weights.pth"
        with VideoReader(SAMPLE_SOURCE) as reader, VideoWriter(long, reader.fps) as writer:
            for frame in [*reader] * times:
                writer.write(frame)
        write_untrained(GENERATORS[5], VideoSkeleton.load(SAMPLE_TARGET), 256, weights)
        short_peak, _ = run_demo(1, SAMPLE_SOURCE, SAMPLE_TARGET)
        peak, first = run_demo(1, long, SAMPLE_TARGET)
        dances = [run_demo(5, clip, SAMPLE_TARGET, "--checkpoint", weights)[1] for clip in (SAMPLE_SOURCE, long)]
        shutil.rmtree(cache_folder(long))
        _, anew = run_demo(5, long, SAMPLE_TARGET, "--checkpoint", weights)
        alone, tracking = median_seconds(1, lambda: sum(1 for _ in detect_everyone(VideoReader(long), SEGMENT)),
                                         lambda: bare_detection(bare_read(long)))
    count, speed = first["frames"], "frames_per_second"
    for label, told in (("GEN_TYPE 1", first), ("GEN_TYPE 5", anew)):
        table.add(f"demo end to end, {label}, {count} frames", told[speed], "frames/s", count / alone,
                  "its pose detection alone")
        table.add("the same", told[speed], "frames/s", count / tracking, "bare read + detect_for_video loop")
        for stage, ms in told["stage_ms"].items():
            table.add(f"demo, {label}, {stage}", ms, "ms")
    table.add("GEN_TYPE 5 after GEN_TYPE 1, poses in the cache", dances[-1][speed], "frames/s", anew[speed],
              "GEN_TYPE 5 without the cache")
    table.add("the same", dances[-1][speed], "frames/s", first[speed], "GEN_TYPE 1, the first run")
    if peak:
        table.add(f"peak memory of the demo, clip {times} times as long", peak, "MB", short_peak, "the short clip")
    return {"GEN_TYPE 5, poses known": [(told["frames"], told["frames"] / told[speed]) for told in dances]}


def main():
    parser = Parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer sizes and repeats")
    parser.add_argument("--output", type=Path, default=DANCE / "Benchmark", help="files to write, without the endings")
    parser.add_argument("--json", type=Path, help="JSON to write; default: beside the plot")
    args = parser.parse_args()
    require_packages("matplotlib")
    picture, path = Path(f"{args.output}.png"), args.json or Path(f"{args.output}.json")
    for output in (picture, path):
        check_output(output, (SAMPLE_SOURCE, SAMPLE_TARGET))
    target, table, quick = VideoSkeleton.load(SAMPLE_TARGET), FigureTable(), args.quick
    pose_and_extraction(table, 1 if quick else 5)
    curves = {("poses", "ms a query"): nearest(table, target.reduced, [10 ** power for power in
                                                                       range(3, 6 if quick else 7)]),
              ("pixels", "ms an image"): training(table, target, [64, 128] if quick else [64, 128, 256],
                                                  8 if quick else 20),
              ("pixels of the picture", "ms a frame"): generation(table, target, [64, 128, 256], 1 if quick else 5)}
    films(table, 1 if quick else 3)
    live(table, target, 150 if quick else 600)
    curves["frames of the film", "s"] = demo(table, 3 if quick else 10)
    print("", ", ".join(save_rows(table.rows, path)), f"written: {path}, {picture}", sep="\n")
    write_growth(curves, picture)


if __name__ == "__main__":
    run(main)
