"""What Benchmark.py measures with: timing, runs of the demo, an empty cache, checkpoints with random weights, and the
loops that one would write without this project."""

import contextlib
import itertools
import json
import subprocess
import sys
import tempfile
import time
import timeit
from dataclasses import asdict
from pathlib import Path
from statistics import median
from unittest.mock import patch

import av
import cv2
import numpy as np

import GenVanillaNN
import GenWarp
from common import paths
from common.command_line import UserError, quiet_stderr
from common.paths import ROOT
from learning.checkpoint import SCHEMA, NetworkConfig, save_checkpoint
from motion.detector import POSE_MODEL
from video.film import CRF, PRESET, VideoWriter
from VideoReader import VideoReader

CAMERA_FPS, CAMERA_SIZE, CAMERA_KEEPS = 30.0, (640, 480), 4  # of the stand-in for a webcam

# The demo with the cache at its first argument. At the end it prints its peak memory in KiB, 0 where there is no /proc.
DEMO = """
import sys
from pathlib import Path
from common import command_line, paths
paths.CACHE = Path(sys.argv.pop(1))
import DanceDemo
command_line.run(DanceDemo.main)
status = Path("/proc/self/status")
print(status.read_text().split("VmHWM:")[1].split()[0] if status.exists() else 0)
"""


def median_seconds(repeats, *calls):
    """The median seconds that each of `calls` takes. They take turns, so a busy machine is busy for all of them."""
    times = [timeit.timeit(call, number=1) for call in calls * repeats]
    return [median(times[number::len(calls)]) for number in range(len(calls))]


def run_demo(gen_type, source, target, *words):
    """Run the demo, with more words of its command line, in a new process that uses the cache of this one. Returns the
    MB that it took at its peak (0: unknown) and its report (a dict). Raises UserError with its last line of errors."""
    with tempfile.TemporaryDirectory() as folder:
        film, report = Path(folder) / "film.mp4", Path(folder) / "report.json"
        words = [paths.CACHE, "--gen-type", gen_type, "--source", source, "--target", target, "--output", film,
                 "--report", report, "--no-window", *words]
        done = subprocess.run([sys.executable, "-c", DEMO, *map(str, words)], cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise UserError(f"the demo failed: {(done.stderr.strip() or 'it was killed').splitlines()[-1]}")
        return int(done.stdout.split()[-1]) * 1024 / 1e6, json.loads(report.read_text())


def transcode(path, folder):
    """Decode the film at `path` and encode it again as VideoWriter does, into the Path `folder`, with PyAV alone."""
    with av.open(str(path)) as old, av.open(str(folder / "again.mp4"), "w") as new:
        film = old.streams.video[0]
        film.thread_type = "AUTO"
        stream = new.add_stream("libx264", rate=film.average_rate, options={"crf": str(CRF), "preset": PRESET})
        stream.width, stream.height, stream.pix_fmt = film.width, film.height, "yuv420p"
        for number, frame in enumerate(old.decode(film)):
            frame.pts, frame.time_base = number, 1 / film.average_rate
            new.mux(stream.encode(frame))
        new.mux(stream.encode(None))


def enlarge(video, path, width, height, count):
    """Write the first `count` frames of a square video to an mp4 `path`, enlarged to fill the shorter side of a picture
    of this size, whose rest repeats the border."""
    side = min(width, height)
    beside = [(length - side) // 2 for length in (height, height, width, width)]
    with VideoReader(video) as reader, VideoWriter(path, reader.fps) as writer:
        for frame in itertools.islice(reader, count):
            frame = cv2.resize(frame, (side, side), interpolation=cv2.INTER_CUBIC)
            writer.write(cv2.copyMakeBorder(frame, *beside, cv2.BORDER_REPLICATE))


@contextlib.contextmanager
def empty_cache():
    """In the block the cache is an empty temporary folder, whose Path it yields, so that all is found anew."""
    with tempfile.TemporaryDirectory() as folder, patch.object(paths, "CACHE", Path(folder)):
        yield paths.CACHE


def write_untrained(entry, target, image_size, path):
    """Write a checkpoint with random weights for a GeneratorEntry that has a network. Returns `path`."""
    config = NetworkConfig("reduced" if "ske" in entry.arguments else "image", image_size)
    network = GenWarp.build() if entry.network == "GenWarp" else GenVanillaNN.build(config)
    save_checkpoint({"schema": SCHEMA, "generator": entry.network, "target": target.identity, "config": asdict(config),
                     "model": network.state_dict()}, path)
    return path


def bare_read(video):
    """Yield the frames of a video by OpenCV's reader alone."""
    capture = cv2.VideoCapture(str(video))
    while (read := capture.read())[0]:
        yield read[1]


def bare_detection(frames, mask=False):
    """Detect a pose in each frame as MediaPipe's own example does, and keep nothing."""
    import mediapipe as mp
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.PoseLandmarkerOptions(base_options=BaseOptions(model_asset_path=str(POSE_MODEL.find())),
                                           running_mode=vision.RunningMode.VIDEO, output_segmentation_masks=mask)
    with quiet_stderr(), vision.PoseLandmarker.create_from_options(options) as landmarker:
        for number, frame in enumerate(frames):
            image = mp.Image(mp.ImageFormat.SRGB, cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
            landmarker.detect_for_video(image, round(number * 1000 / 30))


class RecordedCamera:
    """Stands in for cv2.VideoCapture: gives the frames of SAMPLE_SOURCE over and over, at CAMERA_FPS and CAMERA_SIZE,
    and those first that nobody has taken in time, up to CAMERA_KEEPS of them, as webcams do."""

    def __init__(self, index):
        self._frames = [cv2.resize(frame, CAMERA_SIZE) for frame in VideoReader(paths.SAMPLE_SOURCE)]
        self._begin, self._number = time.monotonic(), 0

    def isOpened(self):
        return True

    def get(self, _):
        return CAMERA_FPS

    def read(self):
        due = int((time.monotonic() - self._begin) * CAMERA_FPS)
        self._number = max(self._number + 1, due - CAMERA_KEEPS)
        time.sleep(max(0, self._begin + self._number / CAMERA_FPS - time.monotonic()))
        return True, self._frames[self._number % len(self._frames)].copy()

    def release(self):
        self._frames = []


class ImageFiles:
    """The first `count` pairs of a PoseDataset as such code is usually written: for each, a full-size PNG file in
    `folder` is decoded and reduced."""

    def __init__(self, target, dataset, folder, count):
        self._dataset, self._folder, self._count = dataset, folder, count
        for index in range(count):
            cv2.imwrite(str(folder / f"{index}.png"), np.dstack([target.image(index), target.mask(index)]))

    def __len__(self):
        return self._count

    def __getitem__(self, index):
        image = cv2.imread(str(self._folder / f"{index}.png"), cv2.IMREAD_UNCHANGED)
        image = cv2.resize(image, self._dataset.images.shape[2:])
        return self._dataset[index][0], np.ascontiguousarray(image.transpose(2, 0, 1))
