"""From a video to its cache: poses found, the canvas laid around them, pictures, masks and the scene stored.

What was done so far is kept when it is stopped: the poses in segments (PoseScan.py), the pictures one after the other.
"""

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from Canvas import CANVAS, canvas_box, crop
from CommandLine import UserError, writable_folder
from PoseScan import frame_count, mask_size, scan, scanned
from PoseTrack import mend
from Scene import MOST_BYTES, SAMPLES, background
from Skeleton import Follow, sha256
from Storage import Pictures, alone
from VideoReader import IMAGE_SUFFIXES, VideoReader

JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
NOTE = 200  # stored pictures, some seconds of work, between two notes of how far it got
STALE = 7 * 24 * 3600  # seconds after which nobody will go on with an extraction that was stopped


def content_sha256(path):
    """SHA-256 of a file, or of the names and contents of a folder's images."""
    if path.is_file():
        return sha256(path)
    images = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    return hashlib.sha256(json.dumps([(p.name, sha256(p)) for p in images]).encode()).hexdigest()


def extract(video, folder, stride=1, model="full"):
    """Fill the cache `folder` from `video`: find the poses, lay the canvas around them, store what it shows.

    Works in a hidden folder beside it that takes its name when complete, and the place of what was there. A run that
    was interrupted or killed leaves that one, and the next goes on in it; after any other error nothing is left.
    """
    _sweep(writable_folder(folder.parent))
    work, old = (folder.with_name(f".{folder.name}.{kind}") for kind in ("work", "old"))
    try:
        begin(folder)
        _extract(Path(video), work, stride, model)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)  # of a run that was killed at this place
            folder.rename(old)
        work.rename(folder)
    except Exception as error:
        shutil.rmtree(work, ignore_errors=True)
        if not isinstance(error, OSError):
            raise
        raise UserError(f"can't write the cache {folder}: {error.strerror}") from None
    finally:
        shutil.rmtree(old, ignore_errors=True)


def begin(folder):
    """Make the folder for the poses (PoseScan.scan) of what will be the cache `folder`, where it is missing."""
    parts = writable_folder(folder.parent) / f".{folder.name}.work" / "scan"
    parts.mkdir(parents=True, exist_ok=True)
    return parts


def _extract(video, work, stride, model):
    parts = work / "scan"
    scan(video, parts, stride, model)
    with VideoReader(video) as reader:
        fps, frame_size = reader.fps, reader.size
    frames, joints, visibility, mask_spans = _track(parts, work / "masks.bin", stride, fps, frame_size)
    read = frame_count(parts)
    if not frames:
        raise UserError(f"nobody is seen in the {read} frames of {str(video)!r}; show the whole person, in good light")
    box = canvas_box(joints[:, :, :2] * max(frame_size), frame_size)
    size = min(CANVAS, box[2])
    image_spans, some = _store(video, work, frames, box, size)
    masks = Pictures(work / "masks.bin", mask_spans)
    plate, still = background([frame for _, frame in some], [
        cv2.resize(masks.read(index, cv2.IMREAD_GRAYSCALE, mask_size(frame_size)), frame_size) for index, _ in some])
    (work / "plate.png").write_bytes(cv2.imencode(".png", plate)[1])
    joints = (joints * max(frame_size) - np.float32([box[0], box[1], 0])) / box[2]
    about = {"box": box, "frame_size": frame_size, "size": size, "fps": fps / stride, "read": read, "still": still,
             "content": content_sha256(video)}
    np.savez(work / "skeletons.npz", joints=joints.astype(np.float32), visibility=visibility, frames=np.array(frames),
             image_spans=image_spans, mask_spans=mask_spans, about=json.dumps(about))
    shutil.rmtree(parts)


def _track(parts, path, stride, fps, frame_size):
    """Of a complete scan: (numbers of the frames with the person, its joints in the picture's unit, visibility, the
    spans of its masks, which are written to `path`). Prepared as a source is, but for the smoothing."""
    shots, follow = [[]], Follow()  # of each shot, for each frame with a person: (frame number, Skeleton, span)
    with open(path, "wb") as file:
        for number, cut, people in scanned(parts, stride):
            if cut:
                shots.append([])
            skeleton, mask = follow(people)
            if skeleton is not None:
                start = file.tell()
                file.write(mask)
                shots[-1].append((number, skeleton, (start, file.tell())))
    frames, joints, visibility, spans = [], [np.zeros((0, 33, 3))], [np.zeros((0, 33))], []
    for shot in filter(None, shots):
        whole, sure = mend(np.stack([s.joints for _, s, _ in shot]), np.stack([s.visibility for _, s, _ in shot]),
                           np.array([number for number, _, _ in shot]) / fps, np.array(frame_size) / max(frame_size))
        there = ~np.isnan(whole[:, 0, 0])  # not in a glimpse between absences
        frames += [number for (number, _, _), is_kept in zip(shot, there, strict=True) if is_kept]
        spans += [span for (_, _, span), is_kept in zip(shot, there, strict=True) if is_kept]
        joints.append(whole[there])
        visibility.append(sure[there])
    return frames, np.concatenate(joints), np.concatenate(visibility).astype(np.float32), np.array(spans)


def _store(video, work, frames, box, size):
    """Write the canvas images of `frames` as JPEG, end to end, and go on where a run that was stopped has left off.

    Returns (the span of each, [(index, whole frame)] of some spread over the video, for the plate).
    """

    def encode(frame):
        return cv2.imencode(".jpg", crop(frame, box, size), JPEG)[1]

    path, noted = work / "frames.bin", work / "ends.npy"  # the second: where the pictures end that are safe
    try:
        ends = np.load(noted, allow_pickle=False).tolist()
        if path.stat().st_size < ends[-1]:  # after a power cut
            raise ValueError
    except Exception:  # none there, or whatever a file that is none can cause
        ends = [0]
    done, wanted, some, waiting = len(ends) - 1, set(frames), [], deque()
    with VideoReader(video) as reader, ThreadPoolExecutor(2) as pool, open(path, "r+b" if done else "wb") as file:
        file.truncate(ends[-1])
        file.seek(ends[-1])
        shown = (frame for number, frame in enumerate(reader) if number in wanted)
        for index, frame in enumerate(tqdm(shown, total=len(frames), desc="storing the canvas", unit="frame")):
            if index == 0:
                count = int(np.clip(MOST_BYTES / frame.nbytes, 5, SAMPLES))
                sampled = set(np.linspace(0, len(frames) - 1, count).round().astype(int).tolist())
            if index in sampled:
                some.append((index, frame))
            if index >= done:
                waiting.append(pool.submit(encode, frame))
            if len(waiting) > 4:
                ends.append(ends[-1] + file.write(waiting.popleft().result()))
                if len(ends) % NOTE == 0:
                    file.flush()
                    os.fsync(file.fileno())  # what is noted is there, even after a power cut
                    np.save(noted, ends)
        for job in waiting:
            ends.append(ends[-1] + file.write(job.result()))
    if len(ends) != len(frames) + 1:
        raise UserError(f"{str(video)!r} changed while it was read; run it again")
    noted.unlink(missing_ok=True)
    return np.stack([ends[:-1], ends[1:]], 1), some


def _sweep(cache):
    """Remove what extractions that were stopped left behind, if nobody has gone on with it for STALE seconds."""
    for folder in cache.glob(".*-*.*"):
        ours = folder.with_name(folder.name[1:].rpartition(".")[0])
        # a run may be at work in it after all, if the clock has jumped, or have removed it just now
        with contextlib.suppress(OSError, UserError), alone(ours, "extracting"):
            newest = max(path.stat().st_mtime for path in [folder, *folder.rglob("*")])
            if time.time() - newest > STALE:
                shutil.rmtree(folder, ignore_errors=True)
