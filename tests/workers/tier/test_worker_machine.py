"""The whole worker and the consensus under Hypothesis: whatever it does to them, no promise breaks.

A state machine submits images, lets virtual time pass, kills, freezes, lets members come and go,
and lets the log fail, in any order that Hypothesis thinks of. The checker sees every record and
every commit.
"""

import asyncio
from contextlib import ExitStack

import anyio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from roadstream.bench.simulation.command import rehearse, virtual_world
from roadstream.bench.simulation.faults import Chaos
from roadstream.bench.simulation.process import SimulatedProcess
from roadstream.bench.simulation.world import Plan
from roadstream.schemas.errors import LogUnavailableError
from tests.kits.examples import examples

IMAGES = 400
PLAN = Plan(seed=0, images=IMAGES, partitions=3, workers=2, consensus=2, max_batch=4, window=64)
EXPECTED = rehearse(PLAN)
FAULTS = [
    "publish", "poll", "commit", "lag", "votes_again", "unreadable", "clock", "memory", "sick",
]  # fmt: skip
PROCESSES = st.integers(0, 7)


class WorkerMachine(RuleBasedStateMachine):
    """Two workers per tier and two consensus members on a hostile log."""

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()

    @initialize(seed=st.integers(0, 1 << 16), atomic=st.booleans())
    def begin(self, seed: int, *, atomic: bool) -> None:
        plan = Plan(
            seed=seed, images=IMAGES, partitions=3, workers=2, consensus=2, max_batch=4,
            window=64, atomic=atomic,
        )  # fmt: skip
        self.world, self.runner = self._stack.enter_context(virtual_world(plan, EXPECTED))
        self._over = False
        self._host = self.runner.run(self._start())

    async def _start(self) -> asyncio.Task[None]:
        ready = asyncio.Event()
        host = asyncio.get_running_loop().create_task(self._live(ready))
        await ready.wait()
        return host

    async def _live(self, ready: asyncio.Event) -> None:
        await self.world.prepare()
        async with anyio.create_task_group() as tasks:
            self.world.populate(tasks)
            self.chaos = Chaos(self.world, tasks, {}, 1.0)
            ready.set()

    @rule(count=st.integers(1, 30), deadline=st.sampled_from([None, None, 0.05, 2.0, 30.0]))
    def submit(self, count: int, deadline: float | None) -> None:
        self.runner.run(self._submit(count, deadline, again=False))

    @rule(count=st.integers(1, 3), deadline=st.sampled_from([None, 2.0]))
    def submit_again(self, count: int, deadline: float | None) -> None:
        self.runner.run(self._submit(count, deadline, again=True))

    async def _submit(self, count: int, deadline: float | None, *, again: bool) -> None:
        world = self.world
        async with world.log.producer() as producer:
            while True:
                try:
                    await (world.submit_again if again else world.submit)(producer, count, deadline)
                    return
                except LogUnavailableError:  # as a producer does that was not acknowledged
                    continue

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.01, 0.1, 0.4, 3.0, 11.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.runner.run(anyio.sleep(seconds))

    @rule(steps=st.integers(1, 60), which=PROCESSES)
    def crash_soon(self, steps: int, which: int) -> None:
        loop = self.world.loop
        loop.at_step(loop.steps + steps, self._process(which).kill)

    @rule(which=PROCESSES)
    def freeze(self, which: int) -> None:
        self._process(which).freeze()

    @rule(which=PROCESSES)
    def thaw(self, which: int) -> None:
        self._process(which).thaw()

    @rule(kind=st.sampled_from(FAULTS))
    def fault(self, kind: str) -> None:
        self.chaos.strike(kind)

    @precondition(lambda self: self.world.submitted > 0)
    @rule()
    def rebalance(self) -> None:
        self.chaos.strike("storm")

    def _process(self, which: int) -> SimulatedProcess:
        processes = list(self.world.processes.values())
        return processes[which % len(processes)]

    @invariant()
    def no_promise_is_broken(self) -> None:
        if hasattr(self, "world"):
            assert not self.world.checker.broken
            assert not self._host.done()

    def teardown(self) -> None:
        try:
            if hasattr(self, "world"):
                self.runner.run(self._settle())
        finally:
            self._stack.close()

    async def _settle(self) -> None:
        """Heal everything: then every image has its answer, and every group has done its work."""
        self.chaos.stop()
        with anyio.fail_after(600):
            while self.world.checker.unanswered(self.world.submitted) or self.world.lag():
                await anyio.sleep(0.25)
                self.no_promise_is_broken()
        for process in list(self.world.processes.values()):
            process.stop()
        await self._host


WorkerMachine.TestCase.settings = settings(
    max_examples=examples(20),
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestWorkerMachine = WorkerMachine.TestCase
