"""What the tests share: a short real clip, its VideoSkeleton, small trained weights, and a cache of their own."""

import os
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from common import command_line, paths
from motion.track import Track
from Skeleton import Skeleton
from video.film import VideoWriter
from VideoReader import VideoReader
from VideoSkeleton import VideoSkeleton


def pytest_configure():
    """Where several processes share the cores, each of them, and each program that they start, computes on one thread:
    threads that wait for each other cost more than they bring."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ["OMP_NUM_THREADS"] = "1"
        torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """The tests find poses into a temporary cache, and have locks of their own."""
    patch = pytest.MonkeyPatch()
    patch.setattr(paths, "CACHE", tmp_path_factory.mktemp("cache"))
    patch.setattr(paths, "LOCKS", tmp_path_factory.mktemp("locks"))
    yield
    patch.undo()


@pytest.fixture(autouse=True)
def warnings_are_new(monkeypatch):
    """A process gives each warning once; here each test counts as a process."""
    monkeypatch.setattr(command_line, "_warned", set())


@pytest.fixture(scope="session")
def frames():
    """Every sixth of the first 240 target frames: 40 images 512 x 512 with plain movement."""
    with VideoReader(paths.SAMPLE_TARGET) as reader:
        return [frame for number, frame in zip(range(240), reader, strict=False) if number % 6 == 0]


@pytest.fixture(scope="session")
def clip(frames, tmp_path_factory):
    """Those frames as a video at 10 frames/s."""
    path = tmp_path_factory.mktemp("clip") / "a person.mp4"
    with VideoWriter(path, 10) as writer:
        for frame in frames:
            writer.write(frame)
    return path


@pytest.fixture(scope="session")
def target(clip):
    return VideoSkeleton.load(clip)


@pytest.fixture(scope="session")
def weights(clip, tmp_path_factory):
    """Each learned generator, trained for one epoch on the clip: {GEN_TYPE: checkpoint}."""
    import GenGAN
    import GenVanillaNN
    import GenWarp

    folder, paths = tmp_path_factory.mktemp("weights"), {}
    for gen_type, module, kind in ((2, GenVanillaNN, "ske"), (3, GenVanillaNN, "skeim"), (4, GenGAN, None),
                                   (5, GenWarp, None)):
        paths[gen_type] = folder / f"{gen_type}.pth"
        module.train(SimpleNamespace(target=clip, epochs=1, minutes=1.0, image_size=64, batch_size=12, resume=False,
                                     seed=0, checkpoint=paths[gen_type], device="cpu", dry_run=False, input=kind,
                                     skeleton="reduced", precision="auto", compile=False))
    return paths


@pytest.fixture
def training(clip, tmp_path):
    """Flags of a training of seconds, as `train` takes them."""
    return SimpleNamespace(target=clip, epochs=2, minutes=5.0, image_size=64, batch_size=8, resume=False, seed=3,
                           checkpoint=tmp_path / "weights.pth", device="cpu", dry_run=False,
                           input="skeim", skeleton="reduced", precision="auto", compile=False)


@pytest.fixture
def script(monkeypatch, capsys):
    """Call a script's main() as its command line would: script(main, "--flag", value) -> (exit status, out, err)."""
    def call(main, *words):
        monkeypatch.setattr(sys, "argv", ["script", *map(str, words)])
        status = 0
        try:
            command_line.run(main)
        except SystemExit as leaving:
            status = leaving.code
        said = capsys.readouterr()
        return status, said.out, said.err

    return call


@pytest.fixture(scope="session")
def sample_target():
    """The VideoSkeleton of the shipped target, whose poses take some seconds: only tests against the truth want it."""
    return VideoSkeleton.load(paths.SAMPLE_TARGET)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache for one test."""
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def short(frames, tmp_path):
    """Six frames with a person, and one without before, between and after."""
    path, empty = tmp_path / "short.mp4", np.full_like(frames[0], 90)
    with VideoWriter(path, 10) as writer:
        for frame in [empty, *frames[:3], empty, *frames[3:6], empty]:
            writer.write(frame)
    return path


@pytest.fixture(scope="session")
def duo(frames, tmp_path_factory):
    """A film of two dancers, 1 s: a small one on the left and a tall one, in other colours, on the right."""
    path = tmp_path_factory.mktemp("duo") / "two.mp4"
    with VideoWriter(path, 10) as writer:
        for frame in frames[:40:4]:
            small = cv2.copyMakeBorder(cv2.resize(frame, (432, 432)), 80, 0, 40, 40, cv2.BORDER_REPLICATE)
            writer.write(np.hstack([small, frame[:, ::-1, ::-1]]))
    return path


def complaint(error):
    """The lines on standard error, without progress bars."""
    lines = [line.strip() for line in error.replace("\r", "\n").split("\n")]
    return [line for line in lines if line and "[00:" not in line and "%|" not in line]


@pytest.fixture
def refused(script):
    """refused(what, main, *words): check that the script refuses these words with one line; returns that line."""

    def call(what, main, *words):
        command_line._warned.clear()  # each call counts as a process of its own
        status, _, error = script(main, *words)
        lines = complaint(error)
        assert status == 2 and len(lines) == 1 and lines[0].startswith("error: "), (what, words, status, error)
        return lines[0]

    return call


def kept_files():
    """{path: size} of everything in the cache of the tests."""
    return {path: path.stat().st_size for path in paths.CACHE.rglob("*") if path.is_file()}


def read_film(path):
    with VideoReader(path) as reader:
        return list(reader)


def random_skeleton(rng):
    return Skeleton(rng.random((33, 3)), np.ones(33))


def moved(skeleton, scale, shift):
    """The Skeleton at joints * scale + shift; shift (dx, dy)."""
    return Skeleton(skeleton.joints * np.float32(scale) + np.float32([*shift, 0]), skeleton.visibility)


def track_of(skeletons, fps=30, cuts=()):
    """A Track in canvas units of these Skeletons, None where nobody is; a cut lies before each frame in `cuts`."""
    nobody = Skeleton(np.full((33, 3), np.nan), np.zeros(33))
    shown = [skeleton or nobody for skeleton in skeletons]
    found = np.array([skeleton is not None for skeleton in skeletons])
    return Track(np.stack([s.joints for s in shown]), np.stack([s.visibility for s in shown]),
                 np.arange(len(shown)) / fps, np.array([0, *cuts]), (512, 512), float(fps), found)
