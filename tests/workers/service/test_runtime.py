"""A process's parts go on by themselves after their log has failed them, and say so meanwhile."""

from collections import Counter
from collections.abc import MutableMapping
from typing import Any, NamedTuple

import anyio
import pytest
from structlog.testing import capture_logs

from roadstream.schemas import codec
from roadstream.schemas.errors import LogUnavailableError, OutputError, RunError
from roadstream.schemas.records.image import Head, Image, Inline
from roadstream.schemas.topics import ANSWERS, all_topics
from roadstream.streams.memory.log import Fault, MemoryLog
from roadstream.workers.job.submit import Submitter
from roadstream.workers.service.deciding import build_consensus, persistent
from roadstream.workers.service.process import Process
from roadstream.workers.service.runtime import WorkOptions, run_workers
from tests.kits.builders import cascade, tier

NOOP = cascade(tier("one"), tier("two"))
PARTITIONS = 2
GONE, FULL = LogUnavailableError("gone"), OutputError("disk full")


async def filled(count: int) -> MemoryLog:
    log = MemoryLog()
    await log.create_topics(all_topics(NOOP.tier_names), PARTITIONS)
    async with log.producer() as producer:
        pictures = [Image(Head(image_id=f"{i}", uri=f"{i}"), Inline(b"x")) for i in range(count)]
        await Submitter(producer, None, PARTITIONS).submit(pictures)
    return log


async def answered(log: MemoryLog, count: int) -> Counter[str]:
    """Wait for every answer; return how many each image has."""
    found: Counter[str] = Counter()
    async with log.reader(ANSWERS, "beginning") as reader:
        while found.total() < count:
            polled = await reader.poll(max_records=1000, timeout=1)
            for records in polled.values():
                found.update(codec.decode_answer(r.value or b"").head.image_id for r in records)
    return found


class Outages(NamedTuple):
    """What came of a run: answers per image, what was said of outages, and how many are counted."""

    answers: Counter[str]
    said: list[MutableMapping[str, Any]]
    counted: int


async def run(log: MemoryLog, count: int) -> Outages:
    process, consensus = Process(log, NOOP), build_consensus(log, NOOP)
    running, stopping = persistent(consensus, "consensus"), anyio.Event()
    with capture_logs() as events, anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run_workers, log, NOOP, WorkOptions(), stopping, process)
            tasks.start_soon(running.run, consensus.run, stopping)
            found = await answered(log, count)
            stopping.set()
    counted = [s.value for s in process.samples() if s.metric.name == "roadstream_outages_total"]
    return Outages(
        found,
        [event for event in events if event["event"] == "waiting_out"],
        sum(value for value in counted if isinstance(value, int)) + running.failures,
    )


@pytest.mark.parametrize("error", [GONE, FULL])
@pytest.mark.parametrize("after", [False, True])
async def test_an_outage_is_waited_out_in_place(error: RunError, after: bool) -> None:
    count = 30
    log = await filled(count)
    log.faults.append(Fault("publish", error, after=after))

    came = await run(log, count)

    assert came.answers == {f"{i}": 1 for i in range(count)}
    assert [event["error"] for event in came.said] == [str(error)]
    assert came.counted == 1


async def test_outages_that_follow_each_other_are_each_waited_out() -> None:
    log = await filled(1)  # so that no two batches of a worker fail in the same outage
    log.faults.extend([Fault("publish", GONE), Fault("publish", FULL), Fault("publish", GONE)])

    came = await run(log, 1)

    assert came.answers == {"0": 1}
    assert [event["error"] for event in came.said] == [str(GONE), str(FULL), str(GONE)]
    assert [event["failures"] for event in came.said] == [1, 2, 3]
    assert came.counted == 3


async def test_in_a_job_a_full_disk_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROADSTREAM_SUPERVISED", "job")
    log = await filled(30)
    log.faults.append(Fault("publish", FULL))
    with anyio.fail_after(60), pytest.raises(ExceptionGroup) as raised:
        await run_workers(log, NOOP, WorkOptions(), anyio.Event())
    assert raised.group_contains(OutputError, match="^disk full$")
