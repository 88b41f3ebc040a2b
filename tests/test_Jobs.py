"""Jobs.py: one at a time and in order, what is understood of what they say, and that none is left behind."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from CommandLine import ROOT
from Jobs import PROGRESS, Jobs

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


def test_one_after_the_other_in_order(jobs, tmp_path):
    add = f"import sys, time; time.sleep(0.2); open({str(tmp_path / 'x')!r}, 'a').write(sys.argv[1])"
    several = [jobs.add(1, "", ["-c", add, letter]) for letter in "abc"]
    wait_for(lambda: several[0].state == "running")
    assert [job.state for job in several[1:]] == ["waiting", "waiting"] and jobs.current(1) == several
    several[1].stop()
    wait_for(lambda: several[2].over)
    assert [job.state for job in several] == ["done", "stopped", "done"] and (tmp_path / "x").read_text() == "ac"
    assert jobs.current(1) == several[2:] and jobs.current(2) == []


def test_stop_is_ctrl_c_once(jobs):
    told = "import time\ntry:\n    print('warning: on', flush=True); time.sleep(60)\n" \
           "except KeyboardInterrupt:\n    time.sleep(0.5)\n    raise SystemExit(130)"
    job = jobs.add(1, "", ["-c", told])
    wait_for(lambda: job.said)
    job.stop()
    assert job.state == "stopping"
    job.stop()  # a second time does not cut short what is being saved
    wait_for(lambda: job.over)
    assert job.state == "stopped" and job.said == ["warning: on"]


def test_progress_as_tqdm_writes_it(jobs):
    lines = {"frames:  42%|####2     | 21/50 [00:02<00:03,  9.81frame/s]": ("frames", "21", "50", "00:03", None),
             "W: 100%|##########| 50/50 [00:05<00:00,  1.20s/step, mse=0.1, held-out psnr=20.5]":
                 ("W", "50", "50", "00:00", "mse=0.1, held-out psnr=20.5"),
             "poses: 12frame [00:01, 9.93frame/s]": ("poses", "12", None, None, None),
             "  0%|          | 0/7 [00:00<?, ?it/s]": (None, "0", "7", "?", None)}
    for line, told in lines.items():
        assert tuple(PROGRESS.fullmatch(line.strip()).groupdict().values()) == told, line
    bar = "from tqdm import tqdm\nbar = tqdm(range(3), desc='a: b', unit='step')\n" \
          "for i in bar:\n    bar.set_postfix({'l1': 1 / (1 + i), 'held-out psnr': 20 + i // 2})"
    job = jobs.add(1, "", ["-c", bar])
    wait_for(lambda: job.over)
    assert (job.progress["what"], job.progress["done"], job.progress["total"]) == ("a: b", "3", "3")
    assert job.curves["l1"][-1] == 0.333 and job.curves["held-out psnr"] == [20, 21] and job.said == []


def test_what_a_failure_says(jobs):
    error = jobs.add(1, "", ["VideoSkeleton.py", ROOT / "none.mp4"])
    bug = jobs.add(1, "", ["-c", "1 / 0"])
    wait_for(lambda: bug.over)
    assert error.state == bug.state == "failed" and error.command == "python VideoSkeleton.py none.mp4"
    assert error.said == ["error: there is no video 'none.mp4'; check the path"]
    assert bug.said == ["ZeroDivisionError: division by zero"]


def alive(pid):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()  # a dead one may wait to be noticed
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
@pytest.mark.parametrize("way", [signal.SIGTERM, signal.SIGKILL])
def test_no_job_outlives_the_server(way, tmp_path):
    code = f"import signal, sys, time; sys.path.insert(0, {str(ROOT)!r}); from Jobs import Jobs\n" \
           f"signal.signal(signal.SIGTERM, signal.default_int_handler)\n" \
           f"jobs = Jobs(); job = jobs.add(1, '', {FOREVER})\n" \
           "while job.state != 'running': time.sleep(0.01)\n" \
           "print(job._process.pid, flush=True)\n" \
           "try:\n    time.sleep(60)\nfinally:\n    jobs.close()"
    words = [sys.executable, "-c", code]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    child = int(server.stdout.readline())
    server.send_signal(way)
    server.communicate(timeout=30)
    wait_for(lambda: not alive(child))
