"""Everybody in every frame of a video, found in segments that are kept on the disk: a scan that was stopped goes on.

Each frame is looked at anew (Skeleton.detect_everyone), so a segment depends on nothing but its own frames, and the
scan is the same in one go, in parts, or by several processes. What does depend on neighbours, which of several people
is followed and where a cut is, is left to whoever reads the segments (`scanned`).
"""

import json
import math
from collections import deque
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from PoseTrack import Cuts, thumbnail
from Skeleton import Skeleton, detect_everyone
from Storage import stored_arrays, whole
from VideoReader import VideoReader

SEGMENT = 120  # frames of the video: some seconds of work, under a minute with the largest model on a slow laptop
MASK_JPEG, MASK_SIZE = [cv2.IMWRITE_JPEG_QUALITY, 90], 512  # masks of whole frames, longer side in pixels
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
    if (folder / END).exists():
        return
    begun, looked, count = {}, deque(), 0  # the segments in work; that of each frame that is being looked at
    with VideoReader(video) as reader:
        size = mask_size(reader.size)
        progress = tqdm(reader, total=reader.frame_count, desc=f"pose of {Path(video).name}", unit="frame")

        def wanted():
            nonlocal count
            for number, frame in enumerate(progress):
                count, index = number + 1, number // SEGMENT
                if number % SEGMENT == 0 and _read(folder, index) is None:
                    begun[index] = [], []
                if index in begun:
                    begun[index][0].append(thumbnail(frame))
                    if number % stride == 0:
                        looked.append(index)
                        yield frame

        for _, people in detect_everyone(wanted(), model, mask=True):
            index = looked.popleft()
            begun[index][1].append([(skeleton, _encoded(mask, size)) for skeleton, mask in people])
            for earlier in [number for number in begun if number < index]:
                _save(folder, earlier, *begun.pop(earlier))
    for index, segment in begun.items():
        _save(folder, index, *segment)
    (folder / END).write_text(json.dumps({"frames": count}))


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
        whole = lengths == {segment["people"].sum()} and segment["spans"].max(initial=0) <= len(segment["masks"])
        return segment if whole and len(segment["thumbnails"]) else None
    except Exception:  # whatever a file that is none can cause
        return None
