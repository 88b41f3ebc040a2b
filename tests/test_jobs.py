"""common/jobs.py: jobs run one at a time and in order, their output is understood, and none outlives the server."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.jobs import PROGRESS, Jobs
from common.paths import ROOT

FOREVER = ["-c", "import time\nwhile True:\n    print('.', flush=True)\n    time.sleep(0.05)"]


@pytest.fixture
def jobs():
    jobs = Jobs()
    yield jobs
    jobs.close()


def wait_for(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert condition()


def test_jobs_run_one_after_the_other_in_order(jobs, tmp_path):
    add = f"import sys, time; time.sleep(0.2); open({str(tmp_path / 'x')!r}, 'a').write(sys.argv[1])"
    several = [jobs.add(1, "", ["-c", add, letter]) for letter in "abc"]
    wait_for(lambda: several[0].state == "running")
    assert [job.state for job in several[1:]] == ["waiting", "waiting"] and jobs.of(1) == several
    jobs.stop(several[1].number)
    wait_for(lambda: several[2].is_over)
    assert [job.state for job in several] == ["done", "stopped", "done"] and (tmp_path / "x").read_text() == "ac"
    waiting = jobs.add(2, "", FOREVER)
    jobs.clear(1)
    jobs.clear(2)
    jobs.stop(several[0].number)  # of a job that is forgotten: nothing happens
    assert jobs.of(1) == [] and jobs.of(2) == [waiting] and not waiting.is_over


def test_which_job_uses_a_file(jobs):
    folder = ROOT / "data" / "Dance"
    job = jobs.add(1, "a dance", [*FOREVER, folder / "uploads" / "a.mp4"])
    assert jobs.using(folder / "uploads" / "a.mp4") == jobs.using(folder / "uploads") == "a dance"
    assert jobs.using(folder / "uploads" / "a") is jobs.using(folder / "other") is None
    job.stop()
    wait_for(lambda: job.is_over)
    assert jobs.using(folder / "uploads") is None


def test_a_job_with_nothing_left_to_do(jobs):
    job = jobs.add(1, "", list)
    wait_for(lambda: job.is_over)
    assert job.state == "done" and job.process is None and job.messages == []


def test_stop_is_ctrl_c_once(jobs):
    script = "import time; from common.command_line import run, warn\n" \
             "def main():\n    warn('on')\n    try: time.sleep(60)\n    finally: time.sleep(0.3)\n" \
             "run(main)"
    job = jobs.add(1, "", ["-c", script])
    wait_for(lambda: job.messages)
    job.stop()
    assert job.state == "stopping"
    job.stop()  # a second time, which must not interrupt what the script saves at its end
    wait_for(lambda: job.is_over)
    assert job.state == "stopped" and job.messages == ["warning: on"] and job.process.returncode == 130


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signal")
def test_stop_works_where_this_process_ignores_ctrl_c(jobs):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        job = jobs.add(1, "", FOREVER)
        wait_for(lambda: job.process)
        job.stop()
        wait_for(lambda: job.is_over, 10)
    finally:
        signal.signal(signal.SIGINT, before)
    assert job.state == "stopped" and job.process.returncode != 0


def test_progress_as_tqdm_writes_it(jobs):
    lines = {"frames:  42%|####2     | 21/50 [00:02<00:03,  9.81frame/s]": ("frames", "21", "50", "00:03", None),
             "W: 100%|##########| 50/50 [00:05<00:00,  1.20s/step, mse=0.1, held-out psnr=20.5]":
                 ("W", "50", "50", "00:00", "mse=0.1, held-out psnr=20.5"),
             "poses of my: a|b.mp4:  4%|4   | 2/50 [00:01<00:24,  2.0frame/s]":
                 ("poses of my: a|b.mp4", "2", "50", "00:24", None),
             "poses: 12frame [00:01, 9.93frame/s]": ("poses", "12", None, None, None),
             "  0%|          | 0/7 [00:00<?, ?it/s]": (None, "0", "7", "?", None)}
    for line, groups in lines.items():
        assert tuple(PROGRESS.fullmatch(line.strip()).groupdict().values()) == groups, line
    bar = "from tqdm import tqdm\nbar = tqdm(range(3), desc='a: b', unit='step')\n" \
          "for i in bar:\n    bar.set_postfix({'l1': 1 / (1 + i), 'held-out psnr': 20 + i // 2})"
    job = jobs.add(1, "", ["-c", bar])
    wait_for(lambda: job.is_over)
    assert (job.progress["what"], job.progress["done"], job.progress["total"]) == ("a: b", "3", "3")
    assert job.curves["l1"][-1] == 0.333 and job.curves["held-out psnr"] == [20, 21] and job.messages == []


def test_the_words_are_decided_when_the_job_starts(jobs, tmp_path):
    """A job that waits for another one uses the file that the other one makes."""
    weights = tmp_path / "weights"
    first = jobs.add(1, "", ["-c", f"import time; time.sleep(0.3); open({str(weights)!r}, 'w')"])
    second = jobs.add(1, "", lambda: ["-c", "import sys; assert len(sys.argv) == 2", *["found"] * weights.exists()])
    assert "found" not in second.words and second.state == "waiting"
    wait_for(lambda: second.is_over)
    weights.unlink()
    assert first.state == second.state == "done" and second.words[-1] == "found"


def test_what_a_failed_job_says(jobs):
    error = jobs.add(1, "", ["VideoSkeleton.py", ROOT / "none.mp4"])
    bug = jobs.add(1, "", ["-c", "1 / 0"])
    wait_for(lambda: bug.is_over)
    assert error.state == bug.state == "failed" and error.words == ["VideoSkeleton.py", "none.mp4"]
    assert error.messages == ["error: there is no video 'none.mp4'; check the path"]
    assert bug.messages == ["ZeroDivisionError: division by zero"]


def is_alive(pid):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()  # Z: it has ended
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
@pytest.mark.parametrize("way", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_job_outlives_the_server(way):
    """The server is started with SIGINT ignored, as a shell script does it with `python DanceStudio.py &`."""
    code = f"import signal, time; from common.command_line import run; from common.jobs import Jobs\n" \
           f"def main():\n" \
           f"    signal.signal(signal.SIGTERM, signal.default_int_handler)\n" \
           f"    jobs = Jobs()\n    job = jobs.add(1, '', {FOREVER})\n" \
           f"    try:\n" \
           f"        while not job.process: time.sleep(0.01)\n" \
           f"        print(job.process.pid, flush=True)\n        time.sleep(60)\n" \
           f"    finally:\n        jobs.close()\n" \
           f"run(main)"
    words = ["sh", "-c", "trap '' INT; exec \"$0\" \"$@\"", sys.executable, "-c", code]
    server = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    child = int(server.stdout.readline())
    server.send_signal(way)
    server.communicate(timeout=20)  # a job that ignored SIGINT would be killed only after 30 seconds
    wait_for(lambda: not is_alive(child))
    assert server.returncode == (-way if way == signal.SIGKILL else 130)
