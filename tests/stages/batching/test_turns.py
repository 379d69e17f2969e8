"""Turns on devices: slots are kept, the most downstream goes first, nobody starves or is lost."""

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from roadstream.stages.batching.batcher import Standing
from roadstream.stages.batching.turns import PATIENCE, SLOTS, Asking, Turns
from tests.examples import examples

DEVICES = ("cpu", "cuda:0", "vllm:x")
READY = Standing(8, worth=True, running=1.0)
SMALL = Standing(1, running=1.0)


def asking(rank: int, standing: Standing, *devices: str, alone: bool = False) -> Asking:
    return Asking(rank, devices or ("cpu",), lambda: standing, alone)


def chosen(*those: Asking, turns: Turns | None = None, now: float = 0.0) -> Asking | None:
    turns = turns or Turns()
    for one in those:
        turns.ask(one)
    return turns.choose(now)


class TurnsMachine(RuleBasedStateMachine):
    """Tiers of random devices that ask, are granted, run and end in a random order."""

    @initialize(
        tiers=st.lists(st.sets(st.sampled_from(DEVICES), min_size=1), min_size=2, max_size=5)
    )
    def begin(self, tiers: list[set[str]]) -> None:
        self.turns, self.now = Turns(), 0.0
        self.devices = [tuple(sorted(devices)) for devices in tiers]
        self.asking: dict[int, Asking] = {}
        self.standing: dict[int, Standing] = {}
        self.flying: list[Asking] = []
        self.left: dict[Asking, set[str]] = {}

    @rule(
        rank=st.integers(0, 4),
        size=st.integers(0, 9),
        worth=st.booleans(),
        slack=st.sampled_from([math.inf, math.inf, -1.0, 0.5, 20.0]),
        preparing=st.floats(0, 1),
        alone=st.sampled_from([False, False, False, True]),
    )
    def ask(
        self, rank: int, size: int, worth: bool, slack: float, preparing: float, alone: bool
    ) -> None:
        rank %= len(self.devices)
        self.standing[rank] = Standing(size, worth, slack, preparing, 1.0)
        if rank not in self.asking:
            one = Asking(rank, self.devices[rank], lambda: self.standing[rank], alone)
            self.asking[rank] = one
            self.turns.ask(one)

    @rule(rank=st.integers(0, 4))
    def withdraw(self, rank: int) -> None:
        if (one := self.asking.pop(rank, None)) is not None:
            self.turns.withdraw(one)

    @rule(seconds=st.sampled_from([0.0, 0.3, 5.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    def room(self, one: Asking) -> bool:
        if one.alone:
            return not self.flying
        return all(self.turns.free(name) > 0 for name in one.devices)

    @rule(preparing=st.floats(0, 1), running=st.floats(0, 2))
    def grant(self, preparing: float, running: float) -> None:
        one = self.turns.choose(self.now)
        if one is None:
            return
        assert self.asking[one.rank] is one
        assert self.room(one)
        self.check_order(one)
        self.turns.grant(one, self.now)
        self.turns.expect(one, preparing, dict.fromkeys(one.devices, running), self.now)
        del self.asking[one.rank]
        self.flying.append(one)
        self.left[one] = set(one.devices)

    def check_order(self, one: Asking) -> None:
        """Downstream goes first, unless somebody is more urgent, overdue, or worth it."""
        mine = self.standing[one.rank]
        if one.alone or not mine.size or one.passed >= PATIENCE or mine.slack < 1.0:
            return
        for other in self.asking.values():
            its = self.standing[other.rank]
            held_back = self.turns._ready(other, self.now) is None
            if other is one or held_back:
                continue
            assert its.slack >= 1.0
            assert (its.worth, other.rank) < (mine.worth, one.rank)

    @rule(index=st.integers(0, 9), device=st.integers(0, 2))
    def device_is_done(self, index: int, device: int) -> None:
        if self.flying:
            one = self.flying[index % len(self.flying)]
            name = one.devices[device % len(one.devices)]
            self.turns.over(one, name, self.now)
            self.left[one].discard(name)

    @rule(index=st.integers(0, 9))
    def end(self, index: int) -> None:
        if self.flying:
            one = self.flying.pop(index % len(self.flying))
            self.turns.end(one, self.now)
            self.turns.end(one, self.now)
            del self.left[one]

    @invariant()
    def slots_are_kept(self) -> None:
        if not hasattr(self, "turns"):
            return
        alone = [one for one in self.flying if one.alone]
        assert not alone or len(self.flying) == 1
        for name in DEVICES:
            taken = sum(name in left for left in self.left.values())
            assert taken <= SLOTS
            assert self.turns.free(name) == (0 if alone else SLOTS - taken)

    @invariant()
    def an_idle_device_is_not_kept_idle(self) -> None:
        if hasattr(self, "turns") and self.asking and not self.flying:
            assert self.turns.choose(self.now) is not None

    @invariant()
    def it_is_known_when_to_look_again(self) -> None:
        """Nobody waits for a time that nobody was told of."""
        if not hasattr(self, "turns") or self.turns.choose(self.now) is not None:
            return
        at = self.turns.opens_at(self.now)
        if at < math.inf and not any(one.alone for one in self.asking.values()):
            assert at > self.now
            if not any(one.alone for one in self.flying):
                assert self.turns.choose(at + 1e-6) is not None


TestTurns = TurnsMachine.TestCase
TestTurns.settings = settings(deadline=None, max_examples=examples(200), stateful_step_count=40)


def test_the_most_downstream_batch_that_is_worth_it_goes_first() -> None:
    first, second, third = (asking(rank, READY) for rank in range(3))
    assert chosen(first, third, second) is third


def test_a_small_downstream_batch_waits_for_a_large_upstream_one() -> None:
    upstream, downstream = asking(0, READY), asking(1, SMALL)
    assert chosen(upstream, downstream) is upstream


def test_of_small_batches_the_most_downstream_goes_first() -> None:
    upstream, downstream = asking(0, SMALL), asking(1, SMALL)
    assert chosen(upstream, downstream) is downstream


def test_a_live_image_that_cannot_wait_for_anothers_batch_goes_first() -> None:
    urgent = asking(0, Standing(1, slack=0.9, running=0.1))
    patient = asking(0, Standing(1, slack=1.1, running=0.1))
    assert chosen(urgent, asking(1, READY)) is urgent
    assert chosen(patient, last := asking(1, READY)) is last


def test_nobody_starves() -> None:
    turns, upstream = Turns(), asking(0, SMALL)
    turns.ask(upstream)
    granted: list[Asking] = []
    while upstream not in granted and len(granted) < 100:
        turns.ask(asking(1, READY))
        one = turns.choose(0.0)
        assert one is not None
        turns.grant(one, 0.0)
        turns.end(one, 0.0)
        granted.append(one)

    assert len(granted) == PATIENCE + 1


def test_members_elsewhere_take_no_slots_here() -> None:
    turns = Turns()
    remote = [asking(2, READY, "vllm:x") for _ in range(SLOTS)]
    for one in remote:
        turns.ask(one)
        turns.grant(one, 0.0)

    here, another = asking(0, READY), asking(2, READY, "vllm:x")

    assert chosen(another, turns=turns) is None
    assert chosen(here, turns=turns) is here


def test_a_device_that_is_done_is_free_while_the_batch_goes_on_elsewhere() -> None:
    turns = Turns(slots=1)
    both = asking(0, READY, "cpu", "vllm:x")
    turns.ask(both)
    turns.grant(both, 0.0)
    assert chosen(here := asking(1, READY), turns=turns) is None

    turns.over(both, "cpu", 1.0)

    assert turns.choose(1.0) is here
    assert turns.free("vllm:x") == 0


def test_a_second_batch_is_bound_when_its_decoding_ends_as_the_first_does() -> None:
    turns = Turns(lead=1.0)
    first = asking(0, READY)
    turns.ask(first)
    turns.grant(first, 0.0)
    turns.expect(first, 0.5, {"cpu": 2.0}, 0.0)
    second = asking(0, Standing(3, slack=9.0, preparing=0.4, running=1.0))

    assert turns.wait(["cpu"], 0.0) == pytest.approx(2.5)
    assert chosen(second, turns=turns, now=2.0) is None
    assert turns.opens_at(2.0) == pytest.approx(2.099)
    assert turns.choose(2.1) is second


def test_a_full_archive_batch_does_not_wait_for_that() -> None:
    turns = Turns()
    first = asking(0, READY)
    turns.ask(first)
    turns.grant(first, 0.0)
    turns.expect(first, 0.5, {"cpu": 2.0}, 0.0)

    assert chosen(second := asking(0, READY), turns=turns) is second


def test_alone_means_that_nothing_else_runs_and_nothing_begins_meanwhile() -> None:
    turns = Turns()
    before, alone, after = (
        asking(0, READY),
        asking(0, SMALL, alone=True),
        asking(1, READY, "vllm:x"),
    )
    turns.ask(before)
    turns.grant(before, 0.0)
    turns.ask(alone)
    turns.ask(after)
    assert turns.choose(0.0) is None
    turns.end(before, 1.0)
    assert turns.choose(1.0) is alone
    turns.grant(alone, 1.0)
    assert turns.choose(1.0) is None
    turns.end(alone, 2.0)
    assert turns.choose(2.0) is after
