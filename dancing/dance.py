"""The dance: the target's frames in the poses of a source, a whole video at once or a webcam live."""

import itertools
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass

import cv2
import numpy as np

from common.ahead import ahead
from motion.detector import PoseDetector
from motion.retargeting import LiveRetargeting
from picture.canvas import Patch
from picture.scene import Scene
from Skeleton import Skeleton

LAYOUTS = ("side-by-side", "result")
HIGHEST_SOURCE = 720  # pixels: beside a higher result, the source is shown no higher than this


@dataclass(frozen=True, eq=False)
class Moment:
    """One frame of a dance: the time in seconds since the first one; the source's frame with its skeleton, uint8 H x W
    x 3 BGR, or None where it is not shown; whether the detector saw the source person in that very frame; the source's
    Skeleton, or None where nobody is; the same in canvas units; the target's frame, uint8 H x W x 3 BGR; milliseconds
    of work on it. Stages may overlap in time. delay_ms: milliseconds from the arrival of a webcam's frame to its
    picture."""

    seconds: float
    source: np.ndarray | None
    found: bool
    pose: Skeleton | None
    placed: Skeleton | None
    image: np.ndarray
    read_ms: float
    pose_ms: float
    generate_ms: float
    delay_ms: float = 0.0


class Stage:
    """The target's scene, in which the images of `generator` are put one after the other."""

    def __init__(self, target, generator):
        self._scene, self._generator = Scene(target), generator
        # Before the first pose, the target is shown as it is in its own first frame.
        mask = None if target.still else target.mask(0)
        self._frame = self._scene.put(Patch(target.image(0), mask, target.size))

    def show(self, skeleton):
        """The target's frame (uint8 H x W x 3 BGR, of its video's size) in the pose of a Skeleton in canvas units. For
        None, the frame that was shown last."""
        if skeleton is not None:
            self._frame = self._scene.put(self._generator.patch(skeleton))
        return self._frame


def dance(placed, target, generator):
    """Yield the target's frame (uint8 H x W x 3 BGR, of its video's size) for each frame of a Track in canvas units."""
    generator.prepare(placed)
    stage = Stage(target, generator)
    for number in range(len(placed)):
        yield stage.show(placed.skeleton(number))


def moments(track, placed, target, generator, source=None):
    """Yield the Moment of each frame of the steady Track `track` of a source, `placed` on the target. Close this
    generator before `source`: threads read and draw some frames ahead.

    source: a VideoReader of the source's frames, or None where they are not shown. It may have fewer frames than when
    its poses were found; then the dance ends with it.
    """
    seen = track.in_pictures()
    skeletons = (seen.skeleton(number) for number in range(len(seen)))
    with ExitStack() as stack:
        images = stack.enter_context(closing(ahead(_timed(dance(placed, target, generator)))))
        frames = itertools.repeat((None, 0.0))
        if source is not None:
            height = min(target.frame_size[1], HIGHEST_SOURCE)
            shown = (draw_source(frame, skeleton, height) for frame, skeleton in zip(source, skeletons, strict=False))
            frames = stack.enter_context(closing(ahead(_timed(shown))))
        for number, (image, generate_ms), (frame, read_ms) in zip(range(len(placed)), images, frames, strict=False):
            yield Moment(float(track.seconds[number]), frame, bool(track.found[number]), seen.skeleton(number),
                         placed.skeleton(number), image, read_ms, 0.0, generate_ms)


def live_moments(reader, target, generator, most=None):
    """Yield the Moment of the newest frame again and again, `most` times at most, that the webcam of `reader` (a
    VideoReader) gives. While one is drawn, the pose of the next one is found, by a thread. Close this generator before
    `reader`."""
    stage, height = Stage(target, generator), min(target.frame_size[1], HIGHEST_SOURCE)
    with closing(_live_poses(reader, target)) as poses, closing(ahead(poses, most=1)) as found:
        for seconds, frame, pose, placed, read_ms, pose_ms in itertools.islice(found, most):
            start = time.perf_counter()
            image, source = stage.show(placed), draw_source(frame, pose, height)
            yield Moment(seconds, source, pose is not None, pose, placed, image, read_ms, pose_ms,
                         (time.perf_counter() - start) * 1e3, (time.monotonic() - reader.began - seconds) * 1e3)


def _live_poses(reader, target):
    """Yield (seconds, frame, Skeleton or None, the same on the canvas of `target`, milliseconds of waiting for the
    frame and of finding the pose). Only the detector's One-Euro filter (Casiez et al., CHI 2012) smooths the poses."""
    retargeting = LiveRetargeting(target)
    with PoseDetector(fps=reader.fps) as detector:
        start = time.perf_counter()
        for seconds, frame in reader.timed():
            arrived = time.perf_counter()
            pose = detector.detect(frame, seconds)[0]
            placed = None if pose is None else retargeting.place(pose)
            now = time.perf_counter()
            yield seconds, frame, pose, placed, (arrived - start) * 1e3, (now - arrived) * 1e3
            start = time.perf_counter()


def draw_source(frame, skeleton, height):
    """A source's frame (uint8 H x W x 3 BGR) at this height in pixels, with its Skeleton, if there is one."""
    # On a small frame it is drawn before the frame is enlarged, since there the lines cost less.
    frame = _resize_to_height(frame, min(len(frame), height)).copy()
    return _resize_to_height(frame if skeleton is None else skeleton.draw(frame), height)


def compose(moment, layout):
    """The picture (uint8 H x W x 3 BGR) of a Moment. layout: one of LAYOUTS."""
    if layout == "result" or moment.source is None:
        return moment.image
    height, (below, width) = len(moment.image), moment.source.shape[:2]
    picture = np.empty((height, width + moment.image.shape[1], 3), np.uint8)
    picture[:, width:] = moment.image
    top = (height - below) // 2  # beside a higher result, the source is in the middle
    picture[top:top + below, :width] = moment.source
    picture[:top, :width] = picture[top + below:, :width] = 0
    return picture


def _timed(items):
    """Yield (item, milliseconds that it took) of an iterator."""
    items, start = iter(items), time.perf_counter()
    for item in items:
        yield item, (time.perf_counter() - start) * 1e3
        start = time.perf_counter()


def _resize_to_height(image, height):
    """The image at this height in pixels, its shape kept."""
    if len(image) == height:
        return image
    width = round(image.shape[1] * height / len(image))
    shrinks = height < len(image)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
