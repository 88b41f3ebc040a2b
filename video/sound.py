"""The sound of a source, carried over into a film. A soundtrack never costs the film: at worst the film is silent."""

import errno
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
from av.filter import Graph

from common.command_line import warn
from video.decoding import readable_packets

AAC_RATES = (48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)  # sample rates in Hz that AAC knows
AAC_SAMPLES = 1024  # of one frame of AAC
# Codecs that players expect in an mp4, and whether their setup must be known in advance; others become AAC.
COPIED = {"aac": True, "mp3": False, "ac3": False, "eac3": False, "alac": True, "opus": True}
ERRORS = (av.FFmpegError, ValueError, OSError)  # of a damaged or odd track, in all steps
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class Sound:
    """The sound of the file at `path` from the time `begin` on, for the film in `output` (a container to write).

    begin: in seconds of the file's own clock (see VideoReader.stamp). Of several tracks it is the first one that can be
    decoded. Packets are copied where an mp4 can hold them as they are, and encoded as AAC otherwise.
    """

    def __init__(self, path, output, begin):
        self._path, self._output, self._begin = str(path), output, Fraction(begin)
        self._input, self._next, self._packets = None, None, iter(())
        try:
            self._input = av.open(str(Path(path).absolute()), metadata_errors="ignore")
        except ERRORS:  # a folder of images has no sound
            return
        tracks = self._input.streams.audio
        for number, track in enumerate(tracks):
            sample = self._first_frame(number)
            if sample is not None:
                self._carry(track, sample)
                break
        if tracks and sample is None:
            warn(f"the sound of {self._path!r} can't be decoded; the film is silent")
        elif tracks and number:
            warn(f"the first soundtrack of {self._path!r} can't be decoded; taking number {number + 1}")

    def _first_frame(self, number):
        """The first frame of a track that can be decoded, or None."""
        try:
            with av.open(str(Path(self._path).absolute()), metadata_errors="ignore") as container:
                track = container.streams.audio[number]
                return next(decodable_frames(container, track)) if track.codec_context else None
        except (*ERRORS, StopIteration):
            return None

    def _carry(self, track, sample):
        context = track.codec_context
        needs_setup = COPIED.get(context.codec.canonical_name)
        if needs_setup is False or (needs_setup and context.extradata):
            self._stream = self._output.add_stream_from_template(track)
            self._packets = self._copied(track)
        else:
            rate = sample.sample_rate if sample.sample_rate in AAC_RATES else AAC_RATES[0]
            layout = "mono" if _channels(sample) == 1 else "stereo"
            self._stream = self._output.add_stream("aac", rate=rate, layout=layout)
            self._packets = self._encoded(track)

    def _copied(self, track):
        last = None
        for packet in readable_packets(self._input, track):
            if packet.pts is None or packet.dts is None:  # an empty packet marks the end
                continue
            shift = round(self._begin / packet.time_base)
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            if packet.pts >= 0 and (last is None or packet.dts > last):  # times that go back would end the film
                last, packet.stream = packet.dts, self._stream
                yield packet.pts * packet.time_base, packet

    def _encoded(self, track):
        encoder, filled, setup, samples = self._stream.codec_context, None, None, 0
        for frame in chain(decodable_frames(self._input, track), [None]):
            parts = []
            if frame is None or _setup(frame) != setup:  # the end, or the track changes on the way
                parts += filled.rest() if filled else []
                if frame is not None:
                    samples += sum(part.samples for part in parts)
                    filled, setup = _Filled(frame, encoder, self._begin, samples), _setup(frame)
            added = filled.add(frame) if frame is not None else []
            samples += sum(part.samples for part in added)
            for part in parts + added:
                for packet in encoder.encode(part):
                    packet.stream = self._stream
                    yield packet.pts * packet.time_base, packet
        for packet in encoder.encode(None):
            packet.stream = self._stream
            yield packet.pts * packet.time_base, packet

    def mux_until(self, seconds):
        """Hand over the packets that begin before the time `seconds` of the film. Raises OSError where the disk does
        not take them."""
        try:
            while self._input:
                self._next = self._next or next(self._packets, None)
                if self._next is None or self._next[0] >= seconds:
                    return
                packet, self._next = self._next[1], None
                self._output.mux(packet)
        except ERRORS as error:
            if getattr(error, "errno", None) in DISK_ERRORS:
                raise
            warn(f"the sound of {self._path!r} breaks off ({error}); the film goes on without it")
            self.close()

    def close(self):
        """Close the input. What was not handed over is left out."""
        if self._input:
            self._input.close()
            self._input = None


class _Filled:
    """Brings the frames of one track to the encoder's rate and layout. Gaps become silence, and time 0 is `begin`.

    samples: how many the encoder has been given before, by another one of these.
    """

    def __init__(self, frame, encoder, begin, samples):
        self._begin, self._graph, self._expected = begin, Graph(), 0
        first = round(samples * frame.sample_rate / encoder.sample_rate)  # aresample counts in samples of the source
        self._graph.link_nodes(
            self._graph.add_abuffer(sample_rate=frame.sample_rate, format=frame.format.name, layout=_layout(frame),
                                    time_base=frame.time_base),
            self._graph.add("aresample", **{"async": "1", "first_pts": str(first), "min_hard_comp": "0.05",
                                            "osr": str(encoder.sample_rate)}),
            self._graph.add("aformat", sample_fmts="fltp", channel_layouts=encoder.layout.name),
            self._graph.add("asetnsamples", n=str(AAC_SAMPLES), p="1"),
            self._graph.add("abuffersink")).configure()

    def add(self, frame):
        """[frame for the encoder] that are ready now that `frame` is known."""
        shift = round(self._begin / frame.time_base)
        frame.pts = self._expected if frame.pts is None else frame.pts - shift
        self._expected = frame.pts + round(Fraction(frame.samples, frame.sample_rate) / frame.time_base)
        self._graph.push(frame)
        return list(self._pull())

    def rest(self):
        """[frame for the encoder] that are left at the end."""
        self._graph.push(None)
        return list(self._pull())

    def _pull(self):
        while True:
            try:
                yield self._graph.pull()
            except (av.BlockingIOError, av.EOFError):
                return


def decodable_frames(container, track):
    """The frames of a soundtrack; what can't be decoded is left out."""
    for packet in readable_packets(container, track):
        try:
            yield from packet.decode()
        except ERRORS:
            continue


def _setup(frame):
    return frame.sample_rate, frame.format.name, _layout(frame), frame.time_base


def _channels(frame):
    return len(frame.layout.channels)


def _layout(frame):
    """The name of a frame's layout. A file that says only how many channels there are gets the usual one."""
    usual = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}
    return frame.layout.name if "channels" not in frame.layout.name else usual.get(_channels(frame), "stereo")
