"""kill -9 and Ctrl-C at random moments of extraction, training and the demo: what was there stays, the next run works.

    python tests/kills.py                # 20 of each, some minutes; exits with status 1 if anything is lost
    python tests/kills.py --times 3

Works on a copy of the project in a temporary folder. After each: every cache and checkpoint is read, every film decoded
to its end. After Ctrl-C: status 130 (Python's own while it is still starting), and no traceback.
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
FRAMES = 60  # of the clip
CLIP = f"""
from VideoReader import VideoReader
from VideoWriter import VideoWriter
with VideoReader('data/sample/target.mp4') as reader, VideoWriter('clip.mp4', 30) as writer:
    for frame, _ in zip(reader, range({FRAMES})):
        writer.write(frame)
"""
CHECK = f"""
import sys
from pathlib import Path
from Checkpoint import load_checkpoint
from VideoReader import VideoReader
from VideoSkeleton import VideoSkeleton
for folder in Path("data/cache").glob("[!.]*"):
    target = VideoSkeleton("clip.mp4", folder)
    assert len(target) == {FRAMES}
    for index in range(len(target)):
        target.image(index), target.mask(index)
paths = list(Path("data/Dance").glob("[!.]*.pth"))
assert len(paths) >= 2
for path in paths:
    load_checkpoint(path, None, "a command")
count = len(list(VideoReader("data/Dance/o.mp4")))
assert count == {FRAMES} or ("Ctrl-C" in sys.argv and count > 0), count
for film in Path("data/Dance").glob("*-unfinished.mp4"):
    assert len(list(VideoReader(film)))
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20, help="of each")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args()
    moments, lost, midway = random.Random(args.seed), [], {"kill": 0, "Ctrl-C": 0}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for path in ROOT.glob("*.py"):
            shutil.copy(path, folder)
        shutil.copytree(ROOT / "data" / "sample", folder / "data" / "sample")
        subprocess.run([sys.executable, "-c", CLIP], cwd=folder, check=True)
        jobs = {
            "extraction": ["VideoSkeleton.py", "clip.mp4", "--force"],
            "extraction by two processes": ["VideoSkeleton.py", "clip.mp4", "--force", "--workers", "2"],
            "training": ["GenVanillaNN.py", "--target", "clip.mp4", "--minutes", "0.2", "--epochs", "100000"],
            "demo": ["DanceDemo.py", "--target", "clip.mp4", "--source", "clip.mp4", "--output", "data/Dance/o.mp4",
                     "--no-window"],
        }
        took = {}

        def start(name):
            return subprocess.Popen([sys.executable, *jobs[name]], cwd=folder, stdout=subprocess.DEVNULL,
                                    stderr=subprocess.PIPE, text=True)

        def works(name):
            """Seconds that a job takes which nobody stops."""
            begin = time.monotonic()
            running = start(name)
            _, error = running.communicate()
            if running.returncode:
                lost.append(f"{name} does not work: {error.strip().splitlines()[-1]}")
            return time.monotonic() - begin

        for name in jobs:  # everything is there once
            took[name] = works(name)
        for number in range(2 * args.times):
            name, way = list(jobs)[number // 2 % len(jobs)], list(midway)[number % 2]
            running = start(name)
            try:
                _, error = running.communicate(timeout=moments.uniform(0.1, 1) * took[name])
            except subprocess.TimeoutExpired:
                midway[way] += 1
                running.send_signal(signal.SIGKILL if way == "kill" else signal.SIGINT)
                _, error = running.communicate()
                if way == "Ctrl-C" and (running.returncode not in (0, 130, -signal.SIGINT) or (
                        running.returncode == 130 and "Traceback" in error)):
                    lost.append(f"{way} {number} in {name}: status {running.returncode}: {error[-500:]}")
            check = subprocess.run([sys.executable, "-c", CHECK, way], cwd=folder, capture_output=True, text=True)
            if check.returncode:
                lost.append(f"{way} {number} in {name}: {check.stderr.strip().splitlines()[-1]}")
            if way == "Ctrl-C" and name == "demo":
                works(name)
        for name in jobs:
            works(name)
        left = [path for path in folder.rglob(".*") if path.is_file()]
        print(*lost, f"{args.times} kills and as many times Ctrl-C, {midway['kill']} and {midway['Ctrl-C']} of them "
              f"midway: {len(lost)} did harm; {len(left)} unfinished files left in the end", sep="\n")
    sys.exit(bool(lost))


if __name__ == "__main__":
    main()
