"""The pictures of a target: its frames on the canvas, and its scene without the person, stored beside its poses.

They lie in a folder `target-<key>` in the video's folder of the cache (motion/extraction.py), whose key is a hash of
the parameters and of SCHEMA: skeletons.npz, frames.bin (JPEG images end to end, quality 95 without chroma subsampling,
42 dB and more, each before its matte) and plate.png. Of each frame only the box around the person is kept, so that the
pictures can have the video's own resolution. At her edge they show her own colours alone (matting.py). A run that was
stopped goes on where it was.
"""

import hashlib
import json
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from tqdm import tqdm

from common.command_line import UserError
from common.files import EncodedImages, file_lock
from motion.body import body_height, landmark_point, lowest_joint
from motion.extraction import load_people, people_folder, removed_after_errors
from motion.mending import mend_track
from motion.segments import small_size
from picture.canvas import CANVAS, MARGIN, canvas_box, crop
from picture.matting import foreground, matte
from picture.parts import CHAINS, NUMBER, PARTS_OF, distances, segments
from picture.scene import MOST_BYTES, SAMPLES, background
from Skeleton import HIPS
from video.camera import STANDING, apply, matrices, relative
from video.clip import Clip
from VideoReader import VideoReader

SCHEMA = 10  # raise it when the meaning of a stored value changes
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
AROUND = 0.04  # share of the canvas by which the box of a person is larger than the mask: her shadow, loose hair
PERSON = 38  # of 255: where a mask is above this, the person may be
COARSE = 4  # pixels over which the gradient is averaged before it is measured
NEAR = 0.7  # radii from a bone: what is so near surely belongs to it
ALONG = np.linspace(0, 0.8, 9)[:, None]  # of a bone's length: where it is looked at how opaque a limb is
SHORTEST_SHOT = 0.2  # seconds: what is shorter is the middle of a transition, in which two shots are blended
BESIDE_CUT = 0.08  # seconds before and after a cut in which a transition may go on
NOTE = 200  # frames, some seconds of work, after which it is noted how many are stored


def target_folder(video):
    """The Path of the folder where the pictures of the target `video` (a path or a Clip) are or will be kept."""
    key = json.dumps([CANVAS, MARGIN, JPEG, SCHEMA, *Clip.of(video).words()])
    return people_folder(video) / f"target-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def store_target(video, force=False):
    """Make target_folder(video), where it is missing, and return it. force: find poses and store pictures anew. video:
    a path or a Clip. Raises UserError where the video can't be read or shows nobody."""
    people, folder = load_people(video, force), target_folder(video)
    if not folder.exists():
        with file_lock(people.folder, "storing the pictures of", wait=True):
            if not folder.exists():
                _store(video, people, folder)
    return folder


def _without_transitions(track, frames):
    """Those of the frames (int (N,)) of a Track in which no shot blends into another one, which makes a person half
    transparent. All of them, if no shot is long enough, as in a photo."""
    margin, whole = round(BESIDE_CUT * track.fps), []
    for shot in track.shot_slices:
        start, stop = shot.start + margin * (shot.start > 0), shot.stop - margin * (shot.stop < len(track))
        if stop - start >= SHORTEST_SHOT * track.fps:
            whole.append(frames[(frames >= start) & (frames < stop)])
    kept = np.concatenate([frames[:0], *whole])
    return kept if len(kept) else frames


@dataclass(frozen=True, eq=False)
class _Canvas:
    """Where the N frames of a target lie on the canvas. frame_size: (width, height) of the video; box: (x, y, side) of
    the canvas, and size: its pixels; camera: float32 (N, 4), see `_camera`; joints: float32 (N, 33, 3), in canvas
    units; person_boxes: int (N, 4), the boxes (left, top, width, height) around the person, in pixels of the canvas."""

    frame_size: tuple
    box: tuple
    size: int
    camera: np.ndarray
    joints: np.ndarray
    person_boxes: np.ndarray

    @classmethod
    def of(cls, joints, camera, masks, frame_size):
        """joints: (N, 33, 3), in the pictures; masks: the EncodedImages of the detector's masks."""
        longer = max(frame_size)
        placed = apply(camera, joints) * longer
        box = canvas_box(placed[:, :, :2], frame_size)
        size = min(CANVAS, box[2])
        placed = ((placed - np.float32([box[0], box[1], 0])) / box[2]).astype(np.float32)
        boxes, small, bounds = [], small_size(frame_size), np.array(frame_size) / longer
        for index, points in enumerate(joints[:, :, :2]):
            mask = masks.read(index, cv2.IMREAD_GRAYSCALE, small)
            left, top, width, height = cv2.boundingRect((mask > PERSON).astype(np.uint8))
            corners = np.array([[x, y] for x in (left, left + width) for y in (top, top + height)]) / small * bounds
            around = np.concatenate([corners if width else points, np.clip(points, 0, bounds)])
            around = (apply(camera[index:index + 1], around[None])[0] * longer - box[:2]) * (size / box[2])
            low = np.clip(np.floor(around.min(0) - AROUND * size), 0, size - 2).astype(int)
            high = np.clip(np.ceil(around.max(0) + AROUND * size), low + 2, size).astype(int)
            boxes.append([*low, *(high - low)])
        return cls(frame_size, box, size, camera, placed, np.array(boxes))

    def image(self, frame, index):
        """The person's box in the frame (uint8 H x W x 3 BGR) of image number `index`: uint8 h x w x 3."""
        if (self.camera[index] == STANDING).all():
            left, top, width, height = self.person_boxes[index]
            return crop(frame, self.box, self.size)[top:top + height, left:left + width]
        if self.size < self.box[2]:
            shrink = self.size / self.box[2]
            frame = cv2.resize(frame, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        return self._part(frame, index, cv2.INTER_CUBIC, cv2.BORDER_REPLICATE)

    def mask(self, mask, index):
        """The same part of a mask (uint8, of any size) of that frame: uint8 h x w."""
        return self._part(mask, index, cv2.INTER_LINEAR, cv2.BORDER_CONSTANT)

    def _part(self, image, index, interpolation, border):
        left, top, width, height = self.person_boxes[index].tolist()
        a, b, x, y = self.camera[index].astype(float)
        per_pixel, scale = np.array(self.frame_size) / image.shape[1::-1], self.size / self.box[2]
        turn = np.array([[a, -b], [b, a]]) * per_pixel * scale
        shift = (np.array([x, y]) * max(self.frame_size) - self.box[:2]) * scale - (left, top)
        # A pixel's number is the place of its middle, half a pixel from its corner.
        matrix = np.column_stack([turn, shift + turn @ [0.5, 0.5] - 0.5])
        return cv2.warpAffine(image, matrix, (width, height), flags=interpolation, borderMode=border)


def _store(video, people, folder):
    work = people.folder.with_name(f".{people.folder.name}.{folder.name}.work")
    with removed_after_errors(work):
        work.mkdir(exist_ok=True)
        track = mend_track(people.track)
        # A gap is filled in a source's motion, but a frame of the target counts only if the person was found in it.
        frames = _without_transitions(track, np.flatnonzero(track.present & track.found))
        if not len(frames):
            raise UserError(f"somebody is seen in {str(Clip.of(video).path)!r} for a moment only; show the person for "
                            "longer")
        of_shot = [np.flatnonzero((frames >= shot.start) & (frames < shot.stop)) for shot in track.shot_slices]
        longest = max(of_shot, key=len)
        reference = int(longest[len(longest) // 2])
        masks = EncodedImages(people.folder / "masks.bin", people.mask_spans[people.chosen[frames]])
        canvas = _Canvas.of(track.joints[frames], _camera(track, frames, frames[reference]), masks, people.size)
        image_spans, matte_spans, samples = _store_images(video, work, frames, canvas, masks, reference)
        ways = matrices(relative(track.camera[frames], track.camera[frames[reference]]), max(people.size))
        plate, still = background(
            list(samples.values()),
            [cv2.resize(masks.read(index, cv2.IMREAD_GRAYSCALE, small_size(people.size)), people.size)
             for index in samples],
            [ways[index] if index in longest else None for index in samples], list(samples).index(reference))
        (work / "plate.png").write_bytes(cv2.imencode(".png", plate)[1])
        sharpness, opacity = _clarity(*(EncodedImages(work / "frames.bin", spans) for spans in
                                        (image_spans, matte_spans)), canvas)
        about = {"box": canvas.box, "frame_size": people.size, "size": canvas.size, "fps": people.fps,
                 "frames_read": len(track), "still": still, "content": people.content}
        np.savez(work / "skeletons.npz", joints=canvas.joints, visibility=track.visibility[frames], frames=frames,
                 seconds=track.seconds[frames], image_spans=image_spans, image_boxes=canvas.person_boxes,
                 matte_spans=matte_spans, sharpness=sharpness, opacity=opacity, about=json.dumps(about))
        work.rename(folder)


def _camera(track, frames, reference):
    """float32 (N, 4): how the pictures of the frames with these numbers lie in the scene of the canvas, which is the
    picture of frame number `reference`, see `camera_path`. The person may have left that picture together with the
    camera. Then she stands where she comes nearest to that place among those in which pictures show her."""
    scene = track.in_scene(reference)
    camera = scene.camera[frames]
    seen, there = (np.stack([landmark_point(joints, HIPS)[:, 0], lowest_joint(joints)], 1)
                   for joints in (track.joints[frames], scene.joints[frames]))
    camera[:, 2:] += np.clip(there, seen.min(0), seen.max(0)) - there
    return camera


def _clarity(images, mattes, canvas):
    """(sharpness, opacity), each float32 (N, 6), of each of parts.CHAINS in the images and mattes (EncodedImages) of a
    _Canvas. sharpness: the mean gradient (its parts across and down, added up) in levels a pixel near its bones.
    opacity: the mean matte along its bones, in [0, 1]. A hand in fast motion is half transparent, and one that the
    matte has lost or that has left the picture is not there at all."""
    body = body_height(canvas.joints)

    def measure(index):
        left, top, width, height = canvas.person_boxes[index].tolist()
        grey = images.read(index, cv2.IMREAD_GRAYSCALE, (width, height))
        # Whole numbers are added up, so that the sums are the same however many threads OpenCV has.
        gradient = sum(np.abs(cv2.Scharr(grey, cv2.CV_16S, *axis)) for axis in ((1, 0), (0, 1)))
        rows, columns = height // COARSE, width // COARSE
        gradient = gradient[:rows * COARSE, :columns * COARSE].reshape(rows, COARSE, columns, COARSE)
        gradient = gradient.sum((1, 3), dtype=np.int64) / (32 * COARSE ** 2)
        x, y = np.meshgrid(left + (np.arange(columns) + 0.5) * COARSE, top + (np.arange(rows) + 0.5) * COARSE)
        places = np.stack([x, y], -1) / canvas.size
        away = distances(places.astype(np.float32), canvas.joints[index], body)
        opaque = mattes.read(index, cv2.IMREAD_GRAYSCALE, (width, height)) / 255
        clarity = []
        for chain, numbers in zip(CHAINS, of_chain, strict=True):
            near = away[numbers].min(0) < NEAR
            bones = [start + ALONG * (end - start) for part in PARTS_OF[chain]
                     for start, end in segments(canvas.joints[index], part)]
            x, y = (np.floor(np.concatenate(bones) * canvas.size) - (left, top)).astype(int).T
            inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
            clarity.append((gradient[near].mean() if near.any() else 0,
                            opaque[y[inside], x[inside]].sum() / len(inside)))
        return clarity

    of_chain = [[NUMBER[part] for part in PARTS_OF[chain]] for chain in CHAINS]
    with ThreadPoolExecutor(2) as pool:
        count = len(canvas.joints)
        rows = tqdm(pool.map(measure, range(count)), total=count, desc="measuring the clarity", unit="frame")
        return np.moveaxis(np.array(list(rows), np.float32), 2, 0)


def _store_images(video, work, frames, canvas, masks, needed):
    """Write the canvas images of the frames with these numbers, cut to their boxes on the _Canvas, as JPEG, end to end,
    each before its matte. masks: the EncodedImages of the detector's masks; needed: the number of an image whose frame
    is needed. Returns (int (N, 2), where each image begins and ends in frames.bin; the same of the mattes; {number of
    an image: its whole frame, uint8 H x W x 3 BGR} of some, for the plate)."""
    body = body_height(canvas.joints) * canvas.size

    def encode(frame, index):
        image = canvas.image(frame, index)
        mask = canvas.mask(masks.read(index, cv2.IMREAD_GRAYSCALE, small_size(canvas.frame_size)), index)
        points = canvas.joints[index, :, :2] * canvas.size - canvas.person_boxes[index, :2]
        opaque = matte(image, mask, points, body)
        return [cv2.imencode(".jpg", picture, JPEG)[1] for picture in (foreground(image, opaque, body), opaque)]

    def write(job):
        for picture in job.result():
            ends.append(ends[-1] + file.write(picture))

    path, noted = work / "frames.bin", work / "ends.npy"  # ends.npy: where the images end that are safely stored
    ends = _noted_ends(path, noted)
    done, wanted, samples, waiting = len(ends) // 2, set(frames.tolist()), {}, deque()
    with VideoReader(video) as reader, ThreadPoolExecutor(2) as pool, open(path, "r+b" if done else "wb") as file:
        file.truncate(ends[-1])
        file.seek(ends[-1])
        shown = (frame for number, frame in enumerate(reader) if number in wanted)
        count = int(np.clip(MOST_BYTES / (3 * np.prod(reader.size)), 5, SAMPLES))
        sampled = {needed, *np.linspace(0, len(frames) - 1, count).round().astype(int).tolist()}
        for index, frame in enumerate(tqdm(shown, total=len(frames), desc="storing the canvas", unit="frame")):
            if index in sampled:
                samples[index] = frame
            if index >= done:
                waiting.append(pool.submit(encode, frame, index))
            if len(waiting) > 4:
                write(waiting.popleft())
                if len(ends) // 2 % NOTE == 0:
                    file.flush()
                    os.fsync(file.fileno())  # the note must not be on the disk before the images are
                    np.save(noted, ends)
        for job in waiting:
            write(job)
    if len(ends) != 2 * len(frames) + 1:
        raise UserError(f"{str(Clip.of(video).path)!r} changed while it was read; run it again")
    noted.unlink(missing_ok=True)
    spans = np.stack([ends[:-1], ends[1:]], 1)
    return spans[::2], spans[1::2], samples


def _noted_ends(path, noted):
    """[0, the end of the first image, of its matte, of the second image, ...] of what an earlier run has stored."""
    try:
        ends = np.load(noted, allow_pickle=False).tolist()
        return ends if path.stat().st_size >= ends[-1] else [0]  # after a power cut the file may be shorter
    except Exception:  # there is no note, or it is damaged in any way
        return [0]
