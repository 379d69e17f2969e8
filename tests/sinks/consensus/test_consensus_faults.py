"""The consensus sink on the in-memory log: crashes, restarts, rebalances; one answer each."""

from collections import Counter
from collections.abc import Sequence

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roadstream.schemas.errors import LogUnavailableError
from roadstream.schemas.records.votes import VotesPack
from roadstream.schemas.topics import ANSWERS, CARRIED, CONSENSUS_GROUP, DEAD_LETTERS, VOTES
from roadstream.sinks.consensus.restore import answered_tail
from roadstream.streams.clock import ManualClock
from roadstream.streams.log import Output
from roadstream.streams.memory.log import Fault, MemoryLog
from tests.kits.builders import pack, votes
from tests.kits.consensus_kit import (
    DEADLINE,
    GONE,
    SMALL,
    answers,
    consensus,
    image_ids,
    lag,
    prepared,
    receive,
    running,
    send,
)
from tests.kits.examples import examples


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

    assert await answered_tail(log, [1]) == {1: {"image-1": None, "image-3": None, "image-5": None}}
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
    assert await answered_tail(log, [0]) == {0: {"a": None, "b": None}}


@settings(deadline=None, max_examples=examples(25))
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


async def test_a_long_wait_is_carried_and_a_restart_reads_only_that() -> None:
    log = await prepared()
    async with running(first := consensus(log, limits=SMALL)):
        await send(log, pack("one", votes("a", 0.9, next_tier="two")))
        for number in range(30):
            await send(log, pack("one", votes(f"{number}")))
        await answers(log, 30)
    assert first.stats.join.carried >= 1
    assert await lag(log) == 0  # of votes: what is open lies on votes.carried
    assert await log.lag(CONSENSUS_GROUP, [CARRIED]) == 1

    async with running(second := consensus(log, limits=SMALL)):
        await send(log, pack("two", votes("a", 0.1)))
        assert "a" in await image_ids(log, 31)

    assert (second.answered, second.stats.join.late_votes) == (1, 0)
    assert await log.lag(CONSENSUS_GROUP, [VOTES, CARRIED]) == 0


async def test_copies_are_read_before_a_backlog_of_votes() -> None:
    log = await prepared()
    waiting = votes("a", 0.9, next_tier="two")
    async with running(consensus(log, limits=SMALL)):
        await send(log, pack("one", waiting), *(pack("one", votes(f"{i}")) for i in range(20)))
        await answers(log, 20)
    assert await log.lag(CONSENSUS_GROUP, [CARRIED]) == 1
    await send(
        log, pack("two", votes("a", 0.1)), *(pack("one", votes(f"{i}")) for i in range(40, 99))
    )

    async with running(consensus(log, limits=SMALL)):
        found = await answers(log, 80)

    assert [answer.head.image_id for answer in found][20] == "a"


async def test_a_member_runs_again_after_an_outage() -> None:
    log = await prepared()
    member = consensus(log)
    await send(log, pack("one", votes("a", 0.9, next_tier="two"), votes("b", 0.9)))
    for after in (False, True):
        log.faults.append(Fault("publish", GONE, after=after))
        await send_behind_faults(log, pack("one", votes(f"c{after}")))
        with anyio.fail_after(DEADLINE), pytest.raises(LogUnavailableError, match="gone"):
            await member.run(anyio.Event())
    await send(log, pack("two", votes("a", 0.1)))
    async with running(member):
        assert await image_ids(log, 4) == ["a", "b", "cFalse", "cTrue"]

    assert await lag(log) == 0
    assert member.stats.restores == 3


@settings(deadline=None, max_examples=examples(6))
@given(
    st.lists(st.integers(0, 12), min_size=8, max_size=8),
    st.lists(st.tuples(st.integers(0, 7), st.booleans()), max_size=4),
)
async def test_restarts_anywhere_on_a_log_that_commits_late_double_nothing(
    sizes: Sequence[int], faults: Sequence[tuple[int, bool]]
) -> None:
    log = MemoryLog(ManualClock(), atomic=False)
    await log.create_topics([VOTES, CARRIED, ANSWERS, DEAD_LETTERS], 1)
    sent: set[str] = set()
    for turn, size in enumerate(sizes):
        names = [f"{turn}-{i}" for i in range(size)]
        sent |= {*names, f"open-{turn}"}
        await send(log, pack("one", votes(f"open-{turn}", 0.9, next_tier="two")))
        await send(log, *(pack("one", votes(name)) for name in names))
        for at, after in faults:
            if at == turn:
                await send(log, pack("one", votes(f"open-{turn}", 0.9, next_tier="two")))
                log.faults.append(Fault("publish", GONE, after=after))
                await finish_with_faults(log)
        async with running(consensus(log, limits=SMALL)):
            await answers(log, len(sent) - turn - 1)
    await send(log, *(pack("two", votes(f"open-{turn}")) for turn in range(len(sizes))))
    async with running(consensus(log, limits=SMALL)):
        found = await answers(log, len(sent))

    counted = Counter(answer.head.image_id for answer in found)
    assert counted == dict.fromkeys(sent, 1)


async def finish_with_faults(log: MemoryLog) -> None:
    """Run members until each fault has ended one."""
    while log.faults:
        with anyio.move_on_after(1.0):
            with pytest.raises(LogUnavailableError, match="gone"):
                await consensus(log, limits=SMALL).run(anyio.Event())
            continue
        log.faults.clear()
