"""The colours of parts, on drawn bodies of which it is known which pixel shows which part."""

import cv2
import numpy as np
import pytest

from picture.parts import ARMS, NUMBER, PARTS, distances, segments
from warping.part_colours import GROUPS, PartColours
from warping.skinning import LABELS, Pieces

HEIGHT = 0.7  # of the body, in canvas units
SHIRT, JEANS, SKIN, HAIR = (50, 40, 190), (110, 60, 30), (130, 160, 215), (25, 30, 40)  # BGR
COLOURS = {"torso": SHIRT, "head": HAIR, "upper arm": SKIN, "forearm": SKIN, "thigh": JEANS, "shin": JEANS,
           "foot": HAIR}
WIDER = {"torso": 1.2, "upper arm": 0.6, "forearm": 0.6}  # drawn widths in radii: not as the distances expect them


def posed(left, right):
    """(33, 3) joints of a standing body whose arms hang down, turned up by these degrees at shoulder and elbow."""
    joints = np.zeros((33, 3), np.float32)
    for number, place in {0: (0.5, 0.14), 7: (0.53, 0.13), 8: (0.47, 0.13), 11: (0.58, 0.24), 12: (0.42, 0.24),
                          23: (0.55, 0.5), 24: (0.45, 0.5), 25: (0.56, 0.68), 26: (0.44, 0.68), 27: (0.57, 0.85),
                          28: (0.43, 0.85), 31: (0.6, 0.88), 32: (0.4, 0.88)}.items():
        joints[number, :2] = place
    for side, angles, chain in ((1, left, (11, 13, 15, 17, 19)), (-1, right, (12, 14, 16, 18, 20))):
        place, lengths = joints[chain[0], :2], (0.13, 0.12)
        for joint, angle, length in zip(chain[1:3], angles, lengths, strict=True):
            along = np.array([side * np.sin(np.radians(angle)), np.cos(np.radians(angle))])
            place = place + length * along
            joints[joint, :2] = place
        joints[list(chain[3:]), :2] = place + 0.03 * along
    return joints


def painted(joints, colours=COLOURS, widths=WIDER):
    """(image, person, parts): the body, far parts first, and for each pixel the number of the part that it shows."""
    parts = np.full((LABELS, LABELS), -1, np.int16)
    for part, (*_, radius) in PARTS.items():
        kind = part.removeprefix("left ").removeprefix("right ")
        width = max(round(2 * radius * HEIGHT * LABELS * widths.get(kind, 1.0)), 1)
        for pair in segments(joints, part):
            start, end = (tuple(int(each) for each in np.round(place * LABELS)) for place in pair)
            cv2.line(parts, start, end, NUMBER[part], width)
    image = np.full((LABELS, LABELS, 3), 230.0)
    for part, number in NUMBER.items():
        image[parts == number] = colours[part.removeprefix("left ").removeprefix("right ")]
    image += np.random.default_rng(0).normal(0, 5, image.shape)
    return image.clip(0, 255).astype(np.uint8), (parts >= 0).astype(np.float32), parts


POSES = [posed((angle, angle + bend), (angle / 2 + 20, angle + 10)) for angle in (30, 60, 90, 130) for bend in (0, 40)]
BEFORE = posed((15, -75), (20, -60))  # both forearms lie across the torso


def learned(colours):
    return PartColours((*painted(joints, colours)[:2], joints, HEIGHT) for joints in [*POSES, BEFORE])


def wrong(found, parts):
    """The share of the pixels of arms and torso that were taken for the other."""
    arms = [NUMBER[part] for part in PARTS if "arm" in part]
    some = np.isin(parts, [*arms, NUMBER["torso"]])
    return (np.isin(found, arms) != np.isin(parts, arms))[some].mean()


def test_colours_tell_an_arm_from_the_shirt_behind_it():
    image, person, parts = painted(BEFORE)
    x, y = np.meshgrid(*[(np.arange(LABELS) + 0.5) / LABELS] * 2)
    away = distances(np.stack([x, y], -1), BEFORE, HEIGHT).astype(np.float32)
    costs = learned(COLOURS).costs(away, image, person)
    assert wrong(away.argmin(0), parts) > 0.05
    assert wrong(costs.argmin(0), parts) < 0.35 * wrong(away.argmin(0), parts)
    assert (costs >= away).all()


def test_where_all_is_dressed_alike_distances_decide():
    alike = dict.fromkeys(COLOURS, SHIRT)
    image, person, _ = painted(BEFORE, alike)
    x, y = np.meshgrid(*[(np.arange(LABELS) + 0.5) / LABELS] * 2)
    away = distances(np.stack([x, y], -1), BEFORE, HEIGHT).astype(np.float32)
    costs = learned(alike).costs(away, image, person)
    assert np.array_equal(costs[:, person > 0], away[:, person > 0])


def test_parts_are_cut_where_their_colours_are():
    """Without colours, strips of the shirt would go along with an arm that hangs beside it."""
    joints = posed((4, 2), (60, 60))
    image, person, parts = painted(joints)
    strips = []
    for colours in (None, learned(COLOURS)):
        pieces, shirt = Pieces(person, joints, HEIGHT, image, colours), 0
        for name in ("left upper arm", "left forearm"):
            part = pieces.get(name)
            left, top = part.corner
            shown = parts[top:top + len(part.cover), left:left + part.cover.shape[1]]
            shirt += (part.cover[shown == NUMBER["torso"]] > 0.5).sum()
            assert (part.cover[shown == NUMBER[name]] > 0.5).mean() > 0.8  # the arm itself is there
        strips.append(shirt)
    assert strips[0] > 40 and strips[1] < 0.3 * strips[0], strips


def test_a_shoe_that_points_at_the_camera_is_no_part_of_the_shin():
    joints, strips = posed((30, 30), (60, 60)), []
    joints[31, :2] = joints[27, :2] + (0.0, 0.01)
    image, person, parts = painted(joints, widths=WIDER | {"foot": 2.0})
    for colours in (None, learned(COLOURS)):
        shin = Pieces(person, joints, HEIGHT, image, colours).get("left shin")
        left, top = shin.corner
        shown = parts[top:top + len(shin.cover), left:left + shin.cover.shape[1]]
        strips.append((shin.cover[shown == NUMBER["left foot"]] > 0.5).sum())
    assert strips[0] > 20 and strips[1] < 0.5 * strips[0], strips


@pytest.mark.parametrize("side", ARMS)
def test_the_groups_hold_every_part_once(side):
    assert sorted(np.concatenate(GROUPS)) == list(range(len(PARTS)))
    assert NUMBER[ARMS[side]] in GROUPS[2 + list(ARMS).index(side)]


def test_nobody_to_learn_from_is_no_error():
    nothing = np.zeros((LABELS, LABELS), np.float32)
    image = np.full((LABELS, LABELS, 3), 99, np.uint8)
    away = np.random.default_rng(0).uniform(0, 3, (len(PARTS), LABELS, LABELS)).astype(np.float32)
    costs = PartColours([(image, nothing, BEFORE, HEIGHT)]).costs(away, image, nothing)
    assert np.array_equal(costs, away)
