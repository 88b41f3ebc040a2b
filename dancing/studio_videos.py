"""What the page shows of a chosen video: a film that every browser plays, and the people of its first second."""

import functools
from argparse import ArgumentTypeError
from dataclasses import replace

import cv2
import numpy as np

from common.command_line import UserError
from common.files import shorten
from common.paths import DANCE
from motion.detector import detect_everyone
from motion.extraction import content_sha256
from motion.following import Cast
from video.clip import SIDES, Clip, time
from video.decoding import open_video
from video.film import VideoWriter
from VideoReader import VideoReader

PREVIEWS = DANCE / "studio" / "previews"
PLAYED = {(".mp4", "h264"), (".webm", "vp9")}  # names and codecs that the page plays as they are, on every browser
PREVIEW_HEIGHT = 480  # pixels
LOOKS = 5  # frames of the first second in which people are looked for
COLOURS = [(148, 13, 148), (0, 110, 0), (200, 60, 0), (0, 60, 220)]  # BGR, of the boxes around people


def playable(path):
    """The path, as a string, of what a browser shows for the video at `path`: itself or, if some browsers can't play
    it, a smaller copy, which is made once."""
    try:
        return str(path if _is_played(path) else _preview(path))
    except UserError:  # it is no video; the panel below the player says so
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


@functools.lru_cache(16)
def first_people(clip):
    """(picture uint8 H x W x 3 BGR with numbered boxes, [point "x,y" of each one, as Clip.person takes it]) of that
    frame of the first second of a Clip which shows most people; (None, []) where it shows nobody or can't be read."""
    try:
        with VideoReader(replace(clip, person=SIDES[-1])) as reader:
            step = max(1, round(reader.fps / LOOKS))
            early = [frame for number, frame in zip(range(LOOKS * step), reader, strict=False) if number % step == 0]
    except UserError:
        return None, []
    frame, people = max(detect_everyone(early, run=1), key=lambda entry: len(entry[1]))
    if not people:
        return None, []
    places = np.array([skeleton.joints[:, :2] for skeleton, _ in people]) * max(frame.shape) / frame.shape[1::-1]
    cast = Cast.of_places(places)
    picture, height = frame.copy(), len(frame)
    for number, (box, colour) in enumerate(zip(cast.boxes, COLOURS * len(people), strict=False), 1):
        left, top, right, bottom = (box.reshape(2, 2) * frame.shape[1::-1]).round().astype(int).ravel().tolist()
        top = max(0, top - (bottom - top) // 10)  # the topmost landmarks are the eyes
        cv2.rectangle(picture, (left, top), (right, bottom), colour, max(2, height // 200))
        cv2.rectangle(picture, (left, bottom - height // 15), (left + height // 18, bottom), colour, -1)  # not on faces
        cv2.putText(picture, str(number), (left + height // 90, bottom - height // 70), cv2.FONT_HERSHEY_SIMPLEX,
                    height / 600, (255, 255, 255), max(2, height // 200), cv2.LINE_AA)
    return picture, [f"{x:.3f},{y:.3f}" for x, y in np.clip(cast.points, 0, 1)]


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
