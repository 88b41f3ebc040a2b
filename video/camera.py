"""The camera: where a video was cut, and how the picture of each frame of a shot lies in the scene.

A new shot may have another camera, so nothing is carried across a cut.

The scene is what stands still around the people: corners of it (Shi and Tomasi, CVPR 1994), which are followed from a
picture to a later one by optical flow (Lucas and Kanade, IJCAI 1981; Bouguet's pyramids). A similarity (shift, turn and
zoom) that most of them agree on (RANSAC) tells how the camera moved. A picture is compared with one and the same key
picture as long as enough of that one is seen, so errors don't add up from frame to frame.

In the code, places and similarities are complex numbers: x + iy lies at turn * (x + iy) + shift in the scene.
"""

import cv2
import numpy as np

from common.ahead import ahead

THUMBNAIL = 64  # pixels of the pictures in which cuts are looked for, on each side
# The difference of two frames (0 to 2, see CutDetector) from which they are of different shots. On the sample and on
# clips of karate and tai chi, it is below 0.39 within a shot and above 0.6 at a cut.
CUT = 0.5
FASTEST_PAN = 10  # pixels of THUMBNAIL from frame to frame; what moves faster is not a pan of the camera
BLANK = 64.0  # contrast, about one level for each pixel, below which a frame is black or otherwise empty
NEIGHBOURHOOD = 15  # pixels of THUMBNAIL: contrast is the difference to the mean of such a square
CELLS, OF_CELL = 8, 8  # the picture has CELLS x CELLS cells, each with so many corners at most: titles must not win
WEAKEST = 2e-5  # smaller eigenvalue from which a place is a corner; a noisy plain wall is below it
APART = 4  # pixels between two corners
EDGE = 8  # pixels at the picture's edge without corners: half of the window that is compared
WINDOW = (15, 15)  # pixels that are compared
BACK = 0.5  # pixels up to which a corner that was followed and followed back comes home
NEAR = 1.0  # pixels up to which a corner agrees with a similarity
FEWEST = 12  # corners that must agree
AGREE = 0.4  # share of the corners that must agree
WORN = 0.5  # of the corners that agreed with a key picture at most: with fewer, a new key picture is taken
AROUND = 13  # pixels by which people are grown: hair, and the shadow beside them
PERSON = 38  # of 255: where a mask is above this, a person may be
LEVELS = 24  # of 255: a larger difference counts as a change
STRONG = 1e-4  # smaller eigenvalue of corners that would change by more than LEVELS if the camera moved
STUCK = 0.25  # share of these, inside a border, that never change: with more of them it is no border
STILL = 0.002  # longer sides: where no corner of the picture moves farther in a shot, the camera stands still
SPARSE = 5  # of so many frames one is looked at first; where the camera stands still in these, it does in all
SAMPLES = 64  # pictures in which a border is looked for
STANDING = (1.0, 0.0, 0.0, 0.0)  # of a camera that does not move, see `camera_path`


def small_picture(frame, size):
    """What is compared of a frame (uint8 H x W x 3 BGR): uint8 h x w, grey, of `size` (width, height)."""
    height, width = frame.shape[:2]
    if 2 * size[0] <= width:  # OpenCV halves a picture fast
        frame = cv2.resize(frame, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    return cv2.resize(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), size, interpolation=cv2.INTER_AREA)


def thumbnail(picture):
    """What CutDetector compares: uint8 (64, 64), of a grey picture (uint8 h x w)."""
    return cv2.resize(picture, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)


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
        last, self._last = self._last, (contrast / norm).reshape(THUMBNAIL, THUMBNAIL)
        if last is None or float((last * self._last).sum()) >= 1 - CUT:
            return False
        (x, y), _ = cv2.phaseCorrelate(last, self._last)
        x, y = round(x), round(y)
        if max(abs(x), abs(y)) > FASTEST_PAN:
            return True
        old = last[max(0, -y):THUMBNAIL - max(0, y), max(0, -x):THUMBNAIL - max(0, x)]
        new = self._last[max(0, y):THUMBNAIL + min(0, y), max(0, x):THUMBNAIL + min(0, x)]
        return float((old * new).sum() / (np.linalg.norm(old) * np.linalg.norm(new) + 1e-9)) < 1 - CUT


def moving_window(pictures):
    """Rows and columns, to index with, of the part of the pictures (uint8 h x w) that shows the scene. Around it there
    may be a border, with titles in it, which does not move with the camera: nothing ever changes in it."""
    change = np.zeros_like(pictures[0])
    for picture in pictures:
        change = np.maximum(change, cv2.absdiff(picture, pictures[0]))
    # Specks are noise, as pictures that were compressed have it beside titles.
    changes = cv2.morphologyEx((change > LEVELS).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    x, y, width, height = cv2.boundingRect(changes)
    window = np.s_[y:y + height, x:x + width]
    # Where the camera stands still, a part of the scene beside what moves in it never changes either.
    strong = cv2.cornerMinEigenVal(pictures[0], 5, ksize=3)[window] > STRONG
    return window if (change[window][strong] <= LEVELS).sum() < STUCK * strong.sum() else np.s_[:, :]


class CameraFollower:
    """Called with the pictures of a shot in order; returns (turn, shift), how each lies in the first one, in pixels.
    window: see `moving_window`. While the scene can't be followed, the camera counts as standing still."""

    def __init__(self, window):
        self._window, self._key, self._last = window, None, None

    def __call__(self, picture, people):
        """picture: see `small_picture`; people: list of uint8 masks of its size, 255 where somebody is."""
        free = np.zeros_like(picture)
        free[self._window] = 1
        for mask in people:
            free[cv2.dilate((mask > PERSON).astype(np.uint8), np.ones((AROUND, AROUND), np.uint8)) > 0] = 0
        if self._key is None:
            self._key = self._last = _Key(picture, free, 1 + 0j, 0j)
            return self._last.turn, self._last.shift
        link, count = self._key.link(picture, free, self._last)
        if count < max(WORN * self._key.most, 1) and self._key is not self._last:
            newer, newer_count = self._last.link(picture, free, self._last)
            if newer:
                self._key, link, count = self._last, newer, newer_count
        self._key.most = max(self._key.most, count)
        turn, shift = link or (self._last.turn, self._last.shift)
        self._last = _Key(picture, free, turn, shift)
        return turn, shift


class _Key:
    """A picture with which later ones are compared. turn, shift: how it lies in the scene, in pixels; free: uint8
    h x w, 1 where the scene is seen; most: of its corners, the most that a later picture has agreed on."""

    def __init__(self, picture, free, turn, shift):
        self.picture, self.free, self.turn, self.shift, self.most = picture, free, turn, shift, 0
        self._corners = None

    @property
    def corners(self):
        """float32 (corners, 2), in pixels, spread over the picture: the strongest ones of each cell."""
        if self._corners is None:
            strength = cv2.cornerMinEigenVal(self.picture, 5, ksize=3)
            inside = np.zeros_like(self.free)
            inside[EDGE:-EDGE, EDGE:-EDGE] = self.free[EDGE:-EDGE, EDGE:-EDGE]
            highest = cv2.dilate(strength, np.ones((2 * APART + 1,) * 2, np.uint8))
            y, x = np.nonzero((strength == highest) & (strength > WEAKEST) & (inside > 0))
            cells = (y * CELLS // strength.shape[0]) * CELLS + x * CELLS // strength.shape[1]
            order = np.lexsort((-strength[y, x], cells))
            first_of_cell = np.searchsorted(cells[order], cells[order])
            kept = order[np.arange(len(order)) - first_of_cell < OF_CELL]
            self._corners = np.stack([x[kept], y[kept]], 1).astype(np.float32)
        return self._corners

    def link(self, picture, free, last):
        """((turn, shift) of a later picture, how many corners agree); (None, 0) where too few do. last: the _Key before
        that picture, near which it is looked for."""
        start = self.corners
        if len(start) < FEWEST:
            return None, 0
        places = (self.turn * (start[:, 0] + 1j * start[:, 1]) + self.shift - last.shift) / last.turn
        guess = np.stack([places.real, places.imag], 1).astype(np.float32)
        follow = {"winSize": WINDOW, "flags": cv2.OPTFLOW_USE_INITIAL_FLOW}
        end, found, _ = cv2.calcOpticalFlowPyrLK(self.picture, picture, start, guess, maxLevel=2, **follow)
        home, found_back, _ = cv2.calcOpticalFlowPyrLK(picture, self.picture, end, start.copy(), maxLevel=1, **follow)
        pixels = np.clip(np.nan_to_num(end).round().astype(int), 0, np.array(picture.shape[::-1]) - 1)
        good = ((found[:, 0] > 0) & (found_back[:, 0] > 0) & (np.abs(home - start).max(1) < BACK)
                & (free[pixels[:, 1], pixels[:, 0]] > 0) & (np.abs(pixels - end).max(1) < 1))
        if good.sum() < FEWEST:
            return None, 0
        matrix, agree = cv2.estimateAffinePartial2D(end[good], start[good], ransacReprojThreshold=NEAR, maxIters=500)
        count = 0 if matrix is None else int(agree.sum())
        if count < max(FEWEST, AGREE * good.sum()):
            return None, 0
        turn, shift = complex(matrix[0, 0], matrix[1, 0]), complex(matrix[0, 2], matrix[1, 2])
        return (self.turn * turn, self.turn * shift + self.shift), count


def camera_path(picture, people, shots, count, progress=lambda frames: None):
    """float32 (count, 4): how the picture of each frame lies in that of its shot's first frame, as (a, b, x, y): the
    place (u, v) lies at (a u - b v + x, b u + a v + y), in units of the picture's longer side. In a shot in which the
    camera stands still, all are STANDING.

    picture, people: called with a frame's number, they return its small_picture and the list of the masks in it; shots:
    int (S,), with which frames shots begin; progress: called with how many more frames are done.
    """
    samples = [picture(number) for number in np.unique(np.linspace(0, count - 1, SAMPLES).astype(int))]
    shape, window, path = samples[0].shape, moving_window(samples), np.empty((count, 4), np.float32)
    for start, stop in zip(shots, [*shots[1:], count], strict=True):
        path[start:stop] = STANDING
        rough = _follow(range(start, stop, SPARSE), picture, people, window, lambda frames: None)
        if _farthest(rough, shape) >= STILL / 2:
            exact = _follow(range(start, stop), picture, people, window, progress)
            if _farthest(exact, shape) >= STILL:
                path[start:stop] = exact
        else:
            progress(stop - start)
    return path


def relative(path, reference):
    """float32 (N, 4): a path (N, 4) of the camera as it is seen from one of its places, `reference` (4,)."""
    (turn, shift), (own, moved) = _complex(path), _complex(reference)
    return _numbers(turn / own, (shift - moved) / own)


def apply(path, points):
    """Points of pictures, float (N, ..., 2 or 3) in units of the longer side, where they lie in the scene by a path
    (N, 4). The third number, where there is one, is a depth on the same scale."""
    turn, shift = (each.reshape(-1, *[1] * (points.ndim - 2)) for each in _complex(path))
    places = turn * (points[..., 0] + 1j * points[..., 1]) + shift
    return np.stack([places.real, places.imag, *np.moveaxis(points[..., 2:] * np.abs(turn)[..., None], -1, 0)],
                    -1).astype(points.dtype)


def inverse(path):
    """float32 (N, 4): how the scene lies in the pictures, by a path (N, 4)."""
    turn, shift = _complex(path)
    return _numbers(1 / turn, -shift / turn)


def matrices(path, longer):
    """float64 (N, 2, 3): what cv2.warpAffine takes to lay the pictures into the scene, by a path (N, 4), in pixels of
    pictures whose longer side is `longer`."""
    turn, shift = _complex(path)
    # A pixel's number is the place of its middle, half a pixel from its corner.
    shift = shift * longer - (0.5 + 0.5j) * (1 - turn)
    return np.stack([turn.real, -turn.imag, shift.real, turn.imag, turn.real, shift.imag], -1).reshape(-1, 2, 3)


def _complex(path):
    """(turn, shift), each complex (...,), of a path (..., 4)."""
    path = np.asarray(path, np.float64)
    return path[..., 0] + 1j * path[..., 1], path[..., 2] + 1j * path[..., 3]


def _numbers(turn, shift):
    return np.stack([turn.real, turn.imag, shift.real, shift.imag], -1).astype(np.float32)


def _follow(numbers, picture, people, window, progress):
    """`camera_path` for the frames with these numbers, which are of one shot."""
    follow, path = CameraFollower(window), []
    for small, masks in ahead((picture(number), people(number)) for number in numbers):
        path.append(follow(small, masks))
        progress(1)
    turn, shift = np.array(path).T
    # A pixel's number is the place of its middle, half a pixel from its corner.
    shift = (shift + (0.5 + 0.5j) * (1 - turn)) / max(small.shape)
    return _numbers(turn, shift)


def _farthest(path, shape):
    """How far any corner of pictures of this (height, width) moves on a path (N, 4), in longer sides."""
    (turn, shift), (height, width) = _complex(path), shape
    corners = np.array([[0], [width], [1j * height], [width + 1j * height]]) / max(shape)
    return np.abs(turn * corners + shift - corners).max()
