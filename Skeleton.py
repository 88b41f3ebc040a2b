"""A human pose as numbers and as a drawing.

    skeleton = Skeleton(joints, visibility)          # 33 landmarks
    skeleton.reduced, skeleton.full                  # 26 and 99 values
    skeleton.draw(image)

Landmarks: https://ai.google.dev/edge/mediapipe/solutions/vision/pose_landmarker (33 points, BlazePose topology).
`motion.detector.detect_skeleton` finds the skeleton in an image.
"""

from dataclasses import dataclass

import cv2
import numpy as np

# The 13 joints of the reduced skeleton, left before right: nose, shoulders, elbows, wrists, hips, knees, ankles.
REDUCED = [0, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28]
NOSE, SHOULDERS, HIPS, ANKLES = 0, (11, 12), (23, 24), (27, 28)

# The lines that are drawn: (from, to, BGR). A pair of landmarks stands for the point halfway between them. The colours
# are far from each other, and different on the left and on the right, so that a network can tell the limbs apart.
LIMBS = [
    (SHOULDERS, HIPS, (160, 160, 160)), (11, 12, (255, 255, 255)), (23, 24, (110, 110, 110)),  # spine, shoulders, hips
    (NOSE, SHOULDERS, (0, 255, 255)), (7, 8, (0, 140, 140)),  # neck to nose, ear to ear
    (11, 13, (0, 0, 255)), (13, 15, (0, 110, 255)), (15, 19, (90, 180, 255)),  # left arm and hand
    (12, 14, (255, 0, 0)), (14, 16, (255, 110, 0)), (16, 20, (255, 180, 90)),  # right arm and hand
    (23, 25, (0, 0, 140)), (25, 27, (140, 0, 200)), (27, 31, (200, 100, 255)),  # left leg and foot
    (24, 26, (0, 140, 0)), (26, 28, (0, 220, 0)), (28, 32, (160, 255, 160)),  # right leg and foot
]
_ENDS = np.array([[np.broadcast_to(end, 2) for end in limb[:2]] for limb in LIMBS])  # (limbs, 2 ends, 2 landmarks)
THICKNESS = 1 / 64  # of a line, as a share of the picture's longer side: one pixel at 64 x 64
VISIBLE = 0.1  # a limb is drawn where the visibility of its landmarks is at least this
SUBPIXEL_BITS = 4  # OpenCV draws at sixteenths of a pixel


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

    def draw(self, image):
        """Draw the limbs onto `image` (uint8 H x W x 3 BGR, changed in place) and return it.

        The lines are anti-aliased and placed at fractions of a pixel, so that a small picture still moves smoothly.
        """
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3, "uint8 BGR images only"
        size = max(image.shape[:2])
        # OpenCV's coordinates have 32 bits, so a joint far outside is moved closer; its line still leaves the picture.
        points = np.clip(self.joints[:, :2], -2, 3) * size - 0.5
        ends = np.round(points[_ENDS].mean(2) * 2 ** SUBPIXEL_BITS).astype(int).tolist()
        shown = self.visibility[_ENDS].min((1, 2)) >= VISIBLE
        for (start, stop), (_, _, colour), visible in zip(ends, LIMBS, shown, strict=True):
            if visible:
                cv2.line(image, start, stop, colour, max(1, round(size * THICKNESS)), cv2.LINE_AA,
                         shift=SUBPIXEL_BITS)
        return image
