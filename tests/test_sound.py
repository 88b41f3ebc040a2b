"""Sound in films: what is heard at which time, whatever carried it in the source, and that it never costs the film."""

from fractions import Fraction

import av
import numpy as np
import pytest
from test_VideoReader import coloured

from video.film import VideoWriter
from video.sound import decodable_frames
from VideoReader import VideoReader

BEEPS = (0.5, 1.5)  # seconds at which the tone begins; it lasts 0.1 s


def beeping(rate):
    """Samples float32 (N,) of 2 s with a tone of 1000 Hz at BEEPS."""
    time = np.arange(2 * rate) / rate
    heard = np.any([(time >= beep) & (time < beep + 0.1) for beep in BEEPS], 0)
    return (np.sin(2 * np.pi * 1000 * time) * heard * 0.5).astype(np.float32)


def recording(path, codec, rate=48000, channels=1, delay=0.0, skip=()):
    """A video of 2 s at 10 frames/s with BEEPS, whose sound begins `delay` seconds late in the file and is not written
    for the times (from, to) `skip`."""
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[channels]
    with av.open(str(path), "w") as container:
        picture = container.add_stream("mpeg4", rate=10)
        picture.width = picture.height = 64
        track = container.add_stream(codec, rate=rate, layout=layout)
        track.codec_context.bit_rate = 128000
        resampler = av.AudioResampler(track.codec_context.format.name, layout, rate)
        samples, step = np.tile(beeping(rate)[round(delay * rate):], (channels, 1)), 1024
        for number, image in enumerate(coloured(20, 64, 64)):
            frame = av.VideoFrame.from_ndarray(image, "bgr24")
            frame.pts = number
            container.mux(picture.encode(frame))
        for start in range(0, samples.shape[1], step):
            if skip and skip[0] <= start / rate + delay < skip[1]:
                continue
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[:, start:start + step]), "fltp", layout)
            frame.sample_rate, frame.pts = rate, start + round(delay * rate)
            for part in resampler.resample(frame):
                container.mux(track.encode(part))
        container.mux(picture.encode(None))
        container.mux(track.encode(None))
    return path


def dubbed(path, source, begin=None, count=20):
    """A film of `count` frames at 10 frames/s with the sound of `source`, from its frame number `begin` on."""
    with VideoReader(source) as reader, VideoWriter(
            path, 10, source, audio_begin=reader.stamp + (begin or 0)) as writer:
        for frame in coloured(count):
            writer.write(frame)
    return path


def beeps(path):
    """Seconds at which a film's sound begins to be loud, by the times of its frames; [] where it has no sound."""
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return []
        parts = [(frame.time, frame.to_ndarray().astype(float), frame.sample_rate)
                 for frame in decodable_frames(container, container.streams.audio[0])]
    loud = []
    for begin, samples, rate in parts:
        samples = samples.reshape(samples.shape[0], -1) if samples.ndim == 2 else samples[None]
        level = np.abs(samples).max(0)
        loud += (begin + np.flatnonzero(level > 0.2 * (32767 if level.max() > 2 else 1)) / rate).tolist()
    loud = np.array(loud)
    return loud[np.flatnonzero(np.diff(loud, prepend=-1) > 0.2)].tolist()


@pytest.mark.parametrize("suffix, codec, rate, channels", [
    ("mp4", "aac", 48000, 1), ("ts", "aac", 44100, 2), ("mkv", "aac", 44100, 1), ("mp4", "libmp3lame", 44100, 1),
    ("avi", "libmp3lame", 44100, 2), ("ts", "libmp3lame", 48000, 1), ("ts", "ac3", 48000, 2), ("mp4", "ac3", 48000, 6),
    ("mov", "pcm_s16le", 11025, 1), ("avi", "pcm_s16le", 48000, 2), ("mkv", "pcm_s24le", 96000, 6),
    ("mkv", "flac", 44100, 2), ("mov", "alac", 44100, 2), ("mkv", "libopus", 48000, 1),
    ("ts", "mp2", 48000, 2), ("wmv", "wmav2", 44100, 1)])
def test_the_sound_is_heard_at_its_time(tmp_path, suffix, codec, rate, channels):
    source = recording(tmp_path / f"a.{suffix}", codec, rate, channels)
    assert beeps(dubbed(tmp_path / "o.mp4", source)) == pytest.approx(BEEPS, abs=0.03)


@pytest.mark.parametrize("suffix, codec", [("mp4", "aac"), ("mkv", "pcm_s16le"), ("ts", "aac"), ("mkv", "libmp3lame")])
def test_a_part_a_late_sound_and_a_gap(tmp_path, suffix, codec):
    source = recording(tmp_path / f"a.{suffix}", codec)
    assert beeps(dubbed(tmp_path / "part.mp4", source, 1.2, 8)) == pytest.approx([0.3], abs=0.03)
    late = recording(tmp_path / f"late.{suffix}", codec, delay=0.4)
    assert beeps(dubbed(tmp_path / "o.mp4", late)) == pytest.approx(BEEPS, abs=0.03)
    gap = recording(tmp_path / f"gap.{suffix}", codec, skip=(0.8, 1.2))
    assert beeps(dubbed(tmp_path / "o.mp4", gap)) == pytest.approx(BEEPS, abs=0.03)


def with_fourcc(path, old, new):
    """Rename a codec in the first place where a file's header names it, so that nobody knows it."""
    data = path.read_bytes()
    path.write_bytes(data[:data.rindex(old)] + new + data[data.rindex(old) + 4:])


def test_a_track_that_nobody_can_decode_is_passed_over(tmp_path, capsys):
    source = recording(tmp_path / "a.mov", "pcm_s16le")
    with_fourcc(source, b"sowt", b"apac")
    assert beeps(dubbed(tmp_path / "o.mp4", source)) == [] and len(list(VideoReader(tmp_path / "o.mp4"))) == 20
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "can't be decoded; the film is silent" in said
    both = tmp_path / "both.mov"
    with av.open(str(recording(tmp_path / "b.mov", "pcm_s16le"))) as old, av.open(str(both), "w") as new:
        picture, strange, track = (new.add_stream_from_template(old.streams[n]) for n in (0, 1, 1))
        for packet in old.demux():
            if packet.dts is not None:
                for stream in (picture,) if packet.stream_index == 0 else (strange, track):
                    packet.stream = stream
                    new.mux(packet)
    data = both.read_bytes()
    at = data.index(b"sowt", data.rindex(b"moov"))  # of the first one of the two soundtracks
    both.write_bytes(data[:at] + b"apac" + data[at + 4:])
    assert beeps(dubbed(tmp_path / "o.mp4", both)) == pytest.approx(BEEPS, abs=0.03)
    assert "taking number 2" in capsys.readouterr().err


@pytest.mark.parametrize("suffix, codec", [("mp4", "aac"), ("ts", "aac"), ("mkv", "flac"), ("avi", "libmp3lame")])
def test_damaged_sound_never_costs_the_film(tmp_path, suffix, codec):
    source = recording(tmp_path / f"a.{suffix}", codec)
    data, rng = bytearray(source.read_bytes()), np.random.default_rng(0)
    with av.open(str(source)) as container:
        places = [packet.pos for packet in container.demux(container.streams.audio[0]) if packet.size]
    for place in places[len(places) // 3:len(places) // 2]:
        data[place + 24:place + 56] = rng.bytes(32)
    source.write_bytes(data)
    film = dubbed(tmp_path / "o.mp4", source)
    assert len(list(VideoReader(film))) == 20 and beeps(film)[-1] == pytest.approx(1.5, abs=0.05)


def test_times_that_go_back_never_cost_the_film(tmp_path):
    parts = [recording(tmp_path / f"{n}.ts", "aac").read_bytes() for n in range(2)]
    (tmp_path / "both.ts").write_bytes(parts[0] + parts[1])
    film = dubbed(tmp_path / "o.mp4", tmp_path / "both.ts", count=40)
    assert len(list(VideoReader(film))) == 40 and beeps(film)[:2] == pytest.approx(BEEPS, abs=0.03)


def test_sound_whose_rate_changes_on_the_way(tmp_path):
    """As in a recording of two programmes: 48 kHz in stereo, and from 1.2 s on 32 kHz in mono."""
    source, samples = tmp_path / "a.ts", {rate: beeping(rate) for rate in (48000, 32000)}
    with av.open(str(source), "w") as container:
        picture, track = container.add_stream("mpeg4", rate=10), container.add_stream("mp2", rate=48000)
        picture.width = picture.height = 64
        for number, image in enumerate(coloured(20, 64, 64)):
            frame = av.VideoFrame.from_ndarray(image, "bgr24")
            frame.pts = number
            container.mux(picture.encode(frame))
        container.mux(picture.encode(None))
        later = av.CodecContext.create("mp2", "w")
        later.sample_rate, later.layout, later.format, later.bit_rate = 32000, "mono", "s16", 128000
        for rate, layout, encoder, start, stop in ((48000, "stereo", track.codec_context, 0, 1.2),
                                                   (32000, "mono", later, 1.2, 2)):
            for begin in range(round(start * rate), round(stop * rate) - 1151, 1152):
                piece = np.repeat(samples[rate][begin:begin + 1152] * 32000, 2 if layout == "stereo" else 1)
                frame = av.AudioFrame.from_ndarray(piece.astype(np.int16)[None], "s16", layout)
                frame.sample_rate, frame.pts, frame.time_base = rate, begin, Fraction(1, rate)
                for packet in encoder.encode(frame):
                    packet.stream = track
                    container.mux(packet)
    film = dubbed(tmp_path / "o.mp4", source)
    assert len(list(VideoReader(film))) == 20 and beeps(film) == pytest.approx(BEEPS, abs=0.05)
