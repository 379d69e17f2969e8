"""Waiting out what passes: delays, patience, and errors that are not waited out."""

import time
from collections.abc import Sequence

import anyio
import pytest
from structlog.testing import capture_logs

from roadstream.schemas.backoff import Backoff
from roadstream.schemas.errors import (
    ForbiddenError,
    LogUnavailableError,
    OutputError,
    RoadstreamError,
    RunError,
    UsageError,
)
from roadstream.workers.service import outage
from roadstream.workers.service.outage import Persistent

GONE = LogUnavailableError("no broker answers")
FULL = OutputError("log.db: cannot be written: disk full")
NO_DELAY = (0.0, 0.0)


class Part:
    """Fails as it is told, then ends in order."""

    def __init__(self, errors: Sequence[Exception]) -> None:
        self._errors = list(errors)
        self.runs = 0

    async def __call__(self, stopping: anyio.Event) -> None:
        self.runs += 1
        if self._errors:
            raise self._errors.pop(0)


def persistent(**options: object) -> Persistent:
    return Persistent("glance", lambda: 0.0, backoff=Backoff(*NO_DELAY), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "error", [GONE, FULL, ExceptionGroup("tasks", [GONE, ExceptionGroup("more", [FULL])])]
)
async def test_what_passes_is_waited_out(error: Exception) -> None:
    part, running = Part([error] * 7), persistent()
    with capture_logs() as events:
        await running.run(part, anyio.Event())
    assert (part.runs, running.failures) == (8, 7)
    assert [event["event"] for event in events] == ["waiting_out"]  # of seven times
    assert running.last_error in {str(GONE), str(FULL)}


@pytest.mark.parametrize(
    "error",
    [
        UsageError("there is no topic votes"),
        RunError("something else"),
        ExceptionGroup("tasks", [GONE, UsageError("there is no topic votes")]),
        ExceptionGroup("tasks", [GONE, ZeroDivisionError("a bug")]),
    ],
)
async def test_what_does_not_pass_is_raised_at_once(error: Exception) -> None:
    part = Part([error])
    with pytest.raises(type(error)) as raised:
        await persistent().run(part, anyio.Event())
    assert raised.value is error
    assert part.runs == 1


async def test_a_full_disk_is_not_waited_out_where_only_outages_are() -> None:
    part = Part([GONE, FULL])
    with pytest.raises(OutputError):
        await persistent(passing=(LogUnavailableError,)).run(part, anyio.Event())
    assert part.runs == 2


async def test_patience_ends() -> None:
    part = Part([GONE] * 100)
    with capture_logs() as events, pytest.raises(LogUnavailableError):
        await persistent(patience=0.0).run(part, anyio.Event())
    assert events == []  # it is told by whoever hears of the error


async def test_a_part_that_is_to_stop_is_not_run_again() -> None:
    stopping = anyio.Event()

    async def fails_once_told_to_stop(stop: anyio.Event) -> None:
        stop.set()
        raise GONE

    await persistent().run(fails_once_told_to_stop, stopping)
    assert stopping.is_set()


async def test_waiting_ends_when_it_is_to_stop() -> None:
    stopping = anyio.Event()
    running = Persistent("glance", lambda: 0.0, backoff=Backoff(1000.0, 1000.0))
    failed = anyio.Event()

    async def fails(_stop: anyio.Event) -> None:
        failed.set()
        raise GONE

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(running.run, fails, stopping)
            await failed.wait()
            stopping.set()


async def test_a_part_is_down_from_its_first_failure_until_it_works_again() -> None:
    worked_at = 0.0
    running = Persistent("glance", lambda: worked_at, backoff=Backoff(*NO_DELAY))
    down: list[float | None] = []

    async def part(_stop: anyio.Event) -> None:
        nonlocal worked_at
        down.append(running.down_for(anyio.current_time() + 1e6))
        if len(down) < 3:
            raise GONE
        worked_at = float("inf")

    await running.run(part, anyio.Event())
    assert down[0] is None
    assert all(seconds is not None and seconds > 0 for seconds in down[1:])
    assert running.down_for(1e9) is None


async def test_delays_start_over_after_a_part_has_worked_for_a_while() -> None:
    drawn: list[float] = []

    class Recorded(Backoff):
        def next(self) -> float:
            drawn.append(super().next())
            return 0.0

    worked_at = 0.0
    running = Persistent("p", lambda: worked_at, backoff=Recorded(1.0, 64.0, lambda: 0.0))
    runs = 0

    async def part(_stop: anyio.Event) -> None:
        nonlocal runs, worked_at
        runs += 1
        if runs == 4:
            worked_at = anyio.current_time() + 1e6  # as if it had worked for long
        if runs <= 5:
            raise GONE

    await running.run(part, anyio.Event())
    assert drawn[:4] == [0.5, 1.0, 2.0, 0.5]


def test_errors_waited_out_are_errors_of_the_surroundings() -> None:
    from roadstream.workers.service.outage import PASSING

    assert all(issubclass(error, RunError) for error in PASSING)
    assert not any(issubclass(UsageError, error) for error in PASSING)
    assert issubclass(RunError, RoadstreamError)


async def test_a_part_that_joins_again_and_again_without_doing_work_stays_down() -> None:
    turned_at = 0.0
    running = Persistent(
        "glance", lambda: turned_at, backoff=Backoff(*NO_DELAY), done_at=lambda: 0.0
    )
    down: list[float | None] = []

    async def part(_stop: anyio.Event) -> None:
        nonlocal turned_at
        turned_at = time.monotonic()  # it joins and polls, and fails when it publishes
        down.append(running.down_for(turned_at + 100.0))
        if len(down) < 4:
            raise GONE

    await running.run(part, anyio.Event())
    assert down[0] is None
    assert all(seconds is not None and seconds >= 100.0 for seconds in down[1:])


async def test_what_a_person_must_mend_is_said_once_and_tried_seldom(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outage, "MENDING_DELAY", 0.0)
    missing = ForbiddenError("Kafka does not let this client write: topic votes")
    part, running = Part([missing] * 5 + [GONE] + [missing]), persistent()
    with capture_logs() as events:
        await running.run(part, anyio.Event())

    assert [event["event"] for event in events] == ["to_be_mended", "waiting_out", "to_be_mended"]
    assert events[0]["error"] == str(missing)
    assert running.failures == 7
