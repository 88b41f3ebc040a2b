"""Frames in and out: round trips, rotation, sound, streaming, and what is left behind after an error."""

import itertools
import struct
import threading
import time

import av
import cv2
import numpy as np
import pytest

from common.command_line import UserError
from video.film import VideoWriter
from VideoReader import NothingThere, VideoReader, index_count, latest_frame, read_ahead


def coloured(count, width=64, height=48):
    """Frames with a different grey level in each quarter, changing over time."""
    frames = []
    for i in range(count):
        frame = np.zeros((height, width, 3), np.uint8)
        frame[:height // 2, :width // 2] = (200, 40 + i, 20)
        frame[height // 2:, width // 2:] = (30, 60, 220 - i)
        frames.append(frame)
    return frames


def write(path, frames, fps=30, **more):
    with VideoWriter(path, fps, **more) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def tone(path, codec, seconds, rate=48000, container_format=None):
    """A video of `seconds` at 10 frames/s with a 440 Hz tone in the given codec."""
    with av.open(str(path), "w", format=container_format) as container:
        video = container.add_stream("mpeg4", rate=10)
        video.width = video.height = 64
        audio = container.add_stream(codec, rate=rate)
        for i in range(round(seconds * 10)):
            container.mux(video.encode(av.VideoFrame.from_ndarray(coloured(1, 64, 64)[0], format="bgr24")))
            samples = np.sin(2 * np.pi * 440 * (np.arange(rate // 10) + i * rate // 10) / rate)
            frame = av.AudioFrame.from_ndarray((samples * 20000).astype(np.int16)[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts = rate, i * rate // 10
            container.mux(audio.encode(frame))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    return path


def sound(path):
    """(codec, samples as one float array, rate) of a file's sound."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        parts = [frame.to_ndarray().astype(float).mean(0) for frame in container.decode(stream)]
        return stream.codec_context.codec.canonical_name, np.concatenate(parts), stream.codec_context.sample_rate


@pytest.mark.parametrize("fps", [15, 25, 30000 / 1001, 60])
def test_round_trip_keeps_count_rate_size_and_colour(tmp_path, fps):
    frames = coloured(9)
    path = write(tmp_path / "ä clip.mp4", frames, fps)
    with VideoReader(path) as reader:
        assert (reader.size, reader.frame_count) == ((64, 48), 9)
        assert reader.fps == pytest.approx(fps, abs=1e-9)
        read = list(reader)
    assert len(read) == 9
    for a, b in zip(frames, read, strict=True):
        assert b.dtype == np.uint8 and b.flags.c_contiguous
        assert np.abs(a[5:15, 5:20].astype(int) - b[5:15, 5:20]).max() <= 8  # a wrong colour matrix gives 20
        assert np.abs(a[-15:-5, -20:-5].astype(int) - b[-15:-5, -20:-5]).max() <= 8


def test_uneven_frame_times_are_kept(tmp_path):
    """As phones and screen recorders write them: 2 s at 30 frames/s, then 6 s at 10."""
    times = [i / 30 for i in range(60)] + [2 + i / 10 for i in range(60)]
    path, copy = tmp_path / "uneven.mp4", tmp_path / "copy.mp4"
    with VideoWriter(path, 15, variable=True) as writer:
        for frame, seconds in zip(coloured(120), times, strict=True):
            writer.write(frame, seconds)
    with VideoReader(path) as reader, VideoWriter(copy, reader.fps, path, variable=True) as writer:
        assert reader.frame_count == 120 and reader.fps == pytest.approx(15, rel=0.03)
        for seconds, frame in reader.timed():
            writer.write(frame, seconds)
    for made in (path, copy):
        with VideoReader(made) as reader:
            assert np.allclose([seconds for seconds, _ in reader.timed()], times, atol=1e-3)
    for start in (1, 70):  # the times count from the video's first frame, wherever the reading starts
        with VideoReader(path, start) as reader:
            assert np.allclose([seconds for seconds, _ in reader.timed()], times[start:], atol=1e-3)
    with VideoReader(write(tmp_path / "even.mp4", coloured(9), 30000 / 1001)) as reader:
        assert [round(s * 30000 / 1001, 6) for s, _ in reader.timed()] == list(range(9))


@pytest.mark.parametrize("angle", [0, 90, 180, 270])
def test_rotation_metadata_is_honoured(tmp_path, angle):
    path = write(tmp_path / "a.mp4", coloured(2, 64, 48))
    upright = next(iter(VideoReader(path)))
    # the matrix of the track header (ISO 14496-12, 8.3.2): where a player shall turn the picture to
    data = bytearray(path.read_bytes())
    a, b, c, d = {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[angle]
    at = data.rindex(b"tkhd") + 4 + 40  # the last one counts: those before belong to hidden fragments
    data[at:at + 36] = struct.pack(">9i", *(v << 16 for v in (a, b, 0, c, d, 0, 0, 0)), 1 << 30)
    path.write_bytes(data)
    with VideoReader(path) as reader:
        turned = next(iter(reader))
        assert reader.size == ((64, 48) if angle % 180 == 0 else (48, 64))
    assert np.array_equal(turned, np.rot90(upright, -angle // 90))  # clockwise by the angle


def test_folder_of_images_in_the_order_of_names(tmp_path):
    for i, frame in enumerate(coloured(4)):
        cv2.imwrite(str(tmp_path / f"{i}.png"), frame)
    (tmp_path / "notes.txt").write_text("not an image")
    with VideoReader(tmp_path) as reader:
        assert (reader.size, reader.frame_count) == ((64, 48), 4)
        assert all(np.array_equal(a, b) for a, b in zip(reader, coloured(4), strict=True))


@pytest.mark.parametrize("make", [
    lambda p: None,
    lambda p: p.write_bytes(b""),
    lambda p: p.write_text("this is no video"),
    lambda p: p.write_bytes(cv2.imencode(".png", coloured(1)[0])[1].tobytes()[:60]),
    lambda p: p.mkdir(),
], ids=["missing", "empty", "text", "broken image", "empty folder"])
def test_what_is_no_video_is_refused_in_one_line(tmp_path, make):
    make(path := tmp_path / "clip.mp4")
    with pytest.raises(UserError, match=r"clip\.mp4") as refusal:
        VideoReader(path)
    assert "\n" not in str(refusal.value)


def test_a_camera_that_is_not_there_is_refused_in_one_line(capfd):
    with pytest.raises(UserError, match="camera 77"):
        VideoReader("77")
    assert capfd.readouterr().err == ""


def test_a_truncated_video_gives_what_can_be_read_and_one_line(tmp_path, capsys):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:  # its index stands first
        stream = container.add_stream("libx264", rate=30)
        stream.width = stream.height = 64
        for i in range(40):
            noise = np.random.default_rng(i).integers(0, 255, (64, 64, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="bgr24")))
        container.mux(stream.encode(None))
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])
    count = len(list(VideoReader(path)))
    assert 5 < count < 40
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"breaks off after {count} of 40 frames" in said


X264 = [{}, {"x264-params": "open-gop=1:keyint=20:bframes=3"}, {"x264-params": "intra-refresh=1:keyint=20"}]


@pytest.mark.parametrize("suffix, codec, options", [
    *((suffix, "libx264", options) for suffix in ("mp4", "mkv", "avi", "ts", "h264") for options in X264),
    *((suffix, "mpeg4", {"g": "12"}) for suffix in ("mp4", "mkv", "avi", "ts")), ("folder", "no video", {})])
def test_starting_later_gives_the_very_same_frames(tmp_path, suffix, codec, options):
    path, count = tmp_path / f"a.{suffix}", 100
    wide = np.random.default_rng(0).integers(0, 255, (64, 400, 3), np.uint8)
    pictures = [np.ascontiguousarray(wide[:, 2 * i:2 * i + 64]) for i in range(count)]
    if codec == "no video":
        path.mkdir()
        for i in range(count):
            cv2.imwrite(str(path / f"{i:03}.png"), pictures[i])
    else:
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=30, options=options)
            stream.width = stream.height = 64
            for i in range(count):
                frame = av.VideoFrame.from_ndarray(pictures[i], format="bgr24")
                frame.pts = i + i // 7 * (suffix in ("mp4", "mkv"))  # as a phone leaves frames out
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    whole = list(VideoReader(path))
    assert len(whole) == index_count(path) == count
    _starts_anywhere(path, whole)


@pytest.mark.parametrize("suffix", ["mkv", "ts"])
def test_starting_later_in_a_film_that_begins_in_the_middle(tmp_path, suffix):
    """A cut recording: its first frames hang on what is not there, and are in the index but not in the picture."""
    film, cut = tmp_path / f"a.{suffix}", tmp_path / f"cut.{suffix}"
    wide = np.random.default_rng(0).integers(0, 255, (64, 400, 3), np.uint8)
    with av.open(str(film), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"x264-params": "open-gop=1:keyint=20:bframes=3"})
        stream.width = stream.height = 64
        for i in range(100):
            picture = np.ascontiguousarray(wide[:, 2 * i:2 * i + 64])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(stream.encode(None))
    with av.open(str(film)) as old, av.open(str(cut), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(packet for packet in old.demux(video=0) if packet.size):
            if number >= 27:
                packet.stream = stream
                new.mux(packet)
    _starts_anywhere(cut, list(VideoReader(cut)))


def _starts_anywhere(path, whole):
    for start in (1, 19, 20, 21, 57, len(whole) - 1):
        part = list(VideoReader(path, start))
        assert len(part) == len(whole) - start and all(map(np.array_equal, part, whole[start:])), start
    with pytest.raises(NothingThere):
        VideoReader(path, len(whole))


def test_read_ahead_is_bounded_and_ends_with_its_reader():
    made = []

    def numbers():
        try:
            for i in itertools.count():
                made.append(i)
                yield i
        finally:
            made.append("closed")

    before = threading.active_count()
    items = read_ahead(numbers(), 4)
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    time.sleep(0.3)
    assert made[-1] <= 3 + 4 + 1  # taken, waiting, in hand
    items.close()
    assert made[-1] == "closed" and threading.active_count() == before


def test_read_ahead_hands_over_exceptions():
    def broken():
        yield 1
        raise ValueError("here")

    items = read_ahead(broken())
    assert next(items) == 1
    with pytest.raises(ValueError, match="here"):
        next(items)


def test_the_latest_frame_of_a_film_in_the_making(tmp_path):
    """Of what is on the disk by then, some seconds behind; of what is no film, none."""
    path, part = tmp_path / "film.mp4", tmp_path / ".film.mp4.part"
    shades = [np.full((48, 64, 3), level, np.uint8) for level in np.linspace(10, 240, 200).astype(int)]
    assert latest_frame(part) is None
    with VideoWriter(path, 10) as writer:
        for shade in shades:
            writer.write(shade)
        assert 20 < latest_frame(part).mean() < 230
    assert abs(latest_frame(path).mean() - 240) < 3
    part.write_bytes(path.read_bytes()[:100])
    assert latest_frame(part) is None


@pytest.mark.parametrize("fails", [False, True])
def test_of_a_webcam_the_newest_frame_is_given_and_older_ones_are_dropped(fails, monkeypatch, capfd):
    """A stand-in that numbers its frames, 100 a second, and keeps those that were not taken, as real cameras do. It
    ends as when it is pulled out, or with an error of OpenCV."""

    class Camera:
        released, moments = False, {}  # moments: when each frame was given

        def __init__(self, index):
            self.begin, self.given = time.monotonic(), 0

        def isOpened(self):
            return True

        def get(self, _):
            return 100.0

        def read(self):
            self.given += 1
            time.sleep(max(0, self.begin + self.given / 100 - time.monotonic()))
            Camera.moments[self.given] = time.monotonic()
            if fails and self.given == 60:
                cv2.resize(np.zeros((0, 0), np.uint8), (4, 4))
            return self.given < 60, np.full((4, 4, 3), self.given, np.uint8)

        def release(self):
            Camera.released = True

    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    seen = []
    with VideoReader(0) as reader:
        for seconds, image in reader.timed():
            seen.append((seconds, int(image[0, 0, 0])))
            time.sleep(0.1)  # ten times as slow as the camera
    seconds, numbers = np.array(seen).T
    assert Camera.released and len(seen) < 9 and np.diff(numbers).min() >= 5  # it ends with the camera
    moments = np.array([Camera.moments[number] for number in numbers])
    assert np.allclose(seconds, moments - moments[0], atol=0.15)
    said = capfd.readouterr().err
    assert said.count("\n") == fails and ("warning: the camera failed" in said) == fails
