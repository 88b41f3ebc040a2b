"""The registration of frames: errors that are put into the joints are found, and what is found is stored."""

import copy

import numpy as np
import pytest

import GenWarp
from common.command_line import UserError
from learning.checkpoint import SCHEMA, save_checkpoint
from motion.body import body_lengths
from picture.parts import CHAINS
from warping import registration
from warping.limb_warp import LimbWarp
from warping.registration import (
    APART,
    BETWEEN,
    GROUPS,
    PARTNERS,
    agree,
    agreement,
    find_errors,
    partners,
    registered,
)
from warping.retrieval import shapes


@pytest.fixture(scope="module")
def found(target):
    """What is found in the clip as it is."""
    return find_errors(target)


def test_errors_agree_with_their_differences_and_outliers_hardly_count():
    rng = np.random.default_rng(0)
    errors, pairs = rng.normal(0, 0.004, (40, 2)), rng.integers(0, 40, (400, 2))
    moves = errors[pairs[:, 1]] - errors[pairs[:, 0]]
    moves[:30] += rng.normal(0, 0.08, (30, 2))
    made = agree(pairs, moves, np.full(400, 1.0), 40)
    # What all have in common can't be seen, so the errors are compared with the mean taken out.
    left = made - made.mean(0) - errors + errors.mean(0)
    assert np.sqrt((left ** 2).mean()) < 0.12 * np.sqrt((errors ** 2).mean())
    assert not agree(pairs[:0], moves[:0], np.zeros(0), 40).any()


def test_where_the_differences_do_not_agree_nothing_is_corrected(target, monkeypatch):
    rng = np.random.default_rng(2)
    errors, pairs = rng.normal(0, 0.004, (40, 2)), rng.integers(0, 40, (300, 2))
    noise, weights = rng.normal(0, 0.004, (300, 2)), np.full(300, 1.0)
    moves = errors[pairs[:, 1]] - errors[pairs[:, 0]]
    assert agreement(pairs, moves, weights, 40) > 0.9 and agreement(pairs, noise, weights, 40) < 0.1
    assert 0.4 < agreement(pairs, moves + noise, weights, 40) < 0.8
    monkeypatch.setattr(registration, "_compare", lambda *_: (rng.normal(0, 0.004, (len(GROUPS), 2)),
                                                              np.full(len(GROUPS), 1.0)))
    assert not find_errors(target).any()


def test_partners_are_the_most_alike_frames_that_are_far_enough_in_time(target):
    count, seconds = len(target), target.seconds
    pairs = partners(target.joints, seconds, np.arange(count))
    known = np.concatenate([shapes(target.joints, chain, body_lengths(target.joints)) for chain in CHAINS], 1)
    for goal in range(count):
        mine = [start for start, other in pairs if other == goal]
        expected = []
        for start in np.linalg.norm(known - known[goal], axis=1).argsort():
            if abs(seconds[start] - seconds[goal]) >= APART and \
                    all(abs(seconds[start] - seconds[other]) >= BETWEEN for other in expected):
                expected.append(start)
        assert mine == expected[:PARTNERS] and len(mine) == PARTNERS
    assert not len(partners(target.joints[:3], seconds[:3], np.arange(3)))  # all of them are too near in time


def test_errors_that_are_put_into_the_joints_are_found(target, found):
    """Every joint of every other frame is put aside by 1.2 % of the picture, in a direction of its own."""
    rng, wrong = np.random.default_rng(1), copy.copy(target)
    angles = rng.uniform(0, 2 * np.pi, (len(target), len(GROUPS)))
    put = 0.012 * np.stack([np.cos(angles), np.sin(angles)], 2) * (np.arange(len(target)) % 2 == 0)[:, None, None]
    wrong.joints = target.joints.copy()
    for number, group in enumerate(GROUPS):
        wrong.joints[:, group, :2] += put[:, None, number]
    more = find_errors(wrong) - found
    assert more.shape == (len(target), len(GROUPS), 2) and more.dtype == np.float32
    large = [number for number, group in enumerate(GROUPS) if group[0] not in (13, 14, 15, 16)]  # not the thin arms
    left = np.sqrt(((more - put)[:, large] ** 2).mean() / (put[:, large] ** 2).mean())
    assert left < 0.75 and np.corrcoef(more[:, large].ravel(), put[:, large].ravel())[0, 1] > 0.7


def test_what_is_found_is_stored_and_a_damaged_file_is_made_anew(target, found, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(registration, "find_errors", lambda part: calls.append(len(part)) or found[:len(part)])
    count = len(target) - 4
    path = target.folder / f"registration-{count}.npy"
    path.unlink(missing_ok=True)
    made = registered(target, count)
    assert calls == [count] and path.exists()
    moved = target.joints - made.joints
    assert np.allclose(moved[:count, 27, :2], found[:count, 11], atol=1e-6) and not moved[count:].any()
    assert not moved[:, :, 2].any() and np.array_equal(made.visibility, target.visibility)
    assert np.array_equal(registered(target, count).joints, made.joints) and calls == [count]
    for content in (b"", path.read_bytes()[:200], b"no array at all"):
        path.write_bytes(content)
        assert np.array_equal(registered(target, count).joints, made.joints)
        assert "is damaged; it is made anew" in capsys.readouterr().err or content != b""
    assert calls == [count] * 4
    path.unlink()


@pytest.mark.parametrize("count", [0, 36])
def test_the_trained_generator_draws_from_the_frames_that_its_training_has_registered(target, tmp_path, monkeypatch,
                                                                                      found, count):
    monkeypatch.setattr(registration, "find_errors", lambda part: found[:len(part)])
    path, network = tmp_path / "w.pth", GenWarp.Refiner()  # a new network changes nothing
    save_checkpoint({"schema": SCHEMA, "generator": "GenWarp", "target": target.identity, "frames": count,
                     "config": {"pose": "image", "image_size": 64}, "model": network.state_dict(),
                     "held_out": {"unlikeness": 0.5, "untrained": 1.0}}, path)
    skeleton = target.skeleton(9)
    image, plain, expected = (generator.generate(skeleton) for generator in (
        GenWarp.GenWarp(target, path), LimbWarp(target), LimbWarp(registered(target, count))))
    assert np.array_equal(image, expected) and np.array_equal(image, plain) != bool(count)


def test_the_training_draws_from_registered_frames_but_asks_for_the_pose_as_it_was_found(target, monkeypatch, found):
    monkeypatch.setattr(registration, "find_errors", lambda part: found[:len(part)])
    dataset = GenWarp.WarpDataset(target, "image", 64)
    count, asked = len(dataset.split()[0]), []
    known = registered(target.first(count), count)
    assert np.array_equal(dataset._warp._joints[:count], known.joints) and (known.joints != target.joints[:count]).any()
    draw = dataset._warp.draw
    dataset._warp.draw = lambda joints, frames: asked.append(joints) or draw(joints, frames)
    dataset[len(target) - 1]
    assert np.array_equal(asked[0], target.joints[-1])


@pytest.mark.parametrize("number", [-1, "many"])
def test_a_number_of_frames_that_no_training_can_have_is_refused(target, tmp_path, number):
    path = tmp_path / "w.pth"
    save_checkpoint({"schema": SCHEMA, "generator": "GenWarp", "target": target.identity, "frames": number,
                     "config": {"pose": "image", "image_size": 64}, "model": GenWarp.Refiner().state_dict(),
                     "held_out": {"unlikeness": 0.5, "untrained": 1.0}}, path)
    with pytest.raises(UserError, match="don't fit"):
        GenWarp.GenWarp(target, path)
