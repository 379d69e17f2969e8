"""One run of the stream benchmark: fresh processes for each hop, timed and checked."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

import msgspec

from roadstream.bench.engine.plan import Plan, Timing, VoidRunError
from roadstream.bench.harness import cpu_seconds_of

Target = Callable[[Plan, Connection], None]
_spawn = multiprocessing.get_context("spawn")


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What one run came to. Processor times are microseconds per image; the broker's stands apart.

    Attributes:
        images_per_second: Images over the seconds from the first record to the last answer.
        seconds: Those seconds.
        cpu_worker: First hop's processor time.
        cpu_consensus: Second hop's.
        cpu_broker: Kafka's own.
    """

    images_per_second: float
    seconds: float
    cpu_worker: float
    cpu_consensus: float = 0.0
    cpu_broker: float | None = None

    @property
    def cpu(self) -> float:
        """Processor time of both hops."""
        return self.cpu_worker + self.cpu_consensus


class Child:
    """A fresh process that runs one hop."""

    def __init__(self, target: Target, plan: Plan) -> None:
        self._name, self._patience = f"{target.__module__}.{target.__name__}", plan.patience
        self._pipe, theirs = _spawn.Pipe()
        self._process: SpawnProcess = _spawn.Process(target=target, args=(plan, theirs))
        self._process.start()
        theirs.close()

    def expect(self) -> Any:
        """Return the next thing it says.

        Raises:
            VoidRunError: It ended or said nothing in time.
        """
        try:
            if self._pipe.poll(self._patience):
                return self._pipe.recv()
        except EOFError:
            raise VoidRunError(f"{self._name} ended early") from None
        raise VoidRunError(f"{self._name} said nothing for {self._patience:g} s")

    def stop(self) -> Timing:
        """Tell it to stop, if it still runs; return its timing."""
        with suppress(BrokenPipeError):
            self._pipe.send("stop")
        timing = self.expect()
        if not isinstance(timing, Timing):
            raise VoidRunError(f"{self._name}: expected its timing, got {timing!r}")
        return timing

    def end(self) -> None:
        """Wait for its end; kill it if that takes too long."""
        self._process.join(20)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._pipe.close()


@contextmanager
def child(target: Target, plan: Plan) -> Iterator[Child]:
    """Start a process and end it on leaving, whatever happens."""
    started = Child(target, plan)
    try:
        yield started
    finally:
        started.end()


def run_hops(
    worker: Target, consensus: Target, plan: Plan, broker_pids: Sequence[int] = ()
) -> Outcome:
    """Run two hops to the last answer (blocking).

    The second hop is in its group before the first begins.

    Raises:
        VoidRunError: A process failed.
    """
    with child(consensus, plan) as second:
        second.expect()
        with child(worker, plan) as first:
            first.expect()
            before = cpu_seconds_of(broker_pids)
            second.expect()
            broker = cpu_seconds_of(broker_pids) - before
            answered = second.stop()
            voted = first.stop()
    seconds = answered.last_at - voted.first_at
    each = 1e6 / plan.images
    return Outcome(
        images_per_second=plan.images / seconds,
        seconds=seconds,
        cpu_worker=voted.cpu * each,
        cpu_consensus=answered.cpu * each,
        cpu_broker=broker * each if broker_pids else None,
    )


def run_alone(target: Target, plan: Plan) -> Outcome:
    """Run both hops in one process (blocking).

    Raises:
        VoidRunError: It failed.
    """
    with child(target, plan) as only:
        timing = only.expect()
    seconds = timing.last_at - timing.first_at
    return Outcome(
        images_per_second=plan.images / seconds,
        seconds=seconds,
        cpu_worker=timing.cpu * 1e6 / plan.images,
    )
