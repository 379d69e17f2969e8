"""PNG: keep the chunks that the pixels depend on, so that no fault of the others can matter."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from roadstream.schemas.errors import ImageError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE = 0, 2, 3
_HEADER = struct.Struct(">IIBBBBB")
_SAMPLES = {GREY: 1, RGB: 3, PALETTE: 1, 4: 2, 6: 4}
# Left, top and distances of the pixels of each pass.
_ALL = ((0, 0, 1, 1),)
_PASSES = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
_PIECE = 1 << 14
_MORE = 1 << 20  # bytes behind the pixels that are looked at


class _Chunk(NamedTuple):
    """A chunk: its type, its body, and whether it is all there and its checksum is right."""

    kind: bytes
    body: memoryview
    sound: bool


@dataclass(frozen=True, slots=True)
class Png:
    """What the pixels of a PNG's first frame depend on.

    Attributes:
        size: Width and height of the picture.
        frame: Left, top, width and height of the pixels within the picture.
        depth: Bits per sample.
        colour: `GREY`, `RGB`, `PALETTE`, or 4 and 6: grey and RGB with alpha.
        interlaced: 1 where the pixels are interlaced, else 0.
        palette: RGB triples, one for every index that may occur; empty for other colours.
        transparency: Body of the tRNS chunk; empty when there is none that counts.
        exif: Body of the eXIf chunk, likewise.
        stream: The zlib stream of the pixels.
        checked: Whether the checksums of all its chunks are right.
    """

    size: tuple[int, int]
    frame: tuple[int, int, int, int]
    depth: int
    colour: int
    interlaced: int
    palette: bytes
    transparency: bytes
    exif: bytes
    stream: bytes
    checked: bool

    @property
    def has_deep_key(self) -> bool:
        """Whether one RGB colour of 16 bits is transparent."""
        return self.depth == 16 and self.colour == RGB and bool(self.transparency)

    @property
    def memory(self) -> int:
        """Bytes that decoding takes more than that of another PNG of this size."""
        width, height = self.size
        whole = self.frame == (0, 0, width, height)
        per_pixel = 20 if self.has_deep_key else 0 if whole else 8
        return per_pixel * width * height + len(self.stream)

    def file(self) -> bytes:
        """Write a PNG of these pixels, with nothing else."""
        return self._file(self.stream)

    def mended(self) -> bytes | None:
        """Write the same with the zlib stream's checksum set right, and nothing behind it.

        Browsers pass over these where the chunks' checksums are right. This is as slow as decoding.

        Returns:
            ``None`` where there is nothing to mend.
        """
        _, checksum, end = self._inflated()
        stream = self.stream[:end] + checksum.to_bytes(4, "big")
        return self._file(stream) if self.checked and end and stream != self.stream else None

    def has_all_rows(self) -> bool:
        """Whether the zlib stream holds as many bytes as the pixels take; as slow as decoding."""
        return self._inflated()[0] >= self._needed()

    def _needed(self) -> int:
        """Return the bytes that the pixels take in the zlib stream."""
        width, height = self.frame[2:]
        bits = self.depth * _SAMPLES.get(self.colour, 1)
        passes = _PASSES if self.interlaced else _ALL
        sizes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in passes]
        return sum(rows * (1 + -(-columns * bits // 8)) for columns, rows in sizes if columns > 0)

    def is_rotten(self) -> bool:
        """Whether neither the checksum of a chunk nor that of the zlib stream is right.

        Where the chunks' are wrong, this is as slow as decoding.
        """
        if self.checked:
            return False
        length, checksum, end = self._inflated()
        if not end:
            return length >= self._needed()
        said = self.stream[end : end + 4]
        return len(said) == 4 and int.from_bytes(said, "big") != checksum

    def _inflated(self) -> tuple[int, int, int]:
        """Return the length and checksum of what the zlib stream holds, and where that ends.

        It ends at 0 where its end is missing, or comes long after the pixels.
        """
        inflate, most = zlib.decompressobj(-zlib.MAX_WBITS), self._needed() + _MORE
        length, checksum = 0, 1
        for at in range(2, len(self.stream), _PIECE):
            try:
                piece = inflate.decompress(self.stream[at : at + _PIECE])
            except zlib.error:
                break
            length, checksum = length + len(piece), zlib.adler32(piece, checksum)
            if length > most:
                break
            if inflate.eof:
                read = min(at + _PIECE, len(self.stream))
                return length, checksum, read - len(inflate.unused_data)
        return length, checksum, 0

    def _file(self, stream: bytes) -> bytes:
        width, height = self.frame[2:]
        layout = (width, height, self.depth, self.colour, 0, 0, self.interlaced)
        chunks = [(b"IHDR", _HEADER.pack(*layout))]
        chunks += [(b"PLTE", self.palette)] * bool(self.palette)
        chunks += [(b"tRNS", self.transparency)] * bool(self.transparency)
        header = [_written(kind, body) for kind, body in chunks]
        # Pillow does not look at this checksum, OpenCV does.
        pixels = _written(b"IDAT", stream, checked=self.has_deep_key)
        return b"".join([SIGNATURE, *header, pixels, _written(b"IEND", b"")])


def read(data: bytes) -> Png:
    """Read a PNG's chunks up to the end of its first frame, as browsers do.

    Faults of chunks that the pixels do not depend on are passed over.

    Raises:
        ImageError: ``truncated``, ``damaged`` or ``unsupported``.
    """
    chunks = _chunks(data)
    head, pixels = _head(chunks)
    if not pixels:
        raise ImageError("truncated", f"PNG of {len(data):,} bytes ends before its pixels")
    width, height, depth, colour, interlaced = _layout(head[b"IHDR"])
    palette, frame = b"", (0, 0, width, height)
    if colour == PALETTE:
        palette = _palette(head.get(b"PLTE", b""), depth)
    after = next((chunk for chunk in chunks if not _continues(chunk, pixels)), None)
    if after and _hides_its_pixels(head):
        frame, pixels = _first_frame(chain([after], chunks), (width, height))
    if not all(chunk.sound for chunk in pixels[:-1]):
        raise ImageError("damaged", "PNG pixels with a wrong checksum")
    return Png(
        size=(width, height),
        frame=frame,
        depth=depth,
        colour=colour,
        interlaced=interlaced,
        palette=palette,
        transparency=_transparency(head, depth, colour),
        exif=head.get(b"eXIf", b""),
        stream=b"".join([chunk.body for chunk in pixels]),
        checked=pixels[-1].sound,
    )


def exif_of(data: bytes) -> bytes:
    """Return the EXIF block that stands before a PNG's pixels; empty if there is none.

    Raises:
        ImageError: ``damaged`` or ``unsupported``.
    """
    return _head(_chunks(data))[0].get(b"eXIf", b"")


def _chunks(data: bytes) -> Iterator[_Chunk]:
    """List the chunks; the last one may be cut short."""
    at, view = len(SIGNATURE), memoryview(data)
    while len(data) >= at + 8:
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        checksum = zlib.crc32(view[at + 4 : end]).to_bytes(4, "big")
        yield _Chunk(data[at + 4 : at + 8], view[at + 8 : end], data[end : end + 4] == checksum)
        at = end + 4


def _head(chunks: Iterator[_Chunk]) -> tuple[dict[bytes, bytes], list[_Chunk]]:
    """Return the first of each kind of chunk before the pixels, and the pixels' first chunk."""
    head: dict[bytes, bytes] = {}
    for chunk in chunks:
        kind, critical = chunk.kind, not chunk.kind[0] & 0x20
        if (kind == b"IHDR") == bool(head) or (kind == b"PLTE" and kind in head):
            raise ImageError("damaged", f"PNG with {_name(kind)} out of its place")
        if kind == b"IDAT":
            return head, [chunk]
        if critical and kind not in {b"IHDR", b"PLTE"}:
            raise ImageError("unsupported", f"PNG of a rare kind (chunk {_name(kind)})")
        if critical and not chunk.sound:
            raise ImageError("damaged", f"PNG with a damaged {_name(kind)}")
        if kind == b"PLTE":  # a transparency before it does not count
            head.pop(b"tRNS", None)
        if chunk.sound:
            head.setdefault(kind, bytes(chunk.body))
    return head, []


def _continues(chunk: _Chunk, pixels: list[_Chunk]) -> bool:
    """Whether a chunk goes on with the pixels; it is added to them then."""
    if chunk.kind == b"IDAT":
        pixels.append(chunk)
    return chunk.kind == b"IDAT"


def _layout(header: bytes) -> tuple[int, int, int, int, int]:
    """Return width, height, depth, colour type and whether rows are interlaced."""
    if len(header) != _HEADER.size:
        raise ImageError("damaged", f"PNG header of {len(header)} bytes; expected {_HEADER.size}")
    width, height, depth, colour, compression, filters, interlaced = _HEADER.unpack(header)
    exist = not compression and not filters and interlaced < 2 and depth in {1, 2, 4, 8, 16}
    if not exist or not width or not height:
        raise ImageError("damaged", "PNG header with values that do not exist")
    return width, height, depth, colour, interlaced


def _palette(entries: bytes, depth: int) -> bytes:
    """Repeat the last colour for all indices beyond, as browsers do."""
    count = len(entries) // 3
    if not count:
        raise ImageError("damaged", "PNG of palette colours without a palette")
    last = entries[3 * count - 3 : 3 * count]
    return entries[: 3 * count] + last * ((1 << min(depth, 8)) - count)


def _transparency(head: dict[bytes, bytes], depth: int, colour: int) -> bytes:
    """Return what Pillow makes transparent: a palette's alphas, or one colour of 8 or 16 bits."""
    body = head.get(b"tRNS", b"")
    if colour == PALETTE:
        return body[: len(head[b"PLTE"]) // 3] if len(body) <= 256 else b""
    samples = {GREY: 1, RGB: 3}.get(colour, 0)
    if len(body) < 2 * samples or depth == 16:
        return body[: 2 * samples] if len(body) >= 2 * samples else b""
    values = [body[2 * at + 1] for at in range(samples)]
    top = (1 << depth) - 1
    if max(values, default=0) > top:
        return b""
    return b"".join([struct.pack(">H", value * 255 // top) for value in values])


def _hides_its_pixels(head: dict[bytes, bytes]) -> bool:
    """Whether an animation follows that the ordinary pixels are no part of."""
    control = head.get(b"acTL", b"")
    return len(control) == 8 and any(control[:4]) and b"fcTL" not in head


def _first_frame(
    chunks: Iterator[_Chunk], canvas: tuple[int, int]
) -> tuple[tuple[int, int, int, int], list[_Chunk]]:
    """Return where an animation's first frame stands, and its pixels."""
    frames = (chunk for chunk in chunks if chunk.kind in {b"fcTL", b"fdAT"})
    control = next(frames, _Chunk(b"", memoryview(b""), sound=False))
    if not (control.kind == b"fcTL" and control.sound and len(control.body) == 26):
        raise ImageError("damaged", "PNG animation without a first frame")
    number, width, height, left, top = struct.unpack(">IIIII", control.body[:20])
    pixels: list[_Chunk] = []
    for chunk in frames:
        number += 1
        if chunk.kind != b"fdAT" or chunk.body[:4] != number.to_bytes(4, "big"):
            break
        pixels.append(chunk._replace(body=chunk.body[4:]))
    inside = 0 < width <= canvas[0] - left and 0 < height <= canvas[1] - top
    if not pixels or not inside or control.body[:4] != bytes(4):
        raise ImageError("damaged", "PNG animation with a damaged first frame")
    return (left, top, width, height), pixels


def _written(kind: bytes, body: bytes, *, checked: bool = True) -> bytes:
    checksum = zlib.crc32(body, zlib.crc32(kind)) if checked else 0
    return b"".join([struct.pack(">I", len(body)), kind, body, struct.pack(">I", checksum)])


def _name(kind: bytes) -> str:
    return repr(kind.decode("latin-1"))
