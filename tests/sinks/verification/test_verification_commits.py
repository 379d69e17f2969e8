"""Whatever sound members of a group live through, their ledgers show no anomaly."""

from collections.abc import Sequence

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from roadstream.schemas.records.events import (
    Assigned,
    Committed,
    Delivered,
    Done,
    Event,
    Fenced,
    Opened,
    Revoked,
)
from roadstream.sinks.verification.commits import GroupHistory, Moment
from roadstream.sinks.verification.findings import Findings
from roadstream.streams.ledgers.event_ledger import ranges
from roadstream.streams.log import TopicPartition
from tests.kits.examples import examples

TP = TopicPartition("t", 0)
MEMBERS, RECORDS = 3, 40
STEP = st.tuples(
    st.sampled_from(
        ["take over", "hand over", "deliver", "finish", "commit", "note", "kill", "notice"]
    ),
    st.integers(0, MEMBERS - 1),
    st.integers(0, 5),
)


class Member:
    """A process: what it holds by its own knowledge, and the notes it has yet to write."""

    def __init__(self) -> None:
        self.files: list[list[Event]] = []
        self.holds = self.alive = False
        self.epoch = 0
        self.position = 0
        self.pending: list[int] = []
        self.unnoted: list[Committed] = []


class Group:
    """A sound group on one partition: one owner, fenced commits that never move backwards."""

    def __init__(self) -> None:
        self.now = 0.0
        self.committed = 0
        self.owner: Member | None = None
        self.members = [Member() for _ in range(MEMBERS)]

    def step(self, name: str, number: int, amount: int) -> None:
        self.now += 1.0
        member = self.members[number]
        match name:
            case "take over":
                self._take_over(member)
            case "hand over":
                self._hand_over(member)
            case "deliver":
                self._deliver(member, amount)
            case "finish":
                self._finish(member, amount)
            case "commit":
                self._commit(member)
            case "note":
                self._note(member)
            case "kill":
                self._kill(member)
            case "notice":
                self._notice(member)

    def _hand_over(self, heir: Member) -> None:
        if self.owner is not None and self.owner is not heir:
            self._give_up(self.owner)
            self._take_over(heir)

    def _deliver(self, member: Member, amount: int) -> None:
        offsets = range(member.position, min(member.position + amount, RECORDS))
        if self.owner is member and offsets:
            found = ranges([(TP, offsets)])
            member.files[-1].append(Delivered(self.now, member.epoch, found))
            member.pending += offsets
            member.position = offsets[-1] + 1

    def _kill(self, member: Member) -> None:
        member.alive = member.holds = False
        member.unnoted = []
        if self.owner is member:
            self.owner = None

    def _notice(self, member: Member) -> None:
        if member.holds and self.owner is not member:
            self._give_up(member)

    def _take_over(self, member: Member) -> None:
        """The group gives the partition to a member; who had it may not know yet."""
        if self.owner is member:
            return
        if not member.alive:
            opened = Opened(self.now, "worker", "g", "m", 1, "host", "boot", 0.0)
            member.files.append([opened])
            member.alive = True
        self._note(member)
        self.owner = member
        member.holds, member.pending, member.position = True, [], self.committed
        member.epoch += 1
        place = (*TP, self.committed or -1)
        member.files[-1].append(Assigned(self.now, member.epoch, [place]))

    def _give_up(self, member: Member) -> None:
        if self.owner is member:
            self._commit(member)
            self.owner = None
        member.files[-1].append(Revoked(self.now, member.epoch))
        member.holds = False

    def _finish(self, member: Member, amount: int) -> None:
        if not member.holds:
            return
        if self.owner is not member:
            member.files[-1].append(Fenced(self.now, member.epoch))
        elif len(member.pending) > amount:
            offset = member.pending.pop(amount)
            done = ranges([(TP, [offset])])
            member.files[-1].append(Done(self.now, member.epoch, done))

    def _commit(self, member: Member) -> None:
        """The log takes it at once; the member hears of it later, or never."""
        at = member.pending[0] if member.pending else member.position
        if self.owner is member and at > self.committed:
            self.committed = at
            member.unnoted.append(Committed(self.now, [(*TP, at)]))

    def _note(self, member: Member) -> None:
        """Write what the log has acknowledged; a process that was stopped hears of it late."""
        for event in member.unnoted:
            member.files[-1].append(msgspec.structs.replace(event, at=self.now))
        member.unnoted = []


def read(group: Group) -> tuple[GroupHistory, Findings]:
    findings = Findings()
    history = GroupHistory("g", ["t"], findings)
    for member in group.members:
        for opened, *events in member.files:
            assert isinstance(opened, Opened)
            history.read(opened, events)
    return history, findings


@settings(max_examples=examples(400), deadline=None)
@given(st.lists(STEP, max_size=60))
def test_a_sound_group_shows_no_anomaly(steps: Sequence[tuple[str, int, int]]) -> None:
    group = Group()
    for name, number, amount in steps:
        group.step(name, number, amount)
    history, findings = read(group)

    assert history.accusations({TP: group.committed} if group.committed else {}) == []
    assert not history.forgotten
    assert findings.kept == []
    assert not history.gaps(TP, group.committed)


@settings(max_examples=examples(200), deadline=None)
@given(st.lists(STEP, max_size=40), st.integers(1, 5))
def test_a_group_that_is_set_back_is_found_out(
    steps: Sequence[tuple[str, int, int]], back: int
) -> None:
    group = Group()
    for name, number, amount in steps:
        group.step(name, number, amount)
    history, findings = read(group)
    acknowledged = max((t.commit for t in history.tenures.get(TP, [])), default=-1)

    found = [a.kind for a in history.accusations({TP: max(0, acknowledged - back)})]
    assert found == (["commit moved backwards"] if acknowledged > 0 else [])
    assert findings.kept == []


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(STEP, max_size=40))
def test_a_group_whose_offsets_are_gone_is_not_accused_and_not_cleared(
    steps: Sequence[tuple[str, int, int]],
) -> None:
    group = Group()
    for name, number, amount in steps:
        group.step(name, number, amount)
    history, _ = read(group)
    acknowledged = any(t.commit > 0 for t in history.tenures.get(TP, []))

    assert history.accusations({}) == []
    assert history.forgotten == ({TP} if acknowledged else set())


def test_moments_of_one_boot_are_ordered_by_its_monotonic_clock_whatever_the_wall_clock_says() -> (
    None
):
    assert Moment("a", 1.0, 900.0).before(Moment("a", 2.0, 100.0))
    assert not Moment("a", 2.0, 100.0).before(Moment("a", 1.0, 900.0))


def test_moments_of_two_hosts_are_ordered_only_if_they_are_well_apart() -> None:
    assert Moment("a", 9.0, 100.0).before(Moment("b", 1.0, 105.1))
    assert not Moment("a", 9.0, 100.0).before(Moment("b", 1.0, 104.9))
