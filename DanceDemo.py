"""The target person dances like the source person: source video -> pose -> generator -> window and mp4.

    python DanceDemo.py                                             # the constants below, on the shipped clips
    python DanceDemo.py --gen-type 3 --source karate.mp4 --target me.mp4
    python DanceDemo.py --source 0                                  # the webcam, live

Writes data/Dance/DanceDemo-<generator>.mp4, [source with its skeleton | generated], with the source's frame rate and
sound. 'q' in the window quits. The learned generators want their weights first: GenVanillaNN.py, GenGAN.py.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from CommandLine import ROOT, Parser, UserError, positive, run, writable_folder
from Retarget import Retarget, look
from Skeleton import PoseDetector
from VideoReader import VideoReader, VideoWriter, ahead
from VideoSkeleton import VideoSkeleton

GEN_TYPE = 1  # 1 nearest frame | 2 network from 26 values | 3 network from the skeleton image | 4 GAN
SOURCE = ROOT / "data" / "sample" / "source.mp4"  # motion: a video, a folder of images, or 0 for the webcam
TARGET = ROOT / "data" / "sample" / "target.mp4"  # appearance: a video of the person to show
LAYOUT = "side-by-side"  # or "result"
LAYOUTS = ["side-by-side", "result"]
POSES_AHEAD = 4  # frames whose pose is found while an earlier one is generated


def _nearest(target, checkpoint):
    from GenNearest import GenNearest  # each is imported when it is asked for: the first one needs no torch

    if checkpoint is not None:
        raise UserError("GEN_TYPE 1 learns nothing and takes no --checkpoint; leave it out")
    return GenNearest(target)


def _vanilla(kind):
    def make(target, checkpoint):
        from GenVanillaNN import GenVanillaNN

        return GenVanillaNN(target, kind, checkpoint)

    return make


def _gan(target, checkpoint):
    from GenGAN import GenGAN

    return GenGAN(target, checkpoint)


# GEN_TYPE: (name in the output's path, maker(target, checkpoint) of an object with generate(skeleton) -> image)
GENERATORS = {1: ("GenNearest", _nearest), 2: ("GenVanillaFromSke", _vanilla("ske")),
              3: ("GenVanillaFromSkeim", _vanilla("skeim")), 4: ("GenGAN", _gan)}


def dance(reader, target, generator):
    """Drive `generator` by the frames of `reader` (VideoReader): yields one dict a frame, in order.

    seconds: since the first frame; frame: the source's; found: its Skeleton in the source, or None; placed: the last
    Skeleton on the canvas, or None before the first; image: the canvas (before the first person, the target's first
    frame); ms: {read, pose, generate}.
    The poses of the next frames are found in a thread while this one is generated.
    """
    retarget = Retarget(target, None if reader.live else look(reader.source))
    placed, image = None, target.image(0)
    poses = ahead(_poses(reader), 1 if reader.live else POSES_AHEAD)
    try:
        for seconds, frame, found, ms in poses:
            start = time.perf_counter()
            if found is not None:
                placed = retarget.place(found)
                image = generator.generate(placed)
            ms["generate"] = (time.perf_counter() - start) * 1e3
            yield {"seconds": seconds, "frame": frame, "found": found, "placed": placed, "image": image, "ms": ms}
    finally:
        poses.close()


def _poses(reader):
    """(seconds, frame, Skeleton or None, milliseconds spent waiting for the frame and on its pose) for each frame."""
    with PoseDetector(fps=reader.fps) as detector:
        start = time.perf_counter()
        for seconds, frame in reader.timed():
            arrived = time.perf_counter()
            found = detector.detect(frame, seconds)[0]
            now = time.perf_counter()
            yield seconds, frame, found, {"read": (arrived - start) * 1e3, "pose": (now - arrived) * 1e3}
            start = time.perf_counter()


def compose(step, layout):
    """The picture to show and write for one step of `dance`."""
    if layout == "result":
        return step["image"]
    frame = step["frame"].copy() if step["found"] is None else step["found"].draw(step["frame"].copy())
    height = step["image"].shape[0]
    width = round(frame.shape[1] * height / frame.shape[0])
    return np.hstack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA), step["image"]])


def screen():
    """True where a window can be shown. On Linux OpenCV ends the whole process where it can't: another one tries."""
    if sys.platform.startswith("linux"):
        trial = [sys.executable, "-c", "import cv2; cv2.namedWindow('trial'); cv2.waitKey(1)"]
        return bool(os.environ.get("DISPLAY")) and not subprocess.run(trial, capture_output=True).returncode
    return True


def check_output(path, inputs):
    """UserError where writing `path` would overwrite one of the `inputs` or can't work."""
    if path.is_dir():
        raise UserError(f"{path} is a folder; name the file to write")
    if any(Path(str(name)).exists() and path.exists() and path.samefile(str(name)) for name in inputs):
        raise UserError(f"{path} is one of the inputs; name another file to write")
    writable_folder(path.parent)
    return path


def save_skeletons(path, track, target, fps):
    """joints float32 (frames, 33, 3) in pixels of the target's frame (NaN before the first person), detected, fps."""
    x, y, side = target.box
    nowhere = np.full((33, 3), np.nan, np.float32)
    joints = [nowhere if placed is None else placed.joints * side + np.float32([x, y, 0]) for placed, _ in track]
    with open(path, "wb") as file:
        np.savez(file, joints=np.array(joints, np.float32).reshape(-1, 33, 3), fps=fps,
                 detected=np.array([found for _, found in track], bool))


def main():
    parser = Parser(__doc__)
    parser.add_argument("--gen-type", type=int, choices=list(GENERATORS), default=GEN_TYPE, help="the generator")
    parser.add_argument("--source", default=SOURCE, help="motion: video, folder of images, or webcam number")
    parser.add_argument("--target", default=TARGET, help="appearance: video of the person to show")
    parser.add_argument("--checkpoint", type=Path, help="weights; default: where the training script puts them")
    parser.add_argument("--output", type=Path, help="mp4 to write; default: data/Dance/DanceDemo-<generator>.mp4")
    parser.add_argument("--layout", choices=LAYOUTS, default=LAYOUT, help="what is shown")
    parser.add_argument("--no-window", action="store_true", help="write only, show nothing")
    parser.add_argument("--max-frames", type=positive(int), help="end after so many")
    parser.add_argument("--skeletons", type=Path, metavar="OUT.npz", help="also write the placed skeletons")
    parser.add_argument("--report", type=Path, metavar="OUT.json", help="also write what was done and how fast")
    args = parser.parse_args()
    if args.gen_type not in GENERATORS or args.layout not in LAYOUTS:  # constants edited by hand
        parser.error(f"GEN_TYPE is one of {list(GENERATORS)}, LAYOUT one of {LAYOUTS}")

    name, make = GENERATORS[args.gen_type]
    output = args.output or ROOT / "data" / "Dance" / f"DanceDemo-{name}.mp4"
    outputs = [path for path in (output, args.skeletons, args.report) if path]
    for path in outputs:
        check_output(path, (args.source, args.target))
    if len({path.absolute() for path in outputs}) < len(outputs):
        raise UserError("--output, --skeletons and --report name the same file; give each its own")
    with VideoReader(args.source) as reader:
        target = VideoSkeleton.load(args.target)
        generator = make(target, args.checkpoint)
        play(args, reader, target, generator, name, output)


def play(args, reader, target, generator, name, output):
    """Write (and show) the dance; then the skeletons and the report, where asked for."""
    show = not args.no_window and screen()
    total = min(filter(None, (reader.frame_count, args.max_frames)), default=None)
    track, count, missing, spent = [], 0, 0, dict.fromkeys(("read", "pose", "generate", "write"), 0.0)
    sound = None if reader.live else reader.source
    begin = time.perf_counter()
    with VideoWriter(output, reader.fps, sound, reader.variable) as writer, \
            contextlib.closing(dance(reader, target, generator)) as dancing:
        for step in tqdm(dancing, total=total, desc=name, unit="frame"):
            start = time.perf_counter()
            picture = compose(step, args.layout)
            writer.write(picture, step["seconds"])
            count += 1
            missing += step["found"] is None
            if args.skeletons:
                track.append((step["placed"], step["found"] is not None))
            for stage, ms in step["ms"].items():
                spent[stage] += ms
            spent["write"] += (time.perf_counter() - start) * 1e3
            if count == args.max_frames:
                break
            if show:
                cv2.imshow("DanceDemo", picture)
                if cv2.waitKey(1) & 0xFF == ord("q"):
                    break
        if missing == count:
            raise UserError(f"nobody is seen in the {count} frames of {str(reader.source)!r} so far; "
                            "show the whole person, in good light")
    seconds = time.perf_counter() - begin
    if show:
        cv2.destroyAllWindows()
    if args.skeletons:
        save_skeletons(args.skeletons, track, target, reader.fps)
    if args.report:
        args.report.write_text(json.dumps({
            "generator": name, "source": str(args.source), "target": str(args.target), "frames": count,
            "frames_without_person": missing, "video_fps": reader.fps, "seconds": round(seconds, 3),
            "frames_per_second": round(count / seconds, 2),
            "stage_ms": {stage: round(ms / count, 3) for stage, ms in spent.items()}, "output": str(output),
        }, indent=1) + "\n")
    print(f"{output}: {count} frames, {missing} without a person, {count / seconds:.1f} frames/s")


if __name__ == "__main__":
    run(main)
