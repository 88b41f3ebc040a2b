"""kill -9 at random moments of extraction, training and the demo: what was there stays whole, the next run works.

    python tests/kills.py                # 20 kills, some minutes; exits with status 1 if anything is lost
    python tests/kills.py --kills 3

Works on a copy of the project in a temporary folder.
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
SOUND = """
import sys, torch
from pathlib import Path
from Training import load_checkpoint
from VideoReader import VideoReader
from VideoSkeleton import VideoSkeleton
for folder in Path("data/cache").glob("[!.]*"):
    target = VideoSkeleton(sys.argv[1], folder)
    for index in range(len(target)):
        target.image(index), target.mask(index)
for path in Path("data/Dance").glob("[!.]*.pth"):
    load_checkpoint(path, None, "a command")
if Path("data/Dance/o.mp4").exists():
    assert len(list(VideoReader("data/Dance/o.mp4"))) == 40
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args()
    moments, lost, midway = random.Random(args.seed), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for path in ROOT.glob("*.py"):
            shutil.copy(path, folder)
        shutil.copytree(ROOT / "data" / "sample", folder / "data" / "sample")
        clip = folder / "clip.mp4"
        shorten = "from VideoReader import VideoReader\nfrom VideoWriter import VideoWriter\n" \
                  "w = VideoWriter('clip.mp4', 30)\n" \
                  "for f, _ in zip(VideoReader('data/sample/target.mp4'), range(40)): w.write(f)\nw.close()"
        subprocess.run([sys.executable, "-c", shorten], cwd=folder, check=True)
        jobs = {
            "extraction": ["VideoSkeleton.py", clip, "--force"],
            "training": ["GenVanillaNN.py", "--target", clip, "--minutes", "0.2", "--epochs", "100000"],
            "demo": ["DanceDemo.py", "--target", clip, "--source", clip, "--output", "data/Dance/o.mp4", "--no-window"],
        }
        took = {}

        def start(name):
            return subprocess.Popen([sys.executable, *jobs[name]], cwd=folder, stdout=subprocess.DEVNULL,
                                    stderr=subprocess.PIPE, text=True)

        for name in jobs:  # everything is there once
            begin = time.monotonic()
            running = start(name)
            _, error = running.communicate()
            assert running.returncode == 0, error
            took[name] = time.monotonic() - begin
        for number in range(args.kills):
            name = list(jobs)[number % len(jobs)]
            running = start(name)
            try:
                running.communicate(timeout=moments.uniform(0.1, 1) * took[name])
            except subprocess.TimeoutExpired:
                running.send_signal(signal.SIGKILL)
                running.communicate()
                midway += 1
            check = subprocess.run([sys.executable, "-c", SOUND, clip], cwd=folder, capture_output=True, text=True)
            if check.returncode:
                lost += 1
                print(f"kill {number} in {name}: {check.stderr.strip().splitlines()[-1]}")
        for name in jobs:
            running = start(name)
            _, error = running.communicate()
            if running.returncode:
                lost += 1
                print(f"after the kills, {name}: {error.strip().splitlines()[-1]}")
        left = [path for path in folder.rglob(".*") if path.is_file()]
        print(f"{args.kills} kills, {midway} of them midway: {lost} did harm; "
              f"{len(left)} unfinished files left, {sum(path.stat().st_size for path in left) / 1e6:.1f} MB")
    sys.exit(bool(lost))


if __name__ == "__main__":
    main()
