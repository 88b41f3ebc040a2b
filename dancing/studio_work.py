"""What all tabs of the page share: the chosen videos, and the work that its buttons queue. Nothing here knows Gradio.

The page computes nothing itself. Each piece of work is the command line of a script, which a Job (common/jobs.py)
runs."""

import hashlib
from argparse import ArgumentTypeError
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from common.command_line import UserError
from common.files import shorten
from common.jobs import Jobs
from common.paths import SAMPLE_SOURCE, SAMPLE_TARGET
from dancing.generators import GENERATORS
from dancing.studio_files import LIKE, STUDIO, UPLOADS, dance_files, delete, everything, new_dance
from dancing.studio_videos import with_part
from motion.extraction import content_sha256
from video.clip import Clip, person
from video.film import part_of

LOOKING, TRAINING, DANCING = 1, 2, 3  # the sections of the jobs
LONGEST_STEM = 70  # bytes that the name of a video takes in the names of its dances and weights
MINUTES = 5  # the length of a training that the page proposes
SAMPLES = {"target": SAMPLE_TARGET, "source": SAMPLE_SOURCE}
FASTER = 400  # pixels of the canvas for those who want a dance sooner
TARGET = "target"  # the key of the target among the chosen videos; those of the sources are "source-1" and so on


class Studio:
    """videos: {key: Clip} of the chosen target and sources, in the order in which they came; jobs: the queue. Methods
    that a person's wish ends in raise UserError, with a sentence for that person, where it can't be fulfilled."""

    def __init__(self):
        self.videos, self.jobs, self._count, self._last_dance = {}, Jobs(), 0, 0

    @property
    def target(self):
        """The target's Clip, or None."""
        return self.videos.get(TARGET)

    @property
    def sources(self):
        """{key: Clip} of the sources."""
        return {key: clip for key, clip in list(self.videos.items()) if key != TARGET}

    def obey(self, message):
        """Do what a browser's message says: a dict with the name of a wish ("do") and what belongs to it."""
        wishes = {"upload": self._upload, "sample": self._sample, "remove": self.remove, "trim": self.trim,
                  "follow": self.follow, "stop": self.jobs.stop, "delete": self.delete, "clear": self.clear}
        try:
            words = dict(message)
            wish = wishes[words.pop("do")]
            return wish(**words)
        except (AttributeError, KeyError, TypeError, ValueError):
            raise UserError("This page is out of date. Load it again.") from None

    def _upload(self, role, paths):
        """Take uploaded files, by their paths. Only what lies in the folder of uploads is taken."""
        files = [Path(path).resolve() for path in paths]
        if not all(file.is_file() and file.is_relative_to(UPLOADS.resolve()) for file in files):
            raise UserError("That upload is gone. Upload the video once more.")
        for file in files:
            self.choose(role, Clip(UPLOADS / file.relative_to(UPLOADS.resolve())))

    def _sample(self, role):
        self.choose(role, Clip(SAMPLES[role]))

    def choose(self, role, clip):
        """Take a Clip as the target, whose poses are found at once, or as one more source."""
        if role == TARGET:
            self._look(clip)
        elif clip.path not in [other.path for other in self.sources.values()]:
            self._count += 1
            self.videos[f"source-{self._count}"] = clip

    def _look(self, clip):
        self._stop_looking()
        self.videos[TARGET] = clip
        self.jobs.add(LOOKING, f"Looking at {clip.path.name}", ["VideoSkeleton.py", clip.path, *clip.words()])

    def _stop_looking(self):
        """What is found about an earlier target is not wanted any more."""
        for job in self.jobs.of(LOOKING):
            self.jobs.stop(job.number)
        self.jobs.clear(LOOKING)

    def remove(self, key):
        """Choose a video no longer. Its file stays."""
        if key == TARGET:
            self._stop_looking()
        self.videos.pop(key, None)

    def _change(self, key, clip):
        if clip != self.videos[key]:
            self.videos[key] = clip
            if key == TARGET:
                self._look(clip)

    def trim(self, key, begin, end):
        """Take another part of a chosen video; begin, end: texts such as "1:05", or "" for none."""
        part = with_part(self.videos[key], begin, end)
        self._change(key, replace(self.videos[key], begin=part.begin, end=part.end))

    def follow(self, key, point):
        """Follow another person of a chosen video; see Clip.person."""
        try:
            self._change(key, replace(self.videos[key], person=person(point)))
        except ArgumentTypeError as error:
            raise UserError(str(error)) from None

    def train(self, gen_type, minutes):
        """Queue a training on the target, which goes on where an earlier one has stopped by the time it starts, and
        after it the picture of what it has brought."""
        entry, target = GENERATORS[gen_type], self.target
        if not target:
            raise UserError("Choose a target in step 1 first.")
        if not entry.trainer:
            raise UserError(f"“{entry.title}” learns nothing. Choose another way of drawing to train.")
        path = checkpoint_path(target, gen_type)
        words = [*entry.trainer, "--target", target.path, *target.words("target-"), "--checkpoint", path,
                 "--minutes", f"{minutes or MINUTES:g}", "--epochs", "1000000"]  # so many that the minutes end it
        comparing = ["-m", "dancing.before_after", "--gen-type", str(gen_type), "--target", target.path,
                     *target.words("target-"), "--checkpoint", path, "--output", before_after_path(path)]
        last, samples = path.with_name(f"{path.stem}-last.pth"), path.with_name(f"{path.stem}-samples.png")
        self.jobs.clear(TRAINING)
        self.jobs.add(TRAINING, f"Training “{entry.title}”", lambda: words + ["--resume"] * last.exists(), samples)
        self.jobs.add(TRAINING, "Comparing before and after", lambda: comparing if path.exists() else [])

    def dance(self, gen_type, agreed, faster=False):
        """Queue the dances of the target like each source, with the weights that there are by the time they start."""
        entry, target, sources = GENERATORS[gen_type], self.target, self.sources
        if not target or not sources:
            raise UserError("Choose a target in step 1 and a source in step 2 first.")
        if not agreed:
            raise UserError("Confirm that the people in the videos have agreed.")
        path = checkpoint_path(target, gen_type)
        if not entry.works_untrained and not path.exists() and not self.jobs.using(path):
            raise UserError(f"“{entry.title}” has to be trained on this target first: press Train.")
        self.jobs.clear(DANCING)
        for source in sources.values():
            names = (shorten(clip.path.stem, LONGEST_STEM) for clip in (target, source))
            film, self._last_dance = new_dance(f"{entry.name}-{LIKE.join(names)}", self._last_dance)
            _, result, motion = dance_files(film)
            words = ["DanceDemo.py", "--no-window", "--gen-type", str(gen_type), "--source", source.path,
                     *source.words(), "--target", target.path, *target.words("target-"), "--output", film, "--result",
                     result, "--motion", motion, *["--canvas", str(FASTER)] * (faster and gen_type == 5)]
            self.jobs.add(DANCING, f"{target.path.stem} dances like {source.path.stem}", lambda words=words: words + [
                "--checkpoint", path] * (path.exists() or not entry.works_untrained), part_of(film))

    def delete(self, key):
        """Delete something that the page keeps; key: of a Kept (studio_files.py). Others may have deleted it before."""
        for kept in everything():
            if kept.key == key:
                self._delete(kept)

    def clear(self):
        """Delete all that the page keeps. What a job needs is kept, and named."""
        needed = []
        for kept in everything():
            try:
                self._delete(kept)
            except UserError as error:
                needed.append(str(error))
        if needed:
            raise UserError(" ".join(needed))

    def _delete(self, kept):
        for path in kept.paths:
            if title := self.jobs.using(path):
                raise UserError(f"“{kept.name}” is kept, because “{title}” needs it. Stop that first.")
        for key, clip in list(self.videos.items()):
            if clip.path == kept.path:
                self.remove(key)
        delete(kept)


@lru_cache(64)
def checkpoint_path(clip, gen_type):
    """Where the page keeps the weights of a generator for the target that a Clip shows."""
    key = content_sha256(clip.path)
    if clip.words():  # another part or person is another target
        key = hashlib.sha256(" ".join([key, *clip.words()]).encode()).hexdigest()
    return STUDIO / f"{shorten(clip.path.stem, LONGEST_STEM)}-{key[:16]}" / f"{GENERATORS[gen_type].name}.pth"


def before_after_path(checkpoint):
    """Where the picture of what a training has brought is, beside its weights."""
    return checkpoint.with_name(f"{checkpoint.stem}-before-after.png")
