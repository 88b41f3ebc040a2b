"""The shadow under a foot: how much darker the ground is around it, learned from the frames of the target.

In each of some frames, the ground around a foot that stands is compared with the plate, which shows the same ground
without a shadow. The median over the frames is what they have in common, wherever the person stood: her shadow, and not
the pattern of the floor. It is drawn under both feet, weaker under a foot that is lifted. Where the ground is hardly
darker around the feet, nothing is drawn.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from picture.canvas import crop

FEET = ((27, 29, 31), (28, 30, 32))  # ankle, heel and toes of the left and of the right foot
AROUND = 0.14  # body heights from the middle of a foot to the border of the square in which its shadow is looked for
PIXELS = 64  # of that square
NEAR = 0.35  # of the way to the border: up to here a shadow is drawn fully; farther away it fades
FLAT = 0.6  # the ground is seen from the side, so what is around a foot is so many times as deep as it is wide
LOW = 0.15  # of the way to the border: the sole is so far below the middle of a foot
GROUND = 80  # percentile of the heights of both feet: one of them stands mostly
LIFTED = (0.03, 0.12)  # body heights above the ground, of a foot that stands and of one that has left its shadow behind
FEWEST = 6  # feet that must show a place
HIDES = 8  # of 255: where the matte is above this, the person may hide the ground
BLACK = 4  # levels that are added to both pictures, since dark ones have much noise beside their light
DARKEST = 0.4  # of the light that is left, at least
FAINT = 0.05  # of the light: where no more than this is missing anywhere, there is no shadow
SMOOTH, FAR = 1.0, 6.0  # pixels of the square over which the shadow is smoothed, and carried to where nothing is known


def feet(joints):
    """float (..., 2, 2): the middle of the left and of the right foot of poses (..., 33, 3), x and y."""
    return np.stack([joints[..., list(foot), :2].mean(-2) for foot in FEET], -2)


class ShadowFinder:
    """Learns the Shadow of a target (a VideoSkeleton). plate: uint8 S x S x 3 BGR, the scene on the canvas; height: of
    the body, in canvas units."""

    def __init__(self, target, plate, height):
        self._plate, self._size, self._height, self._squares = plate, target.size, height, []
        self._feet = feet(target.joints)
        self._ground = float(np.percentile(self._feet[:, :, 1], GROUND))

    def look(self, index, image, matte, corner):
        """Learn from frame number `index`; the others are what VideoSkeleton.person gives of it."""
        side = max(1, round(2 * AROUND * self._height * self._size))
        scale = len(self._plate) / self._size
        for foot in self._feet[index]:
            if self._ground - foot[1] > LIFTED[0] * self._height:
                continue
            place = (foot * self._size - side / 2).round().astype(int)
            own, there = (*(place - corner).tolist(), side), [round(value * scale) for value in (*place, side)]
            seen, plate = (cv2.cvtColor(crop(picture, square, PIXELS), cv2.COLOR_BGR2GRAY).astype(np.float32) + BLACK
                           for picture, square in ((image, own), (self._plate, there)))
            inside = crop(np.full(matte.shape, 255, np.uint8), own, PIXELS) == 255
            hidden = cv2.dilate(crop(matte, own, PIXELS), np.ones((5, 5), np.uint8)) > HIDES
            self._squares.append(np.where(inside & ~hidden, seen / plate, np.nan))

    def shadow(self):
        """The Shadow, or None where there is none."""
        squares = np.array(self._squares).reshape(-1, PIXELS, PIXELS)
        known = (~np.isnan(squares)).sum(0) >= FEWEST
        if not known.any():
            return None
        light = np.ones((PIXELS, PIXELS), np.float32)
        light[known] = np.nanmedian(squares[:, known], 0).clip(DARKEST, 1)
        # Under the shoe nothing is known; it is as dark there as beside it.
        beside, weight = (cv2.GaussianBlur(each, (0, 0), FAR) for each in (light * known, known.astype(np.float32)))
        light = cv2.GaussianBlur(np.where(known, light, beside / np.maximum(weight, 1e-6)), (0, 0), SMOOTH)
        y, x = (np.mgrid[:PIXELS, :PIXELS] + 0.5) * 2 / PIXELS - 1
        away = np.hypot(x, (y - LOW) / FLAT)
        light = 1 - (1 - light) * np.clip((1 - away) / (1 - NEAR), 0, 1).astype(np.float32)
        return Shadow(light, self._ground, self._height) if light.min() < 1 - FAINT else None


@dataclass(frozen=True, eq=False)
class Shadow:
    """The shadow under a foot. light: float32 PIXELS x PIXELS in [0, 1], how much light is left in the square around a
    foot that stands; ground: y of the feet that stand, and height: of the body, both in canvas units."""

    light: np.ndarray
    ground: float
    height: float

    def squares(self, joints, size):
        """[(left, top, side, strength)] of the feet of a pose (33, 3) that have a shadow, in pixels of a canvas of
        `size` of them; strength: in (0, 1]."""
        side, squares = max(2, round(2 * AROUND * self.height * size)), []
        for foot in feet(joints):
            lifted = (self.ground - foot[1]) / self.height
            strength = float(np.clip((LIFTED[1] - lifted) / (LIFTED[1] - LIFTED[0]), 0, 1))
            if strength:
                squares.append((*(foot * size - side / 2).round().astype(int).tolist(), side, strength))
        return squares

    def draw(self, squares, image, mask, corner):
        """Darken the squares of `squares`, in place, in a part of the canvas (uint8 h x w x 3 BGR) that begins at
        `corner` (left, top), and set its mask (uint8 h x w) to 255 there."""
        low = np.maximum(np.min([square[:2] for square in squares], 0) - corner, 0)
        high = np.maximum(np.max([np.add(square[:2], square[2]) for square in squares], 0) - corner, 0)
        box = np.s_[low[1]:high[1], low[0]:high[0]]  # the work is done only where the feet are
        image, mask, corner = image[box], mask[box], corner + low
        if not image.size:  # the feet are outside of the canvas
            return
        light = np.ones(image.shape[:2], np.float32)
        for left, top, side, strength in squares:
            left, top = left - corner[0], top - corner[1]
            inside = np.s_[max(top, 0):max(top + side, 0), max(left, 0):max(left + side, 0)]
            own = 1 - strength * (1 - cv2.resize(self.light, (side, side)))
            part = light[inside]
            np.minimum(part, own[max(-top, 0):, max(-left, 0):][:part.shape[0], :part.shape[1]], out=part)
        image[:] = cv2.multiply(image, cv2.merge([light] * 3), dtype=cv2.CV_8U)
        mask[light < 1] = 255
