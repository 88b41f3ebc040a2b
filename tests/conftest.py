"""What the tests share: a short real clip, its VideoSkeleton, tiny trained weights, and a cache of their own."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

import CommandLine
import Storage
import VideoSkeleton
from CommandLine import ROOT
from VideoReader import VideoReader
from VideoWriter import VideoWriter

SAMPLE = ROOT / "data" / "sample"


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Extractions of the tests go to a temporary cache, and their locks elsewhere too."""
    patch = pytest.MonkeyPatch()
    patch.setattr(VideoSkeleton, "CACHE", tmp_path_factory.mktemp("cache"))
    patch.setattr(Storage, "LOCKS", tmp_path_factory.mktemp("locks"))
    yield
    patch.undo()


@pytest.fixture(autouse=True)
def warnings_are_new(monkeypatch):
    """A warning is given once a process: each test counts as one."""
    monkeypatch.setattr(CommandLine, "_warned", set())


@pytest.fixture(scope="session")
def frames():
    """Every sixth of the first 240 target frames: 40 images 512 x 512 with plain movement."""
    with VideoReader(SAMPLE / "target.mp4") as reader:
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
    return VideoSkeleton.VideoSkeleton.load(clip)


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
    from CommandLine import run

    def call(main, *words):
        monkeypatch.setattr(sys, "argv", ["script", *map(str, words)])
        status = 0
        try:
            run(main)
        except SystemExit as leaving:
            status = leaving.code
        said = capsys.readouterr()
        return status, said.out, said.err

    return call


def random_skeleton(rng):
    from Skeleton import Skeleton

    return Skeleton(rng.random((33, 3)), np.ones(33))
