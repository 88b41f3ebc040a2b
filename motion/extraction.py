"""The poses of everybody in every frame of a video, found once and kept under data/cache.

A video's folder is `<its name>-<key>`. The key is a hash of the video's content, the parameters, the pose model and
SCHEMA, so a change of any of them finds the poses anew. In the folder: poses.npz (see motion.following.FoundPeople) and
masks.bin, the people's masks as JPEG images end to end.

The work is done in segments of SEGMENT frames. Each frame is looked at on its own, so a segment depends on nothing but
its frames: the result is the same in one go, after an interruption, or by several processes. The segments lie in a
hidden folder until the video is complete, so a run that was stopped goes on where it was.
"""

import contextlib
import functools
import hashlib
import json
import math
import re
import shutil
import time
from collections import deque

import cv2
import numpy as np
from tqdm import tqdm

from common import paths
from common.command_line import UserError, warn, writable_folder
from common.files import DamagedCache, atomic_write, file_lock, load_arrays, sha256, shorten
from common.processes import run_in_processes
from motion.cuts import CutDetector, thumbnail
from motion.detector import POSE_MODEL, detect_everyone
from motion.following import FoundPeople, clothes, identify
from motion.track import frame_rate
from video.clip import Clip
from VideoReader import NothingThere, VideoReader, index_count, video_images

SCHEMA = 5  # raise it when the meaning of a stored value changes
SEGMENT = 120  # frames of a segment: some seconds of work
MASK_SIZE = 512  # pixels of the longer side of a stored mask
MASK_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 90]
PROCESS_SEGMENTS = 10  # segments, at most, that a process gets at a time
STALE = 7 * 24 * 3600  # seconds after which a run that was stopped is not expected to go on


def load_track(video):
    """The Track of the dancer in `video` (a file or a folder of images), as found: from the cache, or found now. Raises
    UserError where the video can't be read or shows nobody."""
    return load_people(video).track


def load_people(video, force=False):
    """The FoundPeople of `video` (a path or a Clip), from the cache or found now. force: find them even if they are in
    the cache."""
    clip, own = Clip.of(video), cache_folder(video)
    folder = own if force else people_folder(video)
    people = None if force else _kept(folder, clip, cut=folder != own)
    if people is None:
        with file_lock(own, "finding poses in", wait=True) as waited:
            if not waited or _kept(own, clip) is None:
                _find(clip, own)
        people = FoundPeople(own, clip)
    people.tell()
    return people


def people_folder(video):
    """The Path of the folder that `load_people` reads: that of a part or, where there is only that of the whole video,
    that one, out of which the part is cut."""
    own, whole = cache_folder(video), cache_folder(Clip.of(video).path)
    return whole if (whole / "poses.npz").is_file() and not (own / "poses.npz").is_file() else own


def find_in_all(videos, workers, force=False):
    """Fill the cache with the poses of all `videos` (paths or Clips), whose segments are shared out to `workers`
    processes."""
    missing = {cache_folder(video): Clip.of(video) for video in videos}
    missing = {folder: clip for folder, clip in missing.items() if force or _kept(folder, clip) is None}
    with contextlib.ExitStack() as locks:
        for folder in sorted(missing):  # all runs take the locks in one order, so that no two wait for each other
            waited = locks.enter_context(file_lock(folder, "finding poses in", wait=True))
            if waited and _kept(folder, missing[folder]):
                del missing[folder]  # the run that had the lock has found them
        calls = []
        for folder, clip in missing.items():
            count = math.ceil(index_count(clip) / SEGMENT)
            starts = range(0, max(1, count), max(1, min(PROCESS_SEGMENTS, math.ceil(count / workers))))
            calls += [(find_segments, clip, _work_folder(folder), first, last, 1)
                      for first, last in zip(starts, [*starts[1:], None], strict=True)]
        if calls:
            with contextlib.ExitStack() as stack:
                for folder in missing:
                    stack.enter_context(removed_after_errors(_work_folder(folder)))
                progress = tqdm(total=len(calls), desc=f"poses, {workers} processes", unit="part")
                run_in_processes(calls, workers, progress)
        for folder, clip in missing.items():
            _find(clip, folder)  # every segment is there: it only puts them together


def cache_folder(video):
    """The Path of the folder where the poses of `video` (a path or a Clip) are or will be kept."""
    clip = Clip.of(video)
    if not clip.path.exists():
        raise UserError(f"there is no video {str(clip.path)!r}; check the path")
    part = [] if clip.is_whole else [clip.begin, clip.end]
    key = json.dumps([content_sha256(clip.path), _file_sha256(POSE_MODEL.find()), MASK_JPEG, MASK_SIZE, SCHEMA, *part])
    return paths.CACHE / f"{shorten(clip.path.stem, 40)}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def content_sha256(path):
    """The SHA-256 of a file, or of the names and contents of the images in a folder."""
    if path.is_file():
        return _file_sha256(path)
    images = [(image.name, _file_sha256(image)) for image in video_images(path)]
    return hashlib.sha256(json.dumps(images).encode()).hexdigest()


def _file_sha256(path):
    """The SHA-256 of a file, which is read once as long as it does not change: a long video takes seconds."""
    about = path.stat()
    return _sha256_of_version(path, about.st_size, about.st_mtime_ns)


@functools.lru_cache(1024)
def _sha256_of_version(path, size, changed):
    return sha256(path)


def mask_size(frame_size):
    """(width, height) of the stored masks of a video of `frame_size`."""
    shrink = min(1, MASK_SIZE / max(frame_size))
    return tuple(max(1, round(length * shrink)) for length in frame_size)


def _kept(folder, clip, cut=False):
    """The FoundPeople that an earlier run has left in `folder`, or None where they are missing or damaged."""
    if not (folder / "poses.npz").is_file():
        return None
    try:
        return FoundPeople(folder, clip, cut)
    except DamagedCache as error:
        warn(f"{error} now")
        return None


def _work_folder(folder):
    """The hidden folder in which the segments of what will be `folder` are collected."""
    work = writable_folder(folder.parent) / f".{folder.name}.work"
    work.mkdir(exist_ok=True)
    return work


@contextlib.contextmanager
def removed_after_errors(work):
    """Remove the folder `work` after an error in the block. After an interruption it stays, for the next run."""
    try:
        yield
    except Exception as error:
        shutil.rmtree(work, ignore_errors=True)
        if not isinstance(error, OSError):
            raise
        raise UserError(f"can't write into {work}: {error.strerror}") from None


def _find(clip, folder):
    """Find what is missing of the poses of a Clip and put it all into `folder`, in place of what is there."""
    work = _work_folder(folder)
    _remove_stale(folder.parent)
    with removed_after_errors(work):
        first = 0
        while _read_segment(work, first) is not None:
            first += 1
        # It begins one segment earlier, because behind the end of a video all of it would be decoded to find nothing.
        find_segments(clip, work, max(0, first - 1))
        shutil.rmtree(folder, ignore_errors=True)
        _join(clip, work)
        work.rename(folder)


def find_segments(clip, work, first=0, last=None, detectors=None):
    """Write those of a Clip's segments `first` up to, not including, `last` (None: the end) that `work` does not hold.

    A segment is an .npz with, for its frames: seconds float64 (frames,), thumbnails uint8 (frames, 64, 64), counts int
    (frames,); and for all people in them: joints float32 (people, 33, 3), visibility float32 (people, 33), clothes
    float32 (people, 6), masks uint8 (bytes of JPEG images end to end), spans int (people, 2), where each mask begins
    and ends. detectors: how many run.
    """
    begin, stop = first * SEGMENT, math.inf if last is None else last * SEGMENT
    try:
        reader = VideoReader(clip, begin)
    except NothingThere:
        if first:  # the video ends before this part of it
            return
        raise
    # The bar is closed whatever happens, so that an error has a line of its own.
    with reader, tqdm(reader.timed(), total=reader.frame_count, initial=begin, desc=f"poses of {clip.path.name}",
                      unit="frame") as frames:
        size, waiting, rows = mask_size(reader.size), deque(), []

        def missing_frames():
            for number, (seconds, frame) in enumerate(frames, begin):
                if number >= stop:
                    return
                if number % SEGMENT == 0:
                    missing = _read_segment(work, number // SEGMENT) is None
                if missing:
                    waiting.append((number, seconds, thumbnail(frame)))
                    yield frame

        for frame, people in detect_everyone(missing_frames(), SEGMENT, detectors):
            number, seconds, small = waiting.popleft()
            rows.append((seconds, small, [(skeleton, clothes(frame, skeleton, mask), _encode_mask(mask, size))
                                          for skeleton, mask in people]))
            if (number + 1) % SEGMENT == 0:
                _write_segment(work, number // SEGMENT, rows)
                rows = []
        if rows:  # the last segment of the video is shorter
            _write_segment(work, number // SEGMENT, rows)


def _join(clip, work):
    """Put the segments of a complete Clip together: poses.npz and masks.bin."""
    names = ("seconds", "counts", "joints", "visibility", "clothes", "spans")
    parts, shots, detector, index, ends = {name: [] for name in names}, [0], CutDetector(), 0, 0
    with open(work / "masks.bin", "wb") as file:
        while (segment := _read_segment(work, index)) is not None:
            for number, small in enumerate(segment["thumbnails"], index * SEGMENT):
                if detector(small):
                    shots.append(number)
            segment["spans"] = segment["spans"] + ends
            ends += file.write(segment["masks"])
            for name, collected in parts.items():
                collected.append(segment[name])
            index += 1
            if len(segment["counts"]) < SEGMENT:
                break
    parts = {name: np.concatenate(collected) for name, collected in parts.items()}
    parts["seconds"] = np.maximum.accumulate(parts["seconds"])  # a few files have times that go back
    if not len(parts["joints"]):
        raise UserError(f"nobody is seen in the {len(parts['counts'])} frames of {str(clip.path)!r}; show the whole "
                        "person, in good light, and from near enough to fill a third of the picture's height")
    with VideoReader(clip) as reader:
        about = {"size": reader.size, "fps": frame_rate(parts["seconds"], reader.fps),
                 "content": content_sha256(clip.path)}
    shots = np.array(shots)
    parts["identities"] = identify(parts["counts"], parts["joints"], parts.pop("clothes"), parts["seconds"], shots)
    np.savez(work / "poses.npz", mask_spans=parts.pop("spans"), **parts, shots=shots, about=json.dumps(about))
    for path in work.glob("segment-*"):
        path.unlink()


def _encode_mask(mask, size):
    """A mask (float32 H x W in [0, 1]) reduced to `size` (width, height), as a uint8 array of JPEG bytes."""
    small = cv2.resize(mask, size, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", (small * 255).round().astype(np.uint8), MASK_JPEG)[1]


def _write_segment(work, index, rows):
    """rows: for each frame (seconds, thumbnail, [(Skeleton, clothes, mask as JPEG)] of the people)."""
    seconds, thumbnails, frames = zip(*rows, strict=True)
    people = [person for frame in frames for person in frame]
    ends = np.cumsum([0] + [len(mask) for *_, mask in people])
    with atomic_write(work / f"segment-{index:06d}.npz") as part, open(part, "wb") as file:
        np.savez(file, seconds=np.array(seconds, float), thumbnails=np.stack(thumbnails),
                 counts=np.array([len(frame) for frame in frames], int),
                 joints=np.array([s.joints for s, *_ in people], np.float32).reshape(-1, 33, 3),
                 visibility=np.array([s.visibility for s, *_ in people], np.float32).reshape(-1, 33),
                 clothes=np.array([colours for _, colours, _ in people], np.float32).reshape(-1, 6),
                 masks=np.concatenate([np.zeros(0, np.uint8), *(mask for *_, mask in people)]),
                 spans=np.stack([ends[:-1], ends[1:]], 1))


def _read_segment(work, index):
    """The arrays of a segment, or None where it is missing or damaged."""
    try:
        segment = load_arrays(work / f"segment-{index:06d}.npz")
        people = {len(segment[name]) for name in ("joints", "visibility", "clothes", "spans")}
        frames = {len(segment[name]) for name in ("seconds", "thumbnails", "counts")}
        fits = people == {segment["counts"].sum()} and segment["spans"].max(initial=0) <= len(segment["masks"])
        return segment if fits and len(frames) == 1 and min(frames) else None
    except Exception:  # a damaged or foreign file can cause many kinds of errors
        return None


def _remove_stale(cache):
    """Remove what runs that were stopped have left, if none has gone on with it for STALE seconds."""
    for work in cache.glob(".*-*.*"):
        name = re.fullmatch(r"\.(.+-[0-9a-f]{16})\..+", work.name)
        if name is None:
            continue
        # Another run may be at work in it if the clock has jumped, or may have removed it just now.
        with contextlib.suppress(OSError, UserError), file_lock(cache / name[1], "finding poses in"):
            newest = max(path.stat().st_mtime for path in [work, *work.rglob("*")])
            if time.time() - newest > STALE:
                shutil.rmtree(work, ignore_errors=True)
