"""Skinning: meshes that follow the bones, against brute force and known geometry."""

import itertools

import cv2
import numpy as np
import pytest

from picture.parts import NUMBER, PARTS, distances
from warping import rasterizing, skinning
from warping.rasterizing import inverse_maps
from warping.skinning import JOINTS, LABELS, Part, Pieces, skinned

SIZE = 40


def some_part(places, triangles):
    cover = np.ones((2, 2), np.float32)
    return Part(cover, (0, 0), np.float32(places), None, np.array(triangles), cover, {}, 0)


def moved(part, maps):
    """Where the vertices of one Part go. maps: (12, 2, 3)."""
    return skinned([part], maps[None])[0]


def cut(person, joints, height):
    """{name: Part} of all parts of which anything is seen."""
    pieces = Pieces(person, joints, height)
    return {name: part for name in PARTS if (part := pieces.get(name))}


def brute_force(part, goals):
    """The same map, pixel by pixel and triangle by triangle."""
    found = np.full((SIZE, SIZE, 2), np.nan)
    for corners in part.triangles:
        basis = np.column_stack([goals[corners], np.ones(3)]).T.astype(float)
        if np.linalg.det(basis) > 0:  # not turned over
            for y in range(SIZE):
                for x in range(SIZE):
                    shares = np.linalg.solve(basis, [x, y, 1])
                    if (shares > -1e-5).all():
                        found[y, x] = shares @ part.places[corners]
    return found


def test_each_pixel_comes_from_where_the_triangle_that_covers_it_says():
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:4, :4]
    number = np.arange(16).reshape(4, 4)
    a, b, c, d = number[:-1, :-1], number[:-1, 1:], number[1:, 1:], number[1:, :-1]
    triangles = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    parts, goals = [], []
    for spread, shift in ((0.5, 5), (2.0, 5), (0.5, -10), (1.0, 25)):  # inside; with turned triangles; partly outside
        parts.append(some_part(np.stack([x, y], -1).reshape(-1, 2) / 10, triangles))
        places = np.stack([x, y], -1).reshape(-1, 2) * 9.3 + shift
        goals.append((places + rng.normal(size=places.shape) * spread).astype(np.float32))
    for part, goal, (left, top, box) in zip(parts, goals, inverse_maps(parts, goals, SIZE), strict=True):
        expected, found = brute_force(part, goal), np.full((SIZE, SIZE, 2), rasterizing.NOWHERE)
        found[top:top + box.shape[0], left:left + box.shape[1]] = box
        drawn = found[:, :, 0] > rasterizing.NOWHERE
        seen = ~np.isnan(expected[:, :, 0])
        assert (drawn != seen).sum() <= 3  # on an edge either is right
        assert seen.sum() > 100 and np.allclose(found[drawn & seen], expected[drawn & seen], atol=2e-3)


def test_a_body_that_only_turns_moves_as_one_piece(target):
    """All maps are the same one, so every vertex of every part goes by it."""
    angle, height = 0.3, 0.6
    turn = np.array([[np.cos(angle), -np.sin(angle), 0.1], [np.sin(angle), np.cos(angle), -0.2]])
    parts = cut(target.mask(7, LABELS).astype(np.float32) / 255, target.joints[7], height)
    assert len(parts) >= 10
    for part in parts.values():
        assert len(part.hinges.vertex) and 0 < part.hinges.share.min() <= part.hinges.share.max() <= 1
        turned = part.places @ turn[:, :2].T + turn[:, 2]
        assert np.allclose(moved(part, np.tile(turn, (len(PARTS), 1, 1))), turned, atol=1e-5)


def test_the_parts_together_are_the_whole_person(target):
    person = target.mask(7, LABELS).astype(np.float32) / 255
    together = np.zeros_like(person)
    for part in cut(person, target.joints[7], 0.6).values():
        (x, y), (height, width) = part.corner, part.cover.shape
        together[y:y + height, x:x + width] = np.maximum(together[y:y + height, x:x + width], part.cover)
    beside = cv2.dilate(person, np.ones((3, 3), np.uint8)) < 0.1  # a pixel farther, a finer matte decides
    assert (together[person > 0.9] >= 0.99).mean() > 0.995 and (together[beside] <= 0).all()


def test_where_two_parts_touch_they_move_alike(target):
    """At a joint, on the border between two parts, both meshes give nearly the same place, although their bones go
    apart."""
    height, rng, ratios = 0.6, np.random.default_rng(1), []
    maps = np.tile(np.eye(2, 3), (len(PARTS), 1, 1)) + rng.normal(size=(len(PARTS), 2, 3)) * 0.05
    for joints, (one, other, *_) in itertools.product(target.joints[[7, 20]], JOINTS):
        parts = cut(np.ones((LABELS, LABELS), np.float32), joints, height)
        first, second = parts[one], parts[other]
        hinges = first.hinges
        near = set(hinges.vertex[(hinges.neighbour == NUMBER[other]) & (hinges.away < 0.3)])  # close to the joint
        away = distances(first.places, joints, height)
        own, neighbour = np.sort(np.delete(away, [NUMBER[one], NUMBER[other]], 0), 0)[0], away[NUMBER[other]]
        border = (np.abs(away[NUMBER[one]] - neighbour) < 0.05) & (neighbour < own)
        there = {tuple(place): number for number, place in enumerate(second.places.round(5).tolist())}
        for number in np.flatnonzero(border):
            same = there.get(tuple(first.places[number].round(5).tolist()))
            if same is not None and number in near:
                places = [moved(part, maps)[index] for part, index in ((first, number), (second, same))]
                apart = np.linalg.norm(np.subtract(*places))
                parted = np.linalg.norm(first.places[number] @ (maps[NUMBER[one]] - maps[NUMBER[other]])[:, :2].T
                                        + (maps[NUMBER[one]] - maps[NUMBER[other]])[:, 2])
                ratios.append(apart / parted)
    assert len(ratios) >= 10 and np.median(ratios) < 0.15 and max(ratios) < 0.7


@pytest.mark.parametrize("degrees", [-120, -60, 30, 60, 120])
def test_a_joint_that_bends_far_stays_closed_and_as_wide_as_it_was(degrees):
    """A bar lies along upper arm and forearm, which turns about the elbow. At the elbow both parts go to the same
    places, half-way between the two turns and as far from it as before. The forearm's other end turns whole."""
    joints, height = np.full((33, 3), 0.1, np.float32), 0.8
    joints[[11, 13, 15, 17, 19], :2] = [[0.3, 0.5], [0.5, 0.5], [0.7, 0.5], [0.72, 0.5], [0.72, 0.5]]
    y, x = (np.mgrid[:LABELS, :LABELS] + 0.5) / LABELS
    parts = cut(np.float32((abs(y - 0.5) < 0.04) & (x > 0.3) & (x < 0.7)), joints, height)
    arm, forearm = parts["left upper arm"], parts["left forearm"]
    elbow, angle = joints[13, :2], np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    maps = np.tile(np.eye(2, 3), (len(PARTS), 1, 1))
    maps[NUMBER["left forearm"]] = np.column_stack([turn, elbow - turn @ elbow])
    goals = {part: {tuple(place): goal for place, goal in zip(part.places.tolist(), moved(part, maps), strict=True)}
             for part in (arm, forearm)}
    radius = PARTS["left upper arm"][2] * height
    compared = 0
    for place in goals[arm].keys() & goals[forearm].keys():
        from_elbow = np.subtract(place, elbow)
        if np.linalg.norm(from_elbow) < 0.9 * radius and abs(from_elbow[0]) < 0.02:
            one, other = goals[arm][place] - elbow, goals[forearm][place] - elbow
            assert np.linalg.norm(one - other) < 0.3 * radius
            assert np.linalg.norm(one) == pytest.approx(np.linalg.norm(from_elbow), rel=0.05)
            compared += 1
    assert compared >= 3
    far = forearm.places[:, 0] > 0.65
    assert np.allclose(moved(forearm, maps)[far], (forearm.places[far] - elbow) @ turn.T + elbow, atol=1e-4)
    still = arm.places[:, 0] < 0.35
    assert np.allclose(moved(arm, maps)[still], arm.places[still], atol=1e-4)


@pytest.mark.parametrize("degrees", [-80, 40, 80])
@pytest.mark.parametrize("joint, lifted", [(24, ("right thigh", "right shin", "right foot")),
                                          (11, ("left upper arm", "left forearm"))])
def test_a_limb_that_turns_far_leaves_no_hole(target, joint, lifted, degrees):
    """A leg is turned about the hip, or an arm about the shoulder, as a dancer lifts it. The person has no more holes
    than before, but for specks, and stays in one piece."""
    angle, joints, side = np.radians(degrees), target.joints[7], 256
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    maps = np.tile(np.eye(2, 3), (len(PARTS), 1, 1))
    for name in lifted:
        maps[NUMBER[name]] = np.column_stack([turn, joints[joint, :2] - turn @ joints[joint, :2]])
    parts = list(cut(target.mask(7, LABELS).astype(np.float32) / 255, joints, 0.6).values())
    goals = skinned(parts, np.tile(maps, (len(parts), 1, 1, 1)))
    places = inverse_maps(parts, [goal * side - 0.5 for goal in goals], side)
    covers = [skinning.laid_out(part.cover.clip(0, 1), part, *where, side) for part, where in
              zip(parts, zip(places, strict=True), strict=True)]
    person = (np.maximum.reduce(covers) > 0.5).astype(np.uint8)
    pieces = cv2.connectedComponentsWithStats(person)[2][1:, cv2.CC_STAT_AREA]
    holes = cv2.connectedComponentsWithStats(1 - person, connectivity=4)[2][1:, cv2.CC_STAT_AREA]
    assert pieces.max() > 0.99 * pieces.sum()
    assert holes.sum() - holes.max() < 30


def test_a_limb_that_turns_half_round_does_not_jump(target):
    """On both sides of half a turn the pictures are alike, although a turn one way becomes one the other way."""
    joints, maps = target.joints[7], np.tile(np.eye(2, 3), (len(PARTS), 1, 1))
    arm = cut(target.mask(7, LABELS).astype(np.float32) / 255, joints, 0.6)["right upper arm"]
    goals = []
    for angle in np.pi + np.array([-0.01, 0.01]):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        maps[NUMBER["right upper arm"]] = np.column_stack([turn, joints[12, :2] - turn @ joints[12, :2]])
        goals.append(moved(arm, maps))
    assert np.abs(goals[0] - goals[1]).max() < 0.01


def test_a_part_without_what_is_close_to_an_arm(target):
    """What is left is far from the forearm, in its radii, and nothing else is taken away."""
    joints, height = target.joints[7].copy(), 0.6
    joints[[14, 16]] = joints[[12, 23]]  # the right forearm lies across the torso
    torso = cut(np.ones((LABELS, LABELS), np.float32), joints, height)["torso"]
    y, x = np.mgrid[:torso.cover.shape[0], :torso.cover.shape[1]]
    places = (np.stack([x + torso.corner[0], y + torso.corner[1]], -1) + 0.5) / LABELS
    away = distances(places, joints, height)
    arm, own = away[NUMBER["right forearm"]], away[NUMBER["torso"]]
    cover = torso.without(["right arm"])
    assert (arm[cover > 0] > skinning.BESIDE_ARM - 0.3).all() and (arm < 0.9).any()
    far = arm > skinning.BESIDE_ARM + 0.3
    assert np.array_equal(cover[far].clip(0, 1), torso.cover[far].clip(0, 1))
    assert np.array_equal(torso.without([]), torso.cover)
    near = torso.within(0.5)
    assert own[near > 0].max() < 0.8 and np.array_equal(near[own < 0.2].clip(0, 1), torso.cover[own < 0.2].clip(0, 1))


def test_a_sliver_of_the_other_shoe_near_a_shin_is_no_part_of_it():
    """The shin is a bar along its bone. A sliver stands near it, but not on the bone. Where the bar is not seen, for
    example because the detector was wrong by some pixels, the sliver is the shin."""
    away = np.abs(np.arange(60) - 20)[None].repeat(50, 0) / 20
    shin, sliver = np.zeros((2, 50, 60), bool)
    shin[5:45, 15:25], sliver[10:20, 34:37] = True, True
    assert np.array_equal(skinning._attached(shin | sliver, away) > 0, shin)
    assert np.array_equal(skinning._attached(sliver, away) > 0, sliver)
    assert not skinning._attached(sliver, away + 0.5).any()


def test_a_piece_that_lies_apart_from_the_bone_is_no_part(target):
    person = target.mask(7, LABELS).astype(np.float32) / 255
    speck = person.copy()
    speck[2:6, 2:6] = 1
    joints = target.joints[7]
    for name, part in cut(speck, joints, 0.6).items():
        assert np.array_equal(part.cover.clip(0, 1), cut(person, joints, 0.6)[name].cover.clip(0, 1))


def test_nobody_has_no_parts():
    assert cut(np.zeros((LABELS, LABELS), np.float32), np.full((33, 3), 0.5, np.float32), 0.5) == {}


@pytest.mark.parametrize("corner", [(0, 0), (LABELS - 12, LABELS - 12)])
def test_a_person_at_the_border_is_cut_too(target, corner):
    person = np.zeros((LABELS, LABELS), np.float32)
    person[corner[1]:corner[1] + 12, corner[0]:corner[0] + 12] = 1
    joints = target.joints[7].copy()
    joints[:, :2] = (np.array(corner) + 6) / LABELS + (joints[:, :2] - joints[0, :2]) * 0.1
    parts = cut(person, joints, 0.1)
    assert parts and all(part.cover.max() >= 1 and np.isfinite(part.places).all() for part in parts.values())
