"""Frames in and frames out.

VideoReader iterates the frames of a video file, a webcam or a folder of images; VideoWriter makes an H.264 mp4
that browsers play, at the source's frame rate and with the source's sound.

    with VideoReader("dance.mp4") as reader, VideoWriter("out.mp4", reader.fps, audio_from="dance.mp4") as writer:
        for frame in reader:            # uint8, H x W x 3, BGR
            writer.write(frame)
"""

import contextlib
import os
import queue
import threading
import time
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from CommandLine import UserError, quiet_stderr, warn, writable_folder

IMAGE_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
FOLDER_FPS = 25.0  # a folder of images does not say how fast it was taken
DEFAULT_FPS = 30.0  # of cameras and files that don't say
AHEAD = 8  # frames decoded in advance: enough to hide a slow key frame, 50 MB at 1080p
CLOCK = 90000  # ticks a second of a video whose frames are not evenly spaced (as MPEG's)
CRF = 18  # x264's constant quality: 18 is visually lossless or nearly so (FFmpeg's H.264 guide)
AAC_RATES = (48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)  # Hz
COPIED_AUDIO = {"aac", "mp3", "ac3", "eac3", "alac", "opus"}  # what mp4 players expect; the rest becomes AAC


def ahead(items, size=AHEAD):
    """Yield the items of an iterable that runs in a thread of its own, up to `size` items in advance.

    Its exceptions are raised here. Closing this generator stops the thread and closes the iterable.
    """
    ready, stop, end = queue.Queue(size), threading.Event(), object()

    def put(entry):
        while not stop.is_set():
            try:
                return ready.put(entry, timeout=0.1)
            except queue.Full:
                continue

    def work():
        iterator = iter(items)
        try:
            for item in iterator:
                put((item, None))
                if stop.is_set():
                    break
            put((end, None))
        except BaseException as error:  # handed over to the caller's thread, whatever it is
            put((end, error))
        finally:
            if hasattr(iterator, "close"):
                iterator.close()

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


class VideoReader:
    """Iterates the frames of `source`, once, as uint8 H x W x 3 BGR images.

    source: path of a video file, path of a folder of images (in the order of their names), or the number of a
        webcam (an int, or its digits as a string).
    Attributes: size (width, height) in pixels after rotation; fps, the average rate; variable (True where frames are
        not evenly spaced in time, as phones and screen recorders write them); frame_count (None where unknown, as for
        a webcam; else what the file claims); live (True for a webcam).
    Memory does not grow with the length of the video. Raises UserError where there is nothing to read; a video
    that breaks off ends there, with one line of warning.
    """

    def __init__(self, source):
        self.source, self.live, self.variable = source, False, False
        if isinstance(source, int) or (str(source).isdecimal() and not Path(source).exists()):
            self.live = True
            self._frames = self._open_camera(int(source))
        else:
            path = Path(source)
            if not path.exists():
                raise UserError(f"there is no video {str(source)!r}; check the path")
            self._frames = self._open_folder(path) if path.is_dir() else self._open_file(path)
        self._first = next(self._frames, None)
        if self._first is None:
            raise UserError(f"no frame could be read from {str(source)!r}; is it a video?")
        self.size = self._first[1].shape[1::-1]
        self._ahead = None

    def __iter__(self):
        return (image for _, image in self.timed())

    def timed(self):
        """The frames with their times: (seconds since the first one, image). In place of iterating, once."""
        if self._first is None:
            raise RuntimeError("a VideoReader is read once; open another")
        first, self._first = self._first, None
        if self.live:  # its first frame is old by now, and frames read in advance would only be late
            begin = time.monotonic()
            yield from ((max(0, now - begin), image) for now, image in self._frames)
        else:
            yield first
            self._ahead = ahead(self._frames)
            yield from self._ahead

    def _open_file(self, path):
        try:
            # absolute, since FFmpeg takes "12:30.mp4" for an address; and titles may be in any old encoding
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
        return self._decode(path, container, stream)

    def _decode(self, path, container, stream):
        count, trouble, begin = 0, "", None
        try:
            with container:
                for frame in container.decode(stream):
                    # a phone stores its frames unturned, with the angle to show them at (display matrix)
                    image = np.rot90(frame.to_ndarray(format="bgr24"), round(frame.rotation / 90) % 4)
                    seconds = count / self.fps
                    if self.variable and frame.time is not None:  # a raw stream has no times
                        begin = frame.time if begin is None else begin
                        seconds = frame.time - begin
                    count += 1
                    yield seconds, np.ascontiguousarray(image)
        except av.FFmpegError as error:
            trouble = f" ({error.strerror})"
        if count and (trouble or count < (self.frame_count or 0)):
            said = f" of {self.frame_count}" if self.frame_count else ""
            warn(f"{str(path)!r} breaks off after {count}{said} frames{trouble}; going on with those")
            self.frame_count = count

    def _open_folder(self, path):
        names = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        if not names:
            raise UserError(f"the folder {str(path)!r} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
        self.fps, self.frame_count = FOLDER_FPS, len(names)
        return self._load(names)

    def _load(self, names):
        size = None
        for number, name in enumerate(names):
            # imdecode, not imread: it takes any file name on every system
            image = cv2.imdecode(np.fromfile(name, np.uint8), cv2.IMREAD_COLOR) if name.stat().st_size else None
            if image is None:
                raise UserError(f"{str(name)!r} can't be read as an image; remove it from the folder")
            size = size or image.shape
            if image.shape != size:
                raise UserError(f"{str(name)!r} is of another size than the images before it; make them equal")
            yield number / self.fps, image

    def _open_camera(self, index):
        with quiet_stderr():  # OpenCV would explain a missing camera in ten lines of its own
            camera = cv2.VideoCapture(index)
        if not camera.isOpened():
            raise UserError(f"camera {index} does not open; is it plugged in, free and allowed?")
        self.fps, self.frame_count = _plausible(camera.get(cv2.CAP_PROP_FPS)), None
        self.variable = True  # it gives as many frames as there is time for
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

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


def _plausible(fps):
    """A frame rate as float; DEFAULT_FPS where a file or a camera's driver says nothing sensible."""
    return float(fps) if fps and 0.1 <= fps <= 1000 else DEFAULT_FPS


class VideoWriter:
    """Writes uint8 H x W x 3 BGR images, all of one size, as an H.264 yuv420p mp4 with `comment=synthetic`.

    path: the mp4. It appears when complete (`close`); until then the work is in a temporary file beside it.
    fps: frames per second, evenly spaced; variable: each frame at the time that `write` is told instead, fps their
    average. audio_from: a file whose sound is carried over as far as the picture goes, copied where mp4 can hold its
    codec, else encoded as AAC; None, or a file without sound, gives a silent video.
    Odd sizes are padded to even ones by repeating the last row or column (yuv420p halves the colour planes).
    As a context manager it keeps what was written when Ctrl-C ends it and leaves nothing after another error.
    """

    def __init__(self, path, fps, audio_from=None, variable=False):
        self.path = Path(path)
        if self.path.is_dir():
            raise UserError(f"{str(path)!r} is a folder; name the mp4 to write")
        self._part = writable_folder(self.path.parent) / f".{self.path.name}.{os.getpid()}.part"
        self._rate = Fraction(fps).limit_denominator(1001)  # 30000/1001 and its like come out exactly
        self._container = av.open(str(self._part.absolute()), "w", format="mp4", options={"movflags": "faststart"})
        self._container.metadata["comment"] = "synthetic"
        self._video = self._container.add_stream("libx264", rate=self._rate)
        self._ticks = CLOCK if variable else self._rate  # of the presentation times, a second
        self._video.codec_context.time_base = 1 / Fraction(self._ticks)
        self._last = -1
        self._video.pix_fmt = "yuv420p"
        self._video.options = {"crf": str(CRF), "preset": "veryfast"}
        self._audio = _Audio(audio_from, self._container) if audio_from is not None else None
        self.count = 0

    def write(self, image, seconds=None):
        """Add a frame; seconds: its time since the first one, which counts where the rate is variable."""
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3, "uint8 BGR images only"
        height, width = image.shape[:2]
        if height % 2 or width % 2:
            image = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        if self.count == 0:
            self._video.height, self._video.width = image.shape[:2]
            context = self._video.codec_context
            context.colorspace, context.color_range = Colorspace.ITU601, ColorRange.MPEG
        # OpenCV rounds (BT.601, limited range); FFmpeg's own conversion truncates, which darkens by up to 2 levels
        frame = av.VideoFrame.from_ndarray(cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420), format="yuv420p")
        self._last = max(self._last + 1, round(seconds * CLOCK)) if self._ticks == CLOCK else self.count
        frame.pts, frame.time_base = self._last, 1 / Fraction(self._ticks)
        try:
            self._container.mux(self._video.encode(frame))
            self.count += 1
            if self._audio:
                self._audio.mux_until(self._last / Fraction(self._ticks) + 1 / self._rate)
        except av.FFmpegError as error:
            raise UserError(f"can't write {self.path}: {error.strerror}") from None

    def close(self):
        """Finish the file and move it to its place; with no frame written, leave nothing."""
        if self.count == 0:
            return self.discard()
        try:
            self._container.mux(self._video.encode(None))
            if self._audio:
                self._audio.finish()
            self._container.close()
            os.replace(self._part, self.path)
        except (av.FFmpegError, OSError) as error:
            raise UserError(f"can't write {self.path}: {error.strerror}") from None
        finally:
            self._part.unlink(missing_ok=True)

    def discard(self):
        """Stop and remove the temporary file; what was at `path` before stays."""
        if self._audio:
            self._audio.close()
        with contextlib.suppress(av.FFmpegError, OSError):  # a disk that is full can't take the index either
            self._container.close()
        self._part.unlink(missing_ok=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None or kind is KeyboardInterrupt:
            self.close()
        else:
            self.discard()


class _Audio:
    """The first sound stream of a file, fed packet by packet into an output container."""

    def __init__(self, path, output):
        self._input, self._output = None, output
        self._packets, self._next, self._encoding = iter(()), None, False
        try:
            self._input = av.open(str(Path(path).absolute()), metadata_errors="ignore")
        except (av.FFmpegError, OSError):  # a folder of images, or a source that has gone: no sound
            return
        if not self._input.streams.audio:
            return
        stream, video = self._input.streams.audio[0], self._input.streams.video
        # the picture will start at 0, so the sound moves by where the source's picture starts
        self._start = Fraction(video[0].start_time or 0) * video[0].time_base if video else Fraction(0)
        if stream.codec_context.codec.canonical_name in COPIED_AUDIO:
            self._stream = output.add_stream_from_template(stream)
            self._packets = self._copied(stream)
        else:
            rate = stream.codec_context.sample_rate
            self._stream = output.add_stream("aac", rate=rate if rate in AAC_RATES else AAC_RATES[0])
            self._packets = self._encoded(stream)
            self._encoding = True

    def _copied(self, stream):
        for packet in self._input.demux(stream):
            if packet.dts is None:  # the flushing packet at the end
                continue
            shift = round(self._start / packet.time_base)
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            if packet.pts >= 0:
                packet.stream = self._stream
                yield packet.pts * packet.time_base, packet

    def _encoded(self, stream):
        context = self._stream.codec_context
        resampler = av.AudioResampler(format="fltp", layout=stream.layout.name, rate=context.sample_rate)
        for frame in self._input.decode(stream):
            time = Fraction(frame.pts or 0) * frame.time_base - self._start
            if time < 0:
                continue
            frame.pts = round(time / frame.time_base)
            for part in resampler.resample(frame):
                for packet in self._stream.encode(part):
                    yield time, packet
        for part in resampler.resample(None):
            for packet in self._stream.encode(part):
                yield time, packet

    def mux_until(self, seconds):
        """Hand over the packets that begin before `seconds` of picture."""
        try:
            while self._input:
                self._next = self._next or next(self._packets, None)
                if self._next is None or self._next[0] >= seconds:
                    return
                self._output.mux(self._next[1])
                self._next = None
        except av.FFmpegError as error:
            warn(f"the source's sound breaks off ({error.strerror})")
            self._packets, self._next = iter(()), None

    def finish(self):
        """Hand over what the encoder still holds, and close."""
        if self._encoding:
            self._output.mux(self._stream.encode(None))
        self.close()

    def close(self):
        if self._input:
            self._input.close()
            self._input = None
