"""A target video as frames and skeletons on one square canvas, extracted once and kept under data/cache.

    python VideoSkeleton.py data/sample/target.mp4              # extract, or say what is there already
    python VideoSkeleton.py A.mp4 B.mp4 --stride 2 --model full --force
    python VideoSkeleton.py A.mp4 B.mp4 --workers 8                         # processes of this machine
    python VideoSkeleton.py A.mp4 B.mp4 --scheduler tcp://10.0.0.1:8786     # a Dask cluster

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
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from Canvas import CANVAS, MARGIN, crop
from CommandLine import ROOT, Parser, UserError, need, positive, run, warn
from Extraction import JPEG, begin, content_sha256, extract
from PoseScan import MASK_JPEG, MASK_SIZE, by_processes, mask_size, scan_many
from Skeleton import REDUCED, Skeleton, find_model, sha256
from Storage import DamagedCache, Pictures, alone, decode, stored_arrays, whole

TARGET = ROOT / "data" / "sample" / "target.mp4"
CACHE = ROOT / "data" / "cache"
SCHEMA = 2  # raise it when the meaning of a cached value changes
FILES = ("skeletons.npz", "frames.bin", "masks.bin", "plate.png")
SHEET = 12  # poses on the contact sheet
SHORT, RARE, MOSTLY = 20, 0.02, 0.9  # of a target: seconds that are few; shares of its frames, little and enough


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
            fill(video, folder, stride, model)
        return target or cls(video, folder)

    @classmethod
    def load_all(cls, videos, stride=1, model="full", force=False, workers=1, scheduler=None):
        """The same of each of the `videos`, as a list; what is missing is extracted by `workers` processes here, or by
        those of a Dask cluster, whose `scheduler`'s address is given.

        Here, the poses of all of them first, in parts, so that a long video keeps all processes busy; then the
        pictures, a video a process. On a cluster, a video a process. The result depends on neither.
        """
        folders = [cache_folder(video, stride, model) for video in videos]
        targets = [None if force else cls._kept(*pair) for pair in zip(videos, folders, strict=True)]
        missing = {folder: video for folder, video, target in zip(folders, videos, targets, strict=True) if not target}
        if scheduler and missing:
            on_cluster(scheduler, [(video, folder, stride, model) for folder, video in missing.items()])
            missing = {}
        with contextlib.ExitStack() as held:
            for folder in sorted(missing):  # all runs in one order, so that none waits for one that waits for it
                if held.enter_context(alone(folder, "extracting poses into", wait=True)) and \
                        cls._kept(missing[folder], folder):
                    del missing[folder]  # what it waited for has made it
            try:
                scan_many([(video, begin(folder), stride, model) for folder, video in missing.items()], workers)
            except Exception:
                for folder in missing:
                    shutil.rmtree(begin(folder).parent, ignore_errors=True)
                raise
            if missing:
                by_processes([(extract, video, folder, stride, model) for folder, video in missing.items()], workers,
                             tqdm(total=len(missing), desc="storing the canvases", unit="video"))
        return [target or cls(video, folder) for target, video, folder in zip(targets, videos, folders, strict=True)]

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


def fill(video, folder, stride, model):
    """Extract `video` into the cache `folder`, or let another run that is about it end first and leave it at that."""
    with alone(folder, "extracting poses into", wait=True) as waited:
        if not waited or VideoSkeleton._kept(video, folder) is None:
            extract(video, folder, stride, model)


def on_cluster(scheduler, jobs):
    """Call `fill` with each of the jobs (video, folder, stride, model) on the workers of a Dask cluster.

    All machines see the project and the videos under the same paths. A worker that is lost is replaced by another one.
    Dask (https://distributed.dask.org) and not Ray Data: the unit of work is a video whose results are files, nothing
    flows between the workers; Dask maps a function over that with 25 MB of Python, and starts under any job scheduler.
    """
    need("distributed", file="requirements-cluster.txt")
    from distributed import Client, as_completed

    try:
        client = Client(scheduler, timeout="10s")
    except (OSError, ValueError) as error:
        raise UserError(f"there is no Dask scheduler at {scheduler} ({error}); start one: dask scheduler") from None
    with client:
        jobs = [(Path(video).resolve(), *rest) for video, *rest in jobs]
        futures = client.map(fill, *zip(*jobs, strict=True), pure=False)
        for future in tqdm(as_completed(futures), total=len(jobs), desc=f"extracting on {scheduler}", unit="video"):
            future.result()


def cache_folder(video, stride=1, model="full"):
    """Where the cache of `video` with these parameters is or will be: the key is in the name."""
    path = Path(video)
    if not path.exists():
        raise UserError(f"there is no video {str(video)!r}; check the path")
    content = content_sha256(path)
    key = json.dumps([content, stride, sha256(find_model(model)), CANVAS, MARGIN, JPEG, MASK_JPEG, MASK_SIZE, SCHEMA])
    return CACHE / f"{path.stem[:40]}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


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


def movements(target):
    """{what a body can do: in what share of the frames this one does it}, in plain words."""
    x, y, z = np.moveaxis(target.joints, 2, 0)
    wrists, hips, knees, ankles, shoulders = [15, 16], [23, 24], [25, 26], [27, 28], [11, 12]
    middle = target.joints[:, shoulders, :2].mean(1) - target.joints[:, hips, :2].mean(1)
    torso = np.median(np.linalg.norm(middle, axis=1))
    thigh = np.percentile(np.linalg.norm((target.joints[:, knees] - target.joints[:, hips])[..., :2], axis=2), 90)
    height = y[:, ankles].max(1) - y[:, 0]
    turn = np.arctan2(z[:, 11] - z[:, 12], x[:, 11] - x[:, 12])  # of the shoulders; 0 is towards the camera
    done = {"arms up": y[:, wrists].min(1) < y[:, 0],
            "arms wide": np.abs(x[:, wrists] - x[:, shoulders]).max(1) > 0.8 * torso,
            "turned to a side": np.abs(turn) > np.radians(35),
            "wide steps": np.abs(x[:, 27] - x[:, 28]) > 1.2 * torso,
            "a knee up": (y[:, knees] - y[:, hips]).min(1) < 0.75 * thigh,
            "bent or crouched": height < 0.85 * np.percentile(height, 90)}
    return {name: float(frames.mean()) for name, frames in done.items()}


def advice(target):
    """What to do better in a next recording of this target: sentences, none where nothing is lacking."""
    feet = target.joints[:, 27:33, 1] * target.box[2] + target.box[1] < target.frame_size[1]
    shown = feet.all(1) & (target.visibility[:, [27, 28]].min(1) > 0.5)
    rare = [name for name, share in movements(target).items() if share < RARE]
    seconds = target.read / target.fps
    return [sentence for sentence, true in (
        (f"Move more: there is hardly any of this: {', '.join(rare)}. What is never seen can't be shown.", rare),
        (f"Record longer: {seconds:.0f} seconds are few; half a minute or more is good.", seconds < SHORT),
        (f"Stay in the picture, in good light: a person is seen in {len(target)} of {target.read} frames.",
         len(target) < MOSTLY * target.read),
        (f"Step back so that the feet show: they are hidden in {1 - shown.mean():.0%} of the frames.",
         shown.mean() < MOSTLY),
        ("Keep the camera still, on a tripod: the background moves.", not target.still)) if true]


def main():
    parser = Parser(__doc__)
    parser.add_argument("videos", nargs="*", metavar="VIDEO", default=[TARGET], help="files or folders of images")
    parser.add_argument("--stride", type=positive(int), default=1, help="keep every N-th frame")
    parser.add_argument("--model", default="full", help="pose model: lite, full, heavy or a file")
    parser.add_argument("--force", action="store_true", help="extract even if the cache is there")
    parser.add_argument("--workers", type=positive(int), default=1, help="processes; 1 uses all cores too, by threads")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask cluster, to extract there")
    args = parser.parse_args()
    options = args.stride, args.model, args.force
    videos, start = list(dict.fromkeys(args.videos)), time.perf_counter()
    known = [not args.force and cache_folder(video, args.stride, args.model).exists() for video in videos]
    if args.workers > 1 or args.scheduler:
        targets = VideoSkeleton.load_all(videos, *options, args.workers, args.scheduler)
    else:
        targets = (VideoSkeleton.load(video, *options) for video in videos)
    read = 0
    for was_there, target in zip(known, targets, strict=True):
        sheet = target.folder / "contact-sheet.png"
        with alone(sheet, "drawing", wait=True):
            if not sheet.exists():
                contact_sheet(target, sheet)
        megabytes = sum(file.stat().st_size for file in target.folder.iterdir()) / 1e6
        print(f"{target.path.name}: {target.read} frames, {len(target)} with a person, "
              f"canvas {target.size} x {target.size} from {target.box[2]} px{', from the cache' * was_there}\n"
              f"  cache {target.folder} ({megabytes:.0f} MB)\n  sheet {sheet}")
        for sentence in advice(target):
            print(f"  {sentence}")
        read += 0 if was_there else target.read
    if read:
        seconds = time.perf_counter() - start
        print(f"{read} frames in {seconds:.1f} s, {read / seconds:.1f} frames/s")


if __name__ == "__main__":
    run(main)
