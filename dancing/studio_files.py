"""What the page keeps on the disk: uploaded videos, dances and trainings, with their sizes, and how they are deleted.

Nothing is deleted but what is listed here, and the lists hold only files that were uploaded to the page or made by it.
A browser names an entry by its key, which is looked up in a new list. So a path that somebody invents is nothing."""

import contextlib
import glob
import shutil
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common import paths
from common.files import require_uncompressed, shorten
from common.paths import DANCE
from motion.extraction import content_sha256

STUDIO = DANCE / "studio"  # each folder in it, besides the next three, has the trainings on one target
UPLOADS, DANCES, PREVIEWS = (STUDIO / name for name in ("uploads", "dances", "previews"))
STAMP = "%Y%m%d-%H%M%S"  # the end of the name of a dance: when it was asked for
LIKE = "-like-"  # in the name of a dance, between its target and its source


@dataclass(frozen=True)
class Kept:
    """Something that can be deleted. kind: "upload", "dance" or "training"; path: of the file or the folder that names
    it; name: for people; paths: the files and folders that are deleted with it, `path` first."""

    kind: str
    path: Path
    name: str
    paths: tuple

    @property
    def key(self):
        """Its name in what a browser says."""
        return self.path.relative_to(STUDIO).as_posix()

    @property
    def size(self):
        """In bytes."""
        return sum(_size(path) for path in self.paths)

    @property
    def made(self):
        """When it was made, in seconds since 1970."""
        with contextlib.suppress(OSError):
            return self.path.stat().st_mtime
        return 0.0


def _size(path):
    with contextlib.suppress(OSError):  # it was deleted meanwhile
        return sum(map(_size, path.iterdir())) if path.is_dir() else path.stat().st_size
    return 0


def dance_files(film):
    """The files of a dance: the film of source and result side by side, the film of the result alone, the motion."""
    return film, film.with_name(f"{film.stem}-result.mp4"), film.with_suffix(".bvh")


def dance_names(film):
    """(generator, target, source): what the name of a dance says."""
    generator, _, rest = film.stem[:-len("-20260101-120000")].partition("-")
    target, _, source = rest.partition(LIKE)
    return generator, target, source


def dances():
    """The dances that are complete, as a list of Kept, the newest first."""
    found = []
    for film in DANCES.glob("*.mp4"):
        files = dance_files(film)
        if files[1].exists():
            _, target, source = dance_names(film)
            moving = PREVIEWS / files[1].name  # the small film of its thumbnail, see studio_videos.moving_path
            found.append(Kept("dance", film, f"{target} like {source}", (*files, moving)))
    return sorted(found, key=lambda kept: kept.made, reverse=True)


def uploads():
    """The uploaded videos, as a list of Kept, the newest first."""
    found = [Kept("upload", path, path.name, (path,)) for path in UPLOADS.glob("*/*") if path.is_file()]
    return sorted(found, key=lambda kept: kept.made, reverse=True)


def trainings():
    """The folders with what was learned about one target each, as a list of Kept, the newest first."""
    found = [Kept("training", path, f"training on {path.name[:-17]}", (path,)) for path in STUDIO.glob("*")
             if path.is_dir() and path not in (UPLOADS, DANCES, PREVIEWS)]
    return sorted(found, key=lambda kept: kept.made, reverse=True)


def everything():
    """All that is kept, as a list of Kept."""
    return [*uploads(), *trainings(), *dances()]


def delete(kept):
    """Delete a Kept. With an uploaded video go the copy that browsers play, and the poses and pictures found in it."""
    found = _found_in(kept.path) if kept.kind == "upload" else []
    for path in [*kept.paths, *found]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    if kept.kind == "upload":
        with contextlib.suppress(OSError):  # another upload is in that folder, or it is gone already
            kept.path.parent.rmdir()


def _found_in(upload):
    """What was made from an uploaded video: previews, and folders of the cache that say that they are of its content.
    Their names alone would not do, because many phones give each of their videos one of few names."""
    content = content_sha256(upload)
    found = list(PREVIEWS.glob(f"*-{content[:16]}.mp4"))
    for folder in paths.CACHE.glob(f"{glob.escape(shorten(upload.stem, 40))}-*"):
        with contextlib.suppress(OSError, ValueError, KeyError, zipfile.BadZipFile):  # it is damaged, or no such folder
            require_uncompressed(folder / "poses.npz")
            with np.load(folder / "poses.npz", allow_pickle=False) as stored:
                if content in str(stored["about"]):
                    found.append(folder)
    return found


def new_dance(name, earlier):
    """(path of the film, time in whole seconds) of a new dance. earlier: the time of the one before it, so that two
    dances that are asked for at once have different names."""
    when = max(int(time.time()), earlier + 1)
    return DANCES / f"{name}-{time.strftime(STAMP, time.localtime(when))}.mp4", when


def size_text(size):
    """A number of bytes for people."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
