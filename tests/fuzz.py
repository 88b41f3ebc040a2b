"""Mutated caches, motion files and checkpoints through their readers: each is read or refused with a UserError; none
crashes, hangs, or runs what is in it.

    python tests/fuzz.py                 # 10,000 files, some minutes on 2 cores; exits with status 1 if any breaks
    python tests/fuzz.py --files 200

The readers run in processes of their own, each of which gets BATCH files. Where one dies or takes longer than SECONDS,
the number of its first file is printed. With `--only` and the number of a file, that file is made and read again.
"""

import argparse
import io
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

BATCH = 250  # files that one process reads
SECONDS = 120  # that it may take for them
# What is mutated: files of a video's folder in the cache, with those of its pictures as a target, and files elsewhere.
KINDS = ["poses.npz", "masks.bin", "target/skeletons.npz", "target/frames.bin", "target/plate.png",
         "target/images-64.npy", "segment", "motion", "checkpoint", "payload"]
ARRAYS = ("poses.npz", "target/skeletons.npz", "segment", "motion")  # those that numpy has written
ELSEWHERE = ("segment", "motion", "checkpoint", "payload")


class Payload:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def make_good_files(folder):
    """Write a cache of four frames, a segment of its pose pass, a motion file and a small checkpoint into `folder`."""
    import cv2
    import torch

    from common import paths
    from learning.checkpoint import SCHEMA
    from learning.dataset import reduced_images
    from motion.following import FoundPeople
    from motion.segments import find_segments
    from video.clip import Clip
    from video.film import VideoWriter
    from VideoReader import VideoReader
    from VideoSkeleton import VideoSkeleton

    paths.CACHE, paths.LOCKS = folder / "caches", folder / "locks"
    with VideoReader(paths.SAMPLE_TARGET) as reader, VideoWriter(folder / "v.mp4", 10) as writer:
        for _, frame in zip(range(4), reader, strict=False):
            writer.write(cv2.resize(frame, (256, 256), interpolation=cv2.INTER_AREA))
    target = VideoSkeleton.load(folder / "v.mp4")
    reduced_images(target, 64)
    target.folder.rename(target.folder.with_name("target"))
    target.folder.parent.rename(folder / "cache")
    FoundPeople(folder / "cache", Clip(folder)).track.save(folder / "motion.npz")
    (folder / "motion.npz").rename(folder / "motion")
    (folder / "work").mkdir()
    find_segments(folder / "v.mp4", folder / "work")
    (folder / "work" / "segment-000000.npz").rename(folder / "segment")
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


def with_other_values(data, rng):
    """The bytes of an .npz in which some bits of one array are flipped. Its checksums are those of the new values, so
    nothing but the program's own checks can tell."""
    with np.load(io.BytesIO(data)) as stored:
        arrays = dict(stored)
    name = str(rng.choice(sorted(arrays)))
    values = bytearray(arrays[name].tobytes())
    for index in rng.integers(len(values), size=int(rng.choice([1, 4, 64]))):
        values[index] ^= 1 << int(rng.integers(8))
    arrays[name] = np.frombuffer(bytes(values), arrays[name].dtype).reshape(arrays[name].shape)
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def read(folder, kind):
    """What the program does with a file of `folder`, one of KINDS."""
    from common import paths
    from common.command_line import UserError
    from learning.checkpoint import load_checkpoint
    from learning.dataset import reduced_images
    from motion import extraction, segments
    from motion.following import FoundPeople
    from motion.track import Track
    from video.clip import Clip
    from VideoSkeleton import VideoSkeleton

    paths.LOCKS = folder / "locks"
    if kind in ("checkpoint", "payload"):
        load_checkpoint(folder / kind, "GenVanillaNN", "a command")
    elif kind == "segment":
        (folder / "work" / "segment-000000.npz").write_bytes((folder / "segment").read_bytes())
        if segments.read_segment(folder / "work", 0) is None:
            raise UserError("it is found again")
        extraction._join(Clip(folder / "v.mp4"), folder / "work")
        FoundPeople(folder / "work", Clip(folder))
    elif kind == "motion":
        dance(folder, Track.load(folder / "motion"))
    else:
        people = FoundPeople(folder / "cache", Clip(folder))
        target = VideoSkeleton(folder / "v.mp4", folder / "cache" / "target")
        if kind in ("poses.npz", "target/skeletons.npz"):
            dance(folder, people.track)
        elif kind == "target/images-64.npy":
            assert reduced_images(target, 64)[:].shape == (4, 4, 64, 64)
        for index in range(len(target)):
            target.image(index), target.mask(index), target.skeleton(index)


def dance(folder, track):
    """Let the four frames of the good target dance a Track, into a film."""
    from dancing.dance import compose, moments
    from dancing.generators import GENERATORS
    from motion.mending import steady
    from motion.retargeting import place
    from video.film import VideoWriter
    from VideoSkeleton import VideoSkeleton

    target, motion = VideoSkeleton(folder / "v.mp4", folder / "cache" / "target"), steady(track)
    placed, count = place(motion, target), 0
    with VideoWriter(folder / "o.mp4", track.fps, variable=track.variable) as writer:
        for moment in moments(motion, placed, target, GENERATORS[1].make(target)):
            writer.write(compose(moment, "result"), moment.seconds)
            count += 1
    assert count == len(track)


def work(folder, first, count):
    """Mutate and read files number `first` and on; prints a line for each that breaks."""
    from common.command_line import UserError

    refused = 0
    for number in range(first, first + count):
        rng = np.random.default_rng(number)
        kind = KINDS[number % len(KINDS)]
        path = folder / kind if kind in ELSEWHERE else folder / "cache" / kind
        whole = path.read_bytes()
        mutate = with_other_values if kind in ARRAYS and rng.integers(2) else mutated
        try:
            path.write_bytes(mutate(whole, rng))
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
        make_good_files(Path(folder))
        for kind in KINDS[:-1]:  # unchanged, each is read; a payload never is
            read(Path(folder), kind)
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
