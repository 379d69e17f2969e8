"""The event ledger: what a process did, one JSON line per event, for ``roadstream verify``."""

import os
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec
import structlog

from schemas import codec
from schemas.errors import OutputError, RunError
from schemas.events import Acknowledged, Closed, Event, Opened, Range, Role
from streams.log import TopicPartition

logger = structlog.get_logger()

_CLOCK = time.time() - time.monotonic()


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

    Raises:
        OutputError: The file cannot be created.
    """

    def __init__(self, folder: Path | None, role: Role, group: str = "", member: str = "") -> None:
        self._descriptor: int | None = None
        if folder is None:
            return
        opened = Opened(
            moment(), role, group, member, os.getpid(), socket.gethostname(), _boot(), _CLOCK
        )
        name = f"{role}-{group or member or 'all'}-{opened.pid}-{time.time_ns()}.jsonl"
        path = folder / name.replace("/", "_")
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
        line = codec.encode_json(event) + b"\n"
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
        logger.error("ledger_lost", reason=reason)
        self._release()

    def _release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class LedgerFile:
    """A ledger being read back, event by event; memory does not grow with its length.

    Args:
        path: The file.

    Attributes:
        torn: Why the rest of it could not be read; ``None`` if all could. The last line of a
            process that died while it wrote is no damage: what it would say never took effect.
        events: How many were read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.torn: str | None = None
        self.events = 0

    def __iter__(self) -> Iterator[Event]:
        """Yield the events.

        Raises:
            RunError: The file cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                for line in file:
                    if not line.endswith(b"\n"):
                        return
                    try:
                        event = codec.decode_event(line)
                    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
                        self.torn = f"line {self.events + 1}: {problem}"
                        return
                    self.events += 1
                    yield event
        except OSError as error:
            raise RunError(f"{self.path}: cannot be read: {error.strerror}") from error


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


def _boot() -> str:
    """Return what tells one start of this host from every other, or nothing where none is known."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
