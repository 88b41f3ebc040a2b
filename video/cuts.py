"""Where a video was cut: a new shot may have another camera, so nothing is carried across a cut."""

import cv2
import numpy as np

SIZE = 64  # pixels of the pictures that are compared, on each side
# The difference of two frames (0 to 2, see CutDetector) from which they are of different shots. On the sample and on
# clips of karate and tai chi, it is below 0.39 within a shot and above 0.6 at a cut.
CUT = 0.5
FASTEST_PAN = 10  # pixels of SIZE from frame to frame; what moves faster is not a pan of the camera
BLANK = 64.0  # contrast, about one level for each pixel, below which a frame is black or otherwise empty
NEIGHBOURHOOD = 15  # pixels of SIZE: contrast is the difference to the mean of such a square


def thumbnail(picture):
    """What CutDetector compares: uint8 (64, 64), of a grey picture (uint8 h x w)."""
    return cv2.resize(picture, (SIZE, SIZE), interpolation=cv2.INTER_AREA)


class CutDetector:
    """Called with the thumbnails of a video's frames in order; returns whether this frame begins a new shot.

    The difference of two frames is 1 - the correlation of their local contrast, after one was shifted as a pan of the
    camera would shift it. So a change of the light is no cut, and a pan is none, while another view of the same room is
    one. (The mean HSV difference of PySceneDetect's ContentDetector is 18 for a flash of light and 13 to 19 for a new
    view, so no threshold can tell them apart.)
    """

    def __init__(self):
        self._last = None

    def __call__(self, small):
        small = small.astype(np.float32)
        contrast = (small - cv2.blur(small, (NEIGHBOURHOOD, NEIGHBOURHOOD))).ravel()
        norm = float(np.linalg.norm(contrast))
        if norm < BLANK:  # an empty frame can't be compared; the next frame is compared with the one before it
            return False
        last, self._last = self._last, (contrast / norm).reshape(SIZE, SIZE)
        if last is None or float((last * self._last).sum()) >= 1 - CUT:
            return False
        (x, y), _ = cv2.phaseCorrelate(last, self._last)
        x, y = round(x), round(y)
        if max(abs(x), abs(y)) > FASTEST_PAN:
            return True
        old = last[max(0, -y):SIZE - max(0, y), max(0, -x):SIZE - max(0, x)]
        new = self._last[max(0, y):SIZE + min(0, y), max(0, x):SIZE + min(0, x)]
        return float((old * new).sum() / (np.linalg.norm(old) * np.linalg.norm(new) + 1e-9)) < 1 - CUT
