"""The canvas and its cache: geometry, fidelity, when it is rebuilt, and what faults leave behind."""

import copy
import multiprocessing
import os
import signal
import time

import cv2
import numpy as np
import pytest
from conftest import SAMPLE
from tqdm import tqdm

import Canvas
import Extraction
import PoseScan
import Storage
import VideoSkeleton as module
from Canvas import canvas_box, crop
from CommandLine import UserError
from PoseTrack import Cuts, thumbnail
from Storage import alone
from VideoReader import VideoReader
from VideoSkeleton import VideoSkeleton, cache_folder
from VideoWriter import VideoWriter


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CACHE", tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def short(frames, tmp_path):
    """Six frames with a person, and one without before, between and after."""
    path, empty = tmp_path / "short.mp4", np.full_like(frames[0], 90)
    with VideoWriter(path, 10) as writer:
        for frame in [empty, *frames[:3], empty, *frames[3:6], empty]:
            writer.write(frame)
    return path


def no_detector(*_, **__):
    raise AssertionError("a pose was asked for, although the cache has it")


@pytest.mark.parametrize("size", [(640, 360), (360, 640), (512, 512)])
def test_canvas_holds_every_point_with_a_margin_or_reaches_the_border(size):
    rng = np.random.default_rng(0)
    for _ in range(200):
        low = rng.uniform(-50, 300, 2)
        points = low + rng.uniform(0, 1, (30, 2)) * rng.uniform(20, 400, 2)
        x, y, side = canvas_box(points, size)
        assert side % 2 == 0 or side == max(size)
        inside = np.clip(points, 0, size)
        for corner, axis in ((x, 0), (y, 1)):
            assert corner <= inside[:, axis].min() and inside[:, axis].max() <= corner + side
            if side <= size[axis]:
                assert corner >= 0 and corner + side <= size[axis]  # inside the frame where it fits
            else:
                assert corner <= 0 and corner + side >= size[axis]
        extent = (inside.max(0) - inside.min(0)).max()
        assert side >= min(max(size), extent / (1 - 2 * Canvas.MARGIN))


def test_crop_is_black_outside_the_image():
    image = np.arange(1, 13, dtype=np.uint8).reshape(3, 4, 1).repeat(3, 2)
    cut = crop(image, (-1, 1, 4), 4)
    assert cut.shape == (4, 4, 3) and not cut[:, 0].any() and not cut[2:].any()
    assert np.array_equal(cut[:2, 1:], image[1:, :3])


def test_images_are_visually_lossless_and_joints_lie_on_them(clip, target, frames):
    assert len(target) == len(frames) == target.read and target.size <= Canvas.CANVAS
    with VideoReader(clip) as reader:
        decoded = list(reader)
    for index in (0, 17, 39):
        real = crop(decoded[index], target.box, target.size).astype(float)
        assert 10 * np.log10(255 ** 2 / ((target.image(index) - real) ** 2).mean()) > 44
    with np.load(SAMPLE / "joints.npz") as joints:
        truth = joints["target_uv"][:240:6]
    x, y, side = target.box
    found = target.reduced.reshape(-1, 13, 2) * side + [x, y]
    assert np.linalg.norm(found - truth, axis=2).mean() <= 6
    assert np.array_equal(target.full.reshape(-1, 33, 3)[:, module.REDUCED, :2].reshape(-1, 26), target.reduced)


def test_second_load_comes_from_the_cache(clip, target, monkeypatch):
    monkeypatch.setattr(PoseScan, "detect_everyone", no_detector)
    again = VideoSkeleton.load(clip)
    assert np.array_equal(again.joints, target.joints) and np.array_equal(again.image(5), target.image(5))
    assert (again.box, again.fps, again.frame_size) == (target.box, 10, (512, 512))


def test_masks_lie_on_the_person_and_the_plate_shows_nobody(target, frames):
    assert target.still and target.plate.shape == frames[0].shape
    plate = crop(target.plate, target.box, target.size).astype(int)
    for index in (0, 17, 39):
        mask, image = target.mask(index), target.image(index)
        assert mask.shape == (target.size, target.size) and mask.dtype == np.uint8
        torso = (target.joints[index, [11, 12, 23, 24], :2].mean(0) * target.size).astype(int)
        assert mask[torso[1], torso[0]] > 200 and mask[:20].max() < 20
        away = np.abs(image - plate).max(2)
        assert away[mask < 20].mean() < 6 < 30 < away[mask > 235].mean()  # the person is gone, the room is not
    part = target.first(7)
    assert len(part) == 7 and len(part.reduced) == 7 and part.identity == target.identity
    assert np.array_equal(part.image(6), target.image(6))


def test_frames_without_a_person_are_left_out_and_counted(short, cache):
    target = VideoSkeleton.load(short)
    assert target.read == 9 and target.frames.tolist() == [1, 2, 3, 5, 6, 7]


def test_a_folder_of_unrelated_photos_is_a_target(frames, cache, tmp_path):
    """Each photo is a shot of its own, and none is dropped for being short."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, frame in enumerate(frames[:4]):
        turned = frame if number % 2 else cv2.flip(cv2.resize(frame[50:450, 50:450], (512, 512)), 1)
        cv2.imwrite(str(folder / f"{number}.png"), turned)
    cuts = Cuts()
    with VideoReader(folder) as reader:
        assert [cuts(thumbnail(photo)) for photo in reader] == [False, True, True, True]
    assert VideoSkeleton.load(folder).frames.tolist() == [0, 1, 2, 3]


def test_stride_model_content_and_schema_change_the_key(short, cache, monkeypatch, tmp_path):
    keys = {cache_folder(short), cache_folder(short, stride=2)}
    with monkeypatch.context() as patch:
        patch.setattr(module, "SCHEMA", module.SCHEMA + 1)
        keys.add(cache_folder(short))
    with monkeypatch.context() as patch:
        patch.setattr(module, "sha256", lambda path: "another model" if path.suffix == ".task" else "same")
        keys.add(cache_folder(short))
    assert VideoSkeleton.load(short, stride=2).frames.tolist() == [2, 6]
    short.write_bytes(short.read_bytes() + b"\0")
    keys.add(cache_folder(short))
    assert len(keys) == 5
    renamed = short.rename(tmp_path / "other.mp4")
    assert cache_folder(renamed).name.split("-")[-1] in {key.name.split("-")[-1] for key in keys}


def same(a, b):
    """Are the caches of two targets equal, byte by byte?"""
    arrays = [np.load(target.folder / "skeletons.npz", allow_pickle=False) for target in (a, b)]
    return all(np.array_equal(arrays[0][name], arrays[1][name]) for name in arrays[0].files) and all(
        (a.folder / name).read_bytes() == (b.folder / name).read_bytes()
        for name in ("frames.bin", "masks.bin", "plate.png"))


@pytest.mark.parametrize("place", ["poses", "canvas"])
def test_a_stopped_extraction_goes_on_and_ends_as_if_it_had_not_been(place, clip, target, cache, monkeypatch):
    """Stopped after 25 of 40 frames: what is done again is less than a segment, or than what is noted at a time."""
    monkeypatch.setattr(PoseScan, "SEGMENT", 6)
    monkeypatch.setattr(Extraction, "NOTE", 6)
    count, detect, cut = 0, PoseScan.detect_everyone, Extraction.crop

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
        monkeypatch.setattr(PoseScan, "detect_everyone", counted)
    else:
        monkeypatch.setattr(Extraction, "crop", cropped)
    with pytest.raises(KeyboardInterrupt):
        VideoSkeleton.load(clip)
    assert [path.name[-5:] for path in cache.iterdir()] == [".work"]
    count = 25
    again = VideoSkeleton.load(clip)
    assert 40 - 25 <= count - 25 <= 40 - 25 + 6 + 5  # a segment or a note, and what waits in the pool
    assert list(cache.iterdir()) == [again.folder] and same(again, target)


def test_a_damaged_segment_is_scanned_again(clip, target, cache, monkeypatch):
    monkeypatch.setattr(PoseScan, "SEGMENT", 6)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Extraction, "frame_count", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        VideoSkeleton.load(clip)
    work, = cache.glob(".*.work")
    segments = sorted((work / "scan").glob("segment*"))
    assert len(segments) == 7
    segments[2].write_bytes(segments[2].read_bytes()[:500])
    segments[4].write_bytes(np.random.default_rng(0).bytes(3000))
    (work / "scan" / PoseScan.END).unlink()
    assert same(VideoSkeleton.load(clip), target)


def test_what_nobody_goes_on_with_is_removed(short, cache):
    """A stopped extraction is kept for a while, and as long as a run holds it, whatever the clock says."""
    ages = {".old-0123456789abcdef.work": 2, ".new-0123456789abcdef.work": 0, ".held-0123456789abcdef.work": 2}
    for name, age in ages.items():
        folder = cache / name
        (folder / "scan").mkdir(parents=True)
        (folder / "scan" / "segment").touch()
        for path in (folder / "scan" / "segment", folder / "scan", folder):
            os.utime(path, (time.time() - age * Extraction.STALE,) * 2)
    with alone(cache / "held-0123456789abcdef", "extracting"):
        assert len(VideoSkeleton.load(short)) == 6
    assert {path.name for path in cache.glob(".*")} == {".new-0123456789abcdef.work", ".held-0123456789abcdef.work"}


def test_a_clock_that_goes_back_changes_nothing(short, cache, monkeypatch):
    hours = iter(range(10 ** 9, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: next(hours))
    assert len(VideoSkeleton.load(short)) == 6 and len(list(cache.iterdir())) == 1


def test_force_replaces_the_cache(short, cache):
    first = VideoSkeleton.load(short)
    (first.folder / "contact-sheet.png").write_bytes(b"of the old one")
    again = VideoSkeleton.load(short, force=True)
    assert not (again.folder / "contact-sheet.png").exists() and np.array_equal(first.joints, again.joints)
    assert list(cache.iterdir()) == [again.folder]


def _load(video, cache, answers):
    module.CACHE, Storage.LOCKS = cache, cache.parent / "locks"
    scans = []
    scan, Extraction.scan = Extraction.scan, lambda *args: (scans.append(1), scan(*args))
    answers.put((len(VideoSkeleton.load(video)), len(scans)))


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


def test_several_processes_make_the_files_of_one(clip, target, short, cache, monkeypatch, capfd):
    """A video split into parts, and a short one beside it; SEGMENT is that of the processes, 120."""
    with VideoReader(clip) as reader:
        frames = list(reader)
    long = short.with_name("long.mp4")
    with VideoWriter(long, 30) as writer:
        for number in range(130):
            writer.write(frames[abs(number % 78 - 39)])
    serial = [VideoSkeleton.load(video) for video in (long, short)]
    monkeypatch.setattr(module, "CACHE", cache.with_name("others"))
    parallel = VideoSkeleton.load_all([long, short], workers=2)
    assert all(same(a, b) for a, b in zip(serial, parallel, strict=True)) and serial[0].folder != parallel[0].folder
    assert "poses, 2 processes" in capfd.readouterr().err and len(list(module.CACHE.iterdir())) == 2
    again = VideoSkeleton.load_all([long, short], workers=2)
    assert all(same(a, b) for a, b in zip(again, parallel, strict=True)) and capfd.readouterr().err == ""


def test_a_dask_cluster_makes_the_files_of_one_process(short, frames, cache, monkeypatch, script):
    """A scheduler and two worker processes on this machine."""
    distributed = pytest.importorskip("distributed", reason="pip install -r requirements-cluster.txt")
    other = short.with_name("other.mp4")
    with VideoWriter(other, 10) as writer:
        for frame in frames[8:14]:
            writer.write(frame)
    serial = [VideoSkeleton.load(video) for video in (short, other)]
    monkeypatch.setattr(module, "CACHE", cache.with_name("others"))
    monkeypatch.setenv("PYTHONPATH", str(module.ROOT))  # the workers import the project
    with distributed.LocalCluster(2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster:
        status, out, error = script(module.main, short, other, "--scheduler", cluster.scheduler_address)
    assert status == 0 and "other.mp4: 6 frames, 6 with a person" in out, error
    parallel = [VideoSkeleton.load(video) for video in (short, other)]
    assert all(same(a, b) for a, b in zip(serial, parallel, strict=True)) and serial[0].folder != parallel[0].folder
    monkeypatch.setattr(module, "CACHE", cache.with_name("none"))
    status, _, error = script(module.main, short, "--scheduler", "tcp://127.0.0.1:9")
    assert status == 2 and "there is no Dask scheduler" in error and error.count("\n") == 1


def test_what_a_killed_worker_had_in_hand_is_done_again(cache, capfd):
    """By hand: the third of four calls ends its process, once."""
    calls = [(_die_once, str(cache.parent / "died"), number) for number in range(4)]
    with tqdm(total=4) as progress:
        assert PoseScan.by_processes(calls, 2, progress) == [0, 1, 4, 9]
    assert "ended from outside" in capfd.readouterr().err
    with tqdm(total=1) as progress, pytest.raises(UserError, match="fewer --workers"):
        PoseScan.by_processes([(os.abort,)], 1, progress)


def _die_once(marker, number):
    if number == 2 and not os.path.exists(marker):
        open(marker, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return number ** 2


def test_nobody_in_the_video(frames, cache, tmp_path):
    path = tmp_path / "empty room.mp4"
    with VideoWriter(path, 10) as writer:
        for _ in range(3):
            writer.write(np.full_like(frames[0], 90))
    with pytest.raises(UserError, match="nobody is seen in the 3 frames"):
        VideoSkeleton.load(path)
    assert list(cache.iterdir()) == []


def test_command_line(short, cache, script):
    status, out, err = script(module.main, short)
    assert status == 0 and "9 frames, 6 with a person" in out and err
    sheet, = cache.glob("*/contact-sheet.png")
    assert sheet.stat().st_size > 1000 and str(sheet) in out
    status, out, _ = script(module.main, short)
    assert status == 0 and "from the cache" in out
    assert script(module.main, short, "--stride", "0")[::2] == (2, "error: argument --stride: '0' is not a positive "
                                                                "whole number (see --help)\n")
    assert script(module.main, "missing.mp4")[::2] == (2, "error: there is no video 'missing.mp4'; check the path\n")


def test_what_the_target_does_and_what_would_be_better(target):
    """40 frames of 4 seconds, in which the sample's target raises arms and legs; then the same, spoilt one by one."""
    assert module.movements(target)["arms up"] > 0.1
    told = module.advice(target)
    assert [sentence for sentence in told if sentence.startswith("Record longer: 4 seconds")]
    assert not [sentence for sentence in told if sentence.startswith(("Step back", "Keep the camera", "Stay in"))]
    stiff = copy.copy(target)
    stiff.joints, stiff.visibility = target.joints[:1].repeat(40, 0), target.visibility.copy()
    stiff.visibility[:20, 27] = 0.1
    stiff.still, stiff.read, stiff.fps = False, 900, 30
    told = module.advice(stiff)
    assert [sentence.split(":")[0] for sentence in told] == [
        "Move more", "Stay in the picture, in good light", "Step back so that the feet show",
        "Keep the camera still, on a tripod"]
    assert "40 of 900 frames" in told[1] and "50%" in told[2] and "arms up" in told[0]
    assert max(module.movements(stiff).values()) in (0, 1)
