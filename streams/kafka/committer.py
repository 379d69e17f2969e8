"""Commits offsets to Kafka beside the work: the latest wins, and none moves backwards.

A commit carries the generation in which its partitions were assigned, however late it is sent or
sent again. aiokafka's own carries the newest one, so that a commit which a rebalance delayed could
overwrite the next owner's.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import structlog
from aiokafka.errors import KafkaError, for_code

from roadstream.schemas.backoff import Backoff, no_jitter
from roadstream.streams.kafka.client import KafkaLink
from roadstream.streams.kafka.group_requests import FENCED, NamedCommit
from roadstream.streams.kafka.membership import Identity, Membership
from roadstream.streams.log import Offsets, TopicPartition

log = structlog.get_logger(__name__)

_ELSEWHERE = frozenset({7, 15, 16})
"""Codes after which the group's coordinator must be looked for again."""

_UNKNOWN = frozenset({22, 25})
"""``ILLEGAL_GENERATION`` and ``UNKNOWN_MEMBER_ID``: the group has moved on without us."""

_REBALANCING = 27
"""``REBALANCE_IN_PROGRESS``: the group waits for us to join again."""

_LONGEST_PAUSE = 2.0
"""Seconds between two tries while the coordinator of the group does not answer."""


class Tenure:
    """What may be committed during one assignment.

    What has been sent stays pending until Kafka has answered: an earlier offset that comes
    meanwhile must not be sent after it, since Kafka keeps the last one and not the highest.

    Args:
        identity: Generation and member id under which the partitions were assigned.
        floors: Offset per partition at which the group stands; only later ones are committed.

    Attributes:
        pending: What is to be committed, or has been sent and not been acknowledged.
    """

    def __init__(self, identity: Identity, floors: Mapping[TopicPartition, int]) -> None:
        self.identity, self._floors = identity, dict(floors)
        self.pending: dict[TopicPartition, int] = {}

    def put(self, offsets: Offsets) -> None:
        """Note offsets to be committed soon; those not above earlier ones are ignored."""
        for tp, offset in offsets.items():
            if offset > max(self.pending.get(tp, -1), self._floors.get(tp, -1)):
                self.pending[tp] = offset

    def acknowledged(self, offsets: Offsets) -> None:
        """Note that the group stands there now."""
        for tp, offset in offsets.items():
            if self.pending.get(tp, -1) >= offset:  # unless it was lowered meanwhile
                self._floors[tp] = offset
            self.forget({tp: offset})

    def forget(self, offsets: Offsets) -> None:
        """Give up committing these, unless there are later ones by now."""
        for tp, offset in offsets.items():
            if self.pending.get(tp) == offset:
                del self.pending[tp]

    def lower(self, tp: TopicPartition, offset: int) -> None:
        """Let commits go back to ``offset``."""
        self._floors[tp] = offset
        self.pending.pop(tp, None)


class OffsetCommitter:
    """The only one who commits for a consumer. ``put`` is cheap; ``run`` does the waiting.

    Args:
        client: aiokafka's consumer, connected as a member of a group.
        membership: Its standing in the group.
        link: Settings and counters.
        acknowledged: Called with the offsets of each commit that Kafka acknowledged.
    """

    def __init__(
        self,
        client: Any,
        membership: Membership,
        link: KafkaLink,
        acknowledged: Callable[[Offsets], None],
    ) -> None:
        self._coordinator, self._membership, self._link = client._coordinator, membership, link
        self._acknowledged = acknowledged
        self._tenure: Tenure | None = None
        self._dirty = anyio.Event()
        self._lock = anyio.Lock()

    def begin(self, tenure: Tenure) -> None:
        """Start to commit for a new assignment."""
        self._tenure = tenure

    def put(self, offsets: Offsets) -> None:
        """Note offsets of the assignment to be committed soon."""
        if self._tenure is not None:
            self._tenure.put(offsets)
            if self._tenure.pending:
                self._dirty.set()

    def lower(self, tp: TopicPartition, offset: int) -> None:
        """Let commits go back to ``offset``: the partition is shorter than the group knew it."""
        if self._tenure is not None:
            self._tenure.lower(tp, offset)

    def end(self) -> None:
        """Forget what is pending: the work it stands for is the next owner's."""
        if self._tenure is not None and self._tenure.pending:
            self._drop(self._tenure.pending, "the partitions were given up")
        self._tenure = None

    async def run(self) -> None:
        """Commit whenever there is something new, for ever."""
        interval = self._link.settings.commit_interval
        again = Backoff(2 * interval + 0.1, _LONGEST_PAUSE, no_jitter)
        while True:
            await self._dirty.wait()
            done = await self._commit()
            if done:
                again.reset()
            await anyio.sleep(interval if done else again.next())

    async def flush(self, budget: float) -> None:
        """Commit what is pending or under way, within ``budget`` seconds."""
        with anyio.move_on_after(budget):
            done = False
            while not done:
                done = await self._commit()
                await anyio.sleep(0 if done else 0.1)

    async def _commit(self) -> bool:
        """Commit what is pending; ``False`` when it must be tried again."""
        async with self._lock:
            tenure = self._tenure
            if self._dirty.is_set():  # else ``run`` waits for this very event, for ever
                self._dirty = anyio.Event()
            if tenure is None or not tenure.pending:
                return True
            batch = tenure.pending.copy()
            try:
                with anyio.fail_after(self._link.settings.request_timeout):
                    await self._coordinator.ensure_coordinator_known()
                    codes = await self._send(tenure.identity, batch)
            except (KafkaError, OSError, TimeoutError) as error:
                return self._retry(tenure, batch, repr(error))
            return self._settle(tenure, batch, codes)

    async def _send(
        self, identity: Identity, batch: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, int]:
        """Send a commit under this identity; return Kafka's code per partition, 0 if it is fine."""
        topics: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for tp, offset in batch.items():
            topics[tp.topic].append((tp.partition, offset))
        name = self._membership.name
        request = NamedCommit(self._coordinator.group_id, *identity, name, topics)
        response = await self._coordinator._send_req(request)
        return {
            TopicPartition(topic, partition): code
            for topic, partitions in response.topics
            for partition, code in partitions
        }

    def _settle(
        self, tenure: Tenure, batch: dict[TopicPartition, int], codes: dict[TopicPartition, int]
    ) -> bool:
        """Note what was acknowledged, drop what the group refused, keep the rest for later."""
        fine = {tp: offset for tp, offset in batch.items() if codes[tp] == 0}
        if fine:
            tenure.acknowledged(fine)
            self._link.stats.commits += 1
            self._acknowledged(fine)
        wrong = {code for code in codes.values() if code}
        if not wrong:
            return True
        rest = {tp: offset for tp, offset in batch.items() if tp not in fine}
        if FENCED in wrong:
            self._membership.replace()
            tenure.forget(rest)
            self._drop(rest, "another process has this member's name")
            return True
        if wrong & (_UNKNOWN | {_REBALANCING}):
            self._join_again(tenure, unknown=bool(wrong & _UNKNOWN))
            tenure.forget(rest)
            self._drop(rest, _names(wrong))
            return True
        if wrong & _ELSEWHERE:
            self._coordinator.coordinator_dead()
        return self._retry(tenure, rest, _names(wrong))

    def _join_again(self, tenure: Tenure, *, unknown: bool) -> None:
        coordinator = self._coordinator
        if tenure.identity != (coordinator.generation, coordinator.member_id):
            return  # it has done so already
        if unknown:
            coordinator.reset_generation()
        else:
            coordinator.request_rejoin()

    def _retry(self, tenure: Tenure, batch: dict[TopicPartition, int], reason: str) -> bool:
        self._link.stats.commit_failures += 1
        log.warning("commit_retried", partitions=len(batch), reason=reason)
        if tenure is not self._tenure:
            self._drop(batch, "the partitions were given up")
            return True
        self._dirty.set()  # it is pending still
        return False

    def _drop(self, batch: Mapping[TopicPartition, int], reason: str) -> None:
        self._link.stats.commits_dropped += 1
        log.info("commit_dropped", partitions=len(batch), reason=reason)


def _names(codes: set[int]) -> str:
    return ", ".join(for_code(code).__name__ for code in sorted(codes))
