"""What the disk is trusted with: one run at a time writes a thing, and what is read back is checked before it is
believed: no code in it, no more than was written."""

import contextlib
import hashlib
import math
import os
import zipfile
from pathlib import Path

import cv2
import numpy as np
from filelock import FileLock, Timeout

from CommandLine import ROOT, UserError, warn

LOCKS = ROOT / "data" / "locks"  # files without content; deleting them while nothing runs does no harm


@contextlib.contextmanager
def alone(path, doing, wait=False):
    """While the block runs, no other run gets into one for the same `path`. The system ends it with the process,
    however that ends, so nothing stays locked.

    doing: what is done to it, for the message. wait: until the other is done, or raise UserError. Yields whether it
    waited. Where there are no file locks (a read-only project folder, some network disks) it goes on without. Not to be
    entered twice for one path by one thread: it would wait for itself.
    """
    path, waited = Path(path).resolve(), False
    lock = FileLock(LOCKS / f"{hashlib.sha256(str(path).encode()).hexdigest()[:24]}.lock", thread_local=False)
    try:
        LOCKS.mkdir(parents=True, exist_ok=True)
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
def whole(path):
    """A hidden path beside `path` to write to, which takes its place when the block ends and is removed when that
    fails. UserError where the disk does not take it."""
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        yield part
        os.replace(part, path)
    except OSError as error:
        raise UserError(f"can't write {path}: {error.strerror or error}; make room, or name another file") from None
    finally:
        with contextlib.suppress(OSError):  # a read-only disk refuses even to remove nothing
            part.unlink(missing_ok=True)


class DamagedCache(UserError):
    """A cache that can't be what was written."""


def check_stored(path):
    """ValueError unless all that a zip file holds lies in it as it is: else a small one could unpack to gigabytes."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or \
            sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise ValueError("parts of it are packed")


def stored_arrays(path):
    """{name: array} of an .npz as numpy.savez writes it; ValueError where an array would be larger than the file."""
    check_stored(path)
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            with archive.open(entry) as file:
                np.lib.format.read_magic(file)
                shape, _, kind = np.lib.format.read_array_header_1_0(file)
                declared = file.tell() + math.prod(shape) * kind.itemsize
            if entry.file_size != declared:
                raise ValueError(f"{entry.filename} is not as large as it says")
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)


class Pictures:
    """Encoded pictures end to end in one file, read one at a time; spans (N, 2): where each begins and ends."""

    def __init__(self, path, spans):
        self._bytes, self.spans = np.memmap(path, np.uint8, "r"), spans
        if spans.ndim != 2 or len(spans) == 0 or spans.min() < 0 or spans.max() > len(self._bytes):
            raise ValueError("pictures outside their file")

    def read(self, index, flag, size):
        """Picture `index`: see `decode`."""
        return decode(self._bytes[slice(*self.spans[index])], flag, size)


def decode(encoded, flag, size):
    """The uint8 image of `size` (width, height) in encoded bytes, as cv2.imdecode gives it with `flag`."""
    try:
        image = cv2.imdecode(encoded, flag) if len(encoded) else None
    except cv2.error:  # a size that no picture has
        image = None
    if image is None or image.shape[1::-1] != tuple(size):
        raise DamagedCache("a picture in data/cache is damaged; delete that folder, it is made anew")
    return image
