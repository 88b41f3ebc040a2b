"""A target video as frames and skeletons on one square canvas, extracted once and kept under data/cache.

    python VideoSkeleton.py data/sample/target.mp4              # extract, or say what is there already
    python VideoSkeleton.py A.mp4 B.mp4 --stride 2 --model full --force

Every generator is trained on it and answers in its canvas: a square crop of the video that stays still, holds
every skeleton with a margin, and is stored at up to 512 x 512. Frames without a person are left out.

A cache is a folder `<video's name>-<key>`: frames.bin (JPEG images end to end, quality 95, no chroma subsampling:
44 dB and more), masks.bin (the person's masks, likewise), skeletons.npz and plate.png (the scene without the person).
The key is a hash of the video's content, every parameter, the pose model's
SHA-256 and SCHEMA, so a change of any of them extracts anew. It is safe to delete data/cache at any time.
"""

import contextlib
import copy
import hashlib
import json
import shutil
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from CommandLine import ROOT, Parser, UserError, positive, run, warn, writable_folder
from PoseScan import MASK_JPEG, MASK_SIZE, frame_count, mask_size, scan, scanned
from PoseTrack import mend
from Scene import MOST_BYTES, SAMPLES, background
from Skeleton import REDUCED, Follow, Skeleton, find_model, sha256
from Storage import DamagedCache, Pictures, alone, decode, stored_arrays, whole
from VideoReader import IMAGE_SUFFIXES, VideoReader

TARGET = ROOT / "data" / "sample" / "target.mp4"
CACHE = ROOT / "data" / "cache"
SCHEMA = 2  # raise it when the meaning of a cached value changes
CANVAS = 512  # pixels; a larger crop is reduced to this, a smaller one is kept as it is
MARGIN = 0.15  # of the canvas, on each side of the skeletons: hands, hair and shoes reach beyond the joints
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
FILES = ("skeletons.npz", "frames.bin", "masks.bin", "plate.png")
SHEET = 12  # poses on the contact sheet
NOTE = 200  # stored pictures, some seconds of work, between two notes of how far it got
STALE = 7 * 24 * 3600  # seconds after which nobody will go on with an extraction that was stopped


class VideoSkeleton:
    """The frames of a video that show a person, with their skeletons in canvas units.

    Attributes: joints float32 (N, 33, 3) and visibility float32 (N, 33), as in Skeleton; frames int (N,), each one's
    number in the video; box (x, y, side) of the canvas in the video's pixels; frame_size (width, height); size, the
    canvas's in pixels; fps of the kept frames; read, how many frames were looked at; content, the video's SHA-256;
    still, whether the camera stood still; path of the video; folder of the cache.
    Images are read from the disk one at a time, so memory does not grow with their number.
    """

    def __init__(self, video, folder):
        self.path, self.folder = Path(video), Path(folder)
        try:
            self._open()
        except Exception as error:  # whatever a file that is none can cause
            raise DamagedCache(f"{folder} is damaged ({type(error).__name__}); delete it, it is made anew") from None

    def _open(self):
        stored = stored_arrays(self.folder / "skeletons.npz")
        self.joints, self.visibility, self.frames = (stored[name] for name in ("joints", "visibility", "frames"))
        self._images = Pictures(self.folder / "frames.bin", stored["image_spans"])
        self._masks = Pictures(self.folder / "masks.bin", stored["mask_spans"])
        about = json.loads(str(stored["about"]))
        self.box, self.frame_size = (tuple(map(int, about[name])) for name in ("box", "frame_size"))
        self.size, self.read, self.fps = int(about["size"]), int(about["read"]), float(about["fps"])
        self.content, self.still = str(about["content"]), bool(about["still"])
        arrays = (self.joints, self.visibility, self.frames, self._images.spans, self._masks.spans)
        count = len(self.frames)
        shapes = [(count, 33, 3), (count, 33), (count,), (count, 2), (count, 2)]
        sizes_fit = count and [array.shape for array in arrays] == shapes
        sane = 0 < self.size <= CANVAS and 0 < self.fps < 1e6 and len(self.box) == 3 and len(self.frame_size) == 2
        if not (sizes_fit and sane and np.isfinite(self.joints).all() and len(self.plate)):
            raise ValueError

    def __len__(self):
        return len(self.joints)

    def skeleton(self, index):
        return Skeleton(self.joints[index], self.visibility[index])

    def image(self, index):
        """The canvas image (uint8 size x size x 3 BGR) of skeleton `index`."""
        return self._images.read(index, cv2.IMREAD_COLOR, (self.size, self.size))

    def mask(self, index):
        """Where the person is in that image: uint8 size x size, 255 inside, soft at the edge."""
        mask = self._masks.read(index, cv2.IMREAD_GRAYSCALE, mask_size(self.frame_size))
        if max(self.frame_size) > MASK_SIZE:
            mask = cv2.resize(mask, self.frame_size, interpolation=cv2.INTER_LINEAR)
        return crop(mask, self.box, self.size)

    @property
    def plate(self):
        """The scene without the person: uint8 H x W x 3 BGR of the video's size."""
        return decode(np.fromfile(self.folder / "plate.png", np.uint8), cv2.IMREAD_COLOR, self.frame_size)

    def first(self, count):
        """The same target as if only its first `count` skeletons were known."""
        part = copy.copy(self)
        part.joints, part.visibility, part.frames = (a[:count] for a in (self.joints, self.visibility, self.frames))
        return part

    @property
    def reduced(self):
        """float32 (N, 26): each skeleton's 26 values."""
        return self.joints[:, REDUCED, :2].reshape(len(self), -1)

    @property
    def full(self):
        """float32 (N, 99): each skeleton's 99 values."""
        return self.joints.reshape(len(self), -1)

    @property
    def identity(self):
        """What a checkpoint was trained for: the video's content and the canvas cut out of it (plain types)."""
        return {"content": self.content, "box": list(self.box)}

    @classmethod
    def load(cls, video, stride=1, model="full", force=False):
        """The VideoSkeleton of `video` (a file or a folder of images), from the cache or extracted now.

        stride: keep every stride-th frame. model: of the PoseDetector. force: extract even if it is there.
        Raises UserError where the video can't be read or shows nobody.
        """
        folder = cache_folder(video, stride, model)
        target = None if force else cls._kept(video, folder)
        if target is None:
            with alone(folder, "extracting poses into", wait=True) as waited:
                target = cls._kept(video, folder) if waited else None
                if target is None:
                    extract(video, folder, stride, model)
                    target = cls(video, folder)
        return target

    @classmethod
    def _kept(cls, video, folder):
        """What an earlier run left in `folder`, or None where it is not whole."""
        if not all((folder / name).is_file() for name in FILES):
            return None
        try:
            return cls(video, folder)
        except DamagedCache as error:
            warn(f"{error} now")
            return None


def cache_folder(video, stride=1, model="full"):
    """Where the cache of `video` with these parameters is or will be: the key is in the name."""
    path = Path(video)
    if not path.exists():
        raise UserError(f"there is no video {str(video)!r}; check the path")
    content = content_sha256(path)
    key = json.dumps([content, stride, sha256(find_model(model)), CANVAS, MARGIN, JPEG, MASK_JPEG, MASK_SIZE, SCHEMA])
    return CACHE / f"{path.stem[:40]}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


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
        work.mkdir(exist_ok=True)
        _extract(Path(video), work, stride, model)
        if folder.exists():
            folder.rename(old)
        work.rename(folder)
    except Exception as error:
        shutil.rmtree(work, ignore_errors=True)
        if not isinstance(error, OSError):
            raise
        raise UserError(f"can't write the cache {folder}: {error.strerror}") from None
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _extract(video, work, stride, model):
    parts = work / "scan"
    parts.mkdir(exist_ok=True)
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


def canvas_box(points, frame_size):
    """The square (x, y, side), in whole pixels, that holds `points` (..., 2) with MARGIN around them.

    Points outside the frame count as on its border. The side is at most the frame's longer one; the square stays
    inside the frame where it fits, and is centred on it where it does not.
    """
    points = np.clip(points.reshape(-1, 2), 0, frame_size)
    low, high = points.min(0), points.max(0)
    side = min(int(np.ceil((high - low).max() / (1 - 2 * MARGIN))), max(frame_size))
    side += side % 2  # an even side needs no padding in a video
    corner = []
    for middle, length in zip((low + high) / 2, frame_size, strict=True):
        inside = length - side
        corner.append(int(np.clip(round(middle - side / 2), 0, inside)) if inside >= 0 else inside // 2)
    return (*corner, side)


def crop(image, box, size):
    """The square `box` of `image` at size x size pixels; black where it leaves the image."""
    x, y, side = box
    height, width = image.shape[:2]
    top, left, bottom, right = max(-y, 0), max(-x, 0), max(y + side - height, 0), max(x + side - width, 0)
    image = image[max(y, 0):y + side, max(x, 0):x + side]
    if top or left or bottom or right:
        image = cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT)
    return image if side == size else cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)


def resize(image, size):
    """A square image at size x size pixels: averaged when it shrinks, bicubic when it grows."""
    if image.shape[0] == size:
        return image
    shrink = size < image.shape[0]
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_CUBIC)


def _store(video, work, frames, box, size):
    """Write the canvas images of `frames` as JPEG, end to end, and go on where a run that was stopped has left off.

    Returns (the span of each, [(index, whole frame)] of some spread over the video, for the plate).
    """

    def encode(frame):
        return cv2.imencode(".jpg", crop(frame, box, size), JPEG)[1]

    path, noted = work / "frames.bin", work / "ends.npy"  # the second: where the pictures end that are safe
    try:
        ends = np.load(noted, allow_pickle=False).tolist()
    except (OSError, ValueError):
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


def contact_sheet(target, path):
    """Write a PNG of SHEET poses spread over the video, each a frame beside its skeleton."""
    cells, edge = [], 200
    for index in np.linspace(0, len(target) - 1, min(SHEET, len(target))).round().astype(int):
        image = cv2.resize(target.image(index), (edge, edge), interpolation=cv2.INTER_AREA)
        cells.append(np.hstack([image, target.skeleton(index).draw(np.zeros_like(image))]))
    cells += [np.zeros_like(cells[0])] * (-len(cells) % 4)
    sheet = np.vstack([np.hstack(cells[i:i + 4]) for i in range(0, len(cells), 4)])
    with whole(path) as part:
        part.write_bytes(cv2.imencode(".png", sheet)[1])


def main():
    parser = Parser(__doc__)
    parser.add_argument("videos", nargs="*", metavar="VIDEO", default=[TARGET], help="files or folders of images")
    parser.add_argument("--stride", type=positive(int), default=1, help="keep every N-th frame")
    parser.add_argument("--model", default="full", help="pose model: lite, full, heavy or a file")
    parser.add_argument("--force", action="store_true", help="extract even if the cache is there")
    args = parser.parse_args()
    for video in args.videos:
        start = time.perf_counter()
        known = not args.force and cache_folder(video, args.stride, args.model).exists()
        target = VideoSkeleton.load(video, args.stride, args.model, args.force)
        seconds = time.perf_counter() - start
        speed = "from the cache" if known else f"{target.read / seconds:.0f} frames/s"
        sheet = target.folder / "contact-sheet.png"
        if not sheet.exists():
            contact_sheet(target, sheet)
        megabytes = sum(file.stat().st_size for file in target.folder.iterdir()) / 1e6
        print(f"{target.path.name}: {target.read} frames, {len(target)} with a person, "
              f"canvas {target.size} x {target.size} from {target.box[2]} px, "
              f"{seconds:.1f} s ({speed})\n"
              f"  cache {target.folder} ({megabytes:.0f} MB)\n  sheet {sheet}")


if __name__ == "__main__":
    run(main)
