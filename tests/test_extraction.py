"""The poses of a video and their cache: when they are found anew, and that nothing is lost when a run is stopped."""

import multiprocessing
import os
import time
from types import SimpleNamespace

import numpy as np
import pytest

import VideoSkeleton as VideoSkeletonScript
from common import paths
from common.files import file_lock
from motion import extraction, segments
from motion.extraction import cache_folder, load_track
from picture import target_pictures
from picture.target_pictures import target_folder
from video.clip import Clip
from video.film import VideoWriter
from VideoReader import VideoReader
from VideoSkeleton import VideoSkeleton


def test_content_parameters_model_and_schema_change_the_key(short, cache, monkeypatch, tmp_path):
    keys, pictures = {cache_folder(short)}, {target_folder(short)}
    for module, name in ((extraction, "SCHEMA"), (extraction, "SMALL"), (target_pictures, "SCHEMA"),
                         (target_pictures, "CANVAS")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, 99)
            keys.add(cache_folder(short))
            pictures.add(target_folder(short))
    with monkeypatch.context() as patch:
        patch.setattr(extraction, "POSE_MODEL", SimpleNamespace(find=lambda: short))  # another file
        keys.add(cache_folder(short))
    assert len(keys) == 4 and len(pictures) == 5
    renamed = short.rename(tmp_path / "other.mp4")
    assert cache_folder(renamed).name.split("-")[-1] in {key.name.split("-")[-1] for key in keys}
    renamed.write_bytes(renamed.read_bytes() + b"\0")
    assert cache_folder(renamed).name.split("-")[-1] not in {key.name.split("-")[-1] for key in keys}


def same(a, b):
    """Are the caches of two targets equal, byte by byte?"""
    return all((a.folder.parent / name).read_bytes() == (b.folder.parent / name).read_bytes()
               for name in ("poses.npz", "masks.bin")) and all(
        (a.folder / name).read_bytes() == (b.folder / name).read_bytes()
        for name in ("skeletons.npz", "frames.bin", "plate.png"))


@pytest.mark.parametrize("place", ["poses", "canvas"])
def test_a_stopped_extraction_goes_on_and_ends_as_if_it_had_not_been(place, clip, target, cache, monkeypatch):
    """Stopped after 25 of 40 frames: what is done again is less than a segment, or than what is noted at a time."""
    monkeypatch.setattr(segments, "SEGMENT", 6)
    monkeypatch.setattr(target_pictures, "NOTE", 6)
    count, detect, cut = 0, segments.detect_everyone, target_pictures.crop

    def one_more():
        nonlocal count
        count += 1
        if count == 25:
            raise KeyboardInterrupt

    def counted(*args, **options):
        for step in detect(*args, **options):
            one_more()
            yield step

    def cropped(*args):
        one_more()
        return cut(*args)

    if place == "poses":
        monkeypatch.setattr(segments, "detect_everyone", counted)
    else:
        monkeypatch.setattr(target_pictures, "crop", cropped)
    with pytest.raises(KeyboardInterrupt):
        VideoSkeleton.load(clip)
    name = cache_folder(clip).name
    assert {path.name for path in cache.iterdir()} == (
        {f".{name}.work"} if place == "poses" else {name, f".{name}.{target_folder(clip).name}.work"})
    count = 25
    again = VideoSkeleton.load(clip)
    assert 40 - 25 <= count - 25 <= 40 - 25 + 6 + 5  # a segment or a note, and what waits in the pool
    assert list(cache.iterdir()) == [again.folder.parent] and same(again, target)


def test_a_damaged_segment_is_scanned_again(clip, target, cache, monkeypatch):
    monkeypatch.setattr(segments, "SEGMENT", 6)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(extraction, "_join", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        VideoSkeleton.load(clip)
    work, = cache.glob(".*.work")
    parts = sorted(work.glob("segment*"))
    assert len(parts) == 7
    parts[2].write_bytes(parts[2].read_bytes()[:500])
    parts[4].write_bytes(np.random.default_rng(0).bytes(3000))
    assert same(VideoSkeleton.load(clip), target)


def test_what_nobody_goes_on_with_is_removed(short, cache):
    """A stopped extraction is kept for a while, and as long as a run holds it, whatever the clock says."""
    ages = {".old-0123456789abcdef.work": 2, ".new-0123456789abcdef.work": 0, ".held-0123456789abcdef.work": 2}
    for name, age in ages.items():
        folder = cache / name
        folder.mkdir(parents=True)
        (folder / "segment").touch()
        for path in (folder / "segment", folder):
            os.utime(path, (time.time() - age * extraction.STALE,) * 2)
    with file_lock(cache / "held-0123456789abcdef", "extracting"):
        assert len(VideoSkeleton.load(short)) == 6
    assert {path.name for path in cache.glob(".*")} == {".new-0123456789abcdef.work", ".held-0123456789abcdef.work"}


def test_a_clock_that_goes_back_changes_nothing(short, cache, monkeypatch):
    hours = iter(range(10 ** 9, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: next(hours))
    assert len(VideoSkeleton.load(short)) == 6 and len(list(cache.iterdir())) == 1


def _load(video, cache, answers):
    paths.CACHE, paths.LOCKS = cache, cache.parent / "locks"
    finds = []
    find, extraction._find = extraction._find, lambda *args: (finds.append(1), find(*args))
    answers.put((len(VideoSkeleton.load(video)), len(finds)))


def test_two_extractions_at_once_are_one(short, cache):
    """The second waits for the first and takes what that has made."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    runs = [context.Process(target=_load, args=(short, cache, answers)) for _ in range(2)]
    for run in runs:
        run.start()
    told = [answers.get(timeout=120) for _ in runs]
    assert sorted(told) == [(6, 0), (6, 1)]
    for run in runs:
        run.join()
    assert len(list(cache.iterdir())) == 1


def test_parts_of_a_video_give_the_poses_of_the_whole(clip, target, cache, monkeypatch):
    """As several processes share a video: parts in any order, one beyond its end, in smaller segments."""
    monkeypatch.setattr(segments, "SEGMENT", 6)
    work = extraction._work_folder(cache_folder(clip))
    for first, last in ((5, None), (8, 9), (2, 5), (0, 2)):
        segments.find_segments(Clip(clip), work, first, last, detectors=1)
    assert sorted(path.name for path in work.iterdir()) == [f"segment-{number:06d}.npz" for number in range(7)]
    monkeypatch.setattr(segments, "detect_everyone", lambda images, *_: iter(list(images)))  # all are there
    assert np.array_equal(load_track(clip).joints, load_track(target.path).joints)
    for name in ("poses.npz", "masks.bin"):
        assert (cache_folder(clip) / name).read_bytes() == (target.folder.parent / name).read_bytes()


@pytest.mark.journey
def test_several_processes_make_the_files_of_one(clip, target, short, cache, monkeypatch, capfd):
    """A video split into parts, and a short one beside it; SEGMENT is that of the processes, 120."""
    with VideoReader(clip) as reader:
        frames = list(reader)
    long = short.with_name("long.mp4")
    with VideoWriter(long, 30) as writer:
        for number in range(130):
            writer.write(frames[abs(number % 78 - 39)])
    serial = [VideoSkeleton.load(video) for video in (long, short)]
    monkeypatch.setattr(paths, "CACHE", cache.with_name("others"))
    parallel = VideoSkeleton.load_all([long, short], workers=2)
    assert all(same(a, b) for a, b in zip(serial, parallel, strict=True)) and serial[0].folder != parallel[0].folder
    assert "poses, 2 processes" in capfd.readouterr().err and len(list(paths.CACHE.iterdir())) == 2
    again = VideoSkeleton.load_all([long, short], workers=2)
    assert all(same(a, b) for a, b in zip(again, parallel, strict=True)) and capfd.readouterr().err == ""


@pytest.mark.journey
def test_a_dask_cluster_makes_the_files_of_one_process(short, frames, cache, monkeypatch, script):
    """A scheduler and two worker processes on this machine."""
    distributed = pytest.importorskip("distributed", reason="pip install -r requirements-cluster.txt")
    other = short.with_name("other.mp4")
    with VideoWriter(other, 10) as writer:
        for frame in frames[8:14]:
            writer.write(frame)
    serial = [VideoSkeleton.load(video) for video in (short, other)]
    monkeypatch.setattr(paths, "CACHE", cache.with_name("others"))
    monkeypatch.setenv("PYTHONPATH", str(paths.ROOT))  # the workers import the project
    with distributed.LocalCluster(2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster:
        status, out, error = script(VideoSkeletonScript.main, short, other, "--scheduler", cluster.scheduler_address)
    assert status == 0 and "other.mp4: 6 frames, 6 with a person" in out, error
    parallel = [VideoSkeleton.load(video) for video in (short, other)]
    assert all(same(a, b) for a, b in zip(serial, parallel, strict=True)) and serial[0].folder != parallel[0].folder
    monkeypatch.setattr(paths, "CACHE", cache.with_name("none"))
    status, _, error = script(VideoSkeletonScript.main, short, "--scheduler", "tcp://127.0.0.1:9")
    assert status == 2 and "there is no Dask scheduler" in error and error.count("\n") == 1
