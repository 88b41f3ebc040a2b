"""Video files as people's devices and programs write them: times, orientation, pixel shape, colours, damage, parts."""

import struct
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from common.command_line import UserError
from video.clip import Clip
from video.film import VideoWriter
from VideoReader import NothingThere, VideoReader, index_count

SIZE = 96


def moving_disc(number, size=SIZE):
    """A grey picture with a red disc that moves, and a blue corner: nothing in it looks the same turned or mirrored."""
    image = np.full((size, size, 3), 60, np.uint8)
    image[:size // 4, :size // 3] = (220, 60, 20)
    return cv2.circle(image, (size // 3 + number % (size // 2), size // 2), size // 6, (30, 40, 220), -1)


def encode(path, pictures, codec="libx264", stamps=None, pixels="yuv420p", rate=30, options=None, stream_options=None,
           first=None, shape=None):
    """Write the pictures (BGR, or VideoFrames) at `path` with the times `stamps` in 1/rate s. first: a function that is
    given the container before the video stream is added, and returns the packets of another one. shape: of a pixel,
    width by height."""
    with av.open(str(path), "w", options=options or {}) as container:
        packets = first(container) if first else []
        stream = container.add_stream(codec, rate=rate, options=stream_options or {})
        stream.pix_fmt, stream.bit_rate = pixels, 4000000
        if shape:
            stream.codec_context.sample_aspect_ratio = Fraction(shape)
        made = [picture if isinstance(picture, av.VideoFrame) else av.VideoFrame.from_ndarray(picture, "bgr24")
                for picture in pictures]
        stream.width, stream.height = made[0].width, made[0].height
        for packet in packets:
            container.mux(packet)
        for number, frame in enumerate(made):
            frame.pts = number if stamps is None else stamps[number]
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def read(path, start=0):
    """(seconds as a list, pictures as a list) of a video."""
    with VideoReader(path, start) as reader:
        return tuple(map(list, zip(*reader.timed(), strict=True)))


def disc(image):
    """(x, y, width, height) of the red disc in a picture."""
    return cv2.boundingRect(((image[:, :, 2] > 140) & (image[:, :, 0] < 100)).astype(np.uint8))


@pytest.mark.parametrize("suffix, codec", [("mp4", "libx264"), ("mkv", "libx264"), ("webm", "libvpx"),
                                           ("ts", "libx264"), ("avi", "mjpeg"), ("mov", "mpeg4")])
def test_frames_have_the_times_of_their_timestamps(tmp_path, suffix, codec):
    """Frames 30 to 59 of 90 are missing, and the first frames are uneven, whatever rate the container declares."""
    stamps = [0, 1, 3, 4, 6, 7, *range(8, 30), *range(60, 90)]
    pictures = [moving_disc(stamp) for stamp in stamps]
    path = encode(tmp_path / f"a.{suffix}", pictures, codec, stamps, "yuvj420p" if codec == "mjpeg" else "yuv420p")
    seconds, read_pictures = read(path)
    assert np.allclose(seconds, np.array(stamps) / 30, atol=0.001)  # some containers round to milliseconds
    assert np.median([abs(disc(a)[0] - disc(b)[0]) for a, b in zip(read_pictures, pictures, strict=True)]) <= 1
    assert index_count(path) in (len(stamps), 90)  # AVI counts the empty places too


def test_a_recording_whose_times_begin_again_goes_on(tmp_path):
    """Two transport streams, end to end in one file."""
    parts = [encode(tmp_path / f"{n}.ts", [moving_disc(i) for i in range(30)]).read_bytes() for n in range(2)]
    path = tmp_path / "both.ts"
    path.write_bytes(parts[0] + parts[1])
    seconds, _ = read(path)
    assert np.allclose(seconds, np.arange(60) / 30, atol=0.001)


@pytest.mark.parametrize("matrix", [(a, 0, 0, d) for a in (1, -1) for d in (1, -1)] +
                         [(0, b, c, 0) for b in (1, -1) for c in (1, -1)], ids=str)
def test_all_eight_orientations(tmp_path, matrix):
    path = tmp_path / "a.mp4"
    with VideoWriter(path, 30) as writer:
        writer.write(np.ascontiguousarray(moving_disc(5)[:64]))
    (_, (plain,)), (a, b, c, d) = read(path), matrix
    data = bytearray(path.read_bytes())
    at = data.rindex(b"tkhd") + 4 + 40  # the last one counts: those before belong to hidden fragments
    data[at:at + 36] = struct.pack(">9i", *(v << 16 for v in (a, b, 0, c, d, 0, 0, 0)), 1 << 30)
    path.write_bytes(data)
    (_, (shown,)), points = read(path), [(x, y) for y in range(64) for x in range(96)]
    moved = np.array([(a * x + c * y, b * x + d * y) for x, y in points])  # ISO 14496-12, 8.3.2
    moved -= moved.min(0)
    expected = np.zeros((*(moved.max(0) + 1)[::-1], 3), np.uint8)
    for (x, y), (new_x, new_y) in zip(points, moved, strict=True):
        expected[new_y, new_x] = plain[y, x]
    assert np.array_equal(shown, expected)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("shape", ["4/3", "16/9", "8/9"])
def test_pixels_that_are_not_square(tmp_path, suffix, shape):
    width, height = 96, 96
    stored = [cv2.resize(moving_disc(n), None, fx=1 / float(Fraction(shape)), fy=1, interpolation=cv2.INTER_AREA)
              for n in range(9)]
    stored = [np.ascontiguousarray(image[:, :image.shape[1] // 2 * 2]) for image in stored]
    path = encode(tmp_path / f"a.{suffix}", stored, shape=shape)
    with VideoReader(path) as reader:
        assert abs(reader.size[0] - width) <= 2 and reader.size[1] == height
        _, _, wide, high = disc(next(iter(reader)))
    assert abs(wide - high) <= 2


def test_a_size_that_changes_is_fitted_into_the_first_one(tmp_path):
    small = [cv2.copyMakeBorder(moving_disc(n)[16:80], 0, 0, 32, 32, cv2.BORDER_REPLICATE) for n in range(20)]
    parts = [encode(tmp_path / f"{n}.ts", pictures).read_bytes()
             for n, pictures in enumerate(([moving_disc(n) for n in range(20)], small))]
    path = tmp_path / "both.ts"
    path.write_bytes(parts[0] + parts[1])
    _, pictures = read(path)
    assert len(pictures) == 40 and {image.shape for image in pictures} == {(96, 96, 3)}
    _, _, wide, high = disc(pictures[30])
    assert abs(wide - high) <= 2 and abs(wide - 33 * 96 / 160) <= 2
    assert pictures[30][:20].max() < 30 and pictures[30][-20:].max() < 30  # bars


def hdr_frame(rgb, transfer):
    """A 10-bit VideoFrame, tagged BT.2020 and HLG or PQ, of linear BT.709 colours float (H, W, 3), 1 being white."""
    to_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
    light = np.clip(rgb @ to_2020.T, 0, None) * 203  # candela per square metre, ITU-R BT.2408
    if transfer == "HLG":
        scene = light / 1000 * np.maximum((light / 1000) @ [0.2627, 0.6780, 0.0593], 1e-9)[..., None] ** (0.2 / -1.2)
        signal = np.where(scene <= 1 / 12, np.sqrt(3 * scene),
                          0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073)
    else:
        power = (light / 10000) ** 0.1593017578125
        signal = ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375
    luma = signal @ [0.2627, 0.6780, 0.0593]
    blue, red = (signal[..., 2] - luma) / 1.8814, (signal[..., 0] - luma) / 1.4746
    planes = np.stack([luma * 876 + 64, blue * 896 + 512, red * 896 + 512]).round().clip(0, 1023).astype(np.uint16)
    frame = av.VideoFrame(*planes.shape[:0:-1], "yuv444p10le")
    for plane, values in zip(frame.planes, planes, strict=True):
        rows = np.zeros((len(values), plane.line_size // 2), np.uint16)
        rows[:, :values.shape[1]] = values
        plane.update(rows.tobytes())
    frame.colorspace, frame.color_range = 9, 1
    frame.color_trc, frame.color_primaries = {"HLG": 18, "PQ": 16}[transfer], 9
    return frame


@pytest.mark.parametrize("transfer", ["HLG", "PQ"])
def test_hdr_is_shown_in_the_colours_of_sdr(tmp_path, transfer, frames):
    sdr = cv2.resize(frames[0], (128, 128), interpolation=cv2.INTER_AREA)
    frame = hdr_frame((sdr[:, :, ::-1] / 255) ** 2.4, transfer)
    path = encode(tmp_path / "a.mkv", [frame], "ffv1", pixels="yuv444p10le", stream_options={
        "color_trc": {"HLG": "arib-std-b67", "PQ": "smpte2084"}[transfer], "color_primaries": "bt2020",
        "colorspace": "bt2020nc", "color_range": "tv"})
    _, pictures = read(path)
    assert np.abs(pictures[0].astype(int) - sdr).mean() < 10
    shown, real = (cv2.cvtColor(image, cv2.COLOR_BGR2HSV)[:, :, 1].mean() for image in (pictures[0], sdr))
    assert abs(shown / real - 1) < 0.15
    bright = hdr_frame(np.full((64, 64, 3), np.linspace(0, 4, 64)[:, None, None]), transfer)  # up to 4 times white
    _, (ramp,) = read(encode(tmp_path / "b.mkv", [bright], "ffv1", pixels="yuv444p10le", stream_options={
        "color_trc": {"HLG": "arib-std-b67", "PQ": "smpte2084"}[transfer], "color_primaries": "bt2020",
        "colorspace": "bt2020nc", "color_range": "tv"}))
    levels = ramp[:, 32, 1].astype(int)
    assert (np.diff(levels) >= -1).all() and levels[16] > 225
    assert levels[-2] > levels[24]  # light above white has a shape


def test_interlaced_frames_have_no_combs(tmp_path):
    moments = [cv2.rectangle(np.full((SIZE, SIZE, 3), 60, np.uint8), (4 * n, 20), (4 * n + 20, 75), (200,) * 3, -1)
               for n in range(19)]
    woven = []
    for number in range(9):
        woven.append(moments[2 * number].copy())
        woven[-1][1::2] = moments[2 * number + 1][1::2]
    options = {"flags": "+ildct+ilme", "x264-params": "tff=1"}
    _, pictures = read(encode(tmp_path / "a.mp4", woven, stream_options=options))
    combs = [np.abs(image[1:-1:2].astype(int) - image[:-2:2] / 2 - image[2::2] / 2).mean() for image in pictures]
    before = [np.abs(image[1:-1:2].astype(int) - image[:-2:2] / 2 - image[2::2] / 2).mean() for image in woven]
    assert len(pictures) == 9 and max(combs) < 0.3 * min(before)


def test_the_video_behind_a_cover_picture(tmp_path):
    def add_cover(container):
        cover = container.add_stream("mjpeg", rate=30)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "bgr24")
        frame.pts = 0
        return cover.encode(frame) + cover.encode(None)

    _, pictures = read(encode(tmp_path / "a.mkv", [moving_disc(n) for n in range(20)], first=add_cover))
    assert len(pictures) == 20 and pictures[0].shape == (SIZE, SIZE, 3)


@pytest.mark.parametrize("suffix, codec", [
    ("mp4", "libx264"), ("mp4", "libx265"), ("mkv", "libx264"), ("ts", "libx264"), ("webm", "libvpx-vp9"),
    ("webm", "libvpx"), ("avi", "mjpeg"), ("avi", "mpeg4")])
def test_damage_in_the_middle_costs_only_what_is_damaged(tmp_path, suffix, codec, capsys):
    rng, count = np.random.default_rng(0), 120
    wall = rng.integers(0, 255, (96, 400, 3), np.uint8)
    pictures = [np.ascontiguousarray(wall[:, 2 * n:2 * n + 96]) for n in range(count)]
    options = {"libx265": {"x265-params": "log-level=none:keyint=30"}}.get(codec, {"g": "30"})
    path = encode(tmp_path / f"a.{suffix}", pictures, codec, None, "yuvj420p" if codec == "mjpeg" else "yuv420p",
                  options={"movflags": "faststart"} if suffix == "mp4" else None, stream_options=options)
    times, _ = read(path)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle:middle + 300] = rng.bytes(300)
    path.write_bytes(data)
    seconds, _ = read(path)
    assert len(times) == count and len(seconds) >= 85 and set(np.round(seconds, 3)) <= set(np.round(times, 3))
    # It goes on behind the damage. In an AVI, whose frames have no times of their own, what is lost takes no time.
    assert seconds[-1] == pytest.approx(times[-1], abs=0.15 if suffix == "avi" else 1e-3)
    assert capsys.readouterr().err.count("\n") <= 1


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_a_file_that_was_not_copied_whole(tmp_path, suffix, capsys):
    wall = np.random.default_rng(0).integers(0, 255, (96, 400, 3), np.uint8)
    pictures = [np.ascontiguousarray(wall[:, 2 * n:2 * n + 96]) for n in range(60)]
    options = {"movflags": "faststart"} if suffix == "mp4" else None  # its index stands first
    path = encode(tmp_path / f"a.{suffix}", pictures, options=options)
    assert len(read(path)[0]) == 60 and capsys.readouterr().err == ""
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])
    count = len(read(path)[0])
    said = capsys.readouterr().err
    assert 3 < count < 40 and said.count("\n") == 1 and f"breaks off after {count} " in said


def test_a_cut_without_encoding_anew_is_not_damaged(tmp_path, capsys):
    """Its index has frames before the edit list begins, from the key frame on."""
    film, cut = tmp_path / "a.mp4", tmp_path / "cut.mp4"
    encode(film, [moving_disc(n) for n in range(90)], stream_options={"g": "40", "bf": "0"})
    with av.open(str(film)) as old, av.open(str(cut), "w", options={"avoid_negative_ts": "disabled"}) as new:
        stream, old_stream = new.add_stream_from_template(old.streams.video[0]), old.streams.video[0]
        for packet in old.demux(old_stream):
            if packet.dts is not None and packet.pts * packet.time_base >= 40 / 30:
                shift = round(50 / 30 / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                new.mux(packet)
    seconds, pictures = read(cut)
    assert len(pictures) == 40 < index_count(cut) and np.allclose(seconds, np.arange(40) / 30, atol=0.001)
    assert capsys.readouterr().err == "" and abs(disc(pictures[0])[0] - disc(moving_disc(50))[0]) <= 1


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts", "folder"])
def test_a_part_has_just_its_frames(tmp_path, suffix):
    stamps = [n + n // 7 * (suffix in ("mp4", "mkv")) for n in range(100)]
    path = tmp_path / f"a.{suffix}"
    if suffix == "folder":
        path.mkdir()
        for n in range(100):
            cv2.imwrite(str(path / f"{n}.png"), moving_disc(n))
    else:
        encode(path, [moving_disc(n) for n in range(100)], stamps=stamps, stream_options={"g": "12", "bf": "2"})
    times, whole = read(path)
    for begin, end in ((0, 1), (0.7, 2.1), (times[60], times[61]), (1.5, None), (0.01, 99)):
        inside = [n for n, second in enumerate(times) if begin - 1e-3 <= second < (end or 1e9) - 1e-3]
        for start in (0, 5):
            clip = Clip(path, begin, end)
            if not inside[start:]:
                with pytest.raises(NothingThere):
                    VideoReader(clip, start)
                continue
            with VideoReader(clip, start) as reader:
                assert reader.begin == pytest.approx(times[inside[0]], abs=1e-6)
                seconds, part = map(list, zip(*reader.timed(), strict=True))
            assert np.allclose(seconds, np.array(times)[inside[start:]] - times[inside[0]], atol=1e-6)
            assert all(map(np.array_equal, part, (whole[n] for n in inside[start:]))), (begin, end, start)
        assert abs(index_count(Clip(path, begin, end)) - len(inside)) <= 2 * (suffix == "avi")
    with pytest.raises(UserError, match="no frame from 50 seconds on"):
        VideoReader(Clip(path, 50))


def test_images_in_numeric_order_without_hidden_ones(tmp_path):
    for number in range(1, 13):
        cv2.imwrite(str(tmp_path / f"frame{number}.png"), np.full((8, 8, 3), number, np.uint8))
    (tmp_path / "._frame1.png").write_bytes(b"what macOS leaves behind")
    assert [image[0, 0, 0] for image in VideoReader(tmp_path)] == list(range(1, 13))
