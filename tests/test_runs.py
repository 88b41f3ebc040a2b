"""Real runs of the scripts: stopped, killed, two at once, without the right to read or write, without a network."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_faults import complaint

from CommandLine import ROOT, UserError
from Storage import alone
from VideoReader import VideoReader
from VideoWriter import VideoWriter

PROGRAM = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
sys.addaudithook(lambda event, args: event in ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto")
                 and print("NETWORK", event, args, file=sys.stderr))
import CommandLine, Storage, VideoSkeleton
from pathlib import Path
VideoSkeleton.CACHE, Storage.LOCKS = map(Path, sys.argv[1:3])
sys.argv = sys.argv[3:]
CommandLine.run(__import__(sys.argv[0]).main)
"""


@pytest.fixture
def start(tmp_path, target):
    """start(script, *words, mine=False): that script at work in a process of its own, with the tests' cache or, if
    `mine`, an empty one. It tells of any use of the network."""
    runs = []

    def begin(script, *words, mine=False, **options):
        cache = tmp_path / "cache" if mine else target.folder.parent
        words = [sys.executable, "-c", PROGRAM, cache, tmp_path / "locks", script, *words]
        runs.append(subprocess.Popen(list(map(str, words)), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                     **options))
        return runs[-1]

    yield begin
    for run in runs:
        run.kill()
        run.communicate()


def ended(run):
    """(exit status, what it said on standard error), when it has ended by itself."""
    said = run.communicate(timeout=120)[1]
    assert "NETWORK" not in said, said
    return run.returncode, said


def wait_for(condition, run):
    deadline = time.monotonic() + 90
    while not condition() and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert condition()


@pytest.fixture(scope="module")
def long(frames, tmp_path_factory):
    """A source of a minute: the demo does not get to its end before it is stopped."""
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    with VideoWriter(path, 10) as writer:
        for number in range(600):
            writer.write(frames[abs(number % 78 - 39)])
    return path


def demo(start, source, clip, output):
    return start("DanceDemo", "--gen-type", 1, "--no-window", "--source", source, "--target", clip, "--output", output)


def count(path):
    with VideoReader(path) as reader:
        return len(list(reader))


def test_ctrl_c_keeps_the_film_so_far(start, long, clip, tmp_path):
    run = demo(start, long, clip, tmp_path / "o.mp4")
    part = tmp_path / ".o.mp4.part"
    wait_for(lambda: part.exists() and part.stat().st_size > 200_000, run)
    run.send_signal(signal.SIGINT)
    status, said = ended(run)
    assert status == 130 and complaint(said) == ["interrupted"]
    assert 20 < count(tmp_path / "o.mp4") < 600 and not part.exists()


def test_a_killed_demo_leaves_a_film_that_the_next_one_keeps(start, long, clip, tmp_path):
    output = tmp_path / "o.mp4"
    output.write_bytes(b"earlier")
    run = demo(start, long, clip, output)
    part = tmp_path / ".o.mp4.part"
    wait_for(lambda: part.exists() and part.stat().st_size > 300_000, run)
    run.kill()
    run.communicate()
    assert output.read_bytes() == b"earlier"
    status, said = ended(demo(start, clip, clip, output))
    assert status == 0 and count(output) == 40
    assert [line for line in complaint(said) if "unfinished" in line] and count(tmp_path / "o-unfinished.mp4") >= 20
    assert not list(tmp_path.glob(".*"))


def test_two_at_once_do_not_write_one_file(start, long, clip, tmp_path):
    output = tmp_path / "o.mp4"
    first = demo(start, long, clip, output)
    wait_for((tmp_path / ".o.mp4.part").exists, first)
    status, said = ended(demo(start, clip, clip, output))
    assert status == 2 and len(complaint(said)) == 1 and "another run is writing" in said
    first.send_signal(signal.SIGINT)
    assert ended(first)[0] == 130 and count(output) > 0

    words = ["--target", clip, "--checkpoint", tmp_path / "w.pth", "--epochs", 10 ** 6]
    first = start("GenVanillaNN", *words)
    wait_for((tmp_path / "runs").exists, first)  # of its curves: the training has begun
    status, said = ended(start("GenVanillaNN", *words))
    assert status == 2 and len(complaint(said)) == 1 and "another run is training into" in said
    first.send_signal(signal.SIGINT)
    assert ended(first)[0] == 130 and (tmp_path / "w-last.pth").exists()


def test_nothing_uses_the_network(start, clip, tmp_path):
    """Extraction, training, the demo with what was trained; `ended` looks at what the audit hook told of each."""
    words = ["--target", clip, "--image-size", 64, "--epochs", 1, "--checkpoint", tmp_path / "w.pth"]
    assert ended(start("GenWarp", *words, mine=True))[0] == 0
    words = ["--target", clip, "--source", clip, "--no-window", "--max-frames", 3]
    assert ended(start("DanceDemo", *words, "--checkpoint", tmp_path / "w.pth", "--output", tmp_path / "o.mp4"))[0] == 0
    (tmp_path / "Asks.py").write_text("def main():\n    import socket\n    socket.create_connection(('127.0.0.1', 9))")
    asking = start("Asks", env=os.environ | {"PYTHONPATH": str(tmp_path)})
    assert "NETWORK socket.connect" in asking.communicate()[1]  # the hook would have told


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes as Linux shows them")
def test_workers_end_with_the_run_that_started_them(start, long, tmp_path):
    marked = os.environ | {"THIS_TEST": str(tmp_path)}
    run = start("VideoSkeleton", long, "--workers", 2, mine=True, env=marked)

    def alive():
        return [path for path in Path("/proc").glob("[0-9]*") if _environment(path).count(bytes(tmp_path))]

    wait_for(lambda: list(tmp_path.glob("cache/.*/scan/segment*")), run)
    assert len(alive()) >= 3
    run.kill()
    run.communicate()
    deadline = time.monotonic() + 30
    while alive() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive()


def _environment(process):
    try:
        return (process / "environ").read_bytes()
    except OSError:  # it has ended
        return b""


def test_a_lock_ends_with_its_process(tmp_path):
    with alone(tmp_path / "x", "writing") as waited:
        assert not waited
        with pytest.raises(UserError, match="another run is writing"), alone(tmp_path / "x", "writing"):
            pass
        with alone(tmp_path / "y", "writing"):
            pass
    code = f"import sys, os; sys.path.insert(0, {str(ROOT)!r}); import Storage; from pathlib import Path; " \
           f"Storage.LOCKS = Path({str(tmp_path / 'locks')!r}); " \
           f"held = Storage.alone({str(tmp_path / 'x')!r}, 'writing'); held.__enter__(); os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert len(list((tmp_path / "locks").iterdir())) == 1
    with alone(tmp_path / "x", "writing") as waited:
        assert not waited


def without_rights():
    """In the new process: root without its right to pass over permissions; for other users nothing changes."""
    prctl, drop, override, search = ctypes.CDLL(None).prctl, 24, 1, 2  # linux/prctl.h, linux/capability.h
    for capability in (override, search):
        prctl(drop, capability, 0, 0, 0)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="drops capabilities as Linux has them")
def test_without_the_right_to_read_or_write(start, clip, target, weights, tmp_path):
    shut, locked, cache = tmp_path / "shut", tmp_path / "locked.mp4", tmp_path / "cache"
    shut.mkdir()
    shutil.copy(clip, locked)
    locked.chmod(0)
    secret = shutil.copy(weights[3], tmp_path / "w.pth")
    os.chmod(secret, 0)
    shut.chmod(0o555)
    cache.mkdir()
    cache.chmod(0o555)
    good = ["DanceDemo", "--no-window", "--gen-type", 1, "--target", clip, "--source", clip]
    free = ["--output", tmp_path / "o.mp4"]
    refused = [(*good, "--output", shut / "o.mp4"),
               (*good, *free, "--source", locked), (*good, *free, "--target", locked),
               (*good, *free, "--gen-type", 3, "--checkpoint", secret), (*good, *free, "--skeletons", shut / "s.npz"),
               ("GenVanillaNN", "--target", clip, "--checkpoint", shut / "w.pth"), ("VideoSkeleton", locked)]
    for words in refused:
        status, said = ended(start(*words, preexec_fn=without_rights))
        assert status == 2 and len(complaint(said)) == 1 and said.splitlines()[-1].startswith("error: "), (words, said)
    status, said = ended(start("VideoSkeleton", clip, mine=True, preexec_fn=without_rights))
    assert status == 2 and len(complaint(said)) == 1 and "can't write into" in said
    assert not list(shut.iterdir()) and not list(cache.iterdir())
    status, said = ended(start(*good, *free, preexec_fn=without_rights))
    assert status == 0 and complaint(said) == [], said


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="drops capabilities as Linux has them")
def test_a_project_that_is_read_only_still_dances(start, clip, target, tmp_path):
    """A cache made before, no place for locks."""
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks").chmod(0o555)
    folders = [target.folder, target.folder.parent]
    for folder in folders:
        folder.chmod(0o555)
    try:
        run = start("DanceDemo", "--no-window", "--gen-type", 5, "--target", clip, "--source", clip,
                    "--output", tmp_path / "o.mp4", preexec_fn=without_rights)
        status, said = ended(run)
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert status == 0 and count(tmp_path / "o.mp4") == 40, said
