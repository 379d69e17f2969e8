"""A whole run in this process: a cascade's workers and the consensus, from images to answers."""

import anyio

from roadstream.schemas import codec
from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.records.answer import Answer
from roadstream.schemas.records.image import Head, Image, Inline
from roadstream.schemas.topics import ANSWERS, all_topics
from roadstream.streams.memory.log import MemoryLog
from roadstream.workers.job.submit import Submitter
from roadstream.workers.service.deciding import build_consensus
from roadstream.workers.service.runtime import WorkOptions, run_workers

DEADLINE = 100.0
PARTITIONS = 2


async def answers_of(cascade: Cascade, pictures: dict[str, bytes]) -> dict[str, Answer]:
    """Send pictures through a cascade as worker processes run it; return the answers.

    Args:
        cascade: Loaded.
        pictures: Files' bytes by image id.
    """
    log = MemoryLog()
    await log.create_topics(all_topics(cascade.tier_names), PARTITIONS)
    sent = [Image(Head(image_id=name, uri=name), Inline(data)) for name, data in pictures.items()]
    async with log.producer() as producer:
        await Submitter(producer, None, PARTITIONS).submit(sent)
    stopping = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_workers, log, cascade, WorkOptions(), stopping)
        tasks.start_soon(build_consensus(log, cascade).run, stopping)
        found = await _answers(log, len(sent))
        stopping.set()
    answers = {answer.head.image_id: answer for answer in found}
    assert len(answers) == len(found) == len(sent)
    return answers


async def _answers(log: MemoryLog, count: int) -> list[Answer]:
    found: list[Answer] = []
    async with log.reader(ANSWERS, "beginning") as reader:
        with anyio.fail_after(DEADLINE):
            while len(found) < count:
                polled = await reader.poll(max_records=1000, timeout=1)
                found += [codec.decode_answer(r.value or b"") for rs in polled.values() for r in rs]
    return found
