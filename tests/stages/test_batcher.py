"""The batcher: earliest deadline first, archive last and bounded, nothing lost or doubled."""

import math
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from stages.batcher import BatchCap, Batcher, ServiceTime

NOW = 1_000.0


class Waiting(NamedTuple):
    serial: int
    deadline_at: float | None
    size: int


def live(serial: int, deadline_at: float) -> Waiting:
    return Waiting(serial, deadline_at, 1)


def archive(serial: int) -> Waiting:
    return Waiting(serial, None, 1)


class BatcherMachine(RuleBasedStateMachine):
    """Against two lists: what waits, and the budgets of live items of late."""

    @initialize(
        max_batch=st.integers(1, 8), alpha=st.sampled_from([0.0, 0.1, 0.5]), beta=st.floats(0, 1)
    )
    def begin(self, max_batch: int, alpha: float, beta: float) -> None:
        self.service = ServiceTime(alpha, beta)
        self.batcher: Batcher[Waiting] = Batcher(max_batch, self.service)
        self.now = NOW
        self.waiting: list[Waiting] = []
        self.budgets: list[tuple[float, float]] = []
        self.serial = 0

    def tightest(self) -> float:
        since = self.now - Batcher.LIVE_MEMORY
        return min((budget for at, budget in self.budgets if at >= since), default=math.inf)

    @rule(items=st.lists(st.tuples(st.none() | st.floats(-2, 20), st.integers(0, 9)), max_size=8))
    def add(self, items: list[tuple[float | None, int]]) -> None:
        new = []
        for budget, size in items:
            self.serial += 1
            deadline = None if budget is None else self.now + budget
            new.append(Waiting(self.serial, deadline, size))
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

    @rule()
    def take(self) -> None:
        due = [w for w in self.waiting if w.deadline_at is not None and w.deadline_at <= self.now]

        items, expired = self.batcher.next_batch(self.now)

        assert sorted(expired) == sorted(due)
        self.check_live_part(items, due)
        self.check_archive_part(items)
        assert len(items) <= self.batcher.cap.now
        assert bool(items) is (len(self.waiting) > len(expired))
        taken = {w.serial for w in items + expired}
        assert len(taken) == len(items) + len(expired)
        self.waiting = [w for w in self.waiting if w.serial not in taken]

    def check_live_part(self, items: list[Waiting], due: list[Waiting]) -> None:
        waiting = [w for w in self.waiting if w.deadline_at is not None and w not in due]
        waiting.sort(key=lambda w: (w.deadline_at, w.serial))
        taken = [w for w in items if w.deadline_at is not None]
        assert taken == waiting[: len(taken)]
        assert items[: len(taken)] == taken  # live before archive
        if waiting:
            assert taken
            slack = (taken[0].deadline_at or 0.0) - self.now
            most = max(1, self.service.largest_within(slack, self.batcher.cap.now))
            assert len(taken) == min(most, len(waiting))

    def check_archive_part(self, items: list[Waiting]) -> None:
        waiting = [w for w in self.waiting if w.deadline_at is None]
        taken = [w for w in items if w.deadline_at is None]
        assert taken == waiting[: len(taken)]
        if taken and len(items) > 1 and self.tightest() < math.inf:
            assert self.service.predict(len(items)) <= 0.45 * self.tightest() + 1e-9
        if self.tightest() == math.inf:
            assert len(items) == min(self.batcher.cap.now, len(items) + len(waiting) - len(taken))

    @invariant()
    def sizes_and_numbers_add_up(self) -> None:
        assert len(self.batcher) == len(self.waiting)
        assert self.batcher.size == sum(w.size for w in self.waiting)
        deadlines = [w.deadline_at for w in self.waiting if w.deadline_at is not None]
        assert self.batcher.next_deadline_at == min(deadlines, default=None)


TestBatcher = BatcherMachine.TestCase
TestBatcher.settings = settings(deadline=None, max_examples=150, stateful_step_count=25)


def test_live_images_go_first_the_most_urgent_ahead() -> None:
    batcher: Batcher[Waiting] = Batcher(3)
    batcher.add([archive(0), live(1, NOW + 9), live(2, NOW + 5), archive(3)], NOW)

    assert [w.serial for w in batcher.next_batch(NOW).items] == [2, 1, 0]
    assert [w.serial for w in batcher.next_batch(NOW).items] == [3]


def test_an_image_whose_deadline_has_passed_is_handed_out_without_work() -> None:
    batcher: Batcher[Waiting] = Batcher(3)
    batcher.add([live(1, NOW + 1), live(2, NOW + 3)], NOW)

    batch = batcher.next_batch(NOW + 1)

    assert [w.serial for w in batch.expired] == [1]
    assert [w.serial for w in batch.items] == [2]


def test_archive_images_never_expire() -> None:
    batcher: Batcher[Waiting] = Batcher(3)
    batcher.add([archive(i) for i in range(3)], NOW)

    batch = batcher.next_batch(NOW + 1e9)

    assert (len(batch.items), batch.expired) == (3, [])


def test_a_late_image_runs_alone_rather_than_not_at_all() -> None:
    batcher: Batcher[Waiting] = Batcher(8, ServiceTime(alpha=1.0, beta=1.0))
    batcher.add([live(1, NOW + 0.5), live(2, NOW + 0.6)], NOW)

    assert [w.serial for w in batcher.next_batch(NOW).items] == [1]


def test_a_live_batch_is_as_large_as_still_finishes_in_time() -> None:
    batcher: Batcher[Waiting] = Batcher(8, ServiceTime(alpha=1.0, beta=1.0))
    batcher.add([live(i, NOW + 4.5) for i in range(8)], NOW)

    assert len(batcher.next_batch(NOW).items) == 3


def test_archive_batches_stay_short_while_live_deadlines_are_tight() -> None:
    batcher: Batcher[Waiting] = Batcher(8, ServiceTime(alpha=1.0, beta=0.0))
    batcher.add([live(0, NOW + 10), *(archive(i) for i in range(1, 40))], NOW)

    assert len(batcher.next_batch(NOW).items) == 4  # 0.45 · 10 s at 1 s each
    assert len(batcher.next_batch(NOW + 1).items) == 4
    assert len(batcher.next_batch(NOW + 1 + Batcher.LIVE_MEMORY).items) == 8


def test_one_tight_deadline_is_forgotten_though_looser_ones_keep_coming() -> None:
    batcher: Batcher[Waiting] = Batcher(8, ServiceTime(alpha=1.0, beta=0.0))
    batcher.add([archive(i) for i in range(40)], NOW)
    batcher.add([live(100, NOW + 3)], NOW)
    batcher.next_batch(NOW)
    for second in range(1, 20):
        batcher.add([live(100 + second, NOW + second + 1_000)], NOW + second)
        batcher.next_batch(NOW + second)
    batcher.add([archive(i) for i in range(200, 240)], NOW + 20)

    assert len(batcher.next_batch(NOW + 20).items) == 8


def test_an_image_that_came_too_late_does_not_shorten_archive_batches() -> None:
    batcher: Batcher[Waiting] = Batcher(8, ServiceTime(alpha=1.0, beta=0.0))
    batcher.add([live(0, NOW - 1), *(archive(i) for i in range(1, 20))], NOW)

    assert len(batcher.next_batch(NOW).items) == 8


SIZES = st.lists(st.integers(1, 64), min_size=2, max_size=60).filter(lambda s: len(set(s)) > 1)


@settings(deadline=None, max_examples=200)
@given(st.floats(1e-4, 1.0), st.floats(0.0, 1.0), SIZES)
def test_service_time_is_recovered_from_measurements_without_noise(
    alpha: float, beta: float, sizes: list[int]
) -> None:
    service = ServiceTime()
    for size in sizes:
        service.observe(size, alpha * size + beta)

    assert service.alpha == pytest.approx(alpha, rel=1e-5, abs=1e-7)
    assert service.beta == pytest.approx(beta, rel=1e-4, abs=1e-5)
    for size in (1, 16, 64):
        assert service.predict(size) == pytest.approx(alpha * size + beta, rel=1e-4)


@given(st.integers(1, 64), st.floats(1e-4, 1.0), st.integers(1, 20))
def test_batches_of_one_size_tell_the_time_per_image(size: int, each: float, times: int) -> None:
    service = ServiceTime()
    for _ in range(times):
        service.observe(size, each * size)

    assert service.predict(size) == pytest.approx(each * size)
    assert service.predict(2 * size) == pytest.approx(2 * each * size)


def test_service_time_follows_a_device_that_slows_down() -> None:
    service = ServiceTime()
    for i in range(300):
        service.observe(1 + i % 8, 0.1 * (1 + i % 8) + 0.2)
    for i in range(500):
        service.observe(1 + i % 8, 0.3 * (1 + i % 8) + 0.4)

    assert service.alpha == pytest.approx(0.3, rel=0.01)
    assert service.beta == pytest.approx(0.4, rel=0.05)


@given(st.lists(st.tuples(st.integers(1, 64), st.floats(0, 10)), min_size=1, max_size=40))
def test_service_time_is_never_negative(measured: list[tuple[int, float]]) -> None:
    service = ServiceTime()
    for size, seconds in measured:
        service.observe(size, seconds)
        assert service.alpha >= 0.0
        assert service.beta >= 0.0


@given(st.floats(0, 1), st.floats(0, 1), st.floats(-1, 50), st.integers(1, 64))
def test_the_largest_batch_within_a_time_is_the_largest(
    alpha: float, beta: float, seconds: float, limit: int
) -> None:
    service = ServiceTime(alpha, beta)

    size = service.largest_within(seconds, limit)

    assert 0 <= size <= limit
    if size > 0:
        assert service.predict(size) <= seconds * (1 + 1e-9) + 1e-9
    if size < limit and alpha > 0:
        assert service.predict(size + 1) > seconds * (1 - 1e-9) - 1e-9


def test_a_lowered_cap_bounds_batches() -> None:
    batcher: Batcher[Waiting] = Batcher(8)
    batcher.add([archive(i) for i in range(20)] + [live(i, NOW + 9) for i in range(20, 30)], NOW)
    batcher.cap.lower(3)

    assert [len(batcher.next_batch(NOW).items) for _ in range(10)] == [3] * 10


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
