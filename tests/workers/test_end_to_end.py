"""The whole path on the in-memory log: every image ends in exactly one answer, whatever dies."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import anyio
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roadstream.schemas import codec
from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.cascade.routes import Route
from roadstream.schemas.errors import LogUnavailableError
from roadstream.schemas.records.answer import Answer, AnswerTier
from roadstream.schemas.records.image import Head, Image, Inline
from roadstream.schemas.topics import (
    ANSWERS,
    CONSENSUS_GROUP,
    VOTES,
    all_topics,
    spread,
    tier_group,
    tier_inputs,
)
from roadstream.stages.inference import Engine
from roadstream.streams.log import Record, TopicPartition
from roadstream.streams.memory.log import Fault, MemoryLog
from roadstream.workers.job.submit import Submitter
from roadstream.workers.service.deciding import build_consensus
from roadstream.workers.service.runtime import WorkOptions, run_workers
from roadstream.workers.tier.judge import Judge
from roadstream.workers.tier.worker import TierWorker, WorkerLimits
from tests.kits.builders import cascade, member, tier
from tests.kits.examples import examples
from tests.kits.fake_engine import NONSENSE, POISON, GreyEngine, picture

DEADLINE = 60.0
GONE = LogUnavailableError("gone")
PARTITIONS = 3
LIMITS = WorkerLimits(poll_timeout=0.02)
SURE, FAIRLY_SURE = ([Route(to="exit", min_confidence=level)] for level in (0.9, 0.6))
CASCADE = cascade(
    tier("one", member("a"), member("b", 0.5), routes=SURE, max_batch=4),
    tier("two", member("c"), member("shade", 0.0), routes=FAIRLY_SURE, max_batch=3),
    tier("three", member("d", 2.0), max_batch=2),
)
ENGINES: dict[str, Engine] = {
    "a": GreyEngine(),
    "b": GreyEngine(24.0),
    "c": GreyEngine(8.0),
    "shade": GreyEngine(-8.0),
    "d": GreyEngine(2.0),
}
LEVELS = [240, 200, 160, 140, 129, 128, 127, 110, 60, 10, POISON, NONSENSE]
Start = Callable[[], Awaitable[None]]


def images(count: int) -> list[Image]:
    return [
        Image(
            Head(image_id=f"{i}", uri=f"{i}.png", sequence=i),
            Inline(picture(LEVELS[i % len(LEVELS)]) if i % 25 != 24 else b"no picture"),
        )
        for i in range(count)
    ]


async def filled(count: int, chosen: Cascade = CASCADE) -> MemoryLog:
    """Return a log with a cascade's topics and so many images, as a producer sends them."""
    log = MemoryLog()
    await log.create_topics(all_topics(chosen.tier_names), PARTITIONS)
    async with log.producer() as producer:
        assert await Submitter(producer, None, PARTITIONS).submit(images(count)) == count
    return log


def tier_worker(log: MemoryLog, name: str) -> Start:
    async def start() -> None:
        judge = Judge(CASCADE, name, ENGINES)
        await TierWorker(log, judge, limits=LIMITS).run(anyio.Event())

    return start


def consensus(log: MemoryLog) -> Start:
    async def start() -> None:
        await build_consensus(log, CASCADE).run(anyio.Event())

    return start


class Part:
    """Something that runs for ever; when it is killed, or a fault kills it, it starts anew."""

    def __init__(self, start: Start) -> None:
        self._start = start
        self._scope = anyio.CancelScope()
        self.deaths = 0

    async def run(self) -> None:
        while True:
            with anyio.CancelScope() as self._scope:
                try:
                    await self._start()
                except* LogUnavailableError:
                    pass
            self.deaths += 1
            await anyio.lowlevel.checkpoint()

    def kill(self) -> None:
        self._scope.cancel()


class Answers:
    """Reads the answers as they come."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log

    async def wait(self, count: int) -> list[Answer]:
        """Wait for ``count`` answers and return all that are there then."""
        found: list[Answer] = []
        async with self._log.reader(ANSWERS, "beginning") as reader:
            with anyio.fail_after(DEADLINE):
                while len(found) < count:
                    polled = await reader.poll(max_records=1000, timeout=1)
                    found += [
                        codec.decode_answer(r.value or b"") for rs in polled.values() for r in rs
                    ]
        return found


async def settled(log: MemoryLog) -> None:
    """Wait until every group has committed everything: then nothing more can come."""
    with anyio.fail_after(DEADLINE):
        async with log.reader(ANSWERS, "end") as reader:
            while await total_lag(log):
                await reader.poll(max_records=1, timeout=0.02)


async def total_lag(log: MemoryLog) -> int:
    lags = [await log.lag(CONSENSUS_GROUP, [VOTES])]
    for index, name in enumerate(CASCADE.tier_names):
        lags.append(await log.lag(tier_group(name), list(tier_inputs(name, first=index == 0))))
    return sum(lags)


def judged(answer: Answer) -> Answer:
    """Return the answer without what depends on how batches fell and on the time."""

    def plain(tier: AnswerTier) -> AnswerTier:
        runs = [msgspec.structs.replace(run, latency=0.0, batch_size=0) for run in tier.runs]
        return AnswerTier(tier.tier, runs, tier.raw, tier.probability, boxes=tier.boxes)

    return msgspec.structs.replace(
        answer,
        head=msgspec.structs.replace(answer.head, submitted_at=0.0),
        tiers=[plain(tier) for tier in answer.tiers],
        answered_at=0.0,
        took=0.0,
        joining=0.0,
    )


async def test_keys_and_partitions_are_as_documented_from_picture_to_answer() -> None:
    """docs/reference/records.md, "Keys and partitions": the drive's key, the image's partition."""
    log, drive = await filled(0), b"berlin/drive-17"
    sent = [
        msgspec.structs.replace(i, head=msgspec.structs.replace(i.head, session_id=drive.decode()))
        for i in images(24)
    ]
    async with log.producer() as producer:
        await Submitter(producer, None, PARTITIONS).submit(sent)
    async with anyio.create_task_group() as tasks:
        for start in [consensus(log), *(tier_worker(log, name) for name in CASCADE.tier_names)]:
            tasks.start_soon(Part(start).run)
        await Answers(log).wait(len(sent))
        tasks.cancel_scope.cancel()

    for topic, decode in (("images.archive", codec.decode_image), (ANSWERS, codec.decode_answer)):
        found = [
            (record.key, tp.partition, decode(record.value or b"").head.image_id)
            async for tp, record in everything(log, topic)
        ]
        expected = [(drive, spread(i.head.image_id, PARTITIONS), i.head.image_id) for i in sent]
        assert sorted(found) == sorted(expected)
    packs = [
        (record.key, {spread(v.head.image_id, PARTITIONS) for v in votes.images} - {tp.partition})
        async for tp, record in everything(log, VOTES)
        for votes in [codec.decode_votes(record.value or b"")]
    ]
    assert packs
    assert all(pack == (None, set()) for pack in packs)
    assert {tp.partition async for tp, _ in everything(log, ANSWERS)} == set(range(PARTITIONS))


async def everything(log: MemoryLog, topic: str) -> AsyncIterator[tuple[TopicPartition, Record]]:
    async with log.reader(topic, "beginning") as reader:
        ends = await reader.ends()
        while any(reader.positions[p] < end for p, end in ends.items()):
            for tp, records in (await reader.poll(max_records=1000, timeout=1)).items():
                for record in records:
                    yield tp, record


async def undisturbed(count: int) -> dict[str, Answer]:
    log = await filled(count)
    parts = [Part(tier_worker(log, name)) for name in CASCADE.tier_names]
    async with anyio.create_task_group() as tasks:
        for part in [*parts, Part(consensus(log))]:
            tasks.start_soon(part.run)
        await Answers(log).wait(count)
        await settled(log)
        tasks.cancel_scope.cancel()
    answers = await Answers(log).wait(count)
    assert len(answers) == count
    return {answer.head.image_id: judged(answer) for answer in answers}


def check(answers: Sequence[Answer], expected: dict[str, Answer]) -> None:
    counted = Counter(answer.head.image_id for answer in answers)
    assert counted == dict.fromkeys(expected, 1)
    for answer in answers:
        assert judged(answer) == expected[answer.head.image_id]


async def test_every_image_takes_its_way_through_the_tiers_to_one_answer() -> None:
    answers = await undisturbed(50)

    assert {answer.exit_tier for answer in answers.values()} == {"one", "two", "three"}
    for name, answer in answers.items():
        level = LEVELS[int(name) % len(LEVELS)]
        if int(name) % 25 == 24:
            assert (answer.status, answer.exit_tier) == ("failed", "one")
            assert (answer.error or "").startswith("not_an_image: ")
        elif level in (POISON, NONSENSE):
            assert (answer.status, answer.exit_tier) == ("failed", "three")
            assert (answer.error or "").startswith("model_failed: ")
        else:
            assert (answer.status, answer.missing) == ("answered", [])
            assert answer.label == ("roadwork" if level >= 128 else "none")
            tiers = CASCADE.tier_names[: CASCADE.tier_names.index(answer.exit_tier or "") + 1]
            assert list(dict.fromkeys(vote.tier for vote in answer.votes)) == tiers
            assert all(vote.weight == 0 for vote in answer.shadow_votes)


async def test_every_record_says_in_its_headers_what_it_is() -> None:
    log = await filled(50)
    parts = [Part(tier_worker(log, name)) for name in CASCADE.tier_names]
    async with anyio.create_task_group() as tasks:
        for part in [*parts, Part(consensus(log))]:
            tasks.start_soon(part.run)
        await Answers(log).wait(50)
        await settled(log)
        tasks.cancel_scope.cancel()

    said = Counter[tuple[str, bytes | None]]()
    for topic, partitions in log.topics.items():
        for record in (record for partition in partitions for record in partition):
            (content_type, schema) = record.headers
            assert content_type == ("content-type", b"application/msgpack")
            tag = msgspec.msgpack.decode(record.value or b"")["schema"]
            assert schema == ("schema", tag.encode())
            said[topic, schema[1]] += 1
    assert said[ANSWERS, b"answer.v1"] == said["images.archive", b"image.v1"] == 50
    assert {schema for _, schema in said} >= {b"escalation.v1", b"votes.v1", b"dead_letter.v1"}


async def test_parts_that_are_killed_again_and_again_lose_and_double_nothing() -> None:
    count, kills = 120, 40
    expected = await undisturbed(count)
    log = await filled(count)
    parts = [Part(tier_worker(log, name)) for name in [*CASCADE.tier_names, "one", "two"]]
    parts += [Part(consensus(log)), Part(consensus(log))]
    async with anyio.create_task_group() as tasks:
        for part in parts:
            tasks.start_soon(part.run)
        for kill in range(kills):
            await Answers(log).wait(count * kill // kills)
            parts[kill % len(parts)].kill()
        await Answers(log).wait(count)
        await settled(log)
        tasks.cancel_scope.cancel()

    assert sum(part.deaths for part in parts) > kills // 2
    check(await Answers(log).wait(count), expected)


FAULTS = st.lists(
    st.tuples(st.sampled_from(["publish", "poll"]), st.booleans()), min_size=1, max_size=12
)


@settings(deadline=None, max_examples=examples(15))
@given(FAULTS)
async def test_faults_of_the_log_lose_and_double_nothing(faults: list[tuple[str, bool]]) -> None:
    count = 20
    expected = await undisturbed(count)
    log = await filled(count)
    log.faults.extend(
        Fault("publish" if operation == "publish" else "poll", GONE, after=after)
        for operation, after in faults
    )
    parts = [Part(tier_worker(log, name)) for name in CASCADE.tier_names]
    parts.append(Part(consensus(log)))
    async with anyio.create_task_group() as tasks:
        for part in parts:
            tasks.start_soon(part.run)
        with anyio.fail_after(DEADLINE):
            # A poll fault hits whoever polls next, this reader too.
            while True:
                try:
                    await Answers(log).wait(count)
                    await settled(log)
                    break
                except LogUnavailableError:
                    continue
        tasks.cancel_scope.cancel()

    log.faults.clear()
    check(await Answers(log).wait(count), expected)


async def test_a_cascade_without_models_runs_as_a_worker_process_runs_it() -> None:
    noop = cascade(tier("one"), tier("two"), tier("three"))
    log = await filled(30, noop)
    stopping = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_workers, log, noop, WorkOptions(), stopping)
        tasks.start_soon(build_consensus(log, noop).run, stopping)
        answers = await Answers(log).wait(30)
        stopping.set()

    assert Counter(answer.head.image_id for answer in answers) == {f"{i}": 1 for i in range(30)}
    for answer in answers:
        assert (answer.status, answer.label, answer.exit_tier) == ("answered", "roadwork", "three")
        assert [vote.member for vote in answer.votes] == [
            "one-member",
            "two-member",
            "three-member",
        ]
        assert answer.latency.total > 0
        assert [spent.tier for spent in answer.latency.tiers] == ["one", "two", "three"]


async def test_an_image_sent_twice_is_answered_once() -> None:
    log = await filled(10)
    async with log.producer() as producer:
        await Submitter(producer, None, PARTITIONS).submit(images(10))
    parts = [Part(tier_worker(log, name)) for name in CASCADE.tier_names]
    async with anyio.create_task_group() as tasks:
        for part in [*parts, Part(consensus(log))]:
            tasks.start_soon(part.run)
        await Answers(log).wait(10)
        await settled(log)
        tasks.cancel_scope.cancel()

    check(await Answers(log).wait(10), await undisturbed(10))


@pytest.mark.parametrize("missing", ["votes", "tier.two.live"])
async def test_workers_do_not_start_without_their_topics(missing: str) -> None:
    log = await filled(0)
    del log.topics[missing]
    with pytest.raises(Exception, match=f"expected topics {missing}; create them with"):
        await run_workers(log, CASCADE, WorkOptions(), anyio.Event())
