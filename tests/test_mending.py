"""Flips, gaps and smoothing: known tracks in, the same tracks out, and nothing is carried across a cut."""

import numpy as np
import pytest

from motion import mending
from motion.body import SIDES
from motion.mending import along_flow, mend, smooth, steady
from motion.track import Track

FPS, BOUNDS = 30, (1.0, 1.0)


@pytest.fixture(scope="module")
def track():
    """Five seconds of a smooth dance of all 33 joints: (joints, visibility, seconds)."""
    rng = np.random.default_rng(1)
    seconds = np.arange(150) / FPS
    rest = rng.uniform(0.35, 0.65, (33, 3))
    rest[[0, 11, 12, 23, 24, 25, 26, 27, 28], 1] = [.2, .3, .3, .5, .5, .65, .65, .8, .8]
    for left, right in ((11, 12), (13, 14), (15, 16), (23, 24), (25, 26), (27, 28)):
        rest[left, 0], rest[right, 0] = 0.6, 0.4
    phase = rng.uniform(0, 6, (33, 3))
    joints = rest + 0.03 * np.sin(2 * np.pi * 0.7 * seconds[:, None, None] + phase)
    return joints.astype(np.float32), np.ones((150, 33), np.float32), seconds


def test_a_whole_track_is_left_alone(track):
    joints, visibility = mend(*track, BOUNDS)
    assert np.array_equal(joints, track[0]) and np.array_equal(visibility, track[1])


def detected(track):
    """(what a detector finds that errs as MediaPipe does, for some frames in one way; the exact moves; how sure)."""
    rng, errors = np.random.default_rng(2), np.zeros((150, 33, 2))
    for number in range(1, 150):
        errors[number] = 0.7 * errors[number - 1] + rng.normal(0, 0.003, (33, 2))
    found = track[0].copy()
    found[:, :, :2] += errors
    return found, np.diff(track[0][:, :, :2], axis=0), np.ones((149, 33))


def root_mean_square(joints, truth):
    return float(np.sqrt(((joints - truth)[:, :, :2] ** 2).mean()))


def test_short_errors_of_the_detector_are_taken_out_by_the_flow(track):
    found, moves, sure = detected(track)
    noisy = moves + np.random.default_rng(3).normal(0, 0.0003, moves.shape)
    before = root_mean_square(found, track[0])
    assert root_mean_square(along_flow(found, track[1], noisy, sure), track[0]) < 0.6 * before
    assert np.array_equal(along_flow(found, track[1], noisy, sure * 0), found)  # there is no flow to follow
    assert np.array_equal(along_flow(found[:1], track[1][:1], noisy[:0], sure[:0]), found[:1])
    assert np.array_equal(along_flow(found, track[1], noisy, sure)[:, :, 2], found[:, :, 2])


def test_the_detector_counts_alone_where_the_flow_tells_something_else(track):
    found, moves, sure = detected(track)
    left, right = SIDES[1]
    flipped = found.copy()
    flipped[60:75, left + right] = flipped[60:75, right + left]
    steadied = along_flow(flipped, track[1], moves, sure)
    assert np.abs(steadied - flipped)[[59, 60, 74, 75]][:, left + right].max() < 0.02  # they are 0.2 apart
    still = along_flow(found, track[1], moves * 0, sure)  # a hand before it, for example, is what the flow follows
    fast = np.linalg.norm(moves, axis=2).max(0).argmax()
    assert np.ptp(still[:, fast, :2], 0).max() > 0.8 * np.ptp(found[:, fast, :2], 0).max()


def test_absences_up_to_a_second_are_filled_and_longer_ones_are_not(track):
    joints, visibility, seconds = (values.copy() for values in track)
    joints[20:40], joints[70:110] = np.nan, np.nan
    whole, sure = mend(joints, visibility, seconds, BOUNDS)
    share = (seconds[20:40] - seconds[19])[:, None, None] / (seconds[40] - seconds[19])
    line = joints[19] * (1 - share) + joints[40] * share
    assert np.allclose(whole[20:40], line, atol=1e-6) and (sure[20:40] <= mending.HIDDEN).all()
    assert np.isnan(whole[70:110]).all()
    kept = np.r_[0:20, 40:70, 110:150]
    assert np.array_equal(whole[kept], track[0][kept])


def test_a_short_appearance_is_dropped_unless_it_is_the_whole_clip(track):
    joints, visibility, seconds = (values[:60].copy() for values in track)
    joints[5:] = np.nan
    assert np.isnan(mend(joints, visibility, seconds, BOUNDS)[0]).all()
    few = [values[:5].copy() for values in track]
    few[0][0] = np.nan
    assert np.isnan(mend(*few, BOUNDS)[0][:, 0, 0]).tolist() == [True] + [False] * 4  # all there is of the clip
    few = [values[:5] for values in track]
    assert np.array_equal(mend(*few, BOUNDS)[0], few[0])
    assert np.isnan(mend(*few, BOUNDS, keep_short=False)[0]).all()


@pytest.mark.parametrize("side", [0, 1])
def test_flips_of_arms_or_legs_are_undone_and_a_real_turn_is_not(track, side):
    left, right = SIDES[side]
    joints, visibility, seconds = (values.copy() for values in track)
    visibility[:, left] = 0.9  # the swap must carry these along
    clean = visibility.copy()
    for frames in (slice(30, 31), slice(60, 75)):
        joints[frames, left + right] = joints[frames, right + left]
        visibility[frames, left + right] = visibility[frames, right + left]
    whole, sure = mend(joints, visibility, seconds, BOUNDS)
    assert np.array_equal(whole, track[0]) and np.array_equal(sure, clean)
    turned, once = track[0].copy(), track[0].copy()
    once[100:, left + right] = once[100:, right + left]  # a turn, and soon after it a flip
    both = once.copy()
    both[115, left + right] = both[115, right + left]
    assert np.array_equal(mend(both, track[1], seconds, BOUNDS)[0], once)
    turned[60:, left + right] = turned[60:, right + left]  # changes sides and stays so
    assert np.array_equal(mend(turned, track[1], seconds, BOUNDS)[0], turned)


def test_a_hidden_wrist_is_carried_on_the_arm(track):
    joints, visibility, seconds = (values.copy() for values in track)
    hand = [15, 17, 19, 21]
    guess = joints.copy()
    guess[50:60, hand] += 0.3  # what the detector says while it sees nothing
    visibility[50:60, 15] = 0.2
    whole, sure = mend(guess, visibility, seconds, BOUNDS)
    bones = joints[[49, 60]][:, hand] - joints[[49, 60], 13][:, None]
    share = ((seconds[50:60] - seconds[49]) / (seconds[60] - seconds[49]))[:, None, None]
    expected = joints[50:60, 13][:, None] + bones[0] * (1 - share) + bones[1] * share
    assert np.allclose(whole[50:60][:, hand], expected, atol=1e-5)
    assert np.linalg.norm(whole[50:60, 15] - joints[50:60, 15], axis=1).max() < 0.05
    others = np.setdiff1d(np.arange(33), hand)
    assert np.array_equal(whole[:, others], joints[:, others]) and (sure[50:60, 15] == mending.HIDDEN).all()
    visibility[50:100, 15] = 0.2  # too long to say anything better than the detector
    assert np.array_equal(mend(guess, visibility, seconds, BOUNDS)[0], guess)


def test_smoothing_keeps_parabolas_and_removes_jitter_without_lag(track):
    joints, visibility, seconds = track
    curve = (0.3 + 0.1 * seconds - 0.01 * seconds ** 2)[:, None, None] * np.ones((1, 33, 3)) + joints[:1]
    assert np.abs(smooth(curve.astype(np.float32), visibility, seconds) - curve).max() < 1e-4
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.004, joints.shape)
    noisy = smooth((joints + noise).astype(np.float32), visibility, seconds)

    def jitter(values):
        return np.linalg.norm(np.diff(values, 2, axis=0), axis=2).mean()

    assert jitter(noisy) < 0.3 * jitter(joints + noise)
    assert np.abs(noisy - joints).mean() < 0.6 * np.abs(noise).mean()
    lags = [np.abs(np.roll(noisy, lag, 0)[20:-20] - joints[20:-20]).mean() for lag in (-1, 0, 1)]
    assert np.argmin(lags) == 1


def test_fast_moves_keep_their_height():
    """A wrist that swings at three body's height a second keeps 95 % of its way; one wide fit keeps less."""
    seconds = np.arange(120) / FPS
    joints = np.zeros((120, 33, 3), np.float32) + 0.5
    joints[:, :11, 1], joints[:, [23, 24], 1], joints[:, [27, 28], 1] = 0.3, 0.5, 0.7
    joints[:, 15, 0] += (0.1 * np.sin(2 * np.pi * 2 * seconds)).astype(np.float32)
    swing = smooth(joints, np.ones((120, 33)), seconds)[30:-30, 15, 0] - 0.5
    assert np.ptp(swing) > 0.95 * 0.2


def test_frame_rates_smooth_alike():
    """The fit reaches so far in seconds, not in frames."""
    wide = []
    for fps in (30, 60):
        seconds = np.arange(4 * fps) / fps
        joints = np.zeros((len(seconds), 33, 3), np.float32) + 0.5
        joints[:, :11, 1], joints[:, [27, 28], 1] = 0.2, 0.8
        joints[:, 15, 0] += 0.02 * np.sin(2 * np.pi * 3 * seconds)
        wide.append(np.ptp(smooth(joints, np.ones((len(seconds), 33)), seconds)[fps:-fps, 15, 0]))
    assert wide[0] == pytest.approx(wide[1], rel=0.15) and wide[0] < 0.04


def as_track(joints, visibility, seconds, cuts=()):
    return Track(joints, visibility, seconds, np.array([0, *cuts]), (100, 100), float(FPS), ~np.isnan(joints[:, 0, 0]))


def test_a_long_track_is_smoothed_in_blocks_as_if_in_one_go(track, monkeypatch):
    joints, visibility, seconds = (np.concatenate([values] * 4) for values in track)
    seconds = np.arange(len(joints)) / FPS
    seconds[300:] += 0.013 * np.arange(300)  # an uneven rate
    joints = joints + np.random.default_rng(0).normal(0, 0.003, joints.shape).astype(np.float32)
    joints[100:115], joints[200:260] = np.nan, np.nan
    visibility[300:310, 15] = 0.1
    expected = smooth(joints, visibility, seconds)
    for block in (1, 7, 100):
        monkeypatch.setattr(mending, "BLOCK", block)
        assert np.allclose(smooth(joints, visibility, seconds), expected, atol=1e-6, equal_nan=True)


def test_nothing_is_carried_across_a_cut(track):
    joints, visibility, seconds = (values.copy() for values in track)
    joints[75:] += np.float32([0.2, 0.1, 0])
    joints[70:75] = np.nan
    both = steady(as_track(joints, visibility, seconds, cuts=[75]))
    assert (~both.present[68:77]).tolist() == [False] * 2 + [True] * 5 + [False] * 2
    alone = smooth(joints[75:], visibility[75:], seconds[75:])
    assert np.abs(both.joints[75] - alone[0]).max() < 1e-5
    short = steady(as_track(joints, visibility, seconds, cuts=[30, 34]))  # a shot of four frames
    assert (~short.present[29:35]).tolist() == [False] + [True] * 4 + [False]
    assert np.array_equal(both.found, ~np.isnan(joints[:, 0, 0]))  # what was found stays known


def test_what_is_nearby_is_nearby_in_seconds():
    """Frames of a recording that stalls: the neighbours of a frame are those within SWING, however many there are."""
    rng = np.random.default_rng(0)
    seconds, values = np.cumsum(rng.choice([0.01, 0.04, 0.3], 200)), rng.random((200, 2))
    for number, highest in enumerate(mending._highest_nearby(values, seconds)):
        near = np.abs(seconds - seconds[number]) <= mending.SWING + 1e-6
        assert np.array_equal(highest, values[near].max(0))
