"""A clip's poses made whole and steady: cuts found, left and right kept apart, gaps filled, jitter smoothed.

All of it looks both ways in time, so nothing lags; `steady` does it for a stream with two seconds of it in memory.
Nothing is carried across a cut.
"""

from itertools import pairwise

import cv2
import numpy as np
from scipy.ndimage import maximum_filter1d

from Skeleton import ANKLES, HIPS, NOSE, SHOULDERS, Skeleton

GAP = 1.0  # seconds: a shorter absence, of the person or of one limb, is filled; after a longer one the person is gone
FLASH = 1 / 3  # seconds: a person seen for less than this between absences and cuts is a mistake of the detector
HIDDEN = 0.5  # visibility below which a limb's place is a guess; in stills MediaPipe's visibility is honest
CUT = 0.5  # of 0 to 2, see Cuts: within a shot it stays below 0.39, at a cut above 0.6 (sample, karate, tai chi)
PAN = 10  # of 64 pixels a frame: the fastest that is still a pan
BLANK = 64.0  # contrast, about a level a pixel, below which a frame is black or otherwise empty
# The local fits reach this far, in seconds, for a still joint and for one at FAST or more, in body heights a second.
STILL_REACH, FAST_REACH, SLOW, FAST = 7 / 30, 2.5 / 30, 0.3, 1.2
SWING = 0.1  # seconds around a frame in which a joint must be slow to be at rest
BLOCK = 0.2  # seconds of poses that `steady` works on at a time
MIN_FLIP = 0.08  # of the body's height: what sides must be apart before a change of sides is believed or undone

# (joint, its parent, landmarks that go with it), parents first: the limbs that hide behind the body.
HIDING = [(13, 11, ()), (14, 12, ()), (15, 13, (17, 19, 21)), (16, 14, (18, 20, 22)),
          (25, 23, ()), (26, 24, ()), (27, 25, (29, 31)), (28, 26, (30, 32))]
# Landmarks left and right, of which the first three pairs decide: shoulders and arms with the face, and the legs.
SIDES = [([11, 13, 15, 17, 19, 21, 1, 2, 3, 7, 9], [12, 14, 16, 18, 20, 22, 4, 5, 6, 8, 10]),
         ([23, 25, 27, 29, 31], [24, 26, 28, 30, 32])]


def point(joints, landmark):
    """(..., 3): a landmark of joints (..., 33, 3), or the point halfway between a pair of them."""
    return joints[..., landmark, :] if isinstance(landmark, int) else joints[..., landmark, :].mean(-2)


def heights(joints):
    """(N,): length of each body of a track along nose, shoulders, hips, knees and ankles, in the picture plane."""
    chain = np.stack([point(joints, landmark) for landmark in (NOSE, SHOULDERS, HIPS, (25, 26), ANKLES)])[:, :, :2]
    return np.linalg.norm(np.diff(chain, axis=0), axis=2).sum(0)


def thumbnail(frame):
    """What Cuts looks at of a frame (uint8 H x W x 3 BGR): uint8 64 x 64, grey."""
    return cv2.resize(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), (64, 64), interpolation=cv2.INTER_AREA)


class Cuts:
    """Called with the thumbnails of a clip's frames in order: does this one begin a new shot?

    The measure is 1 - correlation of local contrast at 64 x 64 pixels, the frames laid on each other as a pan would
    need it: so a change of light is no cut, nor a pan, while another framing of the same room is one. (The mean HSV
    difference, as PySceneDetect's ContentDetector takes it, gives 18 for a flash of light and 13 to 19 for a new
    framing: no threshold tells them apart.)
    """

    def __init__(self):
        self._last = None

    def __call__(self, small):
        small = small.astype(np.float32)
        contrast = (small - cv2.blur(small, (15, 15))).ravel()
        norm = float(np.linalg.norm(contrast))
        if norm < BLANK:  # nothing to compare; what comes after is compared with what was before
            return False
        last, self._last = self._last, (contrast / norm).reshape(64, 64)
        if last is None or float((last * self._last).sum()) >= 1 - CUT:
            return False
        (x, y), _ = cv2.phaseCorrelate(last, self._last)
        x, y = round(x), round(y)
        if max(abs(x), abs(y)) > PAN:
            return True
        old = last[max(0, -y):64 - max(0, y), max(0, -x):64 - max(0, x)]
        new = self._last[max(0, y):64 + min(0, y), max(0, x):64 + min(0, x)]
        return float((old * new).sum() / (np.linalg.norm(old) * np.linalg.norm(new) + 1e-9)) < 1 - CUT


def mend(joints, visibility, seconds, bounds, whole=True):
    """The track of one shot with flips undone, hidden limbs carried on and absences filled.

    joints (N, 33, 3), NaN in frames without a person; visibility (N, 33); seconds (N,); bounds (width, height) of the
    picture in the joints' unit; whole: this is all there is of the clip (if that is shorter than FLASH, a short
    appearance is not dropped).
    Returns new (joints, visibility); frames of long absences stay NaN.
    """
    joints, visibility = joints.astype(np.float32), visibility.astype(np.float32)
    seen = np.flatnonzero(~np.isnan(joints[:, 0, 0]))
    if len(seen):
        some, sure, times = joints[seen], visibility[seen], seconds[seen]
        _unflip(some, sure, times)
        _carry_hidden(some, sure, times, bounds)
        joints[seen], visibility[seen] = some, sure
        _fill(joints, visibility, seconds, seen)
    if not whole or seconds[-1] - seconds[0] >= FLASH:
        for start, stop in _runs(~np.isnan(joints[:, 0, 0])):
            if seconds[stop - 1] - seconds[start] < FLASH:
                joints[start:stop] = np.nan
    return joints, visibility


def _unflip(joints, visibility, seconds):
    """Undo, in place, changes of sides that change back within GAP."""
    if len(joints) < 3:
        return
    apart = heights(joints)[1:] * MIN_FLIP
    for left, right in SIDES:
        pairs = np.array([left[:3], right[:3]])
        now, before = joints[1:, pairs, :2], joints[:-1, pairs, :2]  # (N - 1, 2 sides, 3, 2)
        kept = np.linalg.norm(now - before, axis=3).mean((1, 2))
        swapped = np.linalg.norm(now[:, ::-1] - before, axis=3).mean((1, 2))
        changes = (np.flatnonzero((swapped < kept / 2) & (kept > apart)) + 1).tolist()
        while len(changes) > 1:  # the shortest first: a flip is short, what is between two flips need not be
            first = int(np.diff(seconds[changes]).argmin())
            start, stop = changes[first:first + 2]
            if seconds[stop] - seconds[start] > GAP:
                break
            for values in (joints, visibility):
                values[start:stop, left + right] = values[start:stop, right + left]
            del changes[first:first + 2]


def _carry_hidden(joints, visibility, seconds, bounds):
    """Replace, in place, limbs hidden or outside the picture for up to GAP: each bone turns from its last seen
    direction to its next seen one, on the parent's place."""
    guessed = joints.copy()
    outside = ((guessed[:, :, :2] < 0) | (guessed[:, :, :2] > np.asarray(bounds))).any(2)
    unsure = (visibility < HIDDEN) | outside
    for child, parent, carried in HIDING:
        known = np.flatnonzero(~unsure[:, child])
        for number in np.flatnonzero(unsure[:, child]):
            place = np.searchsorted(known, number)
            if not 0 < place < len(known):
                continue
            before, after = known[place - 1], known[place]
            if seconds[after] - seconds[before] > GAP:
                continue
            share = (seconds[number] - seconds[before]) / (seconds[after] - seconds[before])
            for landmark in (child, *carried):
                bone = guessed[[before, after], landmark] - guessed[[before, after], parent]
                joints[number, landmark] = joints[number, parent] + bone[0] * (1 - share) + bone[1] * share
                visibility[number, landmark] = HIDDEN


def _fill(joints, visibility, seconds, seen):
    """Draw, in place, a straight line through absences of up to GAP between the frames `seen`."""
    for before, after in pairwise(seen):
        if after > before + 1 and seconds[after] - seconds[before] <= GAP:
            share = (seconds[before + 1:after] - seconds[before]) / (seconds[after] - seconds[before])
            for values in (joints, visibility):
                weight = share.reshape(-1, *[1] * (values.ndim - 1))
                values[before + 1:after] = values[before] * (1 - weight) + values[after] * weight
            visibility[before + 1:after] = np.minimum(visibility[before + 1:after], HIDDEN)


def _runs(flags):
    """(start, stop) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    return edges.reshape(-1, 2)


def smooth(joints, visibility, seconds):
    """The track without the detector's jitter, and without lag: at each frame a parabola is fitted to the frames
    around it (Savitzky and Golay 1964; weighted as Cleveland's loess 1979, and by visibility squared).

    It reaches STILL_REACH for a joint at rest and shrinks to FAST_REACH for a fast one, so that fast moves keep their
    height: one width for all either trembles or flattens. NaN frames stay NaN and weigh nothing.
    """
    present = ~np.isnan(joints[:, 0, 0])
    weight = np.where(present[:, None], np.maximum(visibility, 0.05) ** 2, 0)
    values = np.where(present[:, None, None], joints, 0).astype(np.float64)
    slow, slope = _parabola(values, weight, seconds, STILL_REACH)
    fast, _ = _parabola(values, weight, seconds, FAST_REACH)
    speed = np.linalg.norm(slope[:, :, :2], axis=2) / np.maximum(heights(values), 1e-6)[:, None]
    speed[~present] = 0
    between = np.median(np.diff(seconds)) if len(seconds) > 1 else 1.0
    near = round(SWING / max(between, 1e-3) + 1e-6)  # frames; at its turning points a swing is fast all the same
    speed = maximum_filter1d(speed, 2 * near + 1, axis=0)
    share = np.clip((speed - SLOW) / (FAST - SLOW), 0, 1)[:, :, None]
    return np.where(present[:, None, None], slow * (1 - share) + fast * share, np.nan).astype(np.float32)


def _parabola(values, weight, seconds, reach):
    """Value and slope (each (N, J, 3)) at every frame of the parabola fitted to the frames within `reach` seconds."""
    count = len(values)
    left = np.arange(count) - np.searchsorted(seconds, seconds - reach, "right")
    right = np.searchsorted(seconds, seconds + reach, "left") - 1 - np.arange(count)
    moments, sums = np.zeros((*weight.shape, 5)), np.zeros((*values.shape, 3))
    for offset in range(-max(left.max(), 0), max(right.max(), 0) + 1):
        here = np.arange(max(0, -offset), min(count, count - offset))
        time = (seconds[here + offset] - seconds[here]) / reach
        kernel = np.clip(1 - np.abs(time) ** 3, 0, None) ** 3
        factor = weight[here + offset] * kernel[:, None]
        for power in range(5):
            term = factor * (time ** power)[:, None]
            moments[here, :, power] += term
            if power < 3:
                sums[here, :, :, power] += term[:, :, None] * values[here + offset]
    matrix = moments[:, :, np.add.outer(np.arange(3), np.arange(3))]
    # a touch of ridge on slope and bend: with one or two frames in reach, those are 0 instead of undefined
    matrix = matrix + np.diag([0, 1, 1]) * 1e-6 * moments[:, :, :1, None] + np.eye(3) * 1e-12
    fit = np.linalg.solve(matrix, sums.swapaxes(2, 3))  # (N, J, 3 powers, 3 axes)
    return fit[:, :, 0], fit[:, :, 1] / reach


def steady(steps):
    """Mend and smooth a stream: yields the same dicts with "pose" added, a Skeleton or None, two seconds later.

    steps: dicts with seconds (increasing), frame (image), found (Skeleton or None), cut (True: a new shot begins).
    """
    context = GAP + FLASH + 2 * STILL_REACH
    shot, done, whole = [], 0, True  # the steps in memory, how many of them are given, is that all of the clip?
    for step in steps:
        if step["cut"] and shot:
            whole = False
            yield from _give(shot, done, len(shot), whole)
            shot, done = [], 0
        shot.append(step)
        if step["seconds"] - shot[done]["seconds"] > context + BLOCK:
            times = np.array([s["seconds"] for s in shot])
            stop = int(np.searchsorted(times, step["seconds"] - context))
            yield from _give(shot, done, stop, whole=True)  # a short appearance would end within the context
            keep = int(np.searchsorted(times, times[stop] - context))
            shot, done = shot[keep:], stop - keep
    yield from _give(shot, done, len(shot), whole)


def _give(shot, start, stop, whole):
    nobody = np.full((33, 3), np.nan, np.float32), np.zeros(33, np.float32)
    found = [nobody if s["found"] is None else (s["found"].joints, s["found"].visibility) for s in shot]
    if start == stop:
        return
    seconds = np.array([s["seconds"] for s in shot])
    height, width = shot[start]["frame"].shape[:2]
    bounds = np.array([width, height]) / max(width, height)
    joints, visibility = mend(*(np.stack(part) for part in zip(*found, strict=True)), seconds, bounds, whole)
    near = slice(*np.searchsorted(seconds, [seconds[start] - 2 * STILL_REACH, seconds[stop - 1] + 2 * STILL_REACH]))
    joints[near] = smooth(joints[near], visibility[near], seconds[near])
    for number in range(start, stop):
        pose = None if np.isnan(joints[number, 0, 0]) else Skeleton(joints[number], visibility[number])
        yield shot[number] | {"pose": pose}
        shot[number] = shot[number] | {"frame": None}  # the pictures need not stay as long as the poses
