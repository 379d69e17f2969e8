"""What the members of one group did, by their ledgers: the commits no sound member makes. Pure.

A file of events is in the order in which things happened in one process. Between processes order is
told by the host's monotonic clock, which every file is tied to; between hosts by the wall clock,
with a tolerance. What a killed member did and could no longer note is never held against anybody:
a member's first position shows what the log had acknowledged before. Nor is what stood in a part of
a ledger that cannot be read: what follows it is compared again from the next assignment on.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from roadstream.schemas.records.events import (
    Assigned,
    Closed,
    Committed,
    Delivered,
    Done,
    Event,
    Missed,
    Opened,
    Range,
    Revoked,
)
from roadstream.sinks.verification.findings import Findings, Kind
from roadstream.streams.group.intervals import Intervals
from roadstream.streams.ledgers.event_ledger import Damage
from roadstream.streams.log import Offsets, TopicPartition, record_name

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


class Accusation(NamedTuple):
    """What a group's commits look like, unless its topic was made anew."""

    tp: TopicPartition
    kind: Kind
    what: str
    detail: str


class Tenure(msgspec.Struct, eq=False):
    """One member's time with one partition.

    Attributes:
        member: Name and process.
        epoch: Its epoch of that time.
        position: Where the group stood when it began.
        fresh: Whether nothing was committed then, as far as the log knew.
        begin: When.
        end: When it was revoked, or the last sign of life.
        over: Whether it was revoked, or followed by another assignment.
        delivered: What it was given.
        fed_from: When it was given the first of that, on the wall clock.
        fed_to: When it was given the last.
        pending: What of that was not done while it held the partition.
        late: What of that was done afterwards.
        commit: The highest offset that the log acknowledged to it.
        commit_at: When.
    """

    member: str
    epoch: int
    position: int
    begin: Moment
    end: Moment
    fresh: bool
    over: bool = False
    delivered: Intervals = msgspec.field(default_factory=Intervals)
    fed_from: float = 0.0
    fed_to: float = 0.0
    pending: Intervals = msgspec.field(default_factory=Intervals)
    late: Intervals = msgspec.field(default_factory=Intervals)
    commit: int = -1
    commit_at: Moment | None = None


class GroupHistory:
    """The ledgers of one consumer group.

    Args:
        name: The group.
        topics: What it consumes; of others, as another cascade's, nothing is taken in.
        findings: Where anomalies go.
        boot: What the host is since it was started, if a power cut may take the last commits of the
            log, as it may of an embedded one; empty if it may not.

    Attributes:
        elsewhere: Other topics that its ledgers name.
        whole: Whether all its ledgers could be read to the end of what their processes did.
        unassigned: Deliveries of which no assignment is noted, though nothing is damaged.
        unended: Ledgers that did not end in order, or are still written.
        forgotten: Partitions of which the log no longer knows what had been committed: the group
            was deleted, or its offsets have expired.
        cut_back: Partitions on which the group stood further before the host was started anew, and
            whether it has come as far again since.
    """

    def __init__(
        self, name: str, topics: Collection[str], findings: Findings, boot: str = ""
    ) -> None:
        self._boot = boot
        self.name, self.topics, self._findings = name, frozenset(topics), findings
        self.tenures: dict[TopicPartition, list[Tenure]] = {}
        self.delivered: dict[TopicPartition, Intervals] = {}
        self.done: dict[TopicPartition, Intervals] = {}
        self.missed: dict[TopicPartition, Intervals] = {}
        self.elsewhere: set[str] = set()
        self.forgotten: set[TopicPartition] = set()
        self.cut_back: dict[TopicPartition, bool] = {}
        self.whole, self.unassigned, self.unended = True, 0, 0
        self.last_held: dict[tuple[str, str, int, str], dict[TopicPartition, Tenure]] = {}

    def read(self, opened: Opened, events: Iterable[Event | Damage]) -> None:
        """Take in the events of one file, from after its ``Opened``."""
        member = _MemberReader(self, opened, self._findings)
        for event in events:
            if isinstance(event, Damage):
                member.lose()
            else:
                member.take(event)
        member.close()

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

    def unexplained(self, committed: Offsets) -> Iterator[TopicPartition]:
        """Yield the partitions that were committed further than any ledger knows.

        Processes that were killed, or run on, may have yet to note what the log knows already.
        """
        if self.unended or not self.whole:
            return
        for tp, at in committed.items():
            known = (max(tenure.commit, tenure.position) for tenure in self.tenures.get(tp, ()))
            if at > max(known, default=0):
                yield tp

    def beyond(self, ends: Mapping[TopicPartition, int]) -> Iterator[TopicPartition]:
        """Yield the partitions that end before what was delivered of them."""
        for tp, delivered in self.delivered.items():
            if (last := delivered.highest) is not None and last >= ends.get(tp, 0):
                yield tp

    def knew_another(self, tp: TopicPartition, oldest: int, appended_at: float) -> bool:
        """Return whether an offset was delivered before the record that stands there was appended.

        Args:
            tp: The partition.
            oldest: The offset of its oldest record.
            appended_at: When that was appended, on the wall clock.
        """
        for tenure in self.tenures.get(tp, ()):
            if oldest in tenure.delivered:
                first = oldest == tenure.delivered.lowest
                if (tenure.fed_from if first else tenure.fed_to) + CLOCK_TOLERANCE < appended_at:
                    return True
        return False

    def accusations(self, committed: Offsets) -> list[Accusation]:
        """Return the commits that were undone, or made by a member that had lost its partition.

        Args:
            committed: Where the group stands on the log, asked after the ledgers were read.
        """
        found: list[Accusation] = []
        for tp, tenures in self.tenures.items():
            found += self._out_of_order(tp, _in_order(tenures))
            highest = max(tenures, key=lambda tenure: tenure.commit)
            stands = committed.get(tp)
            if tp in self.cut_back:
                self.cut_back[tp] = stands is not None and stands >= highest.commit
            if stands is None:
                if highest.commit > 0:
                    self.forgotten.add(tp)
            elif highest.commit > stands and self._was_cut(highest, self._boot):
                self.cut_back[tp] = False
            elif highest.commit > stands:
                detail = (
                    f"{self.name} stands at {stands}; the log had acknowledged {highest.commit} "
                    f"to {highest.member}"
                )
                found.append(
                    Accusation(tp, "commit moved backwards", record_name((tp, stands)), detail)
                )
        return found

    def _out_of_order(self, tp: TopicPartition, tenures: list[Tenure]) -> Iterator[Accusation]:
        """Compare where each tenure began with what had been acknowledged to those before it."""
        highest: Tenure | None = None
        for tenure in tenures:
            if (
                highest is not None
                and tenure.position < highest.commit
                and highest.begin.before(tenure.begin)
                and highest.commit_at is not None
            ):
                undone = highest.commit_at.before(tenure.begin)
                if undone and self._was_cut(highest, tenure.begin.boot):
                    self.cut_back[tp] = False
                elif undone and tenure.fresh:
                    self.forgotten.add(tp)
                else:
                    yield self._undone(tp, highest, tenure, surely=undone)
                highest = None
            if highest is None or tenure.commit > highest.commit:
                highest = tenure

    def _was_cut(self, tenure: Tenure, boot: str) -> bool:
        """Return whether the host's power may have been cut since a tenure."""
        return bool(self._boot and tenure.begin.boot and boot) and tenure.begin.boot != boot

    def _undone(
        self, tp: TopicPartition, first: Tenure, second: Tenure, *, surely: bool
    ) -> Accusation:
        what = record_name((tp, first.commit))
        if surely:
            detail = (
                f"acknowledged to {first.member}; later {self.name} stood at {second.position}, "
                f"where {second.member} began"
            )
            return Accusation(tp, "commit moved backwards", what, detail)
        detail = (
            f"by {first.member} (epoch {first.epoch}), after {second.member} had taken over "
            f"at {second.position}"
        )
        return Accusation(tp, "stale-epoch commit", what, detail)

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
        self._process = (opened.boot, opened.host, opened.pid, opened.member)
        self._held: dict[TopicPartition, Tenure] = {}
        # Whether it is known what the member held: from an assignment on, until a damage.
        self._certain = self._damaged = self._ended = False
        # What the member's process held last: commits told before the first assignment are of it.
        self._earlier = history.last_held.get(self._process, {})
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
                    if self._is_ours(topic):
                        self._committed(TopicPartition(topic, partition), offset)
            case Missed() if self._is_ours(event.topic):
                self._missed(event)
            case Closed():
                self._ended = True
            case _:
                pass

    def lose(self) -> None:
        """Pass over events that cannot be read: what the member holds is not known any more."""
        self._end()
        self._damaged = True
        self._history.whole = self._certain = False
        self._held, self._earlier = {}, {}

    def finish(self) -> None:
        """Note the last sign of life of what is held still."""
        for tenure in self._held.values():
            if not tenure.over:
                tenure.end = self._now
        if self._held:
            self._history.last_held[self._process] = self._held

    def close(self) -> None:
        """Note the end of the file."""
        self.finish()
        self._history.unended += not self._ended

    def _is_ours(self, topic: str) -> bool:
        ours = topic in self._history.topics
        if not ours:
            self._history.elsewhere.add(topic)
        return ours

    def _assigned(self, event: Assigned) -> None:
        self._end()
        self._certain = True
        for topic, partition, position in event.committed:
            if not self._is_ours(topic):
                continue
            tp = TopicPartition(topic, partition)
            now = self._now
            # Nothing committed and offset 0 are one: a log need not tell them apart.
            tenure = Tenure(self._name, event.epoch, max(0, position), now, now, position < 0)
            self._held[tp] = tenure
            self._history.tenures.setdefault(tp, []).append(tenure)

    def _end(self) -> None:
        self.finish()
        for tenure in self._held.values():
            tenure.over = True

    def _ranges(self, ranges: Iterable[Range]) -> Iterator[tuple[TopicPartition, int, int]]:
        for topic, partition, first, last in ranges:
            if self._is_ours(topic):
                yield TopicPartition(topic, partition), first, last

    def _delivered(self, event: Delivered) -> None:
        for tp, first, last in self._ranges(event.ranges):
            self._history.delivered.setdefault(tp, Intervals()).add(first, last)
            tenure = self._held.get(tp)
            if tenure is None or tenure.epoch != event.epoch:  # the line of its assignment is gone
                if self._certain or not self._damaged:
                    self._history.unassigned += 1
                self._history.whole = False
                continue
            tenure.delivered.add(first, last)
            tenure.pending.add(first, last)
            tenure.fed_from, tenure.fed_to = tenure.fed_from or event.at, event.at

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

    def _missed(self, event: Missed) -> None:
        tp = TopicPartition(event.topic, event.partition)
        self._history.missed.setdefault(tp, Intervals()).add(event.first, event.oldest - 1)

    def _committed(self, tp: TopicPartition, offset: int) -> None:
        tenure, what = self._held.get(tp), record_name((tp, offset))
        if not self._certain:
            tenure = self._earlier.get(tp)
        if tenure is None:
            if self._certain:
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
        self._check_work(tenure, tp, offset)
        tenure.commit, tenure.commit_at = offset, self._now

    def _check_work(self, tenure: Tenure, tp: TopicPartition, offset: int) -> None:
        what = record_name((tp, offset))
        open_below = [run for run in tenure.pending if run[0] < offset]
        if open_below:
            lowest = open_below[0][0]
            if tenure.over and not any(
                next(tenure.late.gaps(first, min(last + 1, offset)), None)
                for first, last in open_below
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
        elif not self._was_given(tenure, tp, offset):
            self._findings.add(
                "commit ahead of work", what, f"{self._name} was given nothing just before it"
            )

    def _was_given(self, tenure: Tenure, tp: TopicPartition, offset: int) -> bool:
        """Return whether a record was given just before it, or retention took what was there."""
        missed = self._history.missed.get(tp, ())
        return offset in tenure.delivered or offset - 1 in tenure.delivered or offset - 1 in missed
