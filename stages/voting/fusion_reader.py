"""Turns the msgpack of records' boxes into arrays, in machine code.

To get five numbers and a label out of each of hundreds of Python objects takes longer than to fuse
them. The encoder of records does it in C, so its bytes are what the boxes are read from.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from roadstream.stages.voting.fusion_arrays import Detections, Read, Wholes
from roadstream.stages.voting.machine_code import compiled

Bytes = NDArray[np.uint8]

# What msgpack's values begin with.
_NIL, _FLOAT, _BOX, _ARRAY, _TEXT = 0xC0, 0xCB, 0x96, 0x90, 0xA0
_LONG_ARRAYS, _LONG_TEXTS = (0xDC, 0xDD), (0xD9, 0xDA, 0xDB)
# Bytes of a box at least: its beginning, five numbers, an empty label.
_LEAST = 1 + 5 * 9 + 1
# 2^64 divided by the golden ratio: multiplied by it, the highest bits depend on all.
_SPREAD = np.uint64(0x9E3779B97F4A7C15)


class _Labels(NamedTuple):
    """Different labels so far: where they are in the bytes, a hash table of them, their number."""

    spans: Wholes
    table: Wholes
    filled: Wholes


def _whole(data: Bytes, at: int, size: int) -> int:
    """Return the number that so many bytes make, the highest first: a length."""
    value = np.int64(0)
    for i in range(size):
        value = value << 8 | np.int64(data[at + i])
    return value  # type: ignore[return-value]  # an int where it is compiled


whole = compiled(_whole)


def _bits(data: Bytes, at: int) -> Any:
    """Return the bits of a float. Written out, and without signs, it is one instruction."""
    i = np.uint64(at)
    a, b = np.int64(data[i]), np.int64(data[i + np.uint64(1)])
    c, d = np.int64(data[i + np.uint64(2)]), np.int64(data[i + np.uint64(3)])
    e, f = np.int64(data[i + np.uint64(4)]), np.int64(data[i + np.uint64(5)])
    g, h = np.int64(data[i + np.uint64(6)]), np.int64(data[i + np.uint64(7)])
    return a << 56 | b << 48 | c << 40 | d << 32 | e << 24 | f << 16 | g << 8 | h


bits = compiled(_bits)


def _array(data: Bytes, at: int) -> tuple[int, int]:
    """Return the length of an array and where its first value is; of anything else -1."""
    first = np.int64(data[at])
    if _ARRAY <= first < _ARRAY + 16:
        return int(first - _ARRAY), at + 1
    if first == _LONG_ARRAYS[0]:
        return whole(data, at + 1, 2), at + 3
    if first == _LONG_ARRAYS[1]:
        return whole(data, at + 1, 4), at + 5
    return -1, at


array = compiled(_array)


def _text(data: Bytes, at: int) -> tuple[int, int]:
    """Return where a text begins and ends; of anything else that it ends at -1."""
    first = np.int64(data[at])
    if _TEXT <= first < _TEXT + 32:
        return at + 1, int(at + 1 + first - _TEXT)
    for i in range(3):
        if first == _LONG_TEXTS[i]:
            begin = at + 1 + (1 << i)
            return begin, begin + whole(data, at + 1, 1 << i)
    return at, -1


text = compiled(_text)


def _same(data: Bytes, a: int, b: int, size: int) -> bool:
    i = 0
    while i < size and data[a + i] == data[b + i]:
        i += 1
    return i == size


same = compiled(_same)


def _label(data: Bytes, begin: int, end: int, labels: _Labels) -> int:
    """Return the number of a label, the next one if it is new."""
    size, last = end - begin, labels.table.size - 1
    # By its length and its last bytes, which most labels differ in; others stand before a label.
    tail = bits(data, end - 8)
    if size < 8:
        tail &= (1 << 8 * size) - 1
    slot = np.int64(np.uint64(tail ^ size) * _SPREAD >> np.uint64(40)) & last
    while labels.table[slot] >= 0:
        known = labels.table[slot]
        first, behind = labels.spans[known, 0], labels.spans[known, 1]
        if behind - first == size and same(data, first, begin, size):
            return int(known)
        slot = (slot + 1) & last
    new = labels.filled[0]
    labels.spans[new, 0], labels.spans[new, 1] = begin, end
    labels.table[slot] = new
    labels.filled[0] += 1
    return int(new)


label = compiled(_label)


def _boxes(data: Bytes, at: int, found: Detections, labels: _Labels, row: int) -> tuple[int, int]:
    """Read a detector's boxes from a row on; return the row and the byte behind them, or -1."""
    size, at = array(data, at)
    sides, scores = found.boxes.view(np.int64), found.scores.view(np.int64)
    for i in range(row, row + size):
        plain = data[at] == _BOX
        for number in range(5):
            plain = plain and data[at + 1 + 9 * number] == _FLOAT
        if not plain:
            return row, -1
        for side in range(4):
            sides[i, side] = bits(data, at + 2 + 9 * side)
        scores[i] = bits(data, at + 38)
        begin, at = text(data, at + 46)
        if at < 0:
            return row, -1
        found.labels[i] = label(data, begin, at, labels)
    return row + size, at if size >= 0 else -1


boxes = compiled(_boxes)


def _room(images: int, detectors: int, most: int) -> tuple[Detections, _Labels]:
    """Return room for so many boxes at most."""
    found = Detections(
        np.empty((most, 4)),
        np.empty(most),
        np.empty(most, np.int64),
        np.empty(most, np.int64),
        np.zeros(images + 1, np.int64),
        np.zeros((images, detectors), np.bool_),
    )
    slots = 2
    while slots < 2 * most:
        slots *= 2
    table = np.full(slots, -1, np.int64)
    return found, _Labels(np.empty((most, 2), np.int64), table, np.zeros(1, np.int64))


room = compiled(_room)


def _read(data: Bytes, detectors: int) -> Read:
    """Read what ``detectors`` found per image: lists of boxes, ``None`` for one that is away."""
    images, at = array(data, 0)
    # One more than there can be: the one that turns out to be none.
    found, labels = room(max(images, 0), detectors, data.size // _LEAST + 1)
    row, plain = np.int64(0), images >= 0
    for image in range(images):
        size, at = array(data, at)
        plain = plain and size == detectors
        for detector in range(detectors if plain else 0):
            if data[at] == _NIL:
                at += 1
                continue
            first = row
            row, at = boxes(data, at, found, labels, row)
            if at < 0:
                plain = False
                break
            found.detectors[first:row] = detector
            found.looked[image, detector] = True
        if not plain:
            break
        found.offsets[image + 1] = row
    cut = Detections(
        found.boxes[:row],
        found.scores[:row],
        found.labels[:row],
        found.detectors[:row],
        found.offsets,
        found.looked,
    )
    return Read(cut, labels.spans[: labels.filled[0]], plain)


read = compiled(_read)
