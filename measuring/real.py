"""Quality on real clips: the first part of a clip is the target, the rest is the source and, at once, the truth.

It is the same person before the same camera, so a perfect result is the real frame. Everything runs as in the demo, and
is judged at the video's own size, over the person: cut out by a matte of the clip itself (matting.py), set on grey,
in a padded square around the real joints. The person is moved by one shift for the whole clip; how far is told
("aside"). Where the camera moves, the truth is laid into the still scene of its middle frame (video/camera.py). Size
and place in the result's scene are a convention then, so the person is also scaled, once for the clip. Only what is
near the person is kept of each frame, so memory stays small.
"""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from tqdm import tqdm

from common.command_line import UserError
from common.files import write_png
from dancing.dance import dance
from measuring import faces, metrics
from measuring.faces import Face, FaceFinder
from measuring.judging import GREY, PAD, PRESENT, rounded
from measuring.scoreboard import Row, title_line
from motion.body import body_lengths
from motion.detector import PoseDetector
from motion.extraction import load_track
from motion.mending import steady
from motion.retargeting import place
from picture.canvas import MARGIN, Generator, canvas_box, crop, resize
from picture.matting import matte
from Skeleton import REDUCED, Skeleton
from video.camera import STANDING, matrices
from video.clip import Clip
from VideoReader import VideoReader
from VideoSkeleton import VideoSkeleton

TARGET_SHARE = 0.8  # of a clip's frames are the target's
FEWEST = 20  # frames that a source and a target must have, at least
MOST = 72  # frames of a source, at most
SLOW_EVERY = 6  # frames between those in which the distances between pictures are measured
SIZES = (256, 512)  # pixels of the person's square for ST-LPIPS
INSIDE = 0.9  # of 1: a mask above this is surely the person
SHOWN = 3  # frames of the sheets
DETAIL = 224  # pixels of a detail on the sheets
DETAILS = ((0,), (19,), (20,), (31, 32))  # landmarks in the middle of the details: face, hands, feet


class MeanFrame(Generator):
    """Always the mean of the frames of a target (a VideoSkeleton), whatever the pose is: a network that has learned
    nothing of poses makes this."""

    name = "mean frame"

    def __init__(self, target):
        self._image = (sum(target.image(index).astype(float) for index in range(len(target))) / len(target)).round()

    def generate(self, skeleton):
        return self._image.astype(np.uint8)


@dataclass(frozen=True, eq=False)
class CutOut:
    """The person of one frame. corner: (x, y) in px of the view; image: uint8 h x w x 3 BGR; mask: uint8 h x w, 255
    where the person is; joints: float32 (33, 2) in px of the view; present: bool (13,), those that are detected; face:
    the Face, in px of the view, or None; flicker: how much the scene around the person has changed since the frame
    before, in levels, see metrics.flicker; view: uint8 S x S x 3 BGR, in the few frames that the sheet shows, else
    None."""

    corner: tuple
    image: np.ndarray
    mask: np.ndarray
    joints: np.ndarray
    present: np.ndarray
    face: Face | None
    flicker: float
    view: np.ndarray | None

    def on_grey(self, box, scale=1.0, shift=(0, 0)):
        """The person, scaled and then moved by `shift` (x, y) in px, on plain grey in the square `box` (x, y, side) of
        the view."""
        share = self.mask.astype(np.float32) / 255
        person = cv2.blendLinear(self.image, np.full_like(self.image, GREY), share, 1 - share)
        place = np.float32(self.corner) * scale + shift - box[:2] + (scale - 1) / 2
        matrix = np.array([[scale, 0, place[0]], [0, scale, place[1]]])
        return cv2.warpAffine(person, matrix, (box[2], box[2]), borderValue=(GREY,) * 3)

    @property
    def sharpness(self):
        """The mean length of the gradient, in levels a pixel, inside the person; NaN where there is none."""
        inside = cv2.erode((self.mask > INSIDE * 255).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        grey = cv2.cvtColor(self.image, cv2.COLOR_BGR2GRAY).astype(np.float32)
        steps = cv2.magnitude(cv2.Scharr(grey, cv2.CV_32F, 1, 0), cv2.Scharr(grey, cv2.CV_32F, 0, 1)) / 32
        return float(steps[inside].mean()) if inside.any() else np.nan

    @property
    def length(self):
        """The length of the body in px, from the nose to the ankles; NaN where a joint is missing."""
        return float(body_lengths(self.joints[None])[0]) if self.present.all() else np.nan


class RealCase:
    """A real clip as target, source and truth. path: of the clip. Raises UserError where it is too short.

    Attributes: name; target, a VideoSkeleton; placed, the source's Track in canvas units; clip, the Clip of the source;
    truth: [CutOut] of its frames.
    """

    def __init__(self, path):
        whole = load_track(path)
        begin = round(TARGET_SHARE * len(whole))
        if len(whole) - begin < FEWEST or begin < FEWEST:
            raise UserError(f"{path} has {len(whole)} frames; it takes {FEWEST / (1 - TARGET_SHARE):.0f} to judge it")
        stop = whole.seconds[begin + MOST] if begin + MOST < len(whole) else None
        self.name, self.clip = path.stem, Clip(path, whole.seconds[begin], stop)
        self.target = VideoSkeleton.load(Clip(path, end=whole.seconds[begin]))
        source = steady(load_track(self.clip))
        if not source.present.any():
            raise UserError(f"nobody is seen at the end of {path}, which would be the truth; take another clip")
        self.placed, self.fps = place(source, self.target), source.fps
        self._still = self.target.still and (source.camera == STANDING).all()
        self._shown = set(np.linspace(0, len(source) - 1, SHOWN + 2).round().astype(int)[1:-1].tolist())
        view, own = (_view(joints[source.present, :, :2], source.size, self._still) for joints in (
            source.joints * max(source.size), self.placed.joints * self.target.box[2] + [*self.target.box[:2], 0]))
        self._view = view if self._still else own
        with VideoReader(self.clip) as reader:
            laid = (lay(frame, way, view) for frame, way in zip(reader, matrices(source.camera, max(source.size)),
                                                                strict=False))
            self.truth = self._cut_out(laid, "truth")
        if not any(person.present.any() for person in self.truth):
            raise UserError(f"nobody is found again at the end of {path}")

    def _cut_out(self, images, title):
        """[CutOut] of the images, each the view (uint8 S x S x 3 BGR) of a frame."""
        people, last = [], None
        with PoseDetector(fps=self.fps, mask=True) as detector, FaceFinder() as finder:
            images = tqdm(images, total=len(self.placed), desc=title, unit="frame", leave=False)
            for number, image in enumerate(images):
                side = len(image)
                skeleton, mask = detector.detect(image)
                if skeleton is None:
                    skeleton, mask = Skeleton(np.zeros((33, 3)), np.zeros(33)), np.zeros((side, side), np.float32)
                mask, joints = (mask * 255).round().astype(np.uint8), skeleton.joints[:, :2] * side
                left, top, width, height = cv2.boundingRect(mask)
                place = np.s_[top:top + max(height, 1), left:left + max(width, 1)]
                # The detector's mask has a rim of the background, which would be judged as if it were the person.
                body = float(body_lengths(skeleton.joints[None])[0]) * side
                opaque = matte(image[place], mask[place], joints - (left, top), max(body, 1))
                flicker = metrics.flicker(*zip(last, (image, mask), strict=True)) if last else np.nan
                people.append(CutOut(
                    (left, top), image[place].copy(), opaque, joints,
                    skeleton.visibility[REDUCED] >= PRESENT, finder.find(image, joints), flicker,
                    image if number in self._shown else None))
                last = image, mask
        return people

    def judge(self, name, minutes, generator):
        """(Row, [CutOut]) of a Generator of `target`. name, minutes: see Row."""
        frames = dance(self.placed, self.target, generator)
        people = self._cut_out((crop(frame, self._view, self._view[2]) for frame in frames), name)
        values = compare(self.truth, people, self._still, self._own_faces)
        return Row("real", name, minutes, self.name, values), people

    @cached_property
    def _own_faces(self):
        return faces.own_faces(self.target)


def _view(points, frame_size, still):
    """The square (x, y, side), in px, in which the person is judged. points: (N, 33, 2), landmarks in px of a scene;
    frame_size: (width, height) of its picture; still: whether the camera stood still, so that no one leaves it."""
    if still:
        return canvas_box(points, frame_size)
    low, high = points.min((0, 1)), points.max((0, 1))
    side = int(np.ceil((high - low).max() / (1 - 2 * MARGIN)))
    return *((low + high - side) / 2).round().astype(int).tolist(), side


def lay(frame, way, view):
    """The square `view` (x, y, side), in px, of a scene in which a frame (uint8 H x W x 3 BGR) lies as the similarity
    `way` (2, 3) tells: uint8 side x side x 3; black beside the frame."""
    if np.array_equal(way, np.eye(2, 3)):
        return crop(frame, view, view[2])
    moved = way - np.column_stack([np.zeros((2, 2)), view[:2]])
    return cv2.warpAffine(frame, moved, (view[2], view[2]), flags=cv2.INTER_CUBIC)


def compare(truth, made, still, own_faces):
    """{metric: value, or None where it can't be measured} of the list of CutOuts `made` against `truth`. still: whether
    the camera stood still, so that the size must be right; own_faces: the target's, a list of Face or None."""
    joints, real_joints = (np.array([person.joints[REDUCED] for person in people]) for people in (made, truth))
    present, real_present = (np.array([person.present for person in people]) for people in (made, truth))
    lengths = np.array([[person.length for person in people] for people in (made, truth)])
    height = np.nanmedian(lengths[0] / lengths[1])
    scale = 1.0 if still or not np.isfinite(height) else 1 / height
    away = (real_joints - joints * scale)[present & real_present]
    shift = np.median(away, 0).round() if len(away) else np.zeros(2)
    aside = np.linalg.norm(shift) / np.nanmedian(lengths[1]) if still else np.nan
    pictures = []
    for number in range(SLOW_EVERY, len(truth), SLOW_EVERY):
        box = person_square(truth[number])
        pair = truth[number].on_grey(box), made[number].on_grey(box, scale, shift)
        before = truth[number - 1].on_grey(box), made[number - 1].on_grey(box, scale, shift)
        pictures.append((*(metrics.st_lpips(*(resize(image, size) for image in pair)) for size in SIZES),
                         metrics.ssim(*pair), metrics.squared_error(*pair),
                         metrics.flow_error(*zip(before, pair, strict=True))))
    pictures = np.mean(pictures, 0)
    both_faces = [[person.face for person in people] for people in (made, truth)]
    distance, missing = metrics.keypoint_errors(real_joints, real_present, joints * scale + shift, present)
    sharp, moves = ([np.nanmean([person.sharpness for person in people]) for people in (made, truth)],
                    [metrics.acceleration(*each) for each in ((joints * scale, present), (real_joints, real_present))])
    return rounded({f"ST-LPIPS {size}": value for size, value in zip(SIZES, pictures, strict=False)} | {
        "SSIM": pictures[2], "PSNR": metrics.psnr(pictures[3]), "AKD": distance, "MKR": missing,
        "jitter": moves[0] / moves[1], "tOF": pictures[4], "height": height,
        "aside": aside, "sharpness": sharp[0] / sharp[1],
        "flicker": np.nanmean([person.flicker for person in made]), "head turn": faces.turn_error(*both_faces),
        "face shape": faces.shape_error(both_faces[0], own_faces)}, 4)


def person_square(person):
    """The square (x, y, side), in whole px, around the present joints of a CutOut with PAD of its side around them."""
    joints = person.joints[REDUCED][person.present] if person.present.any() else person.joints
    low, high = joints.min(0), joints.max(0)
    side = int(np.ceil(max((high - low).max() * (1 + 2 * PAD), metrics.MS_SSIM_SIDE)))
    return *((low + high - side) / 2).round().astype(int).tolist(), side


def write_sheet(columns, path):
    """Write a PNG at full size: for SHOWN frames, in a row, who is in the columns and, below, the DETAILS of each.
    columns: {name: [CutOut]}, the truth's first."""
    squares = [person_square(person) for person in next(iter(columns.values())) if person.view is not None]
    width = max(len(DETAILS) * DETAIL, *(side for *_, side in squares))
    rows = []
    for row, (*_, side) in enumerate(squares):
        cells = []
        for people in columns.values():
            person = [person for person in people if person.view is not None][row]
            middles = [person.joints[list(marks)].mean(0) for marks in DETAILS]
            details = [crop(person.view, (*(middle - DETAIL / 2).round().astype(int), DETAIL), DETAIL)
                       for middle in middles]
            left, top, _ = person_square(person)
            cells.append(np.vstack([_padded(crop(person.view, (left, top, side), side), width),
                                    _padded(np.hstack(details), width)]))
        rows.append(np.hstack(cells))
    write_png(path, np.vstack([title_line(columns, width + 4), *rows]))


def _padded(image, width):
    return cv2.copyMakeBorder(image, 0, 4, 0, width + 4 - image.shape[1], cv2.BORDER_CONSTANT)
