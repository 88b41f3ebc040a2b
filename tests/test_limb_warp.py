"""Limb-wise warping: the maps by known geometry, the retrieval by what it must prefer, the picture against frames."""

import copy
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import moved, track_of

from motion import body
from motion.body import bone_maps, mirrored, similarity
from picture.canvas import Patch
from picture.parts import CHAINS, NUMBER, PARTS, PARTS_OF, distances
from picture.scene import Scene
from Skeleton import Skeleton
from warping import limb_warp, retrieval
from warping.limb_warp import LimbWarp
from warping.retrieval import UNDER, BodyChooser, FrameChooser, shapes
from warping.shadow import ShadowFinder


@pytest.fixture
def no_shadow(monkeypatch):
    """The body alone; its shadow, which has tests of its own, does not turn with it."""
    monkeypatch.setattr(ShadowFinder, "shadow", lambda finder: None)



def test_similarity_and_bone_maps_lay_points_where_they_belong():
    rng = np.random.default_rng(0)
    for _ in range(50):
        start, angle, scale, shift = rng.normal(size=(5, 2)), rng.uniform(0, 6), rng.uniform(0.5, 2), rng.normal(size=2)
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        assert np.allclose(similarity(start, start @ turn.T + shift, scale), np.column_stack([turn, shift]))
        held = similarity(start, start @ turn.T + shift)  # without a change of size, no more than SCALE
        assert np.sqrt(np.linalg.det(held[:, :2])) == pytest.approx(np.clip(scale, *body.SCALE))
        a, b = rng.normal(size=(2, 2)) * 50
        c = rng.normal(size=2) * 50
        d = c + turn @ (b - a) / scale * rng.uniform(0.7, 1.4)  # as long as it may become
        matrix, other = bone_maps(np.array([[a, b], [b, a]]), np.array([[c, d], [d, c]]))
        assert np.allclose(matrix @ [*a, 1], c) and np.allclose(matrix @ [*b, 1], d) and np.allclose(matrix, other)
    matrix = bone_maps(np.array([[[0, 0], [10.0, 0]]]), np.array([[[0, 0], [0, 100.0]]]))[0]
    assert np.allclose(matrix @ [10, 0, 0], [0, 15]) and np.allclose(matrix @ [0, 10, 0], [-11, 0])  # and no longer


def test_shapes_do_not_depend_on_place(target):
    away = target.joints + np.float32([0.2, -0.1, 0])
    for chain in CHAINS:
        assert np.allclose(shapes(away, chain, 0.5), shapes(target.joints, chain, 0.5), atol=1e-5)
    assert sorted(part for chain in CHAINS for part in PARTS_OF[chain]) == sorted(PARTS)


def test_a_zoom_of_the_camera_is_undone(target):
    """Frames filmed from twice as far: the same shapes, and parts drawn twice as large."""
    far = copy.copy(target)
    far.joints = target.joints * np.float32(0.5)
    near, half = LimbWarp(target), LimbWarp(far)
    for chain in CHAINS:
        one, two = (warp._chooser._choosers[chain].known for warp in (near, half))
        shape = slice(0, -3)  # the roots of overlap and blur, behind it, are less exact near zero
        assert np.allclose(one[:, shape], two[:, shape], atol=1e-5) and np.allclose(one ** 2, two ** 2, atol=1e-5)
    half.height = near.height  # a zoom in one shot: the skeletons asked for are as large as in the others
    one, two = (warp._maps([5], target.joints[9])[0, :, :, :2] for warp in (near, half))
    assert np.allclose(two, 2 * one, atol=1e-4)


def test_a_few_frames_from_near_do_not_make_the_parts_of_the_others_wider(target, monkeypatch):
    monkeypatch.setattr(limb_warp, "NEARBY", 0.2)  # the clip is short
    zoomed = copy.copy(target)
    zoomed.joints = target.joints.copy()
    zoomed.joints[-len(target) // 4:] *= np.float32(1.5)
    # Most frames are as large as what is asked for: a frame carried to its own pose stays as it is.
    assert np.allclose(LimbWarp(zoomed)._maps([5], zoomed.joints[5])[0, :, :, :2], np.eye(2), atol=0.03)


@pytest.mark.parametrize("size", [None, 200])
def test_the_part_that_is_drawn_is_what_the_whole_picture_shows_there(target, size):
    generator, scene = LimbWarp(target, size), Scene(target)
    for index in (3, 17):
        pose = target.skeleton(index)
        picture = generator.generate(pose)
        part = generator.patch(pose)
        assert part.size == len(picture) and np.array_equal(picture[part.place], part.image)
        assert part.image.size < 0.6 * picture.size and (part.mask is None) == (size is None)
        expected, frame = scene.put(Patch(picture, generator.mask, len(picture))), scene.put(part)
        assert np.abs(expected.astype(int) - frame).max() <= 1


@pytest.mark.usefixtures("no_shadow")
def test_a_mirrored_frame_is_drawn_as_a_mirror_shows_it(target, monkeypatch):
    monkeypatch.setattr(retrieval, "MIRROR", dict.fromkeys(CHAINS, 0.0))
    monkeypatch.setattr(retrieval, "BLUR", dict.fromkeys(CHAINS, 0.0))
    generator, count = LimbWarp(target), len(target)
    for index in (3, 17):
        joints = target.joints[index]
        there = mirrored(joints)
        assert np.allclose(mirrored(there), joints) and np.allclose(there[11, 0], 1 - joints[12, 0])
        generator.prepare(track_of([Skeleton(there, np.ones(33))]))
        # Nothing fits as well as that frame in the mirror.
        assert generator.frames_for(Skeleton(there, np.ones(33)))["torso"] == count + index
        picture, _, mask = generator.draw(joints, dict.fromkeys(CHAINS, index))
        other, _, other_mask = generator.draw(there, dict.fromkeys(CHAINS, count + index))
        both, either = ((mask > 0) & (other_mask[:, ::-1] > 0), (mask > 0) | (other_mask[:, ::-1] > 0))
        assert both.sum() / either.sum() > 0.97
        assert np.abs(picture.astype(int) - other[:, ::-1])[both].mean() < 3


def test_an_arm_that_comes_from_another_frame_is_not_seen_in_this_one_too(target, monkeypatch):
    """In one frame the left forearm, which lies before the body, is painted. Where another frame gives the arm,
    hardly any paint is left, and there is no hole either."""
    magenta, joints, generator = np.array([255, 0, 255]), target.joints[7].copy(), LimbWarp(target)
    joints[[13, 15, 19]] = [joints[11] + [0, 0.08, 0], joints[23] + [-0.01, -0.03, 0], joints[23] + [-0.03, -0.02, 0]]
    generator._joints[7] = joints
    person = generator._person

    def painted(index):
        image, matte, corner = person(index)
        if index == 7:
            x, y = np.meshgrid(np.arange(image.shape[1]) + corner[0], np.arange(image.shape[0]) + corner[1])
            places = np.stack([x + 0.5, y + 0.5], -1) / target.size
            away = distances(places, joints, generator._heights[7])[NUMBER["left forearm"]]
            image = np.where((away < 0.9)[..., None], magenta, image).astype(np.uint8)
        return image, matte, corner

    def share(picture, mask):
        return (np.abs(picture.astype(int) - magenta).max(2) < 40)[mask > 0].mean()

    monkeypatch.setattr(generator, "_person", painted)
    whole, _, covered = generator.draw(joints, dict.fromkeys(CHAINS, 7))
    asked = joints.copy()
    asked[[13, 15, 19]] = target.joints[20, [13, 15, 19]] + joints[11] - target.joints[20, 11]
    frames = dict.fromkeys(CHAINS, 7) | {"left arm": 20, UNDER: 9}
    picture, _, mask = generator.draw(asked, frames)
    assert share(whole, covered) > 0.05 and share(picture, mask) < share(whole, covered) / 10
    torso = [*joints[[11, 12, 24, 23], :2].mean(0) * target.size]
    rows, columns = (slice(int(middle) - 12, int(middle) + 12) for middle in torso[::-1])
    assert (mask[rows, columns] > 0).all()


def test_frames_in_which_the_detector_was_unsure_are_avoided(target, monkeypatch):
    monkeypatch.setattr(retrieval, "MIRROR", dict.fromkeys(CHAINS, 1.0))
    unsure = copy.copy(target)
    unsure.visibility = target.visibility.copy()
    unsure.visibility[12, [14, 16]] = 0.1
    pose = target.skeleton(12)
    for known, same in ((target, True), (unsure, False)):
        frames = LimbWarp(known).frames_for(pose)
        assert ((frames["torso"] == 12) == same) and ((frames["right arm"] == 12) == same)


def sequence_cost(known, wanted, frames):
    """The cost of a sequence of frames for one chain."""
    errors, frames = known[list(frames)] - wanted, np.array(frames)
    switched = (frames[1:] != frames[:-1]) & (frames[1:] != frames[:-1] + 1)
    return ((errors ** 2).sum() + retrieval.CONTINUITY * (np.diff(errors, axis=0) ** 2).sum()
            + retrieval.SWITCH * switched.sum())


def test_the_plan_is_the_cheapest_of_all_sequences(monkeypatch):
    """The planned frames of a shot against brute force over every sequence of frames: first those of the torso, then
    those of each other chain beside it."""
    rng = np.random.default_rng(0)
    for price in (0.0, 0.001, 0.004):
        monkeypatch.setattr(retrieval, "PRICE", {chain: price * (1 + ("leg" in chain)) for chain in CHAINS[1:]})
        for _ in range(5):
            known = {chain: rng.normal(size=(5, 3)) * 0.05 for chain in (*CHAINS, UNDER)}
            wanted = {chain: rng.normal(size=(4, 3)) * 0.05 for chain in (*CHAINS, UNDER)}
            errors = {chain: ((known[chain][:, None] - wanted[chain]) ** 2).sum(2) for chain in CHAINS}  # (frame, pose)

            def torso(frames, known=known, wanted=wanted, errors=errors):
                others = sum(min(errors[chain][frame, pose], retrieval.PRICE[chain] + errors[chain][:, pose].min())
                             for pose, frame in enumerate(frames) for chain in CHAINS[1:])
                return sequence_cost(known["torso"], wanted["torso"], frames) + others

            found = BodyChooser(known).plan(wanted)
            sequences = list(itertools.product(range(5), repeat=4))
            assert torso(found["torso"]) == pytest.approx(min(map(torso, sequences)), rel=1e-9)
            for chain in CHAINS[1:]:

                def limb(frames, chain=chain, known=known, wanted=wanted, found=found):
                    return (sequence_cost(known[chain], wanted[chain], frames)
                            + retrieval.PRICE[chain] * (np.array(frames) != found["torso"]).sum())

                assert limb(found[chain]) == pytest.approx(min(map(limb, sequences)), rel=1e-9)
            costs = {frames: sequence_cost(known[UNDER], wanted[UNDER], frames) for frames in sequences}
            assert costs[tuple(found[UNDER])] == pytest.approx(min(costs.values()), rel=1e-9)


@pytest.mark.parametrize("name, most", [("sharpness", lambda chain: retrieval.BLUR[chain]),
                                        ("opacity", lambda chain: retrieval.GHOST[chain])])
def test_cloth_is_as_clear_as_frames_that_show_it_alike_and_faces_as_clear_as_any(name, most):
    """Of 200 frames, the second half has another shape and half the sharpness, or half the opacity. Only in a head may
    that cost anything. A limb that is half as clear as in frames that show it alike costs the same."""
    clear = np.ones((200, len(CHAINS)))
    target = SimpleNamespace(**{"sharpness": clear, "opacity": clear, name: np.repeat([[1.0], [0.5]], 100, 0) * clear})
    other, same = (np.tile(np.repeat([[0.0], [shape]], 100, 0), (2, 1)) for shape in (9.0, 0.0))
    same += np.random.default_rng(0).random(same.shape)  # so that each frame has both kinds beside it
    for chain in CHAINS:
        costs = retrieval._unclear(target, chain, other).reshape(2, 2, 100)
        assert (costs[:, 0] == 0).all()
        assert np.allclose(costs[:, 1], np.sqrt(most(chain)) / 2 if chain == "head" else 0)
        costs = retrieval._unclear(target, chain, same).reshape(2, 2, 100)
        assert (costs[:, 0] == 0).all() and np.allclose(costs[:, 1], np.sqrt(most(chain)) / 2)


def test_a_high_price_takes_the_whole_body_from_one_frame(target, monkeypatch):
    poses = [target.skeleton(index) for index in (5, 9, 30)]
    for price, kinds in ((1e6, 1), (0.0, 2)):
        monkeypatch.setattr(retrieval, "PRICE", dict.fromkeys(CHAINS[1:], price))
        known = LimbWarp(target.first(24))  # what is asked for was not all seen
        known.prepare(track_of(poses))
        most = max(len({known.frames_for(pose)[chain] for chain in CHAINS}) for pose in poses)
        assert most == 1 if kinds == 1 else most >= kinds


def test_without_a_plan_a_chooser_goes_on_from_what_it_chose():
    chooser = FrameChooser(np.array([[0.0], [1.0], [5.0]]))

    def choose(wanted):
        return chooser.choose(np.array([wanted]), np.arange(3), lambda frames: np.zeros(len(frames)))

    chosen = [choose(wanted) for wanted in (0.0, 0.4, 0.6, 5.0)]
    assert chosen[0] == 0 and chosen[-1] == 2
    chooser.forget()
    assert choose(0.9) == 1


@pytest.mark.usefixtures("no_shadow")
def test_a_pose_of_the_target_gives_its_frame_back(target):
    """Asked for what a frame shows, the legs and the trunk come from it or from one of its like."""
    generator = LimbWarp(target)
    plate = generator.plate.astype(int)
    for index in (0, 17, 39):
        generator.prepare(track_of([target.skeleton(index)]))
        image = generator.generate(target.skeleton(index))
        mask = generator.mask
        real, person = target.image(index).astype(int), target.mask(index) > 128
        assert np.abs(image - real)[person].mean() < 0.4 * np.abs(plate - real)[person].mean()
        found = mask > 128
        assert (found & person).sum() / (found | person).sum() > 0.8
        assert np.array_equal(image[mask == 0], generator.plate[mask == 0])  # beside the person: the background itself


def test_a_limb_goes_where_it_is_asked_to_alone(target):
    """Raise one forearm of a known frame: pixels change there, and hardly elsewhere."""
    generator = LimbWarp(target)
    joints = target.joints[0].copy()
    before = generator.generate(Skeleton(joints, np.ones(33))).astype(int)
    length = np.linalg.norm(joints[15, :2] - joints[13, :2])
    move = joints[13] + np.float32([0.7, -0.7, 0]) * length - joints[15]
    joints[[15, 17, 19, 21]] += move
    generator = LimbWarp(target)
    after = generator.generate(Skeleton(joints, np.ones(33))).astype(int)
    changed = np.abs(after - before).max(2) > 30
    x, y = (joints[15, :2] * target.size).astype(int)
    reach = round(0.1 * target.size)
    assert changed[y - reach:y + reach, x - reach:x + reach].mean() > 0.05
    legs = round(joints[[23, 24], 1].mean() * target.size) + reach
    assert changed[legs:].mean() < 0.005


def test_a_prepared_dance_is_planned_shot_by_shot(target):
    """What comes after a cut does not change what is before it; the same announced pose gives the same image."""
    poses = [target.skeleton(index) for index in (5, 30, 31, 32, 5, 18)]
    dance = [moved(pose, 1, (0.001 * number, 0)) for number, pose in enumerate(poses)]
    whole, part = LimbWarp(target), LimbWarp(target)
    whole.prepare(track_of([*dance, None], cuts=[4]))
    part.prepare(track_of(dance[:4]))
    chosen = [whole.frames_for(pose) for pose in dance]
    assert [part.frames_for(pose) for pose in dance[:4]] == chosen[:4]
    part.prepare(track_of(dance[4:]))
    assert [part.frames_for(pose) for pose in dance[4:]] == chosen[4:]
    images = [whole.generate(pose) for pose in (dance[0], dance[5], dance[0])]
    assert np.array_equal(images[0], images[2]) and not np.array_equal(images[0], images[1])


@pytest.mark.parametrize("scale, shift", [(0.01, (0.5, 0.5)), (1.0, (3.0, 0.0)), (8.0, (-3.0, -3.0))])
def test_wild_skeletons_do_no_harm(target, scale, shift):
    image = LimbWarp(target).generate(moved(target.skeleton(3), scale, shift))
    assert image.shape == (target.size, target.size, 3) and image.dtype == np.uint8


@pytest.mark.parametrize("size", [100, 1280])
def test_nothing_is_drawn_outside_the_mask(target, size):
    """Even a sliver that falls between the pixels of the coarse cover: the scene would lose it."""
    generator = LimbWarp(target, size)
    for index in (2, 21):
        image = generator.generate(moved(target.skeleton(index), 1, (0.003, 0.002)))
        assert (generator.mask > 0).any()
        assert np.array_equal(image[generator.mask == 0], generator.plate[generator.mask == 0])
