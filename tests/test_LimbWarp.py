"""Limb-wise warping: the maps by known geometry, the retrieval by what it must prefer, the picture against frames."""

import copy
import itertools

import numpy as np
import pytest

import LimbWarp
from LimbWarp import CHAINS, PARTS, Path, bone_map, shapes, similarity
from Skeleton import Skeleton


def test_similarity_and_bone_map_lay_points_where_they_belong():
    rng = np.random.default_rng(0)
    for _ in range(50):
        start, angle, scale, shift = rng.normal(size=(5, 2)), rng.uniform(0, 6), rng.uniform(0.5, 2), rng.normal(size=2)
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        assert np.allclose(similarity(start, start @ turn.T + shift, scale), np.column_stack([turn, shift]))
        held = similarity(start, start @ turn.T + shift)  # without a change of size, no more than SCALE
        assert np.sqrt(np.linalg.det(held[:, :2])) == pytest.approx(np.clip(scale, *LimbWarp.SCALE))
        a, b = rng.normal(size=(2, 2)) * 50
        c = rng.normal(size=2) * 50
        d = c + turn @ (b - a) / scale * rng.uniform(0.7, 1.4)  # as long as it may become
        matrix = bone_map(a, b, c, d)
        assert np.allclose(matrix @ [*a, 1], c) and np.allclose(matrix @ [*b, 1], d)
    matrix = bone_map(np.zeros(2), np.array([10.0, 0]), np.zeros(2), np.array([0, 100.0]))
    assert np.allclose(matrix @ [10, 0, 0], [0, 15]) and np.allclose(matrix @ [0, 10, 0], [-11, 0])  # and no longer


def test_shapes_do_not_depend_on_place(target):
    moved = target.joints + np.float32([0.2, -0.1, 0])
    for chain in CHAINS:
        assert np.allclose(shapes(moved, chain, 0.5), shapes(target.joints, chain, 0.5), atol=1e-5)
    assert sorted(part for parts in CHAINS.values() for part in parts) == sorted(PARTS)


def test_a_zoom_of_the_camera_is_undone(target):
    """Frames filmed from twice as far: the same shapes, and parts drawn twice as large."""
    far = copy.copy(target)
    far.joints = target.joints * np.float32(0.5)
    near, half = LimbWarp.LimbWarp(target), LimbWarp.LimbWarp(far)
    for chain in CHAINS:
        assert np.allclose(near._known[chain], half._known[chain], atol=1e-5)
    half._height = near._height  # a zoom in one shot: the skeletons asked for are as large as in the others
    for part in PARTS:
        one, two = (w._map(part, 5, target.joints[9])[:, :2] for w in (near, half))
        assert np.allclose(two, 2 * one, atol=1e-4), part


def test_the_path_is_the_cheapest_of_all_sequences():
    """Viterbi with everything ahead against brute force over every sequence of frames."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        known, wanted = rng.normal(size=(5, 3)) * 0.05, rng.normal(size=(4, 3)) * 0.05

        def cost(frames, known=known, wanted=wanted):
            errors, frames = known[list(frames)] - wanted, np.array(frames)
            switched = (frames[1:] != frames[:-1]) & (frames[1:] != frames[:-1] + 1)
            return ((errors ** 2).sum() + LimbWarp.CONTINUITY * (np.diff(errors, axis=0) ** 2).sum()
                    + LimbWarp.SWITCH * switched.sum())

        path = Path(known)
        for shape in wanted:
            path.see(shape)
        found = [path.choose() for _ in wanted]
        best = min(itertools.product(range(5), repeat=4), key=cost)
        assert cost(found) == pytest.approx(cost(best), rel=1e-9)


def test_without_a_look_ahead_a_path_goes_on_from_what_it_chose():
    known = np.array([[0.0], [1.0], [5.0]])
    path, shown = Path(known), []
    for wanted in ([0.0], [0.4], [0.6], [5.0]):
        path.see(np.array(wanted))
        shown.append(path.choose())
    assert shown[0] == 0 and shown[-1] == 2
    path.reset()
    path.see(np.array([0.9]))
    assert path.choose() == 1


def test_a_pose_of_the_target_gives_its_frame_back(target):
    """Asked for what a frame shows, the legs and the trunk come from it or from one of its like."""
    generator = LimbWarp.LimbWarp(target)
    plate = generator.plate.astype(int)
    for index in (0, 17, 39):
        generator.reset()
        image, mask = generator.paint(target.skeleton(index))
        real, person = target.image(index).astype(int), target.mask(index) > 128
        assert np.abs(image - real)[person].mean() < 0.4 * np.abs(plate - real)[person].mean()
        found = mask > 128
        assert (found & person).sum() / (found | person).sum() > 0.8
        assert np.array_equal(image[~found], generator.plate[~found])  # beside the person: the background itself


def test_a_limb_goes_where_it_is_asked_to_alone(target):
    """Raise one forearm of a known frame: pixels change there, and hardly elsewhere."""
    generator = LimbWarp.LimbWarp(target)
    joints = target.joints[0].copy()
    before = generator.generate(Skeleton(joints, np.ones(33))).astype(int)
    length = np.linalg.norm(joints[15, :2] - joints[13, :2])
    move = joints[13] + np.float32([0.7, -0.7, 0]) * length - joints[15]
    joints[[15, 17, 19, 21]] += move
    generator.reset()
    after = generator.generate(Skeleton(joints, np.ones(33))).astype(int)
    changed = np.abs(after - before).max(2) > 30
    x, y = (joints[15, :2] * target.size).astype(int)
    reach = round(0.1 * target.size)
    assert changed[y - reach:y + reach, x - reach:x + reach].mean() > 0.05
    legs = round(joints[[23, 24], 1].mean() * target.size) + reach
    assert changed[legs:].mean() < 0.005


def test_it_goes_on_from_what_it_showed_and_forgets_at_a_cut(target):
    generator, fresh = LimbWarp.LimbWarp(target), LimbWarp.LimbWarp(target)
    first = generator.generate(target.skeleton(5))
    for index in (30, 31, 32):
        generator.generate(target.skeleton(index))
    generator.reset()
    assert np.array_equal(generator.generate(target.skeleton(5)), first)
    assert np.array_equal(fresh.generate(target.skeleton(5)), first)


@pytest.mark.parametrize("scale, shift", [(0.01, (0.5, 0.5)), (1.0, (3.0, 0.0)), (8.0, (-3.0, -3.0))])
def test_wild_skeletons_do_no_harm(target, scale, shift):
    image = LimbWarp.LimbWarp(target).generate(target.skeleton(3).moved(scale, shift))
    assert image.shape == (target.size, target.size, 3) and image.dtype == np.uint8
