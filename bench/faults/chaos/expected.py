"""What each class of picture must be answered, from a clean run of the product in this process."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import anyio

from roadstream.bench.faults.chaos.controls import Controls
from roadstream.bench.faults.chaos.engine import POISON, ChaosEngine
from roadstream.bench.faults.chaos.pictures import Catalogue, class_of
from roadstream.schemas import codec
from roadstream.schemas.cascade.model import Cascade, Member
from roadstream.schemas.records.answer import Answer
from roadstream.schemas.topics import ANSWERS, all_topics, images
from roadstream.streams.log import Output
from roadstream.streams.memory.log import MemoryLog
from roadstream.workers.engines import rules
from roadstream.workers.engines.options import EngineOptions
from roadstream.workers.service.deciding import build_consensus
from roadstream.workers.service.runtime import WorkOptions, run_workers

CLEAN_RUN_TIMEOUT = 60.0


class Verdict(NamedTuple):
    """All that an answer says about a picture, without when and beside whom it was judged."""

    status: str
    label: str | None
    probability: float | None
    exit_tier: str | None
    fault: str | None
    votes: tuple[tuple[str, str, float, float], ...]


MODEL_FAILED = Verdict("failed", None, None, None, "model_failed", ())
# What is promised for pictures on which a model fails, whatever today's code does with them.
POLICY = {
    "raises": MODEL_FAILED,
    "nan": MODEL_FAILED,
    "infinite": MODEL_FAILED,
    "wrong-count": MODEL_FAILED,
    "wrong-shape": MODEL_FAILED,
    "out-of-memory": MODEL_FAILED,
    "kills-process": Verdict("failed", None, None, None, "process_killed", ()),
}


def verdict_of(answer: Answer) -> Verdict:
    """Return what an answer says; floats are kept to the last bit."""
    if answer.status == "failed":
        fault = None if answer.error is None else answer.error.partition(":")[0]
        return Verdict("failed", None, None, None, fault, ())
    votes = tuple((vote.tier, vote.member, vote.raw, vote.probability) for vote in answer.votes)
    return Verdict(
        answer.status, answer.label, answer.probability, answer.exit_tier, answer.error, votes
    )


async def expected_verdicts(cascade: Cascade, catalogue: Catalogue) -> dict[str, Verdict]:
    """Judge each class of picture once, with nothing else about that could go wrong.

    Ordinary pictures are judged without odd files or poison near them. What a failing model must
    lead to is not asked of the code: it is ``POLICY``.
    """
    found = dict(POLICY)
    with _engine():
        for kinds in (catalogue.shades, catalogue.odd, sorted(POISON.keys() - POLICY.keys())):
            for answer in await _judge(cascade, catalogue, kinds):
                found[class_of(answer.head.image_id)] = verdict_of(answer)
    return found | {f"b{kind[1:]}": found[kind] for kind in catalogue.shades if kind[0] == "s"}


async def _judge(cascade: Cascade, catalogue: Catalogue, kinds: Sequence[str]) -> list[Answer]:
    log, stopping = MemoryLog(), anyio.Event()
    await log.create_topics(all_topics(cascade.tier_names), 1)
    answers: list[Answer] = []
    async with log.producer() as producer:
        await producer.publish(
            [
                Output(images("archive"), None, codec.encode(catalogue.image(f"0-0-{kind}")), 0)
                for kind in kinds
            ]
        )
    with anyio.fail_after(CLEAN_RUN_TIMEOUT):
        async with anyio.create_task_group() as tasks, log.reader(ANSWERS, "beginning") as reader:
            tasks.start_soon(run_workers, log, cascade, WorkOptions(), stopping)
            tasks.start_soon(build_consensus(log, cascade).run, stopping)
            while len(answers) < len(kinds):
                polled = await reader.poll(max_records=512, timeout=0.1)
                answers += [
                    codec.decode(codec.decode_answer, record.value, *tp, record.offset)
                    for tp, records in polled.items()
                    for record in records
                ]
            stopping.set()
    return answers


@contextmanager
def _engine() -> Iterator[None]:
    """Run the members of this process by the engine that obeys pictures, which may not sleep."""

    def build(_: Cascade, member: Member, options: EngineOptions) -> ChaosEngine:
        del options
        return ChaosEngine(member, Controls(None), sleep=lambda _: None)

    before = rules.ConesEngine
    rules.ConesEngine = build  # type: ignore[assignment,misc]  # a factory suffices
    try:
        yield
    finally:
        rules.ConesEngine = before  # type: ignore[misc]
