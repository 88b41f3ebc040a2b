"""The poses of everybody in every frame of a video, found once and kept under data/cache.

A video's folder is `<its name>-<key>`. The key is a hash of the video's content, the parameters, the pose model and
SCHEMA, so a change of any of them finds the poses anew. In the folder: poses.npz (see motion.following.FoundPeople) and
masks.bin, the people's masks as JPEG images end to end.

The work is done in segments (motion/segments.py), so the result is the same in one go, after an interruption, or by
several processes. They lie in a hidden folder until the video is complete, so a run that was stopped goes on where it
was. Then they are put together, and the motion of the camera and of what is seen at the joints is found.
"""

import contextlib
import functools
import hashlib
import json
import math
import re
import shutil
import time
from itertools import pairwise

import cv2
import numpy as np
from tqdm import tqdm

from common import paths
from common.ahead import ahead
from common.command_line import UserError, warn, writable_folder
from common.files import DamagedCache, EncodedImages, decode_image, file_lock, sha256, shorten
from common.processes import run_in_processes
from motion import segments
from motion.body import body_lengths
from motion.detector import POSE_MODEL
from motion.following import FoundPeople, identify
from motion.segments import JPEG, SMALL, find_segments, read_segment, small_size
from motion.track import frame_rate
from video.camera import CutDetector, camera_path
from video.clip import Clip
from video.flow import flow_around, texture
from VideoReader import VideoReader, index_count, video_images

SCHEMA = 7  # raise it when the meaning of a stored value changes
PROCESS_SEGMENTS = 10  # segments, at most, that a process gets at a time
REACH = 0.035  # body heights around a joint, as a standard deviation, in which the pictures' motion is averaged
AROUND = 0.12  # body heights around a pose in which the motion is looked for
STALE = 7 * 24 * 3600  # seconds after which a run that was stopped is not expected to go on


def load_track(video):
    """The Track of the dancer in `video` (a file or a folder of images), from the cache or found now. Raises UserError
    where the video can't be read or shows nobody."""
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
            count = math.ceil(index_count(clip) / segments.SEGMENT)
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
    key = json.dumps([content_sha256(clip.path), _file_sha256(POSE_MODEL.find()), JPEG, SMALL, SCHEMA, *part])
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
        while read_segment(work, first) is not None:
            first += 1
        # It begins one segment earlier, because behind the end of a video all of it would be decoded to find nothing.
        find_segments(clip, work, max(0, first - 1))
        shutil.rmtree(folder, ignore_errors=True)
        _join(clip, work)
        work.rename(folder)


def _join(clip, work):
    """Put the segments of a complete Clip together: poses.npz and masks.bin."""
    names = ("seconds", "counts", "joints", "visibility", "clothes", "mask_spans")
    parts, shots, detector, index = {name: [] for name in names}, [0], CutDetector(), 0
    with open(work / "masks.bin", "wb") as masks:
        while (segment := read_segment(work, index)) is not None:
            for number, small in enumerate(segment["thumbnails"], index * segments.SEGMENT):
                if detector(small):
                    shots.append(number)
            segment["mask_spans"] = segment["mask_spans"] + masks.tell()
            masks.write(segment["masks"])
            for name, collected in parts.items():
                collected.append(segment[name])
            index += 1
            if len(segment["counts"]) < segments.SEGMENT:
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
    pictures = _Pictures(work, small_size(about["size"]), parts["mask_spans"])
    parts["camera"] = _camera(clip, pictures, parts["counts"], shots)
    parts["identities"] = identify(parts["counts"], parts["joints"], parts.pop("clothes"), parts["seconds"], shots)
    parts["moves"], parts["sure"] = _moves(clip, pictures, parts, shots)
    np.savez(work / "poses.npz", **parts, shots=shots, about=json.dumps(about))
    for path in work.glob("segment-*"):
        path.unlink()


class _Pictures:
    """What the segments in the folder `work` keep of a video's frames. size: (width, height) of all of it; mask_spans:
    of everybody's masks."""

    def __init__(self, work, size, mask_spans):
        self.size, self._masks = size, EncodedImages(work / "masks.bin", mask_spans)
        self._segment = functools.lru_cache(2)(functools.partial(read_segment, work))

    def picture(self, number):
        """The small_picture of frame `number`."""
        index, place = divmod(number, segments.SEGMENT)
        segment = self._segment(index)
        return decode_image(segment["pictures"][slice(*segment["picture_spans"][place])], cv2.IMREAD_GRAYSCALE,
                            self.size)

    def mask(self, person):
        """The mask of person number `person` of all that were found: uint8 h x w."""
        return self._masks.read(person, cv2.IMREAD_GRAYSCALE, self.size)


def _camera(clip, pictures, counts, shots):
    """What `camera_path` gives. pictures: _Pictures; counts: (N,), of people in each frame; shots: with which frames
    shots begin."""
    ends = np.cumsum([0, *counts])

    def people(number):
        return [pictures.mask(person) for person in range(*ends[number:number + 2])]

    with tqdm(total=len(counts), desc=f"camera of {clip.path.name}", unit="frame") as bar:
        return camera_path(pictures.picture, people, shots, len(counts), bar.update)


def _moves(clip, pictures, parts, shots):
    """(moves (P, 33, 2), sure (P, 33)): how far what is seen at each landmark of everybody lies from there in the next
    frame, in the joints' unit, and how sure this is; 0 where the person is not in that frame or a cut lies before it.
    parts: of `_join`; the others as of `_camera`."""
    joints, identities, longer = parts["joints"], parts["identities"], max(pictures.size)
    moves, sure = np.zeros((len(joints), 33, 2), np.float32), np.zeros((len(joints), 33), np.float32)
    ends, count = np.cumsum([0, *parts["counts"]]), len(parts["counts"])
    frames = pairwise(ahead(map(pictures.picture, range(count))))
    frames = tqdm(frames, desc=f"motion in {clip.path.name}", unit="frame", total=count - 1)
    for number, (old, new) in enumerate(frames, 1):
        before, after = ({identities[row]: row for row in range(*ends[frame:frame + 2])}
                         for frame in (number - 1, number))
        for one in () if number in shots else before.keys() & after.keys():
            row, poses = before[one], joints[[before[one], after[one]]] * longer
            moves[row], sure[row] = _move(old, new, pictures.mask(row), poses)
    return moves / longer, sure


def _move(old, new, mask, poses):
    """What `flow_around` gives for the landmarks of a person, whose `poses` (2, 33, 3) in the small pictures `old` and
    `new` are in pixels. mask: in `old`."""
    points, height = poses[:, :, :2].reshape(-1, 2), max(float(body_lengths(poses).mean()), 1)
    left, top = np.clip(points.min(0) - AROUND * height, 0, np.array(old.shape[::-1]) - 1).astype(int)
    right, bottom = np.maximum(points.max(0) + AROUND * height, (left + 1, top + 1)).astype(int)
    box = np.s_[top:bottom, left:right]
    share = texture(old[box]) * (mask[box] / np.float32(255))
    return flow_around(old[box], new[box], share, poses[0, :, :2] - (left, top), REACH * height)


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
