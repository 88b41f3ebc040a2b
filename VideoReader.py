"""Frames in: VideoReader iterates the frames of a video file, a webcam or a folder of images.

    with VideoReader("dance.mp4") as reader:
        for frame in reader:            # uint8, H x W x 3, BGR
            ...
"""

import contextlib
import itertools
import queue
import threading
import time
from pathlib import Path

import av
import cv2
import numpy as np

from common.command_line import UserError, quiet_stderr, warn

IMAGE_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
FOLDER_FPS = 25.0  # frames a second of a folder of images, which does not say how fast they were taken
DEFAULT_FPS = 30.0  # frames a second of a camera or file that does not say it
AHEAD = 8  # frames that are decoded in advance: enough to hide a slow key frame, and 50 MB at 1080p


def read_ahead(items, size=AHEAD):
    """Yield the items of a generator, which runs in a thread of its own and up to `size` items in advance.

    An exception in it is raised here. Closing this generator stops the thread and closes that one.
    """
    ready, stop, end = queue.Queue(size), threading.Event(), object()

    def put(entry):
        while not stop.is_set():
            try:
                return ready.put(entry, timeout=0.1)
            except queue.Full:
                continue

    def work():
        try:
            for item in items:
                put((item, None))
                if stop.is_set():
                    break
            put((end, None))
        except BaseException as error:  # also KeyboardInterrupt: every exception is raised in the caller's thread
            put((end, error))
        finally:
            items.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is end:
                return
            yield item
    finally:
        stop.set()
        thread.join()


class NothingThere(UserError):
    """The video can be opened, but it has no frame, or no frame from `start` on."""


class VideoReader(contextlib.AbstractContextManager):
    """Iterates the frames of `source`, once, as uint8 H x W x 3 BGR images.

    source: path of a video file, path of a folder of images (in the order of their names), or the number of a webcam.
    start: how many frames at the beginning are left out; where the file's index can be trusted, they are not decoded.
    Attributes: size (width, height) in pixels after rotation; fps, the average rate; variable (True where the frames
    are not evenly spaced in time, as phones and screen recorders write them); frame_count (what the file claims, None
    where that is unknown, as for a webcam); live (True for a webcam).
    Memory does not grow with the length of the video. Raises UserError where there is nothing to read. A video that
    breaks off ends there, with one line of warning.
    """

    def __init__(self, source, start=0):
        self.source, self.live, self.variable = source, False, False
        if isinstance(source, int) or (str(source).isdecimal() and not Path(source).exists()):
            self.live = True
            self._frames = self._open_camera(int(source))
        else:
            path = Path(source)
            if not path.exists():
                raise UserError(f"there is no video {str(source)!r}; check the path")
            self._frames = self._open_folder(path, start) if path.is_dir() else self._open_file(path, start)
        self._first = next(self._frames, None)
        if self._first is None:
            raise NothingThere(f"no frame could be read from {str(source)!r}; is it a video?")
        self.size = self._first[1].shape[1::-1]
        self._ahead = None

    def __iter__(self):
        return (image for _, image in self.timed())

    def timed(self):
        """Yield (seconds since the video's first frame, image) for each frame, instead of iterating, once."""
        if self._first is None:
            raise RuntimeError("a VideoReader is read once; open another")
        first, self._first = self._first, None
        if self.live:  # the first frame of a webcam is old by now, and frames read in advance would be late
            begin = time.monotonic()
            yield from ((max(0, now - begin), image) for now, image in self._frames)
        else:
            yield first
            self._ahead = read_ahead(self._frames)
            yield from self._ahead

    def _open_file(self, path, start):
        try:
            # The path is absolute because FFmpeg takes "12:30.mp4" for a network address. Titles may have any encoding.
            container = av.open(str(path.absolute()), metadata_errors="ignore")
        except (av.FFmpegError, OSError) as error:
            raise UserError(f"{str(path)!r} can't be opened as a video: {error.strerror or error}") from None
        if not container.streams.video:
            container.close()
            raise UserError(f"{str(path)!r} holds no video stream; give a video")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        self.fps = _plausible(stream.average_rate or stream.guessed_rate)
        self.variable = abs(self.fps / _plausible(stream.guessed_rate) - 1) > 0.005
        self.frame_count = stream.frames or None
        return self._decode(path, container, stream, start)

    def _decode(self, path, container, stream, start):
        count, trouble, begin = start, "", None
        try:
            with container:
                frames, begin = _frames_from(path, start, container, stream)
                for frame in frames:
                    # Phones store frames as the sensor sees them, with the angle to show them at (display matrix).
                    image = np.rot90(frame.to_ndarray(format="bgr24"), round(frame.rotation / 90) % 4)
                    seconds = count / self.fps
                    if self.variable and frame.time is not None:  # a raw stream has no times
                        begin = frame.time if begin is None else begin
                        seconds = frame.time - begin
                    count += 1
                    yield seconds, np.ascontiguousarray(image)
        except av.FFmpegError as error:
            trouble = f" ({error.strerror})"
        if count > start and (trouble or count < (self.frame_count or 0)):
            said = f" of {self.frame_count}" if self.frame_count else ""
            warn(f"{str(path)!r} breaks off after {count}{said} frames{trouble}; going on with those")
            self.frame_count = count

    def _open_folder(self, path, start):
        names = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        if not names:
            raise UserError(f"the folder {str(path)!r} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
        self.fps, self.frame_count = FOLDER_FPS, len(names)
        return self._load(names[start:], start)

    def _load(self, names, start):
        size = None
        for number, name in enumerate(names, start):
            # imread does not take every file name on every system, imdecode gets the bytes.
            image = cv2.imdecode(np.fromfile(name, np.uint8), cv2.IMREAD_COLOR) if name.stat().st_size else None
            if image is None:
                raise UserError(f"{str(name)!r} can't be read as an image; remove it from the folder")
            size = size or image.shape
            if image.shape != size:
                raise UserError(f"{str(name)!r} is of another size than the images before it; make them equal")
            yield number / self.fps, image

    def _open_camera(self, index):
        with quiet_stderr():  # OpenCV prints ten lines about a missing camera
            camera = cv2.VideoCapture(index)
        if not camera.isOpened():
            raise UserError(f"camera {index} does not open; is it plugged in, free and allowed?")
        self.fps, self.frame_count = _plausible(camera.get(cv2.CAP_PROP_FPS)), None
        self.variable = True  # a camera's frames come when the program has time for them
        return self._capture(camera)

    @staticmethod
    def _capture(camera):
        try:
            while (read := camera.read())[0]:
                yield time.monotonic(), read[1]
        finally:
            camera.release()

    def close(self):
        if self._ahead is not None:
            self._ahead.close()
        self._frames.close()

    def __exit__(self, *exception):
        self.close()


def _frames_from(path, start, container, stream):
    """(the decoded frames of a stream from number `start` on, the time of the stream's first frame in seconds).

    The frames are those that decoding the whole file would give. The time is None where `start` is 0 or it is unknown.
    """
    if not start:
        return container.decode(stream), None
    times, keys = _trusted_index(path)
    keys = [pts for pts in keys if start < len(times) and pts <= times[start]]
    if len(keys) > 1:
        # The key frame before the last one is used: after some encoders' key frames, a few pictures are incomplete.
        container.seek(keys[-2], stream=stream)
        frames = itertools.dropwhile(lambda frame: frame.pts is None or frame.pts < times[start],
                                     container.decode(stream))
        first = next(frames, None)
        if first is not None and first.pts == times[start]:
            return itertools.chain([first], frames), float(times[0] * stream.time_base)
        container.seek(0, stream=stream)
    frames = container.decode(stream)
    begin = next(frames, None)
    return itertools.islice(frames, start - 1, None), begin.time if begin else None


def _trusted_index(path):
    """(the times of all frames, those of the key frames), sorted, in the stream's unit, if the file's index can be
    trusted; else ([], []).

    It can in a whole mp4 or Matroska file which begins with a key frame. In other formats the times are made up, and in
    a file without its beginning the index lists frames that can't be decoded.
    """
    with contextlib.suppress(av.FFmpegError), av.open(str(path.absolute()), metadata_errors="ignore") as container:
        if {"mp4", "matroska"} & set(container.format.name.split(",")):
            packets = [(packet.pts, packet.is_keyframe) for packet in container.demux(video=0)
                       if packet.size and not packet.is_discard]
            times = sorted({pts for pts, _ in packets} - {None})
            if times and len(packets) == len(times) and packets[0] == (times[0], True):
                return times, sorted(pts for pts, is_key in packets if is_key)
    return [], []


def index_count(source):
    """The number of frames that a file's index claims, or of images in a folder. Fewer may be readable."""
    with VideoReader(source) as reader:
        if reader.frame_count:
            return reader.frame_count
    with av.open(str(Path(source).absolute()), metadata_errors="ignore") as container:
        return sum(1 for packet in container.demux(container.streams.video[0]) if packet.size)


def latest_frame(path):
    """The last picture (uint8 H x W x 3 BGR) of a film, which may still be being written, or None."""
    packets, latest = [], None
    with contextlib.suppress(av.FFmpegError, OSError), av.open(str(Path(path).absolute())) as container:
        for packet in container.demux(video=0):
            if packet.is_keyframe:
                packets.clear()  # decoding can begin at a key frame
            packets.append(packet)
        for packet in packets:
            latest = [latest, *packet.decode()][-1]
    return None if latest is None else latest.to_ndarray(format="bgr24")


def _plausible(fps):
    """A frame rate as float; DEFAULT_FPS where a file or a camera gives none, or an absurd one."""
    return float(fps) if fps and 0.1 <= fps <= 1000 else DEFAULT_FPS
