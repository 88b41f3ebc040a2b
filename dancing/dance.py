"""The dance: the target's frames in the poses of a source, a whole video at once or a webcam live."""

import time
from dataclasses import dataclass

import cv2
import numpy as np

from motion.detector import PoseDetector
from motion.retargeting import LiveRetargeting
from picture.scene import Scene
from Skeleton import Skeleton

LAYOUTS = ("side-by-side", "result")
HIGHEST_SOURCE = 720  # pixels: a source's frames are reduced to this height before they are drawn on


@dataclass(frozen=True, eq=False)
class Moment:
    """One frame of a dance: the time in seconds since the first one; the source's frame, uint8 H x W x 3 BGR, or None
    where it is not shown; whether the detector saw the source person in that very frame; the source's Skeleton, or None
    where nobody is; the same in canvas units; the target's frame, uint8 H x W x 3 BGR; milliseconds spent on it."""

    seconds: float
    source: np.ndarray | None
    found: bool
    pose: Skeleton | None
    placed: Skeleton | None
    image: np.ndarray
    read_ms: float
    pose_ms: float
    generate_ms: float


class Stage:
    """The target's scene, in which the images of `generator` are put one after the other."""

    def __init__(self, target, generator):
        self._scene, self._generator = Scene(target), generator
        # Before the first pose, the target is shown as it is in its own first frame.
        self._frame = self._scene.put(target.image(0), None if target.still else target.mask(0))

    def show(self, skeleton):
        """The target's frame (uint8 H x W x 3 BGR, of its video's size) in the pose of a Skeleton in canvas units. For
        None, the frame that was shown last."""
        if skeleton is not None:
            self._frame = self._scene.put(self._generator.generate(skeleton), self._generator.mask)
        return self._frame


def dance(placed, target, generator):
    """Yield the target's frame (uint8 H x W x 3 BGR, of its video's size) for each frame of a Track in canvas units."""
    generator.prepare(placed)
    stage = Stage(target, generator)
    for number in range(len(placed)):
        yield stage.show(placed.skeleton(number))


def moments(track, placed, target, generator, source=None):
    """Yield the Moment of each frame of the steady Track `track` of a source, `placed` on the target.

    source: a VideoReader of the source's frames, or None where they are not shown.
    """
    images, frames = dance(placed, target, generator), None if source is None else iter(source)
    for number in range(len(placed)):
        start = time.perf_counter()
        frame = None if frames is None else next(frames, None)
        if frames is not None and frame is None:  # the video has fewer frames than when its poses were found
            return
        read = time.perf_counter()
        image = next(images)
        yield Moment(float(track.seconds[number]), frame, bool(track.found[number]), track.skeleton(number),
                     placed.skeleton(number), image, (read - start) * 1e3, 0.0, (time.perf_counter() - read) * 1e3)


def live_moments(reader, target, generator):
    """Yield the Moment of each frame that the webcam of `reader` (a VideoReader) gives. Each pose is placed and drawn
    at once; only the detector's One-Euro filter (Casiez et al., CHI 2012) smooths it."""
    retargeting, stage = LiveRetargeting(target), Stage(target, generator)
    with PoseDetector(fps=reader.fps) as detector:
        start = time.perf_counter()
        for seconds, frame in reader.timed():
            arrived = time.perf_counter()
            pose = detector.detect(frame, seconds)[0]
            detected = time.perf_counter()
            placed = None if pose is None else retargeting.place(pose)
            image = stage.show(placed)
            yield Moment(seconds, frame, pose is not None, pose, placed, image, (arrived - start) * 1e3,
                         (detected - arrived) * 1e3, (time.perf_counter() - detected) * 1e3)
            start = time.perf_counter()


def compose(moment, layout):
    """The picture (uint8 H x W x 3 BGR) of a Moment. layout: one of LAYOUTS."""
    if layout == "result" or moment.source is None:
        return moment.image
    frame, height = moment.source, moment.image.shape[0]
    frame = _resize_to_height(frame, min(len(frame), HIGHEST_SOURCE))
    frame = frame.copy() if moment.pose is None else moment.pose.draw(frame.copy())
    return np.hstack([_resize_to_height(frame, height), moment.image])


def _resize_to_height(image, height):
    """The image at this height in pixels, its shape kept."""
    if len(image) == height:
        return image
    width = round(image.shape[1] * height / len(image))
    shrinks = height < len(image)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
