"""Slots of devices: slots are kept, the most downstream goes first, nobody starves or is lost."""

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from roadstream.stages.batching.batcher import QueueState
from roadstream.stages.batching.device_queue import PATIENCE, SLOTS, DeviceQueue, SlotRequest
from tests.kits.examples import examples

DEVICES = ("cpu", "cuda:0", "vllm:x")
READY = QueueState(8, worth=True, running=1.0)
SMALL = QueueState(1, running=1.0)


def request(rank: int, state: QueueState, *devices: str, alone: bool = False) -> SlotRequest:
    return SlotRequest(rank, devices or ("cpu",), lambda: state, alone)


def chosen(
    *those: SlotRequest, queue: DeviceQueue | None = None, now: float = 0.0
) -> SlotRequest | None:
    queue = queue or DeviceQueue()
    for one in those:
        queue.ask(one)
    return queue.choose(now)


class DeviceQueueMachine(RuleBasedStateMachine):
    """Tiers of random devices that ask, are granted, run and end in a random order."""

    @initialize(
        tiers=st.lists(st.sets(st.sampled_from(DEVICES), min_size=1), min_size=2, max_size=5)
    )
    def begin(self, tiers: list[set[str]]) -> None:
        self.queue, self.now = DeviceQueue(), 0.0
        self.devices = [tuple(sorted(devices)) for devices in tiers]
        self.requests: dict[int, SlotRequest] = {}
        self.state: dict[int, QueueState] = {}
        self.flying: list[SlotRequest] = []
        self.left: dict[SlotRequest, set[str]] = {}

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
        self.state[rank] = QueueState(size, worth, slack, preparing, 1.0)
        if rank not in self.requests:
            one = SlotRequest(rank, self.devices[rank], lambda: self.state[rank], alone)
            self.requests[rank] = one
            self.queue.ask(one)

    @rule(rank=st.integers(0, 4))
    def withdraw(self, rank: int) -> None:
        if (one := self.requests.pop(rank, None)) is not None:
            self.queue.withdraw(one)

    @rule(seconds=st.sampled_from([0.0, 0.3, 5.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    def room(self, one: SlotRequest) -> bool:
        if one.alone:
            return not self.flying
        return all(self.queue.free(name) > 0 for name in one.devices)

    @rule(preparing=st.floats(0, 1), running=st.floats(0, 2))
    def grant(self, preparing: float, running: float) -> None:
        one = self.queue.choose(self.now)
        if one is None:
            return
        assert self.requests[one.rank] is one
        assert self.room(one)
        self.check_order(one)
        self.queue.grant(one, self.now)
        self.queue.expect(one, preparing, dict.fromkeys(one.devices, running), self.now)
        del self.requests[one.rank]
        self.flying.append(one)
        self.left[one] = set(one.devices)

    def check_order(self, one: SlotRequest) -> None:
        """Downstream goes first, unless somebody is more urgent, overdue, or worth it."""
        mine = self.state[one.rank]
        if one.alone or not mine.size or one.passed >= PATIENCE or mine.slack < 1.0:
            return
        for other in self.requests.values():
            its = self.state[other.rank]
            held_back = self.queue._ready(other, self.now) is None
            if other is one or held_back:
                continue
            assert its.slack >= 1.0
            assert (its.worth, other.rank) < (mine.worth, one.rank)

    @rule(index=st.integers(0, 9), device=st.integers(0, 2))
    def device_is_done(self, index: int, device: int) -> None:
        if self.flying:
            one = self.flying[index % len(self.flying)]
            name = one.devices[device % len(one.devices)]
            self.queue.over(one, name, self.now)
            self.left[one].discard(name)

    @rule(index=st.integers(0, 9))
    def end(self, index: int) -> None:
        if self.flying:
            one = self.flying.pop(index % len(self.flying))
            self.queue.end(one, self.now)
            self.queue.end(one, self.now)
            del self.left[one]

    @invariant()
    def slots_are_kept(self) -> None:
        if not hasattr(self, "queue"):
            return
        alone = [one for one in self.flying if one.alone]
        assert not alone or len(self.flying) == 1
        for name in DEVICES:
            taken = sum(name in left for left in self.left.values())
            assert taken <= SLOTS
            assert self.queue.free(name) == (0 if alone else SLOTS - taken)

    @invariant()
    def an_idle_device_is_not_kept_idle(self) -> None:
        if hasattr(self, "queue") and self.requests and not self.flying:
            assert self.queue.choose(self.now) is not None

    @invariant()
    def it_is_known_when_to_look_again(self) -> None:
        """Nobody waits for a time that nobody was told of."""
        if not hasattr(self, "queue") or self.queue.choose(self.now) is not None:
            return
        at = self.queue.opens_at(self.now)
        if at < math.inf and not any(one.alone for one in self.requests.values()):
            assert at > self.now
            if not any(one.alone for one in self.flying):
                assert self.queue.choose(at + 1e-6) is not None


TestDeviceQueue = DeviceQueueMachine.TestCase
TestDeviceQueue.settings = settings(
    deadline=None, max_examples=examples(200), stateful_step_count=40
)


def test_the_most_downstream_batch_that_is_worth_it_goes_first() -> None:
    first, second, third = (request(rank, READY) for rank in range(3))
    assert chosen(first, third, second) is third


def test_a_small_downstream_batch_waits_for_a_large_upstream_one() -> None:
    upstream, downstream = request(0, READY), request(1, SMALL)
    assert chosen(upstream, downstream) is upstream


def test_of_small_batches_the_most_downstream_goes_first() -> None:
    upstream, downstream = request(0, SMALL), request(1, SMALL)
    assert chosen(upstream, downstream) is downstream


def test_a_live_image_that_cannot_wait_for_anothers_batch_goes_first() -> None:
    urgent = request(0, QueueState(1, slack=0.9, running=0.1))
    patient = request(0, QueueState(1, slack=1.1, running=0.1))
    assert chosen(urgent, request(1, READY)) is urgent
    assert chosen(patient, last := request(1, READY)) is last


def test_nobody_starves() -> None:
    queue, upstream = DeviceQueue(), request(0, SMALL)
    queue.ask(upstream)
    granted: list[SlotRequest] = []
    while upstream not in granted and len(granted) < 100:
        queue.ask(request(1, READY))
        one = queue.choose(0.0)
        assert one is not None
        queue.grant(one, 0.0)
        queue.end(one, 0.0)
        granted.append(one)

    assert len(granted) == PATIENCE + 1


def test_members_elsewhere_take_no_slots_here() -> None:
    queue = DeviceQueue()
    remote = [request(2, READY, "vllm:x") for _ in range(SLOTS)]
    for one in remote:
        queue.ask(one)
        queue.grant(one, 0.0)

    here, another = request(0, READY), request(2, READY, "vllm:x")

    assert chosen(another, queue=queue) is None
    assert chosen(here, queue=queue) is here


def test_a_device_that_is_done_is_free_while_the_batch_goes_on_elsewhere() -> None:
    queue = DeviceQueue(slots=1)
    both = request(0, READY, "cpu", "vllm:x")
    queue.ask(both)
    queue.grant(both, 0.0)
    assert chosen(here := request(1, READY), queue=queue) is None

    queue.over(both, "cpu", 1.0)

    assert queue.choose(1.0) is here
    assert queue.free("vllm:x") == 0


def test_a_second_batch_is_bound_when_its_decoding_ends_as_the_first_does() -> None:
    queue = DeviceQueue(lead=1.0)
    first = request(0, READY)
    queue.ask(first)
    queue.grant(first, 0.0)
    queue.expect(first, 0.5, {"cpu": 2.0}, 0.0)
    second = request(0, QueueState(3, slack=9.0, preparing=0.4, running=1.0))

    assert queue.wait(["cpu"], 0.0) == pytest.approx(2.5)
    assert chosen(second, queue=queue, now=2.0) is None
    assert queue.opens_at(2.0) == pytest.approx(2.099)
    assert queue.choose(2.1) is second


def test_a_full_archive_batch_does_not_wait_for_that() -> None:
    queue = DeviceQueue()
    first = request(0, READY)
    queue.ask(first)
    queue.grant(first, 0.0)
    queue.expect(first, 0.5, {"cpu": 2.0}, 0.0)

    assert chosen(second := request(0, READY), queue=queue) is second


def test_alone_means_that_nothing_else_runs_and_nothing_begins_meanwhile() -> None:
    queue = DeviceQueue()
    before, alone, after = (
        request(0, READY),
        request(0, SMALL, alone=True),
        request(1, READY, "vllm:x"),
    )
    queue.ask(before)
    queue.grant(before, 0.0)
    queue.ask(alone)
    queue.ask(after)
    assert queue.choose(0.0) is None
    queue.end(before, 1.0)
    assert queue.choose(1.0) is alone
    queue.grant(alone, 1.0)
    assert queue.choose(1.0) is None
    queue.end(alone, 2.0)
    assert queue.choose(2.0) is after
