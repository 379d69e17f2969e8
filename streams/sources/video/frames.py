"""Decode one stream of a video by PyAV: every recording in the file, all of what can be seen.

Times are seconds from the beginning of the first recording; the next one goes on where it ended.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import av
from av.container import Container, InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from roadstream.schemas.errors import ImageError
from roadstream.streams.sources.video.packets import Damage, Packet, Packets, StreamClock, words
from roadstream.streams.sources.video.recordings import STARTS, Recording, recordings

# Playlists would make a “video” read other files or the network; they are not on the list.
_OPEN = {
    "protocol_whitelist": "file,subfile",
    "format_whitelist": "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,asf,flv,ogg,h264,hevc",
}
_COVERS = Disposition.attached_pic | Disposition.timed_thumbnails
_PICTURE_CODECS = frozenset({"mjpeg", "png", "bmp", "gif", "webp", "tiff"})
_NOT_SHOWN = 0.5  # seconds at the beginning without a picture that are worth a note
_HEALED = 10.0  # seconds after which pictures are trusted again where no keyframe comes
FAR = 10.0  # seconds between keyframes from which the pictures between them are decoded too
_MOST_HELD = 128 << 20  # bytes of packets held since a keyframe until it is known to be far
# Decoders that ignore skip_frame: their other packets are left out before decoding.
_KEY_PACKETS_ONLY = frozenset({"vp8", "vp9", "libvpx", "libvpx-vp9"})

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded frame, at ``at`` seconds."""

    at: float
    frame: VideoFrame


def open_video(path: str, recording: Recording | None = None) -> InputContainer:
    """Open a video, or one recording of it.

    Raises:
        ImageError: ``damaged_video``: FFmpeg cannot.
    """
    name = f"file:{Path(path).absolute()}"
    if recording is not None:
        name = f"subfile,,start,{recording.start},end,{recording.end},,:{name}"
    try:
        return av.open(name, options=_OPEN, metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise ImageError(
            "damaged_video",
            f"cannot be opened as a video: {words(error)} (a recording that broke off "
            "before its end looks like this)",
        ) from None


class Opened(NamedTuple):
    """A video whose first recording that can be opened is open.

    Attributes:
        container: That recording.
        recordings: It and those known to follow.
        problem: Why those before it cannot be opened, if there are any.
    """

    container: InputContainer
    recordings: list[Recording]
    problem: str | None


def open_first(path: str) -> Opened:
    """Open the first recording of a video that can be opened.

    Raises:
        ImageError: ``damaged_video``: FFmpeg can open none.
        OSError: The file cannot be read.
    """
    known = recordings(path)
    failed: ImageError | None = None
    for number, recording in enumerate(known):
        try:
            container = open_video(path, recording if len(known) > 1 else None)
        except ImageError as error:
            failed = failed or error
        else:
            return Opened(container, known[number:], failed.problem if failed else None)
    raise failed or AssertionError("a file holds one recording at least")


def decodable(container: Container) -> list[VideoStream]:
    """Return the video streams whose codec FFmpeg knows."""
    return [stream for stream in container.streams.video if stream.codec_context is not None]


def begun(container: Container) -> list[VideoStream]:
    """Return the decodable streams with a size; others may be of a recording that is joined on."""
    return [stream for stream in decodable(container) if stream.codec_context.width]


def main_stream(container: InputContainer) -> VideoStream | None:
    """Return the largest stream that is no cover picture; the default one, or the first, of many.

    One that is empty is taken only where all are.
    """
    streams = [stream for stream in decodable(container) if not is_cover(stream)]
    return max(streams, key=_rank, default=None)


def _rank(stream: VideoStream) -> tuple[bool, int, bool, int]:
    counted = any(other.frames for other in stream.container.streams.video)
    size = stream.codec_context.width * stream.codec_context.height
    default = bool(stream.disposition & Disposition.default)
    return (stream.frames > 0 or not counted, size, default, -stream.index)


def find_stream(container: InputContainer, index: int | None) -> VideoStream | None:
    """Return a video stream by its number, ``None`` standing for the main one."""
    if index is None:
        return main_stream(container)
    return next((stream for stream in decodable(container) if stream.index == index), None)


def is_cover(stream: VideoStream) -> bool:
    """Whether a stream is a picture about the video and not the video."""
    if stream.disposition & _COVERS:
        return True
    others = stream.container.streams.video
    single = stream.frames == 1 and any(other.frames > 1 for other in others)
    return single and stream.codec_context.name in _PICTURE_CODECS


def decode(
    path: str, opened: Opened, index: int | None, note: Note, *, keyframes: bool
) -> Iterator[Picture | Damage]:
    """Yield all pictures of a stream, or its keyframes, and each damaged stretch once.

    Where keyframes are far apart, or there are none, all pictures come. Those between damage and
    the next keyframe are left out: they build on what is missing.

    Args:
        path: The file.
        opened: The same as ``open_first`` opens it.
        index: The stream; ``None`` for the main one.
        note: Told what is missing though no picture is known to be lost.
        keyframes: Whether only keyframes are wanted.
    """
    for reading in _readings(path, opened, index):
        if isinstance(reading, Damage):
            yield reading
            continue
        for number in _added(reading, opened.container) if index is None else ():
            note(f"stream {number} of the recording from {reading.clock.begin:.1f} s left out")
        shown = False
        for found in _trusted(reading, keyframes=keyframes):
            begin = reading.clock.begin
            if not shown and found.at - begin > _NOT_SHOWN:
                note(f"nothing to be shown from {begin:.1f} s to {found.at:.1f} s: no keyframe")
            shown = True
            yield found
        if reading.packets.cut:
            note(f"it was cut off at {reading.clock.end:.1f} s")


class _Reading(NamedTuple):
    """One recording of a file, as far as one stream of it goes."""

    recording: Recording
    stream: VideoStream
    clock: StreamClock
    packets: Packets


def _added(reading: _Reading, first: InputContainer) -> list[int]:
    """Return the numbers of a recording's video streams that the first one does not have."""
    known = {each.index for each in begun(first)} | {reading.stream.index}
    streams = begun(reading.stream.container)
    return [each.index for each in streams if each.index not in known and not is_cover(each)]


def _readings(path: str, first: Opened, index: int | None) -> Iterator[_Reading | Damage]:
    """Yield the recordings of a file one after the other; each must be read to its end."""
    pending, at = deque(first.recordings), 0.0
    if first.problem is not None:
        yield Damage(at, f"a recording that others were joined to {first.problem}")
    while pending:
        recording = pending.popleft()
        is_first = recording == first.recordings[0]
        try:
            opened = first.container if is_first else open_video(path, recording)
        except ImageError as error:
            if recording.sure:
                yield Damage(at, f"a recording that was joined on {error.problem}")
            continue
        stream = find_stream(opened, index)
        if stream is None:
            if recording.sure:
                yield Damage(at, "a recording that was joined on holds no such video")
            continue
        clock = StreamClock(stream, at)
        packets = Packets(path, recording, opened, stream, clock)
        yield _Reading(recording, stream, clock, packets)
        at = clock.end
        if not is_first:
            opened.close()
        if packets.next is not None:
            pending.extendleft(reversed(_following(path, packets.next)))


def _following(path: str, found: Recording) -> list[Recording]:
    """Return the recordings from one on that was found by reading the one before it."""
    first, *others = recordings(path, found.start)
    return [first._replace(sure=found.sure), *others]


def recording_at(path: str, seconds: float, index: int | None) -> tuple[Recording | None, float]:
    """Return the recording that is shown at a time, ``None`` for the whole file, and its begin.

    Raises:
        ImageError: The file cannot be opened.
        OSError: The file cannot be read.
    """
    status = Path(path).stat()
    line = _time_line(path, index, status.st_size, status.st_mtime_ns)
    found = max(
        (each for each in line if each[1] <= seconds + 0.0005), key=lambda e: e[1], default=line[0]
    )
    return found if len(line) > 1 or found[0].start else (None, 0.0)


@lru_cache(maxsize=64)
def _time_line(
    path: str, index: int | None, _size: int, _mtime_ns: int
) -> list[tuple[Recording, float]]:
    """Return the recordings of a file and when they begin; all of it is read to know that."""
    opened = open_first(path)
    with opened.container as container:
        if len(opened.recordings) == 1 and container.format.name not in STARTS:
            return [(opened.recordings[0], 0.0)]
        line = []
        for reading in _readings(path, opened, index):
            if isinstance(reading, _Reading):
                deque(reading.packets, maxlen=0)
                after = reading.packets.next
                end = reading.recording.end if after is None else after.start
                line.append((reading.recording._replace(end=end), reading.clock.begin))
        return line or [(opened.recordings[0], 0.0)]


def _trusted(reading: _Reading, *, keyframes: bool) -> Iterator[Picture | Damage]:
    """Yield the pictures that build on nothing broken, and what is broken."""
    clock, broken = reading.clock, None
    for frames, wrong, at in _Decoder(reading, keyframes=keyframes).run():
        problem = wrong
        for frame in frames:
            shown_at = clock.time_of(frame)
            if frame.is_corrupt:
                problem = problem or "the picture is damaged"
                continue
            if broken is not None and shown_at >= broken.at:
                if not (frame.key_frame or shown_at >= broken.at + _HEALED):
                    continue
                yield _stretch(broken, shown_at)
                broken = None
            yield Picture(shown_at, frame)
        if problem is not None and broken is None:
            broken = Damage(at, problem)
    if broken is not None:
        yield _stretch(broken, max(clock.end, broken.at))


def _stretch(broken: Damage, end: float) -> Damage:
    until = f"to {end:.1f} s" if end - broken.at >= 0.05 else "on"
    problem = f"the video cannot be decoded from {broken.at:.1f} s {until}: {broken.problem}"
    return Damage(broken.at, problem)


class _Decoded(NamedTuple):
    """What came of a packet: frames, or why there are none, and when it would be shown."""

    frames: list[VideoFrame]
    problem: str | None
    at: float


class _Decoder:
    """Decodes the packets of a recording: all of them, or keyframes as long as they come often.

    The packets since the last keyframe are held; where the next one is far, they are decoded.

    Args:
        reading: The recording.
        keyframes: Whether keyframes are enough.
    """

    def __init__(self, reading: _Reading, *, keyframes: bool) -> None:
        self._packets, self._clock = reading.packets, reading.clock
        self._context = reading.stream.codec_context
        self._all = not keyframes
        self._key_packets = self._context.name in _KEY_PACKETS_ONLY
        self._held: deque[Packet] = deque()
        self._held_bytes = 0
        self._key_at: float | None = None
        self._since: float | None = None
        if keyframes:
            self._context.skip_frame = "NONKEY"

    def run(self) -> Iterator[_Decoded]:
        """Decode all packets."""
        for packet in self._packets:
            if isinstance(packet, Damage):
                yield _Decoded([], packet.problem, packet.at)
                continue
            if not self._all:
                if self._packets.timeless:  # of keyframes the order is certain
                    packet.pts = packet.dts
                self._held.append(packet)
                self._held_bytes += packet.size
            if decoded := self._decoded(packet):
                yield decoded
            if not self._all and self._far():
                yield from self._drained()  # a keyframe may wait in the decoder
                if self._far():
                    yield from self._decode_held()
        yield from self._drained()
        if self._key_at is None and not self._all:
            yield from self._decode_held()
            yield from self._drained()

    def _far(self) -> bool:
        at = self._clock.shown
        if self._since is None:
            self._since = at
        return at - self._since >= FAR or self._held_bytes > _MOST_HELD

    def _decode_held(self) -> Iterator[_Decoded]:
        self._all = True
        self._context.skip_frame = "DEFAULT"
        while self._held:
            if decoded := self._decoded(self._held.popleft()):
                yield decoded

    def _decoded(self, packet: Packet) -> _Decoded | None:
        """Decode a packet, unless only keyframes are wanted and the decoder would not know."""
        if self._key_packets and not self._all and packet.size and not packet.is_keyframe:
            return None
        try:
            frames, problem = packet.decode(), "broken data" if packet.is_corrupt else None
        except (av.FFmpegError, ValueError) as error:
            frames, problem = [], words(error)
        return self._result(frames, problem, packet)

    def _drained(self) -> Iterator[_Decoded]:
        """Take what the decoder holds back; it begins anew then."""
        try:
            frames, problem = self._context.decode(None), None
        except (av.FFmpegError, ValueError) as error:
            frames, problem = [], words(error)
        if decoded := self._result(frames, problem, None):
            yield decoded
        self._context.flush_buffers()

    def _result(
        self, frames: list[VideoFrame], problem: str | None, packet: Packet | None
    ) -> _Decoded | None:
        if not frames and problem is None:
            return None
        if not self._all:
            for frame in frames:
                self._note(frame)
        at = self._clock.end if packet is None else self._clock.at(packet.pts)
        return _Decoded(frames, problem, at)

    def _note(self, frame: VideoFrame) -> None:
        """Let go of the packets before a keyframe that has come out."""
        if not frame.key_frame or frame.is_corrupt:
            return
        self._key_at = self._since = self._clock.at(frame.pts)
        for place in range(len(self._held) - 1, -1, -1):
            packet = self._held[place]
            if packet.is_keyframe if frame.pts is None else packet.pts == frame.pts:
                for _ in range(place):
                    self._held_bytes -= self._held.popleft().size
                return
