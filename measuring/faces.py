"""Faces, measured: which way a head is turned, and whether a face keeps its shape (MediaPipe Face Landmarker).

The model finds faces that are near, so it is shown a square around the head, enlarged. Documentation:
https://ai.google.dev/edge/mediapipe/solutions/vision/face_landmarker/python
"""

import contextlib
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from common.command_line import quiet_stderr
from motion.body import body_lengths
from motion.detector import Model
from picture.canvas import crop

# Google's model (Apache 2.0 licence), which the same package carries as the pose model.
MODEL = Model("face_landmarker", "face_landmarker", "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff")
HEAD = [0, 7, 8]  # the nose and the ears, among the landmarks of a pose
AROUND = 0.3  # body heights: the side of the square in which a face is looked for
SMALLEST = 192  # pixels: a smaller square is enlarged to this
SIDES = (234, 454)  # the points at the two sides of a face, by which its width is measured
SAME_TURN = 8.0  # degrees: two heads that differ by no more, about each axis, are turned alike
OWN_FACES = 60  # frames of a target whose faces are known


@dataclass(frozen=True, eq=False)
class Face:
    """turn: float (3,), yaw, pitch and roll of the head in degrees, all 0 where it looks into the camera; points: float
    (478, 2), the landmarks of the face in px of the image."""

    turn: np.ndarray
    points: np.ndarray


class FaceFinder(contextlib.AbstractContextManager):
    """MediaPipe Face Landmarker for single images. Raises UserError where its model can't be had."""

    def __init__(self):
        import mediapipe  # imported here, as in motion/detector.py
        from mediapipe.tasks.python import BaseOptions, vision

        self._mediapipe = mediapipe
        with quiet_stderr():
            self._landmarker = vision.FaceLandmarker.create_from_options(vision.FaceLandmarkerOptions(
                base_options=BaseOptions(model_asset_path=str(MODEL.find())),
                output_facial_transformation_matrixes=True))

    def find(self, image, joints):
        """The Face of a body in an image (uint8 H x W x 3 BGR), or None. joints: float (33, 2), of the body, in px."""
        side = int(AROUND * body_lengths(joints[None])[0])
        if side < 2:
            return None
        left, top = np.round(joints[HEAD].mean(0) - side / 2).astype(int).tolist()
        size = max(side, SMALLEST)
        picture = cv2.cvtColor(crop(image, (left, top, side), size), cv2.COLOR_BGR2RGB)
        with quiet_stderr():
            found = self._landmarker.detect(self._mediapipe.Image(self._mediapipe.ImageFormat.SRGB, picture))
        if not found.face_landmarks:
            return None
        points = np.array([(point.x, point.y) for point in found.face_landmarks[0]]) * side + (left, top)
        # The matrix carries a model of a face, which looks along z, to its place before the camera.
        turn = Rotation.from_matrix(found.facial_transformation_matrixes[0][:3, :3]).as_euler("YXZ", degrees=True)
        return Face(turn, points)

    def __exit__(self, *exception):
        self._landmarker.close()


def own_faces(target):
    """[Face or None] of OWN_FACES frames of a target (a VideoSkeleton)."""
    found = []
    with FaceFinder() as finder:
        for index in np.linspace(0, len(target) - 1, OWN_FACES).round().astype(int).tolist():
            image, _, corner = target.person(index)
            found.append(finder.find(image, target.joints[index, :, :2] * target.size - corner))
    return found


class DrivenFaces:
    """The faces of a source, and what the faces of a dance that it drives are judged by. frames: uint8 H x W x 3 BGR,
    those of the source's video; source: its Track; target: the VideoSkeleton of who dances."""

    def __init__(self, frames, source, target):
        self._source = _faces(frames, source.joints[:, :, :2] * max(source.size), source.present)
        self._own = own_faces(target)

    def judge(self, images, placed):
        """{name: value, or NaN where it can't be measured} of a dance. images: list of uint8 S x S x 3 BGR, the
        target's canvas; placed: the Track in canvas units that was danced. "both found" is the share of the frames in
        which the source's face and the result's are found; "head turn" see turn_error, and "known head turn" the same
        over those frames only whose head the target has somewhere; "face shape" see shape_error."""
        made = _faces(images, placed.joints[:, :, :2] * len(images[0]), placed.present)
        known = [face if _most_alike(face, self._own) else None for face in self._source]
        both = [bool(face and other) for face, other in zip(made, self._source, strict=True)]
        return {"both found": np.mean(both), "head turn": turn_error(made, self._source),
                "known head turn": turn_error(made, known), "face shape": shape_error(made, self._own)}


def _faces(images, joints, present):
    """[Face or None] of images, which may be fewer than the poses (N, 33, 2) in px of them and present (N,)."""
    with FaceFinder() as finder:
        found = [finder.find(image, pose) if there else None
                 for image, pose, there in zip(images, joints, present, strict=False)]
    return found + [None] * (len(joints) - len(found))


def turn_error(made, real):
    """float: the mean difference of yaw, pitch and roll, in degrees, between the faces of the frames in which both are
    found; NaN where there are none. made, real: lists of Face or None."""
    turns = [np.abs(face.turn - other.turn) for face, other in zip(made, real, strict=True) if face and other]
    return float(np.mean(turns)) if turns else float("nan")


def _most_alike(face, others):
    """The Face among `others`, a list of Face or None, that is turned most alike, within SAME_TURN, or None."""
    away = [(np.abs(face.turn - other.turn).max(), number) for number, other in enumerate(others) if face and other]
    return others[min(away)[1]] if away and min(away)[0] <= SAME_TURN else None


def shape_error(made, own):
    """float: how far the landmarks of faces are from those of the person's own faces, as a share of the face's width,
    on average. Each face of `made` is laid on the one of `own` that is turned most alike, within SAME_TURN; NaN where
    there are none. made, own: lists of Face or None."""
    errors = []
    for face in filter(None, made):
        if other := _most_alike(face, own):
            goal = other.points
            width = np.linalg.norm(np.subtract(*goal[list(SIDES)]))
            errors.append(np.linalg.norm(_laid_on(face.points, goal) - goal, axis=1).mean() / width)
    return float(np.mean(errors)) if errors else float("nan")


def _laid_on(points, goal):
    """Points (N, 2), moved, turned and scaled so that they lie on others with the least squared error."""
    points, middle = points - points.mean(0), goal.mean(0)
    x, y = points.T
    base = np.block([[x[:, None], -y[:, None]], [y[:, None], x[:, None]]])
    (a, b), *_ = np.linalg.lstsq(base, (goal - middle).T.ravel(), rcond=None)
    return points @ np.array([[a, b], [-b, a]]) + middle
