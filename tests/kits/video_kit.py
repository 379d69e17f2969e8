"""Makes small videos: pictures at given seconds, several streams, sound, recordings joined."""

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Concatenate, ParamSpec

import av
import numpy as np
import numpy.typing as npt

from roadstream.schemas.records.image import Image, Inline, Unreadable

WIDTH, HEIGHT = 160, 96
Size = tuple[int, int]
Options = tuple[tuple[str, str], ...]
P = ParamSpec("P")
# No keyframes but those asked for; soon done.
X264 = {"sc_threshold": "0", "preset": "ultrafast", "threads": "1"}


def once(write: Callable[Concatenate[Path, P], None]) -> Callable[Concatenate[Path, P], None]:
    """Let a function write a file of a kind only once for the same other arguments."""
    written: dict[tuple[object, ...], bytes] = {}

    def again(path: Path, /, *args: P.args, **named: P.kwargs) -> None:
        asked = (path.suffix, args, *named.items())
        if asked in written:
            path.write_bytes(written[asked])
        else:
            write(path, *args, **named)
            written[asked] = path.read_bytes()

    return again


def grey(index: int) -> int:
    """Return the level that picture number ``index`` shows on its right half."""
    return 20 + 2 * (index % 100)


@cache
def picture(index: int, size: Size = (WIDTH, HEIGHT)) -> npt.NDArray[np.uint8]:
    """Draw a picture whose left half is noise, so that packets have some size."""
    width, height = size
    image = np.full((height, width, 3), grey(index), np.uint8)
    noise = np.random.default_rng(index).integers(0, 200, (height, width // 2, 3), np.uint8)
    image[:, : width // 2] = noise
    image.flags.writeable = False
    return image


def tenths(count: int, begin: float = 0.0) -> list[float]:
    """Return so many times, a tenth of a second apart."""
    return [round(begin + index / 10, 3) for index in range(count)]


def film(
    path: Path,
    times: Sequence[float],
    *,
    codecs: Sequence[tuple[str, Size]] = (("libx264", (WIDTH, HEIGHT)),),
    key_every: int = 10,
    options: Mapping[str, str] | None = None,
    muxing: Mapping[str, str] | None = None,
    sound: float = 0.0,
) -> Path:
    """Write pictures that are shown at given seconds, in one stream or more, and silence.

    What is asked for twice is encoded once.
    """
    encoding = tuple((codec, size, _options(codec, options)) for codec, size in codecs)
    _encode(path, tuple(times), encoding, key_every, tuple((muxing or {}).items()), sound)
    return path


@once
def _encode(
    path: Path,
    times: tuple[float, ...],
    encoding: tuple[tuple[str, Size, Options], ...],
    key_every: int,
    muxing: Options,
    sound: float,
) -> None:
    form = {"ts": "mpegts"}.get(path.suffix[1:])
    with av.open(path, "w", format=form, options=dict(muxing)) as container:
        streams = []
        for codec, size, options in encoding:
            stream = container.add_stream(codec, rate=10, options=dict(options))
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height = size
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            stream.codec_context.gop_size = key_every
            stream.codec_context.max_b_frames = 0
            stream.codec_context.time_base = Fraction(1, 1000)
            streams.append((stream, size))
        silence = _silence(container) if sound else None
        for index, at in enumerate(times):
            for stream, size in streams:
                frame = av.VideoFrame.from_ndarray(picture(index, size), format="rgb24")
                frame.time_base, frame.pts = Fraction(1, 1000), round(at * 1000)
                container.mux(stream.encode(frame))
        for stream, _ in streams:
            container.mux(stream.encode(None))
        if silence is not None:
            _play(container, silence, sound)


def _options(codec: str, options: Mapping[str, str] | None) -> Options:
    if options is None:
        options = {
            "libx265": {"x265-params": "log-level=none"},
            "libx264": X264,
            "libvpx": {"deadline": "realtime", "cpu-used": "8"},
        }.get(codec, {"sc_threshold": "1000000000"})
    return tuple(options.items())


def _silence(container: av.container.OutputContainer) -> av.AudioStream:
    stream = container.add_stream("aac", rate=48_000)
    assert isinstance(stream, av.AudioStream)
    return stream


def _play(container: av.container.OutputContainer, stream: av.AudioStream, seconds: float) -> None:
    for begin in range(0, int(seconds * 48_000), 1024):
        samples = np.zeros((1, 1024), np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48_000, begin, Fraction(1, 48_000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def join(path: Path, *parts: Path) -> Path:
    """Put files together as ``cat`` does."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def seconds(images: Sequence[Image]) -> list[float | None]:
    """Return the times of the pictures that can be judged."""
    return [i.head.captured_at for i in images if isinstance(i.payload, Inline)]


def problems(images: Sequence[Image]) -> list[str]:
    """Return what is said of those that cannot."""
    return [i.payload.problem for i in images if isinstance(i.payload, Unreadable)]
