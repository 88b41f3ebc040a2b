"""Skinning: a picture of a body, cut into parts, each on a mesh that follows the bones.

Every vertex of a part's mesh moves with the part's own bone and, near a joint, also with the neighbour's (skinning;
Jacobson et al., SIGGRAPH courses 2014). How much depends only on where the vertex lies between the two bones, not on
the part that it belongs to. So two parts that touch each other move alike where they touch, and no gap opens. Turns are
mixed as angles about the joint: a mean of their matrices would make a joint thinner the more it bends (Kavan et al.,
Skinning with Dual Quaternions, I3D 2007).
The meshes are drawn by rasterizing.py.
"""

import functools
from dataclasses import dataclass

import cv2
import numpy as np

from motion.body import landmark_point
from picture.parts import ARMS, NUMBER, distances
from Skeleton import HIPS, SHOULDERS

BEHIND_ARMS = ("torso", "left thigh", "right thigh")  # parts before which the forearms often are
# (part, part, the joint between them, its reach: body heights around it in which they move together)
JOINTS = (
    ("torso", "head", SHOULDERS, 0.20), ("torso", "left upper arm", 11, 0.24), ("torso", "right upper arm", 12, 0.24),
    ("left upper arm", "left forearm", 13, 0.16), ("right upper arm", "right forearm", 14, 0.16),
    ("torso", "left thigh", 23, 0.30), ("torso", "right thigh", 24, 0.30),
    ("left thigh", "right thigh", HIPS, 0.36),
    ("left thigh", "left shin", 25, 0.20), ("right thigh", "right shin", 26, 0.20),
    ("left shin", "left foot", 27, 0.12), ("right shin", "right foot", 28, 0.12),
)
LABELS = 192  # pixels of the canvas for the masks of parts, which are enlarged when they are drawn
CELL = 4  # of these pixels: the distance of a mesh's vertices
SHARED = 0.35  # radii by which a part goes on below its neighbour
BESIDE_ARM = 1.3  # radii from a forearm: what is nearer to it may show the arm, whatever part it belongs to
REACH = 4.0  # radii from the bone at which a part ends
ON_BONE = (0.35, 1.0)  # radii: a piece of a part is on its bone, and near it
BLEND = 0.8  # radii over which the motion of one part goes over into the neighbour's
# Where two parts bend far, only what is close to the joint moves with both: a raised arm must not pull up the side of a
# shirt. Radians between which this begins and is complete, and the share of the joint's reach that is left then.
BENT, CLOSE = (0.25, 0.6), 0.4
FADING = 0.5  # share of a joint's reach over which the two begin to move apart
ROUND = (2.5, 3.0)  # radians between which they move together less, and not at all: it might be the other way round
SOLID = (0.35, 0.65)  # values of a mask between which a part goes from invisible to opaque


@dataclass(frozen=True, eq=False)
class Hinges:
    """How the vertices of a Part move with its neighbours: E pairs of a vertex and a joint within whose reach it lies.
    vertex: int (E,), which of the part's; neighbour: int (E,), on the other side of the joint, its number in PARTS;
    place: (E, 2), the joint, in canvas units; share: (E,), how much the vertex moves with the neighbour if it is at the
    joint, in (0, 1], 0.5 in the middle between the two; away: (E,), its distance from the joint, 1 where the joint's
    reach ends."""

    vertex: np.ndarray
    neighbour: np.ndarray
    place: np.ndarray
    share: np.ndarray
    away: np.ndarray


@dataclass(frozen=True, eq=False)
class Part:
    """One part of a body in one frame. cover: float32 h x w, in LABELS pixels, from which the part is drawn where it is
    above 0, and fully where it is 1 or more; corner: (x, y) of the cover in these pixels; places: float32 (V, 2), the
    mesh's vertices in canvas units; hinges: the Hinges of its joints; triangles: int (T, 3), each clockwise; away:
    float32 h x w, how far the cover's pixels are from the bone, in its radii; from_arms: {side: float32 h x w}, the
    same from the forearm of each of ARMS; number: in PARTS."""

    cover: np.ndarray
    corner: tuple
    places: np.ndarray
    hinges: Hinges
    triangles: np.ndarray
    away: np.ndarray
    from_arms: dict
    number: int

    def without(self, arms):
        """The cover without what is close to the forearms of these sides, some of ARMS."""
        return functools.reduce(np.minimum, (_edge(self.from_arms[arm] - BESIDE_ARM) for arm in arms), self.cover)

    def within(self, radii, arms=()):
        """The same, only up to so many radii from the bone."""
        return np.minimum(self.without(arms), _edge(radii - self.away))

    def missing(self, cover):
        """How much of the part a cover lacks and a little around it: float32 h x w in [0, 1], or None: nothing."""
        if cover is self.cover:  # as it is for most parts
            return None
        lacks = (cover < np.minimum(self.cover, 1)).astype(np.float32)
        return cv2.blur(cv2.dilate(lacks, np.ones((5, 5), np.uint8)), (3, 3)) if lacks.any() else None


class Pieces:
    """The parts of a body in one frame, each of which is cut when it is first asked for. person: float32 LABELS x
    LABELS in [0, 1], where the person is; joints: (33, 3) in canvas units; height: of the body there; image: uint8
    LABELS x LABELS x 3 BGR, the frame, of which the PartColours `colours` judge, too, to which part a pixel belongs;
    without them distances decide alone. Parts go a pixel farther than the person, because a finer matte tells where
    she ends."""

    def __init__(self, person, joints, height, image=None, colours=None):
        self._joints, self._height, self._known = joints, height, {}
        left, top, width, below = cv2.boundingRect((person > SOLID[0]).astype(np.uint8))
        # The mesh's grid holds the person and a margin of two cells.
        first = np.array([left, top]) // CELL - 2
        self._cells = columns, rows = (np.array([left + width, top + below]) // CELL + 3 - first).tolist()
        grid = np.stack(np.meshgrid(np.arange(columns + 1), np.arange(rows + 1)), -1) + first
        self._grid = grid.reshape(-1, 2).astype(np.float32) * np.float32(CELL / LABELS)
        away = distances(self._grid, joints, height).astype(np.float32)
        self._from_grid, self._corner, size = away, first * CELL, (columns * CELL, rows * CELL)
        # Distances change slowly, so between the vertices they are interpolated.
        x, y = np.meshgrid(*((np.arange(length, dtype=np.float32) + 0.5) / CELL for length in size))
        self._away = [cv2.remap(plane.reshape(rows + 1, columns + 1), x, y, cv2.INTER_LINEAR) for plane in away]
        move = np.float32([[1, 0, -self._corner[0]], [0, 1, -self._corner[1]]])
        self._shown = cv2.warpAffine(person, move, size)
        self._costs = self._away
        if colours is not None:
            self._costs = colours.costs(np.stack(self._away), cv2.warpAffine(image, move, size), self._shown)
        self._least = functools.reduce(np.minimum, self._costs)
        self._around = cv2.dilate(self._shown, np.ones((3, 3), np.uint8))
        self._most = np.minimum(self._least + SHARED, REACH)  # no part is seen where its costs are higher than this
        self._most[self._around <= SOLID[0]] = -1

    def get(self, name):
        """The Part of this name, or None where nothing of it is seen."""
        if name not in self._known:
            self._known[name] = self._cut(NUMBER[name])
        return self._known[name]

    def _cut(self, number):
        own, (columns, rows) = self._costs[number], self._cells
        x, y, width, below = cv2.boundingRect(cv2.compare(own, self._most, cv2.CMP_LT))
        if not width:
            return None
        box = np.s_[y - 1:y + below + 1, x - 1:x + width + 1]  # one more pixel, so that it ends softly
        own, away = own[box], self._away[number][box]
        belongs = np.clip((self._least[box] - own) / SHARED + 1, 0, 1) * np.clip((REACH - own) * 2, 0, 1)
        seen = _attached(self._shown[box] * belongs > SOLID[0], away)
        if not seen.any():
            return None
        mask = self._around[box] * belongs
        seen = cv2.dilate(seen, np.ones((3, 3), np.uint8))
        mask[seen == 0] = 0
        cells = np.zeros(self._shown.shape, np.float32)
        cells[box] = seen
        cells = cv2.resize(cells, (columns, rows), interpolation=cv2.INTER_AREA)
        cells = cv2.dilate(cells, np.ones((3, 3), np.uint8)) > 0  # a margin of one cell
        used, triangles = _mesh(cells)
        hinges = _hinges(number, self._from_grid[:, used], self._grid[used], self._joints, self._height)
        from_arms = {arm: self._from_arm(NUMBER[forearm], number, box) for arm, forearm in ARMS.items()}
        return Part((mask - SOLID[0]) / (SOLID[1] - SOLID[0]), (self._corner[0] + x - 1, self._corner[1] + y - 1),
                    self._grid[used], hinges, triangles, away, from_arms, number)

    def _from_arm(self, arm, number, box):
        """float32 h x w: how far the pixels of a box of the part with this number are from a forearm (its number), in
        its radii. It is less where the colour fits the arm better than the part."""
        more = self._costs[arm][box] - self._away[arm][box] - self._costs[number][box] + self._away[number][box]
        return self._away[arm][box] + np.minimum(more, 0)


def _edge(inside):
    """A cover for a part that ends where `inside`, a distance in radii, is 0."""
    return (np.clip(inside / SHARED + 0.5, 0, 1) - SOLID[0]) / (SOLID[1] - SOLID[0])


def _attached(seen, away):
    """uint8: those pieces of what is seen of a part (bool h x w) that lie on its bone or, if none does, near it. away:
    distances from its bone. Another piece belongs to something else, as the other leg's shoe, or to a limb that the
    detector has found elsewhere."""
    count, labels = cv2.connectedComponents(seen.astype(np.uint8))
    for near in ON_BONE:
        touches = np.zeros(count, np.uint8)
        touches[labels[seen & (away < near)]] = 1
        if touches.any():
            break
    return touches[labels]


def _mesh(cells):
    """(used, triangles) of a mesh, two triangles for each of the cells (bool rows x columns) of a grid of (rows + 1) x
    (columns + 1) vertices: which vertices are used, int (V,), and the triangles, int (T, 3), among these."""
    rows, columns = np.nonzero(cells)
    a = rows * (cells.shape[1] + 1) + columns
    b, d = a + 1, a + cells.shape[1] + 1
    triangles = np.concatenate([np.stack([a, b, d + 1], 1), np.stack([a, d + 1, d], 1)])
    used = np.zeros((cells.shape[0] + 1) * (cells.shape[1] + 1), bool)
    used[triangles.ravel()] = True
    return np.flatnonzero(used), (np.cumsum(used) - 1)[triangles]


def _hinges(number, away, places, joints, height):
    """The Hinges of the part with this number. away: (12, V), the distances of its vertices from each of PARTS, in
    radii; places: (V, 2)."""
    found = []
    for one, other, joint, reach in JOINTS:
        pair = [NUMBER[one], NUMBER[other]]
        if number in pair:
            pair.remove(number)
            place = landmark_point(joints, joint)[:2]
            share = np.clip(0.5 - (away[pair[0]] - away[number]) / (2 * BLEND), 0, 1)
            from_joint = np.linalg.norm(places - place, axis=1) / (reach * height)
            vertex = np.flatnonzero((share > 0) & (from_joint < 1))
            found.append((vertex, np.full(len(vertex), pair[0]), np.tile(place, (len(vertex), 1)), share[vertex],
                          from_joint[vertex]))
    return Hinges(*map(np.concatenate, zip(*found, strict=True)))


def skinned(parts, maps):
    """[(V, 2)]: where the vertices of each of some Parts go. maps: (len(parts), 12, 2, 3), for each of these parts the
    affine map of each of PARTS, in canvas units. Near several joints, a vertex goes to the weighted mean of where each
    of them takes it."""
    hinges, counts = [part.hinges for part in parts], [len(part.places) for part in parts]
    begin, number = np.cumsum([0, *counts]), [part.number for part in parts]
    turns = np.arctan2(maps[:, :, 1, 0] - maps[:, :, 0, 1], maps[:, :, 0, 0] + maps[:, :, 1, 1])
    of_parts, own_turns = maps[np.arange(len(parts)), number], turns[np.arange(len(parts)), number]
    places = np.concatenate([part.places for part in parts])
    goals = _mapped(of_parts[np.repeat(np.arange(len(parts)), counts)], places)
    # Now of each pair of a vertex and a joint.
    of_part = np.repeat(np.arange(len(parts)), [len(each.vertex) for each in hinges])
    neighbour, joint, share, away = (np.concatenate([getattr(each, name) for each in hinges])
                                     for name in ("neighbour", "place", "share", "away"))
    vertex = np.concatenate([each.vertex for each in hinges]) + begin[of_part]
    own, other = of_parts[of_part], maps[of_part, neighbour]
    turn = (turns[of_part, neighbour] - own_turns[of_part] + np.pi) % (2 * np.pi) - np.pi
    reach = np.interp(np.abs(turn), BENT, (1, CLOSE))
    share = share * np.clip((1 - away / reach) / FADING, 0, 1) * np.interp(np.abs(turn), ROUND, (1, 0))
    # What each of the two does to the vertex beside its turn: it grows or shrinks.
    from_joint, part = (places[vertex] - joint)[:, :, None], share[:, None]
    mine, its = (each[:, :, :2] @ from_joint for each in (own, other))
    grown = (1 - part) * mine[:, :, 0] + part * _turned(its[:, :, 0], -turn)
    at_joint = (1 - part) * _mapped(own, joint) + part * _mapped(other, joint)
    shift = at_joint + _turned(grown, share * turn) - goals[vertex]
    weight = np.maximum(np.bincount(vertex, share, len(goals)), 1e-6)
    mean = [np.bincount(vertex, share * along, len(goals)) / weight for along in shift.T]
    return np.split(goals + np.stack(mean, 1), begin[1:-1])


def _mapped(maps, places):
    """(N, 2): places (N, 2), each moved by its own of the affine maps (N, 2, 3)."""
    return (maps[:, :, :2] @ places[:, :, None])[:, :, 0] + maps[:, :, 2]


def _turned(places, angles):
    """(N, 2): places (N, 2), each turned by its own of the angles (N,) in radians."""
    cosine, sine = np.cos(angles), np.sin(angles)
    return np.stack([cosine * places[:, 0] - sine * places[:, 1], sine * places[:, 0] + cosine * places[:, 1]], 1)


def laid_out(values, part, where, size):
    """float32 size x size: values (float32 h x w) of the pixels of a Part's cover where the part is drawn, 0 elsewhere.
    where: (left, top, places) as rasterizing.inverse_maps gives them."""
    out, (left, top, places) = np.zeros((size, size), np.float32), where
    if places.size:
        places = places * LABELS - np.float32([part.corner[0] + 0.5, part.corner[1] + 0.5])
        out[top:top + len(places), left:left + places.shape[1]] = cv2.remap(values, places, None, cv2.INTER_LINEAR,
                                                                            borderValue=0)
    return out
