"""What is read back from data/cache is not believed before it is checked: no code in it, no more than was written."""

import math
import zipfile

import cv2
import numpy as np

from CommandLine import UserError


class DamagedCache(UserError):
    """A cache that can't be what was written."""


def stored_arrays(path):
    """{name: array} of an .npz as numpy.savez writes it; ValueError where an array would be larger than the file."""
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            with archive.open(entry) as file:
                np.lib.format.read_magic(file)
                shape, _, kind = np.lib.format.read_array_header_1_0(file)
                declared = file.tell() + math.prod(shape) * kind.itemsize
            if not entry.file_size == entry.compress_size == declared:
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
