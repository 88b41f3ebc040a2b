"""A disk that fills up at any stage of writing: one line, status 2, nothing half-written, what was there intact."""

import os
import subprocess

import numpy as np
import pytest
from conftest import complaint, read_film

import DanceDemo
import GenVanillaNN
import VideoSkeleton
from common import paths
from motion.extraction import load_track
from motion.following import FoundPeople
from motion.segments import find_segments
from motion.track import Track
from video.clip import Clip

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
def fill(disk):
    """fill(kilobytes): leave so much room on the disk. After the test it is empty again."""
    ballast = disk / "ballast"

    def leave(kilobytes):
        ballast.unlink(missing_ok=True)
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        with open(ballast, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(free - kilobytes * 1024, 1))

    yield leave
    subprocess.run(["find", disk, "-mindepth", "1", "-delete"], check=True)


def files_in(folder):
    """Names of the files in a folder, hidden or not, but for the ballast and the curves of trainings."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and
                  path.name != "ballast" and "runs" not in path.parts)


def said_once(status, error):
    lines = complaint(error)
    assert status == 2 and len(lines) == 1 and lines[0].startswith("error: can't write"), error
    return lines[0]


def test_extraction(disk, fill, clip, target, script, monkeypatch, tmp_path):
    """No room at all, room for some of the poses, for some of the pictures, and for all of them."""
    monkeypatch.setattr(paths, "CACHE", disk / "cache")
    folder, known = disk / "cache" / target.folder.parent.name, target.folder.parent
    sizes = {path.name: path.stat().st_size // 1024 for path in known.rglob("*") if path.is_file()}
    poses = sizes["poses.npz"] + sizes["masks.bin"]
    find_segments(Clip(clip), tmp_path)
    segment = (tmp_path / "segment-000000.npz").stat().st_size // 1024
    # A segment and what is made of all segments lie on the disk at once.
    for kilobytes in (0, segment // 2, segment + poses // 2):
        fill(kilobytes)
        said_once(*script(VideoSkeleton.main, clip)[::2])
        assert files_in(disk) == []
    fill(50000)
    load_track(clip)
    # Poses that are complete are not lost where there is too little room for the pictures.
    for kilobytes in (0, sizes["frames.bin"] // 2):
        fill(kilobytes)
        said_once(*script(VideoSkeleton.main, clip)[::2])
        assert files_in(disk) == [f"cache/{folder.name}/{name}" for name in ("masks.bin", "poses.npz")]
        FoundPeople(folder, Clip(folder))
    fill(50000)
    assert script(VideoSkeleton.main, clip)[0] == 0
    for name in ("poses.npz", "masks.bin", f"{target.folder.name}/frames.bin", f"{target.folder.name}/skeletons.npz"):
        assert (folder / name).read_bytes() == (known / name).read_bytes()


def test_training(disk, fill, clip, target, script):
    """No room for the curves, the best weights, the last weights; the weights that were there stay, under their own
    name. The loop is the same for every network."""
    words = ["--target", clip, "--epochs", 1, "--device", "cpu", "--image-size", 64, "--checkpoint", disk / "w.pth"]
    assert script(GenVanillaNN.main, *words)[0] == 0
    before = {name: (disk / name).read_bytes() for name in files_in(disk)}
    assert set(before) == {"w.pth", "w-last.pth", "w-samples.png"}
    best, last = (len(before[name]) // 1024 for name in ("w.pth", "w-last.pth"))
    told = set()
    for kilobytes in (0, best // 2, best + 200, best + last // 2):
        fill(kilobytes)
        status, _, error = script(GenVanillaNN.main, *words, "--seed", kilobytes)
        told.add(said_once(status, error).removeprefix("error: can't write ").replace(str(disk), "")[:8])
        assert set(files_in(disk)) <= {*before, "w-previous.pth"}
        assert (disk / "w-last.pth").read_bytes() == before["w-last.pth"]
        if (disk / "w-previous.pth").exists():  # else no better weights have come so far
            assert (disk / "w-previous.pth").read_bytes() == before["w.pth"]
            break
        assert (disk / "w.pth").read_bytes() == before["w.pth"]
    assert told == {"the curv", "/w.pth: ", "/w-last."}
    fill(100000)
    assert script(GenVanillaNN.main, *words)[0] == 0


def test_images_of_a_training(disk, fill, clip, target, script, monkeypatch):
    """The pictures reduced for a network, in the cache."""
    monkeypatch.setattr(paths, "CACHE", disk / "cache")
    subprocess.run(["cp", "-r", target.folder.parent.parent, disk / "cache"], check=True)
    for path in (disk / "cache").rglob("images-*"):
        path.unlink()
    before = files_in(disk)
    for kilobytes in (0, 300):
        fill(kilobytes)
        status, _, error = script(GenVanillaNN.main, "--target", clip, "--image-size", 64, "--dry-run")
        assert "images-64" in said_once(status, error) and files_in(disk) == before
    fill(50000)
    assert script(GenVanillaNN.main, "--target", clip, "--image-size", 64, "--dry-run")[0] == 0


def test_the_demo(disk, fill, clip, target, script):
    output = disk / "o.mp4"
    words = ["--gen-type", 1, "--no-window", "--source", clip, "--target", clip, "--output", output]
    more = ["--motion", disk / "s.npz", "--report", disk / "r.json"]
    assert script(DanceDemo.main, *words, *more)[0] == 0
    before = {name: (disk / name).read_bytes() for name in files_in(disk)}
    assert set(before) == {"o.mp4", "s.npz", "r.json"}
    size = len(before["o.mp4"]) // 1024
    for kilobytes in (0, size // 2, size - 4):
        fill(kilobytes)
        assert str(output) in said_once(*script(DanceDemo.main, *words, *more)[::2])
        assert {name: (disk / name).read_bytes() for name in files_in(disk)} == before
    (disk / "ballast").unlink()
    output.unlink()
    fill(size + 8)  # room for the film, not for the skeletons
    assert "s.npz" in said_once(*script(DanceDemo.main, *words, *more)[::2])
    assert (disk / "s.npz").read_bytes() == before["s.npz"] and len(read_film(output)) == 40


def test_a_motion_file(disk, fill, clip, target, script):
    """The motion that was kept stays whole, and there is no film of a run that could not keep it."""
    words = ["--gen-type", 1, "--no-window", "--source", clip, "--target", clip, "--output", disk / "o.mp4",
             "--save-motion", disk / "m.npz"]
    load_track(clip).first(20).save(disk / "m.npz")
    before = (disk / "m.npz").read_bytes()
    for kilobytes in (0, 8):
        fill(kilobytes)
        assert "m.npz" in said_once(*script(DanceDemo.main, *words)[::2])
        assert files_in(disk) == ["m.npz"] and (disk / "m.npz").read_bytes() == before
    fill(50000)
    assert script(DanceDemo.main, *words)[0] == 0
    assert np.array_equal(Track.load(disk / "m.npz").joints, load_track(clip).joints)
