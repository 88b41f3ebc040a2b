"""Which part of which video is meant, and whom it shows: what `--from`, `--to` and `--person` say."""

import re
from argparse import ArgumentTypeError
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.command_line import UserError

ROUNDING = 0.0006  # seconds: some files round the times of their frames to milliseconds
SIDES = ("left", "right", "middle", "largest")  # who is followed; a point "x,y" names the person there


@dataclass(frozen=True)
class Clip:
    """A part of a video, and one person in it.

    path: of a file or of a folder of images. begin, end: the part's frames are those whose time, in seconds since the
    video's first frame, is at least `begin` and below `end`; None stands for the end of the video. person: one of
    SIDES, or a point "x,y" in shares of the picture's width and height, for the part's first frame.
    """

    path: Path
    begin: float = 0.0
    end: float | None = None
    person: str = SIDES[-1]

    @classmethod
    def of(cls, video):
        """The Clip `video`, or the whole video that is at the path `video`."""
        return video if isinstance(video, Clip) else cls(Path(video))

    @property
    def is_whole(self):
        return self.begin == 0 and self.end is None

    def holds(self, seconds):
        """Whether frames at these `seconds` since the video's first frame, a float or an array, are in the part."""
        end = np.inf if self.end is None else self.end
        return (seconds > self.begin - ROUNDING) & (seconds <= end - ROUNDING)

    def no_frames(self):
        """The UserError for a part without a frame."""
        return UserError(f"{str(self.path)!r} has no frame from {self.begin:g} seconds on, or none in that part; begin "
                         "earlier or end later")

    def words(self, prefix=""):
        """The flags of a command line that say the same: [] for a whole video. prefix: "target-" for --target-from."""
        said = {"from": f"{self.begin:.10g}" if self.begin else "", "to": f"{self.end:.10g}" if self.end else "",
                "person": self.person if self.person != SIDES[-1] else ""}
        return [word for name, value in said.items() if value for word in (f"--{prefix}{name}", value)]


def add_clip_flags(parser, what, *prefixes):
    """Add --from, --to and --person to an argparse parser. what: of which video, for the help. prefixes: "" or
    "target-", once for each prefix that the flags' names may have; `clip_of` is then given the first one."""
    where = f"{', '.join(SIDES)}, or a point x,y (shares of the picture) in its first frame"
    for name, kind, metavar, text, default in (
            ("from", time, "TIME", "begin there: seconds, m:ss or h:mm:ss", 0.0),
            ("to", time, "TIME", "end there", None),
            ("person", person, "WHO", f"follow this person: {where}", SIDES[-1])):
        parser.add_argument(*(f"--{prefix}{name}" for prefix in prefixes), type=kind, metavar=metavar, default=default,
                            help=f"of {what}: {text}")


def clip_of(args, video, prefix=""):
    """The Clip of the path `video` that the flags of `add_clip_flags` name. Raises UserError where it has no length."""
    prefix = prefix.replace("-", "_")
    begin, end, who = (getattr(args, prefix + name) for name in ("from", "to", "person"))
    if end is not None and end <= begin:
        raise UserError(f"the part from {begin:g} to {end:g} seconds of {str(video)!r} is empty; --to is after --from")
    return Clip(Path(video), begin, end, who)


def time(text):
    """An argparse type: seconds, m:ss or h:mm:ss as a float of seconds, 0 or more."""
    match = re.fullmatch(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?)", text, re.ASCII)
    hours, minutes, seconds = (float(part or 0) for part in match.groups()) if match else (0, 0, 60)
    if not match or (match[2] and seconds >= 60) or (match[1] and minutes >= 60):
        raise ArgumentTypeError(f"{text!r} is no time; write seconds (83.5) or m:ss (1:23.5)")
    return hours * 3600 + minutes * 60 + seconds


def person(text):
    """An argparse type: one of SIDES, or a point "x,y" inside the picture."""
    try:
        inside = text in SIDES or [0 <= float(value) <= 1 for value in text.split(",")] == [True, True]
    except ValueError:
        inside = False
    if not inside:
        raise ArgumentTypeError(f"{text!r} is nobody; write {', '.join(SIDES)}, or a point such as 0.3,0.5")
    return text
