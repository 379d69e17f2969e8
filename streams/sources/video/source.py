"""Sample pictures from videos: keyframes, or so many a second; nothing is kept in memory.

What a damaged stretch of a video would have shown is told by one `Unreadable` record; the pictures
before and after it are yielded as usual.
"""

import re
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import dropwhile, islice
from typing import Literal

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from roadstream.schemas.errors import ImageError
from roadstream.schemas.records.bounds import MOST_TIME
from roadstream.schemas.records.image import Inline, Payload, Unreadable
from roadstream.streams.sources.identity import fault_content, frame_place, image_id
from roadstream.streams.sources.payload import file_fault, video_content
from roadstream.streams.sources.source import (
    Container,
    Item,
    LeftOut,
    Source,
    VideoOptions,
    unreadable,
)
from roadstream.streams.sources.video.frames import (
    FAR,
    Note,
    Picture,
    begun,
    decode,
    find_stream,
    is_cover,
    main_stream,
    open_first,
    open_video,
    recording_at,
)
from roadstream.streams.sources.video.packets import Damage, words

_MAX_SEEK_FRAMES = 900  # between a keyframe and the frame sought: half a minute
# Seconds before a frame at which seeking begins: MPEG streams have no index and come out later.
_SEEK_LEADS = (0.0, 2.0, 20.0, float("inf"))
_ISO_6709 = re.compile(r"([+-]\d+(?:\.\d+)?)([+-]\d+(?:\.\d+)?)")


class VideoSource(Source):
    """Yields a video's sampled pictures, stream by stream, in the order shown.

    Their place is ``<path>#t=<seconds>``, the same on every run; those of a stream that is not the
    largest end in ``&stream=<number>``. A file that is no video is one `Unreadable` under its own
    name.

    Args:
        path: The file.
        options: How it is sampled.
        sure: Whether it is called a video by its name; else one that holds none is left out.
    """

    def __init__(self, path: str, options: VideoOptions, *, sure: bool = True) -> None:
        self._path, self._options, self._sure = path, options, sure

    def scan(self, left_out: LeftOut) -> Iterator[Item | Container]:
        path = self._path
        try:
            content = video_content(path)
        except ImageError as error:
            if error.fault != "missing":  # else its frames are still those of the file that was
                yield Container(path, image_id(path, fault_content(error.fault)))
            yield unreadable(path, error, session=path)
            return
        yield Container(path, image_id(path, content))
        try:
            yield from self._frames(content, partial(left_out.note, path))
        except (ImageError, OSError) as error:
            fault = error if isinstance(error, ImageError) else file_fault(error)
            if fault.fault == "unsupported" and not self._sure:
                left_out.add(fault.problem, path)
            else:
                yield unreadable(path, fault, session=path)

    def _frames(self, content: bytes, note: Note) -> Iterator[Item]:
        path, options = self._path, self._options
        opened = open_first(path)
        latitude, longitude = _position(opened.container)
        for number, stream in enumerate(_chosen(opened.container, options.stream, note)):
            opened = open_first(path) if number else opened
            with opened.container:
                decoded = decode(path, opened, stream, note, keyframes=options.fps is None)
                found = None
                for index, found in enumerate(_sample(decoded, options.fps)):
                    yield Item(
                        frame_place(path, found.at, stream),
                        partial(_payload, found, options),
                        content=content,
                        session_id=path if stream is None else f"{path}#stream={stream}",
                        frame_index=index,
                        captured_at=found.at if abs(found.at) <= MOST_TIME else None,
                        latitude=latitude,
                        longitude=longitude,
                    )
            if found is None:
                what = "" if stream is None else f" of stream {stream}"
                raise ImageError("damaged_video", f"no picture{what} can be decoded")


def _chosen(
    container: InputContainer, wanted: int | Literal["all"] | None, note: Note
) -> list[int | None]:
    """Return the streams to be taken, the main one as ``None``; the others are named.

    Raises:
        ImageError: ``unsupported``: there is none.
    """
    main = main_stream(container)
    streams = begun(container) or ([] if main is None else [main])
    if wanted == "all":
        taken = [stream for stream in streams if not is_cover(stream)]
        taken.sort(key=lambda stream: stream is not main)
    elif wanted is None:
        taken = [] if main is None else [main]
    else:
        taken = [stream for stream in streams if stream.index == wanted]
    unknown = [each for each in container.streams.video if each.codec_context is None]
    if unknown and not streams:
        raise ImageError("unsupported", "the codec of the video is not known")
    if not taken:
        raise ImageError("unsupported", _no_stream(streams, wanted))
    for stream in unknown:
        note(f"stream {stream.index} left out (its codec is not known)")
    for stream in streams:
        if stream not in taken:
            why = "a cover picture" if is_cover(stream) else "--stream all judges it too"
            note(f"{_described(stream)} left out ({why})")
    return [None if stream is main else stream.index for stream in taken]


def _no_stream(streams: Sequence[VideoStream], wanted: int | Literal["all"] | None) -> str:
    if not streams:
        return "the file holds sound but no video"
    if isinstance(wanted, int):
        there = ", ".join(map(_described, streams))
        return f"expected a video stream {wanted}, the file holds {there}"
    return "the file holds a cover picture but no video"


def _described(stream: VideoStream) -> str:
    context = stream.codec_context
    size = f"{context.width}×{context.height} " if context.width else ""
    return f"stream {stream.index} ({size}{context.name})"


def _payload(found: Picture | Damage, options: VideoOptions) -> Payload:
    if isinstance(found, Damage):
        return Unreadable("damaged_video", found.problem)
    try:
        return Inline(options.encode(_upright(found.frame)))
    except (av.FFmpegError, ValueError, MemoryError) as error:
        return Unreadable("damaged_video", f"the frame cannot be converted: {words(error)}")


def _upright(frame: VideoFrame) -> npt.NDArray[np.uint8]:
    """Convert a frame to RGB uint8 [H, W, 3], turned as its display matrix says."""
    pixels = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    quarters = round(frame.rotation / 90) % 4  # counter-clockwise, as in np.rot90
    return np.ascontiguousarray(np.rot90(pixels, quarters))


def picture_at(
    path: str, seconds: float, stream: int | None = None
) -> npt.NDArray[np.uint8] | None:
    """Return the frame that ``VideoSource`` called ``#t=<seconds>``, or ``None`` if it cannot.

    RGB uint8 [H, W, 3], upright. It seeks to the keyframe before and decodes from there.

    Args:
        path: The file.
        seconds: The time in its uri.
        stream: The stream in its uri, if any.
    """
    try:
        recording, begin = recording_at(path, seconds, stream)
        for lead in _SEEK_LEADS:
            with open_video(path, recording) as container:
                frame = _seek(container, stream, seconds - begin, lead)
                if frame is not None:
                    return _upright(frame)
    except (ImageError, av.FFmpegError, OSError, ValueError, OverflowError):
        pass
    return None


def _seek(
    container: InputContainer, index: int | None, seconds: float, lead: float
) -> VideoFrame | None:
    """Return the frame of a recording that is shown at a time, if it comes on the way from before.

    Args:
        container: The recording.
        index: The stream; ``None`` for the main one.
        seconds: The time, from its beginning.
        lead: Seconds before it that are sought.
    """
    stream = find_stream(container, index)
    if stream is None:
        return None
    start = float((stream.start_time or 0) * (stream.time_base or 0))
    frames: Iterator[VideoFrame] = islice(container.decode(stream), _MAX_SEEK_FRAMES)
    if seconds > lead:
        container.seek(round((seconds - lead + start) * av.time_base))
        frames = dropwhile(lambda frame: not frame.key_frame, frames)  # they may be grey
    for frame in frames:
        if frame.time is not None and frame.time - start >= seconds - 0.001:
            return frame if frame.time - start <= seconds + 0.001 else None
    return None


def _position(container: InputContainer) -> tuple[float, float] | tuple[None, None]:
    """Return the one GPS point that phones and some cameras write into a QuickTime file."""
    for key, value in container.metadata.items():
        if key.lower().startswith(("location", "com.apple.quicktime.location.iso6709")):
            found = _ISO_6709.match(value)
            if found and abs(float(found[1])) <= 90 and abs(float(found[2])) <= 180:
                return float(found[1]), float(found[2])
    return None, None


def _sample(found: Iterator[Picture | Damage], fps: float | None) -> Iterator[Picture | Damage]:
    """Choose among a video's pictures; times never repeat, so that uris do not."""
    last, last_damage, due = -1.0, -1.0, 0.0
    keyframe_at = 0.0
    for each in found:
        at = round(max(each.at, 0.0), 3)
        if isinstance(each, Damage):
            # A millisecond off, as the decoder may still hold a good picture of that time.
            last_damage = round(max(at, last_damage) + 0.001, 3)
            yield Damage(last_damage, each.problem)
            continue
        key = fps is None and each.frame.key_frame
        if at <= last or not (key or at >= due - 0.0005):
            continue
        last = at
        if fps is not None:
            due = (int(at * fps + 0.001) + 1) / fps
        else:
            keyframe_at = at if key else keyframe_at
            due = keyframe_at + (int((at - keyframe_at) / FAR + 0.0001) + 1) * FAR
        yield Picture(at, each.frame)
