"""The virtual loop: time jumps, processes freeze and go on, threads are refused."""

import time

import anyio
import pytest
from anyio import to_thread

from roadstream.bench.simulation.virtual_loop import Process, StuckError, VirtualRunner, in_process


def test_time_jumps_to_the_next_timer_and_anyio_follows() -> None:
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, seconds: float) -> None:
        for _ in range(2):
            await anyio.sleep(seconds)
            woken.append((name, anyio.current_time()))

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sleeper, "long", 5_000.0)
            tasks.start_soon(sleeper, "short", 3_000.0)
            with anyio.move_on_after(4_000.0):
                await anyio.sleep_forever()
            woken.append(("moved on", anyio.current_time()))

    began = time.monotonic()
    with VirtualRunner() as runner:
        runner.run(main())
    assert woken == [
        ("short", 3_000.0),
        ("moved on", 4_000.0),
        ("long", 5_000.0),
        ("short", 6_000.0),
        ("long", 10_000.0),
    ]
    assert time.monotonic() - began < 100


def test_a_frozen_process_stands_still_and_then_goes_on_where_it_stood() -> None:
    process, ticks = Process("p"), list[float]()

    async def tick() -> None:
        while True:
            await anyio.sleep(1.0)
            ticks.append(anyio.current_time())

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            with in_process(process):
                tasks.start_soon(tick)
            await anyio.sleep(2.5)
            runner.loop.freeze(process)
            await anyio.sleep(10.0)
            assert ticks == [1.0, 2.0]
            runner.loop.thaw(process)
            await anyio.sleep(1.75)
            tasks.cancel_scope.cancel()

    with VirtualRunner() as runner:
        runner.run(main())
    assert ticks == [1.0, 2.0, 12.5, 13.5]


def test_something_can_happen_at_any_step() -> None:
    happened: list[int] = []

    async def main() -> None:
        loop = runner.loop
        for steps in (5, 2):
            loop.at_step(loop.steps + steps, lambda: happened.append(loop.steps))
        begun.append(loop.steps)
        for _ in range(10):
            await anyio.lowlevel.checkpoint()

    begun: list[int] = []
    with VirtualRunner() as runner:
        runner.run(main())
    assert happened == [begun[0] + 2, begun[0] + 5]


def test_tasks_are_cancelled_in_the_order_of_their_start() -> None:
    ended: list[int] = []

    async def wait(number: int) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(number)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(200):
                tasks.start_soon(wait, number)
            await anyio.sleep(1)
            tasks.cancel_scope.cancel()

    with VirtualRunner() as runner:
        runner.run(main())
    assert ended == list(range(200))


def test_waiting_for_what_cannot_come_is_an_error_and_not_a_hang() -> None:
    with VirtualRunner() as runner, pytest.raises(StuckError, match="no timer runs"):
        runner.run(anyio.sleep_forever())


def test_threads_are_refused() -> None:
    with VirtualRunner() as runner, pytest.raises(RuntimeError, match="no threads"):
        runner.run(_in_executor())
    with VirtualRunner() as runner, pytest.raises(StuckError, match="no timer runs"):
        runner.run(to_thread.run_sync(time.monotonic))


async def _in_executor() -> None:
    import asyncio

    await asyncio.to_thread(time.monotonic)


def test_an_error_in_a_callback_is_not_swallowed() -> None:
    def fails() -> None:
        raise ValueError("in a callback")

    async def main() -> None:
        runner.loop.call_soon(fails)
        await anyio.sleep(1)

    with VirtualRunner() as runner, pytest.raises(ExceptionGroup, match="errors in callbacks"):
        runner.run(main())
