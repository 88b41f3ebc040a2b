"""An hour of video through the demo: memory stays flat, no frame is lost, the sound stays with the picture.

    python tests/longrun.py                  # the sample in a loop for an hour: as long as the demo takes for it
    python tests/longrun.py --fps 10         # a third of the frames
    python tests/longrun.py --minutes 5 --gen-type 1

Linux only (memory is read from /proc). Exits with status 1 where memory after the first minute leaves 10 % of what it
was then, a frame is missing, or a click in the sound is not where the source has it.
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

ROOT = Path(__file__).resolve().parent.parent
RATE, EVERY = 48000, 10  # Hz; seconds between clicks
FLAT, LATE = 0.10, 0.03  # share of memory; seconds, about one packet of AAC


def looped(path, minutes, fps):
    """Write the sample's source, over and over, with a click every EVERY seconds; returns its number of frames."""
    sample, count, shift = ROOT / "data" / "sample" / "source.mp4", 0, 0
    with av.open(str(path), "w") as out, av.open(str(sample)) as first:
        picture = out.add_stream_from_template(first.streams.video[0])
        sound = out.add_stream("aac", rate=RATE)
        base, slower = first.streams.video[0].time_base, first.streams.video[0].average_rate / Fraction(fps)
        while count / fps < minutes * 60:
            with av.open(str(sample)) as container:
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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60, help="of video")
    parser.add_argument("--fps", type=int, default=30, help="frames a second of it")
    parser.add_argument("--gen-type", default="5", help="the demo's")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "long.mp4", Path(folder) / "out.mp4"
        count, told = looped(source, args.minutes, args.fps), []
        words = [sys.executable, ROOT / "DanceDemo.py", "--no-window", "--gen-type", args.gen_type,
                 "--layout", "result", "--source", source, "--output", output]
        start = time.monotonic()
        with open(Path(folder) / "said", "w") as said:
            running = subprocess.Popen(words, stdout=said, stderr=said)
            while running.poll() is None:
                told.append((time.monotonic() - start, memory(running)))
                time.sleep(1)
        taken = time.monotonic() - start
        if running.returncode:
            sys.exit(f"the demo ended with status {running.returncode}")
        after = np.array([used for seconds, used in told if seconds > 60 and used])
        with av.open(str(output)) as container:
            made = sum(1 for packet in container.demux(container.streams.video[0]) if packet.size)
            long = float(container.streams.video[0].duration * container.streams.video[0].time_base)
        before, behind = clicks(source), clicks(output)
        same = len(behind) == len(before)
        late = np.abs(behind - before).max() if same else np.inf
        growth = after.max() / after[0] - 1 if len(after) else 0
    print(f"{count} frames in, {made} out, {long / 60:.2f} min of picture in {taken / 60:.1f} min "
          f"({count / taken:.1f} frames/s)\nmemory {after[0] if len(after) else told[-2][1]:.0f} MB after a minute, "
          f"{after.max() if len(after) else 0:.0f} MB at most later ({growth:+.1%}), "
          f"{after[-1] if len(after) else 0:.0f} MB in the end\n"
          f"{len(before)} clicks in, {len(behind)} out, at most {late * 1e3:.0f} ms apart")
    sys.exit(bool(made != count or late > LATE or growth > FLAT))


if __name__ == "__main__":
    main()
