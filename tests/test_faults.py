"""Odd files and odd words, given to every script: one line that says what to do, status 2, and nothing half-written.

Most scripts run in the process of the tests, one refusal after the other, because starting Python takes longer than
refusing something.
"""


import av
import cv2
import numpy as np
import pytest
import torch
from conftest import complaint, kept_files, read_film

import Benchmark
import DanceDemo
import Evaluate
import GenGAN
import GenVanillaNN
import GenWarp
import VideoSkeleton
from common.paths import SAMPLE_SOURCE
from motion.extraction import load_track
from video.film import VideoWriter

# Each script with its words up to the name of the video that is bad. OUT stands for an empty folder, CLIP for a good
# video.
SCRIPTS = {
    "the demo's source": (DanceDemo.main, "--no-window", "--gen-type", "1", "--output", "OUT/o.mp4",
                          "--save-motion", "OUT/m.npz", "--target", "CLIP", "--source"),
    "the demo's target": (DanceDemo.main, "--no-window", "--gen-type", "1", "--output", "OUT/o.mp4",
                          "--source", "CLIP", "--target"),
    "extraction": (VideoSkeleton.main,),
    "training 3": (GenVanillaNN.main, "--checkpoint", "OUT/w.pth", "--target"),
    "the demo's target, warped": (DanceDemo.main, "--no-window", "--output", "OUT/o.mp4", "--target"),
    "training 4": (GenGAN.main, "--checkpoint", "OUT/w.pth", "--target"),
    "training 5": (GenWarp.main, "--checkpoint", "OUT/w.pth", "--target"),
    "the scoreboard's target": (Evaluate.main, "--gen-types", "1", "--output", "OUT/e", "--target"),
    "the scoreboard's source": (Evaluate.main, "--gen-types", "1", "--output", "OUT/e", "--target", "CLIP",
                                "--source"),
}
KINDS = ["missing", "empty", "text", "half a header", "an image", "sound alone", "no frames", "8 x 8 pixels", "nobody",
         "one frame of nobody", "a folder"]
# These scripts are given every kind. The others read videos by the same functions, so they are given two.
EVERY_KIND = ["the demo's source", "the demo's target", "extraction", "training 3"]


def sound_alone(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        for number in range(20):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts = 44100, number * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def grey_video(path, count, size):
    with VideoWriter(path, 10) as writer:
        for _ in range(count):
            writer.write(np.full((*size[::-1], 3), 90, np.uint8))


def write_bad_video(kind, path):
    """Write a bad video of one of KINDS at `path`."""
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("not a video\n" * 50)
    elif kind == "half a header":
        path.write_bytes(SAMPLE_SOURCE.read_bytes()[:600])
    elif kind == "an image":
        path.write_bytes(cv2.imencode(".png", np.full((64, 64, 3), 90, np.uint8))[1].tobytes())
    elif kind == "sound alone":
        sound_alone(path)
    elif kind == "no frames":
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=30)
            stream.width = stream.height = 64
            container.start_encoding()
    elif kind == "8 x 8 pixels":
        grey_video(path, 2, (8, 8))
    elif kind == "nobody":
        grey_video(path, 3, (320, 240))
    elif kind == "one frame of nobody":
        grey_video(path, 1, (64, 64))
    elif kind == "a folder":
        path.mkdir()


@pytest.fixture(scope="module")
def bad_videos(tmp_path_factory):
    """{kind: path} of a bad video of each of KINDS, under a name that is hard to handle, too."""
    videos = {kind: tmp_path_factory.mktemp("bad") / "-it's \"bad\" é.mp4" for kind in KINDS}
    for kind, path in videos.items():
        write_bad_video(kind, path)
    return videos


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_bad_video_is_refused_in_one_line_and_leaves_nothing(name, bad_videos, clip, target, refused, tmp_path):
    main, *words = SCRIPTS[name]
    words = [word.replace("OUT", str(tmp_path)).replace("CLIP", str(clip)) for word in words]
    before = kept_files()
    for kind in KINDS if name in EVERY_KIND else ("missing", "text"):
        refused(kind, main, *words, bad_videos[kind])
        assert list(tmp_path.iterdir()) == [] and kept_files() == before, kind


def test_odd_words_to_the_demo(clip, target, refused, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    load_track(clip).save(tmp_path / "m.npz")
    before = {path: path.read_bytes() for path in (clip, tmp_path / "file", tmp_path / "m.npz")}
    film = tmp_path / "o.mp4"
    given = ["--source", clip, "--target", clip, "--output", film, "--no-window"]
    for words in (
            ("--gen-type", "9"), ("--gen-type", "one"), ("--max-frames", "0"), ("--max-frames", "-5"),
            ("--continuity", "nan"), ("--continuity", "-1"), ("--layout", "upside-down"), ("--source", "99"),
            ("--checkpoint", "none.pth"), ("--runtime", "onnx"), ("--output", tmp_path / "folder"),
            ("--output", tmp_path / "file" / "o.mp4"), ("--motion", tmp_path / "folder"), ("--output", clip),
            ("--save-motion", tmp_path / "folder"), ("--save-motion", tmp_path / "file" / "m.npz"),
            ("--save-motion", clip), ("--save-motion", film), ("--source", tmp_path / "none.npz"),
            ("--source", tmp_path / "m.npz", "--save-motion", tmp_path / "m.npz")):
        refused("demo", DanceDemo.main, *given, *words)
        assert all(path.read_bytes() == content for path, content in before.items()), words
        assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "m.npz"], words


@pytest.mark.parametrize("main", [GenVanillaNN.main, GenGAN.main, GenWarp.main])
def test_odd_words_to_a_training(main, clip, target, refused, tmp_path):
    """The three scripts share their flags, so one of them gets all words."""
    (tmp_path / "file").write_text("mine")
    given = ["--target", clip, "--checkpoint", tmp_path / "w.pth"]
    flags = [("--minutes", "nan"), ("--minutes", "-3"), ("--image-size", "65"), ("--batch-size", "0"), ("--seed", "-1"),
             ("--device", "tpu"), ("--checkpoint", tmp_path)]
    if not torch.cuda.is_available():
        flags.append(("--device", "cuda"))
    for words in [("--epochs", "0"), ("--resume",), ("--checkpoint", tmp_path / "file"),
                  *(flags if main is GenVanillaNN.main else [])]:
        refused("training", main, *given, *words)
        assert [path.name for path in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_text() == "mine"


def test_odd_words_to_the_other_programs(clip, target, refused):
    for main, *words in (
            (VideoSkeleton.main, "--workers", "0"), (VideoSkeleton.main, "--workers", "x"),
            (VideoSkeleton.main, "--nonsense"), (Evaluate.main, "--gen-types", "1,9"),
            (Evaluate.main, "--minutes", "3,2"), (Evaluate.main, "--minutes", "-1"),
            (Evaluate.main, "--image-size", "65"), (Evaluate.main, "--continuity", "0"),
            (Evaluate.main, "--output", clip / "e"), (Evaluate.main, "--truth", "none.mp4", "--gen-types", "1"),
            (Benchmark.main, "--output", clip / "b"), (Benchmark.main, "--quicker")):
        given = ("--source", clip, "--target", clip) if main is Evaluate.main else ()
        refused("program", main, *given, *words)


def unusual_pictures(kind, frames):
    """A few pictures of an unusual but good video."""
    if kind == "one frame":
        return frames[:1]
    if kind == "641 x 359":
        return [cv2.resize(frame, (641, 359)) for frame in frames[:5]]
    if kind == "3840 x 2160":
        return [cv2.copyMakeBorder(cv2.resize(frame, (2160, 2160)), 0, 0, 840, 840, cv2.BORDER_REPLICATE)
                for frame in frames[:2]]
    if kind == "two people":
        return [np.hstack([cv2.copyMakeBorder(cv2.resize(frame, (432, 432)), 80, 0, 40, 40, cv2.BORDER_REPLICATE),
                           frame]) for frame in frames[::8]]
    return [frame[:, frame.shape[1] // 2:] for frame in frames[:5]]  # half a person


def write_any_size(path, pictures):
    """Write a video of pictures of any size. VideoWriter would pad odd sizes."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.options = "yuv444p", {"preset": "ultrafast"}
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="bgr24")))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("kind", ["one frame", "641 x 359", pytest.param("3840 x 2160", marks=pytest.mark.journey),
                                  "two people", "half a person"])
def test_an_unusual_video_works_as_source_as_target_and_to_learn_from(kind, frames, clip, target, script, tmp_path):
    """Its poses are found by the first run and used by all others."""
    odd, film = tmp_path / "-odd 'é\".mp4", tmp_path / "not" / "there" / "o.mp4"
    pictures = unusual_pictures(kind, frames)
    write_any_size(odd, pictures)
    words = ["--no-window", "--layout", "result", "--output", film]
    status, _, error = script(DanceDemo.main, *words, "--gen-type", 1, f"--source={odd}", "--target", clip)
    assert status == 0, error
    assert len(read_film(film)) == len(pictures)
    if kind == "two people":
        assert sum("people; following the one who is right" in line for line in complaint(error)) == 1
    for gen_type in (1, 5):
        status, _, error = script(DanceDemo.main, *words, "--gen-type", gen_type, f"--source={odd}", f"--target={odd}")
        assert status == 0 and "poses of" not in error, error
        height, width = pictures[0].shape[:2]
        assert [picture.shape for picture in read_film(film)] == \
            [(height + height % 2, width + width % 2, 3)] * len(pictures)
    assert script(GenVanillaNN.main, f"--target={odd}", "--dry-run")[0] == 0
    assert script(GenWarp.main, f"--target={odd}", "--dry-run", "--image-size", 64)[0] == 0


def test_a_truncated_video_is_used_as_far_as_it_goes(script, clip, target, tmp_path):
    """Its index stands at the beginning, as in videos for the web, so the index promises more than there is."""
    whole, broken, film = tmp_path / "whole.mp4", tmp_path / "broken.mp4", tmp_path / "o.mp4"
    with av.open(str(clip)) as container, av.open(str(whole), "w", options={"movflags": "faststart"}) as out:
        stream = out.add_stream_from_template(container.streams.video[0])
        for packet in container.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    content = whole.read_bytes()
    broken.write_bytes(content[:len(content) // 2])
    status, _, error = script(DanceDemo.main, "--gen-type", 1, "--no-window", "--source", broken, "--target", clip,
                              "--output", film)
    count = len(read_film(film))
    assert status == 0 and 5 < count < 35, error
    assert len(complaint(error)) == 1 and f"breaks off after {count} of 40 frames" in complaint(error)[0]


def test_training_says_nothing_but_its_progress(clip, training, capsys):
    training.dry_run = True
    GenWarp.train(training)
    assert complaint(capsys.readouterr().err) == []
