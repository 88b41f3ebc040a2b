"""The frames of a video file as FFmpeg decodes them: which stream, from where on, and past what is damaged."""

import contextlib
import functools
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition

from common.command_line import UserError

STILLS = {"mjpeg", "png", "bmp", "gif", "tiff", "webp"}  # codecs of cover pictures, and of a few whole videos
MOST_ERRORS = 1000  # errors in reading, one after the other, after which the rest of a file is given up
INDEXED = {"mp4", "matroska"}  # formats that say the true time of each frame


def open_video(path):
    """(container, video stream) of the file at `path`. The caller closes the container. Of several video streams, cover
    pictures and what can't be decoded come last. Raises UserError where there is no video."""
    try:
        # The path is absolute because FFmpeg takes "12:30.mp4" for a network address. Titles may have any encoding.
        container = av.open(str(Path(path).absolute()), metadata_errors="ignore")
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{str(path)!r} can't be opened as a video ({reason}); give one that plays") from None
    streams = [stream for stream in container.streams.video if stream.codec_context is not None]
    if not streams:
        what = "a video stream that can't be decoded; convert it" if container.streams.video else "no video stream"
        container.close()
        raise UserError(f"{str(path)!r} holds {what}; give a video")
    best = container.streams.best("video")
    return container, min(streams, key=lambda stream: (
        bool(stream.disposition & Disposition.attached_pic), stream.codec_context.name in STILLS, stream != best))


class Decoder:
    """Decodes one video stream from its beginning, or from where `seek` has put it. Packets that can't be decoded are
    left out. damaged: whether there were any."""

    def __init__(self, container, stream):
        self._container, self._stream, self.damaged = container, stream, False
        stream.thread_type = "AUTO"

    def seek(self, pts):
        """Go on with the key frame at `pts`, in units of the stream, or the last one before it."""
        self._container.seek(pts, stream=self._stream)

    def __iter__(self):
        for packet in readable_packets(self._container, self._stream, self._note_damage):
            try:
                for frame in packet.decode():
                    self.damaged = self.damaged or frame.is_corrupt
                    yield frame
            except (av.InvalidDataError, av.UndefinedError, av.ArgumentError):
                self.damaged = True

    def _note_damage(self):
        self.damaged = True


def readable_packets(container, stream, damaged=lambda: None):
    """The packets of a stream; what can't be read is left out, and `damaged` is called then."""
    errors = 0
    while errors < MOST_ERRORS:
        try:
            for packet in container.demux(stream):
                errors = 0
                yield packet
            return
        except av.EOFError:
            return
        except av.FFmpegError:
            errors += 1
            damaged()


@dataclass(frozen=True)
class Index:
    """What a file says of its frames without decoding them.

    count: how many there are. times: int (N,), sorted, in units of `unit` seconds. keys: the times of the key frames.
    exact: whether the decoded frames have just these times.
    """

    count: int
    times: np.ndarray
    keys: np.ndarray
    unit: float
    exact: bool

    @property
    def seconds(self):
        """float64 (N,): the times in seconds since the first frame."""
        return (self.times - self.times[:1]) * self.unit


def read_index(path):
    """The Index of a video file, which is read once as long as it does not change: a long video takes seconds."""
    about = Path(path).stat()
    return _index_of_version(Path(path), about.st_size, about.st_mtime_ns)


@functools.lru_cache(64)
def _index_of_version(path, size, changed):
    packets, unit, exact = [], 0.0, False
    container, stream = open_video(path)
    with container, contextlib.suppress(av.FFmpegError):
        unit = float(stream.time_base or 0)
        for packet in container.demux(stream):
            if packet.size and not packet.is_discard:
                packets.append((packet.pts if packet.pts is not None else packet.dts, packet.is_keyframe))
        # In other formats the times are made up, and in a file without its beginning, frames can't be decoded.
        exact = bool(INDEXED & set(container.format.name.split(",")))
    known = [packet for packet in packets if packet[0] is not None]
    times = np.unique(np.array([pts for pts, _ in known], np.int64))
    exact = exact and 0 < len(times) == len(packets) and packets[0] == (times[0], True)
    keys = np.unique(np.array([pts for pts, is_key in known if is_key], np.int64))
    return Index(len(packets), times, keys, unit, exact)


def is_cut_off(path, container, stream):
    """Whether a file ends before the bytes that its header or its index counts: it was not copied or recorded whole.

    How many frames or seconds a header claims is no sign of that, since many programs write it wrongly.
    """
    size = Path(path).stat().st_size
    if "mp4" in container.format.name:
        return any(entry.pos + entry.size > size for entry in stream.index_entries)
    with open(path, "rb") as file:
        begin = file.read(200)
    if begin[:4] == b"RIFF":
        return int.from_bytes(begin[4:8], "little") + 8 > size
    # In Matroska, the Segment holds all but the beginning (RFC 8794 and 9559). A size of ones means that it is unknown.
    at = begin.find(b"\x18\x53\x80\x67") + 4
    if "matroska" in container.format.name and at >= 4 and begin[at:]:
        length = 9 - begin[at].bit_length()  # bytes of the size, told by the zeros at its beginning
        value = int.from_bytes(begin[at:at + length], "big") & (1 << 7 * length) - 1
        return value != (1 << 7 * length) - 1 and at + length + value > size
    return False
