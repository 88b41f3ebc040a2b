"""The target's scene without the person, and a generated person put back into it.

`background` makes the plate, a clean picture of the scene, and `Scene.put` makes frames of the target video's own size.
If the camera stood still, the plate is what is mostly seen behind the person over time. If it moved, the plate is one
real frame, whose person is painted over with what other frames show there after they were laid on it. The person
then moves in a still, sharp scene: an average of moving frames would be blurred, and the retrieved frames' scenes would
jump. What no frame shows is filled with texture from around it (inpainting.py), and the whole has no seams where
neighbouring places were seen in other frames (seamless.py).
"""

import functools

import cv2
import numpy as np

from picture.canvas import faded
from picture.inpainting import fill
from picture.seamless import without_seams

SAMPLES = 64  # frames, at most, that the plate is made of
MOST_BYTES = 256e6  # memory, at most, that these frames may take
PERSON = 0.15  # of 1: where a mask is above this, the person may be
GROW = 1 / 80  # share of the picture by which masks are grown, for hair and soft edges
AROUND = 0.06  # share of the picture: how wide the soft edge of what is painted over is, around the person's mask
LIT = 0.7  # quantile of what a place shows over time: above the median (0.5), because the person's shadow only darkens
FEW = 3  # frames that must show a place before it is believed
SELDOM = 0.1  # share of the frames that must show it where the camera stands still: fewer ones show fringes of masks
OFTEN = 0.3  # share of the frames in which a place is hidden, so that few frames show it and there may be a seam
LEAST_MOVED = 15  # aligned frames, at most, that show a place: in others, near and far things have moved apart
STILL = 0.02  # share of the background, at most, that differs from the plate where the camera stands still
LEVELS = 24  # of 255: a larger difference counts as different
SURE_BACKGROUND = 40  # of 255: below this a mask is background
SURE_PERSON = 215  # of 255: above this a mask is the person; between the two, person and scene are blended
# float32 (256,): how opaque the person is for each level of a mask
SHARES = np.clip((np.arange(256, dtype=np.float32) - SURE_BACKGROUND) / (SURE_PERSON - SURE_BACKGROUND), 0, 1)
BORDER = 1 / 24  # share of the canvas at its border that is blended into the scene


def background(frames, masks, ways, reference):
    """(plate, still): the scene without the person, uint8 H x W x 3 BGR, and whether the camera stood still.

    frames: list of uint8 H x W x 3 BGR; masks: list of uint8 H x W, 255 where the person is; reference: the number of
    the frame whose picture the plate is where the camera moved; ways: list of float (2, 3), which similarity, in
    pixels, lays each frame on that one, or None where it shows another scene.
    """
    grow = 2 * round(max(masks[0].shape) * GROW) + 1
    people = [cv2.dilate((mask > PERSON * 255).astype(np.uint8), np.ones((grow, grow), np.uint8)) for mask in masks]
    if any(way is not None and not np.array_equal(way, np.eye(2, 3)) for way in ways):
        return _one_frame(frames, people, ways, reference), False
    few = max(SELDOM * len(frames), min(FEW, len(frames)))
    plate, empty = _behind(frames, people, few)
    off = [(cv2.absdiff(frame, plate).max(2) > LEVELS)[(person == 0) & ~empty].mean()
           for frame, person in zip(frames, people, strict=True) if not person.all()]
    if off and float(np.median(off)) >= STILL:
        return _one_frame(frames, people, ways, reference), False
    often = (np.mean([person > 0 for person in people], 0) > OFTEN).astype(np.uint8)
    edge = 2 * grow + 1
    share = cv2.blur(cv2.dilate(often, np.ones((edge, edge), np.uint8)).astype(np.float32), (edge, edge))
    return without_seams(fill(plate, empty), share, frames, people, few), True


def _behind(frames, people, few, where=None):
    """(plate, empty): the LIT quantile of each pixel over the frames in which no person covers it.

    people: list of uint8 H x W, above 0 where the person is; few: frames that must show a pixel; where: bool H x W, the
    only pixels to do (None: all). Returns uint8 H x W x 3 and bool H x W, True where too few frames show the pixel.
    """
    plate, empty = np.zeros_like(frames[0]), np.zeros(frames[0].shape[:2], bool)
    where = np.ones_like(empty) if where is None else where
    for top in range(0, len(plate), 64):  # in strips, because sorting copies its input
        rows = slice(top, top + 64)
        chosen = where[rows]
        covered = np.stack([person[rows][chosen] > 0 for person in people])  # (frames, pixels)
        seen = (~covered).sum(0)
        rank = (np.maximum(seen - 1, 0) * LIT).astype(int)[:, None]
        for channel in range(3):
            levels = np.stack([frame[rows, :, channel][chosen] for frame in frames]).astype(np.int16)
            levels[covered] = 256  # these are sorted behind all levels that count
            levels = np.sort(np.ascontiguousarray(levels.T), 1)  # numpy sorts 16 bits three times as fast as 8
            plate[rows, :, channel][chosen] = np.take_along_axis(levels, rank, 1)[:, 0]
        empty[rows][chosen] = seen < few
    return plate, empty


def _one_frame(frames, people, ways, middle):
    """The frame number `middle`, whose person is painted over with what other frames show there after they were laid on
    it by `ways` (see `background`). The paint has a soft edge, which takes in the shadow beside the person and
    leaves no outline."""
    size, reference = frames[0].shape[1::-1], people[middle] > 0
    corners = np.float32([[[0, 0], [size[0], 0], [0, size[1]], list(size)]])
    border, moved, hidden, distances = _border(frames), [], [], []
    for number, (frame, person, matrix) in enumerate(zip(frames, people, ways, strict=True)):
        if matrix is not None and number != middle:
            moved.append(cv2.warpAffine(frame, matrix, size))
            covered = cv2.warpAffine(person, matrix, size, flags=cv2.INTER_NEAREST, borderValue=1)
            hidden.append(covered | (cv2.warpAffine(border, matrix, size, flags=cv2.INTER_NEAREST) & ~border))
            distances.append(np.abs(cv2.transform(corners, matrix) - corners).max())
    if not moved:
        return fill(frames[middle], reference)
    away = cv2.distanceTransform((~reference).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    share = np.clip(1 - away / (AROUND * max(size)), 0, 1).astype(np.float32)
    count = np.zeros(reference.shape, np.uint8)  # frames that show a pixel, of the less moved ones
    for number in np.argsort(distances):
        hidden[number] |= (count >= LEAST_MOVED).astype(np.uint8)
        count += hidden[number] == 0
    few = min(FEW, len(moved))
    behind, empty = _behind(moved, hidden, few, share > 0)
    known = np.where(empty, 0, share).astype(np.float32)
    plate = fill(cv2.blendLinear(behind, frames[middle], known, 1 - known), empty & reference)
    return without_seams(plate, share, moved, hidden, few)


def _border(frames):
    """uint8 H x W, 1 where nothing ever changes, from the picture's edge on: a border that does not move with the
    camera."""
    change = functools.reduce(np.maximum, (cv2.absdiff(frame, frames[0]).max(2) for frame in frames))
    same = np.pad((change < LEVELS).astype(np.uint8), 1, constant_values=1)
    labels = cv2.connectedComponents(same, connectivity=4)[1]
    return cv2.dilate((labels == labels[0, 0])[1:-1, 1:-1].astype(np.uint8), np.ones((5, 5), np.uint8))


class Scene:
    """Puts canvas images of `target` (a VideoSkeleton) back into its scene."""

    def __init__(self, target):
        self._plate, self._box = target.plate, target.box
        (x, y, side), (first, highest, last, lowest) = target.box, target.window
        left, top, right, bottom = max(x, first), max(y, highest), min(x + side, last), min(y + side, lowest)
        # The canvas fades out where it ends inside the picture, but not at the picture's own edges.
        band = max(1, round(side * BORDER))
        share = faded(bottom - top, right - left, band, (left > first, right < last, top > highest, bottom < lowest))
        self._fade = np.zeros(self._plate.shape[:2], np.float32)
        self._fade[top:bottom, left:right] = share
        self._inside = left, top, right, bottom

    def put(self, patch):
        """A frame of the target video's size (uint8 H x W x 3 BGR) that shows a Patch. With a mask, only the person is
        taken; without one, all of the patch is, and it is faded into the scene at the canvas's border."""
        frame, (left, top, right, bottom) = self._plate.copy(), self._inside
        # The work is done only in the box that is shown.
        scale, (x, y), (height, width) = self._box[2] / patch.size, patch.corner, patch.image.shape[:2]
        if patch.mask is not None:
            inner_x, inner_y, width, height = cv2.boundingRect(patch.mask)
            margin = int(scale != 1)  # an enlarged mask is soft at its edge
            x, y, width, height = x + inner_x - margin, y + inner_y - margin, width + 2 * margin, height + 2 * margin
        left, top = max(left, int(self._box[0] + x * scale)), max(top, int(self._box[1] + y * scale))
        right = min(right, int(np.ceil(self._box[0] + (x + width) * scale)))
        bottom = min(bottom, int(np.ceil(self._box[1] + (y + height) * scale)))
        if right > left and bottom > top:
            place = np.s_[top:bottom, left:right]
            share = self._fade[place]
            image = self._enlarge(patch.image, patch, left, top, right, bottom, cv2.INTER_CUBIC)
            if patch.mask is not None:
                mask = self._enlarge(patch.mask, patch, left, top, right, bottom, cv2.INTER_LINEAR)
                person = cv2.LUT(mask, SHARES)
                share = person if share.min() == 1 else person * share
            elif share.min() == 1:
                frame[place] = image
                return frame
            frame[place] = cv2.blendLinear(image, np.ascontiguousarray(frame[place]), share, 1 - share)
        return frame

    def _enlarge(self, image, patch, left, top, right, bottom, interpolation):
        """A part of the image or the mask of a Patch, given in the pixels of the frame, at the frame's size."""
        x, y, side = self._box
        step = patch.size / side  # pixels of the canvas image from one pixel of the frame to the next
        matrix = np.float64([[step, 0, (left - x + 0.5) * step - 0.5 - patch.corner[0]],
                             [0, step, (top - y + 0.5) * step - 0.5 - patch.corner[1]]])
        if step == 1:
            x, y = matrix[:, 2].astype(int)
            return np.ascontiguousarray(image[y:y + bottom - top, x:x + right - left])
        return cv2.warpAffine(image, matrix, (right - left, bottom - top), borderMode=cv2.BORDER_REPLICATE,
                              flags=interpolation | cv2.WARP_INVERSE_MAP)
