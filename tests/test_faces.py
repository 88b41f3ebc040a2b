"""Which way heads are turned and whether faces keep their shape, against known turns and shapes."""

import numpy as np
import pytest

from measuring.faces import DrivenFaces, Face, shape_error, turn_error
from motion.extraction import load_track
from motion.retargeting import place

rng = np.random.default_rng(3)
POINTS = rng.uniform(0, 100, (478, 2))


def face(yaw=0.0, points=POINTS):
    return Face(np.array([yaw, 0.0, 0.0]), points)


def test_only_frames_with_both_faces_tell_how_far_heads_are_turned_apart():
    made, real = [face(3), None, face(10), face(0)], [face(0), face(50), face(4), None]
    assert turn_error(made, real) == pytest.approx((3 + 6) / 2 / 3)  # of two frames, over three axes
    assert np.isnan(turn_error([None], [face()]))


def test_a_face_keeps_its_shape_when_it_is_moved_turned_in_the_picture_and_scaled():
    turn = np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
    assert shape_error([face(points=POINTS @ turn * 1.7 + (30, -8))], [None, face()]) == pytest.approx(0, abs=1e-9)
    wide = face(points=POINTS * (1.2, 1))
    assert shape_error([wide], [face()]) > 0.01
    assert np.isnan(shape_error([wide], [face(9)]))  # the person's own head is never turned like this
    assert shape_error([wide], [face(7), wide]) == pytest.approx(0, abs=1e-9)  # the one that is turned most alike


def test_who_dances_like_herself_has_the_heads_that_she_follows(target, frames, clip):
    track = load_track(clip)
    driven, placed = DrivenFaces(frames, track, target), place(track, target)
    images = [target.image(index) for index in range(len(target))]
    own = driven.judge(images, placed)
    assert own["both found"] > 0.9 and own["head turn"] < 1.5 and own["known head turn"] < 1.5
    assert own["face shape"] < 0.03
    frozen = driven.judge([images[0]] * len(images), placed)
    assert frozen["head turn"] > 2 * own["head turn"]


def test_a_head_that_the_target_never_shows_counts_only_in_the_head_turn_of_all(target, frames, clip, monkeypatch):
    track = load_track(clip)
    driven, placed = DrivenFaces(frames, track, target), place(track, target)
    known = driven.judge([target.image(index) for index in range(len(target))], placed)["known head turn"]
    assert known >= 0
    monkeypatch.setattr(driven, "_own", [face(170)])
    told = driven.judge([target.image(index) for index in range(len(target))], placed)
    assert told["head turn"] >= 0 and np.isnan(told["known head turn"]) and np.isnan(told["face shape"])


def test_frames_that_are_missing_at_the_end_of_a_video_have_no_face(target, frames, clip):
    track = load_track(clip)
    told = DrivenFaces(frames[:3], track, target).judge([target.image(0)] * len(track), place(track, target))
    assert told["both found"] == pytest.approx(3 / len(track))
