"""What the page shows of a chosen video: a film that every browser plays, its length, and the people of its first
second. Finding that out takes seconds, so a thread of its own does it (`Later`)."""

from argparse import ArgumentTypeError
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np

from common.command_line import UserError
from common.files import shorten
from common.paths import DANCE
from motion.detector import detect_everyone
from motion.extraction import content_sha256
from motion.following import Cast
from motion.track import frame_rate
from video.clip import Clip, time
from video.decoding import open_video, read_index
from video.film import VideoWriter
from VideoReader import VideoReader

PREVIEWS = DANCE / "studio" / "previews"
PLAYED = {(".mp4", "h264"), (".webm", "vp9")}  # names and codecs that the page plays as they are, on every browser
PREVIEW_HEIGHT = 480  # pixels
MOVING_SECONDS, MOVING_RATE = 4, 15  # seconds and frames a second of a moving thumbnail
LOOKS = 5  # frames of the first second in which people are looked for
PICTURE_WIDTH = 720  # pixels, at most, of the picture in which a person is chosen
THUMBNAIL_WIDTH = 360  # pixels, at most, of the still picture of a film
ABOVE = 0.1  # of a person's height: the box begins so far above the topmost landmarks, which are the eyes


class Later:
    """Calls functions in a thread of its own, one after the other, and keeps what they return."""

    def __init__(self):
        self._thread, self._known = ThreadPoolExecutor(1), {}

    def get(self, function, *arguments):
        """What `function` returns for these arguments, or None until that is known."""
        asked = function, arguments
        if asked not in self._known:
            self._known[asked] = self._thread.submit(function, *arguments)
        return self._known[asked].result() if self._known[asked].done() else None


@dataclass(frozen=True, eq=False)
class Look:
    """What a part of a video shows at its beginning. picture: JPEG bytes, or b"" where the video can't be read. cast:
    the people in that picture (motion.following.Cast), or None where nobody is seen."""

    picture: bytes
    cast: Cast | None

    def people(self, person):
        """[{box, point, chosen}] from left to right; box: left, top, width and height in percent of the picture; point:
        as Clip.person takes it; chosen: whether `person` (see Clip) names that one."""
        if self.cast is None:
            return []
        chosen, people = self.cast.choose(person), []
        for number, (box, point) in enumerate(zip(self.cast.boxes.tolist(), self.cast.points, strict=True)):
            left, top, right, bottom = box
            top -= ABOVE * (bottom - top)
            left, top, right, bottom = (round(100 * min(1, max(0, side)), 1) for side in (left, top, right, bottom))
            people.append({"box": [left, top, round(right - left, 1), round(bottom - top, 1)],
                           "point": ",".join(f"{share:.3f}" for share in np.clip(point, 0, 1)),
                           "chosen": number == chosen})
        return people


def playable(path):
    """The path, as a string, of what a browser shows for the video at `path`: itself or, if some browsers can't play
    it, a smaller copy, which is made once."""
    try:
        return str(path if _is_played(path) else _preview(path))
    except (OSError, UserError):  # it is no video, or it was deleted meanwhile; the page says so beside the player
        return str(path)


def _is_played(path):
    container, stream = open_video(path)
    with container:
        return (path.suffix.lower(), stream.codec_context.name) in PLAYED and stream.codec_context.pix_fmt == "yuv420p"


def _preview(path):
    copy = PREVIEWS / f"{shorten(path.stem, 60)}-{content_sha256(path)[:16]}.mp4"
    if not copy.exists():
        with VideoReader(path) as reader:
            scale = min(1, PREVIEW_HEIGHT / reader.size[1])
            size = tuple(max(2, round(length * scale / 2) * 2) for length in reader.size)
            with VideoWriter(copy, reader.fps, path, variable=True, audio_begin=reader.stamp) as writer:
                for seconds, frame in reader.timed():
                    writer.write(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), seconds)
    return copy


def first_look(path, begin):
    """The Look at that frame, of the second that follows after `begin` seconds of a video, which shows most people."""
    try:
        with VideoReader(Clip(path, begin)) as reader:
            step = max(1, round(reader.fps / LOOKS))
            early = [frame for number, frame in zip(range(LOOKS * step), reader, strict=False) if number % step == 0]
    except UserError:
        return Look(b"", None)
    frame, people = max(detect_everyone(early, run=1), key=lambda entry: len(entry[1]))
    return Look(_small(frame, PICTURE_WIDTH), _cast(people, frame))


def thumbnail(film):
    """(JPEG bytes of the picture in the middle of a film, (x, y) of the person there in percent of the picture, Path of
    a small film of the seconds around it); the middle of the picture where nobody is seen, and (b"", that, None) where
    the film can't be read."""
    middle = 50, 50
    try:
        with VideoReader(film) as reader:
            count = reader.frame_count or 1
            begin = max(0, round(count / 2 - MOVING_SECONDS * reader.fps / 2))
        with VideoReader(film, start=count // 2) as reader:
            frame = next(iter(reader))
        moving = _moving(film, begin)
    except (UserError, StopIteration):
        return b"", middle, None
    (_, people), = detect_everyone([frame], run=1)
    if cast := _cast(people, frame):
        middle = tuple(round(100 * share) for share in np.clip(cast.points[cast.choose("largest")], 0, 1).tolist())
    return _small(frame, THUMBNAIL_WIDTH), middle, moving


def moving_path(film):
    """Where the small film of a film's thumbnail is."""
    return PREVIEWS / f"{film.stem}.mp4"


def _moving(film, begin):
    """The Path of the small film, from frame number `begin` on, which is made where it is missing. A browser opens only
    six connections to the page, and each film that it has not loaded to its end keeps one; a small one frees it."""
    path = moving_path(film)
    if not path.exists():
        with VideoReader(film, start=begin) as reader:
            step = max(1, round(reader.fps / MOVING_RATE))
            shown = range(round(MOVING_SECONDS * reader.fps))
            with VideoWriter(path, reader.fps / step) as writer:
                for number, frame in zip(shown, reader, strict=False):
                    if number % step == 0:
                        scale = min(1, THUMBNAIL_WIDTH / frame.shape[1])
                        writer.write(cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    return path


def _small(frame, width):
    """A frame as JPEG bytes, made at most `width` pixels wide."""
    scale = min(1, width / frame.shape[1])
    return cv2.imencode(".jpg", cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))[1].tobytes()


def _cast(people, frame):
    """The Cast of the people that `detect_everyone` has found in a frame, or None."""
    if not people:
        return None
    return Cast.of_places(np.array([skeleton.joints[:, :2] for skeleton, _ in people])
                          * max(frame.shape) / frame.shape[1::-1])


def length_and_facts(path):
    """(seconds, width / height, text for people, error): the length of a whole video, the shape of its picture, both in
    words with its rate; or 0.0, 1.0, "" and why it can't be read."""
    try:
        with VideoReader(path) as reader:
            seconds = read_index(path).seconds
            rate = frame_rate(seconds - seconds[0], reader.fps) if len(seconds) else reader.fps
            length = float(seconds[-1] - seconds[0] + 1 / rate) if len(seconds) else 0.0
            told = f"{length:.1f} seconds, " if length else ""
            facts = f"{told}{reader.size[0]} x {reader.size[1]} pixels, {rate:.4g} frames a second"
            return length, reader.size[0] / reader.size[1], facts, ""
    except UserError as error:
        return 0.0, 1.0, "", str(error)


def with_part(clip, begin, end):
    """The Clip with another part, whose limits are given as texts ("" for none). Raises UserError for bad ones."""
    try:
        limits = [time(text.strip()) if text and text.strip() else None for text in (begin, end)]
    except ArgumentTypeError as error:
        raise UserError(str(error)) from None
    begin, end = limits[0] or 0.0, limits[1]
    if end is not None and end <= begin:
        raise UserError("the end must be after the start")
    return Clip(clip.path, begin, end)
