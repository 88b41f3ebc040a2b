"""The window of a picture: where it shows the scene, without the black bars beside it.

Players and programs put bars beside a film whose shape they don't have, sometimes with titles in them. A person who
dances belongs between the bars. A bar is dark and of one colour, but for titles, and it ends with a straight edge; a
dark scene has no such edge. Where a dark scene lies beside a bar, the bar may not be found, and counts as scene.
"""

import numpy as np

DARK = 48  # levels: the colour of a bar is not brighter
FLAT = 8  # levels: pixels of a bar differ from its colour by so much at most, and the scene beside it by more
PLAIN = 0.5  # share of each line of a bar that has its colour; the rest may be a title
EDGE = 0.6  # share of the line where the scene begins that differs from the bar
SOFT = 3  # lines in which the scene begins, because scaling makes edges soft


def scene_window(picture):
    """(left, top, right, bottom), in whole pixels: where a picture (uint8 H x W x 3) shows the scene; all of it where
    it has no bars."""
    brightest = picture.max(2).astype(np.int16)
    left, right = _between_bars(brightest.T)
    top, bottom = _between_bars(brightest)
    return left, top, right, bottom


def _between_bars(lines):
    """(first, stop): which of the lines (N, L) of a picture show the scene."""
    before, after = _bar(lines), _bar(lines[::-1])
    return (before, len(lines) - after) if before + after < len(lines) else (0, len(lines))


def _bar(lines):
    """How many of the lines (N, L), from the first one on, are a bar."""
    colour = np.median(lines[0])
    away = np.abs(lines - colour) > FLAT
    ends = away.mean(1) > 1 - PLAIN
    width = int(ends.argmax())  # 0 where there is no end either
    if colour > DARK or away[width:width + SOFT].any(0).mean() < EDGE:
        return 0
    return width
