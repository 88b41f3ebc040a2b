"""Safe files: written by one run at a time, whole or not at all, and checked before what is in them is believed."""

import contextlib
import hashlib
import math
import os
import zipfile
from pathlib import Path

import cv2
import numpy as np
from filelock import FileLock, Timeout

from common import paths
from common.command_line import UserError, warn

LONGEST_NAME = 255  # bytes in the name of a file, on most disks


@contextlib.contextmanager
def file_lock(path, doing, wait=False):
    """Hold a lock on `path` while the block runs: no other run gets into a block for the same path.

    doing: what this run does to the path, for the message ("writing"). wait: wait until the other run has ended,
    instead of raising UserError. Yields whether it had to wait. The operating system frees the lock when the process
    ends, however it ends. Where file locks are not possible (a read-only project folder, some network disks) the block
    runs without one. One thread must not take the lock of one path twice, because it would wait for itself.
    """
    path, waited = Path(path).resolve(), False
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:24]
    lock = FileLock(paths.LOCKS / f"{name}.lock", thread_local=False)
    try:
        paths.LOCKS.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            raise UserError(f"another run is {doing} {path}; let it end, or name another file") from None
        warn(f"another run is {doing} {path}; waiting for it")
        lock.acquire()
        waited = True
    except (OSError, NotImplementedError):
        pass
    try:
        yield waited
    finally:
        lock.release()


@contextlib.contextmanager
def atomic_write(path):
    """Yield a hidden path beside `path` (a Path) to write to. When the block ends, that file takes the place of `path`;
    after an error it is removed. Raises UserError where the disk does not take it."""
    part = hidden_beside(path, f".part{path.suffix}")
    try:
        yield part
        os.replace(part, path)
    except OSError as error:
        raise UserError(f"can't write {path}: {error.strerror or error}; make room, or name another file") from None
    finally:
        with contextlib.suppress(OSError):  # on a read-only disk even removing a file that is not there is an error
            part.unlink(missing_ok=True)


def write_png(path, image):
    """Write an image (uint8 H x W x 3 BGR) to `path` (a Path) as PNG, whole or not at all."""
    with atomic_write(path) as part:
        part.write_bytes(cv2.imencode(".png", image)[1])


def sha256(path):
    """The SHA-256 of a file's content, as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def shorten(text, most_bytes):
    """The beginning of `text` that takes at most so many bytes in the name of a file: a Japanese letter takes three."""
    while len(os.fsencode(text)) > most_bytes:
        text = text[:-1]
    return text


def hidden_beside(path, ending):
    """A hidden Path beside `path` whose name is that of `path` and this ending. The end of a name that is too long for
    that is replaced by a hash, so that two of them stay apart."""
    name, room = path.name, LONGEST_NAME - len(os.fsencode(f".{ending}"))
    if len(os.fsencode(name)) > room:
        digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
        name = shorten(name, room - len(digest)) + digest
    return path.with_name(f".{name}{ending}")


class DamagedCache(UserError):
    """A file of the cache does not hold what the program writes there."""


def require_uncompressed(path):
    """Raise ValueError where a zip file holds compressed entries: a small file could then unpack to gigabytes."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or \
            sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise ValueError("some of its entries are compressed")


def load_arrays(path):
    """{name: array} of an .npz file as numpy.savez writes it. No code in it is run, and ValueError is raised before
    memory is taken for an array that would be larger than the file."""
    require_uncompressed(path)
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            with archive.open(entry) as file:
                np.lib.format.read_magic(file)
                shape, _, kind = np.lib.format.read_array_header_1_0(file)
                if entry.file_size != file.tell() + math.prod(shape) * kind.itemsize:
                    raise ValueError(f"{entry.filename} is not as large as its header says")
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)


class EncodedImages:
    """Encoded images end to end in one file, of which one is decoded at a time.

    spans: int (N, 2), the first byte of each image and the byte after its last one.
    """

    def __init__(self, path, spans):
        self._bytes, self.spans = np.memmap(path, np.uint8, "r"), spans
        if spans.ndim != 2 or len(spans) == 0 or spans.min() < 0 or spans.max() > len(self._bytes):
            raise ValueError("images outside their file")

    def read(self, index, flag, size):
        """Image number `index`; the other arguments are those of `decode_image`."""
        return decode_image(self._bytes[slice(*self.spans[index])], flag, size)


def decode_image(encoded, flag, size):
    """Decode an image that must have `size` (width, height).

    encoded: its bytes as a uint8 array. flag: that of cv2.imdecode. Raises DamagedCache where it is not such an image.
    """
    try:
        image = cv2.imdecode(encoded, flag) if len(encoded) else None
    except cv2.error:  # the header declares a size that OpenCV refuses
        image = None
    if image is None or image.shape[1::-1] != tuple(size):
        raise DamagedCache("a picture in data/cache is damaged; delete that folder, it is made anew")
    return image
