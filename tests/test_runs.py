"""Real runs of the scripts: stopped, killed, two at once, without the right to read or write, without a network."""

import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import complaint, read_film

import GenVanillaNN
from common.command_line import UserError
from common.files import file_lock
from common.paths import ROOT
from motion.extraction import cache_folder, load_people
from motion.segments import SEGMENT
from video.film import VideoWriter

# What each of these processes begins with: an audit hook that tells of any use of the network, and folders of its own.
BEGIN = f"""
import importlib, io, json, sys, traceback
sys.path.insert(0, {str(ROOT)!r})
sys.addaudithook(lambda event, args: event in ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto")
                 and print("NETWORK", event, args, file=sys.stderr))
from pathlib import Path
from common import command_line, paths
paths.CACHE, paths.LOCKS = map(Path, sys.argv[1:3])
"""
ONE_RUN = BEGIN + """
from motion import segments
segments.SEGMENT, sys.argv = int(sys.argv[3]), sys.argv[4:]
command_line.run(importlib.import_module(sys.argv[0]).main)
"""
MANY_RUNS = BEGIN + """
for words in json.loads(sys.argv[3]):
    sys.argv, sys.stderr, status = words, io.StringIO(), 0
    command_line._warned.clear()
    try:
        command_line.run(importlib.import_module(words[0]).main)
    except SystemExit as leaving:
        status = leaving.code
    except Exception:
        status = 1
        traceback.print_exc()
    print("ENDED", json.dumps([status, sys.stderr.getvalue()]))
"""
LONG = 50  # times that the long video repeats the clip


@pytest.fixture
def start(tmp_path, target):
    """start(script, *words, own=False, segment=SEGMENT): that script at work in a process of its own, with the tests'
    cache or, if `own`, one below tmp_path. segment: frames of a segment of its pose pass."""
    runs = []

    def begin(script, *words, own=False, segment=SEGMENT, **options):
        cache = tmp_path / "cache" if own else target.folder.parent.parent
        words = [sys.executable, "-c", ONE_RUN, cache, tmp_path / "locks", segment, script, *words]
        runs.append(subprocess.Popen(list(map(str, words)), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                     **options))
        return runs[-1]

    yield begin
    for run in runs:
        run.kill()
        run.communicate()


@pytest.fixture
def run_all(tmp_path, target):
    """run_all(list of [script, *words], own=False): the scripts, one after the other in one process: it takes seconds
    to start. Returns [(exit status, what it said on standard error)]."""

    def call(runs, own=False, **options):
        cache = tmp_path / "cache" if own else target.folder.parent.parent
        words = json.dumps([list(map(str, run)) for run in runs])
        done = subprocess.run([sys.executable, "-c", MANY_RUNS, cache, tmp_path / "locks", words], capture_output=True,
                              text=True, **options)
        assert done.returncode == 0, done.stderr
        ends = [json.loads(line.removeprefix("ENDED ")) for line in done.stdout.splitlines() if line[:6] == "ENDED "]
        assert len(ends) == len(runs)
        return ends

    return call


def ended(run):
    """(exit status, what it said on standard error), when it has ended by itself."""
    said = run.communicate(timeout=120)[1]
    assert "NETWORK" not in said, said
    return run.returncode, said


def wait_for(condition, run):
    deadline = time.monotonic() + 90
    while not condition() and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


@pytest.fixture(scope="module")
def long(clip, target, tmp_path_factory):
    """A source of minutes, the clip over and over: a dance does not get to its end before it is stopped.

    Its poses are those of the clip, so they are put into the cache instead of being found.
    """
    path, count, base = tmp_path_factory.mktemp("long") / "long.mp4", len(target), None
    with av.open(str(path), "w") as out:
        for turn in range(LONG):
            with av.open(str(clip)) as container:
                stream = container.streams.video[0]
                base = base or out.add_stream_from_template(stream)
                for packet in container.demux(stream):
                    if packet.size:
                        shift = round(turn * count / 10 / stream.time_base)  # the clip has 10 frames a second
                        packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, base
                        out.mux(packet)
    folder = cache_folder(path)
    folder.mkdir()
    with np.load(target.folder.parent / "poses.npz") as stored:
        assert (stored["counts"] == 1).all()
        per_frame = ("counts", "joints", "visibility", "moves", "sure", "mask_spans", "identities", "camera")
        np.savez(folder / "poses.npz", seconds=np.arange(LONG * count) / 10, shots=np.zeros(1, int),
                 about=stored["about"], **{name: np.concatenate([stored[name]] * LONG) for name in per_frame})
    shutil.copy(target.folder.parent / "masks.bin", folder)
    return path


def demo(start, source, clip, output, *words, **options):
    return start("DanceDemo", "--gen-type", 1, "--no-window", "--source", source, "--target", clip, "--output", output,
                 *words, **options)


def test_ctrl_c_keeps_the_film_so_far(start, long, clip, tmp_path):
    run = demo(start, long, clip, tmp_path / "o.mp4")
    part = tmp_path / ".o.mp4.part"
    wait_for(lambda: part.exists() and part.stat().st_size > 200_000, run)
    run.send_signal(signal.SIGINT)
    status, said = ended(run)
    assert status == 130 and complaint(said) == ["interrupted"]
    assert 20 < len(read_film(tmp_path / "o.mp4")) < 40 * LONG and not part.exists()


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
    assert status == 0 and len(read_film(output)) == 40
    assert [line for line in complaint(said) if "unfinished" in line]
    assert len(read_film(tmp_path / "o-unfinished.mp4")) >= 20 and not list(tmp_path.glob(".*"))


def test_a_pose_pass_of_a_source_that_is_stopped_goes_on_next_time(start, frames, clip, target, tmp_path):
    """Ctrl-C in the first run, kill -9 in the second, and the third one dances.

    The poses are byte for byte those of a run that nobody stops, whose segments are longer. The segments that were
    there are not found again, and no film is made or overwritten before the dance begins.
    """
    source, film, cache = tmp_path / "source.mp4", tmp_path / "o.mp4", tmp_path / "cache"
    with VideoWriter(source, 10) as writer:
        for frame in frames + frames[::-1]:
            writer.write(frame)
    film.write_bytes(b"earlier")
    shutil.copytree(target.folder.parent, cache / target.folder.parent.name)
    whole = load_people(source).folder
    folder, work = cache / whole.name, cache / f".{whole.name}.work"

    def segments():
        return {path.name: path.stat().st_mtime_ns for path in work.glob("segment-*")}

    def stopped(stop, count):
        """The segments, and what was said, after a run that was stopped as soon as `count` segments were there."""
        run = demo(start, source, clip, film, own=True, segment=8)
        wait_for(lambda: len(segments()) >= count, run)
        run.send_signal(stop)
        status, said = ended(run)
        assert status == (130 if stop == signal.SIGINT else -signal.SIGKILL), said
        assert not folder.exists() and film.read_bytes() == b"earlier" and not list(tmp_path.glob("*.part"))
        return segments(), said

    first, said = stopped(signal.SIGINT, 1)
    assert complaint(said) == ["interrupted"]
    second, _ = stopped(signal.SIGKILL, len(first) + 1)
    assert first.items() < second.items() and len(second) < 10
    status, said = ended(demo(start, source, clip, film, own=True, segment=8))
    assert status == 0 and complaint(said) == [], said
    at_first = int(re.search(r"poses of source.mp4: .*?(\d+)/80 ", said)[1])
    assert at_first >= 8 * (len(second) - 1) > 0
    assert len(read_film(film)) == 80 and not work.exists()
    for name in ("poses.npz", "masks.bin"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()


def test_two_at_once_do_not_write_one_file(start, long, clip, tmp_path):
    output = tmp_path / "o.mp4"
    first = demo(start, long, clip, output)
    wait_for((tmp_path / ".o.mp4.part").exists, first)
    status, said = ended(demo(start, clip, clip, output))
    assert status == 2 and len(complaint(said)) == 1 and "another run is writing" in said
    first.send_signal(signal.SIGINT)
    assert ended(first)[0] == 130 and len(read_film(output)) > 0


def test_two_trainings_at_once_do_not_write_one_checkpoint(script, clip, target, tmp_path):
    """This process holds the lock that a training holds; see test_a_lock_ends_with_its_process for two processes."""
    words = ["--target", clip, "--checkpoint", tmp_path / "w.pth", "--epochs", 1, "--device", "cpu"]
    with file_lock(tmp_path / "w.pth", "training into"):
        status, _, said = script(GenVanillaNN.main, *words)
    assert status == 2 and len(complaint(said)) == 1 and "another run is training into" in said
    assert not list(tmp_path.rglob("*.*"))


def test_nothing_uses_the_network(run_all, clip, weights, tmp_path):
    """Extraction, training, the demo with what was trained, and with what has the most parts. The last script shows
    that the hook would tell."""
    (tmp_path / "Asks.py").write_text("def main():\n    import socket\n    socket.create_connection(('127.0.0.1', 9))")
    train = ["--target", clip, "--image-size", 64, "--epochs", 1, "--checkpoint", tmp_path / "w.pth"]
    dance = ["DanceDemo", "--target", clip, "--source", clip, "--no-window", "--max-frames", 3, "--output",
             tmp_path / "o.mp4", "--save-motion", tmp_path / "m.npz", "--gen-type"]
    *ends, asking = run_all([
        ["VideoSkeleton", clip], ["GenVanillaNN", *train],
        [*dance, 3, "--checkpoint", tmp_path / "w.pth"], [*dance, 5, "--checkpoint", weights[5]], ["Asks"],
    ], own=True, env=os.environ | {"PYTHONPATH": str(tmp_path)})
    assert [status for status, _ in ends] == [0] * 4 and not [said for _, said in ends if "NETWORK" in said], ends
    assert "NETWORK socket.connect" in asking[1]


@pytest.mark.journey
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes as Linux shows them")
def test_workers_end_with_the_run_that_started_them(start, long, tmp_path):
    marked = os.environ | {"THIS_TEST": str(tmp_path)}
    run = start("VideoSkeleton", long, "--workers", 2, own=True, env=marked)

    def alive():
        return [path for path in Path("/proc").glob("[0-9]*") if _environment(path).count(bytes(tmp_path))]

    wait_for(lambda: list(tmp_path.glob("cache/.*/segment*")), run)
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
    with file_lock(tmp_path / "x", "writing") as waited:
        assert not waited
        with pytest.raises(UserError, match="another run is writing"), file_lock(tmp_path / "x", "writing"):
            pass
        with file_lock(tmp_path / "y", "writing"):
            pass
    code = f"import sys, os; sys.path.insert(0, {str(ROOT)!r}); from common import files, paths; " \
           f"from pathlib import Path; paths.LOCKS = Path({str(tmp_path / 'locks')!r}); " \
           f"held = files.file_lock({str(tmp_path / 'x')!r}, 'writing'); held.__enter__(); os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert len(list((tmp_path / "locks").iterdir())) == 1
    with file_lock(tmp_path / "x", "writing") as waited:
        assert not waited


def without_rights():
    """In the new process: root without its right to pass over permissions; for other users nothing changes."""
    prctl, drop, override, search = ctypes.CDLL(None).prctl, 24, 1, 2  # linux/prctl.h, linux/capability.h
    for capability in (override, search):
        prctl(drop, capability, 0, 0, 0)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="drops capabilities as Linux has them")
def test_without_the_right_to_read_or_write(run_all, clip, target, weights, tmp_path):
    shut, locked, cache = tmp_path / "shut", tmp_path / "locked.mp4", tmp_path / "cache"
    shut.mkdir()
    shutil.copy(clip, locked)
    secret, motion = shutil.copy(weights[3], tmp_path / "w.pth"), tmp_path / "m.npz"
    load_people(clip).track.save(motion)
    for path in (locked, secret, motion):
        os.chmod(path, 0)
    shut.chmod(0o555)
    cache.mkdir()
    cache.chmod(0o555)
    good = ["DanceDemo", "--no-window", "--gen-type", 1, "--target", clip, "--source", clip]
    free = ["--output", tmp_path / "o.mp4"]
    refused = [[*good, "--output", shut / "o.mp4"],
               [*good, *free, "--source", locked], [*good, *free, "--target", locked],
               [*good, *free, "--source", motion], [*good, *free, "--save-motion", shut / "m.npz"],
               [*good, *free, "--gen-type", 3, "--checkpoint", secret], [*good, *free, "--motion", shut / "s.npz"],
               ["GenVanillaNN", "--target", clip, "--checkpoint", shut / "w.pth"], ["VideoSkeleton", locked]]
    ends = run_all([*refused, [*good, *free]], preexec_fn=without_rights)
    for words, (status, said) in zip(refused, ends, strict=False):
        assert status == 2 and len(complaint(said)) == 1 and said.splitlines()[-1].startswith("error: "), (words, said)
    assert ends[-1][0] == 0 and complaint(ends[-1][1]) == [], ends[-1]
    (tmp_path / "o.mp4").unlink()
    for status, said in run_all([["VideoSkeleton", clip], [*good, *free]], own=True, preexec_fn=without_rights):
        assert status == 2 and len(complaint(said)) == 1 and "can't write into" in said
    assert not list(shut.iterdir()) and not list(cache.iterdir()) and not (tmp_path / "o.mp4").exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="drops capabilities as Linux has them")
def test_a_project_that_is_read_only_still_dances(start, clip, target, tmp_path):
    """The cache was made before, and there is no place for locks."""
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks").chmod(0o555)
    folders = [target.folder, target.folder.parent, target.folder.parent.parent]
    for folder in folders:
        folder.chmod(0o555)
    try:
        run = start("DanceDemo", "--no-window", "--gen-type", 5, "--target", clip, "--source", clip,
                    "--output", tmp_path / "o.mp4", preexec_fn=without_rights)
        status, said = ended(run)
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert status == 0 and len(read_film(tmp_path / "o.mp4")) == 40, said
