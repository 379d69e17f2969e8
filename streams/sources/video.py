"""Sample pictures from videos by PyAV: keyframes, or so many a second; nothing is kept in memory.

What a damaged stretch of a video would have shown is told by one `Unreadable` record; the pictures
before and after it are yielded as usual.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from schemas.bounds import MOST_TIME
from schemas.errors import ImageError, UsageError
from schemas.records import Head, Image, Inline, Payload, Unreadable
from streams.sources.identity import display, fault_content, frame_place, image_id
from streams.sources.payload import video_content

# Playlists would make a “video” read other files or the network; they are not on the list.
_OPEN = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,asf,flv,ogg,h264,hevc",
}
_SILENT_GAPS = frozenset({"matroska,webm"})  # readers that skip damage without a word
_GAP = 0.5  # seconds without a packet, there or before the end, that count as damage
_GAP_FRAMES = 5  # and at least so many frames
_SOUND_RUNS_ON = 1.0  # seconds that sound may outlast the pictures where one length is for both
_SOUND_SHARE = 0.05  # or this share of it
_MAX_SEEK_FRAMES = 900  # between a keyframe and the frame sought: half a minute
_MAX_READ_ERRORS = 100  # in a row; then the rest of the file is given up
# Decoders that ignore skip_frame: their other packets are left out before decoding.
_KEY_PACKETS_ONLY = frozenset({"vp8", "vp9", "libvpx", "libvpx-vp9"})
_ISO_6709 = re.compile(r"([+-]\d+(?:\.\d+)?)([+-]\d+(?:\.\d+)?)")


@dataclass(frozen=True, slots=True)
class VideoOptions:
    """How videos are sampled.

    Attributes:
        encode: Turns RGB uint8 [H, W, 3] into a picture file's bytes; called once per picture.
        fps: Pictures per second of video; ``None`` takes the keyframes.
    """

    encode: Callable[[npt.NDArray[np.uint8]], bytes]
    fps: float | None = None

    def __post_init__(self) -> None:
        """Refuse what is no rate.

        Raises:
            UsageError: ``fps`` is not above 0.
        """
        if self.fps is not None and not self.fps > 0:
            raise UsageError(f"pictures per second of video: expected more than 0, got {self.fps}")


@dataclass(frozen=True, slots=True)
class _Picture:
    """A decoded frame, upright, at ``at`` seconds."""

    at: float
    frame: VideoFrame


@dataclass(frozen=True, slots=True)
class _Damage:
    """A stretch that cannot be decoded, from ``at`` seconds on."""

    at: float
    problem: str


def read_video(path: str, options: VideoOptions) -> Iterator[Image]:
    """Yield a video's sampled pictures as inline records, in the order they are shown.

    Their uri is ``<path>#t=<seconds>``, the same on every run. A file that is no video yields one
    `Unreadable` under its own name.
    """
    try:
        content = video_content(path)
    except ImageError as error:
        yield unreadable_video(path, error)
        return
    yield from read_frames(path, content, options)


def unreadable_video(path: str, error: ImageError) -> Image:
    """Return the record of a video of which nothing can be read."""
    head = _head(path, fault_content(error.fault), None, None, None)
    return Image(head, Unreadable(error.fault, error.problem))


def read_frames(path: str, content: bytes, options: VideoOptions) -> Iterator[Image]:
    """Yield what ``read_video`` does.

    Args:
        path: The file.
        content: What ``video_content`` returns for it.
        options: How it is sampled.
    """
    try:
        with _open(path) as container:
            if not container.streams.video:
                raise ImageError("unsupported", "the file holds sound but no video")
            place = _place(container)
            for index, found in enumerate(_sample(container, options.fps)):
                yield _frame(path, content, found, index, place, options)
    except ImageError as error:
        yield unreadable_video(path, error)


def _frame(
    path: str,
    content: bytes,
    found: "_Picture | _Damage",
    index: int,
    place: tuple[float, float] | None,
    options: VideoOptions,
) -> Image:
    payload = _payload(found, options)
    if isinstance(payload, Unreadable):
        content = fault_content(payload.fault, content)
    return Image(_head(path, content, found.at, index, place), payload)


def _open(path: str) -> InputContainer:
    try:
        return av.open(f"file:{Path(path).absolute()}", options=_OPEN, metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise ImageError(
            "damaged_video",
            f"cannot be opened as a video: {_words(error)} (a recording that broke off "
            "before its end looks like this)",
        ) from None


def _payload(found: _Picture | _Damage, options: VideoOptions) -> Payload:
    if isinstance(found, _Damage):
        return Unreadable("damaged_video", found.problem)
    try:
        return Inline(options.encode(_upright(found.frame)))
    except (av.FFmpegError, ValueError, MemoryError) as error:
        return Unreadable("damaged_video", f"the frame cannot be converted: {_words(error)}")


def _upright(frame: VideoFrame) -> npt.NDArray[np.uint8]:
    """Convert a frame to RGB uint8 [H, W, 3], turned as its display matrix says."""
    pixels = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    quarters = round(frame.rotation / 90) % 4  # counter-clockwise, as in np.rot90
    return np.ascontiguousarray(np.rot90(pixels, quarters))


def picture_at(path: str, seconds: float) -> npt.NDArray[np.uint8] | None:
    """Return the frame that ``read_video`` called ``#t=<seconds>``, or ``None`` if it cannot.

    RGB uint8 [H, W, 3], upright. It seeks to the keyframe before and decodes from there.
    """
    try:
        with _open(path) as container:
            stream = container.streams.video[0]
            start = float((stream.start_time or 0) * (stream.time_base or 0))
            container.seek(round((seconds + start) * av.time_base))
            for frame in islice(container.decode(stream), _MAX_SEEK_FRAMES):
                if frame.time is not None and frame.time - start >= seconds - 0.001:
                    return _upright(frame)
    except (ImageError, av.FFmpegError, IndexError, ValueError, OverflowError):
        pass
    return None


def _head(
    path: str,
    content: bytes,
    at: float | None,
    index: int | None,
    place: tuple[float, float] | None,
) -> Head:
    uri = display(path)
    latitude, longitude = place or (None, None)
    identity = image_id(frame_place(path, at), content)
    return Head(
        image_id=identity,
        uri=frame_place(uri, at),
        session_id=uri,
        frame_index=index,
        captured_at=at if at is None or abs(at) <= MOST_TIME else None,
        latitude=latitude,
        longitude=longitude,
        # Not of the JPEG: another version of the encoder makes another one of the same frame.
        content_hash=None if at is None else bytes.fromhex(identity),
    )


def _place(container: InputContainer) -> tuple[float, float] | None:
    """Read the one GPS point that phones and some cameras write into a QuickTime file."""
    for key, value in container.metadata.items():
        if key.lower().startswith(("location", "com.apple.quicktime.location.iso6709")):
            found = _ISO_6709.match(value)
            if found and abs(float(found[1])) <= 90 and abs(float(found[2])) <= 180:
                return float(found[1]), float(found[2])
    return None


def _sample(container: InputContainer, fps: float | None) -> Iterator[_Picture | _Damage]:
    """Choose among a video's pictures; times never repeat, so that uris do not."""
    last, last_damage, due = -1.0, -1.0, 0.0
    for found in _decode(container, container.streams.video[0], keyframes=fps is None):
        at = round(max(found.at, 0.0), 3)
        if isinstance(found, _Damage):
            # A millisecond off, as the decoder may still hold a good picture of that time.
            last_damage = max(at, last_damage) + 0.001
            yield _Damage(last_damage, found.problem)
        elif at > last and (fps is None or at >= due - 0.0005):
            last = at
            if fps is not None:
                due = (int(at * fps + 0.001) + 1) / fps
            yield _Picture(at, found.frame)


def _decode(
    container: InputContainer, stream: VideoStream, *, keyframes: bool
) -> Iterator[_Picture | _Damage]:
    """Yield all pictures, or the keyframes, and each damaged stretch once.

    Pictures between damage and the next keyframe are left out: they build on what is missing.
    """
    if keyframes:
        stream.codec_context.skip_frame = "NONKEY"
    key_packets = keyframes and stream.codec_context.name in _KEY_PACKETS_ONLY
    clock = _StreamClock(stream)
    broken_at: float | None = None
    for packet in _packets(container, stream, clock):
        frames: list[VideoFrame] = []
        problem: str | None = None
        if isinstance(packet, _Damage):
            problem = packet.problem
        elif key_packets and packet.size and not packet.is_keyframe:
            continue
        else:
            frames, problem = _frames(packet)
        for frame in frames:
            if frame.is_corrupt:
                problem = problem or "the picture is damaged"
            elif clock.follows(frame, broken_at) and (frame.key_frame or not keyframes):
                picture = _Picture(clock.time_of(frame), frame)
                if broken_at is not None and picture.at >= broken_at:
                    broken_at = None
                yield picture
        if problem is not None and broken_at is None:
            broken_at = packet.at if isinstance(packet, _Damage) else clock.shown_at(packet)
            yield _Damage(broken_at, f"part of the video cannot be decoded: {problem}")


def _frames(packet: "av.Packet[VideoStream]") -> tuple[list[VideoFrame], str | None]:
    try:
        return packet.decode(), "broken data" if packet.is_corrupt else None
    except (av.FFmpegError, ValueError) as error:
        return [], _words(error)


def _packets(
    container: InputContainer, stream: VideoStream, clock: "_StreamClock"
) -> "Iterator[av.Packet[VideoStream] | _Damage]":
    """Yield packets; gaps, read errors and a missing end come as damage."""
    errors = 0
    while errors < _MAX_READ_ERRORS:
        try:
            for packet in container.demux(stream):
                errors = 0
                if (gap := clock.advance(packet)) is not None:
                    yield gap
                yield packet
            break
        except av.FFmpegError as error:
            errors += 1
            if errors == 1:
                yield _Damage(clock.packet_end, _words(error))
    if (missing := clock.missing_end(container)) is not None:
        yield missing


class _StreamClock:
    """Turns a stream's timestamps into seconds from its start, and notices what is missing."""

    def __init__(self, stream: VideoStream) -> None:
        self._stream = stream
        self._unit = float(stream.time_base or 0)
        self._start = (stream.start_time or 0) * self._unit
        rate = stream.average_rate or stream.base_rate
        self._frame_time = 1 / float(rate) if rate else 0.04
        self._last_frame = -self._frame_time
        self.packet_at = 0.0
        self.packet_end = 0.0

    def advance(self, packet: "av.Packet[VideoStream]") -> _Damage | None:
        """Note a packet's time; return the gap before it where that means damage."""
        stamp = packet.dts if packet.dts is not None else packet.pts
        if stamp is None:
            return None
        before, self.packet_at = self.packet_end, stamp * self._unit - self._start
        lasts = packet.duration * self._unit if packet.duration else self._frame_time
        self.packet_end = max(before, self.packet_at + lasts)
        if self._stream.container.format.name not in _SILENT_GAPS:
            return None
        if self.packet_at - before < max(_GAP, _GAP_FRAMES * self._frame_time):
            return None
        return _Damage(before, f"nothing between {before:.1f} s and {self.packet_at:.1f} s")

    def shown_at(self, packet: "av.Packet[VideoStream]") -> float:
        """Return when a packet's picture would be shown."""
        return self.packet_at if packet.pts is None else packet.pts * self._unit - self._start

    def follows(self, frame: VideoFrame, broken_at: float | None) -> bool:
        """Whether a frame can be trusted: nothing broken, from before that, or a new beginning."""
        if broken_at is None:
            return True
        if frame.pts is None:
            return False
        return frame.key_frame or frame.pts * self._unit - self._start < broken_at

    def time_of(self, frame: VideoFrame) -> float:
        """Return when a frame is shown; where the file does not say, one frame after the last."""
        stamp = frame.pts if frame.pts is not None else frame.dts
        if stamp is None:
            self._last_frame += self._frame_time
        else:
            self._last_frame = stamp * self._unit - self._start
        return self._last_frame

    def missing_end(self, container: InputContainer) -> _Damage | None:
        """Compare the last packet with the length that the file announces."""
        allowed = max(_GAP, _GAP_FRAMES * self._frame_time)
        if self._stream.duration is not None:
            length = self._stream.duration * self._unit
        else:
            length = (container.duration or 0) / av.time_base
            allowed = max(allowed, _SOUND_RUNS_ON, _SOUND_SHARE * length)
        if length - self.packet_end < allowed:
            return None
        return _Damage(self.packet_end, f"it ends at {self.packet_end:.1f} s of {length:.1f} s")


def _words(error: Exception) -> str:
    """Say what FFmpeg said, without its error number and path."""
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return words[:1].lower() + words[1:]
