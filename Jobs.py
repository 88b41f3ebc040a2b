"""The scripts as jobs: command lines that are run one after the other, each in a process of its own, and what they say.

    jobs = Jobs()
    job = jobs.add(1, "Looking at me.mp4", ["VideoSkeleton.py", ROOT / "me.mp4"])
    job.state, job.progress, job.said           # "running", {"done": "21", "total": "50", ...}, []
    jobs.close()                                # none of them outlives the server

DanceStudio.py, the page, shows them. They belong to its server and not to a tab of the browser.
"""

import os
import queue
import re
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path

from CommandLine import ROOT

# A line of tqdm, as it looks where nobody measures the terminal: "what:  42%|####  | 21/50 [00:02<00:03, 9.8it/s, a=1]"
PROGRESS = re.compile(r"(?:(?P<what>[^|]*?): +)?(?:\d+%\|.*\| )?(?P<done>\d+)(?:/(?P<total>\d+) |\D* )"
                      r"\[[\d:]+(?:<(?P<left>[\d:]+|\?))?(?:, *[\d.?]+\w*/\w+)?(?:, (?P<values>.*))?\]")


class Job:
    """One command line.

    step: what it is for, anything; words: the command line without python, strings and Paths, which are named from the
    project's folder; picture: a file that grows meanwhile.
    state: waiting, running, stopping, then done, stopped or failed. progress: see PROGRESS; {} before there is any.
    curves: {loss: its values}. said: its lines of warning and error, and, where it failed, whatever it said last.
    """

    _turn = threading.Lock()  # a job starts or is stopped, never both

    def __init__(self, step, title, words, picture=None):
        self.step, self.title, self.picture = step, title, picture
        self.words = [word.relative_to(ROOT).as_posix() if isinstance(word, Path) else word for word in words]
        self.state, self.progress, self.curves, self.said = "waiting", {}, {}, []
        self._process, self._last = None, ""

    @property
    def command(self):
        """To be typed in the project's folder."""
        return shlex.join(["python", *self.words])

    @property
    def over(self):
        return self.state in ("done", "stopped", "failed")

    def run(self):
        with self._turn:
            if self.state != "waiting":
                return
            # a session of its own: Ctrl-C in the server's terminal is told to it once, by `stop`
            try:
                self._process = subprocess.Popen(
                    [sys.executable, *self.words], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT, text=True, encoding="utf-8", errors="replace", start_new_session=True,
                    env=os.environ | {"PYTHONIOENCODING": "utf-8"})
            except OSError as error:  # no memory for it
                self.state, self.said = "failed", [f"error: {error.strerror}"]
                return
            self.state = "running"
        for line in self._process.stdout:  # tqdm's carriage returns end lines too
            self._hear(line.strip())
        status = self._process.wait()
        self.state = "done" if status == 0 else "stopped" if self.state == "stopping" else "failed"
        if self.state == "failed" and not any(line.startswith("error: ") for line in self.said):
            self.said.append(self._last)  # a traceback ends with what it is about

    def _hear(self, line):
        if told := PROGRESS.fullmatch(line):
            self.progress = told.groupdict()
            for name, value in re.findall(r"([^=,]+)=([^,\]]+)", told["values"] or ""):
                curve = self.curves.setdefault(name.strip(), [])
                if curve[-1:] != [float(value)]:  # it is repeated until there is a new one
                    curve.append(float(value))
        elif line:
            self._last = line
            if line.startswith(("warning: ", "error: ")):
                self.said.append(line)

    def stop(self):
        """As Ctrl-C does: what there is by then is kept. Windows can't send that to one process alone, and ends it."""
        with self._turn:
            if self.state == "waiting":
                self.state = "stopped"
            elif self.state == "running":
                self.state = "stopping"
                self._process.send_signal(signal.SIGINT) if os.name == "posix" else self._process.terminate()

    def end(self, patience=30):
        """Stop it; after so many seconds, kill it."""
        self.stop()
        try:
            if self._process:
                self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()


class Jobs:
    """A list of them, of which one runs at a time, in the order in which they came."""

    def __init__(self):
        self._all, self._queue = [], queue.SimpleQueue()
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self):
        while True:
            self._queue.get().run()

    def add(self, step, title, words, picture=None):
        job = Job(step, title, words, picture)
        self._all.append(job)
        self._queue.put(job)
        return job

    def current(self, step):
        """The jobs of a step that are not over, or else its last one."""
        own = [job for job in self._all if job.step == step]
        return [job for job in own if not job.over] or own[-1:]

    def stop(self, step):
        """Stop the first of those of a step, the one that runs if any does."""
        for job in self.current(step)[:1]:
            job.stop()

    def close(self):
        for job in reversed(self._all):  # those that wait before the one that runs
            job.end()
