"""Jobs: a call that nobody waits for any more does not begin, and one that runs keeps its turn."""

import threading
from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.lowlevel
import pytest
from anyio import to_thread

from roadstream.stages.batching.batcher import QueueState
from roadstream.workers.tier.devices import Devices
from roadstream.workers.tier.jobs import Jobs

T = TypeVar("T")
IDLE = QueueState(size=1, worth=True, slack=float("inf"), running=1.0, preparing=0.0)


class Late:
    """Runs calls in threads, each at the last moment: when whoever waits has been cancelled."""

    def __init__(self) -> None:
        self.waiting, self.cancelled = threading.Event(), threading.Event()
        self.begun = threading.Event()

    async def __call__(self, call: Callable[[], T], /) -> T:
        def begin() -> T:
            self.waiting.set()
            assert self.cancelled.wait(30)
            try:
                return call()
            finally:
                self.begun.set()

        return await to_thread.run_sync(begin, abandon_on_cancel=True)


async def test_a_call_that_was_dropped_never_begins() -> None:
    late, ran = Late(), list[str]()
    devices = Devices(slots=1)
    jobs = Jobs(devices, ("cpu",), 0, late)
    held = await jobs.acquire(lambda: IDLE)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(jobs.run, lambda: ran.append("began"), held)
        await to_thread.run_sync(late.waiting.wait, 30)
        tasks.cancel_scope.cancel()
    late.cancelled.set()
    assert await to_thread.run_sync(late.begun.wait, 30)

    assert not ran
    assert jobs.left_running == 0
    assert devices.in_flight == 0


async def test_a_call_that_runs_on_keeps_its_turn_until_it_ends() -> None:
    go, began = threading.Event(), threading.Event()
    devices = Devices(slots=1)
    jobs = Jobs(devices, ("cpu",), 0)
    held = await jobs.acquire(lambda: IDLE)

    def call() -> None:
        began.set()
        assert go.wait(30)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(jobs.run, call, held)
        assert await to_thread.run_sync(began.wait, 30)
        tasks.cancel_scope.cancel()

    assert (jobs.left_running, devices.in_flight) == (1, 1)
    go.set()
    with anyio.fail_after(30):
        while jobs.left_running:
            await anyio.lowlevel.checkpoint()
    jobs.reap()
    assert devices.in_flight == 0


@pytest.mark.parametrize("round_", range(200))
async def test_a_drop_and_a_beginning_at_once_never_lose_the_turn(round_: int) -> None:
    """Either the call has its turn while it runs, or it does not run."""
    devices = Devices(slots=1)
    jobs = Jobs(devices, ("cpu",), 0)
    held = await jobs.acquire(lambda: IDLE)
    seen = list[int]()
    with anyio.move_on_after(round_ * 2e-6):
        await jobs.run(lambda: seen.append(devices.in_flight), held)
    with anyio.fail_after(30):
        while jobs.left_running:
            await anyio.lowlevel.checkpoint()
    jobs.reap()
    assert devices.in_flight == 0
    assert set(seen) <= {1}
