"""What the members of one group did, by their ledgers: the commits no sound member makes. Pure.

A file of events is in the order in which things happened in one process. Between processes order is
told by the host's monotonic clock, which every file is tied to; between hosts by the wall clock,
with a tolerance. What a killed member did and could no longer note is never held against anybody:
a member's first position shows what the log had acknowledged before.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from schemas.events import (
    Assigned,
    Committed,
    Delivered,
    Done,
    Event,
    Missed,
    Opened,
    Range,
    Revoked,
)
from sinks.verification.findings import Findings, place_name
from streams.intervals import Intervals
from streams.log import Offsets, TopicPartition

CLOCK_TOLERANCE = 5.0
"""Seconds that the wall clocks of two hosts may differ by."""


class Moment(NamedTuple):
    """When something happened.

    Attributes:
        boot: The host, since it was started.
        ticks: Its monotonic clock.
        at: Wall clock.
    """

    boot: str
    ticks: float
    at: float

    def before(self, other: "Moment") -> bool:
        """Return whether this surely came first."""
        if self.boot and self.boot == other.boot:
            return self.ticks < other.ticks
        return self.at + CLOCK_TOLERANCE < other.at


class Tenure:
    """One member's time with one partition.

    Attributes:
        member: Name and process.
        epoch: Its epoch of that time.
        position: Where the group stood when it began.
        begin: When.
        end: When it was revoked, or the last sign of life.
        over: Whether it was revoked, or followed by another assignment.
        delivered: What it was given.
        pending: What of that was not done while it held the partition.
        late: What of that was done afterwards.
        commit: The highest offset that the log acknowledged to it.
        commit_at: When.
    """

    __slots__ = (
        "begin",
        "commit",
        "commit_at",
        "delivered",
        "end",
        "epoch",
        "late",
        "member",
        "over",
        "pending",
        "position",
    )

    def __init__(self, member: str, epoch: int, position: int, begin: Moment) -> None:
        self.member, self.epoch, self.position = member, epoch, position
        self.begin = self.end = begin
        self.over = False
        self.delivered, self.pending, self.late = Intervals(), Intervals(), Intervals()
        self.commit = -1
        self.commit_at: Moment | None = None


class GroupHistory:
    """The ledgers of one consumer group.

    Args:
        name: The group.
        findings: Where anomalies go.
    """

    def __init__(self, name: str, findings: Findings) -> None:
        self.name, self._findings = name, findings
        self.tenures: dict[TopicPartition, list[Tenure]] = {}
        self.delivered: dict[TopicPartition, Intervals] = {}
        self.done: dict[TopicPartition, Intervals] = {}
        self.missed: dict[TopicPartition, Intervals] = {}

    def read(self, opened: Opened, events: Iterable[Event]) -> None:
        """Take in the events of one file, from after its ``Opened``."""
        member = _MemberReader(self, opened, self._findings)
        for event in events:
            member.take(event)
        member.finish()

    def start(self, tp: TopicPartition) -> int | None:
        """Return the first position that the ledgers know of; ``None`` if they know none."""
        tenures = self.tenures.get(tp)
        return min(tenure.position for tenure in tenures) if tenures else None

    def gaps(self, tp: TopicPartition, committed: int) -> Intervals:
        """Return the offsets below ``committed`` that no ledger says were delivered or missed."""
        found = Intervals()
        start = self.start(tp)
        if start is None:
            return found
        for gap in self.delivered.get(tp, Intervals()).gaps(start, committed):
            found.add(*gap)
        for run in self.missed.get(tp, ()):
            found.remove(*run)
        return found

    def check(self, committed: Offsets) -> None:
        """Look for commits that were undone, or made by a member that had lost its partition.

        Args:
            committed: Where the group stands on the log, asked after the ledgers were read.
        """
        for tp, tenures in self.tenures.items():
            self._check_order(tp, _in_order(tenures))
            highest = max(tenures, key=lambda tenure: tenure.commit)
            stands = committed.get(tp, 0)
            if highest.commit > stands:
                self._findings.add(
                    "commit moved backwards",
                    place_name(*tp, stands),
                    f"{self.name} stands at {stands}; the log had acknowledged {highest.commit} "
                    f"to {highest.member}",
                )

    def _check_order(self, tp: TopicPartition, tenures: list[Tenure]) -> None:
        """Compare where each tenure began with what had been acknowledged to those before it."""
        highest: Tenure | None = None
        for tenure in tenures:
            if (
                highest is not None
                and tenure.position < highest.commit
                and highest.begin.before(tenure.begin)
                and highest.commit_at is not None
            ):
                self._add_undone(tp, highest, tenure, highest.commit_at)
                highest = None
            if highest is None or tenure.commit > highest.commit:
                highest = tenure

    def _add_undone(
        self, tp: TopicPartition, first: Tenure, second: Tenure, commit_at: Moment
    ) -> None:
        what = place_name(*tp, first.commit)
        if commit_at.before(second.begin):
            self._findings.add(
                "commit moved backwards",
                what,
                f"acknowledged to {first.member}; later {self.name} stood at {second.position}, "
                f"where {second.member} began",
            )
        else:
            self._findings.add(
                "stale-epoch commit",
                what,
                f"by {first.member} (epoch {first.epoch}), after {second.member} had taken over "
                f"at {second.position}",
            )

    def by_zombie(self, places: Iterable[tuple[TopicPartition, int]]) -> bool:
        """Return whether records were worked on by a member that had been replaced, and lived."""
        held = [
            tenure
            for tp, offset in places
            for tenure in self.tenures.get(tp, ())
            if offset in tenure.delivered
        ]
        return any(
            first is not second
            and first.begin.before(second.begin)
            and second.begin.before(first.end)
            for first in held
            for second in held
        )


def _in_order(tenures: Sequence[Tenure]) -> list[Tenure]:
    one_host = len({tenure.begin.boot for tenure in tenures}) == 1
    return sorted(tenures, key=lambda t: t.begin.ticks if one_host else t.begin.at)


class _MemberReader:
    """Follows the events of one file."""

    def __init__(self, history: GroupHistory, opened: Opened, findings: Findings) -> None:
        self._history, self._opened, self._findings = history, opened, findings
        self._name = f"{opened.member} (pid {opened.pid} on {opened.host})"
        self._held: dict[TopicPartition, Tenure] = {}
        self._now = self._moment(opened.at)

    def _moment(self, at: float) -> Moment:
        return Moment(self._opened.boot, at - self._opened.clock, at)

    def take(self, event: Event) -> None:
        """Follow one event."""
        self._now = self._moment(event.at)
        match event:
            case Assigned():
                self._assigned(event)
            case Revoked():
                self._end()
            case Delivered():
                self._delivered(event)
            case Done():
                self._done(event)
            case Committed():
                for topic, partition, offset in event.offsets:
                    self._committed(TopicPartition(topic, partition), offset)
            case Missed():
                tp = TopicPartition(event.topic, event.partition)
                missed = self._history.missed.setdefault(tp, Intervals())
                missed.add(event.first, event.oldest - 1)
            case _:
                pass

    def finish(self) -> None:
        """Note the last sign of life of what is held still."""
        for tenure in self._held.values():
            if not tenure.over:
                tenure.end = self._now

    def _assigned(self, event: Assigned) -> None:
        self._end()
        for topic, partition, position in event.committed:
            tp = TopicPartition(topic, partition)
            # Nothing committed and offset 0 are one: a log need not tell them apart.
            tenure = Tenure(self._name, event.epoch, max(0, position), self._now)
            self._held[tp] = tenure
            self._history.tenures.setdefault(tp, []).append(tenure)

    def _end(self) -> None:
        self.finish()
        for tenure in self._held.values():
            tenure.over = True

    def _ranges(self, ranges: Iterable[Range]) -> Iterator[tuple[TopicPartition, int, int]]:
        for topic, partition, first, last in ranges:
            yield TopicPartition(topic, partition), first, last

    def _delivered(self, event: Delivered) -> None:
        for tp, first, last in self._ranges(event.ranges):
            self._history.delivered.setdefault(tp, Intervals()).add(first, last)
            if (tenure := self._held.get(tp)) is not None:
                tenure.delivered.add(first, last)
                tenure.pending.add(first, last)

    def _done(self, event: Done) -> None:
        for tp, first, last in self._ranges(event.ranges):
            self._history.done.setdefault(tp, Intervals()).add(first, last)
            tenure = self._held.get(tp)
            if tenure is None:
                continue
            if tenure.over or tenure.epoch != event.epoch:
                tenure.late.add(first, last)
            else:
                tenure.pending.remove(first, last)

    def _committed(self, tp: TopicPartition, offset: int) -> None:
        tenure, what = self._held.get(tp), place_name(*tp, offset)
        if tenure is None:
            self._findings.add(
                "stale-epoch commit", what, f"{self._name} was never given that partition"
            )
            return
        if offset <= tenure.position and tenure.commit < 0:
            return  # an earlier tenure's, which the log told late
        if offset < tenure.commit:
            self._findings.add(
                "commit moved backwards", what, f"{self._name} had committed {tenure.commit}"
            )
            return
        self._check_work(tenure, what, offset)
        tenure.commit, tenure.commit_at = offset, self._now

    def _check_work(self, tenure: Tenure, what: str, offset: int) -> None:
        open_below = [run for run in tenure.pending if run[0] < offset]
        if open_below:
            lowest = open_below[0][0]
            if tenure.over and all(
                number in tenure.late
                for first, last in open_below
                for number in range(first, min(last + 1, offset))
            ):
                self._findings.add(
                    "stale-epoch commit",
                    what,
                    f"{self._name} finished {lowest} after epoch {tenure.epoch} had been revoked",
                )
            else:
                self._findings.add(
                    "commit ahead of work",
                    what,
                    f"{self._name} had not finished {lowest} (epoch {tenure.epoch})",
                )
        elif offset not in tenure.delivered and offset - 1 not in tenure.delivered:
            self._findings.add(
                "commit ahead of work", what, f"{self._name} was given nothing just before it"
            )
