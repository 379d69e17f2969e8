"""Simulated processes: whatever befalls one while it dies, it is dead, and comes back."""

from collections.abc import Callable

import anyio
import pytest

from roadstream.bench.simulation.process import SimulatedProcess
from roadstream.bench.simulation.virtual_loop import VirtualRunner, in_process
from roadstream.streams.log import Log
from roadstream.streams.memory.log import MemoryLog


@pytest.mark.timeout(20)
@pytest.mark.parametrize("thaws", [False, True])
@pytest.mark.parametrize(
    "deed",
    [
        lambda process: (process.kill(), process.freeze()),
        lambda process: (process.freeze(), process.kill()),
        lambda process: (process.freeze(), process.kill(), process.freeze(), process.kill()),
    ],
    ids=["killed, then frozen", "frozen, then killed", "both, again and again"],
)
def test_a_process_that_is_frozen_while_it_is_killed_dies_and_comes_back(
    deed: Callable[[SimulatedProcess], object], *, thaws: bool
) -> None:
    lives: list[float] = []

    async def live(_: Log, stopping: anyio.Event) -> None:
        lives.append(anyio.current_time())
        await stopping.wait()

    async def main() -> None:
        process = SimulatedProcess("p", runner.loop, MemoryLog(), live, lambda: 2.0)
        async with anyio.create_task_group() as tasks:
            with in_process(process.process):
                tasks.start_soon(process.run)
            await anyio.sleep(1.0)
            deed(process)
            await anyio.sleep(0.5)
            process.freeze()  # SIGSTOP finds nobody
            await anyio.sleep(0.5)
            if thaws:
                process.thaw()
            await anyio.sleep(5.0)
            assert lives == [0.0, 3.0]
            process.freeze()  # the new one can be stopped as the old one could
            process.stop()
            await anyio.sleep(5.0)
            assert process.running
            process.thaw()
        assert not process.running

    with VirtualRunner() as runner:
        runner.run(main())
