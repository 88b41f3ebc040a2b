"""Films: the codec and its tag, sound, and what is left behind after an error."""

import subprocess
import sys

import av
import numpy as np
import pytest
from test_VideoReader import coloured, sound, tone, write

from common.command_line import UserError
from common.paths import ROOT
from video.film import FRAGMENT, VideoWriter
from VideoReader import VideoReader


def test_written_file_is_h264_yuv420p_and_tagged_synthetic(tmp_path):
    with av.open(str(write(tmp_path / "a.mp4", coloured(3)))) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert container.metadata["comment"] == "synthetic"


def test_odd_sizes_are_padded_by_one(tmp_path):
    with VideoReader(write(tmp_path / "a.mp4", coloured(2, 33, 27))) as reader:
        assert reader.size == (34, 28)


@pytest.mark.parametrize("suffix, codec, carried", [("mp4", "aac", "aac"), ("mp4", "libmp3lame", "mp3"),
                                                    ("mov", "pcm_s16le", "aac"), ("mkv", "flac", "aac")])
def test_sound_is_carried_over_as_far_as_the_picture(tmp_path, suffix, codec, carried):
    source = tone(tmp_path / f"source.{suffix}", codec, 3)
    path = write(tmp_path / "out.mp4", coloured(20), 10, audio_from=source)  # 2 of its 3 seconds
    name, samples, rate = sound(path)
    assert name == carried
    assert len(samples) / rate == pytest.approx(2, abs=0.06)  # a packet of AAC at 48 kHz lasts 0.02 s
    spectrum = np.abs(np.fft.rfft(samples[rate // 2:rate // 2 + rate]))
    assert spectrum.argmax() == 440  # Hz, in a second of samples


@pytest.mark.parametrize("kind", ["moving", "cuts", "still"])
def test_every_frame_is_shown_wherever_the_film_was_saved_last(tmp_path, kind):
    """A film whose last frame came just after one of the saves was a frame too short for its players."""
    pictures = [np.kron(noise, np.ones((4, 4, 1), np.uint8)) for noise in
                np.random.default_rng(0).integers(0, 255, (20, 16, 16, 3), np.uint8)]
    for saves in (1, 2, 3):
        for more in range(1, 5):
            count = saves * FRAGMENT * 10 + more
            frames = [pictures[0] if kind == "still" else np.roll(pictures[0], 3 * number, 1) if kind == "moving" else
                      pictures[number // 7 % 20] for number in range(count)]
            with av.open(str(write(tmp_path / "out.mp4", frames, 10))) as container:
                assert container.duration == pytest.approx(count / 10 * 1e6, abs=1000)
                assert sum(1 for _ in container.decode(video=0)) == count


@pytest.mark.parametrize("rate", [8000, 11111, 96000])
def test_sound_of_any_rate_is_whole(tmp_path, rate):
    source = tone(tmp_path / "source.mov", "pcm_s16le", 2, rate)
    _, samples, carried = sound(write(tmp_path / "out.mp4", coloured(20), 10, audio_from=source))
    assert len(samples) / carried == pytest.approx(2, abs=0.15)
    assert np.abs(np.fft.rfft(samples[:carried])).argmax() == pytest.approx(440, abs=1)


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    """The operating system's limit on a file's size stands in for the disk's."""
    code = f"""
import resource, signal, sys
import numpy as np
from video.film import FRAGMENT, VideoWriter
from common.command_line import run
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
def main():
    with VideoWriter({str(tmp_path / 'out.mp4')!r}, 30) as writer:
        for i in range(90):
            writer.write(np.random.default_rng(i).integers(0, 255, (128, 128, 3), np.uint8))
run(main)
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2 and ended.stderr.startswith("error: can't write") and ended.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_no_sound_where_the_source_has_none(tmp_path):
    silent = write(tmp_path / "silent.mp4", coloured(5))
    for source in (silent, tmp_path):
        with av.open(str(write(tmp_path / "out.mp4", coloured(5), audio_from=source))) as container:
            assert not container.streams.audio


def test_nothing_appears_before_it_is_complete_and_nothing_after_an_error(tmp_path):
    path = tmp_path / "out.mp4"
    path.write_bytes(b"earlier work")
    with pytest.raises(ZeroDivisionError), VideoWriter(path, 30) as writer:
        writer.write(coloured(1)[0])
        assert path.read_bytes() == b"earlier work"
        raise ZeroDivisionError
    assert path.read_bytes() == b"earlier work" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(KeyboardInterrupt), VideoWriter(path, 30) as writer:
        for frame in coloured(7):
            writer.write(frame)
        raise KeyboardInterrupt
    assert len(list(VideoReader(path))) == 7 and list(tmp_path.iterdir()) == [path]


def test_a_film_that_can_not_take_its_place_is_kept_beside_it(tmp_path):
    """As on Windows, where the older one is open in a player; here a folder has got in the way. Nothing is lost, and
    what was kept before stays."""
    path, mine = tmp_path / "o.mp4", tmp_path / "o-unfinished.mp4"
    mine.write_bytes(b"mine")
    writer = VideoWriter(path, 30)
    for frame in coloured(7):
        writer.write(frame)
    path.mkdir()
    with pytest.raises(UserError, match=r"the film is at .*o-unfinished2\.mp4"):
        writer.close()
    assert len(list(VideoReader(tmp_path / "o-unfinished2.mp4"))) == 7 and mine.read_bytes() == b"mine"
    assert not list(tmp_path.glob(".*"))
