"""Who may have killed the process: the images that ran when it died, noted before they run.

The notes lie in a small file. They need to outlive the process, not the machine, so no write waits
for the disk. There are two places in the file, written in turn, each with a checksum: a process
killed while it writes leaves the older note, and the newer batch had not begun.
"""

import fcntl
import os
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import anyio
import msgspec
import structlog

from roadstream.schemas.errors import OutputError
from roadstream.streams.log import TopicPartition

logger = structlog.get_logger()

_HEADER = struct.Struct("<4sQII")  # magic, serial number, length, CRC-32
_MAGIC = b"RSS1"
_PLACE_BYTES = 1 << 18
# Notes that matter to nobody any more, as their records were worked on elsewhere, go after a day.
_FORGET_AFTER = 86_400.0
_MOST = 4096

RecordKey = tuple[str, int, int]
_Range = tuple[str, int, int, int]


class Located(Protocol):
    """What must be known of an image: where its record stands."""

    @property
    def tp(self) -> TopicPartition:
        """Partition it was read from."""

    @property
    def offset(self) -> int:
        """Its offset there."""


class Suspect(msgspec.Struct, array_like=True):
    """An image that was running when the process died.

    Attributes:
        topic: Where its record stands, as is ``partition`` and ``offset``.
        noted_at: When it came under suspicion, or ran alone last.
        deaths: Times the process died while it ran.
        alone: Times likewise while nothing else ran.
    """

    topic: str
    partition: int
    offset: int
    noted_at: float
    deaths: int = 0
    alone: int = 0


class _Notes(msgspec.Struct, array_like=True):
    running: list[tuple[bool, list[_Range]]]
    suspects: list[Suspect]


_decode = msgspec.msgpack.Decoder(_Notes).decode
_encode = msgspec.msgpack.Encoder().encode


class CrashNotes:
    """The notes of one process; its tier workers share them. Thread-safe.

    Args:
        path: The file, made if absent; ``None`` notes nothing, and suspects nobody.
        now: Seconds since the epoch.

    Attributes:
        alone: Held while a suspect runs, so that one runs at a time.
        noted: Batches noted.

    Raises:
        OutputError: The file cannot be opened.
    """

    def __init__(self, path: Path | None = None, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._lock = threading.Lock()
        self.alone = anyio.Lock()
        self.noted = 0
        self._serial = 0
        self._running: dict[int, tuple[bool, list[_Range]]] = {}
        self._suspects: dict[RecordKey, Suspect] = {}
        self._file: int | None = None
        self._path = path
        if path is not None:
            self._open(path)

    def __len__(self) -> int:
        """Return the number of suspects."""
        return len(self._suspects)

    def of(self, item: Located) -> Suspect | None:
        """Return what is held against an image, if anything is."""
        return self._suspects.get((*item.tp, item.offset))

    @contextmanager
    def running(self, items: Sequence[Located], *, alone: bool = False) -> Iterator[None]:
        """Note that these images run, for as long as the block does."""
        if self._file is None:
            yield
            return
        note = (alone, _ranges(items))
        with self._lock:
            self.noted += 1
            number = self.noted
            self._running[number] = note
            self._write()
        try:
            yield
        finally:
            with self._lock:
                del self._running[number]
                self._write()

    def settle(self, items: Sequence[Located]) -> None:
        """Forget images that are done with."""
        if not self._suspects:
            return
        with self._lock:
            found = [self._suspects.pop((*item.tp, item.offset), None) for item in items]
            if any(found):
                self._write()

    def close(self) -> None:
        """Let go of the file; closing twice is fine."""
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def _open(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise OutputError(f"{path}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            # A stopped process of the same name still has it: better no notes than two writers.
            logger.error("suspects_locked", path=str(path))
            os.close(descriptor)
            return
        self._file = descriptor
        self._load()
        if self._suspects:
            logger.error("suspects", images=len(self._suspects), path=str(path))
        self._write()

    def _load(self) -> None:
        """Take over what the last process of this name noted."""
        notes, now = self._latest(), self._now()
        for suspect in notes.suspects:
            if now - suspect.noted_at < _FORGET_AFTER:
                self._suspects[suspect.topic, suspect.partition, suspect.offset] = suspect
        for alone, ranges in notes.running:
            for topic, partition, first, last in ranges:
                for offset in range(first, min(last, first + _MOST) + 1):
                    suspect = Suspect(topic, partition, offset, now)
                    suspect = self._suspects.setdefault((topic, partition, offset), suspect)
                    suspect.noted_at = now
                    suspect.deaths += 1
                    suspect.alone += alone
        while len(self._suspects) > _MOST:
            del self._suspects[next(iter(self._suspects))]

    def _latest(self) -> _Notes:
        assert self._file is not None
        best = _Notes([], [])
        for place in range(2):
            found = os.pread(self._file, _PLACE_BYTES, place * _PLACE_BYTES)
            if len(found) < _HEADER.size:
                continue
            magic, serial, length, checksum = _HEADER.unpack_from(found)
            body = found[_HEADER.size : _HEADER.size + length]
            if magic == _MAGIC and serial > self._serial and zlib.crc32(body) == checksum:
                try:
                    best = _decode(body)
                except msgspec.DecodeError as error:  # another version's: nobody is suspected
                    logger.warning("suspects_unreadable", path=str(self._path), reason=str(error))
                self._serial = serial
        return best

    def _write(self) -> None:
        """Write all that is known with one call; held under the lock."""
        if self._file is None:
            return
        suspects = list(self._suspects.values())
        body = _encode(_Notes(list(self._running.values()), suspects))
        if len(body) > _PLACE_BYTES - _HEADER.size:
            running = [(alone, _cover(ranges)) for alone, ranges in self._running.values()]
            body = _encode(_Notes(running, suspects[-_MOST // 2 :]))
        self._serial += 1
        header = _HEADER.pack(_MAGIC, self._serial, len(body), zlib.crc32(body))
        try:
            os.pwrite(self._file, header + body, self._serial % 2 * _PLACE_BYTES)
        except OSError as error:
            logger.error("suspects_lost", reason=error.strerror)
            os.close(self._file)
            self._file = None


def _ranges(items: Sequence[Located]) -> list[_Range]:
    """Return the places of the images as runs without gaps, as far as they come in order."""
    found: list[_Range] = []
    last_tp: TopicPartition | None = None
    first = last = 0
    for item in items:
        offset = item.offset
        if item.tp == last_tp and offset == last + 1:
            last = offset
            continue
        if last_tp is not None:
            found.append((*last_tp, first, last))
        last_tp, first, last = item.tp, offset, offset
    if last_tp is not None:
        found.append((*last_tp, first, last))
    return found


def _cover(ranges: Sequence[_Range]) -> list[_Range]:
    """Return one range per partition that covers them all."""
    found: dict[tuple[str, int], tuple[int, int]] = {}
    for topic, partition, first, last in ranges:
        low, high = found.get((topic, partition), (first, last))
        found[topic, partition] = (min(low, first), max(high, last))
    return [(*tp, first, last) for tp, (first, last) in found.items()]
