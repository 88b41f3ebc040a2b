"""Frames out: VideoWriter writes an H.264 mp4 that browsers play, with the source's frame rate and sound.

    with VideoReader("dance.mp4") as reader, VideoWriter("out.mp4", reader.fps, audio_from="dance.mp4") as writer:
        for frame in reader:            # uint8, H x W x 3, BGR
            writer.write(frame)
"""

import contextlib
import os
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from common.command_line import UserError, warn, writable_folder
from common.files import LONGEST_NAME, file_lock, hidden_beside, shorten
from video.sound import Sound

CLOCK = 90000  # ticks a second in a video whose frames are not evenly spaced, as in MPEG
# Seconds of film between two saves, each of which begins with a keyframe: so much is lost when the process is killed.
# With fewer seconds the film is larger.
FRAGMENT = 4
PRESET = "veryfast"  # of x264: with the next faster one a film is twice as large
CRF = 18  # x264's constant quality; 18 is visually lossless or nearly so (FFmpeg's H.264 guide)


class VideoWriter(contextlib.AbstractContextManager):
    """Writes uint8 H x W x 3 BGR images, all of one size, as an H.264 yuv420p mp4 with `comment=synthetic`.

    path: the mp4. It appears when it is complete (`close`). Until then the film is in a hidden file beside it. If the
    process is killed, that file can be played except for its last FRAGMENT seconds, and the next writer of `path` keeps
    it as ...-unfinished.mp4. Two writers can't write one path at once: the second raises UserError.
    fps: frames per second, evenly spaced. variable: each frame has the time that `write` is given, fps is the average.
    audio_from: a file whose sound is carried over as far as the picture goes (see video.sound.Sound). None, or a file
    without sound, gives a silent film. audio_begin: where in the sound the film begins (VideoReader.stamp).
    Odd sizes are padded to even ones by repeating the last row or column, because yuv420p halves the colour planes.
    As a context manager it keeps what was written when Ctrl-C ends it, and leaves nothing after another error.
    """

    def __init__(self, path, fps, audio_from=None, variable=False, audio_begin=0.0):
        self.path = Path(path)
        check_film_name(self.path)
        writable_folder(self.path.parent)
        self._part = part_of(self.path)
        self._rate = Fraction(fps).limit_denominator(1001)  # 30000/1001 and its like come out exactly
        with contextlib.ExitStack() as stack:
            stack.enter_context(file_lock(self.path, "writing"))
            _rescue(self._part, self.path)
            self._container = self._open()
            self._container.metadata["comment"] = "synthetic"
            self._video = self._container.add_stream("libx264", rate=self._rate)
            self._ticks = CLOCK if variable else self._rate  # a second, of the presentation times
            self._video.codec_context.time_base = 1 / Fraction(self._ticks)
            self._video.codec_context.gop_size = max(round(FRAGMENT * self._rate), 1)
            self._video.pix_fmt = "yuv420p"
            self._video.options = {"crf": str(CRF), "preset": PRESET}
            self._sound = Sound(audio_from, self._container, audio_begin) if audio_from is not None else None
            self._held = stack.pop_all()
        self._last, self.count = -1, 0

    def _open(self):
        # The film is written in fragments, which become one plain mp4 at the end. Each ends before a keyframe: between
        # other frames, which are not stored in the order in which they are shown, it could lose the film's last frame.
        # Without delay_moov the first packets of the sound, which only prepare the decoder, would be heard, and the
        # sound would be late.
        options = {"movflags": "hybrid_fragmented+delay_moov+frag_keyframe", "flush_packets": "1"}
        try:
            return av.open(str(self._part.absolute()), "w", format="mp4", options=options)
        except (av.FFmpegError, OSError) as error:
            raise UserError(f"can't write {self.path}: {error.strerror}; name another file") from None

    def write(self, image, seconds=None):
        """Add a frame (uint8 H x W x 3 BGR). seconds: since the first one, needed where the rate is variable."""
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3, "uint8 BGR images only"
        height, width = image.shape[:2]
        if height % 2 or width % 2:
            image = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        if self.count == 0:
            self._video.height, self._video.width = image.shape[:2]
            context = self._video.codec_context
            context.colorspace, context.color_range = Colorspace.ITU601, ColorRange.MPEG
        # OpenCV rounds in this conversion (BT.601, limited range); FFmpeg truncates, which darkens by up to 2 levels.
        frame = av.VideoFrame.from_ndarray(cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420), format="yuv420p")
        self._last = max(self._last + 1, round(seconds * CLOCK)) if self._ticks == CLOCK else self.count
        frame.pts, frame.time_base = self._last, 1 / Fraction(self._ticks)
        frame.duration = round(self._ticks / self._rate)  # it counts for the last frame only
        try:
            self._container.mux(self._video.encode(frame))
            self.count += 1
            if self._sound:
                self._sound.mux_until(self._last / Fraction(self._ticks) + 1 / self._rate)
        except av.FFmpegError as error:
            raise UserError(f"can't write {self.path}: {error.strerror}") from None

    def close(self):
        """Finish the film and move it to its place. If no frame was written, nothing is left."""
        if self.count == 0:
            return self.discard()
        try:
            self._container.mux(self._video.encode(None))
            if self._sound:
                self._sound.close()
            self._container.close()
        except (av.FFmpegError, OSError) as error:
            self.discard()
            raise UserError(f"can't write {self.path}: {error.strerror}") from None
        with self._held:
            try:
                os.replace(self._part, self.path)
            except OSError as error:  # on Windows, when an older film is open in a player; this film is complete
                kept = _unfinished(self.path)
                os.replace(self._part, kept)
                raise UserError(f"can't write {self.path}: {error.strerror}; the film is at {kept}") from None

    def discard(self):
        """Stop and remove the hidden file. What was at `path` before stays."""
        if self._sound:
            self._sound.close()
        with contextlib.suppress(av.FFmpegError, OSError):  # a full disk does not take the index either
            self._container.close()
        self._part.unlink(missing_ok=True)
        self._held.close()

    def __exit__(self, kind, *_):
        if kind is None or kind is KeyboardInterrupt:
            self.close()
        else:
            self.discard()


def check_film_name(path):
    """Raise UserError where `path` (a Path) can't be the name of an mp4."""
    if path.is_dir():
        raise UserError(f"{str(path)!r} is a folder; name the mp4 to write")
    if path.suffix.lower() not in (".mp4", ".m4v"):
        raise UserError(f"{str(path)!r} would hold an mp4, whatever its name says; let the name end in .mp4")


def part_of(path):
    """The hidden Path beside `path` (a Path) where its film is while it is being written."""
    return hidden_beside(path, ".part")


def _unfinished(path):
    """A free name beside `path` for a film that could not be finished or moved there."""
    stem = shorten(path.stem, LONGEST_NAME - len("-unfinished123456.mp4"))
    names = (path.with_name(f"{stem}-unfinished{number}.mp4") for number in ["", *range(2, 10 ** 6)])
    return next(name for name in names if not name.exists())


def _rescue(part, path):
    """Keep the hidden file `part` that a killed writer of `path` has left, if there is a picture in it."""
    if not part.exists():
        return
    kept = _unfinished(path)
    try:
        with av.open(str(part.absolute())) as container:
            next(container.decode(video=0))
        os.replace(part, kept)
    except (av.FFmpegError, StopIteration, IndexError, OSError):  # it was killed within its first seconds
        part.unlink(missing_ok=True)
    else:
        warn(f"a run that was killed had begun {path.name}; its film so far is at {kept}")
