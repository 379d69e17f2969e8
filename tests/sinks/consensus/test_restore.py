"""What is known before a partition is taken over, and how far answers may run ahead of offsets."""

import anyio
import pytest
from structlog.testing import capture_logs

from roadstream.bench.simulation.virtual_loop import VirtualRunner
from roadstream.schemas import codec
from roadstream.schemas.errors import LogUnavailableError
from roadstream.schemas.topics import ANSWERS
from roadstream.sinks.consensus.answered import ANSWERED_WINDOW
from roadstream.sinks.consensus.join import JoinLimits
from roadstream.sinks.consensus.restore import (
    READ_RECORDS,
    RESTORE_PATIENCE,
    Unacknowledged,
    answered_tail,
)
from roadstream.streams.log import Output, TopicPartition
from roadstream.streams.memory.log import Fault, MemoryLog
from tests.kits.builders import pack, votes
from tests.kits.join_kit import NOW, SMALL, TP, flow, hashed, new_join

OTHER = TopicPartition("votes", 1)


def given(name: str, partition: int, content: bytes | None = None) -> Output:
    ((_, answer),) = new_join().add(pack("one", votes(hashed(name, content))), (TP, 0), NOW).answers
    return Output(ANSWERS, name.encode(), codec.encode(answer), partition)


async def answered(*counts: int) -> MemoryLog:
    """Return a log with so many answers on each partition."""
    log = MemoryLog()
    await log.create_topics([ANSWERS], len(counts))
    log.append([given(f"{p}-{i}", p) for p, count in enumerate(counts) for i in range(count)])
    return log


@pytest.mark.parametrize(("window", "first"), [(1, 9), (3, 7), (10, 0), (11, 0)])
async def test_the_last_answers_of_a_partition_are_read_and_no_others(
    window: int, first: int
) -> None:
    log = await answered(10, 10)
    found = await answered_tail(log, [1], window)
    assert found == {1: dict.fromkeys(f"1-{i}" for i in range(first, 10))}
    assert list(found[1]) == [f"1-{i}" for i in range(first, 10)]


async def test_the_content_of_what_was_answered_is_known_where_the_answer_tells_it() -> None:
    log = await answered(0)
    log.append([given("a", 0, b"1" * 16), given("b", 0)])
    assert await answered_tail(log, [0]) == {0: {"a": b"1" * 16, "b": None}}


async def test_as_many_polls_as_it_takes_are_made() -> None:
    log = await answered(READ_RECORDS + 1, 1)
    found = await answered_tail(log, [0, 1])
    assert {partition: len(ids) for partition, ids in found.items()} == {0: READ_RECORDS + 1, 1: 1}


async def test_nothing_is_read_of_partitions_that_were_not_asked_for() -> None:
    log = await answered(READ_RECORDS + 1, 1)
    log.faults.extend([Fault("poll"), Fault("poll", LogUnavailableError("a second poll"))])
    assert await answered_tail(log, [1]) == {1: {"1-0": None}}


async def test_a_strangers_record_among_the_answers_hides_none_of_the_others() -> None:
    log = await answered(1)
    log.append([Output(ANSWERS, None, b"{}", 0), given("after", 0)])
    with capture_logs() as events:
        assert await answered_tail(log, [0]) == {0: {"0-0": None, "after": None}}
    [unreadable] = events
    assert unreadable["event"] == "unreadable_answer"
    assert unreadable["error"].startswith("answers[0]@1: ")


def test_a_silent_log_is_not_taken_for_one_without_answers() -> None:
    async def test() -> None:
        log = await answered(1)
        log.faults.append(Fault("poll", delay=RESTORE_PATIENCE - 1))
        assert await answered_tail(log, [0]) == {0: {"0-0": None}}
        assert anyio.current_time() == RESTORE_PATIENCE - 1

        log.faults.append(Fault("poll", delay=1e9))
        with pytest.raises(LogUnavailableError) as silent:
            await answered_tail(log, [0])
        assert str(silent.value) == (
            "answers: expected its last records within 30 s, got none: "
            "what was answered before must be known first"
        )
        assert anyio.current_time() == 2 * RESTORE_PATIENCE - 1

    with VirtualRunner() as runner:
        runner.run(test())


def test_answers_that_come_to_other_partitions_meanwhile_do_no_harm() -> None:
    async def test() -> None:
        log = await answered(1, 1)
        log.faults.append(Fault("poll", delay=2.0))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(append_later, log)
            assert await answered_tail(log, [0]) == {0: {"0-0": None}}

    async def append_later(log: MemoryLog) -> None:
        await anyio.sleep(1.0)
        log.append([given("later", 1)])

    with VirtualRunner() as runner:
        runner.run(test())


def test_the_window_holds_what_a_predecessor_may_have_answered_unseen() -> None:
    limits = JoinLimits()
    assert limits.window == ANSWERED_WINDOW == 16_384
    assert (limits.carry_after, limits.at_once, limits.wait_after) == (4_096, 4_096, 6_144)
    # The sum in the module of the join; two of them less two packs are left for lateness.
    rest = limits.window - limits.wait_after - 2 * limits.at_once
    assert rest == 2_048


def test_answers_wait_once_too_many_were_given_since_a_pack_that_is_not_acknowledged() -> None:
    join, waiting = new_join(partitions=2, limits=SMALL), Unacknowledged()
    waiting.delivered(OTHER, 0, 0)
    waiting.acknowledged({OTHER: 1})
    waiting.delivered(TP, 0, join.count(0))
    flow(join, SMALL.wait_after, 0)
    assert not waiting.must_wait(join)
    waiting.delivered(TP, 1, join.count(0))

    flow(join, 1, 6)
    assert waiting.must_wait(join)

    waiting.acknowledged({TP: 0, OTHER: 5})
    assert waiting.must_wait(join)
    waiting.acknowledged({TP: 1})
    assert not waiting.must_wait(join)
    flow(join, SMALL.wait_after - 1, 7)
    assert not waiting.must_wait(join)
    flow(join, 1, 20)
    assert waiting.must_wait(join)
    waiting.acknowledged({TP: 2})
    assert not waiting.must_wait(join)


def test_one_acknowledgement_covers_all_packs_below_it() -> None:
    join, waiting = new_join(limits=SMALL), Unacknowledged()
    for offset in range(5):
        waiting.delivered(TP, offset, 0)
    flow(join, 10, 0)
    waiting.acknowledged({TP: 4})
    assert waiting.must_wait(join)
    waiting.acknowledged({TP: 5})
    assert not waiting.must_wait(join)
