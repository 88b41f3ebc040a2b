"""An hour of video through the demo: memory stays flat, no frame is lost, and the sound stays with the picture.

    python tests/longrun.py                  # the sample in a loop for an hour: as long as the demo takes for it
    python tests/longrun.py --fps 10         # a third of the frames
    python tests/longrun.py --minutes 5 --gen-type 1

The poses of the whole video are found first, then it dances. Linux only, because memory is read from /proc. Exits with
status 1 where memory after the first minute grows by more than GROWTH and TRACK_BYTES for each frame, where a frame is
missing, or where a click in the sound is not where the source has it.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common.paths import SAMPLE_SOURCE

ROOT = Path(__file__).resolve().parent.parent
RATE = 48000  # Hz, of the sound
EVERY = 10  # seconds between two clicks in the sound
GROWTH = 0.10  # share by which memory may grow after the first minute
TRACK_BYTES = 4000  # bytes of memory that each frame may take besides: its poses as found, mended, smoothed and placed
LATE = 0.03  # seconds that a click may be away from its place: about one packet of AAC


def looped(path, minutes, fps):
    """Write the sample's source, over and over, with a click every EVERY seconds; returns its number of frames."""
    count, shift = 0, 0
    with av.open(str(path), "w") as out, av.open(str(SAMPLE_SOURCE)) as first:
        picture = out.add_stream_from_template(first.streams.video[0])
        sound = out.add_stream("aac", rate=RATE)
        base, slower = first.streams.video[0].time_base, first.streams.video[0].average_rate / Fraction(fps)
        while count / fps < minutes * 60:
            with av.open(str(SAMPLE_SOURCE)) as container:
                frames = 0
                for packet in container.demux(container.streams.video[0]):
                    if packet.size:
                        packet.pts = round(packet.pts * slower) + shift
                        packet.dts, packet.stream = round(packet.dts * slower) + shift, picture
                        out.mux(packet)
                        frames += 1
            for second in range(int(count / fps), int((count + frames) / fps)):
                samples = np.zeros((1, RATE), np.float32)
                samples[0, :100] = 0.9 * (second % EVERY == 0)
                frame = av.AudioFrame.from_ndarray(samples, "fltp", "mono")
                frame.sample_rate, frame.pts = RATE, second * RATE
                out.mux(sound.encode(frame))
            count += frames
            shift += round(frames / fps / base)
        out.mux(sound.encode(None))
    return count


def clicks(path):
    """Seconds at which the clicks in a file's sound begin."""
    times, last = [], -1.0
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            loud = np.flatnonzero(np.abs(frame.to_ndarray()[0]) > 0.3)
            if len(loud) and frame.time + loud[0] / frame.sample_rate > last + 1:
                last = frame.time + loud[0] / frame.sample_rate
                times.append(last)
    return np.array(times)


def memory(process):
    """Megabytes in use by a process, or 0 where it has ended."""
    try:
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1e3
    except OSError:
        pass
    return 0


def count_frames(path):
    """(the number of pictures in a film, their length in seconds)."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return sum(1 for packet in container.demux(stream) if packet.size), float(stream.duration * stream.time_base)


def watch_demo(words, said):
    """Run the demo with these words; returns [(seconds since its start, its megabytes)], one a second."""
    start, used = time.monotonic(), []
    with open(said, "w") as file:
        running = subprocess.Popen([sys.executable, ROOT / "DanceDemo.py", *words], stdout=file, stderr=file)
        while running.poll() is None:
            used.append((time.monotonic() - start, memory(running)))
            time.sleep(1)
    if running.returncode:
        sys.exit(f"the demo ended with status {running.returncode}: {said.read_text()[-500:]}")
    return used


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60, help="of video")
    parser.add_argument("--fps", type=int, default=30, help="frames a second of it")
    parser.add_argument("--gen-type", default="5", help="the demo's")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "long.mp4", Path(folder) / "out.mp4"
        count = looped(source, args.minutes, args.fps)
        start = time.monotonic()
        used = watch_demo(["--no-window", "--gen-type", args.gen_type, "--layout", "result", "--source", source,
                           "--output", output], Path(folder) / "said")
        taken = time.monotonic() - start
        made, seconds = count_frames(output)
        wanted, heard = clicks(source), clicks(output)
    late = np.abs(heard - wanted).max() if len(heard) == len(wanted) else np.inf
    after = np.array([megabytes for moment, megabytes in used if moment > 60 and megabytes])
    first, most = (after[0], after.max()) if len(after) else (used[-2][1], used[-2][1])
    allowed = first * (1 + GROWTH) + count * TRACK_BYTES / 1e6
    print(f"{count} frames in, {made} out, {seconds / 60:.2f} min of picture in {taken / 60:.1f} min "
          f"({count / taken:.1f} frames/s)\nmemory {first:.0f} MB after a minute, {most:.0f} MB at most later, of "
          f"{allowed:.0f} MB that are allowed, {used[-2][1]:.0f} MB in the end\n"
          f"{len(wanted)} clicks in, {len(heard)} out, at most {late * 1e3:.0f} ms apart")
    sys.exit(bool(made != count or late > LATE or most > allowed))


if __name__ == "__main__":
    main()
