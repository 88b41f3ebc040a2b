"""A disk that fills up at any stage of writing: one line, status 2, nothing half-written, what was there intact."""

import os
import subprocess

import pytest
from test_faults import complaint

import DanceDemo
import GenVanillaNN
import VideoSkeleton
from VideoReader import VideoReader

SIZE = 200  # MB of the disk, of which a ballast leaves as much as a test wants


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """A small disk in memory."""
    folder = tmp_path_factory.mktemp("disk")
    mounted = hasattr(os, "geteuid") and os.geteuid() == 0 and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}m", "tmpfs", folder], capture_output=True).returncode == 0
    if not mounted:
        pytest.skip("making a small disk takes root on Linux")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def full(disk):
    """full(kilobytes): leave so much on the disk. Afterwards it is empty again."""
    ballast = disk / "ballast"

    def leave(kilobytes):
        ballast.unlink(missing_ok=True)
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        with open(ballast, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(free - kilobytes * 1024, 1))

    yield leave
    subprocess.run(["find", disk, "-mindepth", "1", "-delete"], check=True)


def left(folder):
    """Names of what lies in a folder, hidden or not, but for curves."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and
                  "runs" not in path.parts)


def said_once(status, error):
    lines = complaint(error)
    assert status == 2 and len(lines) == 1 and lines[0].startswith("error: can't write"), error
    return lines[0]


def test_extraction(disk, full, clip, target, script, monkeypatch):
    """Without a byte, in the poses, in the pictures, after the pictures; then with room it works."""
    monkeypatch.setattr(VideoSkeleton, "CACHE", disk / "cache")
    stages = set()
    for kilobytes in (0, 200, 2000, 3500, 4500, 5000):
        full(kilobytes)
        status, _, error = script(VideoSkeleton.main, clip)
        if status == 0:  # it fits
            break
        stages.add("canvas" if "storing the canvas" in error else "poses")
        said_once(status, error)
        assert left(disk) == ["ballast"]
    assert stages == {"poses", "canvas"}
    full(50000)
    assert script(VideoSkeleton.main, clip)[0] == 0
    assert (VideoSkeleton.VideoSkeleton.load(clip).joints == target.joints).all()


def test_training(disk, full, clip, script):
    """For the curves, the best weights, the last weights; the weights that were there stay, under their own name.
    The loop is the same for every network."""
    words = ["--target", clip, "--epochs", 1, "--device", "cpu", "--image-size", 64, "--checkpoint", disk / "w.pth"]
    assert script(GenVanillaNN.main, *words)[0] == 0
    before = {name: (disk / name).read_bytes() for name in left(disk)}
    assert set(before) == {"w.pth", "w-last.pth", "w-samples.png"}
    best, last = (len(before[name]) // 1024 for name in ("w.pth", "w-last.pth"))
    told = set()
    for kilobytes in (0, best // 2, best + 200, best + last // 2):
        full(kilobytes)
        status, _, error = script(GenVanillaNN.main, *words, "--seed", kilobytes)
        told.add(said_once(status, error).removeprefix("error: can't write ").replace(str(disk), "")[:8])
        assert set(left(disk)) <= {*before, "ballast", "w-previous.pth"}
        assert (disk / "w-last.pth").read_bytes() == before["w-last.pth"]
        if (disk / "w-previous.pth").exists():  # else no better ones came so far
            assert (disk / "w-previous.pth").read_bytes() == before["w.pth"]
            break
        assert (disk / "w.pth").read_bytes() == before["w.pth"]
    assert told == {"the curv", "/w.pth: ", "/w-last."}
    full(100000)
    assert script(GenVanillaNN.main, *words)[0] == 0


def test_images_of_a_training(disk, full, clip, script, monkeypatch):
    """The pictures reduced for a network, in the cache."""
    monkeypatch.setattr(VideoSkeleton, "CACHE", disk / "cache")
    assert script(VideoSkeleton.main, clip)[0] == 0
    before = left(disk)
    for kilobytes in (0, 300):
        full(kilobytes)
        status, _, error = script(GenVanillaNN.main, "--target", clip, "--image-size", 64, "--dry-run")
        assert "images-64" in said_once(status, error) and left(disk) == sorted(["ballast", *before])
    full(50000)
    assert script(GenVanillaNN.main, "--target", clip, "--image-size", 64, "--dry-run")[0] == 0


def test_the_demo(disk, full, clip, script):
    output = disk / "o.mp4"
    words = ["--gen-type", 1, "--no-window", "--source", clip, "--target", clip, "--output", output]
    more = ["--skeletons", disk / "s.npz", "--report", disk / "r.json"]
    assert script(DanceDemo.main, *words, *more)[0] == 0
    before = {name: (disk / name).read_bytes() for name in left(disk)}
    assert set(before) == {"o.mp4", "s.npz", "r.json"}
    size = len(before["o.mp4"]) // 1024
    for kilobytes in (0, size // 2, size - 4):
        full(kilobytes)
        status, _, error = script(DanceDemo.main, *words, *more)
        assert str(output) in said_once(status, error)
        assert {name: (disk / name).read_bytes() for name in left(disk) if name != "ballast"} == before
    (disk / "ballast").unlink()
    (disk / "o.mp4").unlink()
    full(size + 8)  # room for the film, not for the skeletons
    status, _, error = script(DanceDemo.main, *words, *more)
    assert "s.npz" in said_once(status, error) and (disk / "s.npz").read_bytes() == before["s.npz"]
    with VideoReader(output) as reader:
        assert len(list(reader)) == 40
