"""The committer: under which generation it commits, when, and what it does with Kafka's answers.

Kafka's side is scripted, on a loop whose time is virtual.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import anyio
import pytest
from aiokafka.errors import KafkaConnectionError
from structlog.testing import capture_logs

from roadstream.bench.simulation.virtual_loop import VirtualRunner
from roadstream.streams.kafka.client import KafkaLink
from roadstream.streams.kafka.committer import OffsetCommitter, Tenure
from roadstream.streams.kafka.group_requests import FENCED
from roadstream.streams.kafka.membership import Identity, Membership
from roadstream.streams.kafka.settings import KafkaSettings
from roadstream.streams.log import Offsets, TopicPartition

TP, OTHER = TopicPartition("t", 0), TopicPartition("u", 1)
FINE, TIMED_OUT, LOADING, NOT_AVAILABLE, ELSEWHERE = 0, 7, 14, 15, 16
ILLEGAL_GENERATION, UNKNOWN_MEMBER, REBALANCING = 22, 25, 27
GONE = KafkaConnectionError("gone")
HANGS = "hangs"
Answer = int | dict[TopicPartition, int] | Exception | str


class Sent(NamedTuple):
    """A commit as Kafka gets it."""

    at: float
    identity: Identity
    offsets: dict[TopicPartition, int]


class Coordinator:
    """aiokafka's coordinator, as far as a committer uses it; Kafka's answers are a list."""

    group_id, _group_instance_id, coordinator_id = "group", "name", 1

    def __init__(self) -> None:
        self.generation, self.member_id = 1, "member"
        self.answers: deque[Answer] = deque()
        self.sent: list[Sent] = []
        self.told: list[str] = []
        self.known = anyio.Event()
        self.known.set()
        self.on_send: Callable[[], None] = lambda: None

    async def ensure_coordinator_known(self) -> None:
        await self.known.wait()

    async def _send_req(self, request: Any) -> Any:
        group, generation, member_id, name, topics = request._fields
        assert (group, name) == ("group", "name")
        offsets = {TopicPartition(t, p): at for t, places in topics for p, at, *_ in places}
        self.sent.append(Sent(anyio.current_time(), (generation, member_id), offsets))
        self.on_send()
        await anyio.lowlevel.checkpoint()
        answer = self.answers.popleft() if self.answers else FINE
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, str):
            await anyio.sleep_forever()
        codes = answer if isinstance(answer, dict) else dict.fromkeys(offsets, answer)
        return SimpleNamespace(topics=[(t, [(p, codes[TopicPartition(t, p)])]) for t, p in offsets])

    def reset_generation(self) -> None:
        self.told.append("reset")

    def request_rejoin(self) -> None:
        self.told.append("rejoin")

    def coordinator_dead(self) -> None:
        self.told.append("dead")


class World:
    """A committer that has begun to commit for one assignment."""

    def __init__(self, *answers: Answer) -> None:
        self.kafka = Coordinator()
        self.kafka.answers.extend(answers)
        client = SimpleNamespace(_coordinator=self.kafka)
        self.link = KafkaLink(KafkaSettings(commit_interval=0.05, request_timeout=3.0))
        self.stats, self.membership = self.link.stats, Membership(client, self.link)
        self.acknowledged: list[dict[TopicPartition, int]] = []
        self.committer = OffsetCommitter(client, self.membership, self.link, self._note)
        self.committer.begin(Tenure((1, "member"), {}))

    def _note(self, offsets: Offsets) -> None:
        self.acknowledged.append(dict(offsets))

    @property
    def offsets(self) -> list[dict[TopicPartition, int]]:
        return [sent.offsets for sent in self.kafka.sent]

    @property
    def times(self) -> list[float]:
        return [round(sent.at, 3) for sent in self.kafka.sent]


def virtually(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        with anyio.fail_after(1_000):
            await test()

    with VirtualRunner() as runner:
        runner.run(bounded())


def test_a_commit_carries_the_generation_in_which_its_partitions_were_assigned() -> None:
    async def test() -> None:
        world = World(GONE)
        world.kafka.known = anyio.Event()
        world.committer.put({TP: 3})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(world.committer.flush, 10)
            await anyio.sleep(1)
            world.kafka.generation, world.kafka.member_id = 2, "newer"
            world.kafka.known.set()

        assert [sent.identity for sent in world.kafka.sent] == [(1, "member")] * 2
        assert world.offsets == [{TP: 3}] * 2

    virtually(test)


def test_nothing_is_committed_once_the_partitions_were_given_up() -> None:
    async def test() -> None:
        world = World()
        world.committer.put({TP: 3})
        world.committer.end()
        world.committer.put({TP: 4})
        world.committer.lower(TP, 0)
        await world.committer.flush(10)
        world.committer.begin(Tenure((2, "member"), {}))
        await world.committer.flush(10)

        assert world.offsets == []
        assert world.stats.commits_dropped == 1

    virtually(test)


@pytest.mark.parametrize("answer", [GONE, LOADING])
@pytest.mark.parametrize("heir", [False, True], ids=["to somebody else", "and assigned anew"])
def test_a_commit_that_fails_after_its_partitions_were_given_up_is_not_sent_again(
    answer: Answer, *, heir: bool
) -> None:
    async def test() -> None:
        world = World(answer)

        def give_up() -> None:
            world.committer.end()
            if heir:
                world.committer.begin(Tenure((2, "member"), {TP: 9}))

        world.kafka.on_send = give_up
        world.committer.put({TP: 3})
        await world.committer.flush(10)

        assert world.offsets == [{TP: 3}]
        assert anyio.current_time() == 0.0  # there is nothing to wait for
        assert (world.stats.commit_failures, world.acknowledged) == (1, [])
        assert world.stats.commits_dropped == 2  # when it was given up, and when it had failed

    virtually(test)


def test_giving_partitions_up_with_nothing_to_commit_drops_nothing() -> None:
    async def test() -> None:
        world = World()
        world.committer.put({TP: 3})
        await world.committer.flush(10)
        world.committer.end()
        assert (world.offsets, world.stats.commits_dropped) == ([{TP: 3}], 0)

    virtually(test)


def test_what_kafka_acknowledged_is_told_and_the_rest_is_sent_again() -> None:
    async def test() -> None:
        world = World({TP: FINE, OTHER: LOADING})
        world.committer.put({TP: 3, OTHER: 7})
        with capture_logs() as events:
            await world.committer.flush(10)

        assert world.offsets == [{TP: 3, OTHER: 7}, {OTHER: 7}]
        assert world.acknowledged == [{TP: 3}, {OTHER: 7}]
        assert (world.stats.commits, world.stats.commit_failures) == (2, 1)
        assert world.kafka.told == []
        [event] = events
        assert (event["event"], event["partitions"]) == ("commit_retried", 1)
        assert event["reason"] == "GroupLoadInProgressError"

    virtually(test)


@pytest.mark.parametrize("code", [TIMED_OUT, NOT_AVAILABLE, ELSEWHERE])
def test_a_coordinator_that_went_elsewhere_is_looked_for_again(code: int) -> None:
    async def test() -> None:
        world = World(code)
        world.committer.put({TP: 3})
        await world.committer.flush(10)
        assert world.kafka.told == ["dead"]
        assert world.offsets == [{TP: 3}] * 2

    virtually(test)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (ILLEGAL_GENERATION, "reset"),
        (UNKNOWN_MEMBER, "reset"),
        (REBALANCING, "rejoin"),
        ({TP: REBALANCING, OTHER: UNKNOWN_MEMBER}, "reset"),
    ],
)
def test_a_group_that_has_moved_on_is_joined_again_and_its_refusal_accepted(
    answer: Answer, told: str
) -> None:
    async def test() -> None:
        world = World(answer)
        world.committer.put({TP: 3, OTHER: 7})
        world.kafka.on_send = lambda: world.committer.put({TP: 4})
        await world.committer.flush(10)
        assert world.kafka.told == [told]
        assert world.offsets == [{TP: 3, OTHER: 7}]
        assert anyio.current_time() == 0.0
        await world.committer.flush(10)
        assert world.offsets[1:] == [{TP: 4}]  # what came meanwhile is asked for
        assert (world.stats.commits_dropped, world.stats.commit_failures) == (1, 0)

    virtually(test)


@pytest.mark.parametrize("code", [ILLEGAL_GENERATION, REBALANCING])
@pytest.mark.parametrize("newer", [(2, "member"), (1, "newer")])
def test_a_refusal_of_an_earlier_generation_does_not_disturb_the_present_one(
    code: int, newer: Identity
) -> None:
    async def test() -> None:
        world = World(code)
        world.committer.put({TP: 3})
        world.kafka.generation, world.kafka.member_id = newer
        await world.committer.flush(10)
        assert world.kafka.told == []

    virtually(test)


def test_a_member_whose_name_was_taken_commits_no_more() -> None:
    async def test() -> None:
        world = World({TP: FENCED, OTHER: ILLEGAL_GENERATION})
        world.committer.put({TP: 3, OTHER: 7})
        with capture_logs() as events:
            await world.committer.flush(10)
            assert anyio.current_time() == 0.0
            await world.committer.flush(10)
        assert world.membership.replaced
        assert world.offsets == [{TP: 3, OTHER: 7}]
        assert (world.kafka.told, world.stats.commits_dropped) == ([], 1)
        [_, event] = events
        assert (event["event"], event["partitions"]) == ("commit_dropped", 2)

    virtually(test)


def test_commits_keep_their_distance_and_tries_ever_more_of_it() -> None:
    async def test() -> None:
        world = World(FINE, FINE, *[GONE] * 6)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(world.committer.run)
            for number in range(1, 4):
                world.committer.put({TP: number})
                await anyio.sleep(0.02)
            await anyio.sleep(9.94)
            world.committer.put({TP: 5})
            await anyio.sleep(7.01)
            world.committer.put({TP: 6})
            await anyio.sleep(1)
            tasks.cancel_scope.cancel()

        tries = [10.0, 10.2, 10.6, 11.4, 13.0, 15.0, 17.0]
        assert world.times == [0.0, 0.05, *tries, 17.05]
        assert [offsets[TP] for offsets in world.offsets] == [1, 3, *[5] * 7, 6]
        assert world.stats.commit_failures == 6

    virtually(test)


def test_the_present_offset_is_sent_after_a_hang_of_kafka() -> None:
    async def test() -> None:
        world = World(HANGS)
        world.committer.put({TP: 3})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(world.committer.run)
            await anyio.sleep(1)
            world.committer.put({TP: 4})
            await anyio.sleep(9)
            tasks.cancel_scope.cancel()
        assert world.times == [0.0, 3.2]
        assert world.offsets == [{TP: 3}, {TP: 4}]
        assert world.acknowledged == [{TP: 4}]

    virtually(test)


def test_a_last_commit_has_so_much_time_and_no_more() -> None:
    async def test() -> None:
        world = World(*[GONE] * 4, *[HANGS] * 9)
        world.committer.put({TP: 3})
        began = anyio.current_time()
        await world.committer.flush(2.0)
        assert anyio.current_time() - began == 2.0
        assert world.times == [0.0, 0.1, 0.2, 0.3, 0.4]

    virtually(test)


def test_a_flush_waits_for_the_commit_that_is_under_way_and_for_what_came_meanwhile() -> None:
    async def test() -> None:
        world = World()
        world.kafka.known = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(world.committer.run)
            world.committer.put({TP: 3})
            await anyio.sleep(1)
            world.committer.put({TP: 4})
            world.kafka.known.set()
            await world.committer.flush(10)
            assert world.acknowledged == [{TP: 3}, {TP: 4}]
            tasks.cancel_scope.cancel()

    virtually(test)


def test_a_flush_of_nothing_does_not_make_later_offsets_wait() -> None:
    async def test() -> None:
        world = World()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(world.committer.run)
            await anyio.sleep(1)
            await world.committer.flush(10)
            world.committer.put({TP: 3})
            await anyio.sleep(1)
            assert world.times == [1.0]
            world.committer.put({TP: 3})  # nothing new
            await anyio.sleep(1)
            assert world.times == [1.0]
            tasks.cancel_scope.cancel()

    virtually(test)


def test_a_partition_that_became_shorter_is_committed_from_there() -> None:
    async def test() -> None:
        world = World()
        world.committer.begin(Tenure((1, "member"), {TP: 50}))
        world.committer.lower(TP, 0)
        world.committer.put({TP: 4})
        await world.committer.flush(10)
        assert world.offsets == [{TP: 4}]

    virtually(test)


@pytest.mark.parametrize(
    ("answer", "gives_up", "reasons"),
    [
        (GONE, True, ["the partitions were given up"] * 2),
        (FENCED, False, ["another process has this member's name"]),
        (
            {TP: REBALANCING, OTHER: ILLEGAL_GENERATION},
            False,
            ["IllegalGenerationError, RebalanceInProgressError"],
        ),
    ],
)
def test_why_commits_are_dropped_is_told(
    answer: Answer, reasons: list[str], *, gives_up: bool
) -> None:
    async def test() -> None:
        world = World(answer)
        world.committer.put({TP: 3, OTHER: 7})
        if gives_up:
            world.kafka.on_send = world.committer.end
        with capture_logs() as events:
            await world.committer.flush(10)
        retried = [one["reason"] for one in events if one["event"] == "commit_retried"]
        assert retried == ([repr(GONE)] if answer is GONE else [])
        dropped = [one for one in events if one["event"] == "commit_dropped"]
        assert [(one["reason"], one["partitions"]) for one in dropped] == [
            (reason, 2) for reason in reasons
        ]

    virtually(test)


def test_before_the_first_assignment_there_is_nothing_to_commit() -> None:
    async def test() -> None:
        world = World()
        world.committer = OffsetCommitter(
            SimpleNamespace(_coordinator=world.kafka), world.membership, world.link, world._note
        )
        world.committer.put({TP: 3})
        world.committer.lower(TP, 0)
        await world.committer.flush(10)
        world.committer.end()
        assert (world.offsets, world.stats.commits_dropped) == ([], 0)

    virtually(test)
