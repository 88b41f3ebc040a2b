"""A target video as frames and skeletons on one square canvas, extracted once and kept under data/cache.

    python VideoSkeleton.py data/sample/target.mp4              # extract, or say what is there already
    python VideoSkeleton.py A.mp4 B.mp4 --force                 # extract again
    python VideoSkeleton.py A.mp4 --from 0:10 --to 1:30 --person left       # a part, and one of several people
    python VideoSkeleton.py A.mp4 B.mp4 --workers 8                         # with processes of this machine
    python VideoSkeleton.py A.mp4 B.mp4 --scheduler tcp://10.0.0.1:8786     # with a Dask cluster

Every generator is trained on a VideoSkeleton and draws on its canvas: a square crop of the video that stays still,
holds every skeleton with a margin, and has up to 1280 x 1280 pixels. Frames without the person are left out.

The poses are kept in the video's folder of the cache (motion/extraction.py), where they also serve when the video is a
source, and the pictures in a folder below it (picture/target_pictures.py). It is safe to delete data/cache at any time.
"""

import copy
import json
import shutil
import time
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from common.command_line import Parser, UserError, positive, require_packages, run, warn
from common.files import DamagedCache, EncodedImages, decode_image, file_lock, load_arrays, write_png
from common.paths import SAMPLE_TARGET
from common.processes import run_in_processes
from motion.extraction import find_in_all
from picture.canvas import CANVAS, crop, faded
from picture.target_pictures import store_target, target_folder
from picture.window import scene_window
from Skeleton import HIPS, REDUCED, SHOULDERS, Skeleton
from video.clip import Clip, add_clip_flags, clip_of

SHEET_POSES = 12  # poses on the contact sheet
SHEET_PIXELS = 200  # of each picture on the contact sheet
SHORT = 20  # seconds: a shorter recording of a target should be longer
RARE = 0.02  # share of the frames: a movement in fewer frames is called rare
MOSTLY = 0.9  # share of the frames in which the person, and the feet, should be seen


class VideoSkeleton:
    """The N frames of a video that show the dancer, with their skeletons in canvas units.

    Attributes: joints float32 (N, 33, 3) and visibility float32 (N, 33), as in Skeleton; frames int (N,), the number of
    each frame in the clip; seconds float64 (N,), its time; box (x, y, side) of the canvas in the video's pixels;
    frame_size (width, height) of the video; size, the canvas's in pixels; fps; frames_read, how many frames the video
    has; sharpness float32 (N, 6), the mean gradient of each of parts.CHAINS, in levels a pixel; opacity float32
    (N, 6), the mean matte along its bones, in [0, 1]; content, the video's SHA-256; still, whether the camera stood
    still; clip, the Clip that it was made from, and its path; folder of the pictures.
    Images are read from the disk one at a time, so the memory does not grow with their number.
    """

    def __init__(self, video, folder):
        self.clip, self.folder = Clip.of(video), Path(folder)
        self.path = self.clip.path
        try:
            self._open()
        except Exception as error:  # a damaged or foreign file can cause many kinds of errors
            raise DamagedCache(f"{folder} is damaged ({type(error).__name__}); delete it, it is made anew") from None

    def _open(self):
        stored = load_arrays(self.folder / "skeletons.npz")
        self.joints, self.visibility, self.frames, self.seconds = (
            stored[name] for name in ("joints", "visibility", "frames", "seconds"))
        self._images = EncodedImages(self.folder / "frames.bin", stored["image_spans"])
        self._boxes, self.sharpness, self.opacity = (stored[name] for name in ("image_boxes", "sharpness", "opacity"))
        self._mattes = EncodedImages(self.folder / "frames.bin", stored["matte_spans"])
        about = json.loads(str(stored["about"]))
        self.box, self.frame_size = (tuple(map(int, about[name])) for name in ("box", "frame_size"))
        self.size, self.frames_read, self.fps = int(about["size"]), int(about["frames_read"]), float(about["fps"])
        self.content, self.still = str(about["content"]), bool(about["still"])
        arrays = (self.joints, self.visibility, self.frames, self.seconds, self._images.spans, self._mattes.spans,
                  self._boxes, self.sharpness, self.opacity)
        count = len(self.frames)
        shapes = [(count, 33, 3), (count, 33), (count,), (count,), (count, 2), (count, 2), (count, 4),
                  (count, 6), (count, 6)]
        sizes_fit = count and [array.shape for array in arrays] == shapes
        sane = 0 < self.size <= CANVAS and 0 < self.fps < 1e6 and len(self.box) == 3 and len(self.frame_size) == 2
        inside = (self._boxes >= 0).all() and (self._boxes[:, :2] + self._boxes[:, 2:] <= self.size).all()
        if not (sizes_fit and sane and inside and np.isfinite(self.joints).all() and len(self.plate)):
            raise ValueError

    def __len__(self):
        return len(self.joints)

    def skeleton(self, index):
        return Skeleton(self.joints[index], self.visibility[index])

    def person(self, index):
        """(image, matte, (left, top)): what is stored of the canvas image of skeleton number `index`: uint8 h x w x 3
        BGR, the box around the person, whose own colours alone are shown at her edge; uint8 h x w, how opaque she is;
        and where this is on the canvas, in pixels."""
        left, top, *size = self._boxes[index].tolist()
        return self._images.read(index, cv2.IMREAD_COLOR, size), self._matte(index), (left, top)

    def _matte(self, index):
        return self._mattes.read(index, cv2.IMREAD_GRAYSCALE, self._boxes[index, 2:].tolist())

    def image(self, index):
        """The canvas image (uint8 size x size x 3 BGR) of skeleton number `index`: the box around the person as it was
        filmed and, farther away, the plate. Where the camera moved, the plate begins around the person."""
        person, matte, (left, top) = self.person(index)
        image, (height, width) = self.canvas_plate.copy(), person.shape[:2]
        place, share = np.s_[top:top + height, left:left + width], matte.astype(np.float32) / 255
        if self.still:  # all of the box fits, but for the person's edge, where the colours of the scene were taken out
            ends = left > 0, left + width < self.size, top > 0, top + height < self.size
            share[matte == 0] = faded(height, width, max(1, self.size // 64), ends)[matte == 0]
        image[place] = cv2.blendLinear(person, np.ascontiguousarray(image[place]), share, 1 - share)
        return image

    def mask(self, index, size=None):
        """Where the person is in that image: uint8 size x size, 255 inside, soft at the edge. size: pixels, by default
        those of the canvas."""
        return self.on_canvas(self._matte(index), self._boxes[index, :2], size or self.size)

    def on_canvas(self, image, corner, size, averaged=True):
        """A part of the canvas (uint8 h x w or h x w x 3), whose `corner` (left, top) is in pixels of the canvas, on
        all of it, at size x size pixels: 0 elsewhere. averaged: where it shrinks, pixels are averaged, which takes
        longer than leaving some out."""
        grow, (height, width) = size / self.size, image.shape[:2]
        if averaged and grow < 0.7:
            image = cv2.resize(image, [max(1, round(length * grow)) for length in (width, height)],
                               interpolation=cv2.INTER_AREA)
        per_pixel = np.array(image.shape[1::-1]) / (width, height)  # pixels of the image for one of the canvas
        matrix = np.column_stack([np.diag(per_pixel / grow), per_pixel * (0.5 / grow - np.array(corner)) - 0.5])
        return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)

    @property
    def plate(self):
        """The scene without the person: uint8 H x W x 3 BGR of the video's size."""
        return decode_image(np.fromfile(self.folder / "plate.png", np.uint8), cv2.IMREAD_COLOR, self.frame_size)

    @cached_property
    def window(self):
        """(left, top, right, bottom), in pixels of the video: where it shows the scene, without black bars."""
        return scene_window(self.plate)

    @cached_property
    def canvas_plate(self):
        """The scene without the person on the canvas: uint8 size x size x 3 BGR; not to be changed."""
        return crop(self.plate, self.box, self.size)

    def first(self, count):
        """The same target as if only its first `count` skeletons were known."""
        part = copy.copy(self)
        for name in ("joints", "visibility", "frames", "seconds", "sharpness", "opacity"):
            setattr(part, name, getattr(self, name)[:count])
        return part

    @property
    def reduced(self):
        """float32 (N, 26): each skeleton's 26 values."""
        return self.joints[:, REDUCED, :2].reshape(len(self), -1)

    @property
    def identity(self):
        """What a checkpoint was trained for, in plain types: the video's content, the canvas in it and, where it is not
        all of the video, the part and the person."""
        part = {"clip": self.clip.words()} if self.clip.words() else {}
        return {"content": self.content, "box": list(self.box)} | part

    @classmethod
    def load(cls, video, force=False):
        """The VideoSkeleton of `video` (a Clip, or the path of a file or a folder of images), from the cache or
        extracted now.

        force: extract it even if it is in the cache. Raises UserError where the video can't be read or shows nobody.
        """
        folder = store_target(video, force)
        try:
            return cls(video, folder)
        except DamagedCache as error:
            warn(f"{error} now")
            shutil.rmtree(folder)
            return cls(video, store_target(video))

    @classmethod
    def load_all(cls, videos, force=False, workers=1, scheduler=None):
        """The VideoSkeleton of each of the `videos`, as a list. What is missing is extracted by `workers` processes of
        this machine, or by those of a Dask cluster whose `scheduler`'s address is given; the files are the same.

        On this machine the processes first share the segments of all videos, so that one long video keeps all of them
        busy; then each stores the pictures of one video at a time. On a cluster each does one whole video.
        """
        if scheduler:
            extract_on_cluster(scheduler, videos, force)
        else:
            find_in_all(videos, workers, force)
            missing = [video for video in videos if not target_folder(video).exists()]
            if missing:
                run_in_processes([(store_target, video) for video in missing], workers,
                                 tqdm(total=len(missing), desc="storing the canvases", unit="video"))
        return [cls.load(video) for video in videos]


def extract_on_cluster(scheduler, videos, force):
    """Extract the `videos` on the workers of the Dask cluster whose scheduler has this address.

    All machines must see the project and the videos under the same paths. Another worker replaces one that is lost.
    Dask (https://distributed.dask.org) is used because the unit of work is a video whose results are files, so nothing
    flows between the workers: Dask maps a function over videos, and any job scheduler can start it.
    """
    require_packages("distributed", file="requirements-cluster.txt")
    from distributed import Client, as_completed

    try:
        client = Client(scheduler, timeout="10s")
    except (OSError, ValueError) as error:
        raise UserError(f"there is no Dask scheduler at {scheduler} ({error}); start one: dask scheduler") from None
    with client:
        clips = [replace(Clip.of(video), path=Clip.of(video).path.resolve()) for video in videos]
        futures = client.map(store_target, clips, force=force, pure=False)
        for future in tqdm(as_completed(futures), total=len(videos), desc=f"extracting on {scheduler}", unit="video"):
            future.result()


def write_contact_sheet(target, path):
    """Write a PNG of SHEET_POSES poses spread over the video, each a frame beside its skeleton."""
    cells = []
    for index in np.linspace(0, len(target) - 1, min(SHEET_POSES, len(target))).round().astype(int):
        image = cv2.resize(target.image(index), (SHEET_PIXELS, SHEET_PIXELS), interpolation=cv2.INTER_AREA)
        cells.append(np.hstack([image, target.skeleton(index).draw(np.zeros_like(image))]))
    cells += [np.zeros_like(cells[0])] * (-len(cells) % 4)
    write_png(path, np.vstack([np.hstack(cells[i:i + 4]) for i in range(0, len(cells), 4)]))


def movements(target):
    """{a movement in plain words: the share of the frames in which the target makes it}."""
    x, y, z = np.moveaxis(target.joints, 2, 0)  # each (N, 33)
    wrists, hips, knees, ankles, shoulders = [15, 16], list(HIPS), [25, 26], [27, 28], list(SHOULDERS)
    spine = target.joints[:, shoulders, :2].mean(1) - target.joints[:, hips, :2].mean(1)
    torso = np.median(np.linalg.norm(spine, axis=1))
    thigh = np.percentile(np.linalg.norm((target.joints[:, knees] - target.joints[:, hips])[..., :2], axis=2), 90)
    height = y[:, ankles].max(1) - y[:, 0]
    turn = np.arctan2(z[:, 11] - z[:, 12], x[:, 11] - x[:, 12])  # of the shoulders; 0 is towards the camera
    made = {"arms up": y[:, wrists].min(1) < y[:, 0],
            "arms wide": np.abs(x[:, wrists] - x[:, shoulders]).max(1) > 0.8 * torso,
            "turned to a side": np.abs(turn) > np.radians(35),
            "wide steps": np.abs(x[:, 27] - x[:, 28]) > 1.2 * torso,
            "a knee up": (y[:, knees] - y[:, hips]).min(1) < 0.75 * thigh,
            "bent or crouched": height < 0.85 * np.percentile(height, 90)}
    return {name: float(frames.mean()) for name, frames in made.items()}


def advice(target):
    """[sentence]: what to do better when this target is recorded again; empty where nothing is lacking."""
    feet = target.joints[:, 27:33, 1] * target.box[2] + target.box[1] < target.frame_size[1]
    shown = feet.all(1) & (target.visibility[:, [27, 28]].min(1) > 0.5)
    rare = [name for name, share in movements(target).items() if share < RARE]
    seconds = target.frames_read / target.fps
    return [sentence for sentence, applies in (
        (f"Move more: there is hardly any of this: {', '.join(rare)}. What is never seen can't be shown.", rare),
        (f"Record longer: {seconds:.0f} seconds are few; half a minute or more is good.", seconds < SHORT),
        (f"Stay in the picture, in good light: a person is seen in {len(target)} of {target.frames_read} frames.",
         len(target) < MOSTLY * target.frames_read),
        (f"Step back so that the feet show: they are hidden in {1 - shown.mean():.0%} of the frames.",
         shown.mean() < MOSTLY),
        ("Keep the camera still, on a tripod: the background moves.", not target.still)) if applies]


def main():
    parser = Parser(__doc__)
    parser.add_argument("videos", nargs="*", metavar="VIDEO", default=[SAMPLE_TARGET],
                        help="files or folders of images")
    parser.add_argument("--force", action="store_true", help="extract even if the cache is there")
    parser.add_argument("--workers", type=positive(int), default=1, help="processes; one of them uses all cores, too")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask cluster, to extract there")
    add_clip_flags(parser, "each video", "")
    args = parser.parse_args()
    videos, start, frames = [clip_of(args, video) for video in dict.fromkeys(args.videos)], time.perf_counter(), 0
    known = [not args.force and target_folder(video).exists() for video in videos]
    if args.workers > 1 or args.scheduler:
        targets = VideoSkeleton.load_all(videos, args.force, args.workers, args.scheduler)
    else:
        targets = (VideoSkeleton.load(video, args.force) for video in videos)
    for was_there, target in zip(known, targets, strict=True):
        sheet = target.folder / "contact-sheet.png"
        with file_lock(sheet, "drawing", wait=True):
            if not sheet.exists():
                write_contact_sheet(target, sheet)
        folder = target.folder.parent
        megabytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
        print(f"{target.path.name}: {target.frames_read} frames, {len(target)} with a person, "
              f"canvas {target.size} x {target.size} from {target.box[2]} px{', from the cache' * was_there}\n"
              f"  cache {folder} ({megabytes:.0f} MB)\n  sheet {sheet}")
        for sentence in advice(target):
            print(f"  {sentence}")
        frames += 0 if was_there else target.frames_read
    if frames:
        seconds = time.perf_counter() - start
        print(f"{frames} frames in {seconds:.1f} s, {frames / seconds:.1f} frames/s")


if __name__ == "__main__":
    run(main)
