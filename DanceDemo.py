"""The target person dances like the source person: source video -> pose -> generator -> window and mp4.

    python DanceDemo.py                                             # the constants below, on the shipped clips
    python DanceDemo.py --gen-type 3 --source karate.mp4 --target me.mp4
    python DanceDemo.py --source 0                                  # the webcam, live
    python DanceDemo.py --gen-type 4 --runtime onnx                 # its network in ONNX Runtime (Runtime.py)

Writes data/Dance/DanceDemo-<generator>.mp4, [source with its skeleton | the target in her scene], with the source's
frame rate and sound. 'q' in the window quits. GEN_TYPE 1 and 5 work at once; 5 is better after GenWarp.py, and 2 to 4
want their weights first: run GenVanillaNN.py or GenGAN.py.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections import deque
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from CommandLine import ROOT, Parser, UserError, positive, run, warn, writable_folder
from LimbWarp import LOOK_AHEAD
from PoseTrack import Cuts, steady, thumbnail
from Retarget import Retarget, look
from Runtime import RUNTIMES, wanted
from Scene import Scene
from Skeleton import PoseDetector, detect_all
from Storage import whole
from VideoReader import VideoReader, ahead
from VideoSkeleton import VideoSkeleton
from VideoWriter import VideoWriter

# 1 nearest frame | 2 network from 26 values | 3 network from the skeleton image | 4 GAN | 5 retrieve, warp, refine
GEN_TYPE = 5
SOURCE = ROOT / "data" / "sample" / "source.mp4"  # motion: a video, a folder of images, or 0 for the webcam
TARGET = ROOT / "data" / "sample" / "target.mp4"  # appearance: a video of the person to show
LAYOUT = "side-by-side"  # or "result"
CONTINUITY = 0.0  # of GEN_TYPE 1: above 0, a sequence without jumps is planned; 4 is a good value
LAYOUTS = ["side-by-side", "result"]
HIGHEST = 720  # pixels of the source's frames beside the result
WARP_WEIGHTS = ROOT / "data" / "Dance" / "DanceGenWarp.pth"
POSES_AHEAD = 12  # frames whose pose is ready while an earlier one is generated


def _nearest(target, checkpoint, continuity=0.0):
    from GenNearest import GenNearest  # each is imported when it is asked for: the first one needs no torch

    if checkpoint is not None:
        raise UserError("GEN_TYPE 1 learns nothing and takes no --checkpoint; leave it out")
    return GenNearest(target, continuity=continuity)


def _vanilla(kind):
    def make(target, checkpoint, runtime="auto"):
        from GenVanillaNN import GenVanillaNN

        return GenVanillaNN(target, kind, checkpoint, runtime=runtime)

    return make


def _gan(target, checkpoint, runtime="auto"):
    from GenGAN import GenGAN

    return GenGAN(target, checkpoint, runtime=runtime)


def _warp(target, checkpoint, runtime="auto"):
    try:
        if checkpoint is None and not WARP_WEIGHTS.exists():
            raise UserError("GEN_TYPE 5 has no training here yet (python GenWarp.py)")
        from GenWarp import GenWarp

        return GenWarp(target, checkpoint, runtime=runtime)
    except UserError as error:
        if checkpoint is not None:
            raise
        warn(f"{error}; going on without: limbs are warped, not refined")
    from LimbWarp import LimbWarp

    return LimbWarp(target)


# GEN_TYPE: (name in the output's path, maker(target, checkpoint, option of it) of an object with
# generate(skeleton) -> image and paint(skeleton) -> (image, the person's mask or None for all of it); one that
# remembers has see and reset: `foreseen`)
GENERATORS = {1: ("GenNearest", _nearest), 2: ("GenVanillaFromSke", _vanilla("ske")),
              3: ("GenVanillaFromSkeim", _vanilla("skeim")), 4: ("GenGAN", _gan), 5: ("GenWarp", _warp)}


def dance(reader, target, generator, most=None):
    """Drive `generator` by the frames of `reader` (VideoReader), or the first `most`: yields a dict each, in order.

    seconds: since the first frame; frame: the source's, at most HIGHEST high; found: the Skeleton detected in
    it, or None; pose: that of the steady track; placed: the last Skeleton on the canvas, or None before the first;
    image: the target's frame with the generated person (before the first one, with the target's first pose);
    ms: {read, pose, generate}.
    """
    scene = Scene(target)
    image = scene.put(target.image(0), None if target.still else target.mask(0))
    steps = ahead(_placed(reader, target), 1 if reader.live else POSES_AHEAD)
    try:
        shown = islice(steps, most)
        if getattr(generator, "continuity", 0) and not reader.live:
            shown = _planned(shown, reader, generator)
        for step in foreseen(shown, generator, 0 if reader.live else LOOK_AHEAD):
            start = time.perf_counter()
            if step["pose"] is not None:
                image = scene.put(*generator.paint(step["placed"]))
            step["ms"]["generate"] = (time.perf_counter() - start) * 1e3
            yield step | {"image": image}
    finally:
        steps.close()


def foreseen(steps, generator, lag=LOOK_AHEAD):
    """The steps, `lag` of them later, for a generator that remembers: it sees each placed Skeleton when it comes,
    and forgets at a cut. For others, the steps as they are."""
    if not hasattr(generator, "see"):
        yield from steps
        return
    waiting = deque()
    for step in steps:
        if step["cut"]:
            yield from waiting
            waiting.clear()
            generator.reset()
        if step["pose"] is not None:
            generator.see(step["placed"])
        waiting.append(step)
        if len(waiting) > lag:
            yield waiting.popleft()
    yield from waiting


def _planned(steps, reader, generator):
    """The steps, after the generator has seen all of them. Their frames are read a second time, not kept."""
    steps = [step | {"frame": None} for step in tqdm(steps, total=reader.frame_count, desc="pose", unit="frame")]
    shots = [[]]
    for step in steps:
        if step["cut"]:
            shots.append([])
        if step["pose"] is not None:
            shots[-1].append(step["placed"])
    generator.plan([shot for shot in shots if shot])
    with VideoReader(reader.source) as again:
        yield from (step | {"frame": frame} for step, frame in zip(steps, again, strict=False))


def _placed(reader, target):
    """Steps with the placed Skeleton, each shot placed on its own."""
    looks = None if reader.live else look(reader.source)
    retarget, placed = None, None
    for step in _live(reader) if reader.live else steady(_poses(reader)):
        if retarget is None or step["cut"]:
            joints = None if reader.live else next(looks)
            if retarget is None or len(joints):  # a shot without anybody keeps the last placement
                retarget = Retarget(target, joints)
        if step["pose"] is not None:
            placed = retarget.place(step["pose"])
        yield step | {"placed": placed}


def _poses(reader):
    """A step for each frame of a file: {seconds, frame (at most HIGHEST high), found, cut, ms}."""
    times, cuts = deque(), Cuts()

    def frames():
        start = time.perf_counter()
        for seconds, frame in reader.timed():
            times.append((seconds, (time.perf_counter() - start) * 1e3))
            yield frame
            start = time.perf_counter()

    start = time.perf_counter()
    for frame, found, _ in detect_all(frames()):
        seconds, read = times.popleft()
        cut = cuts(thumbnail(frame))
        if len(frame) > HIGHEST:  # two seconds of frames wait in memory
            width = round(frame.shape[1] * HIGHEST / len(frame))
            frame = cv2.resize(frame, (width, HIGHEST), interpolation=cv2.INTER_AREA)
        ms = {"read": read, "pose": max((time.perf_counter() - start) * 1e3 - read, 0)}
        yield {"seconds": seconds, "frame": frame, "found": found, "cut": cut, "ms": ms}
        start = time.perf_counter()


def _live(reader):
    """The same for a webcam, at once: the detector's own One-Euro filter (Casiez et al., CHI 2012) steadies it."""
    with PoseDetector(fps=reader.fps) as detector:
        start = time.perf_counter()
        for seconds, frame in reader.timed():
            arrived = time.perf_counter()
            found = detector.detect(frame, seconds)[0]
            now = time.perf_counter()
            yield {"seconds": seconds, "frame": frame, "found": found, "cut": False, "pose": found,
                   "ms": {"read": (arrived - start) * 1e3, "pose": (now - arrived) * 1e3}}
            start = time.perf_counter()


def compose(step, layout):
    """The picture to show and write for one step of `dance`."""
    if layout == "result":
        return step["image"]
    frame = step["frame"].copy() if step["pose"] is None else step["pose"].draw(step["frame"].copy())
    height = step["image"].shape[0]
    width = round(frame.shape[1] * height / frame.shape[0])
    shrink = height < frame.shape[0]
    frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR)
    return np.hstack([frame, step["image"]])


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
    with whole(path) as part, open(part, "wb") as file:
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
    parser.add_argument("--continuity", type=float, default=CONTINUITY, metavar="W",
                        help="of GEN_TYPE 1: above 0, plan a sequence of frames without jumps; 4 is a good value")
    parser.add_argument("--runtime", choices=RUNTIMES, default=RUNTIMES[0],
                        help="what computes the network of GEN_TYPE 2 to 5; auto: the faster one that is installed")
    parser.add_argument("--no-window", action="store_true", help="write only, show nothing")
    parser.add_argument("--max-frames", type=positive(int), help="end after so many")
    parser.add_argument("--result", type=Path, metavar="OUT.mp4", help="also write the target's frame alone")
    parser.add_argument("--skeletons", type=Path, metavar="OUT.npz", help="also write the placed skeletons")
    parser.add_argument("--report", type=Path, metavar="OUT.json", help="also write what was done and how fast")
    args = parser.parse_args()
    if args.gen_type not in GENERATORS or args.layout not in LAYOUTS:  # constants edited by hand
        parser.error(f"GEN_TYPE is one of {list(GENERATORS)}, LAYOUT one of {LAYOUTS}")

    if not 0 <= args.continuity < float("inf") or (args.continuity and args.gen_type != 1):
        parser.error("--continuity is a number from 0 up, and for GEN_TYPE 1 only")
    if args.runtime != "auto" and args.gen_type == 1:
        parser.error("--runtime is for GEN_TYPE 2 to 5 only")
    wanted(args.runtime, "cpu")  # what is missing is told before anything is made
    name, make = GENERATORS[args.gen_type]
    output = args.output or ROOT / "data" / "Dance" / f"DanceDemo-{name}.mp4"
    outputs = [path for path in (output, args.result, args.skeletons, args.report) if path]
    for path in outputs:
        check_output(path, (args.source, args.target))
    if len({path.absolute() for path in outputs}) < len(outputs):
        raise UserError("--output, --result, --skeletons and --report name the same file; give each its own")
    with VideoReader(args.source) as reader:
        target = VideoSkeleton.load(args.target)
        options = {"continuity": args.continuity} if args.gen_type == 1 else {"runtime": args.runtime}
        generator = make(target, args.checkpoint, **options)
        play(args, reader, target, generator, name, output)


def play(args, reader, target, generator, name, output):
    """Write (and show) the dance, in one or two layouts; then the skeletons and the report, where asked for."""
    show = not args.no_window and screen()
    total = min(filter(None, (reader.frame_count, args.max_frames)), default=None)
    track, count, missing, posed, spent = [], 0, 0, 0, dict.fromkeys(("read", "pose", "generate", "write"), 0.0)
    sound = None if reader.live else reader.source
    begin = time.perf_counter()
    with contextlib.ExitStack() as stack:
        writers = [(stack.enter_context(VideoWriter(path, reader.fps, sound, reader.variable)), layout)
                   for path, layout in ((output, args.layout), (args.result, "result")) if path]
        dancing = stack.enter_context(contextlib.closing(dance(reader, target, generator, args.max_frames)))
        for step in tqdm(dancing, total=total, desc=name, unit="frame"):
            start = time.perf_counter()
            pictures = [compose(step, layout) for _, layout in writers]
            for (writer, _), picture in zip(writers, pictures, strict=True):
                writer.write(picture, step["seconds"])
            count += 1
            missing += step["found"] is None
            posed += step["pose"] is not None
            if args.skeletons:
                track.append((step["placed"], step["found"] is not None))
            for stage, ms in step["ms"].items():
                spent[stage] += ms
            spent["write"] += (time.perf_counter() - start) * 1e3
            if show:
                cv2.imshow("DanceDemo", pictures[0])
                if cv2.waitKey(1) & 0xFF == ord("q"):
                    break
        if not posed:
            raise UserError(f"nobody is seen in the {count} frames of {str(reader.source)!r} so far; "
                            "show the whole person, in good light")
    seconds = time.perf_counter() - begin
    if show:
        cv2.destroyAllWindows()
    if args.skeletons:
        save_skeletons(args.skeletons, track, target, reader.fps)
    if args.report:
        told = {"generator": name, "source": str(args.source), "target": str(args.target), "frames": count,
                "frames_without_person": missing, "video_fps": reader.fps, "seconds": round(seconds, 3),
                "frames_per_second": round(count / seconds, 2),
                "stage_ms": {stage: round(ms / count, 3) for stage, ms in spent.items()}, "output": str(output)}
        with whole(args.report) as part:
            part.write_text(json.dumps(told, indent=1) + "\n")
    print(f"{output}: {count} frames, {missing} without a person, {count / seconds:.1f} frames/s")


if __name__ == "__main__":
    run(main)
