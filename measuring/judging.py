"""Judging of a generated clip against the real one, frame by frame, and of the placed joints against the true ones.

A clip is judged in regions. "frame" is the whole canvas. "person" is the person alone: cut out by MediaPipe's mask of
the clip itself, set on plain grey, in a padded box around the real clip's joints. Where the person stands is a
convention and no error. So in the cross task it is first moved by one shift for the whole clip. "raw" is the same
without the shift.
"""

from collections import namedtuple

import cv2
import numpy as np

from measuring import metrics
from measuring.scoreboard import Row
from motion.detector import PoseDetector
from Skeleton import REDUCED, Skeleton

SLOW_EVERY = 10  # frames between those in which SSIM, MS-SSIM, ST-LPIPS and tOF are measured
PAD = 0.15  # of the box around the real joints, added on each side
GREY = 128  # level of the plain background of a person
PRESENT = 0.5  # visibility from which a joint counts as detected
VISIBLE = 0.9  # visibility from which a wrist counts as seen
REGIONS = {"cross": ("frame", "person", "raw"), "self": ("frame", "person")}  # in which the images of a task are judged

# Square images and the person detected in them. images: list of N uint8 S x S x 3 BGR; fps: frames per second; joints:
# float32 (N, 13, 2) in px; present: bool (N, 13), those that are detected; masks: list of N uint8 S x S, 255 where the
# person is.
Clip = namedtuple("Clip", "images fps joints present masks")


def detect_clip(images, fps):
    """The Clip of `images`: the person is detected in each of them."""
    joints, present, masks = [], [], []
    with PoseDetector(fps=fps, mask=True) as detector:
        for image in images:
            skeleton, mask = detector.detect(image)
            if skeleton is None:
                skeleton, mask = Skeleton(np.zeros((33, 3)), np.zeros(33)), np.zeros(image.shape[:2])
            joints.append(skeleton.joints[REDUCED, :2] * max(image.shape[:2]))
            present.append(skeleton.visibility[REDUCED] >= PRESENT)
            masks.append((mask * 255).round().astype(np.uint8))
    return Clip(images, fps, np.array(joints), np.array(present), masks)


def judge(name, minutes, images, truths):
    """The list of scoreboard.Row of one generator. images: {task: list of images, as many and as large as the real
    ones}; truths: {task: (Clip, shift of the generated person)} of the tasks with a truth."""
    rows = []
    for task in [task for task in images if task in truths]:
        real, shift = truths[task]
        generated = detect_clip(images[task], real.fps)
        rows += [Row(task, name, minutes, region, judge_region(region, real, generated, shift))
                 for region in REGIONS[task]]
    return rows


def _person(clip, number):
    """An image of a Clip with its person on plain grey."""
    image, share = clip.images[number], clip.masks[number].astype(np.float32) / 255
    return cv2.blendLinear(image, np.full_like(image, GREY), share, 1 - share)


def judge_region(region, real, generated, shift):
    """{metric: value, or None where it can't be measured} of the Clip `generated` against the Clip `real`. shift:
    (x, y) in px by which the generated person is moved in the region "person"."""
    shift = np.float32(shift if region == "person" else (0, 0))
    last, size = len(real.images) - 1, len(real.images[0])

    def images_of(number, box):
        """(real image, generated image) of a frame."""
        if region == "frame":
            return real.images[number], generated.images[number]
        move = np.column_stack([np.eye(2), shift])
        moved = cv2.warpAffine(_person(generated, number), move, (size, size), borderValue=(GREY,) * 3)
        return _person(real, number)[box], moved[box]

    errors, slow = [], []
    for number in range(last + 1):
        box = person_box(real.joints[number], real.present[number], size)
        pair = images_of(number, box)
        errors.append((metrics.l1(*pair), metrics.squared_error(*pair)))
        if region != "raw" and number and (number % SLOW_EVERY == 0 or number == last):
            flow_error = metrics.flow_error(*zip(images_of(number - 1, box), pair, strict=True))
            slow.append((metrics.ssim(*pair), metrics.ms_ssim(*pair), metrics.st_lpips(*pair), flow_error))
    absolute, squared = np.mean(errors, 0)
    values = {"L1": absolute, "PSNR": metrics.psnr(squared)}
    if slow:
        values |= zip(("SSIM", "MS-SSIM", "ST-LPIPS", "tOF"), np.mean(slow, 0), strict=True)
    if region == "frame":
        both = [np.maximum(*masks) for masks in zip(real.masks, generated.masks, strict=True)]
        values["flicker"] = metrics.flicker(generated.images, both)
        values["flicker outside the truth"] = metrics.flicker(generated.images, real.masks)
    else:
        values["AKD"], missing = metrics.keypoint_errors(real.joints, real.present, generated.joints + shift,
                                                         generated.present)
    if region == "person":
        moves, real_moves = (metrics.acceleration(clip.joints, clip.present) for clip in (generated, real))
        values |= {"MKR": missing, "jitter": moves / (real_moves or np.nan)}
    return rounded(values, 4)


def rounded(values, digits):
    return {name: round(float(value), digits) if np.isfinite(value) else None for name, value in values.items()}


def person_box(joints, present, size):
    """Index (rows, columns) of the padded square around the present joints, at least metrics.MS_SSIM_SIDE wide and
    inside the image of size x size px. joints: (13, 2) in px; present: bool (13,)."""
    joints = joints[present] if present.any() else np.array([[0, 0], [size, size]])
    low, high = joints.min(0), joints.max(0)
    side = int(np.clip((high - low).max() * (1 + 2 * PAD), min(metrics.MS_SSIM_SIDE, size), size))
    x, y = np.clip(((low + high - side) / 2).round().astype(int), 0, size - side)
    return np.s_[y:y + side, x:x + side]


def common_shift(real, placed, size):
    """(x, y) in whole px: the median difference of the joints in the Clip `real` and in the placed Track, where both
    have them. size: pixels of the canvas."""
    known = real.present & placed.present[:, None]
    away = (real.joints - placed.joints[:, REDUCED, :2] * size)[known]
    return tuple(np.median(away, 0).round().astype(int).tolist()) if len(away) else (0, 0)


def retargeting_errors(source, placed, target, joints_file):
    """{metric: value} of the placed joints: "joint error" is the mean distance in px, "after one shift" the same after
    the best shift of the whole clip; lower is better. For the source's wrists see metrics.wrist_timing. source: the
    steady Track of the source, with the person in each frame; placed: the same on the canvas of `target`. joints_file:
    an .npz with the true joints truth_uv and source_uv (N, 13, 2) in px of the target's and the source's picture."""
    with np.load(joints_file) as joints:
        true, true_source = joints["truth_uv"], joints["source_uv"]
    away = placed.joints[:, REDUCED, :2] * target.box[2] + target.box[:2] - true
    found = source.joints[:, REDUCED, :2] * max(source.size)
    errors = {"joint error": np.linalg.norm(away, axis=2).mean(),
              "after one shift": np.linalg.norm(away - away.mean((0, 1)), axis=2).mean()}
    wrists = metrics.wrist_timing(found, true_source, source.visibility[:, REDUCED] > VISIBLE)
    return rounded(errors | wrists, 3)
