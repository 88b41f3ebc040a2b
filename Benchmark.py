"""Speed, measured: each figure beside a reference taken in the same run, since machines differ and vary.

    python Benchmark.py                        # on the shipped target
    python Benchmark.py --video me.mp4 --repeats 5

Extraction (pose, canvas, cache) against a bare loop of OpenCV's read and MediaPipe's detect_for_video on the same
clip, in turn; the nearest neighbour against numpy's brute force, same answers asserted. Medians of the repeats.
"""

import tempfile
import time
from pathlib import Path
from statistics import median

import cv2
import numpy as np

from CommandLine import Parser, positive, run
from GenNearest import NearestSkeleton
from Skeleton import find_model
from VideoSkeleton import TARGET, VideoSkeleton, extract

SIZES = (10 ** 3, 10 ** 4, 10 ** 5, 10 ** 6)  # skeletons
QUERIES = 50


def seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def bare_loop(video):
    """Read and detect, as MediaPipe's own example does, and keep nothing."""
    import mediapipe as mp
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.PoseLandmarkerOptions(base_options=BaseOptions(model_asset_path=str(find_model())),
                                           running_mode=vision.RunningMode.VIDEO)
    capture, count = cv2.VideoCapture(str(video)), 0
    with vision.PoseLandmarker.create_from_options(options) as landmarker:
        while (read := capture.read())[0]:
            image = mp.Image(mp.ImageFormat.SRGB, cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
            landmarker.detect_for_video(image, round(count * 1000 / 30))
            count += 1
    return count


def extraction(video, repeats):
    """(frames/s of extract, frames/s of the bare loop, median of their ratios), in turn."""
    ours, bare = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(repeats):
            frames = 0

            def reference():
                nonlocal frames
                frames = bare_loop(video)

            bare.append(seconds(reference))
            ours.append(seconds(lambda to=Path(folder) / f"run-{number}": extract(video, to)))
    return frames / median(ours), frames / median(bare), median(b / o for b, o in zip(bare, ours, strict=True))


def nearest(poses, size, rng):
    """(ms a query, ms by brute force, seconds to build) among `size` poses blended from pairs of real ones."""
    a, b = rng.integers(len(poses), size=(2, size))
    share = rng.random((size, 1))
    vectors = poses[a] * share + poses[b] * (1 - share) + rng.normal(0, 0.002, (size, poses.shape[1]))
    queries = vectors[rng.integers(size, size=QUERIES)] + rng.normal(0, 0.01, (QUERIES, poses.shape[1]))
    built = time.perf_counter()
    tree = NearestSkeleton(vectors)
    built = time.perf_counter() - built
    answers, brute = [], []
    ours = seconds(lambda: answers.extend(tree.query(q) for q in queries))
    theirs = seconds(lambda: brute.extend(int(((vectors - q) ** 2).sum(1).argmin()) for q in queries))
    assert answers == brute
    return ours / QUERIES * 1e3, theirs / QUERIES * 1e3, built


def main():
    parser = Parser(__doc__)
    parser.add_argument("--video", default=TARGET, help="clip to extract")
    parser.add_argument("--repeats", type=positive(int), default=3, help="of each extraction")
    args = parser.parse_args()
    poses = VideoSkeleton.load(args.video).reduced
    print("| what | here | reference | ratio |\n|---|---|---|---|", flush=True)
    ours, bare, ratio = extraction(args.video, args.repeats)
    print(f"| extraction, frames/s | {ours:.1f} | {bare:.1f} bare loop | {ratio:.2f} |", flush=True)
    rng = np.random.default_rng(0)
    for size in SIZES:
        ms, brute, built = nearest(poses, size, rng)
        print(f"| nearest of {size} poses, ms (built in {built:.2f} s) | {ms:.3f} | {brute:.3f} brute force | "
              f"{brute / ms:.1f} |", flush=True)


if __name__ == "__main__":
    run(main)
