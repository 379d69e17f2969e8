"""Tell bytes of no use behind a JPEG scan's data from data that damage has left over."""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice

import numpy as np
import simplejpeg

from roadstream.stages.decoding.jpeg_mend import FRAMES, SCAN, Part, parts

_HUFFMAN, _INTERVAL = 0xC4, 0xDD
_SEQUENTIAL = frozenset({0xC0, 0xC1})
_RESTARTS = re.compile(rb"(\xff[\xd0-\xd7])")
_ZEROS = re.compile(rb"\0{4,}\Z")
_BLOCK_END = 128  # coefficients that the code for the end of a block stands for
_SHORT = range(8, 4 << 10)  # lengths of data that is looked at in all ways
_LARGEST = 8 << 20  # it takes some 0.6 s a MiB

# Of a Huffman table, by the next 16 bits: bits that a code and its value take (0: there is no such
# code), and 256 × the coefficients that are done with.
_Steps = list[int]


def without_padding(segments: Sequence[bytes], scans: Sequence[Part]) -> list[Part] | None:
    """Leave out what follows the last coefficient of each scan and of each restart in it.

    Damage leaves data over, too: bits that change become other codes, which can often be read to
    the end but make fewer blocks. Such data can be read on as blocks right up to its last bit;
    padding cannot. Scans of progressive JPEGs are not read; of theirs, zeros are left out.

    Args:
        segments: The segments before the first scan, with one frame that libjpeg can decode.
        scans: What `jpeg_mend.parts` lists.

    Returns:
        The scans; ``None`` when there is more in them than data and padding.
    """
    frame = next(segment for segment in segments if segment[1] in FRAMES)
    if frame[1] not in _SEQUENTIAL:
        return [Part(segment, _ZEROS.sub(b"", data)) for segment, data in scans]
    if sum(len(data) for _, data in scans) > _LARGEST:
        return None
    reader = _Reader(frame)
    for segment in segments:
        reader.learn(segment)
    kept: list[Part] = []
    for segment, data in scans:
        reader.learn(segment)
        try:
            useful = reader.useful(segment, data) if segment[1] == SCAN else data
        except LookupError:  # of a component or table that there is not
            return None
        if useful is None:
            return None
        kept.append(Part(segment, useful))
    return kept


class _Reader:
    """Reads the codes of sequential scans, without their values.

    Args:
        frame: The frame's segment.
    """

    def __init__(self, frame: bytes) -> None:
        self._height, self._width = (int.from_bytes(frame[at : at + 2], "big") for at in (5, 7))
        fields = [frame[at : at + 3] for at in range(10, len(frame) - 2, 3)]
        self._factors = {name: (factors >> 4, factors & 15) for name, factors, _ in fields}
        self._tables = dict(_standard_tables())
        self._interval = 0

    def learn(self, segment: bytes) -> None:
        """Take over Huffman tables or a restart interval."""
        if segment[1] == _HUFFMAN:
            self._tables.update(_tables(segment[4:]))
        elif segment[1] == _INTERVAL:
            self._interval = int.from_bytes(segment[4:6], "big")

    def useful(self, scan: bytes, data: bytes) -> bytes | None:
        """Return a scan's data without padding; ``None`` where it is damaged."""
        names = scan[5 : 5 + 2 * scan[4] : 2]
        blocks = self._blocks(scan)
        left = self._units(names)
        kept: list[bytes] = []
        for piece in _RESTARTS.split(data):
            if _RESTARTS.match(piece):
                kept.append(piece)
                continue
            units = min(self._interval or left, left)
            left -= units
            plain = piece.replace(b"\xff\0", b"\xff")
            end = _useful_bytes(plain, blocks, units)
            if end is None:
                return None
            kept.append(plain[:end].replace(b"\xff", b"\xff\0"))
        return b"".join(kept)

    def _blocks(self, scan: bytes) -> list[tuple[_Steps, _Steps]]:
        """List the tables of the blocks of a scan's unit, for their first and other values."""
        blocks: list[tuple[_Steps, _Steps]] = []
        for at in range(5, 5 + 2 * scan[4], 2):
            name, tables = scan[at], scan[at + 1]
            across, down = self._factors[name] if scan[4] > 1 else (1, 1)
            pair = self._tables[tables >> 4], self._tables[0x10 | tables & 15]
            blocks += [pair] * (across * down)
        return blocks

    def _units(self, names: bytes) -> int:
        """Count the units of a scan: of one component its blocks, of several a cell of each."""
        most_across = max(across for across, _ in self._factors.values())
        most_down = max(down for _, down in self._factors.values())
        across, down = self._factors[names[0]] if len(names) == 1 else (1, 1)
        columns = -(-self._width * across // (8 * most_across))
        rows = -(-self._height * down // (8 * most_down))
        return columns * rows


def _useful_bytes(data: bytes, blocks: Sequence[tuple[_Steps, _Steps]], units: int) -> int | None:
    """Return how many bytes so many units take; ``None`` where there are less, or data follows."""
    if not units:
        return None if data else 0
    read = list(islice(_unit_ends(data, blocks), units))
    if len(read) < units or not all(fits for _, fits in read):
        return None
    end, _ = read[-1]
    count = -(-end // 8)
    if count < len(data):
        unused = 0xFF >> (end & 7) if end & 7 else 0
        filled = not unused or data[end >> 3] & unused in {0, unused}
        if not filled or _goes_on(data[end >> 3 :], end & 7, blocks):
            return None
    return count


def _goes_on(data: bytes, at: int, blocks: Sequence[tuple[_Steps, _Steps]]) -> bool:
    """Whether data can be read from this bit on up to its end, from any block of a unit on."""
    skips = range(len(blocks)) if len(data) in _SHORT else (0,)
    ends = (end for skip in skips for end, _ in _unit_ends(data, blocks, at, skip))
    return any(_fills(data, end) for end in ends)


def _fills(data: bytes, end: int) -> bool:
    """Whether data ends at this bit, but for ones up to the end of its byte, as encoders write."""
    left = 8 * len(data) - end
    return 0 <= left < 8 and not ~data[-1] & (1 << left) - 1


def _unit_ends(
    data: bytes, blocks: Sequence[tuple[_Steps, _Steps]], at: int = 0, skip: int = 0
) -> Iterator[tuple[int, bool]]:
    """List the bits that units end at, and whether none of their blocks has too many coefficients.

    That is from the bit ``at`` on, where ``skip`` blocks of a unit are past, as long as there is
    data that can be read.
    """
    padded = np.frombuffer(data + b"\0\0", np.uint8)
    window = padded[:-2].astype(np.uint32)
    for following in padded[1:-1], padded[2:]:
        window <<= 8
        window |= following
    windows = window.data
    bits, coming = 8 * len(data), blocks[skip:]
    try:
        while True:
            fits = True
            for first, others in coming:
                step = first[windows[at >> 3] >> 8 - (at & 7) & 0xFFFF]
                if not step:
                    return
                at += step
                done = 1
                while done < 64:
                    step = others[windows[at >> 3] >> 8 - (at & 7) & 0xFFFF]
                    if not step:
                        return
                    at += step & 0xFF
                    done += step >> 8
                fits &= done == 64 or done > _BLOCK_END
            if at > bits:
                return
            yield at, fits
            coming = blocks
    except IndexError:  # the data is at its end
        return


def _tables(body: bytes) -> dict[int, _Steps]:
    """Read the tables of a DHT segment by their class (0x10: not the first value) and number."""
    tables: dict[int, _Steps] = {}
    at = 0
    while len(body) >= at + 17:
        name, counts = body[at], body[at + 1 : at + 17]
        symbols = body[at + 17 : at + 17 + sum(counts)]
        tables[name] = _steps(counts, symbols, first=name < 0x10)
        at += 17 + sum(counts)
    return tables


def _steps(counts: bytes, symbols: bytes, *, first: bool) -> _Steps:
    steps = np.zeros(1 << 16, np.int32)
    at, remaining = 0, iter(symbols)
    for length, count in enumerate(counts, 1):
        for symbol in islice(remaining, count):
            run, bits = symbol >> 4, symbol & 15
            done = run + 1 if bits or run == 15 else _BLOCK_END
            value = length + symbol if first else length + bits | done << 8
            steps[at : at + (1 << 16 - length)] = value
            at += 1 << 16 - length
    return steps.tolist()


@cache
def _standard_tables() -> dict[int, _Steps]:
    """Return the tables of the standard, which decoders take where a JPEG has none."""
    encoded = simplejpeg.encode_jpeg(np.zeros((8, 8, 3), np.uint8))
    found: dict[int, _Steps] = {}
    for segment, _ in parts(encoded, 2, 3):
        if segment[1] == _HUFFMAN:
            found.update(_tables(segment[4:]))
    return found
