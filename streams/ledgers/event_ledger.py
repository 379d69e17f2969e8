"""The event ledger: what a process did, one JSON line per event, for ``roadstream verify``.

Every line ends in its number and a checksum, so that a line which was changed or lost is known.
"""

import os
import re
import socket
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec
import structlog

from roadstream.schemas import codec
from roadstream.schemas.errors import OutputError, RunError
from roadstream.schemas.records.events import Acknowledged, Closed, Event, Opened, Range, Role
from roadstream.streams.log import TopicPartition

logger = structlog.get_logger()

_CLOCK = time.time() - time.monotonic()

CUT = ".cut.jsonl"
"""How the name of a ledger ends that could not be written any more, though its process went on."""

LONGEST_LINE = 1 << 26
"""Bytes; a batch of acknowledgements takes a few hundred thousand."""

_SEAL = re.compile(rb',"n":([0-9]{1,18}),"crc":([0-9]{1,10})\}\r?\n\Z')


def moment() -> float:
    """Return the time of an event: the wall clock as it was at the start, moving on steadily."""
    return _CLOCK + time.monotonic()


class EventLedger:
    """Appends events to a file of its own, each with one write, so that a kill tears no line.

    Args:
        folder: Folder of the ledgers, made if absent; ``None`` writes nothing.
        role: What the process is.
        group: Consumer group of the member; empty for a producer.
        member: Its name in the group, or the producer's.
        log: Identity of the log it works on, so that nobody compares it with another; see
            ``Log.identity``.

    Raises:
        OutputError: The file cannot be created.
    """

    def __init__(
        self,
        folder: Path | None,
        role: Role,
        group: str = "",
        member: str = "",
        *,
        log: str = "",
    ) -> None:
        self._descriptor: int | None = None
        self._written = 0
        if folder is None:
            return
        host = socket.gethostname()
        opened = Opened(moment(), role, group, member, os.getpid(), host, host_boot(), _CLOCK, log)
        name = f"{role}-{group or member or 'all'}-{opened.pid}-{time.time_ns()}.jsonl"
        path = self._path = folder / name.replace("/", "_")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
            self._descriptor = os.open(path, flags, 0o644)
        except OSError as error:
            raise OutputError(f"--ledger: {path}: {error.strerror}") from error
        self.write(opened)

    @property
    def on(self) -> bool:
        """Whether events are written at all; ask before gathering what an event needs."""
        return self._descriptor is not None

    def write(self, event: Event) -> None:
        """Append an event. A ledger that cannot be written says so once, and stops no work."""
        if self._descriptor is None:
            return
        self._written += 1
        line = sealed(event, self._written)
        try:
            written = os.write(self._descriptor, line)
        except OSError as error:
            self._lose(error.strerror or repr(error))
            return
        if written < len(line):  # what follows half a line could not be read
            self._lose("disk full")

    def acknowledged(self, image_ids: Sequence[str]) -> None:
        """Note images that the log has acknowledged, a producer's."""
        if image_ids and self.on:
            self.write(Acknowledged(moment(), list(image_ids)))

    def close(self) -> None:
        """Note an orderly end; closing twice is fine."""
        self.write(Closed(moment()))
        self._release()

    def _lose(self, reason: str) -> None:
        """Go on without it, under a name that says so: it must not pass for a killed process's."""
        logger.error("ledger_lost", path=str(self._path), reason=reason)
        self._release()
        try:
            self._path.rename(self._path.with_name(self._path.stem + CUT))
        except OSError as error:
            logger.error("ledger_not_marked", path=str(self._path), reason=error.strerror)

    def _release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def sealed(event: Event, number: int) -> bytes:
    """Return an event as a line of a ledger, the ``number``-th, with its checksum."""
    line = codec.encode_json(event)[:-1] + b',"n":%d' % number
    return line + b',"crc":%d}\n' % zlib.crc32(line)


class Damage(msgspec.Struct, frozen=True, gc=False):
    """A place in a ledger at which lines are missing or cannot be read."""

    line: int
    problem: str


class LedgerFile:
    """A ledger being read back, event by event; memory does not grow with its length.

    Args:
        path: The file.

    Attributes:
        torn: The first place that could not be read, and why; ``None`` if all could. The last line
            of a process that died while it wrote is no damage: what it would say never took effect.
        damages: How many such places there are.
        events: How many events were read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.torn: str | None = None
        self.events = self.damages = 0

    @property
    def cut(self) -> bool:
        """Whether its process went on when it could no longer be written."""
        return self.path.name.endswith(CUT)

    def __iter__(self) -> Iterator[Event]:
        """Yield the events that can be read.

        Raises:
            RunError: The file cannot be read.
        """
        return (event for event in self.walk() if not isinstance(event, Damage))

    def walk(self) -> Iterator[Event | Damage]:
        """Yield the events, and each damage at its place.

        Raises:
            RunError: The file cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                for found in _read(file):
                    if isinstance(found, Damage):
                        self.damages += 1
                        self.torn = self.torn or f"line {found.line}: {found.problem}"
                    else:
                        self.events += 1
                    yield found
        except OSError as error:
            raise RunError(f"{self.path}: cannot be read: {error.strerror}") from error


def _read(file: BinaryIO) -> Iterator[Event | Damage]:
    """Yield the events. Ledgers of older versions have no seals: only what is no event is found."""
    numbered = 0  # how many lines were written up to here; stays 0 while none has a seal
    for at, line in enumerate(_lines(file), 1):
        seal = _SEAL.search(line, max(0, len(line) - 64))
        if seal is None and numbered:
            numbered += 1
            yield Damage(at, "its number and checksum are missing")
            continue
        if seal is not None:
            number = int(seal[1])
            if zlib.crc32(line[: seal.start(2) - len(b',"crc":')]) != int(seal[2]):
                numbered += 1
                yield Damage(at, "it was changed: its checksum is another")
                continue
            if number <= numbered:
                yield Damage(at, f"line {number} stands here once more")
                continue
            if number > numbered + 1:
                yield Damage(at, f"{number - numbered - 1} lines before it are missing")
            numbered = number
        try:
            yield codec.decode_event(line)
        except codec.UNREADABLE as problem:
            yield Damage(at, str(problem))


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines that have an end; nothing in place of one that is too long."""
    while line := file.readline(LONGEST_LINE):
        if line.endswith(b"\n"):
            yield line
        elif len(line) < LONGEST_LINE:
            return  # torn, or being written at this moment
        else:
            while line and not line.endswith(b"\n"):
                line = file.readline(LONGEST_LINE)
            if line:
                yield b""


def ledger_files(folder: Path) -> list[LedgerFile]:
    """Return the ledgers in a folder and the folders in it, by name."""
    return [LedgerFile(path) for path in sorted(folder.rglob("*.jsonl"))]


def ranges(offsets: Iterable[tuple[TopicPartition, Sequence[int]]]) -> list[Range]:
    """Return the offsets of each partition as runs without gaps."""
    found: list[Range] = []
    for (topic, partition), numbers in offsets:
        first = last = None
        for number in sorted(numbers):
            if last is not None and first is not None and number > last + 1:
                found.append((topic, partition, first, last))
                first = number
            elif first is None:
                first = number
            last = number
        if first is not None and last is not None:
            found.append((topic, partition, first, last))
    return found


def host_boot() -> str:
    """Return what tells one start of this host from every other, or nothing where none is known."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
