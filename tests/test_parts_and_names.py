"""A part of a video, one person of several, and names of all kinds, through the scripts."""

import json
import os
import subprocess
import sys

import av
import cv2
import numpy as np
import pytest
from conftest import kept_files, read_film
from test_sound import beeps, recording

import DanceDemo
import GenVanillaNN
import VideoSkeleton
from common.command_line import Parser
from common.files import shorten
from common.paths import ROOT
from motion.extraction import load_track
from picture.target_pictures import target_folder
from video.clip import Clip, add_clip_flags, clip_of, person, time
from video.film import VideoWriter, part_of
from VideoReader import VideoReader
from VideoSkeleton import VideoSkeleton as Target


@pytest.mark.parametrize("text, seconds", [("83.5", 83.5), ("1:23.5", 83.5), ("90:00", 5400), ("1:00:00", 3600),
                                           ("0", 0), ("1:60", None), ("-1", None), ("nan", None), ("", None)])
def test_times_as_people_write_them(text, seconds):
    if seconds is None:
        with pytest.raises(Exception, match="is no time"):
            time(text)
    else:
        assert time(text) == seconds
        clip = Clip("a", 0, seconds or None)
        assert not seconds or time(clip.words()[-1]) == seconds


def test_who_can_be_asked_for():
    assert [person(text) for text in ("left", "0.3,0.5")] == ["left", "0.3,0.5"]
    for text in ("2,0.5", "nan,0.5", "0.5", "nobody", "0.1,0.2,0.3"):
        with pytest.raises(Exception, match="is nobody"):
            person(text)


@pytest.fixture(scope="module")
def dance(frames, tmp_path_factory):
    """2 s at 10 frames/s with a tone at 0.5 and 1.5 s, and the part from 0.8 to 1.6 s as a file of its own."""
    folder = tmp_path_factory.mktemp("dance")
    whole, part = folder / "whole.mp4", folder / "part.mp4"
    sound = recording(folder / "sound.mp4", "aac")
    for path, shown, begin in ((whole, frames[:20], 0), (part, frames[8:16], 0.8)):
        with VideoWriter(path, 10, sound, audio_begin=begin) as writer:
            for frame in shown:
                writer.write(frame)
    return whole, part


def test_a_part_of_the_source_dances_as_if_it_were_all(dance, clip, target, script, tmp_path):
    """The poses differ a little, because the two files were encoded one by one."""
    (whole, part), films = dance, []
    for name, words in (("a", ("--source", whole, "--from", "0.8", "--to", "0:01.6")), ("b", ("--source", part))):
        out, joints = tmp_path / f"{name}.mp4", tmp_path / f"{name}.npz"
        status, said, error = script(DanceDemo.main, "--gen-type", 1, "--target", clip, "--output", out, "--motion",
                                     joints, "--layout", "result", *words)
        assert status == 0 and said.startswith(f"{out}: 8 frames, 0 without a person"), error
        assert beeps(out) == pytest.approx([0.7], abs=0.03)
        films.append(np.load(joints)["joints"])
    assert np.linalg.norm((films[0] - films[1])[:, :, :2], axis=2).mean() < 3  # pixels of 512


def test_a_part_of_a_motion_file(dance, clip, target, script, refused, tmp_path):
    motion, out = tmp_path / "m.npz", tmp_path / "o.mp4"
    load_track(dance[0]).save(motion)
    words = ["--gen-type", 1, "--target", clip, "--source", motion, "--output", out]
    assert "8 frames" in script(DanceDemo.main, *words, "--from", "0.8", "--to", "1.6")[1]
    out.unlink()
    for more, text in ((("--from", "9"), "begin earlier"), (("--person", "left"), "leave --person out"),
                       (("--from", "1", "--to", "1"), "is empty"), (("--from", "soon"), "is no time"),
                       (("--source", dance[0], "--from", "50"), "begin earlier"),
                       (("--source", "77", "--to", "9"), "webcam"), (("--target-person", "me"), "is nobody")):
        assert text in refused(text, DanceDemo.main, *words, *more) and not out.exists()


def test_another_part_or_person_is_another_target(clip, target, script, tmp_path):
    part = Target.load(Clip(clip, 1, 3))
    assert len(part) == 20 and part.frames_read == 20 and part.identity != target.identity
    assert np.abs(part.image(0).astype(int) - target.image(10)).mean() < 30 and part.folder != target.folder
    assert part.folder.parent == target.folder.parent  # cut out of the whole video's poses
    assert target_folder(Clip(clip, person="left")) != target.folder == target_folder(clip)
    weights = tmp_path / "w.pth"
    for flags in (("--from", "1", "--to", "3"), ("--target-from", "0:01", "--target-to", "3")):
        status, _, error = script(GenVanillaNN.main, "--target", clip, *flags, "--epochs", 1, "--checkpoint", weights)
        assert status == 0, error
        weights.with_name("w-last.pth").unlink()
    words = ["--gen-type", 3, "--source", clip, "--target", clip, "--checkpoint", weights, "--output",
             tmp_path / "o.mp4"]
    status, _, error = script(DanceDemo.main, *words)
    assert status == 2 and "another target" in error
    assert script(DanceDemo.main, *words, "--target-from", 1, "--target-to", 3, "--max-frames", 2)[0] == 0
    status, said, _ = script(VideoSkeleton.main, clip, "--from", 1, "--to", 3)
    assert status == 0 and "20 frames, 20 with a person" in said and "from the cache" in said


@pytest.mark.parametrize("name", ["踊" * 80, "a" * 251, "moi_\udce9t\udce9", "a b'c\"d", "é" * 120], ids=ascii)
def test_any_name_that_a_disk_can_hold(name, frames, clip, script, tmp_path):
    video, out = tmp_path / f"{name}.mp4", tmp_path / f"{name[1:]}x.mp4"
    with VideoWriter(video, 10) as writer:
        for frame in frames[:4]:
            writer.write(frame)
    assert len(os.fsencode(part_of(out).name)) <= 255
    report, motion = tmp_path / f"{name[2:]}r.json", tmp_path / f"{name[2:]}m.npz"
    status, _, error = script(DanceDemo.main, "--gen-type", 1, "--source", video, "--target", video, "--output", out,
                              "--report", report, "--motion", motion)
    assert status == 0 and motion.exists() and len(read_film(out)) == 4, error
    assert json.loads(report.read_text())["frames"] == 4


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_terminal_that_can_not_show_a_name(encoding, clip, target, tmp_path):
    """As in a redirected run on Windows. The cache of the tests is not that of the process, so it finds the poses."""
    out = tmp_path / "踊り.mp4"
    words = [sys.executable, ROOT / "DanceDemo.py", "--gen-type", "1", "--no-window", "--max-frames", "2", "--source",
             clip, "--target", clip, "--output", out]
    run = subprocess.run(words, cwd=ROOT, env=os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
                         capture_output=True, timeout=120)
    assert run.returncode == 0 and out.exists() and b"Traceback" not in run.stderr
    assert rb"\u8e0a\u308a.mp4: 2 frames" in run.stdout


def test_a_name_that_would_lie_is_refused_before_any_work(clip, refused, tmp_path):
    before = kept_files()
    for flag, name in (("--output", "o.gif"), ("--output", "o.avi"), ("--result", "o.webm"), ("--output", "o"),
                       ("--motion", "s.fbx"), ("--save-motion", "m.mp4")):
        line = refused(name, DanceDemo.main, "--source", clip, "--target", clip, flag, tmp_path / name)
        assert "let its name end in" in line or "let the name end in" in line
    assert list(tmp_path.iterdir()) == [] and kept_files() == before


def test_weights_whose_name_is_no_text_are_refused_before_any_work(clip, refused, tmp_path):
    line = refused("weights", GenVanillaNN.main, "--target", clip, "--checkpoint", tmp_path / "w\udce9.pth")
    assert "another --checkpoint" in line and list(tmp_path.iterdir()) == []


def test_names_are_shortened_by_bytes():
    assert shorten("踊" * 60, 100) == "踊" * 33 and shorten("short", 100) == "short"
    assert shorten("\udce9" * 9, 4) == "\udce9" * 4


def test_a_tiny_person_is_told_to_come_closer(frames, refused, tmp_path):
    path = tmp_path / "far.mp4"
    with VideoWriter(path, 10) as writer:
        for frame in frames[:3]:
            tiny = cv2.resize(frame, (24, 24), interpolation=cv2.INTER_AREA)
            writer.write(cv2.copyMakeBorder(tiny, 240, 240, 300, 300, cv2.BORDER_CONSTANT, value=(90, 90, 90)))
    assert "near enough" in refused("far", VideoSkeleton.main, path)


def test_flags_and_clips_say_the_same(tmp_path):
    parser = Parser("")
    add_clip_flags(parser, "it", "target-", "")
    clip = Clip(tmp_path, 63.25, 5400.125, "0.25,0.5")
    for prefix in ("target-", ""):
        assert clip_of(parser.parse_args(clip.words(prefix)), tmp_path, "target-") == clip
    assert Clip.of(clip) is clip and Clip.of(str(tmp_path)) == Clip(tmp_path) and Clip(tmp_path).words() == []


def test_a_source_of_uneven_times_keeps_them(frames, clip, target, script, tmp_path):
    times, path, out = [*np.arange(8) / 10, *(1.5 + np.arange(8) / 10)], tmp_path / "gap.mp4", tmp_path / "o.mp4"
    with VideoWriter(path, 10, variable=True) as writer:
        for frame, seconds in zip(frames, times, strict=False):
            writer.write(frame, seconds)
    status, said, _ = script(DanceDemo.main, "--gen-type", 1, "--source", path, "--target", clip, "--output", out)
    assert status == 0 and "16 frames" in said
    with VideoReader(out) as reader:
        assert np.allclose([seconds for seconds, _ in reader.timed()], times, atol=1e-3)
    with av.open(str(out)) as container:
        assert container.duration / 1e6 == pytest.approx(times[-1] + 0.15, abs=0.1)
