"""What a frame means beyond its pixels: from a decoded frame to an upright BGR picture with square pixels.

A file says besides its pixels how they are to be shown: turned or mirrored (display matrix), stretched (pixel aspect
ratio), woven together from two moments (interlaced), or with brighter and purer colours than the usual ones (HDR). The
last two are done by filters of FFmpeg, which are made only for files that need them.
"""

import tempfile
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np
from av.filter import Graph, filters_available
from av.video.reformatter import ColorTrc

from common.command_line import warn

WHITE = 203.0  # candela per square metre of white paper in HDR (ITU-R BT.2408); SDR has nothing brighter
PEAK = 1000.0  # candela per square metre of the brightest light that keeps its shape; what is brighter becomes white
KNEE = 0.7  # share of white from which light is compressed, so that what is brighter than white still has a shape
TABLE = 33  # entries on each side of the colour table; a finer one changes no level
BT2020_TO_BT709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])
BT2020_LUMINANCE = np.array([0.2627, 0.6780, 0.0593])
HDR = {int(ColorTrc.ARIB_STD_B67): "HLG", int(ColorTrc.SMPTE2084): "PQ"}


class _Kind(NamedTuple):
    """What decides how a frame is filtered; frames of one kind share one filter graph."""

    width: int
    height: int
    pixels: str
    interlaced: bool
    hdr: str | None
    angle: float  # by which the frame is turned; a change tells that its display matrix has changed

    @property
    def is_plain(self):
        return not self.interlaced and self.hdr is None


class Upright:
    """Turns the decoded frames of a video stream into pictures: uint8 H x W x 3 BGR, upright, all of one size.

    A picture of another size than the first one, as in a recording of several programmes, is fitted into that size with
    black bars. Where this FFmpeg lacks a filter, the picture is shown without it, with one line of warning.
    """

    def __init__(self, path, stream):
        self._path, self._context = path, stream.codec_context
        self._shape, self._codec_shape = Fraction(stream.sample_aspect_ratio or 1), None
        self._kind, self._graph, self._turn, self._size = None, None, [], None

    def pictures(self, frame):
        """Yield (seconds or None, picture) of the frames that are ready now that `frame` is known: mostly this one."""
        kind = _Kind(frame.width, frame.height, frame.format.name, frame.interlaced_frame,
                     HDR.get(int(frame.color_trc)), frame.rotation)
        if kind != self._kind:
            yield from self.rest()
            self._kind, self._graph = kind, None if kind.is_plain else self._new_graph(kind, frame)
            self._turn = _turn(frame)
        if self._graph is None:
            yield frame.time, self._picture(frame)
        else:
            self._graph.push(frame)
            yield from self._filtered()

    def rest(self):
        """Yield (seconds or None, picture) of the frames that a filter still holds."""
        if self._graph is not None:
            self._graph.push(None)
            yield from self._filtered()
            self.forget()

    def forget(self):
        """Drop the frames that a filter still holds: the next frame does not follow them."""
        self._kind = self._graph = None

    def _filtered(self):
        while True:
            try:
                frame = self._graph.pull()
            except (av.BlockingIOError, av.EOFError):
                return
            yield frame.time, self._picture(frame)

    def _picture(self, frame):
        # The container's word on the shape of a pixel counts before the codec's, unless that changes on the way, which
        # it does at a key frame. The codec may be some frames ahead.
        if frame.key_frame and (frame.width, frame.height) == (self._context.width, self._context.height):
            now = Fraction(self._context.sample_aspect_ratio or 1)
            if self._codec_shape not in (None, now):
                self._shape = now
            self._codec_shape = now
        if self._shape == 1:
            image = frame.to_ndarray(format="bgr24")
        else:
            width = max(1, round(frame.width * self._shape))
            image = frame.to_ndarray(format="bgr24", width=width, height=frame.height, interpolation="BICUBIC")
        for change in self._turn:
            image = change(image)
        self._size = self._size or image.shape[1::-1]
        return image if image.shape[1::-1] == self._size else fit(image, self._size)

    def _new_graph(self, kind, frame):
        """The filter graph for frames of this kind, or None where no filter is left."""
        filters = []
        if kind.interlaced and self._has("bwdif", "is interlaced, and moving edges show combs"):
            filters.append(("bwdif", {"mode": "send_frame", "deint": "interlaced"}))
        if kind.hdr and self._has("lut3d", f"is HDR ({kind.hdr}), and its colours look pale"):
            filters += [("scale", {}), ("format", {"pix_fmts": "gbrp10le"}), ("lut3d", {"file": None})]
        if not filters:
            return None
        graph = Graph()
        nodes = [graph.add("buffer", video_size=f"{kind.width}x{kind.height}", pix_fmt=kind.pixels,
                           time_base=str(frame.time_base), colorspace=str(int(frame.colorspace)),
                           range=str(int(frame.color_range)))]
        with tempfile.TemporaryDirectory() as folder:  # the filter reads the table while it is made, and never again
            for name, options in filters:
                if name == "lut3d":
                    options = {"file": str(_write_table(kind.hdr, Path(folder) / "hdr.cube"))}
                nodes.append(graph.add(name, **options))
        nodes.append(graph.add("buffersink"))
        graph.link_nodes(*nodes).configure()
        return graph

    def _has(self, name, consequence):
        if name not in filters_available:
            warn(f"{str(self._path)!r} {consequence}: this FFmpeg has no filter {name}; convert the video first")
        return name in filters_available


def fit(image, size):
    """The image (uint8 H x W x 3) as large as it fits into `size` (width, height), undistorted, with black bars."""
    scale = min(size[0] / image.shape[1], size[1] / image.shape[0])
    width, height = (max(1, round(length * scale)) for length in image.shape[1::-1])
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return cv2.copyMakeBorder(small, top, size[1] - height - top, left, size[0] - width - left, cv2.BORDER_CONSTANT)


def _turn(frame):
    """[function of an image] that, one after the other, show a frame as its display matrix says; [] for upright ones.

    The matrix (ISO 14496-12, 8.3.2) says where a point goes: to (a x + c y, b x + d y). It is rounded to quarter turns.
    This is not done for every frame: after a look at its side data, PyAV keeps a frame in memory for long, which makes
    reading a fifth slower.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return []
    (a, b, _), (c, d, _), _ = np.frombuffer(bytes(data), np.int32).reshape(3, 3).tolist()
    changes = []
    if abs(b) + abs(c) > abs(a) + abs(d):
        changes.append(cv2.transpose)
        a, d = c, b
    if a < 0 or d < 0:
        code = -1 if a < 0 and d < 0 else 1 if a < 0 else 0  # of cv2.flip: both, left and right, top and bottom
        changes.append(lambda image: cv2.flip(image, code))
    return changes


def _write_table(hdr, path):
    """Write the table of colours (HDR signal -> SDR signal) at `path`, in the .cube format of Adobe. Returns `path`.

    Light is computed from the signal (ITU-R BT.2100), white is set to 1, BT.2020 becomes BT.709, and what is too bright
    is compressed alike in red, green and blue, so that a colour keeps its hue.
    """
    steps = np.linspace(0, 1, TABLE)
    blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")  # in a .cube, red changes fastest
    light = (_hlg_light if hdr == "HLG" else _pq_light)(np.stack([red, green, blue], 3)) / WHITE @ BT2020_TO_BT709.T
    brightest = np.maximum(light.max(3, keepdims=True), 1e-6)
    over, most = (np.maximum(value - KNEE, 0) / (1 - KNEE) for value in (brightest, PEAK / WHITE))
    # This curve is by Reinhard et al. (Photographic Tone Reproduction, SIGGRAPH 2002): `most` becomes white.
    compressed = KNEE + (1 - KNEE) * over * (1 + over / most ** 2) / (1 + over)
    light = np.where(brightest > KNEE, light * compressed / brightest, light)
    signal = np.clip(light, 0, 1) ** (1 / 2.4)  # the curve of an SDR screen, ITU-R BT.1886
    with open(path, "w") as file:
        file.write(f"LUT_3D_SIZE {TABLE}\n")
        np.savetxt(file, signal.reshape(-1, 3), fmt="%.6f")
    return path


def _hlg_light(signal):
    """Candela per square metre of an HLG signal (..., 3) in [0, 1], on a screen of 1000."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal ** 2 / 3, (np.exp((signal - c) / a) + b) / 12)
    return 1000 * scene * np.maximum(scene @ BT2020_LUMINANCE, 1e-9)[..., None] ** 0.2


def _pq_light(signal):
    """Candela per square metre of a PQ signal (..., 3) in [0, 1]."""
    root = signal ** (32 / 2523)
    return 10000 * (np.maximum(root - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * root)) ** (16384 / 2610)
