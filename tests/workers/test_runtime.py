"""A process's parts go on by themselves after their log has failed them, and say so meanwhile."""

from collections import Counter

import anyio
import pytest
from structlog.testing import capture_logs

from schemas import codec
from schemas.errors import LogUnavailableError, OutputError, RunError
from schemas.records import Head, Image, Inline
from schemas.topics import ANSWERS, all_topics
from streams.memory.log import Fault, MemoryLog
from tests.builders import cascade, tier
from workers.process import Process
from workers.runtime import WorkOptions, build_consensus, persistent, run_workers
from workers.submit import Submitter

NOOP = cascade(tier("one"), tier("two"))
COUNT, PARTITIONS = 30, 2
GONE, FULL = LogUnavailableError("gone"), OutputError("disk full")


async def filled() -> MemoryLog:
    log = MemoryLog()
    await log.create_topics(all_topics(NOOP.tier_names), PARTITIONS)
    async with log.producer() as producer:
        pictures = [Image(Head(image_id=f"{i}", uri=f"{i}"), Inline(b"x")) for i in range(COUNT)]
        await Submitter(producer, None, PARTITIONS).submit(pictures)
    return log


async def answered(log: MemoryLog) -> Counter[str]:
    """Wait for every answer; return how many each image has."""
    found: Counter[str] = Counter()
    async with log.reader(ANSWERS, "beginning") as reader:
        while found.total() < COUNT:
            polled = await reader.poll(max_records=1000, timeout=1)
            for records in polled.values():
                found.update(codec.decode_answer(r.value or b"").head.image_id for r in records)
    return found


@pytest.mark.parametrize("error", [GONE, FULL])
@pytest.mark.parametrize("after", [False, True])
async def test_an_outage_is_waited_out_in_place(error: RunError, after: bool) -> None:
    log, stopping = await filled(), anyio.Event()
    process = Process(log)
    consensus = build_consensus(log, NOOP)
    running = persistent(consensus, "consensus")
    log.faults.extend([Fault("publish", error, after=after)] * 3)
    with capture_logs() as events, anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run_workers, log, NOOP, WorkOptions(), stopping, process)
            tasks.start_soon(running.run, consensus.run, stopping)
            found = await answered(log)
            stopping.set()

    assert found == {f"{i}": 1 for i in range(COUNT)}
    waited = [event for event in events if event["event"] == "waiting_out"]
    assert {event["error"] for event in waited} == {str(error)}
    assert 1 <= len(waited) <= 3  # two batches of one worker may fail in one outage
    failures = [s.value for s in process.samples() if s.name == "roadstream_outages_total"]
    assert sum(v for v in failures if isinstance(v, int)) + running.failures == len(waited)


async def test_in_a_job_a_full_disk_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROADSTREAM_SUPERVISED", "job")
    log = await filled()
    log.faults.append(Fault("publish", FULL))
    with anyio.fail_after(60), pytest.raises(ExceptionGroup) as raised:
        await run_workers(log, NOOP, WorkOptions(), anyio.Event())
    assert raised.group_contains(OutputError, match="^disk full$")
