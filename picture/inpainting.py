"""Inpainting: a hole in a picture is filled with texture from around it.

Every small patch that touches the hole is made to look like some patch that lies outside, from coarse to fine (Wexler
et al., "Space-Time Completion of Video", PAMI 2007). The most similar patches are found by PatchMatch (Barnes et al.,
SIGGRAPH 2009): a good match of one patch is mostly good for its neighbour, too. This runs on a small copy of the
picture. The detail then comes from the same places of the full picture.
"""

import cv2
import numpy as np
from scipy.ndimage import distance_transform_edt

SIDE = 224  # pixels, at most, of the longer side of the small copy
AROUND = 0.5  # share of the hole's box by which the place where texture is looked for is larger, on each side
LEAST_AROUND = 24  # pixels of the same, at least
RADIUS = 3  # pixels: patches are 7 x 7
THIN = 3.0  # pixels: at the coarsest level, no part of the hole is farther from its edge than this
ROUNDS = 6  # at each level: search matches, then paint by them
STEPS = (8, 4, 2, 1)  # pixels to the neighbours whose matches are tried
FADE = 1.3  # a patch counts so many times less for each pixel from the hole's edge, because the edge is known for sure


def fill(image, hole):
    """The image, uint8 H x W x 3 BGR, with the hole (bool H x W) filled from what is around it. Where there is too
    little around it for that, its pixels take the colour of the nearest known one. The same input gives the same
    picture."""
    # Pieces that lie close together are filled together.
    joined = cv2.dilate(hole.astype(np.uint8), np.ones((2 * RADIUS + 1, 2 * RADIUS + 1), np.uint8))
    filled, (count, labels, boxes, _) = image.copy(), cv2.connectedComponentsWithStats(joined)
    for number in range(1, count):
        x, y, width, height, _ = boxes[number]
        around = max(LEAST_AROUND, round(AROUND * max(width, height)))
        place = np.s_[max(y - around, 0):y + height + around, max(x - around, 0):x + width + around]
        own = hole[place] & (labels[place] == number)
        filled[place][own] = _filled(image[place], own, hole[place])[own]
    return filled


def _filled(image, hole, unknown):
    """The window `image` with its `hole` filled. unknown: bool, where no texture may come from."""
    sizes = [(np.array(hole.shape[::-1]) * min(1, SIDE / max(hole.shape))).round().astype(int)]
    thickness = cv2.distanceTransform(hole.astype(np.uint8), cv2.DIST_L2, 3).max() * sizes[0][0] / hole.shape[1]
    while thickness > THIN and min(sizes[-1]) > 8 * RADIUS:
        sizes, thickness = [*sizes, np.maximum(sizes[-1] // 2, 1)], thickness / 2
    rng, level, painted, matches = np.random.default_rng(0), None, None, None
    for size in reversed(sizes):
        above, level = level, _Level(image, hole, unknown, size)
        if not len(level.places) or not level.usable.any():
            level = above
            continue
        if above is None:
            painted = _from_nearest(level.image, level.unknown).astype(np.float32)
            matches = level.anywhere(len(level.places), rng)
        else:
            matches = level.carried(above, matches, rng)
            painted = level.paint(level.image.astype(np.float32), matches, 0)
        for _ in range(ROUNDS):
            matches, errors = level.search(painted, matches, rng)
            painted = level.paint(painted, matches, errors)
    if level is None:
        return _from_nearest(image, unknown)
    return _with_detail(image, painted, level, matches)


def _from_nearest(image, unknown):
    """The image, where what is unknown (bool H x W) has the colour of the nearest known pixel."""
    return image if unknown.all() else image[tuple(distance_transform_edt(unknown, return_distances=False,
                                                                          return_indices=True))]


class _Level:
    """A picture with a hole at one size (width, height), and the patches that touch the hole.

    places: int (T, 2), y and x of the middles of these patches. usable: bool h x w, the middles of patches of which
    everything is known, from which texture may come.
    """

    def __init__(self, image, hole, unknown, size):
        size = tuple(int(length) for length in size)
        self.image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        self.hole, self.unknown = (cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0
                                   for mask in (hole, unknown))
        patch = np.ones((2 * RADIUS + 1, 2 * RADIUS + 1), np.uint8)
        touched, lost = (cv2.dilate(mask.astype(np.uint8), patch) > 0 for mask in (self.hole, self.unknown))
        inside = np.zeros_like(self.hole)
        inside[RADIUS:-RADIUS, RADIUS:-RADIUS] = True
        self.usable, self.places = inside & ~lost, np.argwhere(inside & touched)
        self._number = np.full(self.hole.shape, -1)  # of each place
        self._number[tuple(self.places.T)] = np.arange(len(self.places))
        away = cv2.distanceTransform(self.hole.astype(np.uint8), cv2.DIST_L2, 3)
        self._sure = (FADE ** -away)[tuple(self.places.T)]

    def anywhere(self, count, rng):
        """int (count, 2): usable places at random."""
        usable = np.argwhere(self.usable)
        return usable[rng.integers(len(usable), size=count)]

    def carried(self, above, matches, rng):
        """The matches (T, 2) of this level by those of the coarser level `above`."""
        ratio = np.array(self.hole.shape) / above.hole.shape
        coarse = np.clip((self.places / ratio).astype(int), RADIUS, np.array(above.hole.shape) - RADIUS - 1)
        number = above._number[tuple(coarse.T)]
        found = np.round(matches[number] * ratio + self.places - above.places[number] * ratio).astype(int)
        known = (number >= 0) & self._is_usable(found)
        return np.where(known[:, None], found, self.anywhere(len(found), rng))

    def search(self, painted, matches, rng):
        """(matches, errors): better matches (T, 2) and the mean squared error (T,) of each, by PatchMatch."""
        patches = np.lib.stride_tricks.sliding_window_view(painted, (2 * RADIUS + 1, 2 * RADIUS + 1), (0, 1))
        own = patches[tuple((self.places - RADIUS).T)].reshape(len(self.places), -1)
        matches, errors = matches.copy(), np.full(len(matches), np.inf, np.float32)

        def attempt(which, candidates):
            good = self._is_usable(candidates)
            which, candidates = which[good], candidates[good]
            other = patches[tuple((candidates - RADIUS).T)].reshape(len(which), own.shape[1])
            error = ((other - own[which]) ** 2).mean(1)
            better = error < errors[which]
            errors[which[better]], matches[which[better]] = error[better], candidates[better]

        everything = np.arange(len(matches))
        attempt(everything, matches.copy())
        for step in STEPS:
            for move in ((-step, 0), (0, -step), (step, 0), (0, step)):
                beside = np.clip(self.places + move, 0, np.array(self.hole.shape) - 1)
                number = self._number[tuple(beside.T)]
                which = np.flatnonzero(number >= 0)
                attempt(which, matches[number[which]] - move)
        reach = max(self.hole.shape)
        while reach >= 1:
            attempt(everything, matches + rng.integers(-reach, reach + 1, matches.shape))
            reach //= 2
        return matches, errors

    def paint(self, painted, matches, errors):
        """A new picture, float32 h x w x 3: in the hole, the mean of what all matches show there; good ones count more.
        errors: (T,), those of the matches."""
        total, weights = np.zeros_like(painted), np.zeros(painted.shape[:2], np.float32)
        weight = (self._sure * np.exp(-errors / (2 * np.percentile(errors, 60) + 1))).astype(np.float32)
        for down in range(-RADIUS, RADIUS + 1):
            for right in range(-RADIUS, RADIUS + 1):
                to, start = (tuple((where + np.array([down, right])).T) for where in (self.places, matches))
                total[to] += weight[:, None] * self.image[start]
                weights[to] += weight
        inside = self.hole & (weights > 0)
        painted = painted.copy()
        painted[inside] = total[inside] / weights[inside][:, None]
        return painted

    def _is_usable(self, places):
        """bool (T,): which of the places (T, 2), anywhere, are usable."""
        inside = ((places >= 0) & (places < self.hole.shape)).all(1)
        return inside & self.usable[tuple(np.where(inside[:, None], places, 0).T)]


def _with_detail(image, painted, level, matches):
    """The window at its full size: what was `painted` at a small size, with the fine detail of the matches' places."""
    height, width = image.shape[:2]
    coarse = cv2.resize(painted, (width, height), interpolation=cv2.INTER_CUBIC)
    ratio = np.array([height, width]) / level.hole.shape
    shift = np.zeros((*level.hole.shape, 2), np.float32)  # (y, x), from each place to its match, in full pixels
    shift[tuple(level.places.T)] = (matches - level.places) * ratio
    shift = cv2.resize(shift, (width, height), interpolation=cv2.INTER_NEAREST)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    known = cv2.resize(level.image, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    detail = cv2.remap(image.astype(np.float32) - known, x + shift[..., 1], y + shift[..., 0], cv2.INTER_LINEAR)
    return np.clip(coarse + detail, 0, 255).round().astype(np.uint8)
