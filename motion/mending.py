"""A track made whole and steady: left and right kept apart, hidden limbs and gaps filled, jitter smoothed.

Each frame is mended by the frames before and after it, so nothing lags. Nothing is carried across a cut.
When poses are found, `along_flow` has taken out of them by how much the detector is wrong from frame to frame.
"""

from itertools import pairwise

import numpy as np
from scipy.linalg import solveh_banded

from motion.body import ARMS_AND_LEGS, SIDES, body_lengths

GAP = 1.0  # seconds: a shorter absence, of the person or of one limb, is filled; after a longer one the person is gone
FLASH = 1 / 3  # seconds: a person who is seen for a shorter time between absences and cuts is an error of the detector
HIDDEN = 0.5  # visibility below which the place of a landmark is a guess
MIN_FLIP = 0.08  # body heights that the two sides must be apart before a change of sides is believed and undone
STILL_REACH = 7 / 30  # seconds before and after a frame from which a joint at rest is smoothed
FAST_REACH = 2.5 / 30  # seconds from which a fast joint is smoothed, so that fast moves keep their height
SLOW = 0.3  # body heights a second up to which a joint counts as at rest
FAST = 1.2  # body heights a second from which a joint counts as fast
SWING = 0.1  # seconds: a joint is at rest only if it is slow in all frames that are this near
LEAST_SURE = 0.05  # of 1: a landmark that is less visible counts as if it were so visible
FLOW_NOISE = 0.05  # variance of a step of the optical flow, beside that of where the detector puts a joint
OFF_FLOW = 0.0025  # body heights that a step may differ from the flow, to count half
OFF_JOINT = 0.04  # body heights that a joint may be moved, for the detector to count half
JUMP = 0.03  # body heights between the flow and the detector's step from which neither is believed to smooth the other
REPEATS = 3  # of the least squares, each with less weight for what does not agree
BLOCK = 4096  # frames that are smoothed at a time, so that a long video does not fill the memory


def steady(track):
    """The track, mended, in the scene (see Track.in_scene) and smoothed, for a source. A shot shorter than FLASH counts
    only if it is the whole video."""
    mended = mend_track(track, keep_short_shots=len(track.shots) == 1).in_scene()
    joints = mended.joints.copy()
    for shot in track.shot_slices:
        joints[shot] = smooth(joints[shot], mended.visibility[shot], track.seconds[shot])
    return mended.with_poses(joints, mended.visibility)


def mend_track(track, keep_short_shots=True):
    """The track with each of its shots mended; see `mend`."""
    joints, visibility = track.joints.copy(), track.visibility.copy()
    for shot in track.shot_slices:
        joints[shot], visibility[shot] = mend(joints[shot], visibility[shot], track.seconds[shot], track.bounds,
                                              keep_short_shots)
    return track.with_poses(joints, visibility)


def mend(joints, visibility, seconds, bounds, keep_short=True):
    """The poses of one shot with flips undone, hidden limbs carried on and absences filled: new (joints, visibility).

    joints (N, 33, 3), NaN in frames without the person, as frames of long absences stay; visibility (N, 33); seconds
    (N,); bounds (width, height) of the picture in the joints' unit; keep_short: a shot shorter than FLASH is kept.
    """
    joints, visibility = joints.astype(np.float32), visibility.astype(np.float32)
    seen = np.flatnonzero(~np.isnan(joints[:, 0, 0]))
    if len(seen):
        some, sure, times = joints[seen], visibility[seen], seconds[seen]
        _undo_flips(some, sure, times)
        _carry_hidden(some, sure, times, bounds)
        joints[seen], visibility[seen] = some, sure
        _fill(joints, visibility, seconds, seen)
    if not keep_short or seconds[-1] - seconds[0] >= FLASH:
        for start, stop in _runs(~np.isnan(joints[:, 0, 0])):
            if seconds[stop - 1] - seconds[start] < FLASH:
                joints[start:stop] = np.nan
    return joints, visibility


def along_flow(joints, visibility, moves, sure):
    """The poses (N, 33, 3) of one person without the detector's short errors: float32 (N, 33, 3).

    The detector looks at each frame anew, so a joint trembles around its true place, while optical flow follows what is
    seen and errs little from one frame to the next, but drifts in time. So each joint takes the way that agrees best
    with both: weighted least squares, which are a Kalman smoother's for this model (Rauch, Tung and Striebel 1965),
    repeated with less weight for what does not agree. Where the detector's step is very different from the flow (a flip
    of left and right, a limb that another one hides), the detector alone counts.

    visibility: (N, 33); moves: (N - 1, 33, 2), how far what is seen at each landmark moves to the next frame, in the
    unit of the joints; sure: (N - 1, 33), how sure this is, in [0, 1]; 0 between poses that don't follow each other.
    """
    height, trust = max(float(np.median(body_lengths(joints))), 1e-6), np.maximum(visibility, LEAST_SURE) ** 2
    steady_joints = joints.astype(np.float32)
    for landmark in range(joints.shape[1]) if len(joints) > 1 else ():
        found, seen, move = joints[:, landmark, :2].astype(float), trust[:, landmark], moves[:, landmark]
        link = sure[:, landmark] / FLOW_NOISE * np.minimum(seen[1:], seen[:-1])
        away = np.linalg.norm(np.diff(found, axis=0) - move, axis=1)
        links, places = link / (1 + (away / (JUMP * height)) ** 4), seen
        for _ in range(REPEATS):
            diagonal, pulled = places.copy(), places[:, None] * found
            diagonal[1:] += links
            diagonal[:-1] += links
            pulled[1:] += links[:, None] * move
            pulled[:-1] -= links[:, None] * move
            way = solveh_banded(np.stack([np.concatenate([[0], -links]), diagonal]), pulled)
            links = link / (1 + (np.linalg.norm(np.diff(way, axis=0) - move, axis=1) / (OFF_FLOW * height)) ** 2)
            places = seen / (1 + (np.linalg.norm(way - found, axis=1) / (OFF_JOINT * height)) ** 2)
        steady_joints[:, landmark, :2] = way
    return steady_joints


def _undo_flips(joints, visibility, seconds):
    """Undo, in place, changes of left and right that change back within GAP."""
    if len(joints) < 3:
        return
    apart = body_lengths(joints)[1:] * MIN_FLIP
    for left, right in SIDES:
        pairs = np.array([left[:3], right[:3]])  # the first three landmarks of each side decide
        now, before = joints[1:, pairs, :2], joints[:-1, pairs, :2]  # (N - 1, 2 sides, 3 landmarks, 2)
        kept = np.linalg.norm(now - before, axis=3).mean((1, 2))
        swapped = np.linalg.norm(now[:, ::-1] - before, axis=3).mean((1, 2))
        changes = (np.flatnonzero((swapped < kept / 2) & (kept > apart)) + 1).tolist()
        while len(changes) > 1:  # the shortest time between two changes first, because a flip is short
            first = int(np.diff(seconds[changes]).argmin())
            start, stop = changes[first:first + 2]
            if seconds[stop] - seconds[start] > GAP:
                break
            for values in (joints, visibility):
                values[start:stop, left + right] = values[start:stop, right + left]
            del changes[first:first + 2]


def _carry_hidden(joints, visibility, seconds, bounds):
    """Replace, in place, limbs that are hidden or outside the picture for up to GAP: each bone turns from the last
    direction in which it was seen to the next one, and starts where its parent is."""
    guessed = joints.copy()
    outside = ((guessed[:, :, :2] < 0) | (guessed[:, :, :2] > np.asarray(bounds))).any(2)
    unsure = (visibility < HIDDEN) | outside
    for child, parent, carried in ARMS_AND_LEGS:
        known = np.flatnonzero(~unsure[:, child])
        for number in np.flatnonzero(unsure[:, child]):
            place = np.searchsorted(known, number)
            if not 0 < place < len(known):
                continue
            before, after = known[place - 1], known[place]
            if seconds[after] - seconds[before] > GAP:
                continue
            share = (seconds[number] - seconds[before]) / max(seconds[after] - seconds[before], 1e-9)
            for landmark in (child, *carried):
                bone = guessed[[before, after], landmark] - guessed[[before, after], parent]
                joints[number, landmark] = joints[number, parent] + bone[0] * (1 - share) + bone[1] * share
                visibility[number, landmark] = HIDDEN


def _fill(joints, visibility, seconds, seen):
    """Fill, in place, absences of up to GAP between the frames `seen` with a straight line."""
    for before, after in pairwise(seen):
        if after > before + 1 and seconds[after] - seconds[before] <= GAP:
            share = (seconds[before + 1:after] - seconds[before]) / max(seconds[after] - seconds[before], 1e-9)
            for values in (joints, visibility):
                weight = share.reshape(-1, *[1] * (values.ndim - 1))
                values[before + 1:after] = values[before] * (1 - weight) + values[after] * weight
            visibility[before + 1:after] = np.minimum(visibility[before + 1:after], HIDDEN)


def _runs(flags):
    """int (runs, 2): where each run of True starts and stops."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    return edges.reshape(-1, 2)


def smooth(joints, visibility, seconds):
    """The joints (N, 33, 3) of one shot without the detector's jitter, and without a lag; NaN frames stay NaN.

    At each frame a parabola is fitted to the frames around it (Savitzky and Golay 1964; weighted as in Cleveland's
    loess, 1979, and by the square of visibility (N, 33)). The fit reaches STILL_REACH for a joint at rest and shrinks
    to FAST_REACH for a fast one: one reach for all joints would either tremble or flatten fast moves. seconds: (N,).
    """
    result = np.empty(joints.shape, np.float32)
    for start in range(0, len(joints), BLOCK):
        stop = min(start + BLOCK, len(joints))
        # A frame depends on how fast its neighbours are, and these on all frames within the fit's reach.
        first = np.searchsorted(seconds, seconds[start] - 2 * SWING - STILL_REACH)
        last = np.searchsorted(seconds, seconds[stop - 1] + 2 * SWING + STILL_REACH, "right")
        piece = _smooth_block(joints[first:last], visibility[first:last], seconds[first:last])
        result[start:stop] = piece[start - first:stop - first]
    return result


def _smooth_block(joints, visibility, seconds):
    """`smooth` for frames that fit into memory."""
    present = ~np.isnan(joints[:, 0, 0])
    weight = np.where(present[:, None], np.maximum(visibility, 0.05) ** 2, 0)
    values = np.where(present[:, None, None], joints, 0).astype(np.float64)
    slow, slope = _fit_parabolas(values, weight, seconds, STILL_REACH)
    fast, _ = _fit_parabolas(values, weight, seconds, FAST_REACH)
    speed = np.linalg.norm(slope[:, :, :2], axis=2) / np.maximum(body_lengths(values), 1e-6)[:, None]
    speed[~present] = 0
    speed = _highest_nearby(speed, seconds)  # where a swing turns, it is slow for a moment only
    share = np.clip((speed - SLOW) / (FAST - SLOW), 0, 1)[:, :, None]
    return np.where(present[:, None, None], slow * (1 - share) + fast * share, np.nan)


def _highest_nearby(values, seconds):
    """The highest of the values (N, J) in the frames within SWING of each frame."""
    count, reach = len(values), SWING + 1e-6
    first, last = np.searchsorted(seconds, seconds - reach), np.searchsorted(seconds, seconds + reach, "right") - 1
    highest = values.copy()
    for offset in range((first - np.arange(count)).min(), (last - np.arange(count)).max() + 1):
        here = np.flatnonzero((np.arange(count) + offset >= first) & (np.arange(count) + offset <= last))
        highest[here] = np.maximum(highest[here], values[here + offset])
    return highest


def _fit_parabolas(values, weight, seconds, reach):
    """Value and slope, each (N, J, 3), at every frame of the parabola fitted to the frames within `reach` seconds.
    values: float (N, J, 3); weight: (N, J); seconds: (N,)."""
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
    # A small ridge on slope and bend: with one or two frames in reach they are 0 instead of undefined.
    matrix = matrix + np.diag([0, 1, 1]) * 1e-6 * moments[:, :, :1, None] + np.eye(3) * 1e-12
    fit = np.linalg.solve(matrix, sums.swapaxes(2, 3))  # (N, J, 3 powers, 3 axes)
    return fit[:, :, 0], fit[:, :, 1] / reach
