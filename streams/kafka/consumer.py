"""A member of a Kafka consumer group.

aiokafka rebalances in a task of its own, at any moment. Here the task that polls carries out what
the coordinator says: partitions come and go only inside ``poll``, and the coordinator waits for it,
within one budget for giving up work.
"""

import math
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import cast

import anyio
import anyio.lowlevel
import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaTopicPartition
from aiokafka.errors import GroupLoadInProgressError, KafkaError, OffsetOutOfRangeError

from roadstream.schemas.errors import FencedError, LogUnavailableError, RegroupError
from roadstream.streams.kafka.client import UNREACHABLE, KafkaLink, answering
from roadstream.streams.kafka.committer import OffsetCommitter, Tenure
from roadstream.streams.kafka.group_offsets import CommittedRequest, committed_in
from roadstream.streams.kafka.membership import Membership
from roadstream.streams.kafka.positions import StartPosition, first_position, next_position
from roadstream.streams.kafka.producer import KafkaProducer
from roadstream.streams.kafka.rebalances import Grant, Rebalances
from roadstream.streams.log import (
    Assignment,
    Consumer,
    GroupListener,
    Offsets,
    Output,
    Polled,
    Record,
    TopicPartition,
)

log = structlog.get_logger(__name__)

_NOTHING = (KafkaTopicPartition("", -1),)
"""Asking for a partition that does not exist takes no record, yet counts as a sign of life."""

_GRACE = 1.0
"""Seconds a client call may outlast the timeout it was given."""

_PAUSE = 0.1
"""Seconds between two questions to a coordinator that cannot answer yet."""

_Found = Mapping[KafkaTopicPartition, Sequence[Record]]


class KafkaConsumer(Consumer):
    """See ``Consumer``. Offsets are committed shortly after the outputs, by one committer.

    Args:
        client: aiokafka's consumer, connected as a member of a group.
        producer: Publishes the outputs.
        link: Settings and counters.
        listener: Hears of partitions, commits and gaps.
        topics: In the order in which they deliver.
    """

    def __init__(
        self,
        client: AIOKafkaConsumer,
        producer: KafkaProducer,
        link: KafkaLink,
        listener: GroupListener | None,
        topics: Sequence[str],
    ) -> None:
        self._client, self._producer, self._link = client, producer, link
        self._listener = listener
        self.membership = Membership(client, link)
        self.committer = OffsetCommitter(client, self.membership, link, self._tell_committed)
        self.rebalances = Rebalances(self.committer, self.membership, link)
        # All but the last: what is at hand of them is taken first.
        self._first = [frozenset([topic]) for topic in topics[:-1]]
        self._assignment = Assignment(0, frozenset())
        self._held: frozenset[TopicPartition] = frozenset()
        self._names: dict[KafkaTopicPartition, TopicPartition] = {}
        self._choices: dict[frozenset[str] | None, tuple[KafkaTopicPartition, ...]] = {}
        self._fruitful_at = anyio.current_time()
        self._owed: dict[KafkaTopicPartition, int] = {}
        self._regroup: str | None = None

    @property
    def assignment(self) -> Assignment:
        """See ``Consumer.assignment``."""
        return self._assignment

    async def poll(
        self, *, max_records: int, timeout: float, topics: Collection[str] | None = None
    ) -> Polled:
        """See ``Consumer.poll``.

        Raises:
            ReplacedError: Another process has joined the group under this member's name.
        """
        await anyio.lowlevel.checkpoint()
        try:
            return await self._poll(max_records, timeout, topics)
        except LogUnavailableError:
            if self.membership.replaced:
                raise await self.membership.replacement() from None
            raise

    async def _poll(
        self, max_records: int, timeout: float, topics: Collection[str] | None
    ) -> Polled:
        until = anyio.current_time() + timeout
        wanted = None if topics is None else frozenset(topics)
        while True:
            if self.membership.replaced:
                raise await self.membership.replacement()
            if self._regroup is not None:
                raise RegroupError(f"{self._regroup}: the group is joined anew")
            await self._follow_group()
            left = max(0.0, until - anyio.current_time())
            found = await self._fetch(max_records, left, wanted)
            if found:
                self._bear_fruit()
                names = self._names
                return {names[tp]: records for tp, records in found.items()}
            if max_records == 0:
                self._bear_fruit()
                return {}
            if anyio.current_time() >= until:
                await self._check_alive(wanted)
                return {}

    def regroup(self, why: str) -> None:
        """Have the next poll raise ``RegroupError``."""
        self._regroup = why

    async def publish(self, outputs: Sequence[Output], commit: Offsets, epoch: int) -> None:
        """See ``Consumer.publish``."""

        def fence() -> None:
            if (why := self._stale(epoch)) is not None:
                self._link.stats.fenced += 1
                raise FencedError(
                    f"{self._client._group_id}: this member no longer owns what it commits: {why}"
                )

        if not outputs and not commit:
            return
        fence()
        await self._producer.publish(outputs, fence)
        now = self._assignment
        if commit and epoch == now.epoch:
            self.committer.put({tp: at for tp, at in commit.items() if tp in now.partitions})

    async def committed(self) -> Offsets:
        """See ``Consumer.committed``."""
        return await self._committed(self._assignment.partitions)

    async def leave(self, *, returning: bool) -> float:
        """Commit what is pending, let a rebalance that waits for us go on, and leave the group.

        Args:
            returning: Whether this process is about to join again: a static member stays, so that
                its partitions wait for it.

        Returns:
            The seconds that are left for disconnecting. All of it is one budget, a short one if
            the coordinator does not answer.
        """
        self.rebalances.held = False
        self.rebalances.given_up.set()
        budget = self._link.settings.stop_timeout
        if not self.membership.reachable:
            budget = min(budget, UNREACHABLE)
        until = anyio.current_time() + budget
        with anyio.move_on_after(budget):
            await self.committer.flush(budget)
            if returning:
                self.membership.stay()
            elif not await self.membership.leave():
                until = min(until, anyio.current_time() + UNREACHABLE)
        return max(0.0, until - anyio.current_time())

    def _stale(self, epoch: int) -> str | None:
        """Say why work of ``epoch`` belongs to somebody else; ``None`` if it does not."""
        if epoch != self._assignment.epoch:
            return f"epoch {epoch} has ended, it is {self._assignment.epoch}"
        if self.rebalances.lost:
            return "its time to give them up is over"
        return self.membership.refusal()

    def _tell_committed(self, offsets: Offsets) -> None:
        if self._listener is not None:
            self._listener.committed(offsets)

    async def _committed(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        coordinator = self._client._coordinator
        request = CommittedRequest(coordinator.group_id, partitions)
        with answering(self._link, name=coordinator.group_id):
            while True:
                await coordinator.ensure_coordinator_known()
                try:
                    return committed_in(await coordinator._send_req(request))
                except KafkaError as error:
                    if not error.retriable:
                        raise
                    if not isinstance(error, GroupLoadInProgressError):
                        coordinator.coordinator_dead()  # it may be another by now
                    await anyio.sleep(_PAUSE)

    async def _follow_group(self) -> None:
        """Carry out revocations and assignments that came since the last poll."""
        group = self.rebalances
        while True:
            if self._held and (group.moving or group.granted is not None):
                await self._give_up()
            elif group.granted is not None:
                await self._take(group.granted)
            else:
                return

    async def _give_up(self) -> None:
        group = self.rebalances
        held, self._held = self._held, frozenset()
        try:
            if self._listener is not None:
                with anyio.CancelScope(deadline=group.give_up_at):
                    await self._listener.revoked(held)
        finally:
            # Until here the old epoch may commit; the coordinator flushes that before it goes on.
            self._own(frozenset())
            group.held = False
            group.given_up.set()

    async def _take(self, grant: Grant) -> None:
        group = self.rebalances
        committed, starts = await self._find_positions(grant.partitions)
        if group.granted is not grant:
            return  # the group has moved on meanwhile
        group.granted, group.held, group.lost = None, bool(grant.partitions), False
        group.give_up_at = math.inf
        self.membership.begin(grant.identity)
        self.committer.begin(Tenure(grant.identity, committed))
        for tp, start in starts.items():
            self._go_to(tp, start.position)
            if start.fault is not None:  # or the next owner would be told of it again
                self.committer.put({tp: start.position})
        self._held = grant.partitions
        self._own(grant.partitions)
        log.info(
            "partitions_assigned", epoch=self._assignment.epoch, partitions=len(grant.partitions)
        )
        if self._listener is not None:
            await self._listener.assigned(grant.partitions)
        for tp, start in starts.items():
            self._report(tp, committed.get(tp, 0), start)

    async def _find_positions(
        self, partitions: frozenset[TopicPartition]
    ) -> tuple[dict[TopicPartition, int], dict[TopicPartition, StartPosition]]:
        """Return what the group has committed of these partitions, and where to start in each."""
        if not partitions:
            return {}, {}
        committed = await self._committed(partitions)
        with answering(self._link):
            found = await self._client.beginning_offsets(
                [KafkaTopicPartition(*tp) for tp in partitions]
            )
        oldest = {TopicPartition(*tp): at for tp, at in found.items()}
        return committed, {tp: first_position(committed.get(tp), oldest[tp]) for tp in partitions}

    def _go_to(self, tp: TopicPartition, position: int) -> None:
        """Read from there, keeping what aiokafka has fetched from there already."""
        target = KafkaTopicPartition(*tp)
        state = self._client._subscription.subscription.assignment.state_value(target)
        if not state.has_valid_position or state.position != position:
            self._client.seek(target, position)

    async def _resume(self, out_of_range: Mapping[KafkaTopicPartition, int]) -> None:
        """Go on with partitions whose position Kafka no longer has, or does not have yet."""
        epoch = self._assignment.epoch
        with answering(self._link):
            oldest = await self._client.beginning_offsets(list(out_of_range))
            ends = await self._client.end_offsets(list(out_of_range))
        for target, position in out_of_range.items():
            tp = TopicPartition(*target)
            if self.rebalances.moving or epoch != self._assignment.epoch:
                return
            start = next_position(position, oldest[target], ends[target])
            self._client.seek(target, start.position)
            self._report(tp, position, start)

    def _report(self, tp: TopicPartition, first: int, start: StartPosition) -> None:
        """Say aloud that records are gone."""
        oldest = start.position
        if start.fault == "missed":
            self._link.stats.records_missed += oldest - first
            if self._listener is not None:
                self._listener.missed(tp, first, oldest)
        elif start.fault == "beyond_end":
            self._link.stats.offsets_beyond_end += 1
            log.error("offset_beyond_end", topic=tp.topic, partition=tp.partition, first=first)
            self.committer.lower(tp, oldest)

    def _own(self, partitions: frozenset[TopicPartition]) -> None:
        self._assignment = Assignment(self._assignment.epoch + 1, partitions)
        self._names = {KafkaTopicPartition(*tp): tp for tp in partitions}
        self._choices = {None: tuple(self._names)}
        self._bear_fruit()

    def _bear_fruit(self) -> None:
        self._fruitful_at, self._owed = anyio.current_time(), {}

    async def _fetch(self, max_records: int, left: float, topics: frozenset[str] | None) -> _Found:
        """Take records that aiokafka has fetched, or wait for some, or for a rebalance.

        Even with nothing to take, ``getmany`` must be called: a member that does not for five
        minutes is put out of the group and could never come back (aiokafka#1187).
        """
        group, news = self.rebalances, self.rebalances.news
        choice = self._choose(topics)
        idle = group.moving or not choice
        left = left if max_records else 0.0
        try:
            with anyio.move_on_after(left if idle else left + _GRACE) as group.fetch:
                if idle or not max_records:
                    await self._client.getmany(*_NOTHING)
                    if idle:
                        await news.wait()
                    return {}
                found = await self._at_hand(max_records, topics)
                return found or cast(
                    "_Found",
                    await self._client.getmany(
                        *choice, timeout_ms=int(left * 1000), max_records=max_records
                    ),
                )
        except OffsetOutOfRangeError as error:
            await self._resume(error.args[0])
        except KafkaError as error:
            raise self._link.failed(error, "READ", self._client._group_id) from error
        finally:
            group.fetch = None
        return {}

    async def _at_hand(self, max_records: int, topics: frozenset[str] | None) -> _Found:
        """Take what has been fetched of the first topic that has anything, the last one aside."""
        for topic in self._first:
            choice = self._choose(topic) if topics is None or topic <= topics else ()
            found = await self._client.getmany(*choice, max_records=max_records) if choice else {}
            if found:
                return cast("_Found", found)
        return {}

    def _choose(self, topics: frozenset[str] | None) -> tuple[KafkaTopicPartition, ...]:
        choice = self._choices.get(topics)
        if choice is None:
            choice = tuple(tp for tp in self._names if topics is not None and tp.topic in topics)
            self._choices[topics] = choice
        return choice

    async def _check_alive(self, topics: frozenset[str] | None) -> None:
        """After a long time without records, ask Kafka whether there were none.

        When brokers are gone aiokafka retries in silence, and its fetching has been seen to end
        (aiokafka#1037, #1187).

        Raises:
            LogUnavailableError: Kafka does not answer, the group does not, or records of the last
                time never came.
        """
        settings, now = self._link.settings, anyio.current_time()
        if self.membership.silence >= settings.stall_timeout:
            raise self._link.unavailable("Kafka: the group's coordinator does not answer")
        if now - self._fruitful_at < settings.stall_timeout:
            return
        group = self.rebalances
        longest = settings.rebalance_timeout + settings.session_timeout + settings.stall_timeout
        if group.moving and time.monotonic() - group.moving_since > longest:
            raise self._link.unavailable("Kafka: the group does not come to rest")
        choice = () if group.moving else self._choose(topics)
        behind: dict[KafkaTopicPartition, int] = {}
        with answering(self._link):
            if choice:
                ends = await self._client.end_offsets(list(choice))
                positions = {tp: await self._client.position(tp) for tp in choice}
                behind = {tp: end for tp, end in ends.items() if positions[tp] < end}
            else:
                await self._client.topics()
        if self._owed.keys() & behind.keys():
            raise self._link.unavailable("Kafka: records exist, but none arrive")
        self._fruitful_at, self._owed = now, behind
