"""kill -9 and Ctrl-C at random moments of the pose pass of a source, of extraction, of training and of the dance: what
was there stays, and the next run works.

    python tests/kills.py                # 20 of each, some minutes; exits with status 1 if anything is lost
    python tests/kills.py --times 3

It works on a copy of the project in a temporary folder. After each of them, everything in the cache is compared byte
for byte with what an undisturbed run has made there, every checkpoint is read, and every film is decoded to its end.
After Ctrl-C, the status must be 130 (or Python's own while it is still starting), without a traceback.
"""

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET_FRAMES = 60  # frames of the target's clip
SOURCE_FRAMES = 250  # frames of the source: more than two segments of its pose pass
PREPARE = f"""
from video.clip import Clip
from VideoReader import VideoReader
from common.paths import SAMPLE_SOURCE, SAMPLE_TARGET
from video.film import VideoWriter
for sample, path, count in (SAMPLE_TARGET, "clip.mp4", {TARGET_FRAMES}), (SAMPLE_SOURCE, "source.mp4", {SOURCE_FRAMES}):
    with VideoReader(sample) as reader, VideoWriter(path, 30) as writer:
        for frame, _ in zip(reader, range(count)):
            writer.write(frame)
"""
# Run in the copy of the project, with the name of the job and "kill" or "Ctrl-C".
CHECK = f"""
import sys
from pathlib import Path
from learning.checkpoint import load_checkpoint
from motion.extraction import cache_folder, load_track
from motion.following import FoundPeople
from motion.track import Track
from VideoReader import VideoReader
from VideoSkeleton import VideoSkeleton

job, way = sys.argv[1:]
cache, whole = Path("data/cache"), Path("whole")
for path in cache.glob("[!.]*/**/*"):
    if path.is_file() and not path.name.startswith("."):
        assert path.read_bytes() == (whole / path.relative_to(cache)).read_bytes(), f"{{path}} is another one"
for video, frames in ("clip.mp4", {TARGET_FRAMES}), ("source.mp4", {SOURCE_FRAMES}):
    folder = cache_folder(video)
    if folder.exists():
        assert len(FoundPeople(folder, Clip(folder)).track) == frames
    for pictures in folder.glob("target-*"):
        target = VideoSkeleton(video, pictures)
        assert len(target) == frames
        for index in range(frames):
            target.image(index), target.mask(index)
paths = list(Path("data/Dance").glob("[!.]*.pth"))
assert len(paths) >= 2
for path in paths:
    load_checkpoint(path, None, "a command")
for name, frames in ("dance", {TARGET_FRAMES}), ("source", {SOURCE_FRAMES}):
    count = len(list(VideoReader(f"data/Dance/{{name}}.mp4")))
    dance_began = name == "dance" or cache_folder("source.mp4").exists()
    may_be_cut = (job, way) == (name, "Ctrl-C") and dance_began
    assert count == frames or may_be_cut and count > 0, f"{{count}} frames in {{name}}.mp4"
assert len(Track.load("data/Dance/source.npz")) == {SOURCE_FRAMES}
for film in Path("data/Dance").glob("*-unfinished.mp4"):
    assert len(list(VideoReader(film)))
"""
DEMO = ["DanceDemo.py", "--target", "clip.mp4", "--no-window"]
JOBS = {
    "poses": ["VideoSkeleton.py", "clip.mp4", "--force"],
    "poses by two processes": ["VideoSkeleton.py", "clip.mp4", "--force", "--workers", "2"],
    "training": ["GenVanillaNN.py", "--target", "clip.mp4", "--minutes", "0.2", "--epochs", "100000"],
    "dance": [*DEMO, "--source", "clip.mp4", "--output", "data/Dance/dance.mp4"],
    # The poses of this source are removed before each run, so most of its time is their pose pass.
    "source": [*DEMO, "--source", "source.mp4", "--output", "data/Dance/source.mp4", "--gen-type", "1",
               "--save-motion", "data/Dance/source.npz"],
}


class Copy:
    """The copy of the project in `folder`, in which the jobs run. lost: what went wrong, as lines of text."""

    def __init__(self, folder):
        self.folder, self.lost = folder, []
        for path in ROOT.glob("*.py"):
            shutil.copy(path, folder)
        for path in ROOT.glob("*/__init__.py"):
            shutil.copytree(path.parent, folder / path.parent.name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "data" / "sample", folder / "data" / "sample")
        subprocess.run([sys.executable, "-c", PREPARE], cwd=folder, check=True)

    def start(self, name):
        if name == "source":
            for poses in (self.folder / "data" / "cache").glob("source-*"):
                shutil.rmtree(poses)
        return subprocess.Popen([sys.executable, *JOBS[name]], cwd=self.folder, stdout=subprocess.DEVNULL,
                                stderr=subprocess.PIPE, text=True)

    def run_whole(self, name):
        """Run a job that nobody stops; returns the seconds that it takes."""
        begin = time.monotonic()
        running = self.start(name)
        _, error = running.communicate()
        if running.returncode:
            self.lost.append(f"{name} does not work: {error.strip().splitlines()[-1]}")
        return time.monotonic() - begin

    def stop(self, name, way, seconds):
        """Start a job and stop it after so many seconds; returns whether it was still running."""
        running, midway = self.start(name), False
        try:
            _, error = running.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            midway = True
            running.send_signal(signal.SIGKILL if way == "kill" else signal.SIGINT)
            _, error = running.communicate()
        if way == "Ctrl-C" and (running.returncode not in (0, 130, -signal.SIGINT) or (
                running.returncode == 130 and "Traceback" in error)):
            self.lost.append(f"{way} in {name}: status {running.returncode}: {error[-500:]}")
        check = subprocess.run([sys.executable, "-c", CHECK, name, way], cwd=self.folder, capture_output=True,
                               text=True)
        if check.returncode:
            self.lost.append(f"{way} after {seconds:.2f} s in {name}: {check.stderr.strip().splitlines()[-1]}")
        return midway


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20, help="of each")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args()
    moments, midway = random.Random(args.seed), {"kill": 0, "Ctrl-C": 0}
    with tempfile.TemporaryDirectory() as folder:
        copy = Copy(Path(folder))
        took = {name: copy.run_whole(name) for name in JOBS}  # now everything is there once
        shutil.copytree(copy.folder / "data" / "cache", copy.folder / "whole")
        for number in range(2 * args.times):
            name, way = list(JOBS)[number // 2 % len(JOBS)], list(midway)[number % 2]
            midway[way] += copy.stop(name, way, moments.uniform(0.1, 1) * took[name])
            if way == "Ctrl-C" and name in ("dance", "source"):
                copy.run_whole(name)  # so that the film is whole before the next one
        for name in JOBS:
            copy.run_whole(name)
        left = [path for path in copy.folder.rglob(".*") if path.is_file()]
        print(*copy.lost, f"{args.times} kills and as many times Ctrl-C, {midway['kill']} and {midway['Ctrl-C']} of "
              f"them midway: {len(copy.lost)} did harm; {len(left)} unfinished files left in the end", sep="\n")
    sys.exit(bool(copy.lost))


if __name__ == "__main__":
    main()
