"""Rasterizing: meshes are drawn forwards, and each triangle says where the pixels that it covers come from.

All triangles of all meshes are drawn together, with a few operations of numpy for each size of triangles.
"""

import numpy as np

NEARLY = 1e-4  # share of a triangle: a pixel that is outside by so little is still inside
NOWHERE = -1e4  # a place outside every picture
# Pixels: triangles are drawn together with others that are about as large. Larger ones than the last of these come from
# wild poses and are not drawn.
BUCKETS = (3, 5, 8, 16, 64)


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
