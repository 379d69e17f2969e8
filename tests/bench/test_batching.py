"""The simulation of batching: its arrivals, its device, its policies; and ours against them."""

import math

import pytest

from roadstream.bench.batching.overlap import Decoding, Overlap
from roadstream.bench.batching.policies import Aimd, Cork, Early, Greedy, Preferred, Timer
from roadstream.bench.batching.scenarios import (
    MAX_BATCH,
    OURS,
    POLICIES,
    SERVICES,
    Load,
    Scenario,
    bound,
    goodput,
    mixed,
)
from roadstream.bench.batching.scenarios import worker as named
from roadstream.bench.batching.world import (
    Device,
    Item,
    Service,
    Worker,
    at_rate,
    in_bursts,
    poisson,
)
from roadstream.stages.batching.policy import BatchPolicy, load_policy

GRAPH = SERVICES[1]
VIT = SERVICES[2]


def worker(policy: BatchPolicy, max_batch: int, waiting: int = 0, now: float = 0.0) -> Worker:
    return fed(Worker(policy, VIT, max_batch), waiting, now)


def fed(worker: Worker, count: int, now: float = 0.0) -> Worker:
    for _ in range(count):
        worker.queue.add((Item(now, now + 1.0),), now)
    return worker


def sizes(worker: Worker, *times: float) -> list[int]:
    return [len(worker.take(now)) for now in times]


def test_arrivals_have_their_rate_and_bursts_are_six_times_as_dense() -> None:
    unit = poisson(40_000, 3)
    times = in_bursts(unit, 500.0, 3)

    assert at_rate(unit, 500.0)[-1] == pytest.approx(80, rel=0.02)
    assert times == sorted(times)
    assert times[-1] == pytest.approx(80, rel=0.2)
    counts = [0] * 10_000
    for t in times:
        counts[int(t / 0.05)] += 1
    dense = sorted(counts)[-200:]
    assert sum(dense) / 200 / 0.05 == pytest.approx(500 * 3.27, rel=0.3)


def test_a_device_takes_what_its_batches_take_and_counts_what_is_late() -> None:
    steady = [0.01 * i for i in range(1, 1001)]
    quick, slow = Service("", 0.001, 0.002), Service("", 0.02, 0.0)

    fine = Device(quick, 0.05, 1).run(Worker(Greedy(), quick, 8), steady)
    overloaded = Device(slow, 0.05, 1).run(Worker(Greedy(), slow, 8), steady)

    assert (fine.on_time, fine.mean_batch) == (1.0, 1.0)
    assert fine.throughput == pytest.approx(100, rel=0.01)
    assert overloaded.on_time < 0.05
    assert overloaded.throughput == pytest.approx(slow.peak, rel=0.02)


def test_what_is_taken_in_is_given_out_once() -> None:
    for name in POLICIES:
        contender, count, now = named(name, VIT, 0.5, 16), 0, 0.0
        fed(contender, 100)
        while now < 1.0:
            now += 0.001
            count += len(contender.take(now))
        assert count <= 100, name
        if name != "cork (BentoML)":  # which refuses what would be late
            assert count == 100, name


def test_the_others_do_what_they_are_known_for() -> None:
    assert sizes(worker(Greedy(), 8, 20), 0, 0, 0, 0) == [8, 8, 4, 0]
    # From the dequeue, and not at all with a full batch.
    assert sizes(worker(Timer(0.005), 8, 11), 1.0, 1.0, 1.004, 1.005) == [8, 0, 0, 3]
    # From the arrival, and not at all with a preferred size.
    preferred = worker(Preferred([4, 16], 0.005), 64, 22)
    assert sizes(preferred, 0, 0, 0, 0.004, 0.006) == [16, 4, 0, 0, 2]
    # Cut before the device is free.
    early = worker(Early(8, 0.01), 8, 3)
    fed(early, 3, 0.02)
    assert sizes(early, 0.021, 0.021, 0.031) == [3, 0, 3]
    aimd = worker(Aimd(0.1), 64)
    for _ in range(9):
        aimd.ended(len(fed(aimd, 64).take(0)), 0.01, 0.0)
    assert sizes(aimd, 0) == [10]
    aimd.ended(10, 0.2, 0.0)
    assert sizes(aimd, 0) == [9]
    cork = worker(Cork(0.1, 0.5, 0.5), 64)
    for size in (1, 2, 4):
        cork.ended(size, 0.01 * size + 0.01, float(size))
    assert sizes(fed(cork, 20, 10.0), 10.005) == [8]  # 9 would take 0.1 s


@pytest.mark.parametrize("name", ["Greedy", "Timer", "Preferred", "Early", "Aimd", "Cork"])
def test_they_can_be_named_to_a_worker(name: str) -> None:
    assert load_policy(f"roadstream.bench.batching.policies:{name}") is not None


@pytest.mark.parametrize("kind", ["Poisson", "bursts"])
@pytest.mark.parametrize("service", [GRAPH, VIT], ids=["graph", "vit"])
def test_ours_is_at_least_equal_to_the_best_of_them(service: Service, kind: str) -> None:
    step, load = 0.01, Load(2_000, 7)
    found = {name: goodput(Scenario(service, 0.1, kind), name, load, step) for name in POLICIES}

    assert found[OURS] >= max(found.values()) - 2 * step


def test_mixed_ours_keeps_live_images_on_time_at_95_percent_of_the_peak() -> None:
    found = mixed(GRAPH, 0.1, OURS, Load(3_000, 7), 0.97)

    assert found.on_time >= 0.97
    assert found.total >= 0.95
    assert found.total <= bound(GRAPH, 0.1, 0.97)


def test_a_device_that_is_bound_late_does_more_in_time_than_one_bound_at_once() -> None:
    arrivals = at_rate(poisson(3_000, 7), 0.8 * VIT.peak)

    def on_time(slots: int, lead: float) -> float:
        return Overlap(Decoding(VIT, 0.0015, slots, lead), MAX_BATCH, 1).run(arrivals, 0.1)

    late, at_once, one = on_time(2, 1.2), on_time(2, math.inf), on_time(1, 1.2)
    assert late > 0.98
    assert late > at_once > one


def test_the_same_seed_does_the_same_again() -> None:
    def run() -> object:
        device = Device(VIT, 0.1, 5)
        return device.run(named(OURS, VIT, 0.1, 64), at_rate(poisson(2_000, 3), 200))

    assert run() == run()
