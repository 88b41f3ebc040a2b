"""Speed, memory and growth, measured: each figure beside a reference taken in the same run, since machines differ.

    python Benchmark.py                        # on the shipped clips: about a quarter of an hour on 2 cores
    python Benchmark.py --quick                # fewer sizes and repeats: under five minutes

Medians of the repeats, taken in turn with their references, which are what one would write without this project: a
bare loop over OpenCV's reader and MediaPipe's detect_for_video; numpy's brute force (same answers asserted); a plain
float32 training loop that decodes image files and draws its skeletons; the speed of the pose detection alone, which no
demo on this machine can pass; of networks in ONNX Runtime, the same ones in PyTorch.

Prints a Markdown table; writes beside --output: .json and .png (cost against size, log-log, with the fitted exponent).
JSON: {"machine", "commit", "date", "rows": [{"name", "value", "unit", "reference", "against", "ratio"}]}; ratio is how
many times better than the reference; the last three are null where there is none.
"""

import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

import cv2
import numpy as np

from CommandLine import ROOT, Parser, need, quiet_stderr, run
from DanceDemo import GENERATORS, SOURCE, check_output, dance
from Extraction import extract
from GenNearest import NearestSkeleton
from LimbWarp import LimbWarp
from Runtime import wanted
from Scoreboard import growth, save
from Skeleton import MODEL_FOLDER, PoseDetector, detect_all, find_model
from VideoReader import VideoReader
from VideoSkeleton import TARGET, VideoSkeleton, cache_folder
from VideoWriter import VideoWriter

OUTPUT = ROOT / "data" / "Dance" / "Benchmark"
QUERIES = 50  # of the nearest neighbour
BATCH = 16  # images of a training step
LOWER = ("ms", "s", "MB")  # units of which less is better


class Table:
    """Collects the rows and prints each when it is known."""

    def __init__(self):
        self.rows = []
        print("| what | here | reference | times better |\n|---|---|---|---|", flush=True)

    def add(self, name, value, unit, reference=None, against=None):
        ratio = None
        if reference is not None:
            ratio = reference / value if unit in LOWER else value / reference
        row = {"name": name, "value": value, "unit": unit, "reference": reference, "against": against, "ratio": ratio}
        self.rows.append({key: float(f"{v:.4g}") if isinstance(v, float) else v for key, v in row.items()})
        other = "" if reference is None else f"{reference:.4g} {against}"
        print(f"| {name}, {unit} | {value:.4g} | {other} | {'' if ratio is None else f'{ratio:.2f}'} |", flush=True)


def seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def in_turn(repeats, *calls):
    """Median seconds of each of `calls`, which take turns, so that a busy machine is busy for all of them."""
    times = [[seconds(call) for call in calls] for _ in range(repeats)]
    return [median(column) for column in zip(*times, strict=True)]


def exhaust(items):
    for _ in items:
        pass


def bare_read(video):
    capture = cv2.VideoCapture(str(video))
    while (read := capture.read())[0]:
        yield read[1]


def bare_loop(frames, mask=False):
    """Detect as MediaPipe's own example does, and keep nothing."""
    import mediapipe as mp
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.PoseLandmarkerOptions(base_options=BaseOptions(model_asset_path=str(find_model())),
                                           running_mode=vision.RunningMode.VIDEO, output_segmentation_masks=mask)
    with quiet_stderr(), vision.PoseLandmarker.create_from_options(options) as landmarker:
        for number, frame in enumerate(frames):
            image = mp.Image(mp.ImageFormat.SRGB, cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
            landmarker.detect_for_video(image, round(number * 1000 / 30))


def detected(frames, **options):
    with PoseDetector(**options) as detector:
        for frame in frames:
            detector.detect(frame)


def pose_and_extraction(table, repeats):
    with VideoReader(TARGET) as reader:
        frames = [frame for _, frame in zip(range(150), reader, strict=False)]
        count = reader.frame_count
    ours, bare = in_turn(repeats, lambda: exhaust(VideoReader(TARGET)), lambda: exhaust(bare_read(TARGET)))
    table.add("decoding", count / ours, "frames/s", count / bare, "OpenCV's reader")
    kinds = {"pose, tracking": lambda: detected(frames),
             "pose, tracking, with mask": lambda: detected(frames, mask=True),
             "pose, stills": lambda: exhaust(detect_all(frames, workers=1)),
             "pose, stills, one detector a core": lambda: exhaust(detect_all(frames)),
             "pose, stills, one detector a core, with mask": lambda: exhaust(detect_all(frames, mask=True))}
    if (MODEL_FOLDER / "pose_landmarker_lite.task").exists():  # not worth a download here
        kinds["pose, tracking, lite model"] = lambda: detected(frames, model="lite")
    bare, *times = in_turn(repeats, lambda: bare_loop(frames), *kinds.values())
    for name, taken in zip(kinds, times, strict=True):
        table.add(name, len(frames) / taken, "frames/s", len(frames) / bare, "bare detect_for_video loop")
    with tempfile.TemporaryDirectory() as folder:
        numbers = iter(range(100))
        ours, bare, masked = in_turn(repeats, lambda: extract(TARGET, Path(folder) / str(next(numbers))),
                                     lambda: bare_loop(bare_read(TARGET)), lambda: bare_loop(bare_read(TARGET), True))
    table.add("extraction (poses, masks, plate, cache)", count / ours, "frames/s", count / bare,
              "bare read + detect_for_video loop")
    table.add("the same", count / ours, "frames/s", count / masked, "bare loop with masks")


TREE = """
import os, numpy as np
from GenNearest import NearestSkeleton
from LimbWarp import LimbWarp
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
vectors = np.random.default_rng(0).random(({size}, 26))
before = resident()
tree = NearestSkeleton(vectors)
print(resident() - before)
"""


def tree_megabytes(size):
    """Memory that the tree of `size` poses takes in a fresh process, or None where it can't be told (not Linux)."""
    if not Path("/proc/self/statm").exists():
        return None
    told = subprocess.run([sys.executable, "-c", TREE.format(size=size)], cwd=ROOT, capture_output=True, text=True)
    return float(told.stdout)


def nearest(table, poses, sizes):
    """Among `size` poses blended from pairs of real ones; returns {label: [(size, ms)]}."""
    rng, curves = np.random.default_rng(0), {"k-d tree query": [], "brute force": []}
    for size in sizes:
        a, b = rng.integers(len(poses), size=(2, size))
        share = rng.random((size, 1))
        vectors = poses[a] * share + poses[b] * (1 - share) + rng.normal(0, 0.002, (size, poses.shape[1]))
        queries = vectors[rng.integers(size, size=QUERIES)] + rng.normal(0, 0.01, (QUERIES, poses.shape[1]))
        start = time.perf_counter()
        tree = NearestSkeleton(vectors)
        built = time.perf_counter() - start
        start = time.perf_counter()
        answers = [tree.query(q) for q in queries]
        ours, start = (time.perf_counter() - start) / QUERIES * 1e3, time.perf_counter()
        assert answers == [int(((vectors - q) ** 2).sum(1).argmin()) for q in queries]
        theirs = (time.perf_counter() - start) / QUERIES * 1e3
        table.add(f"nearest of {size} poses, one query", ours, "ms", theirs, "numpy's brute force")
        if size == sizes[-1]:
            table.add("its tree built", built, "s")
            if (megabytes := tree_megabytes(size)) is not None:
                table.add("its tree beside the vectors", megabytes, "MB", vectors.nbytes / 1e6, "the vectors")
        curves["k-d tree query"].append((size, ours))
        curves["brute force"].append((size, theirs))
    return curves


def training(table, target, sizes, steps):
    """Images/s of one training step of each network; returns {label: [(pixels, ms an image)]}."""
    import torch
    from lightning_fabric import Fabric
    from torch.utils.data import DataLoader

    import GenGAN
    import GenVanillaNN
    import GenWarp
    from Distributed import pick_device, pick_precision
    from PoseDataset import PoseDataset, normalise

    torch.set_num_threads(os.cpu_count() or 1)
    fast, curves = pick_precision(pick_device("cpu")), {}

    def speed(fabric, config, loader, gan=False, warp=False):
        network = GenWarp.build() if warp else GenVanillaNN.build(config)
        network, optimizer = fabric.setup(network, torch.optim.Adam(network.parameters(), 1e-3))
        judge = judge_optimizer = None
        if gan:
            judge = GenGAN.Discriminator(config["image_size"])
            judge, judge_optimizer = fabric.setup(judge, torch.optim.Adam(judge.parameters(), 1e-4))
        for number, (pose, image) in enumerate(itertools.islice(loader, steps + 2)):
            if number == 2:  # after the warm-up
                start = time.perf_counter()
            real = normalise(image)
            if gan:
                GenGAN.step(fabric, network, judge, optimizer, judge_optimizer, pose, real)
            else:
                (GenWarp if warp else GenVanillaNN).step(fabric, network, optimizer, pose, real)
        return steps * BATCH / (time.perf_counter() - start)

    kinds = (("GEN_TYPE 2", "reduced", False), ("GEN_TYPE 3", "image", False), ("GEN_TYPE 4", "image", True))
    for label, pose, gan in kinds:
        for size in sizes:
            config = {"pose": pose, "image_size": size}
            dataset = PoseDataset(target, pose, size)
            ours = DataLoader(dataset, BATCH, shuffle=True)
            with tempfile.TemporaryDirectory() as folder:
                files = ImageFiles(target, dataset, Path(folder), (steps + 2) * BATCH)
                plain = DataLoader(files, BATCH, shuffle=True)
                reference = speed(Fabric(accelerator="cpu", devices=1), config, plain, gan)
            for precision in dict.fromkeys(("32-true", fast)):
                rate = speed(Fabric(accelerator="cpu", devices=1, precision=precision), config, ours, gan)
                table.add(f"training {label} at {size} px, {precision}", rate, "images/s", reference,
                          "float32 loop over image files")
            curves.setdefault(f"training {label}", []).append((size ** 2, 1e3 / rate))
    for size in sizes:  # its pictures are drawn while it trains
        loader = DataLoader(GenWarp.WarpDataset(target, "image", size), BATCH, shuffle=True)
        rate = speed(Fabric(accelerator="cpu", devices=1, precision=fast), {}, loader, warp=True)
        table.add(f"training GEN_TYPE 5 at {size} px, {fast}", rate, "images/s")
        curves.setdefault("training GEN_TYPE 5", []).append((size ** 2, 1e3 / rate))
    return curves


class ImageFiles:
    """The pairs of a PoseDataset as such code is usually written: each image decoded from a full-size PNG file."""

    def __init__(self, target, dataset, folder, count):
        self._dataset, self._folder, self._count = dataset, folder, count
        for index in range(self._count):
            cv2.imwrite(str(folder / f"{index}.png"), np.dstack([target.image(index), target.mask(index)]))

    def __len__(self):
        return self._count

    def __getitem__(self, index):
        size = self._dataset.images.shape[-1]
        image = cv2.resize(cv2.imread(str(self._folder / f"{index}.png"), cv2.IMREAD_UNCHANGED), (size, size))
        return self._dataset[index][0], np.ascontiguousarray(image.transpose(2, 0, 1))


def untrained(gen_type, target, size, path):
    """Write a checkpoint with random weights for generator 2 to 5."""
    import GenVanillaNN
    import GenWarp
    from Checkpoint import SCHEMA, save_checkpoint

    config = {"pose": "reduced" if gen_type == 2 else "image", "image_size": size}
    network = GenWarp.build() if gen_type == 5 else GenVanillaNN.build(config)
    save_checkpoint({"schema": SCHEMA, "generator": {4: "GenGAN", 5: "GenWarp"}.get(gen_type, "GenVanillaNN"),
                     "target": target.identity, "config": config, "model": network.state_dict()}, path)
    return path


def generation(table, target, sizes, repeats):
    """Milliseconds of generate() for each pose of the source, with weights that are not trained; of networks in
    PyTorch, and beside it in ONNX Runtime, where that is installed."""
    from GenWarp import GenWarp

    with VideoReader(SOURCE) as reader:
        steps = dance(reader, target, GENERATORS[1][1](target, None), 120)
        skeletons = [step["placed"] for step in steps if step["pose"]]

    def spent(*generators):  # they take turns image by image
        passes = []
        for _ in range(repeats):
            for generator in generators:
                if hasattr(generator, "reset"):
                    generator.reset()
                generator.generate(skeletons[0])
            times = [[seconds(partial(generator.generate, s)) for generator in generators] for s in skeletons]
            passes.append(np.mean(times, 0) * 1e3)
        return np.median(passes, 0).tolist()

    for name, generator in {"GenNearest": GENERATORS[1][1](target, None), "LimbWarp at 256 px": LimbWarp(target, 256),
                            "LimbWarp at 512 px": LimbWarp(target, 512)}.items():
        table.add(f"generate, {name}", *spent(generator), "ms")
    runtimes = ["torch", "onnx"] if wanted("auto", "cpu") else ["torch"]
    for gen_type, size in [*itertools.product((2, 3, 4, 5), sizes), (5, 512)]:  # of 5, what is drawn
        name, make = GENERATORS[gen_type]
        with tempfile.TemporaryDirectory() as folder:
            path = untrained(gen_type, target, min(size, 256), Path(folder) / "weights.pth")
            make = partial(GenWarp, target, path, size=size) if gen_type == 5 else partial(make, target, path)
            torch_ms, *onnx_ms = spent(*(make(runtime=runtime) for runtime in runtimes))
        table.add(f"generate, {name} at {size} px", torch_ms, "ms")
        for ms in onnx_ms:
            table.add(f"generate, {name} at {size} px, in ONNX Runtime", ms, "ms", torch_ms, "PyTorch")


def demo(table, times):
    """The demo end to end with its stages, GEN_TYPE 1 and 5, and its memory on a clip `times` as long."""
    with tempfile.TemporaryDirectory() as folder:
        folder, peaks = Path(folder), []
        with VideoReader(SOURCE) as reader:
            frames, fps = list(reader), reader.fps
        long, small, report = folder / "long.mp4", folder / "small.mp4", folder / "report.json"
        with VideoWriter(long, fps) as writer:
            for _ in range(times):
                for frame in frames:
                    writer.write(frame)
        with VideoReader(TARGET) as reader, VideoWriter(small, reader.fps) as writer:
            for frame in reader:
                writer.write(cv2.resize(frame, (256, 256), interpolation=cv2.INTER_AREA))

        def told(gen_type, source, *words):
            words = ["--gen-type", gen_type, "--source", source, "--output", folder / "out.mp4", "--report", report,
                     "--no-window", *words]
            peaks.append(peak([sys.executable, ROOT / "DanceDemo.py", *words]))
            return json.loads(report.read_text())

        told(1, SOURCE)
        nearest = told(1, long)
        alone = times * len(frames) / seconds(lambda: exhaust(detect_all(VideoReader(long))))
        tracking = times * len(frames) / seconds(lambda: bare_loop(bare_read(long)))
        weights = untrained(5, VideoSkeleton.load(small), 256, folder / "weights.pth")
        warp = told(5, long, "--target", small, "--checkpoint", weights)
        shutil.rmtree(cache_folder(small))
    for label, report in (("GEN_TYPE 1", nearest), ("GEN_TYPE 5 at 256 px", warp)):
        speed = report["frames_per_second"]
        table.add(f"demo end to end, {label}, {times * len(frames)} frames", speed, "frames/s", alone,
                  "its pose detection alone")
        table.add("the same", speed, "frames/s", tracking, "bare read + detect_for_video loop")
        for stage, ms in report["stage_ms"].items():
            table.add(f"demo, {label}, {stage}", ms, "ms")
    if all(peaks):
        table.add(f"peak memory of the demo, clip {times} times as long", peaks[1], "MB", peaks[0], "the short clip")


PEAK = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(done.returncode)
"""  # a process of its own: a child's peak counts from the size of the process that started it


def peak(words):
    """Peak memory in MB of a command (None where the system can't tell: Windows); raises if it fails."""
    words = list(map(str, words))
    if os.name == "nt":
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return None
    told = subprocess.run([sys.executable, "-c", PEAK, *words], check=True, capture_output=True, text=True)
    return int(told.stdout) / (1e6 if sys.platform == "darwin" else 1e3)


def main():
    parser = Parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer sizes and repeats")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="where plot and JSON go, without ending")
    parser.add_argument("--json", type=Path, help="JSON to write; default: beside the plot")
    args = parser.parse_args()
    need("matplotlib")
    picture = args.output.with_name(args.output.name + ".png")
    path = args.json or args.output.with_name(args.output.name + ".json")
    for output in (picture, path):
        check_output(output, (SOURCE, TARGET))
    target = VideoSkeleton.load(TARGET)
    quick = args.quick
    table = Table()
    pose_and_extraction(table, 1 if quick else 5)
    curves = nearest(table, target.reduced, [10 ** n for n in range(3, 6 if quick else 7)])
    curves |= training(table, target, [64, 128] if quick else [64, 128, 256], 8 if quick else 20)
    generation(table, target, [64, 128, 256], 1 if quick else 5)
    demo(table, 3 if quick else 10)
    told = save(table.rows, path)
    growth(curves, picture)
    print(f"\n{told['machine']['processor']}, {told['machine']['cores']} cores, {told['date']}, {told['commit']}\n"
          f"written: {path}, {picture}")


if __name__ == "__main__":
    run(main)
