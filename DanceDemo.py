"""The target person dances like the source person: source video -> poses -> generator -> window and mp4.

    python DanceDemo.py                                             # the constants below, on the shipped clips
    python DanceDemo.py --gen-type 3 --source karate.mp4 --target me.mp4
    python DanceDemo.py --source duo.mp4 --from 0:10 --to 1:05 --person left    # a part, and one of several people
    python DanceDemo.py --source karate.mp4 --save-motion karate.npz
    python DanceDemo.py --source karate.npz                         # the same dance without its video
    python DanceDemo.py --source karate.mp4 --motion dance.bvh      # what the target does, for Blender
    python DanceDemo.py --source 0                                  # the webcam, live

Writes data/Dance/DanceDemo-<generator>.mp4, [source with its skeleton | the target in her scene], with the source's
frame rate and sound. 'q' in the window quits. The poses of both videos are found once and kept in data/cache. GEN_TYPE
1 and 5 work at once; 5 is better after GenWarp.py. 2 to 4 need their weights first: run GenVanillaNN.py or GenGAN.py.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from common import paths
from common.command_line import Parser, UserError, check_output, positive, run
from common.files import atomic_write
from dancing.dance import LAYOUTS, compose, live_moments, moments
from dancing.generators import GENERATORS
from dancing.motion_files import ENDINGS, write_motion
from motion.extraction import load_track
from motion.mending import steady
from motion.retargeting import place
from motion.track import Track, frame_rate
from video.clip import SIDES, add_clip_flags, clip_of
from video.film import VideoWriter, check_film_name
from VideoReader import VideoReader, is_webcam
from VideoSkeleton import VideoSkeleton

# 1 nearest frame | 2 network from 26 values | 3 network from the skeleton image | 4 GAN | 5 retrieve, warp, refine
GEN_TYPE = 5
SOURCE = paths.SAMPLE_SOURCE  # motion: a video, a folder of images, a motion file (.npz), or 0 for the webcam
TARGET = paths.SAMPLE_TARGET  # appearance: a video of the person to show
LAYOUT = "side-by-side"  # or "result"
CONTINUITY = 0.0  # of GEN_TYPE 1: above 0, a sequence without jumps is planned; 4 is a good value
SMALLEST_CANVAS = 64  # pixels
WINDOW = "DanceDemo"  # title of the window


def window_is_possible():
    """Whether a window can be shown. On Linux OpenCV ends the process where it can't, so another process tries."""
    if sys.platform.startswith("linux"):
        trial = [sys.executable, "-c", "import cv2; cv2.namedWindow('trial'); cv2.waitKey(1)"]
        return bool(os.environ.get("DISPLAY")) and not subprocess.run(trial, capture_output=True).returncode
    return True


def parse_arguments():
    parser = Parser(__doc__)
    parser.add_argument("--gen-type", type=int, choices=list(GENERATORS), default=GEN_TYPE, help="the generator")
    parser.add_argument("--source", default=SOURCE, help="motion: video, folder of images, .npz or webcam number")
    parser.add_argument("--target", default=TARGET, help="appearance: video of the person to show")
    add_clip_flags(parser, "the source", "")
    add_clip_flags(parser, "the target", "target-")
    parser.add_argument("--checkpoint", type=Path, help="weights; default: where the training script puts them")
    parser.add_argument("--output", type=Path, help="mp4 to write; default: data/Dance/DanceDemo-<generator>.mp4")
    parser.add_argument("--layout", choices=LAYOUTS, default=LAYOUT, help="what is shown")
    parser.add_argument("--continuity", type=float, default=CONTINUITY, metavar="W",
                        help="of GEN_TYPE 1: above 0, plan a sequence of frames without jumps; 4 is a good value")
    parser.add_argument("--canvas", type=positive(int), metavar="PX",
                        help="of GEN_TYPE 5: draw the person in a square of so many pixels at most, which is faster; "
                        "default: as large as in the video")
    parser.add_argument("--no-window", action="store_true", help="write only, show nothing")
    parser.add_argument("--max-frames", type=positive(int), help="draw only so many frames")
    parser.add_argument("--result", type=Path, metavar="OUT.mp4", help="also write the target's frame alone")
    parser.add_argument("--save-motion", type=Path, metavar="OUT.npz", help="also write the source's motion")
    parser.add_argument("--motion", type=Path, metavar="OUT", help="also write the dance's motion: a name that ends in "
                        ".bvh (for Blender), .json or .npz")
    parser.add_argument("--report", type=Path, metavar="OUT.json", help="also write what was done and how fast")
    args = parser.parse_args()
    if args.gen_type not in GENERATORS or args.layout not in LAYOUTS:  # the constants may have been edited wrongly
        parser.error(f"GEN_TYPE is one of {list(GENERATORS)}, LAYOUT one of {list(LAYOUTS)}")
    if not 0 <= args.continuity < float("inf") or (args.continuity and args.gen_type != 1):
        parser.error("--continuity is a number from 0 up, and for GEN_TYPE 1 only")
    if args.canvas and (args.gen_type != 5 or args.canvas < SMALLEST_CANVAS):
        parser.error(f"--canvas is a number from {SMALLEST_CANVAS} up, and for GEN_TYPE 5 only")
    args.output = args.output or paths.DANCE / f"DanceDemo-{GENERATORS[args.gen_type].name}.mp4"
    outputs = [p for p in (args.output, args.result, args.save_motion, args.motion, args.report) if p]
    for path in filter(None, (args.output, args.result)):
        check_film_name(path)
    for path in outputs:
        check_output(path, (args.source, args.target))
    if len({path.absolute() for path in outputs}) < len(outputs):
        raise UserError("two of the outputs name the same file; give each its own")
    for path, endings in ((args.save_motion, (".npz",)), (args.motion, ENDINGS), (args.report, (".json",))):
        if path and path.suffix not in endings:
            raise UserError(f"{str(path)!r} would not hold what its name says; let its name end in "
                            f"{' or '.join(endings)}")
    return args


@dataclass
class Log:
    """What was written: for each frame, its time in seconds, whether the person was found in the source, and the
    Skeleton that was drawn, which is the last one where nobody was; and the milliseconds that each stage has taken in
    all, with the delay of a webcam's pictures."""

    seconds: list = field(default_factory=list)
    found: list = field(default_factory=list)
    drawn: list = field(default_factory=list)
    stage_ms: Counter = field(default_factory=Counter)


def open_source(args):
    """What --source and its flags name: a VideoReader, or the Track of a motion file."""
    clip = clip_of(args, str(args.source))  # SOURCE may be a number
    is_motion_file = clip.path.suffix == ".npz"
    if is_motion_file and clip.person != SIDES[-1]:
        raise UserError(f"{args.source} holds the motion of one person; leave --person out")
    if is_motion_file:
        return Track.load(args.source).part(clip)
    if is_webcam(args.source) and clip.words():
        raise UserError("a webcam shows what is before it; leave --from, --to and --person out")
    return VideoReader(args.source if is_webcam(args.source) else clip)


def open_show(args, source, target, generator):
    """(generator of the Moments, the Track that they show or, for a webcam, its reader). source: a VideoReader or a
    Track. The poses of a video are found first, where they are not in the cache."""
    video = isinstance(source, VideoReader)
    if video and source.live:
        if args.save_motion:
            raise UserError("the motion of a webcam is not kept; record a video and give it as --source")
        return live_moments(source, target, generator, args.max_frames), source
    track = load_track(source.source) if video else source
    if args.save_motion:
        track.save(args.save_motion)
    motion = steady(track)
    placed, motion = place(motion, target).first(args.max_frames), motion.first(args.max_frames)
    return moments(motion, placed, target, generator, source if video and args.layout != "result" else None), motion


def write_show(args, shown, motion, source):
    """Write the films of the Moments `shown` at the times of `motion`, with the sound of `source` (a VideoReader or a
    Track), and show the first film in a window. Returns the Log."""
    sound = {}
    if isinstance(source, VideoReader) and not source.live:
        sound = {"audio_from": source.source.path, "audio_begin": source.stamp}
    variable = motion.variable if isinstance(motion, Track) else True  # a webcam's frames come when there is time
    log, window = Log(), not args.no_window and window_is_possible()
    with contextlib.ExitStack() as stack:
        writers = [(stack.enter_context(VideoWriter(path, motion.fps, variable=variable, **sound)), layout)
                   for path, layout in ((args.output, args.layout), (args.result, "result")) if path]
        total = len(motion) if isinstance(motion, Track) else args.max_frames
        for moment in tqdm(shown, total=total, desc=GENERATORS[args.gen_type].name, unit="frame"):
            start = time.perf_counter()
            pictures = [compose(moment, layout) for _, layout in writers]
            for (writer, _), picture in zip(writers, pictures, strict=True):
                writer.write(picture, moment.seconds)
            log.seconds.append(moment.seconds)
            log.found.append(moment.found)
            log.drawn.append(moment.placed or (log.drawn[-1] if log.drawn else None))
            log.stage_ms.update(read=moment.read_ms, pose=moment.pose_ms, generate=moment.generate_ms,
                                write=(time.perf_counter() - start) * 1e3)
            if moment.delay_ms:
                log.stage_ms["delay"] += moment.delay_ms
            if window:
                cv2.imshow(WINDOW, pictures[0])
                if cv2.waitKey(1) & 0xFF == ord("q"):
                    break
        if not any(log.drawn):
            raise UserError(f"nobody is seen in the {len(log.found)} frames of {str(args.source)!r} so far; "
                            "show the whole person, in good light, and from near enough")
    if window:
        cv2.destroyAllWindows()
    return log


def save_report(args, log, fps, seconds):
    """Write a JSON of what was done, and how fast."""
    count = len(log.found)
    report = {"generator": GENERATORS[args.gen_type].name, "source": str(args.source), "target": str(args.target),
              "frames": count, "frames_without_person": count - sum(log.found), "video_fps": fps,
              "seconds": round(seconds, 3), "frames_per_second": round(count / seconds, 2),
              "stage_ms": {stage: round(spent / count, 3) for stage, spent in log.stage_ms.items()},
              "output": str(args.output)}
    with atomic_write(args.report) as part:
        part.write_text(json.dumps(report, indent=1) + "\n")


def main():
    args = parse_arguments()
    with contextlib.ExitStack() as stack:
        source = open_source(args)
        if isinstance(source, VideoReader):
            stack.enter_context(source)
        target = VideoSkeleton.load(clip_of(args, args.target, "target-"))
        options = {"continuity": args.continuity} if args.gen_type == 1 else {}
        if args.canvas and args.canvas < target.box[2]:
            options["size"] = args.canvas
        generator = GENERATORS[args.gen_type].make(target, args.checkpoint, **options)
        begin = time.perf_counter()
        shown, motion = open_show(args, source, target, generator)
        stack.enter_context(contextlib.closing(shown))
        pose_seconds = time.perf_counter() - begin
        log = write_show(args, shown, motion, source)
        log.stage_ms["pose"] += pose_seconds * 1e3
        seconds, count = time.perf_counter() - begin, len(log.found)
    fps = frame_rate(np.array(log.seconds), motion.fps)  # a webcam may give fewer frames than it claims
    if args.motion:
        write_motion(args.motion, log.drawn, log.found, log.seconds, fps, target.box, target.frame_size)
    if args.report:
        save_report(args, log, fps, seconds)
    print(f"{args.output}: {count} frames, {count - sum(log.found)} without a person, {count / seconds:.1f} frames/s")


if __name__ == "__main__":
    run(main)
