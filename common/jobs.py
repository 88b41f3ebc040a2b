"""A queue of command lines: the scripts run one after the other, each in its own process, and their output is read.

The page (DanceStudio.py) shows them. They belong to its server, not to a tab of the browser."""

import itertools
import os
import re
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT, Popen, TimeoutExpired

from common.paths import ROOT

# A line of tqdm as it looks where no terminal is: "what:  42%|####  | 21/50 [00:02<00:03, 9.8it/s, loss=1]"
PROGRESS = re.compile(r"(?:(?P<what>.*?): +)?(?:\d+%\|.*\| )?(?P<done>\d+)(?:/(?P<total>\d+) |\D* )"
                      r"\[[\d:]+(?:<(?P<left>[\d:]+|\?))?(?:, *[\d.?]+\w*/\w+)?(?:, (?P<values>.*))?\]")


class Job:
    """One command line and what is known of its process.

    number: its name in the list of jobs; section: of the page; title: for people; words: the command line without
    "python", strings and Paths inside the project, or a function that returns them when the job starts, and [] where
    there is nothing left to do by then; picture: a file that grows while it runs. state: "waiting", "running",
    "stopping", and at the end "done", "stopped" or "failed". progress: the named groups of
    PROGRESS in the last bar, {} before the first one. curves: {name of a loss: list of floats}. messages: the lines of
    warning and error; where the job failed without such an error, the last line that it printed."""

    _lock = threading.Lock()  # held while a job starts or is stopped, so that never both happen at once

    def __init__(self, number, section, title, words, picture=None):
        self.number, self.section, self.title, self._words, self.picture = number, section, title, words, picture
        self.state, self.progress, self.curves, self.messages = "waiting", {}, {}, []
        self.process, self._last_line = None, ""

    @property
    def words(self):
        """The command line without "python" as a list of strings. It may still change while the job waits."""
        words = self._words() if callable(self._words) else self._words
        return [word.relative_to(ROOT).as_posix() if isinstance(word, Path) else word for word in words]

    @property
    def is_over(self):
        return self.state in ("done", "stopped", "failed")

    def run(self):
        """Start the process, unless the job was stopped before, and follow it until it ends."""
        with self._lock:
            if self.state != "waiting":
                return
            self._words, self.state = self.words, "running"
            if not self._words:
                self.state = "done"
                return
            try:  # in a session of its own, because Ctrl-C in the server's terminal would reach it besides `stop`
                self.process = Popen([sys.executable, "-X", "utf8", *self._words], cwd=ROOT, stdin=DEVNULL, stdout=PIPE,
                                     stderr=STDOUT, encoding="utf-8", errors="replace", start_new_session=True,
                                     preexec_fn=_heed_ctrl_c if os.name == "posix" else None)
            except OSError as error:  # for example, there is not enough memory for another process
                self.state, self.messages = "failed", [f"error: {error.strerror}"]
                return
        for line in self.process.stdout:  # the carriage returns of tqdm end lines too
            self._read(line.strip())
        self.state = "done" if self.process.wait() == 0 else "stopped" if self.state == "stopping" else "failed"
        if self.state == "failed" and not any(line.startswith("error: ") for line in self.messages):
            self.messages.append(self._last_line)  # the last line of a traceback says what went wrong

    def _read(self, line):
        if match := PROGRESS.fullmatch(line):
            self.progress = match.groupdict()
            for name, value in re.findall(r"([^=,]+)=([^,\]]+)", match["values"] or ""):
                curve = self.curves.setdefault(name.strip(), [])
                if curve[-1:] != [float(value)]:  # tqdm repeats a value until there is a new one
                    curve.append(float(value))
        elif line:
            self._last_line = line
            if line.startswith(("warning: ", "error: ")):
                self.messages.append(line)

    def stop(self):
        """Do what Ctrl-C does: the script keeps what it has made. On Windows, which has no such signal, end it."""
        with self._lock:
            if self.state == "waiting":
                self.state = "stopped"
            elif self.state == "running":
                self.state = "stopping"
                self.process.send_signal(signal.SIGINT) if os.name == "posix" else self.process.terminate()


def _heed_ctrl_c():
    """Let a new process end by Ctrl-C. A process whose parent ignores that signal ignores it too, and the parent does
    where it was started by a script, with nohup, by cron or by a CI runner."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Jobs:
    """A list of jobs, of which one runs at a time, in the order in which they were added."""

    def __init__(self):
        self._all, self._thread, self._numbers = [], ThreadPoolExecutor(1), itertools.count(1)

    def add(self, section, title, words, picture=None):
        """Queue a new Job and return it; the arguments are those of Job."""
        self._all.append(job := Job(next(self._numbers), section, title, words, picture))
        self._thread.submit(job.run)
        return job

    def of(self, section):
        """The jobs of a section, those that are over included, as a list in their order."""
        return [job for job in self._all if job.section == section]

    def clear(self, section):
        """Forget the jobs of a section that are over."""
        self._all = [job for job in self._all if job.section != section or not job.is_over]

    def stop(self, number):
        """Stop the job of that number; nothing happens where there is none."""
        for job in self._all:
            if job.number == number:
                job.stop()

    def using(self, path):
        """The title of a job that is not over and whose command line names `path`, a Path in the project, or a file in
        that folder; None where there is none."""
        name = path.relative_to(ROOT).as_posix()
        return next((job.title for job in self._all if not job.is_over and
                     any(word == name or str(word).startswith(f"{name}/") for word in job.words)), None)

    def close(self):
        """Stop all jobs, the last one first, so that no waiting job starts, and kill the running one after 30 s."""
        for job in reversed(self._all):
            job.stop()
            try:
                if job.process:
                    job.process.wait(30)
            except TimeoutExpired:
                job.process.kill()
