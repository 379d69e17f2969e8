"""What batches take: learnt from measurements, kept current, never fooled by a single one."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from roadstream.stages.batching.arrivals import Arrivals
from roadstream.stages.batching.latency_model import AffineLatency, Run, TierLatency, largest
from tests.kits.examples import examples

SIZES = st.lists(st.integers(1, 64), min_size=2, max_size=60).filter(lambda s: len(set(s)) > 1)


@settings(deadline=None, max_examples=examples(200))
@given(st.floats(1e-4, 1.0), st.floats(0.0, 1.0), SIZES)
def test_latency_is_recovered_from_measurements_without_noise(
    alpha: float, beta: float, sizes: list[int]
) -> None:
    service = AffineLatency()
    for size in sizes:
        service.observe(size, alpha * size + beta)

    assert service.alpha == pytest.approx(alpha, rel=1e-5, abs=1e-7)
    assert service.beta == pytest.approx(beta, rel=1e-4, abs=1e-5)
    for size in (1, 16, 64):
        assert service.predict(size) == pytest.approx(alpha * size + beta, rel=1e-4)


@given(st.integers(1, 64), st.floats(1e-4, 1.0), st.integers(1, 20))
def test_batches_of_one_size_tell_the_time_per_image(size: int, each: float, times: int) -> None:
    service = AffineLatency()
    for _ in range(times):
        service.observe(size, each * size)

    assert service.predict(size) == pytest.approx(each * size)
    assert service.predict(2 * size) == pytest.approx(2 * each * size)


def test_latency_follows_a_device_that_slows_down() -> None:
    service = AffineLatency()
    for i in range(300):
        service.observe(1 + i % 8, 0.1 * (1 + i % 8) + 0.2)
    for i in range(500):
        service.observe(1 + i % 8, 0.3 * (1 + i % 8) + 0.4)

    assert service.alpha == pytest.approx(0.3, rel=0.01)
    assert service.beta == pytest.approx(0.4, rel=0.05)


@given(st.lists(st.tuples(st.integers(1, 64), st.floats(0, 10)), min_size=1, max_size=40))
def test_latency_is_never_negative(measured: list[tuple[int, float]]) -> None:
    service = AffineLatency()
    for size, seconds in measured:
        service.observe(size, seconds)
        assert service.alpha >= 0.0
        assert service.beta >= 0.0


@given(st.floats(0, 1), st.floats(0, 1), st.floats(-1, 50), st.integers(1, 64))
def test_the_largest_batch_within_a_time_is_the_largest(
    alpha: float, beta: float, seconds: float, limit: int
) -> None:
    service = AffineLatency(alpha, beta)

    size = service.largest_within(seconds, limit)

    assert 0 <= size <= limit
    if size > 0:
        assert service.predict(size) <= seconds * (1 + 1e-9) + 1e-9
    if size < limit and alpha > 0:
        assert service.predict(size + 1) > seconds * (1 - 1e-9) - 1e-9


def test_batches_of_nearly_one_size_keep_what_is_known_of_others() -> None:
    service = AffineLatency()
    for size in (1, 2, 4, 8, 16, 32, 64):
        service.observe(size, 0.01 * size + 0.1)
    noise = [1.0, 1.05, 0.95, 1.02, 0.98]
    for i in range(2000):
        size = 30 + i % 3
        service.observe(size, (0.02 * size + 0.2) * noise[i % 5])

    assert service.predict(31) == pytest.approx(0.82, rel=0.05)
    assert service.beta == pytest.approx(0.2, rel=0.4)


def test_a_single_slow_batch_is_not_taken_at_its_word() -> None:
    service = AffineLatency()
    for i in range(200):
        service.observe(1 + i % 8, 0.1 * (1 + i % 8) + 0.2)
    service.observe(4, 60.0)

    assert service.predict(4) < 0.6 * 1.2


def test_noise_widens_the_margin_and_its_absence_closes_it() -> None:
    steady, noisy = AffineLatency(), AffineLatency()
    for i in range(500):
        steady.observe(8, 1.0)
        noisy.observe(8, 1.1 if i % 2 else 0.9)

    assert steady.margin == pytest.approx(1.0)
    assert noisy.margin == pytest.approx(1.125, abs=0.03)
    for _ in range(500):
        noisy.observe(8, 1.0)
    assert noisy.margin < 1.01


ABOUT = st.floats(0.0, 0.1)
RUNS = st.lists(st.tuples(st.sampled_from(["cpu", "cuda:0", "vllm:x"]), ABOUT, ABOUT), max_size=5)


@given(RUNS, ABOUT, ABOUT, st.floats(-1, 5), st.integers(1, 64), st.floats(0, 3))
def test_a_tiers_largest_batch_in_a_time_is_the_largest(
    members: list[tuple[str, float, float]],
    alpha: float,
    beta: float,
    seconds: float,
    limit: int,
    wait: float,
) -> None:
    known = {f"{i}": (d, AffineLatency(a, b)) for i, (d, a, b) in enumerate(members)}
    tier = TierLatency(known)
    tier.decoding = AffineLatency(alpha, beta)

    def takes(size: int) -> float:
        """Decoding goes on while the device is busy."""
        return max(tier.decoding.predict(size), wait) + tier.running(size)

    size = tier.largest_within(seconds, limit, wait)

    assert 0 <= size <= limit
    if size:
        assert takes(size) <= seconds + 1e-9
    if size < limit:
        assert takes(size + 1) > seconds - 1e-9


def test_members_on_one_device_take_turns_and_on_different_ones_do_not_wait() -> None:
    tier = TierLatency()
    for size in (4, 8, 4, 8):
        runs = [
            Run("a", "cpu", size, 0.1 * size), Run("b", "cpu", size, 0.2 * size),
            Run("c", "vllm:c", size, 0.4 * size), Run("out", "cpu", 0, 9.0),
        ]  # fmt: skip
        tier.observe(size, 0.01 * size, runs)

    assert tier.running(10, "cpu") == pytest.approx(3.0)
    assert tier.running(10, "vllm:c") == pytest.approx(4.0)
    assert tier.running(10) == pytest.approx(4.0)
    assert tier.predict(10) == pytest.approx(4.1)
    assert tier.alpha == pytest.approx(0.41)
    assert tier.preparing(10) == pytest.approx(0.1)


@given(st.floats(0, 10), st.floats(0, 10), st.floats(-5, 50), st.integers(1, 100))
def test_the_largest_batch_of_an_affine_time(
    alpha: float, beta: float, seconds: float, limit: int
) -> None:
    found = largest(alpha, beta, seconds, limit)

    fitting = [b for b in range(1, limit + 1) if alpha * b + beta <= seconds]
    assert abs(found - max(fitting, default=0)) <= (1 if fitting else 0)  # by rounding


def test_a_steady_stream_has_its_rate_and_a_past_one_has_none() -> None:
    arrivals = Arrivals()
    for i in range(1, 2001):
        arrivals.note(0.5, i / 100)

    assert arrivals.rate(20.0) == pytest.approx(100, rel=0.05)
    assert arrivals.tightest(20.0) == 0.5
    assert arrivals.rate(21.0) < 50
    assert (arrivals.rate(31.0), arrivals.tightest(31.0)) == (0.0, math.inf)


def test_the_rate_follows_a_burst_within_a_deadline_or_two() -> None:
    arrivals = Arrivals()
    for i in range(1, 1001):
        arrivals.note(0.5, i / 100)
    for i in range(1, 1201):
        arrivals.note(0.5, 10 + i / 600)

    assert arrivals.rate(12.0) > 0.8 * 600


def test_a_few_items_far_between_do_not_look_like_a_burst() -> None:
    arrivals = Arrivals()
    for i in range(1, 101):
        arrivals.note(0.01, i / 4)

    assert arrivals.rate(25.0) == pytest.approx(4, rel=0.2)


def test_items_that_come_too_late_say_nothing() -> None:
    arrivals = Arrivals()
    arrivals.note(0.0, 5.0)
    arrivals.note(-1.0, 6.0)

    assert (arrivals.rate(6.0), arrivals.tightest(6.0)) == (0.0, math.inf)


def test_a_tier_without_members_takes_no_time() -> None:
    tier = TierLatency()
    assert (tier.alpha, tier.beta, tier.margin) == (0.0, 0.0, 1.0)
    assert (tier.running(5), tier.running(5, "cpu"), tier.predict(5)) == (0.0, 0.0, 0.0)
    assert (tier.largest_within(1.0, 8), tier.largest_within(1.0, 8, 2.0)) == (8, 0)


def test_members_that_share_a_device_add_up_with_all_they_take() -> None:
    known = {"a": ("cpu", AffineLatency(0.1, 0.5)), "b": ("cpu", AffineLatency(0.2, 0.25))}
    tier = TierLatency(known | {"c": ("vllm:c", AffineLatency(0.05, 1.0))})
    assert [tier.alpha, tier.beta] == pytest.approx([0.3, 0.75])
    assert tier.running(10, "cpu") == pytest.approx(3.75)
    assert tier.running(10, "vllm:c") == pytest.approx(1.5)
    assert tier.running(1) == pytest.approx(1.05)
    assert tier.largest_within(3.75 + 1e-9, 64) == 10
    assert tier.largest_within(3.75 + 1e-9, 64, 1.5) == 5


def test_what_a_member_takes_is_learnt_over_batches_until_it_moves() -> None:
    tier = TierLatency()
    for size in (4, 8):
        away, runs = Run("away", "cpu", 0, 9.0), Run("a", "cpu", size, 0.1 * size + 0.5)
        tier.observe(size, 0.0, [away, runs])
    assert tier.running(16, "cpu") == pytest.approx(2.1)
    tier.observe(4, 0.0, [Run("a", "cuda:0", 4, 0.4)])
    assert [tier.running(16, "cpu"), tier.running(16)] == pytest.approx([0.0, 1.6])


def test_the_margin_of_a_tier_is_that_of_its_least_steady_member() -> None:
    tier = TierLatency()
    for number in range(100):
        noisy = 1.1 if number % 2 else 0.9
        tier.observe(8, 0.0, [Run("a", "cpu", 8, noisy), Run("b", "cpu", 8, 1.0)])
    assert 1.05 < tier.margin < 1.2


def test_a_model_alone_counts_all_as_time_on_the_device() -> None:
    service = AffineLatency(1.0, 0.0)
    assert (service.preparing(0), service.preparing(5)) == (0.0, 0.0)
    assert (service.largest_within(6.0, 8), service.largest_within(6.0, 8, 4.0)) == (6, 2)


@given(
    st.floats(1e-3, 1.0),
    st.floats(1e-3, 1.0),
    st.lists(st.tuples(st.integers(1, 64), st.floats(0.9, 1.1)), min_size=3, max_size=40),
)
def test_the_fit_is_that_of_weighted_least_squares(
    alpha: float, beta: float, noisy: list[tuple[int, float]]
) -> None:
    measured = [(size, (alpha * size + beta) * noise) for size, noise in noisy]
    measured = [(1, alpha + beta), (64, 64 * alpha + beta), *measured]
    service = AffineLatency()
    for size, seconds in measured:
        service.observe(size, seconds)
    sizes, seconds = np.array(measured).T
    weights = 0.98 ** np.arange(len(measured))[::-1]
    x, y = np.average(sizes, weights=weights), np.average(seconds, weights=weights)
    spread = np.average((sizes - x) ** 2, weights=weights)
    assume(spread > 0.03 * np.average(sizes**2, weights=weights))
    slope = np.average((sizes - x) * (seconds - y), weights=weights) / spread

    assert service.alpha == pytest.approx(slope, rel=1e-6, abs=1e-9)
    assert service.beta == pytest.approx(max(0.0, y - slope * x), rel=1e-6, abs=1e-6)


def test_the_margin_follows_the_mean_deviation() -> None:
    service = AffineLatency()
    service.observe(8, 0.5)
    assert service.margin == 1.0  # nothing was expected of it
    service.observe(8, 0.75)
    assert service.margin == pytest.approx(1 + 1.25 * 0.01)
    service.observe(8, 0.8 * service.predict(8))
    assert service.margin == pytest.approx(1 + 1.25 * (0.98 * 0.01 + 0.02 * 0.2))
    service.observe(8, 100 * service.predict(8))  # an outlier counts as three times the time
    assert service.margin == pytest.approx(1 + 1.25 * (0.98 * 0.0138 + 0.02 * 2.0))


def test_no_margin_is_larger_than_half_of_the_time() -> None:
    service = AffineLatency()
    for number in range(1_000):
        service.observe(8, 2.0 if number % 2 else 0.1)
    assert service.margin == 1.5


def test_what_was_told_before_is_no_measurement() -> None:
    service = AffineLatency(0.1, 0.5)
    service.observe(8, 2.6)  # twice as long as was told
    assert service.margin == 1.0
    assert [service.alpha, service.beta] == pytest.approx([0.2, 1.0])


@pytest.mark.parametrize(("alpha", "beta"), [(0.0, 0.0), (0.1, 0.0), (0.0, 0.8)])
def test_without_a_beta_to_keep_batches_of_one_size_are_taken_at_their_word(
    alpha: float, beta: float
) -> None:
    service = AffineLatency(alpha, beta)
    service.observe(8, 0.8)
    assert [service.alpha, service.beta] == pytest.approx([0.1, 0.0])
    service.observe(8, 8.0)
    assert service.predict(8) == pytest.approx((0.98 * 0.8 + 8.0) / 1.98)


@pytest.mark.parametrize("unit", [1.0, 1e-5])
def test_an_outlier_counts_as_three_times_what_was_expected(unit: float) -> None:
    service = AffineLatency(0.1 * unit, 0.2 * unit)
    service.observe(8, 1.0 * unit)
    service.observe(8, 60.0 * unit)
    assert service.predict(8) == pytest.approx((0.98 * 1.0 + 3.0) / 1.98 * unit)
    assert service.alpha / service.beta == pytest.approx(0.5)


def test_what_took_no_time_is_learnt_anew_once_it_does() -> None:
    service = AffineLatency()
    for size in range(1, 65):
        service.observe(size, 0.0)
    for _ in range(500):
        service.observe(8, 0.0)
    assert (service.alpha, service.beta, service.margin) == (0.0, 0.0, 1.0)
    service.observe(8, 1.0)
    assert service.alpha > 0.0


def test_sizes_that_differ_by_little_are_told_apart_only_where_nothing_is_known() -> None:
    def sizes() -> list[int]:
        return [30 + number % 3 for number in range(60)]

    fresh, known = AffineLatency(), AffineLatency(0.02, 0.4)
    for size in sizes():
        for service in (fresh, known):
            service.observe(size, 0.01 * size + 0.4)

    assert [fresh.alpha, fresh.beta] == pytest.approx([0.01, 0.4])
    assert known.predict(31) == pytest.approx(0.71, rel=0.01)
    assert known.beta / known.alpha == pytest.approx(20.0)
    fresh.observe(31, 71.0)  # and so no outlier is told from a change
    assert fresh.predict(31) > 2.0


@pytest.mark.parametrize(
    ("seconds", "size"),
    [(0.49, 0), (0.5, 0), (0.59, 0), (0.61, 1), (0.71, 2), (1.3 - 1e-9, 7), (1.3, 8), (9.0, 8)],
)
def test_the_largest_batch_is_done_in_time_and_no_larger_than_asked_for(
    seconds: float, size: int
) -> None:
    assert largest(0.1, 0.5, seconds, 8) == size


def test_a_batch_without_an_alpha_is_as_large_as_asked_for_or_none() -> None:
    assert [largest(0.0, 0.5, seconds, 8) for seconds in (0.4, 0.5, 0.6)] == [0, 8, 8]
