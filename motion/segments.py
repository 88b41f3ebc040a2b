"""The segments in which a video's poses are found: what an interrupted run keeps, and what several processes share.

Each frame is looked at on its own, so a segment of SEGMENT frames depends on nothing but its frames.
"""

import math
from collections import deque

import cv2
import numpy as np
from tqdm import tqdm

from common.files import atomic_write, load_arrays
from motion.detector import detect_everyone
from motion.following import clothes
from video.camera import small_picture, thumbnail
from VideoReader import NothingThere, VideoReader

SEGMENT = 120  # frames of a segment: some seconds of work
SMALL = 512  # pixels of the longer side of a stored mask, and of the picture in which the camera's motion is seen
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 90]


def small_size(frame_size):
    """(width, height) of the stored masks and pictures of a video of `frame_size`."""
    shrink = min(1, SMALL / max(frame_size))
    return tuple(max(1, round(length * shrink)) for length in frame_size)


def find_segments(clip, work, first=0, last=None, detectors=None):
    """Write those of a Clip's segments `first` up to, not including, `last` (None: the end) that `work` does not hold.

    A segment is an .npz with, for its frames: seconds float64 (frames,), counts int (frames,), thumbnails uint8
    (frames, 64, 64), pictures uint8 (bytes of JPEG images end to end, small and grey), picture_spans int (frames, 2),
    where each of these begins and ends; and for all people in them: joints float32 (people, 33, 3), visibility float32
    (people, 33), clothes float32 (people, 6), masks uint8 (bytes of JPEG images end to end), mask_spans int (people,
    2). detectors: how many run.
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
        size, waiting, rows = small_size(reader.size), deque(), []

        def missing_frames():
            for number, (seconds, frame) in enumerate(frames, begin):
                if number >= stop:
                    return
                if number % SEGMENT == 0:
                    missing = read_segment(work, number // SEGMENT) is None
                if missing:
                    picture = small_picture(frame, size)
                    waiting.append((number, seconds, thumbnail(picture), cv2.imencode(".jpg", picture, JPEG)[1]))
                    yield frame

        for frame, people in detect_everyone(missing_frames(), SEGMENT, detectors):
            number, *about = waiting.popleft()
            rows.append((*about, [(skeleton, clothes(frame, skeleton, mask), _encode_mask(mask, size))
                                  for skeleton, mask in people]))
            if (number + 1) % SEGMENT == 0:
                _write_segment(work, number // SEGMENT, rows)
                rows = []
        if rows:  # the last segment of the video is shorter
            _write_segment(work, number // SEGMENT, rows)


def _encode_mask(mask, size):
    """A mask (float32 H x W in [0, 1]) reduced to `size` (width, height), as a uint8 array of JPEG bytes."""
    small = cv2.resize(mask, size, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", (small * 255).round().astype(np.uint8), JPEG)[1]


def _write_segment(work, index, rows):
    """rows: for each frame (seconds, thumbnail, picture as JPEG, [(Skeleton, clothes, mask as JPEG)] of the people)."""
    seconds, thumbnails, pictures, frames = zip(*rows, strict=True)
    people = [person for frame in frames for person in frame]
    masks = [mask for *_, mask in people]
    with atomic_write(work / f"segment-{index:06d}.npz") as part, open(part, "wb") as file:
        np.savez(file, seconds=np.array(seconds, float), thumbnails=np.stack(thumbnails),
                 counts=np.array([len(frame) for frame in frames], int),
                 joints=np.array([s.joints for s, *_ in people], np.float32).reshape(-1, 33, 3),
                 visibility=np.array([s.visibility for s, *_ in people], np.float32).reshape(-1, 33),
                 clothes=np.array([colours for _, colours, _ in people], np.float32).reshape(-1, 6),
                 masks=np.concatenate([np.zeros(0, np.uint8), *masks]), mask_spans=_spans(masks),
                 pictures=np.concatenate(pictures), picture_spans=_spans(pictures))


def _spans(images):
    """int (images, 2): where each of the encoded images, end to end, begins and ends."""
    ends = np.cumsum([0, *map(len, images)])
    return np.stack([ends[:-1], ends[1:]], 1)


def read_segment(work, index):
    """The arrays of a segment, or None where it is missing or damaged."""
    try:
        segment = load_arrays(work / f"segment-{index:06d}.npz")
        people = {len(segment[name]) for name in ("joints", "visibility", "clothes", "mask_spans")}
        frames = {len(segment[name]) for name in ("seconds", "thumbnails", "counts", "picture_spans")}
        fits = people == {segment["counts"].sum()} and len(frames) == 1 and min(frames) and all(
            segment[f"{images}_spans"].max(initial=0) <= len(segment[f"{images}s"]) for images in ("mask", "picture"))
        return segment if fits else None
    except Exception:  # a damaged or foreign file can cause many kinds of errors
        return None
