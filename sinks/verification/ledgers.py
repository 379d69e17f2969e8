"""Reads the event ledgers of producers, workers and consensus, for ``verify``. Blocking."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from roadstream.schemas.errors import RunError, UsageError
from roadstream.schemas.records.events import Acknowledged, Closed, Event, Opened
from roadstream.sinks.verification.commits import GroupHistory
from roadstream.sinks.verification.findings import Findings
from roadstream.streams.ledgers.event_ledger import Damage, LedgerFile, host_boot, ledger_files

LEAST_UNNOTED = 256
"""Images that a producer may have under way at once, where its ledger shows no larger batch."""


class Ledgers:
    """What the ledgers of a folder say about one log.

    Args:
        log: Identity of the log; ledgers of others are left out.
        groups: The groups that are looked at, with the topics that each consumes.
        findings: Where anomalies go that a single file shows.

    Attributes:
        histories: What each group did; groups without a ledger are absent.
        producers: Ledgers of producers.
        producers_whole: Whether these can be read in full.
        producers_unended: Those of them that did not end in order, or are still written.
        largest: The most images that the log acknowledged to a producer at once.
        files: Ledgers of this log.
        events: Events in them.
        damaged: Files of which some part could not be read, and why.
        cut: Files that their processes could no longer write, though they went on.
        strangers: Ledgers of other logs, per identity.
        nameless: Ledgers that do not say which log they are of, as older versions wrote them.
        other_groups: Groups that have a ledger and are none of these.
        uncertain: Whether there is a ledger of which nobody knows whose it is.
    """

    def __init__(self, log: str, groups: Mapping[str, Collection[str]], findings: Findings) -> None:
        self._log, self._groups, self._findings = log, groups, findings
        self._boot = host_boot() if log.startswith("embedded:") else ""
        self.histories: dict[str, GroupHistory] = {}
        self.producers = self.files = self.events = self.nameless = 0
        self.damaged: list[str] = []
        self.cut: list[str] = []
        self.strangers: Counter[str] = Counter()
        self.other_groups: set[str] = set()
        self.uncertain, self.producers_whole = False, True
        self.producers_unended = self.largest = 0

    def read(self, folder: Path, acknowledged: Callable[[list[str]], None]) -> None:
        """Read every ledger in a folder.

        Args:
            folder: The folder.
            acknowledged: Hears of the images of producers.

        Raises:
            UsageError: There is no such folder.
        """
        if not folder.is_dir():
            raise UsageError(f"--ledger: {folder}: expected a folder of ledgers")
        for file in ledger_files(folder):
            try:
                self._read_file(file, acknowledged)
            except RunError as problem:
                self._damage(file, str(problem))
            if file.torn is not None:
                more = f" and {file.damages - 1} more places" if file.damages > 1 else ""
                self.damaged.append(f"{file.path.name}: {file.torn}{more}")

    def patchy(self, group: str) -> bool:
        """Return whether something that this group did may stand in no ledger that can be read."""
        history = self.histories.get(group)
        return self.uncertain or (history is not None and not history.whole)

    @property
    def unnoted(self) -> int:
        """The most images that producers can have sent and, killed, or still at it, not noted."""
        return self.producers_unended * max(LEAST_UNNOTED, 2 * self.largest)

    def _damage(self, file: LedgerFile, problem: str) -> None:
        self.uncertain = True
        self.damaged.append(f"{file.path.name}: {problem}")

    def _read_file(self, file: LedgerFile, acknowledged: Callable[[list[str]], None]) -> None:
        events = file.walk()
        opened = next(events, None)
        if opened is None:  # killed before its first line
            return
        if not isinstance(opened, Opened):
            if isinstance(opened, Damage):  # which is said by ``torn``
                self.uncertain = True
            else:
                self._damage(file, "expected an opened event first")
            return
        if opened.log and opened.log != self._log:
            self.strangers[opened.log] += 1
            return
        if opened.group and opened.group not in self._groups:
            self.other_groups.add(opened.group)
            return
        self.files += 1
        self.nameless += not opened.log
        if file.cut:
            self.cut.append(file.path.name)
        self._take(opened, file, events, acknowledged)
        self.events += file.events

    def _take(
        self,
        opened: Opened,
        file: LedgerFile,
        events: Iterator[Event | Damage],
        acknowledged: Callable[[list[str]], None],
    ) -> None:
        closed = False

        def tapped() -> Iterator[Event | Damage]:
            nonlocal closed
            for event in events:
                if isinstance(event, Acknowledged):
                    acknowledged(event.ids)
                    self.largest = max(self.largest, len(event.ids))
                closed = isinstance(event, Closed)
                yield event

        if opened.group:
            topics = self._groups[opened.group]
            history = self.histories.setdefault(
                opened.group, GroupHistory(opened.group, topics, self._findings, self._boot)
            )
            history.read(opened, tapped())
            history.whole &= not file.cut
        else:
            for _ in tapped():
                pass
        if opened.role == "producer":
            self.producers += 1
            self.producers_unended += not closed
            self.producers_whole &= not file.cut and file.torn is None
