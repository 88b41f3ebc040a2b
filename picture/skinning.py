"""Skinning: a picture of a body, cut into parts, each on a mesh that follows the bones.

Every vertex of a part's mesh moves with the part's own bone and, near a joint, also with the neighbour's (linear blend
skinning; Jacobson et al., SIGGRAPH courses 2014). How much depends only on where the vertex lies between the two bones,
not on the part that it belongs to. So two parts that touch each other move alike where they touch, and no gap opens.
The meshes are drawn forwards: each triangle says where the pixels that it covers come from. `bone_maps` and
`similarity` give the motion of a bone.
"""

import functools
from dataclasses import dataclass

import cv2
import numpy as np

from motion.body import landmark_point
from picture.retrieval import distance_to_segment
from Skeleton import HIPS, NOSE, SHOULDERS

# Each part's bone (a pair stands for the point between two landmarks) and its radius in body heights.
PARTS = {
    "torso": (SHOULDERS, HIPS, 0.13), "head": (SHOULDERS, NOSE, 0.10),
    "left upper arm": (11, 13, 0.055), "left forearm": (13, 15, 0.045),
    "right upper arm": (12, 14, 0.055), "right forearm": (14, 16, 0.045),
    "left thigh": (23, 25, 0.075), "left shin": (25, 27, 0.055), "left foot": (27, 31, 0.04),
    "right thigh": (24, 26, 0.075), "right shin": (26, 28, 0.055), "right foot": (28, 32, 0.04),
}
PARTS_OF = {
    "torso": ["torso"], "head": ["head"],
    "left arm": ["left upper arm", "left forearm"], "right arm": ["right upper arm", "right forearm"],
    "left leg": ["left thigh", "left shin", "left foot"], "right leg": ["right thigh", "right shin", "right foot"],
}
ARMS = {"left arm": "left forearm", "right arm": "right forearm"}
BEHIND_ARMS = ("torso", "left thigh", "right thigh")  # parts before which the forearms often are
NUMBER = {part: number for number, part in enumerate(PARTS)}
# (part, part, the joint between them, body heights around it in which they move together)
JOINTS = (
    ("torso", "head", SHOULDERS, 0.10), ("torso", "left upper arm", 11, 0.12), ("torso", "right upper arm", 12, 0.12),
    ("left upper arm", "left forearm", 13, 0.08), ("right upper arm", "right forearm", 14, 0.08),
    ("torso", "left thigh", 23, 0.15), ("torso", "right thigh", 24, 0.15), ("left thigh", "right thigh", HIPS, 0.18),
    ("left thigh", "left shin", 25, 0.10), ("right thigh", "right shin", 26, 0.10),
    ("left shin", "left foot", 27, 0.06), ("right shin", "right foot", 28, 0.06),
)
LABELS = 192  # pixels of the canvas for the masks of parts, which are enlarged when they are drawn
CELL = 4  # of these pixels: the distance of a mesh's vertices
HAND = 1.8  # a hand is so many times as long as from the wrist to the knuckles, for the fingers
HEM = 0.1  # torso lengths below the hips down to which clothes move with the torso
SHARED = 0.35  # radii by which a part goes on below its neighbour
BESIDE_ARM = 1.3  # radii from a forearm: what is nearer to it may show the arm, whatever part it belongs to
REACH = 4.0  # radii from the bone at which a part ends
LENGTHEN = (0.6, 1.5)  # least and most stretch of a part along its bone, beside the change of the body's height
WIDEN = (0.9, 1.1)  # least and most stretch across the bone
SCALE = (0.8, 1.25)  # least and most scale of head and torso as a whole
BLEND = 0.8  # radii over which the motion of one part goes over into the neighbour's
FOLDED = (0.25, 0.6)  # radians of turn between two parts from which they move together less, and not at all
SOLID = (0.35, 0.65)  # values of a mask between which a part goes from invisible to opaque
NEARLY = 1e-4  # share of a triangle: a pixel that is outside by so little is still inside
NOWHERE = -1e4  # a place outside every picture
# Pixels: triangles are drawn together with others that are about as large. Larger ones than the last of these come from
# wild poses and are not drawn.
BUCKETS = (3, 5, 8, 16, 64)


@dataclass(frozen=True, eq=False)
class Part:
    """One part of a body in one frame. cover: float32 h x w, in LABELS pixels, from which the part is drawn where it is
    above 0, and fully where it is 1 or more; corner: (x, y) of the cover in these pixels; places: float32 (V, 2), the
    mesh's vertices in canvas units; weights: float32 (V, 12), how much each vertex moves with each of PARTS, 1 in all;
    triangles: int (T, 3), each clockwise; away: float32 h x w, how far the cover's pixels are from the bone, in its
    radii; from_arms: {side: float32 h x w}, the same from the forearm of each of ARMS; number: in PARTS."""

    cover: np.ndarray
    corner: tuple
    places: np.ndarray
    weights: np.ndarray
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


def cut(person, joints, height):
    """{part: Part} of a frame; parts of which nothing is seen are left out. person: float32 LABELS x LABELS in [0, 1],
    where the person is; joints: (33, 3) in canvas units; height: of the body there."""
    left, top, width, below = cv2.boundingRect((person > SOLID[0]).astype(np.uint8))
    if not width:
        return {}
    # The mesh's grid holds the person and a margin of two cells.
    first = np.array([left, top]) // CELL - 2
    columns, rows = np.array([left + width, top + below]) // CELL + 3 - first
    grid = (np.stack(np.meshgrid(np.arange(columns + 1), np.arange(rows + 1)), -1) + first) * (CELL / LABELS)
    away = distances(grid, joints, height)
    weights = _weights(away.reshape(len(PARTS), -1), grid.reshape(-1, 2), joints, height)
    # Distances change slowly, so between the vertices they are interpolated.
    corner, size = first * CELL, (columns * CELL, rows * CELL)
    x, y = np.meshgrid(*((np.arange(length, dtype=np.float32) + 0.5) / CELL for length in size))
    away = [cv2.remap(plane, x, y, cv2.INTER_LINEAR) for plane in away.astype(np.float32)]
    nearest, parts = functools.reduce(np.minimum, away), {}
    shown = cv2.warpAffine(person, np.float32([[1, 0, -corner[0]], [0, 1, -corner[1]]]), size)
    widest = np.minimum(nearest + SHARED, REACH)
    widest[shown <= SOLID[0]] = -1
    for part, own in zip(PARTS, away, strict=True):
        x, y, width, below = cv2.boundingRect(cv2.compare(own, widest, cv2.CMP_LT))  # nothing is seen outside of this
        if not width:
            continue
        box = np.s_[y - 1:y + below + 1, x - 1:x + width + 1]  # one more pixel, so that it ends softly
        own, mask = own[box], shown[box] * np.clip((nearest[box] - own[box]) / SHARED + 1, 0, 1)
        mask *= np.clip((REACH - own) * 2, 0, 1)
        seen = _attached(mask > SOLID[0], own)
        mask[(seen == 0) & (mask > SOLID[0])] = 0
        if seen.any():
            cells = np.zeros(size[::-1], np.float32)
            cells[box] = seen
            cells = cv2.resize(cells, (columns, rows), interpolation=cv2.INTER_AREA)
            cells = cv2.dilate(cells, np.ones((3, 3), np.uint8)) > 0  # a margin of one cell
            places, own_weights, triangles = _mesh(cells, grid, weights[NUMBER[part]])
            from_arms = {arm: away[NUMBER[forearm]][box] for arm, forearm in ARMS.items()}
            cover = (mask - SOLID[0]) / (SOLID[1] - SOLID[0])
            parts[part] = Part(cover, (corner[0] + x - 1, corner[1] + y - 1), places, own_weights, triangles, own,
                               from_arms, NUMBER[part])
    return parts


def _edge(inside):
    """A cover for a part that ends where `inside`, a distance in radii, is 0."""
    return (np.clip(inside / SHARED + 0.5, 0, 1) - SOLID[0]) / (SOLID[1] - SOLID[0])


def _attached(seen, away):
    """uint8: those pieces of what is seen of a part (bool h x w) that touch it. away: distances from its bone. A piece
    that lies apart belongs to something else, or to a limb that the detector has found elsewhere."""
    count, labels = cv2.connectedComponents(seen.astype(np.uint8))
    touches = np.zeros(count, np.uint8)
    touches[labels[seen & (away < 1)]] = 1
    return touches[labels]


def distances(places, joints, height):
    """float (12, ...): how far `places` (..., 2) in canvas units are from the bone of each of PARTS, in its radii."""
    ends = [(number, *pair) for part, number in NUMBER.items() for pair in segments(joints, part)]
    numbers, starts, stops = (np.array(each) for each in zip(*ends, strict=True))
    away = distance_to_segment(places.reshape(-1, 2), starts[:, None], stops[:, None])
    away = np.minimum.reduceat(away, np.flatnonzero(np.diff(numbers, prepend=-1)))
    radii = height * np.array([radius for *_, radius in PARTS.values()])
    return (away / radii[:, None]).reshape(len(PARTS), *places.shape[:-1])


def _mesh(cells, grid, weights):
    """(places, weights, triangles) of a Part: two triangles for each of the cells (bool rows x columns) of the grid
    (rows + 1, columns + 1, 2). weights: those of all of its vertices."""
    number = np.arange(grid.shape[0] * grid.shape[1]).reshape(grid.shape[:2])
    a, b, c, d = (number[:-1, :-1][cells], number[:-1, 1:][cells], number[1:, 1:][cells], number[1:, :-1][cells])
    triangles = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    used = np.zeros(number.size, bool)
    used[triangles.ravel()] = True
    return grid.reshape(-1, 2)[used].astype(np.float32), weights[used], (np.cumsum(used) - 1)[triangles]


def _weights(away, places, joints, height):
    """float32 (12, V, 12): how much a vertex moves with each of PARTS if it belongs to the mesh of the first one. away:
    (12, V), the vertices' distances from each; places: (V, 2)."""
    weights = np.zeros((len(PARTS), len(places), len(PARTS)), np.float32)
    total = np.zeros(weights.shape[:2], np.float32)  # of the neighbours' weights
    for one, other, joint, reach in JOINTS:
        one, other = NUMBER[one], NUMBER[other]
        near = np.linalg.norm(places - landmark_point(joints, joint)[:2], axis=1) / (reach * height)
        near, between = np.clip(2 - near, 0, 1), (away[other] - away[one]) / (2 * BLEND)
        for mine, its, share in ((one, other, 0.5 - between), (other, one, 0.5 + between)):
            weights[mine, :, its] = np.clip(share, 0, 1) * near
            total[mine] += weights[mine, :, its]
    weights /= np.maximum(total, 1)[:, :, None]
    numbers = np.arange(len(PARTS))
    weights[numbers, :, numbers] = 1 - np.minimum(total, 1)
    return weights


def skinned(part, maps):
    """float32 (V, 2): where the vertices of a Part go. maps: (12, 2, 3), the affine map of each of PARTS, in canvas
    units."""
    # Between parts that turn very differently a mesh would fold. There, the part goes with its own bone alone.
    turns = np.arctan2(maps[:, 1, 0] - maps[:, 0, 1], maps[:, 0, 0] + maps[:, 1, 1])
    apart = np.abs((turns - turns[part.number] + np.pi) % (2 * np.pi) - np.pi)
    weights = part.weights * np.clip((FOLDED[1] - apart) / (FOLDED[1] - FOLDED[0]), 0, 1)
    weights[:, part.number] += 1 - weights.sum(1)
    mixed = (weights @ maps.reshape(len(PARTS), -1)).reshape(-1, 2, 3)  # the map of each vertex
    return ((mixed[:, :, :2] @ part.places[:, :, None])[:, :, 0] + mixed[:, :, 2]).astype(np.float32)


def inverse_maps(parts, goals, size):
    """[(left, top, places)] of the `parts` (a list of Part): places, float32 h x w x 2, tells for the pixels of a box
    that begins at (left, top) in a picture of `size` x `size` from which place each of them comes that the part's mesh
    covers when its vertices are carried to `goals` (a list of (V, 2)). It is NOWHERE for the other pixels.

    goals: in pixels, the middle of the first pixel at 0. Of several triangles that cover a pixel, the last one counts.
    A triangle that was turned over is not drawn.
    """
    first = np.cumsum([0] + [len(part.places) for part in parts])
    triangles = np.concatenate([part.triangles + start for part, start in zip(parts, first, strict=False)])
    layer = np.repeat(np.arange(len(parts)), [len(part.triangles) for part in parts])
    corners = np.concatenate(goals)[triangles]
    origins = np.concatenate([part.places for part in parts])[triangles]
    one, two = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0]
    low, high = np.ceil(corners.min(1)).astype(np.int32), np.floor(corners.max(1)).astype(np.int32)
    drawn = (area > 1e-6) & (low <= high).all(1) & (low < size).all(1) & (high >= 0).all(1)
    large = np.where(drawn, np.searchsorted(BUCKETS, (high - low).max(1) + 1), len(BUCKETS))
    corner = np.array([np.clip(np.floor(goal.min(0)), 0, size) for goal in goals]).astype(np.int32)
    extent = np.array([np.clip(np.ceil(goal.max(0)) + 1, 0, size) for goal in goals]).astype(np.int32) - corner
    begin = np.cumsum([0, *extent.prod(1)])
    places = np.full((begin[-1], 2), NOWHERE, np.float32)  # of all boxes, one after the other
    for number, bucket in enumerate(BUCKETS):
        chosen, pixels = np.flatnonzero(large == number), np.arange(bucket, dtype=np.int32)
        if not len(chosen):
            continue
        x, y = low[chosen, :1] + pixels, low[chosen, 1:] + pixels  # (chosen, columns), (chosen, rows)
        from_x, from_y = (x - corners[chosen, 0, :1])[:, None], (y - corners[chosen, 0, 1:])[:, :, None]
        (ax, ay), (bx, by) = ((edge[chosen] / area[chosen, None]).T[..., None, None] for edge in (one, two))
        b, c = from_x * by - from_y * bx, from_y * ax - from_x * ay  # (chosen, rows, columns)
        inside = (b > -NEARLY) & (c > -NEARLY) & (b + c < 1 + NEARLY)
        inside &= ((x >= 0) & (x < size))[:, None] & ((y >= 0) & (y < size))[:, :, None]
        which, row, column = np.nonzero(inside)
        b, c, which, origin = b[inside][:, None], c[inside][:, None], chosen[which], origins[chosen[which]]
        box = layer[which]
        (left, top), width = corner[box].T, extent[box, 0]
        places[begin[box] + (low[which, 1] + row - top) * width + low[which, 0] + column - left] = (
            origin[:, 0] + (origin[:, 1] - origin[:, 0]) * b + (origin[:, 2] - origin[:, 0]) * c)
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


def segments(joints, part):
    """[(start, end)], x and y, around which a part's pixels lie: its bone, which is longer at feet and head, where the
    body goes on beyond the landmark, and the hand, which belongs to the forearm and may be bent."""
    start, end = (landmark_point(joints, landmark)[:2] for landmark in PARTS[part][:2])
    along = end - start
    if "forearm" in part:
        knuckles = landmark_point(joints, (17, 19) if part == "left forearm" else (18, 20))[:2]
        return [(start, end), (end, end + HAND * (knuckles - end))]
    if part == "torso":  # a hem hangs down from it
        return [(start, end + HEM * along)]
    if part == "head":
        return [(start + 0.1 * along, end + 0.9 * along)]
    if "foot" in part:
        return [(start - 0.2 * along, end + 0.35 * along)]
    return [(start, end)]


def similarity(start, end, size=1.0):
    """(..., 2, 3): the rotation, scale and shift that lay points (..., N, 2) on others with the least squared error
    (Umeyama 1991, in the plane, where a rotation with a scale is a complex factor). The scale stays within SCALE times
    `size`."""
    start, end = (points[..., 0] + 1j * points[..., 1] for points in (start, end))
    middle, goal = start.mean(-1), end.mean(-1)
    a, b = start - middle[..., None], end - goal[..., None]
    turn = (a.conj() * b).sum(-1) / np.maximum((a.conj() * a).real.sum(-1), 1e-9)
    scale = np.maximum(np.abs(turn), 1e-9)
    turn = turn / scale * np.clip(scale, SCALE[0] * size, SCALE[1] * size)
    shift = goal - turn * middle
    maps = np.stack([turn.real, -turn.imag, shift.real, turn.imag, turn.real, shift.imag], -1)
    return maps.reshape(*turn.shape, 2, 3)


def bone_maps(starts, goals, size=1.0):
    """(..., P, 2, 3): the maps that lay the middles of P bones on those of others and turn them in their directions.
    starts, goals: (..., P, 2, 2), the ends of the bones. A map stretches along its bone within LENGTHEN and across it
    within WIDEN, both times `size`."""
    old, new = (ends[..., 1, :] - ends[..., 0, :] for ends in (starts, goals))
    lengths = np.maximum(np.linalg.norm(old, axis=-1), 1e-6)
    stretch = np.linalg.norm(new, axis=-1) / lengths / size
    angle = np.arctan2(new[..., 1], new[..., 0]) - np.arctan2(old[..., 1], old[..., 0])
    along = old / lengths[..., None]
    across = np.stack([-along[..., 1], along[..., 0]], -1)
    scale = sum(np.clip(stretch, *limits)[..., None, None] * (axis[..., :, None] * axis[..., None, :])
                for limits, axis in ((LENGTHEN, along), (WIDEN, across)))
    cosine, sine = size * np.cos(angle), size * np.sin(angle)
    turn = np.stack([cosine, -sine, sine, cosine], -1).reshape(scale.shape) @ scale
    shift = goals.mean(-2)[..., None] - turn @ starts.mean(-2)[..., None]
    return np.concatenate([turn, shift], -1)
