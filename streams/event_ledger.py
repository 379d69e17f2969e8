"""The event ledger: what a process did, one JSON line per event, for ``roadstream verify``."""

import os
import socket
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import structlog

from schemas import codec
from schemas.errors import OutputError
from schemas.events import Closed, Event, Opened, Range, Role
from streams.log import TopicPartition

logger = structlog.get_logger()


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
        opened = Opened(time.time(), role, group, member, os.getpid(), socket.gethostname())
        name = f"{role}-{group or member or 'all'}-{opened.pid}-{time.time_ns()}.jsonl"
        path = folder / name.replace("/", "_")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
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
        try:
            os.write(self._descriptor, codec.encode_json(event) + b"\n")
        except OSError as error:
            logger.error("ledger_lost", reason=error.strerror)
            self._release()

    def close(self) -> None:
        """Note an orderly end; closing twice is fine."""
        self.write(Closed(time.time()))
        self._release()

    def _release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


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
