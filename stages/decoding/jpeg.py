"""JPEG: read the header without trust, decode at a power-of-two scale (libjpeg-turbo)."""

import re
import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import simplejpeg

from roadstream.schemas.errors import ImageError
from roadstream.stages.decoding import exif, jpeg_mend
from roadstream.stages.decoding.jpeg_mend import FRAMES
from roadstream.stages.decoding.jpeg_padding import without_padding

_MARKER = re.compile(rb"\xff+([^\xff\x00])")
_NO_BODY = frozenset({0x01, *range(0xD0, 0xD9)})  # TEM, RST0–7, SOI stand alone
_END, _SCAN, _EXIF = 0xD9, 0xDA, 0xE1
_DECODABLE_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
_PROGRESSIVE = frozenset({0xC2, 0xCA})
# Frame, tables, restart interval, and Adobe's colour transform: what the pixels depend on.
_ESSENTIAL = FRAMES | {0xC4, 0xCC, 0xDB, 0xDD, 0xE0, 0xEE}
_FIXED = 2 << 20  # bytes of memory besides pixels and coefficients
_COPIES = 8  # bytes for each of a JPEG that is mended
_MAX_SEGMENTS = 10_000  # the worst cameras write some hundreds (an ICC profile in pieces)
_MAX_SCANS = 500  # the limit libjpeg-turbo's own fuzzers set; encoders write about ten

# Only these are SIMD-fast in libjpeg-turbo; 7/8, 3/4, 5/8 and 3/8 cost more than full size.
SCALES = (8, 4, 2, 1)


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """What stands before a JPEG's first scan.

    Attributes:
        width: Stored width in pixels, before rotation.
        height: Stored height in pixels, before rotation.
        progressive: Whether scans give coefficients bit by bit.
        components: Colour components.
        coefficients: Bytes that all coefficients take, where decoding has to hold them; else 0.
        orientation: EXIF orientation, 1 to 8; 1 when absent or corrupt.
        segments: (start, end) of the segments that the pixels depend on.
        scan_at: Where the first scan's marker stands.
    """

    width: int
    height: int
    progressive: bool
    components: int
    coefficients: int
    orientation: int
    segments: tuple[tuple[int, int], ...]
    scan_at: int

    def memory(self, scale: int) -> int:
        """Return the bytes that decoding at 1/``scale`` takes, and turning the result."""
        pixels = -(-self.width // scale) * -(-self.height // scale)
        turned = 3 if self.orientation > 1 else 0
        inked = 4 if self.components == 4 else 0
        return (3 + max(turned, inked)) * pixels + self.coefficients + _FIXED


def read_header(data: bytes) -> JpegHeader:
    """Read a JPEG's header.

    Raises:
        ImageError: ``truncated``, ``damaged`` or ``unsupported``.
    """
    segments, scan_at = _segments(data)
    frames = [(marker, start) for marker, start, _ in segments if marker in FRAMES]
    if scan_at < 0:
        raise ImageError("truncated", f"JPEG ends in its header, after {len(data):,} bytes")
    if not frames:
        raise ImageError("damaged", "JPEG without a frame header")
    marker, start = frames[0]
    if marker not in _DECODABLE_FRAMES:
        raise ImageError(
            "unsupported",
            f"JPEG of a rare kind (frame type 0x{marker:02x}, lossless "
            "or hierarchical); save it as an ordinary JPEG",
        )
    width, height = _frame_size(data[start : start + 10])
    factors = data[start + 11 : start + 10 + 3 * data[start + 9] : 3]
    held = marker in _PROGRESSIVE or data[scan_at + 4 : scan_at + 5] < bytes([len(factors)])
    return JpegHeader(
        width=width,
        height=height,
        progressive=marker in _PROGRESSIVE,
        components=len(factors),
        coefficients=_coefficients((width, height), factors) if held else 0,
        orientation=exif.orientation(_exif(data, segments)),
        segments=tuple((start, end) for marker, start, end in segments if marker in _ESSENTIAL),
        scan_at=scan_at,
    )


def decode_scaled(data: bytes, header: JpegHeader, scale: int, room: int) -> npt.NDArray[np.uint8]:
    """Decode at 1/``scale`` of the stored size, not yet rotated.

    Args:
        data: The JPEG.
        header: Its header.
        scale: One of `SCALES`.
        room: Bytes that may be taken besides `JpegHeader.memory`.

    Returns:
        RGB uint8 [⌈H/scale⌉, ⌈W/scale⌉, 3].

    Raises:
        ImageError: ``truncated``, ``damaged`` or ``unsupported``.
    """
    if header.progressive and data.count(b"\xff\xda", header.scan_at) > _MAX_SCANS:
        raise ImageError("damaged", f"progressive JPEG with more than {_MAX_SCANS} scans")
    fault = ImageError("truncated", f"JPEG of {len(data):,} bytes has no end")
    if ended := data.rfind(b"\xff\xd9", header.scan_at) >= 0:
        try:
            return _strict(data, header, scale)
        except (ValueError, MemoryError) as error:
            fault = _fault(error)
    mendable = not ended or fault.fault in {"damaged", "unsupported"}
    if not mendable or len(data) > room // _COPIES:
        raise fault
    try:
        return _decode_mended(data, header, scale, ended=ended)
    except (ValueError, MemoryError) as error:
        raise (_fault(error) if ended else fault) from None


def _decode_mended(
    data: bytes, header: JpegHeader, scale: int, *, ended: bool
) -> npt.NDArray[np.uint8]:
    """Decode without what touches no pixel; as a warning hides those after it, none may be left."""
    segments = [data[start:end] for start, end in header.segments]
    components = 0 if header.progressive else header.components
    scans = jpeg_mend.parts(data, header.scan_at, components)
    if not ended and header.progressive and not jpeg_mend.complete(scans):
        raise ValueError("scans are missing")
    try:
        pixels = _strict(jpeg_mend.mended(segments, scans), header, scale)
    except ValueError as error:
        unpadded = "extraneous" in str(error) and without_padding(segments, scans)
        if not unpadded:
            raise
        return _strict(jpeg_mend.mended(segments, unpadded), header, scale)
    # Browsers show the last rows of a sequential JPEG only when anything follows them.
    if not ended and not header.progressive:
        raise ValueError("no end")
    return pixels


def _strict(data: bytes, header: JpegHeader, scale: int) -> npt.NDArray[np.uint8]:
    """Let libjpeg-turbo decode; its warnings count as errors."""
    # simplejpeg takes the smallest n/8 whose output is at least this size: exactly 1/scale.
    image: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(
        data,
        colorspace="RGB",
        min_height=-(-header.height // scale),
        min_width=-(-header.width // scale),
        strict=True,
    )
    return image


def _fault(error: Exception) -> ImageError:
    """Turn libjpeg's words into a fault."""
    words = str(error)
    if isinstance(error, MemoryError):
        return ImageError("too_many_pixels", "JPEG needs more memory than there is")
    if "remature end of JPEG" in words:
        return ImageError("truncated", f"JPEG breaks off ({words})")
    if "color conversion" in words or "subsampling" in words:
        return ImageError("unsupported", f"JPEG of a rare kind ({words})")
    return ImageError("damaged", f"JPEG is damaged ({words})")


def _segments(data: bytes) -> tuple[list[tuple[int, int, int]], int]:
    """List (marker, start, end) up to the first scan, and where that stands (−1: nowhere)."""
    segments: list[tuple[int, int, int]] = []
    at = 2
    while found := _MARKER.search(data, at):
        marker, at = found[1][0], found.end()
        if marker in _NO_BODY:
            continue
        if marker == _SCAN:
            return segments, at - 2
        if marker == _END:
            raise ImageError("damaged", "JPEG ends before its first scan")
        length = int.from_bytes(data[at : at + 2], "big")
        if length < 2:
            continue
        segments.append((marker, at - 2, at + length))
        if len(segments) > _MAX_SEGMENTS:
            raise ImageError("damaged", f"JPEG header of more than {_MAX_SEGMENTS:,} segments")
        at += length
    return segments, -1


def _frame_size(frame: bytes) -> tuple[int, int]:
    """Read width and height from a frame segment's first ten bytes."""
    if len(frame) < 10:
        raise ImageError("truncated", "JPEG ends in its frame header")
    precision, height, width = struct.unpack(">BHH", frame[4:9])
    if precision != 8:
        raise ImageError("unsupported", f"JPEG of {precision} bits per sample; expected 8")
    if width == 0 or height == 0:
        raise ImageError("unsupported", f"JPEG header says {width}×{height} pixels")
    return width, height


def _coefficients(size: tuple[int, int], factors: bytes) -> int:
    """Return the bytes of all coefficients, given how many blocks components have in a unit."""
    across = [factor >> 4 or 1 for factor in factors]
    down = [factor & 15 or 1 for factor in factors]
    units = -(-size[0] // (8 * max(across, default=1))) * -(-size[1] // (8 * max(down, default=1)))
    return 128 * units * sum(a * d for a, d in zip(across, down, strict=True))


def exif_of(data: bytes) -> bytes:
    """Return a JPEG's EXIF block, without the ``Exif`` before it; empty if it has none.

    Raises:
        ImageError: ``damaged``.
    """
    return _exif(data, _segments(data)[0])


def _exif(data: bytes, segments: list[tuple[int, int, int]]) -> bytes:
    for marker, start, end in segments:
        # Chromium passes over one that is empty.
        if marker == _EXIF and data[start + 4 : start + 9] == b"Exif\0" and end > start + 10:
            return data[start + 10 : end]
    return b""
