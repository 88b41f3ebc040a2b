"""The motion of one person in one video, as plain arrays: what is found once, kept, and shared without the video."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from common.command_line import UserError
from common.files import atomic_write, load_arrays
from motion.body import body_lengths
from Skeleton import Skeleton
from video.camera import STANDING, apply, inverse, relative

ARRAYS = ("joints", "visibility", "seconds", "shots", "found", "camera")
KINDS = (np.float32, np.float32, np.float64, np.integer, np.bool_, np.float32)  # the types of these arrays
FARTHEST = 100.0  # lengths of the picture's longer side: no detector puts a joint farther away
LONGEST = 1e7  # seconds, about four months: no video is longer
RATES = (24000 / 1001, 24, 25, 30000 / 1001, 30, 48, 50, 60000 / 1001, 60, 10, 12, 15, 20, 100, 120, 240)
EVEN = 1e-3  # seconds: frames that are so near to an even grid are evenly spaced; some files round to milliseconds
LARGEST = 1e5  # pixels: no picture has a longer side
EVEN_ZOOM = 0.1  # standard deviation of the logarithm of a zoom: below it, bodies that bend hide how they grow


def frame_rate(seconds, claimed):
    """The frames a second of frames at these `seconds` (N,): `claimed` or a usual rate, if all of them fit into it,
    else the average."""
    if seconds[-1] <= seconds[0]:
        return claimed
    average = float(np.clip((len(seconds) - 1) / (seconds[-1] - seconds[0]), 0.1, 1000))
    return next((rate for rate in (claimed, *RATES) if _is_even(seconds, rate)), average)


def _is_even(seconds, rate):
    return np.allclose(seconds, np.arange(len(seconds)) / rate, rtol=0, atol=EVEN)


@dataclass(frozen=True, eq=False)
class Track:
    """One person in the N frames of a video.

    joints: float32 (N, 33, 3) as in Skeleton, in units of the picture's longer side; NaN in frames without the person.
        After `motion.retargeting.place`, in units of the target's canvas.
    visibility: float32 (N, 33) in [0, 1]. seconds: float64 (N,), the time of each frame since the first one. shots: int
    (S,), the numbers of the frames with which the shots begin, 0 first. size: (width, height) of the picture in pixels.
    fps: average frames per second. found: bool (N,), whether the detector saw the person in that very frame. person:
    which of the people in the video this is. camera: float32 (N, 4), how the picture of each frame lies in the scene of
    its shot, see `camera_path`; None: the camera stood still.
    """

    joints: np.ndarray
    visibility: np.ndarray
    seconds: np.ndarray
    shots: np.ndarray
    size: tuple
    fps: float
    found: np.ndarray
    person: str = "largest"
    camera: np.ndarray = None

    def __post_init__(self):
        if self.camera is None:
            object.__setattr__(self, "camera", np.tile(np.float32(STANDING), (len(self.joints), 1)))

    def __len__(self):
        return len(self.joints)

    @property
    def present(self):
        """bool (N,): in which frames the person has a pose."""
        return ~np.isnan(self.joints[:, 0, 0])

    @property
    def shot_slices(self):
        """[slice] of the frames of each shot."""
        return [slice(start, stop) for start, stop in zip(self.shots, [*self.shots[1:], len(self)], strict=True)]

    @property
    def variable(self):
        """Whether the frames are not evenly spaced in time."""
        return not _is_even(self.seconds, self.fps)

    @property
    def bounds(self):
        """float (2,): where the picture ends, right and below, in the unit of the joints."""
        return np.array(self.size) / max(self.size)

    def skeleton(self, number):
        """The Skeleton in a frame, or None."""
        joints = self.joints[number]
        return None if np.isnan(joints[0, 0]) else Skeleton(joints, self.visibility[number])

    def with_poses(self, joints, visibility):
        """The same track with other poses (N, 33, 3) and (N, 33)."""
        return replace(self, joints=joints.astype(np.float32), visibility=visibility.astype(np.float32))

    def in_scene(self, reference=None):
        """The same track with the joints where they are in the scene, whose place and size are those of the picture of
        each shot's middle frame, or of frame number `reference` in its shot; `camera` is then how each picture lies in
        that scene.

        Where the camera only came along with the person, who has one size in all of its pictures, the joints stay as
        they are in the pictures: in the scene, the person would grow or shrink without an end."""
        camera = self.camera.copy()
        for shot in self.shot_slices:
            frame = reference if reference in range(shot.start, shot.stop) else (shot.start + shot.stop) // 2
            path = relative(self.camera[shot], self.camera[frame])
            camera[shot] = path if self._is_zoom(shot, path) else STANDING
        return replace(self, joints=apply(camera, self.joints), camera=camera)

    def in_pictures(self):
        """The track `in_scene` again with the joints where they are in the picture of each frame."""
        return replace(self, joints=apply(inverse(self.camera), self.joints))

    def _is_zoom(self, shot, path):
        """Whether the person's size in the pictures of a shot (a slice) changes as the camera's `path` tells."""
        present = self.present[shot]
        zoom = -np.log(np.hypot(path[present, 0], path[present, 1]))
        if len(zoom) < 2 or zoom.std() < EVEN_ZOOM:
            return True
        sizes = np.log(np.maximum(body_lengths(self.joints[shot][present]), 1e-6))
        return np.cov(sizes, zoom)[0, 1] > zoom.var(ddof=1) / 2

    def first(self, count):
        """The track of the first `count` frames (None: of all)."""
        return self if count is None or count >= len(self) else self._cut(0, count)

    def part(self, clip):
        """The track of the frames in the part that `clip` (a Clip) names. Raises UserError where there are none."""
        inside = np.flatnonzero(clip.holds(self.seconds))
        if not len(inside):
            raise clip.no_frames()
        return self._cut(inside[0], inside[-1] + 1)

    def _cut(self, start, stop):
        cut = {name: getattr(self, name)[start:stop] for name in ARRAYS if name not in ("shots", "seconds")}
        shots = self.shots[(self.shots > start) & (self.shots < stop)] - start
        return replace(self, **cut, shots=np.concatenate([[0], shots]), seconds=self.seconds[start:stop] -
                       self.seconds[start])

    def save(self, path):
        """Write the track to `path` (.npz)."""
        arrays = {name: getattr(self, name) for name in ARRAYS}
        about = json.dumps({"size": list(self.size), "fps": self.fps, "person": self.person})
        with atomic_write(Path(path)) as part, open(part, "wb") as file:
            np.savez(file, **arrays, about=about)

    @classmethod
    def load(cls, path):
        """The track that `save` has written. Raises UserError where the file holds none; runs no code in it."""
        path = Path(path)
        if not path.is_file():
            raise UserError(f"there is no motion file {str(path)!r}; check the path")
        try:
            stored = load_arrays(path)
            about = json.loads(str(stored["about"]))
            # Files of earlier versions have no camera.
            track = cls(*(stored[name] for name in ARRAYS[:4]), tuple(map(int, about["size"])), float(about["fps"]),
                        stored["found"], str(about["person"]), stored.get("camera"))
            track.check()
        except Exception:  # a damaged or foreign file can cause many kinds of errors
            raise UserError(f"{str(path)!r} is no motion file of this program; write one with --save-motion") from None
        return track

    def check(self):
        """Raise ValueError where the arrays can't be those of a track."""
        count = len(self.joints)
        arrays = [getattr(self, name) for name in ARRAYS]
        shapes = [(count, 33, 3), (count, 33), (count,), (len(self.shots),), (count,), (count, 4)]
        types_fit = all(np.issubdtype(array.dtype, kind) for array, kind in zip(arrays, KINDS, strict=True))
        if not (types_fit and count and [array.shape for array in arrays] == shapes
                and (np.abs(self.joints[~np.isnan(self.joints).all((1, 2))]) <= FARTHEST).all()
                and (np.abs(self.camera) <= FARTHEST).all() and (np.hypot(*self.camera[:, :2].T) >= 1 / FARTHEST).all()
                and ((self.visibility >= 0) & (self.visibility <= 1)).all()
                and ((self.seconds >= 0) & (self.seconds <= LONGEST)).all() and (np.diff(self.seconds) >= 0).all()
                and self.shots[0] == 0 and (np.diff(self.shots) > 0).all() and self.shots[-1] < count
                and len(self.size) == 2 and min(self.size) > 0 and max(self.size) <= LARGEST
                and 0.1 <= self.fps <= 1000):
            raise ValueError("these are not the arrays of a track")
