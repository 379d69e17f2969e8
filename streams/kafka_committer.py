"""Commits offsets to Kafka beside the work: the latest wins, and none moves backwards."""

import anyio
import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaTopicPartition
from aiokafka.errors import (
    CommitFailedError,
    IllegalGenerationError,
    IllegalStateError,
    KafkaError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)

from streams.kafka_settings import KafkaSettings
from streams.log import Offsets, TopicPartition

log = structlog.get_logger(__name__)

_LOST = (
    CommitFailedError,
    IllegalGenerationError,
    IllegalStateError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)
"""The partitions have another owner by now, who does the work again: nothing to be done."""

_LONGEST_PAUSE = 2.0
"""Seconds between two tries while the coordinator of the group does not answer."""


class OffsetCommitter:
    """The only one who commits for a consumer. ``put`` is cheap; ``run`` does the waiting."""

    def __init__(self, client: AIOKafkaConsumer, settings: KafkaSettings) -> None:
        self._client, self._settings = client, settings
        self._pending: dict[TopicPartition, int] = {}
        self._floors: dict[TopicPartition, int] = {}
        self._dirty = anyio.Event()
        self._lock = anyio.Lock()

    def put(self, offsets: Offsets) -> None:
        """Note offsets to be committed soon; those below earlier ones are ignored."""
        for tp, offset in offsets.items():
            if offset > max(self._pending.get(tp, -1), self._floors.get(tp, -1)):
                self._pending[tp] = offset
        if self._pending:
            self._dirty.set()

    def forget(self) -> None:
        """Start anew after a rebalance: what is pending belongs to the next owner's work."""
        self._pending, self._floors = {}, {}

    async def run(self) -> None:
        """Commit whenever there is something new, for ever."""
        pause = self._settings.commit_interval
        while True:
            await self._dirty.wait()
            done = await self._commit()
            pause = self._settings.commit_interval if done else min(_LONGEST_PAUSE, pause * 2 + 0.1)
            await anyio.sleep(pause)

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
            batch, self._pending = self._pending, {}
            self._dirty = anyio.Event()
            floors = self._floors
            try:
                with anyio.fail_after(self._settings.request_timeout):
                    await self._learn_floors(batch, floors)
                    batch = {tp: at for tp, at in batch.items() if at > floors[tp]}
                    if batch:
                        await self._client.commit(_plain(batch))
            except _LOST as error:
                log.debug("commit_dropped", partitions=len(batch), reason=repr(error))
            except (KafkaError, OSError, TimeoutError) as error:
                log.warning("commit_retried", partitions=len(batch), reason=repr(error))
                if floors is self._floors:
                    self.put(batch)
                return False
            else:
                floors.update(batch)
            return True

    async def _learn_floors(
        self, batch: dict[TopicPartition, int], floors: dict[TopicPartition, int]
    ) -> None:
        """Ask once per assignment where the group stands, lest a commit step back behind it."""
        for tp in batch.keys() - floors.keys():
            floors[tp] = await self._client.committed(KafkaTopicPartition(*tp)) or 0


def _plain(offsets: dict[TopicPartition, int]) -> dict[KafkaTopicPartition, int]:
    return {KafkaTopicPartition(*tp): offset for tp, offset in offsets.items()}
