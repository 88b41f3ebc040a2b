"""Everybody in every frame of a video, found in segments that are kept on the disk: a scan that was stopped goes on.

Each frame is looked at anew (Skeleton.detect_everyone), so a segment depends on nothing but its own frames, and the
scan is the same in one go, in parts, or by several processes. What does depend on neighbours, which of several people
is followed and where a cut is, is left to whoever reads the segments (`scanned`).
"""

import contextlib
import json
import math
import multiprocessing
import os
import signal
import threading
from collections import deque
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partialmethod
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from CommandLine import UserError, warn
from PoseTrack import Cuts, thumbnail
from Skeleton import Skeleton, detect_everyone
from Storage import stored_arrays, whole
from VideoReader import NothingThere, VideoReader, index_count

SEGMENT = 120  # frames of the video: some seconds of work, under a minute with the largest model on a slow laptop
MASK_JPEG, MASK_SIZE = [cv2.IMWRITE_JPEG_QUALITY, 90], 512  # masks of whole frames, longer side in pixels
PART = 10  # segments, at most, that a process gets at a time
MOST = 61  # processes that Windows can wait for
ATTEMPTS = 3  # times that worker processes may be ended from outside
END = "end.json"  # written last: {"frames": how many the video has}


def mask_size(frame_size):
    """(width, height) of the stored masks of a video."""
    shrink = min(1, MASK_SIZE / max(frame_size))
    return tuple(max(1, round(length * shrink)) for length in frame_size)


def scan(video, folder, stride=1, model="full"):
    """Fill `folder` with the segments of `video` that it does not hold yet; every stride-th frame is looked at.

    segment-N.npz: thumbnails uint8 (frames, 64, 64) of all its frames; people int (frames looked at,), how many are
    seen in each; joints float32 (people, 33, 3) and visibility float32 (people, 33) as detected; masks uint8, JPEG
    images of `mask_size` end to end, and spans int (people, 2), where each begins and ends.
    """
    if not _complete(folder):
        first = 0
        while _read(folder, first) is not None:
            first += 1
        first = max(0, first - 1)  # the last one that is there may be the video's last
        _end(folder, [scan_part(video, folder, stride, model, first)])


def scan_part(video, folder, stride, model, first=0, last=None, detectors=None):
    """Do that from segment `first` up to, not including, `last` (None: to the end), with so many `detectors` at once.

    Returns (the number of the frame after the last one read, whether the video ends there).
    """
    begun, looked, count = {}, deque(), first * SEGMENT  # segments in work; that of each frame being looked at
    stop = math.inf if last is None else last * SEGMENT
    try:
        reader = VideoReader(video, count)
    except NothingThere:
        if first:  # it ends before
            return count, True
        raise
    with reader:
        size = mask_size(reader.size)
        desc = f"pose of {Path(video).name}"
        progress = tqdm(reader, total=reader.frame_count, initial=count, desc=desc, unit="frame")

        def wanted():
            nonlocal count
            for number, frame in enumerate(progress, count):
                if number >= stop:
                    return
                count, index = number + 1, number // SEGMENT
                if number % SEGMENT == 0 and _read(folder, index) is None:
                    begun[index] = [], []
                if index in begun:
                    begun[index][0].append(thumbnail(frame))
                    if number % stride == 0:
                        looked.append(index)
                        yield frame

        for _, people in detect_everyone(wanted(), model, mask=True, workers=detectors):
            index = looked.popleft()
            begun[index][1].append([(skeleton, _encoded(mask, size)) for skeleton, mask in people])
            for earlier in [number for number in begun if number < index]:
                _save(folder, earlier, *begun.pop(earlier))
    for index, segment in begun.items():
        _save(folder, index, *segment)
    return count, count < stop


def scan_many(jobs, workers):
    """`scan` of each of the jobs (video, folder, stride, model), their segments shared out to `workers` processes."""
    parts = []  # (job, first, last)
    for job in jobs:
        if not _complete(job[1]):
            count = math.ceil(index_count(job[0]) / SEGMENT)
            starts = list(range(0, max(1, count), max(1, min(PART, math.ceil(count / workers)))))
            parts += [(job, first, last) for first, last in zip(starts, [*starts[1:], None], strict=True)]
    if not parts:
        return
    ends = by_processes([(scan_part, *job, first, last, 1) for job, first, last in parts], workers,
                        tqdm(total=len(parts), desc=f"poses, {workers} processes", unit="part"))
    for job in jobs:
        own = [end for (of, _, _), end in zip(parts, ends, strict=True) if of is job]
        if own:
            _end(job[1], own)


def by_processes(calls, workers, progress):
    """The results of calls (function, *arguments), in order, by `workers` processes. What a process that is ended from
    outside had in hand is done again by a new one."""
    results = {}
    for _ in range(ATTEMPTS):
        rest = [number for number in range(len(calls)) if number not in results]
        pool = ProcessPoolExecutor(min(workers, MOST), multiprocessing.get_context("spawn"), _as_worker)
        try:
            futures = {pool.submit(*calls[number]): number for number in rest}
            for future in as_completed(futures):
                results[futures[future]] = future.result()
                progress.update()
            progress.close()
            pool.shutdown()
            return [results[number] for number in range(len(calls))]
        except BrokenProcessPool:
            warn("a worker process was ended from outside; what it had in hand is done again")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            workers = multiprocessing.active_children()
            for process in workers:
                process.terminate()
            for process in workers:
                process.join()
            raise
    raise UserError(f"worker processes were ended from outside {ATTEMPTS} times, for want of memory perhaps; "
                    "use fewer --workers")


def _as_worker():
    """A worker shows no progress, leaves Ctrl-C to the process that has started it, and ends when that one does,
    however that ends: its lock is gone then."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=lambda: (multiprocessing.parent_process().join(), os._exit(1)), daemon=True).start()
    tqdm.__init__ = partialmethod(tqdm.__init__, disable=True)


def _end(folder, ends):
    """Note where the video ends: as in one go, that is where the first of its parts found no more."""
    (folder / END).write_text(json.dumps({"frames": next(count for count, ended in ends if ended)}))


def scanned(folder, stride=1):
    """Yield for each frame that was looked at (its number in the video, whether a cut lies between it and the one
    before, people): people a list of (Skeleton, its mask as an array of JPEG bytes)."""
    cuts, number, new = Cuts(), 0, False
    for index in range(math.ceil(frame_count(folder) / SEGMENT)):
        segment = _read(folder, index)
        persons = zip(segment["joints"], segment["visibility"], segment["spans"], strict=True)
        counts = iter(segment["people"].tolist())
        for small in segment["thumbnails"]:
            new = cuts(small) or new
            if number % stride == 0:
                found = [next(persons) for _ in range(next(counts))]
                yield number, new, [(Skeleton(joints, sure), segment["masks"][slice(*span)])
                                    for joints, sure, span in found]
                new = False
            number += 1


def _complete(folder):
    """Is the scan complete, and all of it whole? Where it is not, it goes on."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        if all(_read(folder, index) is not None for index in range(math.ceil(frame_count(folder) / SEGMENT))):
            return True
        (folder / END).unlink()
    return False


def frame_count(folder):
    """How many frames the video of a complete scan has."""
    return json.loads((folder / END).read_text())["frames"]


def _encoded(mask, size):
    small = cv2.resize(mask, size, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", (small * 255).round().astype(np.uint8), MASK_JPEG)[1]


def _path(folder, index):
    return folder / f"segment-{index:06d}.npz"


def _save(folder, index, thumbnails, looked):
    people = [person for frame in looked for person in frame]
    ends = np.cumsum([0] + [len(mask) for _, mask in people])
    with whole(_path(folder, index)) as part, open(part, "wb") as file:
        np.savez(file, thumbnails=np.stack(thumbnails), people=np.array([len(frame) for frame in looked], int),
                 joints=np.array([s.joints for s, _ in people], np.float32).reshape(-1, 33, 3),
                 visibility=np.array([s.visibility for s, _ in people], np.float32).reshape(-1, 33),
                 masks=np.concatenate([np.zeros(0, np.uint8), *(mask for _, mask in people)]),
                 spans=np.stack([ends[:-1], ends[1:]], 1))


def _read(folder, index):
    """The arrays of a segment, or None where it is missing or not what was written."""
    try:
        segment = stored_arrays(_path(folder, index))
        lengths = {len(segment[name]) for name in ("joints", "visibility", "spans")}
        fits = lengths == {segment["people"].sum()} and segment["spans"].max(initial=0) <= len(segment["masks"])
        return segment if fits and len(segment["thumbnails"]) else None
    except Exception:  # whatever a file that is none can cause
        return None
