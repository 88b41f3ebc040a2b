"""Frames in: VideoReader iterates the frames of a video file, a webcam or a folder of images.

    with VideoReader("dance.mp4") as reader:
        for frame in reader:            # uint8, H x W x 3, BGR
            ...
"""

import contextlib
import queue
import re
import threading
import time
from pathlib import Path

import av
import cv2
import numpy as np

from common.command_line import UserError, quiet_stderr, warn
from video.clip import ROUNDING, Clip
from video.decoding import is_cut_off, open_video, read_index
from video.pictures import FilePictures

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
    """Iterates the frames of `video`, once, as uint8 H x W x 3 BGR images: upright, with square pixels, in SDR colours.

    video: path of a video file, path of a folder of images (see video_images), the number of a webcam, or a Clip, of
    which the frames of its part are read. start: how many of these frames are left out at the beginning; where the
    file's index can be trusted, they are not decoded.
    Attributes: size (width, height) in pixels; fps, frames a second as the file claims them, while `timed` tells the
    truth; frame_count, what the file claims, None where that is unknown, as for a webcam; begin, seconds from the
    video's first frame to the first one of the part; stamp, the same by the file's own clock, which its sound has too;
    live (True for a webcam); began, the time.monotonic() at which the first frame of a webcam that
    was shown has arrived.
    Memory does not grow with the length of the video. Raises UserError where there is nothing to read. What is damaged
    is left out, with one line of warning.
    """

    def __init__(self, video, start=0):
        self.source, self.live, self.begin, self.stamp, self.began = video, False, 0.0, 0.0, 0.0
        if is_webcam(video):
            self.live = True
            self._frames = self._open_camera(int(video))
        else:
            clip = Clip.of(video)
            if not clip.path.exists():
                raise UserError(f"there is no video {str(clip.path)!r}; check the path")
            self._frames = (self._open_folder if clip.path.is_dir() else self._open_file)(clip, start)
        self._first = next(self._frames, None)
        if self._first is None:
            if not self.live and not clip.is_whole:
                raise NothingThere(str(clip.no_frames()))
            raise NothingThere(f"no frame could be read from {str(video)!r}; is it a video?")
        self.size = self._first[1].shape[1::-1]
        self._ahead = None

    def __iter__(self):
        return (image for _, image in self.timed())

    def timed(self):
        """Yield (seconds since the part's first frame, image) for each frame, instead of iterating, once. Of a webcam,
        it is always the newest frame; those that came while nobody asked are left out."""
        if self._first is None:
            raise RuntimeError("a VideoReader is read once; open another")
        first, self._first = self._first, None
        if self.live:  # the first frame of a webcam is old by now, and frames read in advance would be late
            for now, image in self._frames:
                self.began = self.began or now
                yield now - self.began, image
        else:
            yield first
            self._ahead = read_ahead(self._frames)
            yield from self._ahead

    def _open_file(self, clip, start):
        container, stream = open_video(clip.path)
        self.fps = _plausible(stream.average_rate)
        self.frame_count = stream.frames or None
        if not clip.is_whole:
            self.frame_count = int(clip.holds(read_index(clip.path).seconds).sum()) or None
        return self._decode(clip, start, container, stream)

    def _decode(self, clip, start, container, stream):
        """Yield (seconds since the part's first frame, image) from frame number `start` of the part on."""
        with container:
            pictures, begun = FilePictures(clip.path, container, stream, self.fps), False
            if start or clip.begin:
                index = read_index(clip.path)
                first = int(np.searchsorted(index.seconds, clip.begin - ROUNDING))  # of the part's frames
                if pictures.jump(index, first + start):
                    self.begin, begun, start = float(index.seconds[first]), True, 0
            for seconds, image in pictures:
                if clip.holds(seconds):
                    if not begun:
                        self.begin, begun = seconds, True
                    self.stamp = pictures.zero + self.begin
                    if not start:
                        yield seconds - self.begin, image
                    start = max(0, start - 1)
                elif seconds > clip.begin:
                    break  # the part ends before the file
            if clip.end is None and is_cut_off(clip.path, container, stream):
                of = f" of {stream.frames}" if stream.frames else ""
                warn(f"{str(clip.path)!r} breaks off after {pictures.number}{of} frames; going on with those")
            elif pictures.damaged:
                warn(f"{str(clip.path)!r} is damaged in places; going on with the frames that can be read")

    def _open_folder(self, clip, start):
        names = video_images(clip.path)
        if not names:
            raise UserError(f"the folder {str(clip.path)!r} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
        self.fps = FOLDER_FPS
        inside = np.flatnonzero(clip.holds(np.arange(len(names)) / self.fps))
        self.frame_count, self.begin = len(inside), float(inside[0] / self.fps) if len(inside) else 0.0
        return self._load([names[number] for number in inside[start:]], start)

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
        return self._capture(camera)

    @staticmethod
    def _capture(camera):
        """Yield (time of arrival, image) of a camera's newest frame. A thread takes all of them, since a camera keeps
        some that were not taken and gives these first."""
        newest, changed, stop = [], threading.Condition(), threading.Event()

        def put(frame):
            with changed:
                newest[:] = [frame]
                changed.notify()

        def work():
            try:
                while (read := camera.read())[0] and not stop.is_set():
                    put((time.monotonic(), read[1]))
            except cv2.error as error:  # for a program that films, this is the end of the film, which is kept
                warn(f"the camera failed ({error.err}); the video ends here")
            finally:
                put(None)  # also after an error, so that nobody waits for ever

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            while True:
                with changed:
                    changed.wait_for(lambda: newest)
                    if (frame := newest.pop()) is None:
                        return
                yield frame
        finally:
            stop.set()
            thread.join()
            camera.release()

    def close(self):
        if self._ahead is not None:
            self._ahead.close()
        self._frames.close()

    def __exit__(self, *exception):
        self.close()


def is_webcam(video):
    """Whether `video`, as for VideoReader, is the number of a webcam. A file may have a number as its name."""
    return isinstance(video, int) or (str(video).isdecimal() and not Path(str(video)).exists())


def video_images(folder):
    """The Paths of the images in a folder, in the order of their names, where numbers count as numbers: 9 before 10.
    Hidden files are passed over."""
    images = [path for path in Path(folder).iterdir()
              if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")]
    return sorted(images, key=lambda path: [(int(part), part) if part.isdecimal() else (-1, part)
                                            for part in re.split(r"(\d+)", path.name)])


def index_count(video):
    """The number of frames that the index of a video (as for VideoReader) claims. Fewer may be readable."""
    with VideoReader(video) as reader:
        return reader.frame_count or read_index(Clip.of(video).path).count


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
