"""Mutated caches and checkpoints through their readers: each is read or refused with a UserError; none crashes, hangs,
or runs what is in it.

    python tests/fuzz.py                 # 10,000 files, some minutes on 2 cores; exits with status 1 if any breaks
    python tests/fuzz.py --files 200

Readers run in a process of their own, BATCH files each: one that dies or takes longer than SECONDS is told with the
number of its first file, from which `--only` makes the same files again.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

BATCH, SECONDS = 250, 120
KINDS = ["skeletons.npz", "frames.bin", "masks.bin", "plate.png", "images-64.npy", "segment", "checkpoint", "payload"]
ALONE = ("segment", "checkpoint", "payload")  # not in the cache's folder


class Payload:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def good(folder):
    """Write a cache of four frames and a small checkpoint into `folder`."""
    import cv2
    import torch

    from Checkpoint import SCHEMA
    from Extraction import extract
    from PoseDataset import reduced_images
    from PoseScan import scan
    from VideoReader import VideoReader
    from VideoSkeleton import VideoSkeleton
    from VideoWriter import VideoWriter

    sample = Path(__file__).resolve().parent.parent / "data" / "sample" / "target.mp4"
    with VideoReader(sample) as reader, VideoWriter(folder / "v.mp4", 10) as writer:
        for _, frame in zip(range(4), reader, strict=False):
            writer.write(cv2.resize(frame, (256, 256), interpolation=cv2.INTER_AREA))
    extract(folder / "v.mp4", folder / "cache")
    reduced_images(VideoSkeleton(folder / "v.mp4", folder / "cache"), 64)
    (folder / "scan").mkdir()
    scan(folder / "v.mp4", folder / "scan")
    (folder / "scan" / "segment-000000.npz").rename(folder / "segment")
    state = {"schema": SCHEMA, "generator": "GenVanillaNN", "target": {"content": "x", "box": [0, 0, 8]}, "epoch": 1,
             "config": {"pose": "image", "image_size": 64}, "model": {"w": torch.zeros(4, 4), "b": torch.ones(4)}}
    torch.save(state, folder / "checkpoint")
    torch.save(state | {"model": Payload(str(folder / "it ran"))}, folder / "payload")


def mutated(data, rng):
    """The bytes with one of the ways that files break."""
    data = bytearray(data)
    way = rng.integers(6)
    place, length = int(rng.integers(len(data))), int(rng.integers(1, 65))
    if way == 0:  # cut short
        return bytes(data[:place])
    if way == 1:  # bits flipped
        for index in rng.integers(len(data), size=length):
            data[index] ^= 1 << int(rng.integers(8))
    elif way == 2:  # bytes at random
        data[place:place + length] = rng.bytes(length)
    elif way == 3:  # some inserted
        data[place:place] = rng.bytes(length)
    elif way == 4:  # some lost
        del data[place:place + length]
    else:  # a run of one value
        data[place:place + length] = bytes([int(rng.choice([0, 255, 127]))]) * length
    return bytes(data)


def read(folder, kind):
    """What the program does with the files of `folder`."""
    import PoseDataset
    import PoseScan
    from Checkpoint import load_checkpoint
    from CommandLine import UserError
    from VideoSkeleton import VideoSkeleton

    if kind in ("checkpoint", "payload"):
        load_checkpoint(folder / kind, "GenVanillaNN", "a command")
    elif kind == "segment":
        (folder / "segment-000000.npz").write_bytes((folder / "segment").read_bytes())
        if PoseScan._read(folder, 0) is None:
            raise UserError("scanned again")
        (folder / PoseScan.END).write_text('{"frames": 4}')
        for _, _, people in PoseScan.scanned(folder):
            assert all(skeleton.joints.shape == (33, 3) for skeleton, _ in people)
    elif kind == "images-64.npy":
        target = VideoSkeleton(folder / "v.mp4", folder / "cache")
        assert PoseDataset.reduced_images(target, 64)[:].shape == (4, 4, 64, 64)
    else:
        target = VideoSkeleton(folder / "v.mp4", folder / "cache")
        for index in range(len(target)):
            target.image(index), target.mask(index), target.skeleton(index)


def work(folder, first, count):
    """Mutate and read files number `first` and on; prints a line for each that breaks."""
    from CommandLine import UserError

    refused = 0
    for number in range(first, first + count):
        rng = np.random.default_rng(number)
        kind = KINDS[number % len(KINDS)]
        path = folder / kind if kind in ALONE else folder / "cache" / kind
        whole = path.read_bytes()
        try:
            path.write_bytes(mutated(whole, rng))
            read(folder, kind)
        except UserError:
            refused += 1
        except Exception as error:
            print(f"BROKE {number} {kind}: {type(error).__name__}: {error}", flush=True)
        finally:
            path.write_bytes(whole)
        if (folder / "it ran").exists():
            print(f"RAN CODE {number} {kind}", flush=True)
            (folder / "it ran").unlink()
    print(f"refused {refused}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10000, help="how many")
    parser.add_argument("--only", type=int, help="the number of one file to try again")
    parser.add_argument("--batch", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.batch:
        return work(Path(args.batch[0]), int(args.batch[1]), int(args.batch[2]))
    with tempfile.TemporaryDirectory() as folder:
        good(Path(folder))
        read(Path(folder), "skeletons.npz")  # unchanged, it is read
        read(Path(folder), "checkpoint")
        broken, refused = [], 0
        starts = range(0, args.files, BATCH) if args.only is None else [args.only]
        for start in starts:
            count = min(BATCH, args.files - start) if args.only is None else 1
            words = [sys.executable, __file__, "--batch", folder, str(start), str(count)]
            try:
                done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS)
                lines = done.stdout.splitlines()
                broken += [line for line in lines if not line.startswith("refused")]
                refused += sum(int(line.split()[1]) for line in lines if line.startswith("refused"))
                if done.returncode:
                    broken.append(f"DIED in the {count} from {start}: status {done.returncode} {done.stderr[-300:]}")
            except subprocess.TimeoutExpired:
                broken.append(f"HUNG in the {count} from {start}")
    print(*broken, f"{args.files if args.only is None else 1} files: {refused} refused, {len(broken)} broke", sep="\n")
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
