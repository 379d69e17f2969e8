"""The consensus sink on the in-memory log: crashes, rebalances, garbage, and one answer each."""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import codec
from schemas.errors import LogUnavailableError
from schemas.records import Answer, DeadLetter, VotesPack
from schemas.topics import ANSWERS, CONSENSUS_GROUP, DEAD_LETTERS, VOTES
from sinks.answer import Answerer
from sinks.consensus import Consensus, answered_tail
from sinks.join import Join
from stages.vote import verdict
from streams.clock import ManualClock
from streams.log import Output
from streams.memory import Fault, MemoryLog
from tests.builders import cascade, head, pack, votes

DEADLINE = 20.0
GONE = LogUnavailableError("gone")


def consensus(log: MemoryLog) -> Consensus:
    chosen = cascade()
    join = Join(Answerer(chosen, verdict(chosen.pool)), chosen.tier_names)
    return Consensus(log, join, clock=log.clock)


async def prepared(partitions: int = 1, clock: ManualClock | None = None) -> MemoryLog:
    log = MemoryLog(clock or ManualClock())
    await log.create_topics([VOTES, ANSWERS, DEAD_LETTERS], partitions)
    return log


async def send(log: MemoryLog, *values: VotesPack | bytes, partition: int = 0) -> None:
    encoded = [v if isinstance(v, bytes) else codec.encode(v) for v in values]
    async with log.producer() as producer:
        await producer.publish([Output(VOTES, b"k", value, partition) for value in encoded])


async def receive(log: MemoryLog, topic: str, count: int) -> list[bytes]:
    """Wait for ``count`` records and return all that are there then."""
    found: list[bytes] = []
    async with log.reader(topic, "beginning") as reader:
        with anyio.fail_after(DEADLINE):
            while len(found) < count:
                polled = await reader.poll(max_records=1000, timeout=1)
                found += [r.value or b"" for records in polled.values() for r in records]
    return found


async def answers(log: MemoryLog, count: int) -> list[Answer]:
    return [codec.decode_answer(value) for value in await receive(log, ANSWERS, count)]


async def image_ids(log: MemoryLog, count: int) -> list[str]:
    return sorted(answer.head.image_id for answer in await answers(log, count))


@asynccontextmanager
async def running(*members: Consensus) -> AsyncIterator[None]:
    """Run the members; stop them in good order afterwards."""
    stopping = anyio.Event()
    async with anyio.create_task_group() as tasks:
        for member in members:
            tasks.start_soon(member.run, stopping)
        yield
        stopping.set()


async def lag(log: MemoryLog) -> int:
    return await log.lag(CONSENSUS_GROUP, [VOTES])


async def test_an_image_is_answered_when_the_last_tier_of_its_path_has_voted() -> None:
    log = await prepared()
    async with running(consensus(log)):
        await send(log, pack("one", votes("a", 0.9, next_tier="two"), votes("b", 0.9)))
        assert await image_ids(log, 1) == ["b"]
        await send(log, pack("two", votes("a", 0.1)))
        assert await image_ids(log, 2) == ["a", "b"]

    assert await lag(log) == 0


async def test_an_answer_stands_in_the_partition_of_its_votes_under_its_key() -> None:
    log = await prepared(partitions=3)
    async with running(consensus(log)):
        await send(log, pack("one", votes("a", 0.9)), partition=2)
        await answers(log, 1)

    (record,) = log.topics[ANSWERS][2]
    assert record.key == b"a"


@pytest.mark.parametrize("after", [False, True], ids=["before its effect", "after its effect"])
async def test_a_crash_at_a_publish_loses_and_doubles_nothing(*, after: bool) -> None:
    log = await prepared()
    await send(log, pack("one", votes("a", 0.9, next_tier="two"), votes("b", 0.9)))
    log.faults.append(Fault("publish", GONE, after=after))
    with pytest.raises(LogUnavailableError, match="gone"):
        await consensus(log).run(anyio.Event())
    assert len(log.topics[ANSWERS][0]) == (1 if after else 0)

    await send(log, pack("two", votes("a", 0.1)))
    async with running(consensus(log)):
        assert await image_ids(log, 2) == ["a", "b"]

    assert await lag(log) == 0


async def test_answers_whose_offsets_were_not_committed_are_not_given_again() -> None:
    log = await prepared()
    packs = [pack("one", votes("a", 0.9), votes("b", 0.9)), pack("one", votes("c", 0.9))]
    await send(log, *packs)
    before = consensus(log)
    async with running(before):
        await answers(log, 3)
    log.groups.clear()  # the crash came between the answers and their commit

    async with running(after := consensus(log)):
        await send(log, pack("one", votes("d", 0.9)))
        assert await image_ids(log, 4) == ["a", "b", "c", "d"]

    assert (before.answered, after.answered) == (3, 1)
    assert await lag(log) == 0


async def test_open_joins_are_replayed_after_stopping_in_the_middle() -> None:
    log = await prepared()
    async with running(consensus(log)):
        await send(log, pack("one", votes("a", 0.9, next_tier="two")), pack("one", votes("b")))
        assert await image_ids(log, 1) == ["b"]
    assert await lag(log) == 2

    await send(log, pack("two", votes("a", 0.1)))
    async with running(consensus(log)):
        await answers(log, 2)

    assert await image_ids(log, 2) == ["a", "b"]
    assert await lag(log) == 0


async def test_garbage_becomes_a_dead_letter_and_harms_no_neighbour() -> None:
    log = await prepared()
    await send(log, pack("one", votes("a")), b"\xc1garbage", b"", pack("one", votes("b")))
    async with running(consensus(log)):
        assert await image_ids(log, 2) == ["a", "b"]
        letters = [codec.decode_dead_letter(v) for v in await receive(log, DEAD_LETTERS, 2)]

    assert [(x.topic, x.partition, x.offset, x.key, x.value, x.group) for x in letters] == [
        (VOTES, 0, 1, b"k", b"\xc1garbage", CONSENSUS_GROUP),
        (VOTES, 0, 2, b"k", b"", CONSENSUS_GROUP),
    ]
    assert all(isinstance(x, DeadLetter) and f"votes[0]@{x.offset}: " in x.error for x in letters)
    assert await lag(log) == 0


async def test_a_pack_of_another_schema_version_is_a_dead_letter() -> None:
    log = await prepared()
    newer = codec.encode(pack("one", votes("a"))).replace(b"votes.v1", b"votes.v9")
    await send(log, newer)
    async with running(consensus(log)):
        (value,) = await receive(log, DEAD_LETTERS, 1)

    letter = codec.decode_dead_letter(value)
    assert letter.value == newer
    assert letter.error == "votes[0]@0: Invalid value 'votes.v9' - at `$.schema`"


async def test_a_pack_whose_votes_do_not_match_its_members_is_a_dead_letter() -> None:
    log = await prepared()
    lopsided = pack("one", votes("a", 0.9), votes("b", 0.9, 0.8))
    await send(log, codec.encode(lopsided), pack("one", votes("c")))
    async with running(consensus(log)):
        assert await image_ids(log, 1) == ["c"]
        (value,) = await receive(log, DEAD_LETTERS, 1)

    letter = codec.decode_dead_letter(value)
    assert letter.error == "votes[0]@0: expected 1 votes for b, got 2"
    assert await lag(log) == 0


async def test_an_idle_image_is_answered_at_its_deadline() -> None:
    clock = ManualClock()
    log = await prepared(clock=clock)
    live = head("a", deadline_at=clock.now() + 5)
    async with running(consensus(log)):
        await send(log, pack("one", votes(live, 0.9, next_tier="two")), pack("one", votes("b")))
        await answers(log, 1)
        clock.advance(6)
        _, answer = await answers(log, 2)

    assert (answer.head.image_id, answer.status) == ("a", "partial")
    assert await lag(log) == 0


async def test_members_that_come_and_go_answer_every_image_once() -> None:
    log = await prepared(partitions=4)
    first = [pack("one", votes(f"{i}", 0.9, next_tier="two")) for i in range(40)]
    second = [pack("two", votes(f"{i}", 0.9)) for i in range(40)]
    for number, one in enumerate(first):
        await send(log, one, partition=number % 4)
    async with running(consensus(log)):
        for number, one in enumerate(second[:10]):
            await send(log, one, partition=number % 4)
        await answers(log, 10)
        async with running(consensus(log), consensus(log)):
            for number, one in enumerate(second[10:30], 10):
                await send(log, one, partition=number % 4)
            await answers(log, 30)
        for number, one in enumerate(second[30:], 30):
            await send(log, one, partition=number % 4)
        await answers(log, 40)

    counted = Counter(answer.head.image_id for answer in await answers(log, 40))
    assert counted == {str(i): 1 for i in range(40)}
    assert await lag(log) == 0


async def test_the_ids_answered_last_are_read_from_the_tail_of_their_partitions() -> None:
    log = await prepared(partitions=2)
    async with running(consensus(log)):
        for number in range(6):
            await send(log, pack("one", votes(f"image-{number}")), partition=number % 2)
        await answers(log, 6)

    assert await answered_tail(log, [1]) == {1: ["image-1", "image-3", "image-5"]}
    assert await answered_tail(log, []) == {}


async def test_a_strangers_record_among_the_answers_keeps_nobody_from_starting() -> None:
    log = await prepared()
    async with running(consensus(log)):
        await send(log, pack("one", votes("a")))
        await answers(log, 1)
    async with log.producer() as producer:
        await producer.publish([Output(ANSWERS, None, b"{}", 0)])
    log.groups.clear()  # so that the votes are read again

    async with running(again := consensus(log)):
        await send(log, pack("one", votes("b")))
        await receive(log, ANSWERS, 3)

    assert again.answered == 1
    assert await answered_tail(log, [0]) == {0: ["a", "b"]}


@settings(deadline=None, max_examples=25)
@given(
    st.lists(
        st.tuples(st.sampled_from(["publish", "poll"]), st.booleans(), st.booleans()), max_size=6
    ),
    st.permutations(range(6)),
)
async def test_faults_anywhere_lose_and_double_nothing(
    faults: Sequence[tuple[str, bool, bool]], order: Sequence[int]
) -> None:
    log = await prepared()
    packs = [pack("one", votes(f"{i}", 0.9, next_tier="two"), votes(f"{i}x")) for i in range(3)]
    packs += [pack("two", votes(f"{i}", 0.2)) for i in range(3)]
    for number in order:
        await send(log, packs[number])
    for operation, after, restarts in faults:
        log.faults.append(Fault("publish" if operation == "publish" else "poll", GONE, after=after))
        if restarts:
            with pytest.raises(LogUnavailableError, match="gone"):
                await run_out(log)
    while log.faults:
        with pytest.raises(LogUnavailableError, match="gone"):
            await run_out(log)
    async with running(consensus(log)):
        await answers(log, 6)

    counted = Counter(answer.head.image_id for answer in await answers(log, 6))
    assert counted == {name: 1 for i in range(3) for name in (f"{i}", f"{i}x")}
    assert await lag(log) == 0


async def run_out(log: MemoryLog) -> None:
    """Run until the next fault; one more pack is there, lest nothing be left to publish."""
    await send_behind_faults(log, pack("one", votes("0x")))
    with anyio.fail_after(DEADLINE):
        await consensus(log).run(anyio.Event())


async def send_behind_faults(log: MemoryLog, one: VotesPack) -> None:
    waiting = list(log.faults)
    log.faults.clear()
    await send(log, one)
    log.faults.extend(waiting)
