"""Devices: batches wait for slots, threads for turns, and no device waits for another."""

import threading

import anyio
import pytest
from anyio import to_thread

from roadstream.schemas.records.image import Inline
from roadstream.stages.batching.batcher import QueueState
from roadstream.stages.batching.device_queue import SLOTS, SlotRequest
from roadstream.stages.batching.latency_model import Run
from roadstream.stages.inference import Engine, EngineResult, Pictures, Score
from roadstream.workers.tier.devices import Devices, Slot
from roadstream.workers.tier.judge import Judge, longest
from tests.kits.builders import cascade, member, tier
from tests.kits.fake_engine import picture
from tests.kits.tier_bench import DEADLINE, judged, until
from tests.workers.tier.test_judge import items


def ready() -> QueueState:
    return QueueState(8, worth=True, running=1.0)


def request(rank: int = 0, *devices: str, alone: bool = False) -> SlotRequest:
    return SlotRequest(rank, devices or ("cpu",), ready, alone)


async def test_a_batch_waits_for_a_slot_and_the_most_downstream_gets_it() -> None:
    devices, order = Devices(), []
    held = [await devices.acquire(request()) for _ in range(SLOTS)]

    async def wait(rank: int) -> None:
        mine = await devices.acquire(request(rank))
        order.append(rank)
        mine.release()

    async with anyio.create_task_group() as tasks:
        for rank in (0, 2, 1):
            tasks.start_soon(wait, rank)
        await anyio.wait_all_tasks_blocked()
        assert order == []
        held[0].release()
    assert order == [2, 1, 0]
    held[1].release()
    assert (devices.free("cpu"), devices.in_flight) == (SLOTS, 0)


async def test_whoever_stops_waiting_is_forgotten() -> None:
    devices = Devices(slots=1)
    held = await devices.acquire(request())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(devices.acquire, request(5))
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    held.release()

    with anyio.fail_after(DEADLINE):
        assert isinstance(await devices.acquire(request(0)), Slot)


async def test_a_batch_begins_when_the_one_before_it_is_expected_to_end() -> None:
    devices = Devices()
    first = await devices.acquire(request())
    first.expect(0.0, {"cpu": 0.05})
    hurried = SlotRequest(0, ("cpu",), lambda: QueueState(1, slack=9.0, running=0.01))

    with anyio.fail_after(DEADLINE):
        second = await devices.acquire(hurried)  # by the clock alone: nothing has changed

    assert second.wait < 0.05
    assert devices.in_flight == 2


async def test_a_device_is_given_back_from_another_thread() -> None:
    devices = Devices(slots=1)
    both = await devices.acquire(request(0, "cpu", "triton:x"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(devices.acquire, request(1))
        await anyio.wait_all_tasks_blocked()
        await to_thread.run_sync(both.over, "cpu")
        await until(lambda: devices.in_flight == 2)
    assert devices.free("triton:x") == 0
    both.release()
    assert devices.free("triton:x") == 1


def test_of_the_threads_that_wait_for_a_device_the_most_downstream_goes_first() -> None:
    devices, order = Devices(), []
    waiting = [threading.Event() for _ in range(3)]

    def run(rank: int) -> None:
        waiting[rank].set()
        with devices.hold("cpu", rank):
            order.append(rank)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(3)]
    with devices.hold("cpu", 0):
        for thread in threads:
            thread.start()
        turn = devices._locks["cpu"]
        while len(turn._waiting) < 3:
            assert all(event.wait(DEADLINE) for event in waiting)
        assert order == []
    for thread in threads:
        thread.join(DEADLINE)
    assert order == [2, 1, 0]


class Meeting(Engine):
    """Infers once another engine infers as well."""

    needs_pixels = False

    def __init__(self, device: str, together: threading.Barrier) -> None:
        self.device, self._together = device, together

    def load(self) -> None:
        """Nothing to load."""

    def infer(self, batch: Pictures) -> list[EngineResult]:
        self._together.wait(DEADLINE)
        return [Score(1.0 if self.device == "cpu" else 2.0, [])] * len(batch)

    def close(self) -> None:
        """Nothing to give back."""


CASCADE = cascade(tier("one", member("a"), member("b"), member("c")), tier("two"))


async def test_members_on_different_devices_run_side_by_side_and_give_theirs_back() -> None:
    together = threading.Barrier(3)
    engines: dict[str, Engine] = {
        "a": Meeting("vllm:a", together), "b": Meeting("cpu", together),
        "c": Meeting("cuda:0", together),
    }  # fmt: skip
    judge = Judge(CASCADE, "one", engines)
    slot = await judge.devices.acquire(request(0, *judge.occupies))
    assert [judge.devices.free(name) for name in judge.occupies] == [SLOTS - 1] * 3

    batch = await to_thread.run_sync(judged, judge, items(Inline(picture(1))), slot)

    assert batch.votes[0].raw == [2.0, 1.0, 2.0]
    assert [run.member for run in batch.runs] == ["a", "b", "c"]
    assert judge.occupies == ("vllm:a", "cpu", "cuda:0")
    await until(lambda: all(judge.devices.free(name) == SLOTS for name in judge.occupies))
    assert judge.devices.in_flight == 1  # until the batch itself has ended
    slot.release()
    assert judge.devices.in_flight == 0


def test_what_runs_elsewhere_takes_several_batches_at_once() -> None:
    together = threading.Barrier(2)
    engines: dict[str, Engine] = {"a": Meeting("triton:x", together)}
    judge = Judge(cascade(tier("one", member("a")), tier("two")), "one", engines)
    batch, found = items(Inline(picture(1))), []
    threads = [
        threading.Thread(target=lambda: found.append(judged(judge, batch))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)

    assert [one.votes[0].raw for one in found] == [[2.0], [2.0]]
    assert judge.members[0].stats.batches == 2


def test_a_bug_on_another_device_is_raised() -> None:
    class Broken(Meeting):
        def infer(self, batch: Pictures) -> list[EngineResult]:
            raise KeyboardInterrupt

    engines: dict[str, Engine] = {
        name: Broken(device, threading.Barrier(1))
        for name, device in (("a", "cpu"), ("b", "vllm:b"), ("c", "vllm:c"))
    }
    with pytest.raises(KeyboardInterrupt):
        judged(Judge(CASCADE, "one", engines), items(Inline(picture(1))))


def test_the_slowest_device_counts() -> None:
    runs = [Run("a", "cpu", 4, 1.0), Run("b", "cuda:0", 4, 1.5), Run("c", "cpu", 4, 1.0)]
    assert longest(runs) == 2.0
    assert longest([]) == 0.0
