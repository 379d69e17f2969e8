"""Reads the event ledgers of all processes while they are written: who owns what, who goes on."""

import time
from pathlib import Path
from typing import BinaryIO

import anyio
import msgspec

from roadstream.schemas import codec
from roadstream.schemas.records.events import (
    Assigned,
    Closed,
    Committed,
    Event,
    Fenced,
    Missed,
    Opened,
    Revoked,
)

TICK = 0.05
Partition = tuple[str, int]


class _Ledger(msgspec.Struct):
    """One file: who writes it, what that member owns, and how far it was read."""

    file: BinaryIO
    opened: Opened | None = None
    owned: set[int] = set()
    rest: bytes = b""
    closed: bool = False


class Ledgers:
    """What the ledgers of a folder say so far.

    Args:
        folder: Where the processes write them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, _Ledger] = {}
        self._last: dict[str, _Ledger] = {}
        self.progress: dict[Partition, float] = {}
        self.assignments: dict[str, int] = {}
        self.members: dict[str, Opened] = {}
        self.fenced = 0
        self.missed: list[Missed] = []
        self.longest: dict[Partition, float] = {}

    async def follow(self) -> None:
        """Read on and on, until cancelled."""
        while True:
            self.read()
            await anyio.sleep(TICK)

    def read(self) -> None:
        """Read what was written since the last time."""
        for path in self._folder.glob("*.jsonl"):
            if path.name not in self._open:
                self._open[path.name] = _Ledger(path.open("rb"))
        now = time.monotonic()
        for ledger in self._open.values():
            if ledger.closed:
                continue
            *lines, ledger.rest = (ledger.rest + ledger.file.read()).split(b"\n")
            for line in lines:
                self._take(ledger, codec.decode_event(line), now)

    def owned(self, member: str) -> tuple[str, set[int]]:
        """Return the group of a member, and the partitions it owned last."""
        ledger = self._last.get(member)
        if ledger is None or ledger.opened is None:
            return "", set()
        return ledger.opened.group, set(ledger.owned)

    def idle_since(self, group: str, partitions: set[int], since: float) -> set[int]:
        """Return those of the partitions on which the group committed nothing after ``since``."""
        return {p for p in partitions if self.progress.get((group, p), 0.0) <= since}

    def pid(self, member: str) -> int | None:
        """Return the process id of the latest process of a member that has its partitions."""
        opened = self.members.get(member)
        return None if opened is None else opened.pid

    def _take(self, ledger: _Ledger, event: Event, now: float) -> None:
        if isinstance(event, Opened):
            ledger.opened = event
            self._last[event.member] = ledger
            return
        opened = ledger.opened
        if opened is None:
            return
        if isinstance(event, Assigned):
            ledger.owned = {partition for _, partition, _ in event.committed}
            self.members[opened.member] = opened
            self.assignments[opened.group] = self.assignments.get(opened.group, 0) + 1
        elif isinstance(event, Revoked):
            ledger.owned = set()
        elif isinstance(event, Committed):
            self._note_progress(opened.group, {p for _, p, _ in event.offsets}, now)
        elif isinstance(event, Fenced):
            self.fenced += 1
        elif isinstance(event, Missed):
            self.missed.append(event)
        elif isinstance(event, Closed):
            ledger.closed = True
            ledger.owned = set()
            ledger.file.close()

    def _note_progress(self, group: str, partitions: set[int], now: float) -> None:
        for partition in partitions:
            before = self.progress.get((group, partition), now)
            longest = self.longest.get((group, partition), 0.0)
            self.longest[group, partition] = max(longest, now - before)
            self.progress[group, partition] = now

    def close(self) -> None:
        """Close the files."""
        for ledger in self._open.values():
            ledger.file.close()
