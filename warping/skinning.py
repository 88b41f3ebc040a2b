"""Skinning: a picture of a body, cut into parts, each on a mesh that follows the bones.

Every vertex of a part's mesh moves with the part's own bone and, near a joint, also with the neighbour's (skinning;
Jacobson et al., SIGGRAPH courses 2014). How much depends only on where the vertex lies between the two bones, not on
the part that it belongs to. So two parts that touch each other move alike where they touch, and no gap opens. Turns are
mixed as angles about the joint: a mean of their matrices would make a joint thinner the more it bends (Kavan et al.,
Skinning with Dual Quaternions, I3D 2007).
The meshes are drawn forwards: each triangle says where the pixels that it covers come from.
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
NEARLY = 1e-4  # share of a triangle: a pixel that is outside by so little is still inside
NOWHERE = -1e4  # a place outside every picture
# Pixels: triangles are drawn together with others that are about as large. Larger ones than the last of these come from
# wild poses and are not drawn.
BUCKETS = (3, 5, 8, 16, 64)


@dataclass(frozen=True, eq=False)
class Hinge:
    """The joint between a Part and a neighbour. neighbour: its number in PARTS; place: (2,), the joint, in canvas
    units; share: float32 (V,), how much each vertex of the part moves with the neighbour if it is at the joint, in
    [0, 1], 0.5 in the middle between the two; away: float32 (V,), its distance from the joint, 1 where the joint's
    reach ends."""

    neighbour: int
    place: np.ndarray
    share: np.ndarray
    away: np.ndarray


@dataclass(frozen=True, eq=False)
class Part:
    """One part of a body in one frame. cover: float32 h x w, in LABELS pixels, from which the part is drawn where it is
    above 0, and fully where it is 1 or more; corner: (x, y) of the cover in these pixels; places: float32 (V, 2), the
    mesh's vertices in canvas units; hinges: [Hinge], its joints; triangles: int (T, 3), each clockwise; away: float32
    h x w, how far the cover's pixels are from the bone, in its radii; from_arms: {side: float32 h x w}, the same from
    the forearm of each of ARMS; number: in PARTS."""

    cover: np.ndarray
    corner: tuple
    places: np.ndarray
    hinges: list
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
    """[Hinge] of the part with this number. away: (12, V), the distances of its vertices from each of PARTS, in radii;
    places: (V, 2)."""
    found = []
    for one, other, joint, reach in JOINTS:
        pair = [NUMBER[one], NUMBER[other]]
        if number in pair:
            pair.remove(number)
            place, share = landmark_point(joints, joint)[:2], 0.5 - (away[pair[0]] - away[number]) / (2 * BLEND)
            found.append(Hinge(pair[0], place, np.clip(share, 0, 1),
                               np.linalg.norm(places - place, axis=1) / (reach * height)))
    return found


def skinned(part, maps):
    """float32 (V, 2): where the vertices of a Part go. maps: (12, 2, 3), the affine map of each of PARTS, in canvas
    units. Near several joints, a vertex goes to the weighted mean of where each of them takes it."""
    own, turns = maps[part.number], np.arctan2(maps[:, 1, 0] - maps[:, 0, 1], maps[:, 0, 0] + maps[:, 1, 1])
    goals = part.places @ own[:, :2].T + own[:, 2]
    shifts, shares = np.zeros_like(goals), np.full((len(goals), 1), 1e-6)
    for hinge in part.hinges:
        turn = (turns[hinge.neighbour] - turns[part.number] + np.pi) % (2 * np.pi) - np.pi
        reach = np.interp(abs(turn), BENT, (1, CLOSE))
        share = hinge.share * np.clip((1 - hinge.away / reach) / FADING, 0, 1) * np.interp(abs(turn), ROUND, (1, 0))
        near = np.flatnonzero(share)
        share, away, other = share[near, None], part.places[near] - hinge.place, maps[hinge.neighbour]
        cosine, sine = np.cos(turn), np.sin(turn)
        # What the neighbour does beside its turn: it grows or shrinks.
        grown = np.array([[cosine, sine], [-sine, cosine]]) @ other[:, :2]
        x, y = (away @ own[:, :2].T * (1 - share) + away @ grown.T * share).T
        cosine, sine = np.cos(share[:, 0] * turn), np.sin(share[:, 0] * turn)
        joint, there = (each[:, :2] @ hinge.place + each[:, 2] for each in (own, other))
        place = np.stack([cosine * x - sine * y, sine * x + cosine * y], 1) + joint + share * (there - joint)
        shifts[near] += share * (place - goals[near])
        shares[near] += share
    return (goals + shifts / shares).astype(np.float32)


def inverse_maps(parts, goals, size):
    """[(left, top, places)] of the `parts` (a list of Part): places, float32 h x w x 2, tells for the pixels of a box
    that begins at (left, top) in a picture of `size` x `size` from which place each of them comes that the part's mesh
    covers when its vertices are carried to `goals` (a list of (V, 2)). It is NOWHERE for the other pixels.

    goals: in pixels, the middle of the first pixel at 0. Of several triangles that cover a pixel, the last one counts.
    A triangle that was turned over is not drawn.
    """
    first = np.cumsum([0] + [len(part.places) for part in parts])
    triangles = np.concatenate([part.triangles + start for part, start in zip(parts, first, strict=False)]).T
    layer = np.repeat(np.arange(len(parts)), [len(part.triangles) for part in parts])
    # Each (3, T): where the corners of all triangles are and where they come from.
    (x, y), (from_x, from_y) = (np.concatenate(points).T[:, triangles]
                                for points in (goals, [part.places for part in parts]))
    (ax, ay), (bx, by) = ((x[corner] - x[0], y[corner] - y[0]) for corner in (1, 2))
    area = ax * by - ay * bx
    left, top = (np.ceil(each.min(0)).astype(np.int32) for each in (x, y))
    right, bottom = (np.floor(each.max(0)).astype(np.int32) for each in (x, y))
    drawn = (area > 1e-6) & (left <= right) & (top <= bottom) & (left < size) & (top < size)
    drawn &= (right >= 0) & (bottom >= 0)
    large = np.where(drawn, np.searchsorted(BUCKETS, np.maximum(right - left, bottom - top) + 1), len(BUCKETS))
    corner = np.array([np.clip(np.floor(goal.min(0)), 0, size) for goal in goals]).astype(np.int32)
    extent = np.array([np.clip(np.ceil(goal.max(0)) + 1, 0, size) for goal in goals]).astype(np.int32) - corner
    begin = np.cumsum([0, *extent.prod(1)])
    places = np.full((begin[-1], 2), NOWHERE, np.float32)  # of all boxes, one after the other
    width, start = extent[layer, 0], (begin[:-1] - corner[:, 0] - corner[:, 1] * extent[:, 0])[layer]
    for number, bucket in enumerate(BUCKETS):
        chosen = np.flatnonzero(large == number)
        row, column = np.divmod(np.arange(bucket ** 2, dtype=np.int32), bucket)
        at_x, at_y = left[chosen, None] + column, top[chosen, None] + row  # (chosen, pixels)
        away_x, away_y = ((at - points[0, chosen, None]).astype(np.float32) for at, points in ((at_x, x), (at_y, y)))
        one_x, one_y, two_x, two_y = ((each[chosen] / area[chosen])[:, None] for each in (ax, ay, bx, by))
        b, c = away_x * two_y - away_y * two_x, away_y * one_x - away_x * one_y
        inside = (b > -NEARLY) & (c > -NEARLY) & (b + c < 1 + NEARLY)
        inside &= (at_x >= 0) & (at_x < size) & (at_y >= 0) & (at_y < size)
        found = np.flatnonzero(inside)
        which = chosen[found // bucket ** 2]
        b, c, at_x, at_y = (each.ravel()[found] for each in (b, c, at_x, at_y))
        pixel = start[which] + at_y * width[which] + at_x
        for axis, origin in enumerate((from_x, from_y)):
            first, second, third = origin[:, which]
            places[pixel, axis] = first + (second - first) * b + (third - first) * c
    return [(left, top, places[start:stop].reshape(height, width, 2)) for (left, top), (width, height), start, stop
            in zip(corner.tolist(), extent.tolist(), begin[:-1], begin[1:], strict=True)]


def laid_out(values, part, where, size):
    """float32 size x size: values (float32 h x w) of the pixels of a Part's cover where the part is drawn, 0 elsewhere.
    where: (left, top, places) as `inverse_maps` gives them."""
    out, (left, top, places) = np.zeros((size, size), np.float32), where
    if places.size:
        places = places * LABELS - np.float32([part.corner[0] + 0.5, part.corner[1] + 0.5])
        out[top:top + len(places), left:left + places.shape[1]] = cv2.remap(values, places, None, cv2.INTER_LINEAR,
                                                                            borderValue=0)
    return out
