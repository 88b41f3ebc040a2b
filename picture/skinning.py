"""Skinning: a picture of a body, cut into parts, each on a mesh that follows the bones.

Every vertex of a part's mesh moves with the part's own bone and, near a joint, also with the neighbour's (linear blend
skinning; Jacobson et al., SIGGRAPH courses 2014). How much depends only on where the vertex lies between the two bones,
not on the part that it belongs to. So two parts that touch each other move alike where they touch, and no gap opens.
The meshes are drawn forwards: each triangle says where the pixels that it covers come from.
"""

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
NUMBER = {part: number for number, part in enumerate(PARTS)}
# (part, part, the joint between them, body heights around it in which they move together)
JOINTS = (
    ("torso", "head", SHOULDERS, 0.10), ("torso", "left upper arm", 11, 0.12), ("torso", "right upper arm", 12, 0.12),
    ("left upper arm", "left forearm", 13, 0.08), ("right upper arm", "right forearm", 14, 0.08),
    ("torso", "left thigh", 23, 0.15), ("torso", "right thigh", 24, 0.15), ("left thigh", "right thigh", HIPS, 0.18),
    ("left thigh", "left shin", 25, 0.10), ("right thigh", "right shin", 26, 0.10),
    ("left shin", "left foot", 27, 0.06), ("right shin", "right foot", 28, 0.06),
)
LABELS = 256  # pixels of the canvas for the masks of parts, which are enlarged when they are drawn
CELL = 4  # of these pixels: the distance of a mesh's vertices
SHARED = 0.35  # radii by which a part goes on below its neighbour
REACH = 4.0  # radii from the bone at which a part ends
BLEND = 0.8  # radii over which the motion of one part goes over into the neighbour's
SEEN = 0.35  # value of a mask below which nothing is drawn
NOWHERE = -1e4  # a place outside every picture
BUCKETS = (4, 8, 16, 64)  # pixels: triangles are drawn together with others that are about as large


@dataclass(frozen=True, eq=False)
class Part:
    """One part of a body in one frame. mask: float32 h x w in [0, 1], in LABELS pixels; corner: (x, y) of the mask in
    these pixels; places: float32 (V, 2), the mesh's vertices in canvas units; weights: float32 (V, 12), how much each
    vertex moves with each of PARTS, 1 in all; triangles: int (T, 3), each clockwise."""

    mask: np.ndarray
    corner: tuple
    places: np.ndarray
    weights: np.ndarray
    triangles: np.ndarray


def cut(person, joints, height):
    """{part: Part} of a frame; parts of which nothing is seen are left out. person: float32 LABELS x LABELS in [0, 1],
    where the person is; joints: (33, 3) in canvas units; height: of the body there."""
    left, top, width, height_px = cv2.boundingRect((person > SEEN).astype(np.uint8))
    if not width:
        return {}
    left, top = max(left - 2, 0), max(top - 2, 0)
    person = person[top:top + height_px + 4, left:left + width + 4]
    x, y = np.meshgrid(np.arange(person.shape[1]) + left + 0.5, np.arange(person.shape[0]) + top + 0.5)
    away = _distances((np.stack([x, y], -1) / LABELS).astype(np.float32), joints, height)
    nearest, parts = away.min(0), {}
    for part, own in zip(PARTS, away, strict=True):
        mask = person * np.clip((nearest + SHARED - own) / SHARED, 0, 1) * np.clip((REACH - own) * 2, 0, 1)
        x, y, width, height_px = cv2.boundingRect((mask > SEEN).astype(np.uint8))
        if width:
            x, y = max(x - 1, 0), max(y - 1, 0)  # one more pixel on each side, so that the mask ends softly
            mask = mask[y:y + height_px + 2, x:x + width + 2].copy()
            parts[part] = _part(part, mask, (left + x, top + y), joints, height)
    return parts


def _distances(places, joints, height):
    """float (12, ...): how far `places` (..., 2) in canvas units are from the bone of each of PARTS, in its radii."""
    return np.stack([distance_to_segment(places, *bone_segment(joints, part)) / (radius * height)
                     for part, (_, _, radius) in PARTS.items()])


def _part(part, mask, corner, joints, height):
    """A Part with its mesh: a grid over those cells in which the mask shows anything."""
    rows, columns = (-(-length // CELL) for length in mask.shape)
    padded = np.zeros((rows * CELL, columns * CELL), bool)
    padded[:mask.shape[0], :mask.shape[1]] = mask > 0
    used = padded.reshape(rows, CELL, columns, CELL).any((1, 3)).astype(np.uint8)
    used = cv2.dilate(cv2.copyMakeBorder(used, 1, 1, 1, 1, cv2.BORDER_CONSTANT), np.ones((3, 3), np.uint8)) > 0
    y, x = np.mgrid[:rows + 3, :columns + 3]
    places = np.stack([corner[0] + (x - 1) * CELL, corner[1] + (y - 1) * CELL], -1).reshape(-1, 2) / LABELS
    number = np.arange(len(places)).reshape(rows + 3, columns + 3)
    a, b, c, d = (number[:-1, :-1][used], number[:-1, 1:][used], number[1:, 1:][used], number[1:, :-1][used])
    triangles = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    seen, triangles = np.unique(triangles, return_inverse=True)  # vertices without a triangle are left out
    places = places[seen].astype(np.float32)
    return Part(mask, corner, places, _weights(part, places, joints, height), triangles.reshape(-1, 3))


def _weights(part, places, joints, height):
    """float32 (V, 12): how much vertices of a part move with each of PARTS."""
    weights = np.zeros((len(places), len(PARTS)), np.float32)
    away = _distances(places, joints, height)
    for one, other, joint, reach in JOINTS:
        if part in (one, other):
            neighbour = other if part == one else one
            between = away[NUMBER[neighbour]] - away[NUMBER[part]]
            distance = np.linalg.norm(places - landmark_point(joints, joint)[:2], axis=1) / (reach * height)
            weights[:, NUMBER[neighbour]] = np.clip(0.5 - between / (2 * BLEND), 0, 1) * np.clip(2 - distance, 0, 1)
    weights /= np.maximum(weights.sum(1, keepdims=True), 1)
    weights[:, NUMBER[part]] = 1 - weights.sum(1)
    return weights


def skinned(part, maps):
    """float32 (V, 2): where the vertices of a Part go. maps: (12, 2, 3), the affine map of each of PARTS, in canvas
    units."""
    moved = part.places @ maps[:, :, :2].transpose(0, 2, 1) + maps[:, None, :, 2]  # (12, V, 2)
    return np.einsum("vp,pvc->vc", part.weights, moved, optimize=False).astype(np.float32)


def inverse_map(starts, goals, triangles, size):
    """(places float32 h x w x 2, left, top): from which place each pixel comes that triangles cover when they are
    carried from `starts` (V, 2) to `goals` (V, 2), and NOWHERE for others; None where they cover nothing.

    goals: in pixels, the middle of the first pixel at 0; only pixels of a square of `size` pixels are drawn. Of several
    triangles that cover a pixel, the last one counts. A triangle that was turned over is not drawn.
    """
    corners, origins = goals[triangles], starts[triangles]
    one, two = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0]
    low, high = np.ceil(corners.min(1)).astype(int), np.floor(corners.max(1)).astype(int)
    fine = (area > 1e-6) & (low <= high).all(1) & (low < size).all(1) & (high >= 0).all(1)
    if not fine.any():
        return None
    left, top = np.maximum(low[fine].min(0), 0)
    right, bottom = np.minimum(high[fine].max(0), size - 1) + 1
    places = np.full((bottom - top, right - left, 2), NOWHERE, np.float32)
    large, smaller = (high - low).max(1) + 1, 0
    for bucket in BUCKETS:
        chosen = np.flatnonzero(fine & (large > smaller) & (large <= bucket))
        smaller = bucket
        if not len(chosen):
            continue
        y, x = np.divmod(np.arange(bucket ** 2), bucket)
        pixels_x, pixels_y = low[chosen, :1] + x, low[chosen, 1:] + y  # (chosen, pixels)
        from_x, from_y = pixels_x - corners[chosen, 0, :1], pixels_y - corners[chosen, 0, 1:]
        b = (from_x * two[chosen, 1:] - from_y * two[chosen, :1]) / area[chosen, None]
        c = (from_y * one[chosen, :1] - from_x * one[chosen, 1:]) / area[chosen, None]
        inside = ((b > -1e-4) & (c > -1e-4) & (b + c < 1 + 1e-4) & (pixels_x >= left) & (pixels_x < right)
                  & (pixels_y >= top) & (pixels_y < bottom))
        which, b, c = np.nonzero(inside)[0], b[inside, None], c[inside, None]
        origin = origins[chosen[which]]
        places[pixels_y[inside] - top, pixels_x[inside] - left] = (
            origin[:, 0] * (1 - b - c) + origin[:, 1] * b + origin[:, 2] * c)
    return places, left, top


def bone_segment(joints, part):
    """The segment (start, end), x and y, around which a part's pixels lie: its bone, which is longer at hands, feet and
    head, where the body goes on beyond the landmark."""
    start, end = (landmark_point(joints, landmark)[:2] for landmark in PARTS[part][:2])
    along = end - start
    if "forearm" in part:  # as far as the fingers
        return start, end + 0.55 * along
    if part == "head":
        return start + 0.1 * along, end + 0.9 * along
    if "foot" in part:
        return start - 0.2 * along, end + 0.35 * along
    return start, end
