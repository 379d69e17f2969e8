"""Read the packets of one recording's video stream, and notice what is missing between them.

Where the next recording begins in the same file, the packets end.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from roadstream.streams.sources.video.recordings import (
    STARTS,
    Recording,
    intact,
    next_start,
    padded,
    start_after,
    starts_over,
)

_NO_TIMES = frozenset({"h264", "hevc"})  # formats without any timestamps
_SILENT_GAPS = "matroska,webm"  # the reader that skips damage without a word
_REPEATED = frozenset({"mpegts", "mpeg"})  # what a recording begins with comes again there
# Bytes, or share of a recording, after its last picture that are more than that picture and sound.
_MUCH_UNREAD = 1 << 20
_SHARE_UNREAD = 0.05
_GAP = 0.5  # seconds without a packet, there or before the end, that may be damage
_GAP_FRAMES = 5  # and at least so many frames
_SOUND_RUNS_ON = 1.0  # seconds that sound may outlast the pictures where one length is for both
_SOUND_SHARE = 0.05  # or this share of it
_MOST_DELAY = 17  # packets between what is missing and where times show it: pictures are reordered
_MAX_READ_ERRORS = 100  # in a row; then the rest of the recording is given up
_CLOCK_RANGE = 1 << 33  # timestamps there begin anew after it: a day and two and a half hours
_LOOK_BACK = 2  # packets before which a time lies that is another recording's: one may be broken
_LOOK_AHEAD = 3  # packets that must do so
_FAR_OFF = 10.0  # seconds by which a single packet's time is wrong for certain
_DOUBTED = 2  # packets before another recording that look broken and are not

if TYPE_CHECKING:
    Packet = av.Packet[VideoStream]
else:  # it is generic for the type checker alone
    Packet = av.Packet


@dataclass(frozen=True, slots=True)
class Damage:
    """A stretch that cannot be decoded, from ``at`` seconds on."""

    at: float
    problem: str


def words(error: Exception) -> str:
    """Say what FFmpeg said, without its error number and path."""
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return said[:1].lower() + said[1:]


class Packets:
    """The packets of a recording; gaps, read errors and a missing end come as damage.

    Attributes:
        next: The recording after it, if it is found only when this one is read.
        cut: Whether it was cut off, and no damage says so.
        timeless: Whether it has no timestamps: packets get them by their order.
    """

    def __init__(
        self,
        path: str,
        recording: Recording,
        container: InputContainer,
        stream: VideoStream,
        clock: "StreamClock",
    ) -> None:
        self._path, self._recording = path, recording
        self._container, self._stream, self._clock = container, stream, clock
        self._format = container.format.name
        self._places: deque[int] = deque(maxlen=_MOST_DELAY)
        self._lately: deque[int] = deque(maxlen=_LOOK_BACK)
        self.next: Recording | None = None
        self._last: deque[Packet | str] = deque()
        self.cut = False
        self.timeless = self._format in _NO_TIMES

    def __iter__(self) -> Iterator[Packet | Damage]:
        clock = self._clock
        for packet in self._up_to_next() if self._format in STARTS else self._demux():
            if isinstance(packet, str):
                yield Damage(clock.packet_end, packet)
                continue
            if self.timeless:
                packet.dts = clock.next_stamp()
            before = clock.packet_end
            clock.advance(packet)
            if clock.packet_at - before >= clock.noticeable and self._lost_before(packet):
                between = f"between {before:.1f} s and {clock.packet_at:.1f} s"
                yield Damage(before, f"nothing {between}")
            self._places.append(packet.pos or 0)
            yield packet
        if self.next is None:
            yield from self._end()

    def _up_to_next(self) -> Iterator[Packet | str]:
        """Yield what ``_demux`` does up to the first packet of another recording."""
        turned: list[Packet] = []
        for packet in self._demux():
            if not isinstance(packet, str):
                if self._turns_back(packet):
                    turned.append(packet)
                    if len(turned) == _LOOK_AHEAD:
                        break
                    continue
                if self._starts_over(packet):
                    turned = [packet]
                    break
                self._correct(turned, packet)
            self._last.extend((*turned, packet))
            turned = []
            while len(self._last) > _DOUBTED:
                yield self._last.popleft()
        if turned:
            self._join(turned[0])
        yield from self._last

    def _demux(self) -> Iterator[Packet | str]:
        """Yield packets, and in words what keeps them from being read."""
        errors = 0
        while errors < _MAX_READ_ERRORS:
            try:
                for packet in self._container.demux(self._stream):
                    errors = 0
                    if packet.size or packet.dts is not None:  # else it says that all is read
                        yield packet
                return
            except av.FFmpegError as error:
                errors += 1
                if errors == 1 and not padded(self._path, self._recording.end):
                    yield words(error)

    def _turns_back(self, packet: Packet) -> bool:
        """Whether a packet's time lies before those of the last ones: another recording's."""
        if self._format not in STARTS or packet.dts is None:
            return False
        half = _CLOCK_RANGE // 2
        earliest = min(self._lately, default=packet.dts)
        if (packet.dts - earliest + half) % _CLOCK_RANGE < half:
            return True
        self._lately.append(packet.dts)
        return False

    def _starts_over(self, packet: Packet) -> bool:
        """Whether a packet is another recording's, whose time happens to be later."""
        if self._format != "mpegts" or not any(each.is_corrupt for each in self._doubted):
            return False
        before = self._clock.packet_end + _DOUBTED * self._clock.noticeable
        begins = packet.is_keyframe or self._clock.at(packet.dts) >= before
        if packet.pos is None or not begins:
            return False
        start = self._recording.start
        return starts_over(self._path, start + self._last_place, start + packet.pos)

    def _correct(self, turned: list[Packet], packet: Packet) -> None:
        """Take their times from packets before this one that are far from all others."""
        at = self._clock.at(packet.dts)
        before = self._doubted[-1:]
        ahead = [each for each in before if self._clock.at(each.dts) - at > _FAR_OFF]
        back = [each for each in turned if abs(at - self._clock.at(each.dts)) > _FAR_OFF]
        for each in (*ahead, *back):
            each.dts = each.pts = None

    @property
    def _doubted(self) -> list[Packet]:
        return [packet for packet in self._last if not isinstance(packet, str)]

    @property
    def _last_place(self) -> int:
        return max((packet.pos or 0 for packet in self._doubted), default=0)

    def _join(self, first: Packet) -> None:
        """Note where the next recording begins, given its first packet."""
        start, end = self._recording.start, self._recording.end
        if first.pos is not None:
            at = next_start(self._path, self._format, start + self._last_place, start + first.pos)
            self.next = Recording(at, end)
        for packet in self._doubted:  # it looks so, as the next recording numbers packets anew
            packet.is_corrupt = False

    def _find_next(self) -> None:
        """Look for a recording in what was not read: FFmpeg ends where another file begins."""
        start, end = self._recording.start, self._recording.end
        after = start + self._last_place + 1
        rest = end - after
        much = rest > min(_MUCH_UNREAD, (end - start) * _SHARE_UNREAD)
        if self._format in STARTS and self._places and (much or self._format not in _REPEATED):
            at = start_after(self._path, self._format, after, end)
            if at is not None:
                self.next = Recording(at, end, sure=False)

    def _lost_before(self, packet: Packet) -> bool:
        """Whether a stretch without pictures is damage, and not a scene in which nothing moved."""
        if self._format != _SILENT_GAPS or packet.pos is None:
            return False
        return self._broken(self._recording.start + packet.pos, block=True)

    def _broken(self, until: int, *, block: bool) -> bool:
        """Whether bytes since a few packets ago are not what a Matroska file is made of."""
        if not self._places:
            return False
        since = self._recording.start + self._places[0]
        return not intact(self._path, since, until, block=block)

    def _end(self) -> Iterator[Damage]:
        """Compare the last packet with the length that the recording announces."""
        if not (self._recording.sure or self._places):
            return
        self._find_next()
        clock, stream = self._clock, self._stream
        allowed = clock.noticeable
        if stream.duration is not None:
            length = float(stream.duration * (stream.time_base or 0))
        else:
            length = (self._container.duration or 0) / av.time_base
            allowed = max(allowed, _SOUND_RUNS_ON, _SOUND_SHARE * length)
        length += clock.begin
        quiet = self._format == _SILENT_GAPS and not self._broken(self._recording.end, block=False)
        if length - clock.packet_end >= allowed and not quiet:
            yield Damage(clock.packet_end, f"it ends at {clock.packet_end:.1f} s of {length:.1f} s")
        else:
            self.cut = self._recording.cut


class StreamClock:
    """Turns a recording's timestamps into seconds from the beginning of the first recording.

    Attributes:
        begin: When this recording begins.
        end: When the last picture so far ends.
        packet_at: When the last packet so far is decoded.
        packet_end: When the last packet so far ends.
        shown: When the last packet so far is shown.
        noticeable: Seconds without a packet that are more than a few frames.
    """

    def __init__(self, stream: VideoStream, begin: float) -> None:
        self._unit = float(stream.time_base or 0)
        self._start = (stream.start_time or 0) * self._unit - begin
        rate = stream.average_rate or stream.base_rate
        self._frame_time = 1 / float(rate) if rate else 0.04
        self._last_frame = begin - self._frame_time
        self.begin = self.end = self.shown = self.packet_at = self.packet_end = begin
        self.noticeable = max(_GAP, _GAP_FRAMES * self._frame_time)

    def advance(self, packet: Packet) -> None:
        """Note a packet's time."""
        decoded, shown = packet.dts, packet.pts
        stamp = decoded if decoded is not None else shown
        if stamp is None:
            return
        self.packet_at = stamp * self._unit - self._start
        self.shown = self.packet_at if shown is None else shown * self._unit - self._start
        lasts = (packet.duration or 0) * self._unit or self._frame_time
        self.packet_end = max(self.packet_end, self.packet_at + lasts)
        self.end = max(self.end, self.shown + lasts)

    def next_stamp(self) -> int:
        """Return a timestamp for a packet that has none and follows the last one."""
        return round((self.packet_end + self._start) / self._unit)

    def at(self, stamp: int | None) -> float:
        """Return when a timestamp is; where there is none, when the last packet was."""
        return self.packet_at if stamp is None else stamp * self._unit - self._start

    def time_of(self, frame: VideoFrame) -> float:
        """Return when a frame is shown; where the file does not say, one frame after the last."""
        stamp = frame.pts if frame.pts is not None else frame.dts
        if stamp is None:
            self._last_frame += self._frame_time
        else:
            self._last_frame = self.at(stamp)
        return self._last_frame
