"""The batcher: earliest deadline first, archive last and bounded, nothing lost or doubled."""

import math
from collections.abc import Callable, Hashable
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from roadstream.stages.batching.arrivals import Arrivals
from roadstream.stages.batching.batcher import BatchCap, Batcher, QueueState
from roadstream.stages.batching.deadline_policy import DeadlinePolicy
from roadstream.stages.batching.latency_model import AffineLatency, LatencyModel, TierLatency
from roadstream.stages.batching.policy import Moment
from tests.kits.examples import examples

NOW = 1_000.0


class Waiting(NamedTuple):
    serial: int
    deadline_at: float | None
    size: int
    shape: str = ""


def live(serial: int, deadline_at: float, shape: str = "") -> Waiting:
    return Waiting(serial, deadline_at, 1, shape)


def archive(serial: int, shape: str = "") -> Waiting:
    return Waiting(serial, None, 1, shape)


def urgency(item: Waiting) -> tuple[float, int]:
    return (math.inf if item.deadline_at is None else item.deadline_at, item.serial)


def patience(batcher: Batcher[Waiting], now: float, idle: float) -> float:
    """Return for how long a batch waits when nothing has run for so long, and more will come."""
    return max(0.0, batcher.begin_at(Moment(now, idle=idle, more=True)) - now)


def arrivals(batcher: Batcher[Waiting]) -> Arrivals:
    assert isinstance(batcher.policy, DeadlinePolicy)
    return batcher.policy.arrivals


class BatcherMachine(RuleBasedStateMachine):
    """Against two lists: what waits, and the budgets of live items of late."""

    @initialize(
        max_batch=st.integers(1, 8), alpha=st.sampled_from([0.0, 0.1, 0.5]), beta=st.floats(0, 1)
    )
    def begin(self, max_batch: int, alpha: float, beta: float) -> None:
        self.service = AffineLatency(alpha, beta)
        self.batcher: Batcher[Waiting] = Batcher(max_batch, self.service)
        self.now = NOW
        self.waiting: list[Waiting] = []
        self.budgets: list[tuple[float, float]] = []
        self.serial = 0

    def tightest(self) -> float:
        since = self.now - Arrivals.MEMORY
        return min((budget for at, budget in self.budgets if at >= since), default=math.inf)

    @rule(
        items=st.lists(
            st.tuples(st.none() | st.floats(-2, 20), st.integers(0, 9), st.sampled_from("ab")),
            max_size=8,
        )
    )
    def add(self, items: list[tuple[float | None, int, str]]) -> None:
        new = []
        for budget, size, shape in items:
            self.serial += 1
            deadline = None if budget is None else self.now + budget
            new.append(Waiting(self.serial, deadline, size, shape))
            if deadline is not None and deadline - self.now > 0:
                self.budgets.append((self.now, deadline - self.now))
        self.waiting += new
        self.batcher.add(new, self.now)

    @rule(seconds=st.sampled_from([0.0, 0.5, 3.0, 11.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(fits=st.integers(0, 9))
    def memory_runs_out(self, fits: int) -> None:
        self.batcher.cap.lower(fits)

    @rule(times=st.integers(1, 200))
    def batches_fit(self, times: int) -> None:
        for _ in range(times):
            self.batcher.cap.fitted(self.batcher.cap.now)

    @rule()
    def expire(self) -> None:
        due = [w for w in self.waiting if w.deadline_at is not None and w.deadline_at <= self.now]
        assert sorted(self.batcher.expired(self.now)) == sorted(due)
        self.waiting = [w for w in self.waiting if w not in due]

    @rule()
    def drop(self) -> None:
        assert sorted(self.batcher.drop()) == sorted(self.waiting)
        self.waiting = []

    @rule(wait=st.sampled_from([0.0, 0.2, 2.0]))
    def take(self, wait: float) -> None:
        due = [w for w in self.waiting if w.deadline_at is not None and w.deadline_at <= self.now]
        state = self.batcher.state(self.now)

        items, expired = self.batcher.next_batch(Moment(self.now, wait))

        assert sorted(expired) == sorted(due)
        self.waiting = [w for w in self.waiting if w not in expired]
        assert bool(items) is bool(self.waiting)
        assert state.size > 0 or not items
        assert len(items) <= self.batcher.cap.now
        if items:
            self.check_shape(items)
            self.check_live_part(items, wait)
            self.check_archive_part(items, wait)
        taken = {w.serial for w in items}
        assert len(taken) == len(items)
        assert taken <= {w.serial for w in self.waiting}
        self.waiting = [w for w in self.waiting if w.serial not in taken]

    def check_shape(self, items: list[Waiting]) -> None:
        """A batch holds one shape: that of what is most urgent."""
        assert {w.shape for w in items} == {min(self.waiting, key=urgency).shape}

    def check_live_part(self, items: list[Waiting], wait: float) -> None:
        waiting = [w for w in self.waiting if w.deadline_at is not None]
        waiting = sorted([w for w in waiting if w.shape == items[0].shape], key=urgency)
        taken = [w for w in items if w.deadline_at is not None]
        assert items[: len(taken)] == taken  # live before archive
        if not waiting:
            return
        # Most urgent first, and none is passed over in the middle.
        first = waiting.index(taken[0])
        assert taken == waiting[first : first + len(taken)]
        cap, margin = self.batcher.cap.now, self.service.margin
        most = self.service.largest_within((urgency(taken[0])[0] - self.now) / margin, cap, wait)
        assert len(taken) <= max(1, most)
        if first:  # who is passed over would not have let so many in
            slack = (urgency(waiting[first - 1])[0] - self.now) / margin
            assert self.service.largest_within(slack, cap, wait) < len(waiting) - first + 1
            assert most >= 1

    def check_archive_part(self, items: list[Waiting], wait: float) -> None:
        waiting = [w for w in self.waiting if w.deadline_at is None and w.shape == items[0].shape]
        taken = [w for w in items if w.deadline_at is None]
        assert taken == waiting[: len(taken)]
        if taken and len(items) > 1 and self.tightest() < math.inf:
            assert self.service.predict(len(items)) <= 0.5 * self.tightest() + 1e-9
        cap, most = self.batcher.cap.now, self.batcher.cap.now
        if items[0].deadline_at is not None:  # those that it holds are not made late
            slack = (items[0].deadline_at - self.now) / self.service.margin
            most = self.service.largest_within(slack, cap, wait)
            assert not taken or len(items) <= most
        if self.tightest() == math.inf:
            left = len(waiting) - len(taken)
            assert len(items) == max(len(items) - len(taken), min(most, len(items) + left))

    @invariant()
    def sizes_and_numbers_add_up(self) -> None:
        assert len(self.batcher) == len(self.waiting)
        assert self.batcher.size == sum(w.size for w in self.waiting)
        deadlines = [w.deadline_at for w in self.waiting if w.deadline_at is not None]
        assert self.batcher.next_deadline_at == min(deadlines, default=None)

    @invariant()
    def patience_ends(self) -> None:
        """Nobody waits for company for longer than that saves, nor with somebody waiting live."""
        left = patience(self.batcher, self.now, 0.3)
        assert 0.0 <= left <= max(0.0, self.service.beta - 0.3) + 1e-9
        if any(w.deadline_at is not None for w in self.waiting):
            lane = min(self.waiting, key=urgency)
            assert lane.deadline_at is not None
            assert left == 0.0


TestBatcher = BatcherMachine.TestCase
TestBatcher.settings = settings(deadline=None, max_examples=examples(150), stateful_step_count=25)


def test_live_images_go_first_the_most_urgent_ahead() -> None:
    batcher: Batcher[Waiting] = Batcher(3)
    batcher.add([archive(0), live(1, NOW + 9), live(2, NOW + 5), archive(3)], NOW)

    assert [w.serial for w in batcher.next_batch(Moment(NOW)).items] == [2, 1, 0]
    assert [w.serial for w in batcher.next_batch(Moment(NOW)).items] == [3]


def test_an_image_whose_deadline_has_passed_is_handed_out_without_work() -> None:
    batcher: Batcher[Waiting] = Batcher(3)
    batcher.add([live(1, NOW + 1), live(2, NOW + 3)], NOW)

    batch = batcher.next_batch(Moment(NOW + 1))

    assert [w.serial for w in batch.expired] == [1]
    assert [w.serial for w in batch.items] == [2]


def test_archive_images_never_expire() -> None:
    batcher: Batcher[Waiting] = Batcher(3)
    batcher.add([archive(i) for i in range(3)], NOW)

    batch = batcher.next_batch(Moment(NOW + 1e9))

    assert (len(batch.items), batch.expired) == (3, [])


def test_a_late_image_runs_alone_rather_than_not_at_all() -> None:
    batcher: Batcher[Waiting] = Batcher(8, AffineLatency(alpha=1.0, beta=1.0))
    batcher.add([live(1, NOW + 0.5), live(2, NOW + 0.6)], NOW)

    assert [w.serial for w in batcher.next_batch(Moment(NOW)).items] == [1]


def test_a_live_batch_is_as_large_as_still_finishes_in_time() -> None:
    batcher: Batcher[Waiting] = Batcher(8, AffineLatency(alpha=1.0, beta=1.0))
    batcher.add([live(i, NOW + 4.5) for i in range(8)], NOW)

    assert len(batcher.next_batch(Moment(NOW)).items) == 3


def test_archive_batches_stay_short_while_live_deadlines_are_tight() -> None:
    batcher: Batcher[Waiting] = Batcher(8, AffineLatency(alpha=1.0, beta=0.0))
    batcher.add([live(0, NOW + 10), *(archive(i) for i in range(1, 40))], NOW)

    assert len(batcher.next_batch(Moment(NOW)).items) == 5  # half of 10 s, at 1 s each
    assert len(batcher.next_batch(Moment(NOW + 1)).items) == 5
    assert len(batcher.next_batch(Moment(NOW + 1 + Arrivals.MEMORY)).items) == 8


def test_archive_items_leave_time_for_the_live_ones_that_come_meanwhile() -> None:
    batcher: Batcher[Waiting] = Batcher(64, AffineLatency(alpha=0.01, beta=0.1))
    for i in range(4000):  # 80 a second, each with a second
        batcher.add([live(i, NOW + i / 80 + 1.0)], NOW + i / 80)
    now = NOW + 50
    batcher.expired(now + 1)
    batcher.add([archive(i) for i in range(100)], now)

    size = len(batcher.next_batch(Moment(now)).items)

    # While 35 run for 0.45 s, 36 come, or 44 if chance has it, and take another 0.54 s.
    assert 34 <= size <= 36


def test_archive_items_do_not_make_a_live_one_late() -> None:
    batcher: Batcher[Waiting] = Batcher(8, AffineLatency(alpha=1.0, beta=0.0))
    batcher.add([live(0, NOW + 10)], NOW)
    batcher.add([archive(i) for i in range(1, 9)], NOW + 7)

    assert len(batcher.next_batch(Moment(NOW + 7)).items) == 3


def test_one_item_in_a_hurry_does_not_make_many_late() -> None:
    batcher: Batcher[Waiting] = Batcher(64, AffineLatency(alpha=0.01, beta=1.0))
    for i in range(40):  # fewer a second than batches of ten can take
        batcher.add([live(i, NOW + i / 8 + 6.0)], NOW + i / 8)
    now = NOW + 4.98  # the first has 1.02 s left, the second 1.145 s

    first, second = batcher.next_batch(Moment(now)), batcher.next_batch(Moment(now + 1.4))

    assert [w.serial for w in first.items] == list(range(1, 15))
    assert [w.serial for w in second.expired] == [0]


def test_what_cannot_be_done_in_time_runs_once_nothing_else_waits() -> None:
    batcher: Batcher[Waiting] = Batcher(8, AffineLatency(alpha=0.0, beta=1.0))
    batcher.add([live(0, NOW + 0.9), live(1, NOW + 5.0)], NOW)

    assert [w.serial for w in batcher.next_batch(Moment(NOW)).items] == [1]
    assert [w.serial for w in batcher.next_batch(Moment(NOW + 0.5)).items] == [0]


def test_a_batch_that_waits_for_its_device_is_smaller() -> None:
    batcher: Batcher[Waiting] = Batcher(8, AffineLatency(alpha=1.0, beta=0.0))
    batcher.add([live(i, NOW + 6) for i in range(8)], NOW)

    assert len(batcher.next_batch(Moment(NOW, 4.0)).items) == 2


def test_archive_items_beside_a_live_one_leave_it_time_behind_what_runs() -> None:
    batcher: Batcher[Waiting] = Batcher(8, AffineLatency(alpha=1.0, beta=0.0))
    batcher.add([live(0, NOW + 20), *(archive(i) for i in range(1, 9))], NOW)

    assert len(batcher.next_batch(Moment(NOW + 12, 4.0)).items) == 4


def test_a_batch_holds_one_shape_and_the_most_urgent_one() -> None:
    wide, tall = AffineLatency(alpha=1.0), AffineLatency(alpha=2.0)
    batcher: Batcher[Waiting] = Batcher(8, latencies={"wide": wide, "tall": tall})
    batcher.add([archive(0, "wide"), live(1, NOW + 9, "wide")], NOW)
    batcher.add([archive(2, "tall"), live(3, NOW + 5, "tall"), live(4, NOW + 5, "tall")], NOW)

    batches = [batcher.next_batch(Moment(NOW)).items for _ in range(4)]

    assert [[w.serial for w in batch] for batch in batches] == [[3, 4], [1, 0], [2], []]


def test_an_idle_device_waits_for_company_no_longer_than_that_gains() -> None:
    batcher: Batcher[Waiting] = Batcher(64, AffineLatency(alpha=0.1, beta=0.5))
    assert patience(batcher, NOW, 0.0) == 0.0  # for nothing
    batcher.add([archive(i) for i in range(10)], NOW)
    assert patience(batcher, NOW, 0.2) == pytest.approx(0.3)
    assert patience(batcher, NOW, 0.6) == 0.0
    batcher.add([archive(i) for i in range(35)], NOW)
    assert patience(batcher, NOW, 0.0) == 0.0  # 45 are worth it: 4.5 s of 5 s

    urgent: Batcher[Waiting] = Batcher(64, AffineLatency(alpha=0.1, beta=0.5))
    urgent.add([archive(0), live(1, NOW + 99)], NOW)
    assert patience(urgent, NOW, 0.0) == 0.0


def test_a_queue_tells_how_it_stands() -> None:
    batcher: Batcher[Waiting] = Batcher(64, AffineLatency(alpha=0.1, beta=0.5))
    assert batcher.state(NOW) == QueueState()

    batcher.add([archive(i) for i in range(44)], NOW)
    few = batcher.state(NOW)
    batcher.add([archive(44)], NOW)
    many = batcher.state(NOW)
    batcher.add([live(45, NOW + 9.0)], NOW)
    hurried = batcher.state(NOW)

    assert (few.size, few.worth, few.slack) == (44, False, math.inf)
    assert few.running == pytest.approx(4.9)
    assert (many.size, many.worth) == (45, True)
    assert hurried.size == 1
    assert hurried.slack == pytest.approx(8.4)


def test_one_tight_deadline_is_forgotten_though_looser_ones_keep_coming() -> None:
    batcher: Batcher[Waiting] = Batcher(8, AffineLatency(alpha=1.0, beta=0.0))
    batcher.add([archive(i) for i in range(40)], NOW)
    batcher.add([live(100, NOW + 3)], NOW)
    batcher.next_batch(Moment(NOW))
    for second in range(1, 20):
        batcher.add([live(100 + second, NOW + second + 1_000)], NOW + second)
        batcher.next_batch(Moment(NOW + second))
    batcher.add([archive(i) for i in range(200, 240)], NOW + 20)

    assert len(batcher.next_batch(Moment(NOW + 20)).items) == 8


def test_an_image_that_came_too_late_does_not_shorten_archive_batches() -> None:
    batcher: Batcher[Waiting] = Batcher(8, AffineLatency(alpha=1.0, beta=0.0))
    batcher.add([live(0, NOW - 1), *(archive(i) for i in range(1, 20))], NOW)

    assert len(batcher.next_batch(Moment(NOW)).items) == 8


def test_a_lowered_cap_bounds_batches() -> None:
    batcher: Batcher[Waiting] = Batcher(8)
    batcher.add([archive(i) for i in range(20)] + [live(i, NOW + 9) for i in range(20, 30)], NOW)
    batcher.cap.lower(3)

    assert [len(batcher.next_batch(Moment(NOW)).items) for _ in range(10)] == [3] * 10


def test_a_cap_grows_back_slowly_and_each_time_that_it_is_lowered_more_slowly() -> None:
    cap, waits = BatchCap(64), []
    for _ in range(3):
        cap.lower(32)
        batches = 0
        while cap.now < 64:
            before = cap.now
            cap.fitted(cap.now)
            batches += 1
            assert cap.now <= before + max(1, before // 8)
        waits.append(batches)

    steps = 7  # 32, 36, 40, 45, 50, 56, 63, 64
    assert waits == [steps * 32, steps * 64, steps * 128]


def test_small_batches_say_nothing_of_larger_ones() -> None:
    cap = BatchCap(8)
    cap.lower(4)
    for _ in range(10_000):
        cap.fitted(3)

    assert cap.now == 4


def test_a_long_time_at_the_limit_is_forgiving() -> None:
    cap = BatchCap(8)
    for _ in range(30):
        cap.lower(7)
    while cap.now < 8:
        cap.fitted(8)
    for _ in range(BatchCap.MOST_PATIENCE):
        cap.fitted(8)
    cap.lower(7)
    for _ in range(BatchCap.PATIENCE):
        cap.fitted(7)

    assert cap.now == 8


@given(
    st.integers(1, 64),
    st.lists(st.tuples(st.booleans(), st.integers(0, 80)), max_size=200),
)
def test_a_cap_stays_between_one_and_its_limit(limit: int, events: list[tuple[bool, int]]) -> None:
    cap = BatchCap(limit)
    for fitted, size in events:
        if fitted:
            cap.fitted(size)
        else:
            before = cap.now
            cap.lower(size)
            assert cap.now <= before
        assert 1 <= cap.now <= limit


@pytest.mark.parametrize("absurd", [math.inf, math.nan, -math.inf])
def test_a_deadline_that_is_no_time_counts_as_none(absurd: float) -> None:
    none = Batcher[Waiting](4)
    none.add([archive(0), live(1, absurd)], 1_000.0)
    assert none.next_deadline_at is None
    assert [item.serial for item in none.next_batch(Moment(1_000.0)).items] == [0, 1]

    batcher = Batcher[Waiting](4, AffineLatency(0.001, 0.01))
    batcher.add([live(1, absurd)], 1_000.0)
    batcher.add([live(2, 4_600.0), archive(3)], 1_000.0)

    assert batcher.next_deadline_at == 4_600.0
    assert batcher.state(1_000.0).slack < 3_600.0
    assert patience(batcher, 1_000.0, 0.0) == 0.0
    taken = batcher.next_batch(Moment(1_000.0))
    assert [item.serial for item in taken.items] == [2, 1, 3]
    assert not taken.expired


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(), st.floats(0, 1e11, allow_nan=False)), min_size=1, max_size=30)
)
def test_arrivals_stay_numbers_whatever_comes(seen: list[tuple[float, float]]) -> None:
    arrivals = Arrivals()
    for budget, now in seen:
        arrivals.note(budget, now)
        assert 0.0 <= arrivals.rate(now) < math.inf
        assert arrivals.tightest(now) > 0.0


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.none() | st.floats(), st.floats(0, 1e11)), min_size=1, max_size=20),
    st.floats(0, 1e9),
    st.floats(0, 1e9),
)
def test_every_item_is_handed_out_whatever_its_deadline(
    items: list[tuple[float | None, float]], alpha: float, beta: float
) -> None:
    batcher, left = Batcher[Waiting](8, AffineLatency(alpha, beta)), len(items)
    for serial, (deadline_at, now) in enumerate(items):
        batcher.add([Waiting(serial, deadline_at, 1)], now)
    for _ in range(2 * len(items)):
        now = items[0][1]
        assert patience(batcher, now, 0.0) < math.inf
        assert batcher.state(now).size > 0 or not len(batcher)
        batch = batcher.next_batch(Moment(now))
        left -= len(batch.items) + len(batch.expired)
    assert left == len(batcher) == 0


def test_archive_items_do_not_make_a_live_one_late_that_has_waited_for_long() -> None:
    batcher: Batcher[Waiting] = Batcher(8, AffineLatency(alpha=1.0, beta=0.0))
    later = Arrivals.MEMORY + 20
    batcher.add([live(0, NOW + later + 3)], NOW)
    batcher.add([archive(i) for i in range(1, 9)], NOW)

    assert len(batcher.next_batch(Moment(NOW + later)).items) == 3


def test_an_archive_item_runs_alone_where_none_would_leave_live_ones_their_time() -> None:
    batcher: Batcher[Waiting] = Batcher(8, AffineLatency(alpha=1.0, beta=1.0))
    batcher.add([live(0, NOW + 2.5), *(archive(i) for i in range(1, 9))], NOW)

    assert [w.serial for w in batcher.next_batch(Moment(NOW)).items] == [0]
    assert [w.serial for w in batcher.next_batch(Moment(NOW)).items] == [1]


def noisy() -> AffineLatency:
    """Return what batches take that last an eighth of a second per item, give or take."""
    latency = AffineLatency()
    for number in range(500):
        latency.observe(8, 1.1 if number % 2 else 0.9)
    assert latency.margin == pytest.approx(1.125, abs=0.03)
    return latency


def test_a_noisy_device_is_given_fewer_live_items_at_once() -> None:
    batcher: Batcher[Waiting] = Batcher(16, noisy())
    batcher.add([live(i, NOW + 1.0) for i in range(16)], NOW)

    assert batcher.state(NOW).slack == pytest.approx(1.0 - 2.0 * 1.125, abs=0.06)
    assert len(batcher.next_batch(Moment(NOW)).items) == 7


def test_a_noisy_device_is_given_fewer_archive_items_beside_live_ones() -> None:
    batcher: Batcher[Waiting] = Batcher(16, noisy())
    batcher.add([live(0, NOW + 10.0)], NOW)
    batcher.add([archive(i) for i in range(1, 30)], NOW + 9.0)

    assert len(batcher.next_batch(Moment(NOW + 9.0)).items) == 7


@pytest.mark.parametrize("rate", [20, 60])
@pytest.mark.parametrize("alpha", [0.01, 0.012])
@pytest.mark.parametrize("deviation", [0.0, 0.1])
def test_live_items_that_come_meanwhile_find_their_time_in_nine_cases_of_ten(
    rate: int, alpha: float, deviation: float
) -> None:
    latency = AffineLatency(alpha, beta=0.1)
    for number in range(400):
        sign = 1 if number % 2 else -1
        latency.observe(8 + number % 32, (1 + sign * deviation) * latency.predict(8 + number % 32))
    batcher: Batcher[Waiting] = Batcher(64, latency)
    for i in range(50 * rate):
        batcher.add([live(i, NOW + i / rate + 1.0)], NOW + i / rate)
    now = NOW + 50
    batcher.expired(now + 1)
    comes = arrivals(batcher).rate(now)
    assert comes == pytest.approx(rate, rel=0.1)

    def fits(size: int) -> bool:
        seconds = latency.margin * latency.predict(size)
        come = comes * seconds + 1.28 * math.sqrt(comes * seconds)
        return seconds + latency.margin * latency.predict(min(64, math.ceil(come))) <= 1.0

    half = [size for size in range(1, 65) if latency.predict(size) <= 0.5]
    batcher.add([archive(i) for i in range(100)], now)
    assert len(batcher.next_batch(Moment(now)).items) == max(size for size in half if fits(size))


def test_of_live_items_that_come_meanwhile_one_batch_is_reckoned_with() -> None:
    batcher: Batcher[Waiting] = Batcher(8, AffineLatency(alpha=0.05, beta=0.1))
    for i in range(1000):
        batcher.add([live(i, NOW + i / 60 + 1.0001)], NOW + i / 60)
    now = NOW + 1000 / 60
    batcher.expired(now + 2)
    batcher.add([archive(i) for i in range(100)], now)

    # Half a second, and the other half for eight.
    assert len(batcher.next_batch(Moment(now)).items) == 8


def test_a_model_whose_images_take_next_to_no_time_gains_by_every_one() -> None:
    batcher: Batcher[Waiting] = Batcher(8, AffineLatency(alpha=1e-310, beta=1.0))
    batcher.add([archive(i) for i in range(7)], NOW)
    assert not batcher.state(NOW).worth
    batcher.add([archive(7)], NOW)
    assert batcher.state(NOW).worth


def first_of_many(
    rate: int, budget: float, latency: AffineLatency, fits: Callable[[float], int]
) -> int:
    """Return which of so many live items a second goes first: the first, -1, or a later one.

    All have so long a time. Of that of the first one so much is left that a batch of ``fits`` is
    done in it, which is given the rate.
    """
    batcher: Batcher[Waiting] = Batcher(64, latency)
    for i in range(50 * rate):
        batcher.add([live(i, NOW + i / rate + budget)], NOW + i / rate)
    batcher.drop()
    came = NOW + 50
    left = latency.predict(fits(arrivals(batcher).rate(came))) + 1e-6
    now = came + budget - left
    batcher.add([live(-1, came + budget)], came)
    for i in range(1, int((now - came) * rate)):
        batcher.add([live(i, came + i / rate + budget)], came + i / rate)
    return batcher.next_batch(Moment(now)).items[0].serial


@pytest.mark.parametrize(("rate", "alpha", "beta"), [(8, 0.01, 1.0), (10, 0.05, 0.4)])
def test_an_item_is_passed_over_if_its_batch_would_not_keep_up_with_what_comes(
    rate: int, alpha: float, beta: float
) -> None:
    def keeps_up(rate: float) -> int:
        return math.ceil(rate * beta / (1 - rate * alpha))

    latency = AffineLatency(alpha, beta)
    assert first_of_many(rate, 6.0, latency, keeps_up) == -1
    assert first_of_many(rate, 6.0, latency, lambda rate: keeps_up(rate) - 1) == 1


def test_no_item_is_passed_over_where_single_ones_keep_up() -> None:
    assert first_of_many(1, 6.0, AffineLatency(alpha=0.5), lambda _: 1) == -1


def test_where_too_many_come_a_batch_is_as_large_as_leaves_a_second_one_in_time() -> None:
    latency = AffineLatency(alpha=0.1, beta=0.4)  # of twenty a second it can do ten
    assert first_of_many(20, 4.0, latency, lambda _: 16) == -1
    assert first_of_many(20, 4.0, latency, lambda _: 15) > -1
    # No second one is in time: one image at a time, and all of them.
    slow = AffineLatency(alpha=1.0)
    assert first_of_many(2, 3.0, slow, lambda _: 1) == -1


def test_each_shape_has_its_own_latency() -> None:
    latencies: dict[Hashable, LatencyModel] = {
        "slow": AffineLatency(alpha=2.0),
        "fast": AffineLatency(alpha=0.5),
    }
    batcher: Batcher[Waiting] = Batcher(8, AffineLatency(alpha=1.0), latencies)
    for serial, (shape, size) in enumerate((("slow", 2), ("fast", 8), ("other", 4))):
        batcher.add([live(10 * serial + i, NOW + 4.0, shape) for i in range(8)], NOW)
        assert len(batcher.next_batch(Moment(NOW)).items) == size
        batcher.drop()


def test_what_a_batch_takes_is_told_apart_by_where_it_passes() -> None:
    latency = TierLatency({"a": ("cpu", AffineLatency(0.1, 0.5))})
    latency.decoding = AffineLatency(0.2, 0.25)
    batcher: Batcher[Waiting] = Batcher(8, latency)
    batcher.add([archive(i) for i in range(4)], NOW)

    state = batcher.state(NOW)

    assert [state.preparing, state.running] == pytest.approx([1.05, 0.9])


def test_a_small_cap_grows_by_one() -> None:
    cap, sizes = BatchCap(8), []
    cap.lower(1)
    while cap.now < 8:
        sizes.append(cap.now)
        for _ in range(BatchCap.PATIENCE):
            cap.fitted(cap.now)
    assert sizes == [1, 2, 3, 4, 5, 6, 7]


def test_a_cap_that_was_forgiven_begins_anew_with_its_patience() -> None:
    cap = BatchCap(8)
    for _ in range(3):
        cap.lower(7)
    while cap.now < 8:
        cap.fitted(7)
    for _ in range(BatchCap.MOST_PATIENCE):
        cap.fitted(8)
    cap.lower(7)
    for _ in range(BatchCap.PATIENCE - 1):
        cap.fitted(7)
    assert cap.now == 7
    cap.fitted(7)
    assert cap.now == 8


def test_a_cap_that_was_never_lowered_has_nothing_to_learn() -> None:
    cap = BatchCap(8)
    for _ in range(10):
        cap.fitted(8)
    cap.lower(7)
    for _ in range(BatchCap.PATIENCE):
        assert cap.now == 7
        cap.fitted(7)
    assert cap.now == 8
