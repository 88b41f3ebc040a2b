"""Everybody who was found in a video, who is who from frame to frame, and which of them is the dancer."""

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from common.command_line import UserError, warn
from common.files import DamagedCache, EncodedImages, load_arrays
from motion.body import body_lengths
from motion.mending import along_flow
from motion.track import FARTHEST, Track, frame_rate
from Skeleton import HIPS

ABSENT = 1.0  # seconds after which somebody who was not seen may have gone anywhere
SPEED = 3.0  # body heights a second that a person may move on while not seen
NEAR = 0.5  # body heights from where a person is expected: so far away is as unlikely as clothes that differ by UNLIKE
UNLIKE = 25.0  # difference of two colours in CIELAB (0 is equal, 100 black and white) that is unlikely for one person
GATE = 2.5  # from this sum of unlikelinesses on, it is somebody else
NEW = 0.5  # unlikeliness of somebody who was seen once: a mistake of the detector must not take a dancer's place
MEMORY = 0.9  # share of the known colours that is kept when a person is seen again
ORDER = 0.1  # weight of the place after a cut: only where looks can't decide
PIXELS = 128  # of the longer side of the picture in which colours are compared
OFTEN = 0.3  # share, of the frames of whoever is seen most often, in which a real person is seen
MENTIONED = 0.1  # share of the frames from which others than the dancer are worth a message


def clothes(image, skeleton, mask):
    """float32 (6,): the mean colours, in CIELAB, of a person above and below the hips; NaN where nothing is seen.

    image: uint8 H x W x 3 BGR; mask: float32 H x W in [0, 1].
    """
    step = max(1, max(image.shape[:2]) // PIXELS)
    small = cv2.cvtColor(np.ascontiguousarray(image[::step, ::step]).astype(np.float32) / 255, cv2.COLOR_BGR2Lab)
    inside = mask[::step, ::step] > 0.5
    hips = skeleton.joints[list(HIPS), 1].mean() * max(image.shape[:2]) / step
    upper = np.arange(len(small))[:, None] < hips
    colours = [small[inside & part].mean(0) if (inside & part).any() else np.full(3, np.nan)
               for part in (upper, ~upper)]
    return np.concatenate(colours).astype(np.float32)


class _Person:
    """What is known of one person so far: pose, height, speed, colours, and when the person was seen first and last."""

    def __init__(self, pose, colours, seconds):
        self.pose, self.colours, self.seconds, self.born = pose, colours, seconds, seconds
        self.height, self.velocity, self.sightings = _height(pose), np.zeros(2), 1

    def unlikeliness(self, pose, colours, seconds, after_cut):
        """How unlikely it is that this pose (33, 3) in these colours is the same person: 0 is sure, GATE is not."""
        passed = seconds - self.seconds
        expected = self.pose[:, :2] + self.velocity * min(passed, ABSENT / 2)
        away = np.linalg.norm(pose[:, :2] - expected, axis=1).mean() / self.height
        place = away * ORDER if after_cut else away / (NEAR + SPEED * passed)
        size = 0.0 if after_cut else abs(np.log(_height(pose) / self.height))
        difference = np.linalg.norm((colours - self.colours).reshape(2, 3), axis=1)
        looks = 0.0 if np.isnan(difference).all() else np.nanmean(difference) / UNLIKE
        return place + size + looks + NEW / self.sightings

    def see(self, pose, colours, seconds):
        passed, self.sightings = seconds - self.seconds, self.sightings + 1
        if 0 < passed < ABSENT:
            moved = (pose[list(HIPS), :2] - self.pose[list(HIPS), :2]).mean(0) / passed
            self.velocity = (self.velocity + moved) / 2
        else:
            self.velocity = np.zeros(2)
        self.pose, self.seconds, self.height = pose, seconds, 0.8 * self.height + 0.2 * _height(pose)
        known = np.where(np.isnan(self.colours), colours, self.colours)
        self.colours = np.where(np.isnan(colours), known, MEMORY * known + (1 - MEMORY) * colours)


def _height(pose):
    return max(float(body_lengths(pose[None])[0]), 1e-3)


def identify(counts, joints, colours, seconds, shots):
    """int (P,): who each of the P found people is, as a number that is the same in all frames.

    counts int (N,): how many people each frame shows; joints (P, 33, 3), colours (P, 6) as of `clothes`, of all of
    them, frame after frame; seconds (N,); shots (S,), with which frames shots begin. In each frame, people are assigned
    to those who are known so that the sum of the unlikelinesses is smallest. Who was missed for some frames is waited
    for. Who was not seen for ABSENT seconds, or before a cut, is whoever fits best.
    """
    people, identities, start, cuts = [], np.empty(len(joints), int), 0, set(shots[1:].tolist())
    last_cut = -np.inf
    for number, count in enumerate(counts):
        now = seconds[number]
        if number in cuts:
            last_cut = now
        seen = range(start, start + count)
        start += count
        if not count:
            continue
        costs = np.array([[person.unlikeliness(joints[i], colours[i], now, person.seconds < last_cut)
                           for i in seen] for person in people]).reshape(len(people), count)
        gone = np.array([now - person.seconds > ABSENT or person.seconds < last_cut for person in people], bool)
        rows, columns = linear_sum_assignment(np.minimum(costs, 2 * GATE + gone[:, None]))
        owners = {column: row for row, column in zip(rows, columns, strict=True)
                  if costs[row, column] < GATE or gone[row]}
        for column, i in enumerate(seen):
            if column in owners:
                people[owners[column]].see(joints[i], colours[i], now)
            else:
                owners[column] = len(people)
                people.append(_Person(joints[i], colours[i], now))
            identities[i] = owners[column]
        for row in owners.values():
            _find_again(people, row, now, identities[:start])
    return identities


def _find_again(people, row, now, identities):
    """If somebody was not seen for ABSENT seconds, and person number `row` came up since then, these two are the same,
    such as a dancer who has jumped farther than anybody can. Changes `people` and the `identities` so far in place."""
    gone = [number for number, person in enumerate(people)
            if now - person.seconds > ABSENT and people[row].born > person.seconds]
    if gone:
        newer = people[row]
        fitting = [people[number].unlikeliness(newer.pose, newer.colours, now, True) for number in gone]
        number = gone[int(np.argmin(fitting))]
        people[number], people[row], newer.born = newer, people[number], people[number].born
        identities[identities == row] = number


@dataclass(frozen=True, eq=False)
class Cast:
    """The people of one frame, from left to right. order int (P,): which of the given ones each is. boxes float (P, 4):
    left, top, right, bottom of each, in shares of the picture. points float (P, 2): the middle of each one's hips,
    which as `Clip.person` chooses that one."""

    order: np.ndarray
    boxes: np.ndarray
    points: np.ndarray

    @classmethod
    def of_places(cls, places):
        """The Cast of people whose landmarks are at `places`, float (P, 33, 2) in shares of the picture."""
        order = places[:, list(HIPS), 0].mean(1).argsort()
        places = places[order]
        return cls(order, np.concatenate([places.min(1), places.max(1)], 1), places[:, list(HIPS)].mean(1))

    def choose(self, person):
        """The number, from the left, of the person whom `person` (see Clip) names."""
        sizes = np.ptp(self.boxes[:, [1, 3]], axis=1)
        if person in ("left", "right"):
            return 0 if person == "left" else len(self.boxes) - 1
        if person == "largest":
            return int(sizes.argmax())
        point = np.array([0.5, self.points[:, 1].mean()] if person == "middle" else
                         [float(value) for value in person.split(",")])
        outside = np.maximum(np.maximum(self.boxes[:, :2] - point, point - self.boxes[:, 2:]), 0).max(1)
        return int((outside * 100 + np.linalg.norm(self.points - point, axis=1)).argmin())


class FoundPeople:
    """All poses and masks that were found in a video, read from its folder in the cache (see motion.extraction).

    clip: the part that counts, and the dancer. Where it is a part and the folder is the whole video's, the rest is left
    out. Attributes: folder; content, the video's SHA-256; size (width, height) and fps of the video; seconds float64
    (N,), shots int (S,) and camera float32 (N, 4) as in Track; counts int (N,), how many people each frame shows;
    joints float32 (P, 33, 3), visibility float32 (P, 33) and identities int (P,) of all of them, frame after frame;
    moves float32 (P, 33, 2) and sure float32 (P, 33), how what is seen at the landmarks moves on, see `along_flow`;
    mask_spans int (P, 2), where each one's mask lies in masks.bin; cast, the people of an early frame; chosen int (N,),
    the dancer's number among all people, -1 where the dancer is not; track, the dancer's Track, whose joints follow the
    optical flow. Raises DamagedCache where the files are not what was written.
    """

    def __init__(self, folder, clip, cut=False):
        self.folder, self._clip = Path(folder), clip
        try:
            self._open(cut)
        except UserError:
            raise
        except Exception as error:  # a damaged or foreign file can cause many kinds of errors
            raise DamagedCache(f"{folder} is damaged ({type(error).__name__}); delete it, it is made anew") from None

    def _open(self, cut):
        stored = load_arrays(self.folder / "poses.npz")
        self.seconds, self.shots, self.counts, self.camera = (
            stored[name] for name in ("seconds", "shots", "counts", "camera"))
        self.joints, self.visibility, self.mask_spans, self.identities = (
            stored[name] for name in ("joints", "visibility", "mask_spans", "identities"))
        self.moves, self.sure = stored["moves"], stored["sure"]
        about = json.loads(str(stored["about"]))
        self.size, self.fps, self.content = tuple(map(int, about["size"])), float(about["fps"]), str(about["content"])
        people = len(self.joints)
        EncodedImages(self.folder / "masks.bin", self.mask_spans)  # checks that the file is there and long enough
        if not (self.counts.min() >= 0 and self.counts.sum() == people and self.visibility.shape == (people, 33)
                and np.isfinite(self.joints).all() and self.moves.shape == (people, 33, 2)
                and self.sure.shape == (people, 33) and ((self.sure >= 0) & (self.sure < 1.01)).all()
                and (np.abs(self.moves) <= FARTHEST).all() and self.mask_spans.shape == (people, 2)
                and self.identities.shape == (people,) and np.issubdtype(self.identities.dtype, np.integer)):
            raise ValueError
        if cut:
            self._cut(np.flatnonzero(self._clip.holds(self.seconds)))
        self._choose()

    def _cut(self, frames):
        """Leave out all frames but these, which follow each other. Raises UserError where nobody is left."""
        if not len(frames):
            raise self._clip.no_frames()
        if not self.counts[frames].any():
            raise UserError(f"nobody is seen in that part of {str(self._clip.path)!r}; choose another --from and --to")
        first, last = frames[0], frames[-1] + 1
        ends = np.cumsum([0, *self.counts])
        people = slice(ends[first], ends[last])
        for name in ("joints", "visibility", "mask_spans", "identities", "moves", "sure"):
            setattr(self, name, getattr(self, name)[people])
        self.counts, self.camera = self.counts[first:last], self.camera[first:last]
        self.seconds = self.seconds[first:last] - self.seconds[first]
        inside = self.shots[(self.shots > first) & (self.shots < last)] - first
        self.shots, self.fps = np.concatenate([[0], inside]), frame_rate(self.seconds, self.fps)

    def _choose(self):
        ends = np.cumsum([0, *self.counts])
        self.cast, people = self._first_people(ends)
        self.chosen, place = np.full(len(self.counts), -1), self.cast.choose(self._clip.person)
        dancer = np.flatnonzero(self.identities == self.identities[people[self.cast.order[place]]])
        self.chosen[np.searchsorted(ends, dancer, "right") - 1] = dancer
        found = self.chosen >= 0
        joints = np.full((len(found), 33, 3), np.nan, np.float32)
        visibility = np.zeros((len(found), 33), np.float32)
        rows = self.chosen[found]
        next_frame = np.diff(np.flatnonzero(found)) == 1
        visibility[found] = self.visibility[rows]
        joints[found] = along_flow(self.joints[rows], visibility[found], self.moves[rows[:-1]],
                                   self.sure[rows[:-1]] * next_frame[:, None])
        self.track = Track(joints, visibility, self.seconds, self.shots, self.size, self.fps, found, self._clip.person,
                           self.camera)
        self.track.check()

    def _first_people(self, ends):
        """(the Cast of that frame of the first second with people which shows most of them, their numbers). Who is seen
        in few frames of that second is a mistake of the detector."""
        first = np.flatnonzero(self.counts)[0]
        last = np.searchsorted(self.seconds, self.seconds[first] + 1)
        known, seen = np.unique(self.identities[ends[first]:ends[last]], return_counts=True)
        real = np.isin(self.identities, known[seen >= OFTEN * seen.max()])
        shown = [int(real[ends[number]:ends[number + 1]].sum()) for number in range(first, last)]
        frame = first + int(np.argmax(shown))
        people = ends[frame] + np.flatnonzero(real[ends[frame]:ends[frame + 1]])
        return Cast.of_places(self.joints[people][:, :, :2] * max(self.size) / self.size), people

    def tell(self):
        """Say in one line who is followed, where the video shows several people for more than a moment."""
        count = len(self.cast.boxes)
        if count > 1 and (self.counts > 1).mean() >= MENTIONED:
            place = self.cast.choose(self._clip.person)
            where = ("left", "right")[place] if count == 2 else f"{place + 1}. from the left"
            warn(f"{str(self._clip.path)!r} shows {count} people; following the one who is {where} at its beginning "
                 "(another one: --person; of the demo's target: --target-person)")

