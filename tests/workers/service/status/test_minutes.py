"""The line that a part says once a minute, and its silence while nothing happens."""

import time
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from roadstream.schemas.records.image import Head, Image, Inline
from roadstream.schemas.topics import all_topics
from roadstream.streams.memory.log import MemoryLog
from roadstream.workers.job.submit import Submitter
from roadstream.workers.service.deciding import build_consensus, persistent
from roadstream.workers.service.process import Process
from roadstream.workers.service.runtime import WorkOptions, run_workers
from roadstream.workers.service.status.minutes import (
    MINUTE,
    QUIET,
    Account,
    Counts,
    Minutes,
    of_supervisor,
)
from roadstream.workers.service.supervision.supervisor import ChildSpec, Supervisor
from tests.kits.builders import cascade, tier


class Part:
    """A part that judges pictures, as a test wants it."""

    def __init__(self) -> None:
        self.pictures, self.lag, self.out = 0, 0, list[str]()
        self.told = Minutes(
            Account(
                lambda: {"pictures": self.pictures},
                lambda grew, seconds: {**grew, "per_second": grew["pictures"] / seconds},
                lambda now: {"lag": self.lag, "members_out": self.out},
                {"tier": "look"},
            ),
            now=0.0,
        )

    def minutes(self, first: int, last: int) -> list[Any]:
        """Return what is said from one minute to another, both included."""
        with capture_logs() as events:
            for minute in range(first, last + 1):
                self.told.tell(minute * MINUTE)
        return [dict(event) for event in events]


def test_a_minute_of_work_is_told_with_its_own_rate() -> None:
    part = Part()
    part.pictures = 120
    assert part.minutes(1, 1) == [
        {"event": "minute", "log_level": "info", "tier": "look",
         "pictures": 120, "per_second": 2.0, "lag": 0},
    ]  # fmt: skip
    part.pictures = 150
    assert part.minutes(2, 2)[0]["per_second"] == 0.5


def test_a_quiet_part_says_so_once_and_then_once_an_hour() -> None:
    part = Part()
    hours = round(QUIET / MINUTE)
    said = part.minutes(1, 2 * hours)
    assert [(e["event"], e["for_seconds"]) for e in said] == [("idle", 60), ("idle", 60 + QUIET)]
    part.pictures = 1
    later = part.minutes(2 * hours + 1, 2 * hours + 3)
    assert [event["event"] for event in later] == ["minute", "idle"]
    assert later[1]["for_seconds"] == 60


@pytest.mark.parametrize("trouble", ["lag", "out"])
def test_what_waits_or_is_out_is_told_every_minute(trouble: str) -> None:
    part = Part()
    part.lag, part.out = (7, []) if trouble == "lag" else (0, ["objects"])
    said = part.minutes(1, 3)
    assert [(e["event"], e["pictures"]) for e in said] == [("minute", 0)] * 3
    assert said[0]["lag"] == part.lag
    assert said[0].get("members_out", []) == part.out


def test_an_unknown_lag_is_not_told_as_none() -> None:
    counts: Counts = {"n": 0}
    account = Account(lambda: counts, lambda grew, seconds: dict(grew), lambda now: {"lag": None})
    minutes = Minutes(account, 0.0)
    counts = {"n": 1}
    with capture_logs() as events:
        minutes.tell(MINUTE)
    assert events == [{"event": "minute", "log_level": "info", "n": 1}]


async def test_a_process_tells_of_its_workers_and_its_consensus() -> None:
    noop = cascade(tier("one"))
    log = MemoryLog()
    await log.create_topics(all_topics(noop.tier_names), 2)
    process, stopping = Process(log, noop), anyio.Event()
    with capture_logs() as early:
        assert process.minutes() == []
    assert early == [
        {"event": "minute", "log_level": "info", "not_begun": ["its models are not warm yet"]}
    ]
    consensus = build_consensus(log, noop)
    running = persistent(consensus, "consensus")
    sent = [Image(Head(image_id=f"{i}", uri=f"{i}"), Inline(b"x")) for i in range(30)]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_workers, log, noop, WorkOptions(), stopping, process)
        process.watch_consensus(consensus, running)
        tasks.start_soon(running.run, consensus.run, stopping)
        async with log.producer() as producer:
            await Submitter(producer, None, 2).submit(sent)
        with anyio.fail_after(30):
            while consensus.answered < len(sent):
                await anyio.lowlevel.checkpoint()
        await process.lags.ask()
        with capture_logs() as events:
            for part in process.minutes():
                part.tell(time.monotonic() + MINUTE)
        stopping.set()

    decided, judged = sorted(events, key=lambda event: "tier" in event)
    assert (decided["answers"], decided["lag"]) == (30, 0)
    assert (judged["tier"], judged["group"]) == ("one", "roadstream.tier.one")
    assert (judged["pictures"], judged["exits"], judged["escalations"]) == (30, 30, 0)
    assert judged["lag"] == 0
    assert 0.4 < judged["per_second"] <= 0.5
    assert judged["mean_batch"] >= 1


def test_a_supervisor_tells_of_restarts_and_of_who_does_not_work() -> None:
    supervisor = Supervisor([ChildSpec("look 0", [])], lambda child, pid, line: None)
    child = supervisor.children["look 0"]
    child.pid, child.ready_since = 7, 1.0
    told = Minutes(of_supervisor(supervisor), 0.0)
    with capture_logs() as events:
        told.tell(MINUTE)
        child.restarts = 2
        told.tell(2 * MINUTE)
        child.pid = None
        told.tell(3 * MINUTE)
    assert [event["event"] for event in events] == ["children_work", "minute", "minute"]
    assert (events[1]["children"], events[1]["restarts"]) == (1, 2)
    assert events[2]["not_working"] == ["look 0: no process; the last ended with None"]
