"""Reads the event ledgers of producers, workers and consensus, for ``verify``. Blocking."""

from collections.abc import Callable, Iterator
from pathlib import Path

from schemas.errors import UsageError
from schemas.events import Acknowledged, Event, Opened
from sinks.verification.commits import GroupHistory
from sinks.verification.findings import Findings
from streams.event_ledger import LedgerFile, ledger_files


class Ledgers:
    """What the ledgers of a folder say.

    Attributes:
        histories: What each group did; groups without a ledger are absent.
        producers: Ledgers of producers.
        files: Ledgers in all.
        events: Events in them.
        damaged: Files of which only the beginning could be read, and why.
    """

    def __init__(self) -> None:
        self.histories: dict[str, GroupHistory] = {}
        self.producers = self.files = self.events = 0
        self.damaged: list[str] = []

    def read(
        self, folder: Path, findings: Findings, acknowledged: Callable[[list[str]], None]
    ) -> None:
        """Read every ledger in a folder.

        Args:
            folder: The folder.
            findings: Where anomalies go that a single file shows.
            acknowledged: Hears of the images of producers.

        Raises:
            UsageError: There is no such folder.
            RunError: A file cannot be read.
        """
        if not folder.is_dir():
            raise UsageError(f"--ledger: {folder}: expected a folder of ledgers")
        for file in ledger_files(folder):
            self._read_file(file, findings, acknowledged)
            self.events += file.events
            if file.torn is not None:
                self.damaged.append(f"{file.path.name}: {file.torn}")

    def _read_file(
        self, file: LedgerFile, findings: Findings, acknowledged: Callable[[list[str]], None]
    ) -> None:
        events = iter(file)
        opened = next(events, None)
        if opened is None:  # killed before its first line
            return
        self.files += 1
        if not isinstance(opened, Opened):
            self.damaged.append(f"{file.path.name}: expected an opened event first")
            return
        if opened.role == "producer":
            self.producers += 1
        if opened.group:
            history = self.histories.setdefault(opened.group, GroupHistory(opened.group, findings))
            history.read(opened, _tapped(events, acknowledged))
        else:
            for _ in _tapped(events, acknowledged):
                pass


def _tapped(events: Iterator[Event], acknowledged: Callable[[list[str]], None]) -> Iterator[Event]:
    for event in events:
        if isinstance(event, Acknowledged):
            acknowledged(event.ids)
        yield event
