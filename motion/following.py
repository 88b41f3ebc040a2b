"""Everybody who was found in a video, and which of them is the dancer."""

import json
from pathlib import Path

import numpy as np

from common.command_line import warn
from common.files import DamagedCache, EncodedImages, load_arrays
from motion.track import Track

LOST = 1.0  # body heights: a person who is farther away than this from one picture to the next is another person


class PersonFollower:
    """Called with the people of one picture after the other, chooses the same person each time.

    It begins with the tallest person. Then it takes the one who is nearest to where the person was seen last, if that
    is within LOST times the person's height, and else the tallest one again.
    """

    def __init__(self):
        self._last, self._told = None, False

    def __call__(self, joints):
        """joints: float (people, 33, 3) of one picture. Returns the person's number, or None where nobody is."""
        if not len(joints):
            return None
        places = joints[:, :, :2]
        chosen = int(np.ptp(places[:, :, 1], 1).argmax())
        if self._last is not None:
            away = np.linalg.norm(places - self._last, axis=2).mean(1)
            if away.min() < LOST * np.ptp(self._last[:, 1]):
                chosen = int(away.argmin())
        if len(places) > 1 and not self._told:
            self._told = True
            across = places[:, :, 0].mean(1)
            side = "left" if across[chosen] < np.delete(across, chosen).mean() else "right"
            warn(f"{len(places)} people are seen; following one of them, now on the {side}")
        self._last = places[chosen]
        return chosen


class FoundPeople:
    """All poses and masks that were found in a video, read from its folder in the cache (see motion.extraction).

    Attributes: folder; content, the video's SHA-256; size (width, height) and fps of the video; seconds float64 (N,)
    and shots int (S,) as in Track; counts int (N,), how many people each frame shows; joints float32 (P, 33, 3) and
    visibility float32 (P, 33) of all of them, frame after frame; mask_spans int (P, 2), where each one's mask lies in
    masks.bin. Raises DamagedCache where the files are not what was written.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        try:
            self._open()
        except Exception as error:  # a damaged or foreign file can cause many kinds of errors
            raise DamagedCache(f"{folder} is damaged ({type(error).__name__}); delete it, it is made anew") from None

    def _open(self):
        stored = load_arrays(self.folder / "poses.npz")
        self.seconds, self.shots, self.counts = (stored[name] for name in ("seconds", "shots", "counts"))
        self.joints, self.visibility, self.mask_spans = (stored[n] for n in ("joints", "visibility", "mask_spans"))
        about = json.loads(str(stored["about"]))
        self.size, self.fps, self.content = tuple(map(int, about["size"])), float(about["fps"]), str(about["content"])
        people = len(self.joints)
        EncodedImages(self.folder / "masks.bin", self.mask_spans)  # checks that the file is there and long enough
        if not (self.counts.min() >= 0 and self.counts.sum() == people and self.visibility.shape == (people, 33)
                and np.isfinite(self.joints).all() and self.mask_spans.shape == (people, 2)):
            raise ValueError
        self._choose()

    def _choose(self):
        """Find the dancer in each frame: `chosen` int (N,), the number among all people, -1 where the dancer is not."""
        follower, starts = PersonFollower(), np.cumsum([0, *self.counts[:-1]])
        numbers = [follower(self.joints[start:start + count])
                   for start, count in zip(starts, self.counts, strict=True)]
        self.chosen = np.array([-1 if number is None else start + number
                                for start, number in zip(starts, numbers, strict=True)])
        found = self.chosen >= 0
        joints = np.full((len(found), 33, 3), np.nan, np.float32)
        visibility = np.zeros((len(found), 33), np.float32)
        joints[found], visibility[found] = self.joints[self.chosen[found]], self.visibility[self.chosen[found]]
        self.track = Track(joints, visibility, self.seconds, self.shots, self.size, self.fps, found)
        self.track.check()
