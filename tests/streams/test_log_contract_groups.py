"""The contract of ``roadstream.streams.log``, sentence by sentence: commits and consumer groups."""

import itertools
import time
from collections.abc import Collection

import anyio
import anyio.lowlevel
import pytest

from roadstream.schemas.errors import FencedError, OutputError, ReplacedError, RoadstreamError
from roadstream.streams.log import Log, Output, Polled, TopicPartition
from tests.kits.contract import (
    DEADLINE,
    Heard,
    Member,
    Told,
    ends,
    number,
    numbered,
    owning,
    take,
    texts,
    together,
    values,
)

# Consumer: commits


async def test_what_was_not_committed_is_delivered_again(log: Log, topic: str) -> None:
    async with log, log.producer() as producer:
        await log.create_topics([topic], 1)
        await producer.publish(numbered(topic, range(10), 1))
        async with log.consumer(topic, [topic]) as consumer:
            await take(consumer, 10)
        async with log.consumer(topic, [topic]) as consumer:
            assert [r.value for _, r in await take(consumer, 10)] == texts(range(10))
            at = {TopicPartition(topic, 0): 4}
            await consumer.publish([], at, consumer.assignment.epoch)
        async with log.consumer(topic, [topic]) as consumer:
            assert [r.value for _, r in await take(consumer, 6)] == texts(range(4, 10))
            assert await consumer.committed() == {TopicPartition(topic, 0): 4}


async def test_what_was_committed_is_not_delivered_again(log: Log, topic: str) -> None:
    async with log, log.producer() as producer:
        await log.create_topics([topic], 2)
        await producer.publish(numbered(topic, range(10), 2))
        async with log.consumer(topic, [topic]) as consumer:
            await together(lambda: len(first.values) == 10, first := Member(consumer))
        async with log.consumer(topic, [topic]) as consumer:
            await owning(consumer, 2)
            assert await consumer.poll(max_records=10, timeout=0.3) == {}
            await producer.publish(numbered(topic, range(10, 12), 2))
            assert {r.value for _, r in await take(consumer, 2)} == {b"10", b"11"}


async def test_a_commit_never_moves_an_offset_backwards(log: Log, topic: str) -> None:
    tp = TopicPartition(topic, 0)
    async with log, log.producer() as producer:
        await log.create_topics([topic], 1)
        await producer.publish(numbered(topic, range(10), 1))
        async with log.consumer(topic, [topic]) as consumer:
            await take(consumer, 10)
            for offset in (7, 3, 5):
                await consumer.publish([], {tp: offset}, consumer.assignment.epoch)
        async with log.consumer(topic, [topic]) as consumer:
            await take(consumer, 3)
            await consumer.publish([], {tp: 2}, consumer.assignment.epoch)
        async with log.consumer(topic, [topic]) as consumer:
            await take(consumer, 3)
            assert await consumer.committed() == {tp: 7}


async def test_a_commit_that_comes_while_a_later_one_is_under_way_changes_nothing(
    log: Log, topic: str
) -> None:
    told, tp, turns = Told(), TopicPartition(topic, 0), range(1, 7)
    async with log, log.producer() as producer:
        await log.create_topics([topic], 1)
        await producer.publish(numbered(topic, range(20), 1))
        async with log.consumer(topic, [topic], listener=told) as consumer:
            await take(consumer, 20)
            for turn in turns:
                await consumer.publish([], {tp: 2 * turn}, consumer.assignment.epoch)
                for _ in turns[:turn]:  # one of these finds the commit sent and not answered
                    await anyio.lowlevel.checkpoint()
                await consumer.publish([], {tp: 2 * turn - 1}, consumer.assignment.epoch)
                with anyio.fail_after(DEADLINE):
                    while {tp: 2 * turn} not in told.acknowledged:
                        await consumer.poll(max_records=0, timeout=0)
                await consumer.poll(max_records=1, timeout=0.2)  # time for one more commit
                assert await log.committed(topic, [topic]) == {tp: 2 * turn}


async def test_outputs_are_acknowledged_when_publish_returns(log: Log, topic: str) -> None:
    out = f"{topic}-out"
    async with log, log.producer() as producer:
        await log.create_topics([topic, out], 2)
        await producer.publish(numbered(topic, range(10), 2))
        async with log.consumer(topic, [topic]) as consumer, log.reader(out, "end") as reader:
            await take(consumer, 10)
            epoch = consumer.assignment.epoch
            commit = {TopicPartition(topic, p): 5 for p in range(2)}
            await consumer.publish(numbered(out, range(6), 2), commit, epoch)

            assert await reader.ends() == {0: 3, 1: 3}
        assert await log.lag(topic, [topic]) == 0


async def test_polling_and_publishing_go_on_side_by_side(log: Log, topic: str) -> None:
    out = f"{topic}-out"
    async with log, log.producer() as producer:
        await log.create_topics([topic, out], 2)
        async with log.consumer(topic, [topic]) as consumer:
            await owning(consumer, 2)

            async def produce() -> None:
                for start in range(0, 100, 10):
                    await producer.publish(numbered(topic, range(start, start + 10), 2))

            async def forward(polled: Polled) -> None:
                outputs = [
                    Output(out, None, value, tp.partition)
                    for tp, records in polled.items()
                    for value in values({tp: records})
                ]
                await consumer.publish(outputs, ends(polled), consumer.assignment.epoch)

            with anyio.fail_after(DEADLINE):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(produce)
                    seen = 0
                    while seen < 100:
                        polled = await consumer.poll(max_records=7, timeout=0.2)
                        seen += len(values(polled))
                        tasks.start_soon(forward, polled)
        async with log.reader(out, "beginning") as reader:
            found = [record.value or b"" for _, record in await take(reader, 100)]

        assert sorted(found, key=number) == texts(range(100))
        assert await log.lag(topic, [topic]) == 0


@pytest.mark.parametrize(
    "bad",
    [Output("no-such-topic", None, b"x"), Output("{topic}-out", None, b"x", 7)],
    ids=["unknown topic", "unknown partition"],
)
async def test_outputs_and_offsets_are_one_transaction(
    atomic_log: Log, topic: str, bad: Output
) -> None:
    out, log = f"{topic}-out", atomic_log
    bad = bad._replace(topic=bad.topic.format(topic=topic))
    async with log, log.producer() as producer:
        await log.create_topics([topic, out], 2)
        await producer.publish(numbered(topic, range(10), 2))
        async with log.consumer(topic, [topic]) as consumer:
            await take(consumer, 10)
            commit = {TopicPartition(topic, 0): 5}
            with pytest.raises(RoadstreamError, match=r"there is no topic|expected 0 to 1"):
                await consumer.publish(
                    [*numbered(out, range(4), 2), bad], commit, consumer.assignment.epoch
                )

            assert await consumer.committed() == {}
            async with log.reader(out, "beginning") as reader:
                assert await reader.ends() == {0: 0, 1: 0}


# Consumer: the group


async def test_members_share_partitions_and_hand_over_without_loss(log: Log, topic: str) -> None:
    async with log, log.producer() as producer:
        await log.create_topics([topic], 4)
        async with log.consumer(topic, [topic]) as consumer:
            first = Member(consumer)
            await producer.publish(numbered(topic, range(100), 4))
            await together(lambda: len(first.values) == 100, first)
            async with log.consumer(topic, [topic]) as other:
                second = Member(other)
                await together(
                    lambda: len(first.partitions) == 2 == len(second.partitions), first, second
                )
                assert first.partitions.isdisjoint(second.partitions)
                await producer.publish(numbered(topic, range(100, 200), 4))
                await together(lambda: len(first.values) + len(second.values) == 200, first, second)
            await together(lambda: len(first.partitions) == 4, first)
            await producer.publish(numbered(topic, range(200, 300), 4))
            await together(lambda: len(first.values) + len(second.values) == 300, first)

        assert sorted(first.values + second.values, key=number) == texts(range(300))
        assert await log.lag(topic, [topic]) == 0


async def test_the_next_owner_does_again_what_was_not_committed(log: Log, topic: str) -> None:
    async with log, log.producer() as producer:
        await log.create_topics([topic], 2)
        await producer.publish(numbered(topic, range(20), 2))
        async with log.consumer(topic, [topic]) as consumer:
            first = Member(consumer, commits=False)
            await together(lambda: len(first.values) == 20, first)
            async with log.consumer(topic, [topic]) as other:
                second = Member(other)
                await together(lambda: len(second.values) == 10, first, second)

                (lost,) = second.partitions
                assert second.values == texts(range(lost, 20, 2))


async def test_more_members_than_partitions_leave_some_idle(log: Log, topic: str) -> None:
    async with log, log.producer() as producer:
        await log.create_topics([topic], 1)
        async with log.consumer(topic, [topic]) as one, log.consumer(topic, [topic]) as two:
            members = [Member(one), Member(two)]
            await producer.publish(numbered(topic, range(10), 1))
            await together(lambda: sum(len(m.values) for m in members) >= 10, *members)

            assert sorted(len(member.partitions) for member in members) == [0, 1]
            assert sorted(members[0].values + members[1].values, key=number) == texts(range(10))


async def test_a_stale_epoch_appends_and_commits_nothing(log: Log, topic: str) -> None:
    out = f"{topic}-out"
    async with log, log.producer() as producer:
        await log.create_topics([topic, out], 2)
        await producer.publish(numbered(topic, range(20), 2))
        async with log.consumer(topic, [topic]) as consumer:
            first = Member(consumer, commits=False)
            await together(lambda: len(first.values) == 20, first)
            before = consumer.assignment
            async with log.consumer(topic, [topic]) as other:
                second = Member(other, commits=False)
                await together(
                    lambda: len(first.partitions) == 1 == len(second.partitions), first, second
                )
                assert consumer.assignment.epoch > before.epoch
                outputs = numbered(out, range(4), 2)
                no_offsets: dict[TopicPartition, int] = {}
                for commit in (no_offsets, dict.fromkeys(before.partitions, 10)):
                    with pytest.raises(FencedError, match="no longer owns what it commits"):
                        await consumer.publish(outputs, commit, before.epoch)
                async with log.reader(out, "beginning") as reader:
                    assert await reader.ends() == {0: 0, 1: 0}

        assert await log.lag(topic, [topic]) == 20


async def test_the_listener_hears_of_partitions_before_their_records_and_before_they_go(
    log: Log, topic: str
) -> None:
    heard = Heard()
    async with log, log.producer() as producer:
        await log.create_topics([topic], 2)
        await producer.publish(numbered(topic, range(10), 2))
        async with log.consumer(topic, [topic], listener=heard) as consumer:
            heard.consumer = consumer
            first = Member(consumer)
            await together(lambda: len(first.values) > 0, first)
            whole = frozenset(TopicPartition(topic, p) for p in range(2))
            epoch = consumer.assignment.epoch
            assert heard.calls == [("assigned", whole, epoch)]
            async with log.consumer(topic, [topic]) as other:
                second = Member(other)
                await together(lambda: len(second.partitions) == 1, first, second)
                await together(lambda: len(first.partitions) == 1, first, second)

                assert heard.calls[1] == ("revoked", whole, epoch)
                what, partitions, later = heard.calls[-1]
                assert (what, partitions) == ("assigned", consumer.assignment.partitions)
                assert later == consumer.assignment.epoch > epoch

    kinds = [what for what, _, _ in heard.calls]
    assert kinds[:2] == ["assigned", "revoked"]
    assert all(a != b for a, b in itertools.pairwise(kinds))


async def test_work_finished_while_partitions_are_revoked_is_committed(
    log: Log, topic: str
) -> None:
    class Finishing(Heard):
        async def revoked(self, partitions: Collection[TopicPartition]) -> None:
            await super().revoked(partitions)
            if first.values:
                commit = dict.fromkeys(partitions, 5)
                outputs = [Output(f"{topic}-out", None, b"done", 0)]
                await consumer.publish(outputs, commit, consumer.assignment.epoch)

    heard = Finishing()
    async with log, log.producer() as producer:
        await log.create_topics([topic, f"{topic}-out"], 2)
        await producer.publish(numbered(topic, range(10), 2))
        async with log.consumer(topic, [topic], listener=heard) as consumer:
            heard.consumer = consumer
            first = Member(consumer, commits=False)
            await together(lambda: len(first.values) == 10, first)
            async with log.consumer(topic, [topic]) as other:
                second = Member(other)
                await together(lambda: len(second.partitions) == 1, first, second)
                await second.step()

                assert second.values == []
        assert await log.lag(topic, [topic]) == 0
        async with log.reader(f"{topic}-out", "beginning") as reader:
            assert (await reader.ends())[0] >= 1


async def test_a_static_member_takes_its_partitions_back_at_once(log: Log, topic: str) -> None:
    async with log, log.producer() as producer:
        await log.create_topics([topic], 4)
        async with log.consumer(topic, [topic], member_id="stays") as one:
            stays = Member(one)
            async with log.consumer(topic, [topic], member_id="leaves") as two:
                leaves = Member(two)
                await together(
                    lambda: len(stays.partitions) == 2 == len(leaves.partitions), stays, leaves
                )
                owned = leaves.partitions
            async with log.consumer(topic, [topic], member_id="leaves") as again:
                back = Member(again)
                await producer.publish(numbered(topic, range(40), 4))
                started_at = time.monotonic()
                await together(lambda: len(back.partitions) == 2, stays, back)
                assert time.monotonic() - started_at < 5
                await together(lambda: len(stays.values + back.values) >= 40, stays, back)

                assert back.partitions == owned
                assert {*stays.values, *back.values} == set(texts(range(40)))


async def test_an_error_inside_a_consumers_block_comes_out_as_it_is(log: Log, topic: str) -> None:
    async def fail() -> None:
        async with log.consumer(topic, [topic]) as consumer:
            await owning(consumer, 1)
            raise OutputError("disk full")

    async with log:
        await log.create_topics([topic], 1)
        with pytest.raises(OutputError, match="disk full"):
            await fail()


async def poll_for_ever(member: Member) -> None:
    while True:
        await member.step()


async def test_the_older_of_two_instances_under_one_name_ends(log: Log, topic: str) -> None:
    async def poll_until_it_ends() -> None:
        with pytest.raises(ReplacedError, match="has joined under this member's name"):
            await poll_for_ever(zombie)
        with pytest.raises(FencedError, match="no longer owns what it commits"):
            await older.publish([], dict.fromkeys(stale.partitions, 5), stale.epoch)
        ended.set()

    ended = anyio.Event()
    async with log, log.producer() as producer:
        await log.create_topics([topic], 2)
        await producer.publish(numbered(topic, range(10), 2))
        async with log.consumer(topic, [topic], member_id="same") as older:
            zombie = Member(older, commits=False)
            await together(lambda: len(zombie.values) == 10, zombie)
            stale = older.assignment
            async with (
                log.consumer(topic, [topic], member_id="same") as newer,
                anyio.create_task_group() as tasks,
            ):
                tasks.start_soon(poll_until_it_ends)
                await together(lambda: len(fresh.values) == 10, fresh := Member(newer))
                await together(ended.is_set, fresh)
                # What it does last takes nothing from the newer one.
                await producer.publish(numbered(topic, range(10, 12), 2))
                await together(lambda: len(fresh.values) == 12, fresh)
            assert len(zombie.values) == 10


async def test_who_leaves_gives_its_partitions_to_the_others_at_once(log: Log, topic: str) -> None:
    async with log:
        await log.create_topics([topic], 2)
        async with log.consumer(topic, [topic], member_id="stays") as stays:
            async with log.consumer(topic, [topic], member_id="leaves") as leaves:
                one, two = Member(stays), Member(leaves)
                await together(lambda: len(one.partitions) == 1 == len(two.partitions), one, two)
            left_at = anyio.current_time()
            await together(lambda: len(one.partitions) == 2, one)
            assert anyio.current_time() - left_at < 8  # a third of any log's session timeout


async def test_a_static_member_that_died_is_replaced_at_once(log: Log, topic: str) -> None:
    async with log, log.producer() as producer:
        await log.create_topics([topic], 2)
        await producer.publish(numbered(topic, range(10), 2))
        async with log.consumer(topic, [topic], member_id="same") as dead:
            await take(dead, 10)
            started_at = time.monotonic()
            async with log.consumer(topic, [topic], member_id="same") as heir:
                assert len(await take(heir, 10)) == 10
                assert time.monotonic() - started_at < 5


async def test_a_group_without_members_begins_where_it_was_told(log: Log, topic: str) -> None:
    async with log:
        await log.create_topics([topic], 2)
        async with log.producer() as producer:
            await producer.publish(numbered(topic, range(6), 2))
        await log.commit(topic, {TopicPartition(topic, 0): 2, TopicPartition(topic, 1): 3})
        assert await log.lag(topic, [topic]) == 1
        async with log.consumer(topic, [topic]) as consumer:
            ((tp, record),) = await take(consumer, 1)
    assert (tp, record.offset, record.value) == (TopicPartition(topic, 0), 2, b"4")
