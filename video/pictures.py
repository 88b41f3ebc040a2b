"""The pictures of a video file with their times, from its beginning or from a later frame on."""

import itertools

from video.clip import ROUNDING
from video.decoding import Decoder
from video.upright import Upright

RESET = 0.2  # seconds: where the times go back by more, another recording begins, and its times go on from here
LEAP = 10.0  # seconds: in a transport stream, which may be cut anywhere, a larger step forward is not a pause either


class FilePictures:
    """Iterates (seconds since the file's first frame, picture uint8 H x W x 3 BGR) of an open video file, once.

    fps: the rate at which frames without times follow each other. Seconds never go back.
    Attributes: number, how many frames of the file lie before the next one; damaged, whether something could not be
    decoded so far.
    """

    def __init__(self, path, container, stream, fps):
        self._decoder, self._upright, self._fps = Decoder(container, stream), Upright(path, stream), fps
        self._may_leap = container.format.name == "mpegts"
        self._zero, self._last, self.number = None, None, 0
        self._pictures = self._upright_pictures()

    @property
    def zero(self):
        """The file's own time, in seconds, of its first frame; 0 where its frames have no times."""
        return self._zero or 0.0

    @property
    def damaged(self):
        return self._decoder.damaged

    def _upright_pictures(self):
        for frame in self._decoder:
            yield from self._upright.pictures(frame)
        yield from self._upright.rest()

    def __iter__(self):
        for stamp, picture in self._pictures:
            self.number += 1
            yield self._seconds(stamp), picture

    def _seconds(self, stamp):
        """The time of the next frame, whose timestamp in seconds is `stamp` (or None)."""
        expected = 0.0 if self._last is None else self._last + 1 / self._fps
        if stamp is None:
            seconds = expected
        else:
            if self._zero is None:
                self._zero = stamp - expected
            seconds = stamp - self._zero
            if self._last is not None and (
                    seconds < self._last - RESET or (self._may_leap and seconds > self._last + LEAP)):
                self._zero, seconds = stamp - expected, expected
        self._last = seconds if self._last is None else max(seconds, self._last)
        return self._last

    def jump(self, index, number):
        """Go to the frame `number`, and return whether the file's Index allows that without decoding all frames before
        it; if not, the first frame comes next. The file's first picture gives the pictures' size, and time 0."""
        keys = index.keys[index.keys <= index.times[number]] if 0 <= number < len(index.times) else []
        if not index.exact or len(keys) < 3:
            return False
        first = next(self._pictures, None)
        if first is not None and first[0] is not None and abs(first[0] - index.times[0] * index.unit) < ROUNDING:
            self._zero, goal = first[0], index.times[number] * index.unit
            # The key frame before the last one is used: after some encoders' key frames, a few pictures are incomplete.
            self._seek(int(keys[-2]))
            before = itertools.dropwhile(lambda entry: entry[0] is None or entry[0] < goal - ROUNDING, self._pictures)
            found = next(before, None)
            if found is not None and abs(found[0] - goal) < ROUNDING:
                self._pictures, self.number = itertools.chain([found], before), number
                return True
        self._zero = None
        self._seek(int(index.times[0]))
        return False

    def _seek(self, pts):
        self._decoder.seek(pts)
        self._upright.forget()
        self._pictures = self._upright_pictures()
