"""Reads a topic of Kafka without a group."""

from collections.abc import Mapping

import anyio
import anyio.lowlevel
from aiokafka import AIOKafkaConsumer

from roadstream.streams.kafka.client import KafkaLink, answering
from roadstream.streams.log import Polled, Reader, TopicPartition

_CHECK_INTERVAL = 1.0
"""Seconds between two questions whether nothing came because there is nothing."""


class KafkaReader(Reader):
    """See ``Reader``. It sees an outage: aiokafka itself would return nothing, for ever."""

    def __init__(
        self, client: AIOKafkaConsumer, link: KafkaLink, positions: dict[int, int]
    ) -> None:
        self._client, self._link, self._positions = client, link, positions
        self._checked_at = self._moved_at = anyio.current_time()

    @property
    def positions(self) -> Mapping[int, int]:
        """See ``Reader.positions``."""
        return dict(self._positions)

    async def poll(self, *, max_records: int, timeout: float) -> Polled:
        """See ``Reader.poll``.

        Raises:
            LogUnavailableError: Kafka does not answer, or records exist that never come.
        """
        await anyio.lowlevel.checkpoint()
        if max_records <= 0:
            return {}
        with answering(self._link, timeout, operation="READ"):
            found = await self._client.getmany(
                timeout_ms=int(timeout * 1000), max_records=max_records
            )
            before = dict(self._positions)
            for tp in self._client.assignment():
                self._positions[tp.partition] = await self._client.position(tp)
        now = anyio.current_time()
        if found or self._positions != before:
            self._checked_at = self._moved_at = now
        elif now - self._checked_at >= _CHECK_INTERVAL:
            await self._check_alive()
        return {TopicPartition(*tp): records for tp, records in found.items()}

    async def ends(self) -> Mapping[int, int]:
        """See ``Reader.ends``."""
        with answering(self._link):
            ends = await self._client.end_offsets(list(self._client.assignment()))
        return {tp.partition: end for tp, end in ends.items()}

    async def _check_alive(self) -> None:
        ends = await self.ends()
        self._checked_at = now = anyio.current_time()
        if all(self._positions[partition] >= end for partition, end in ends.items()):
            self._moved_at = now
        elif now - self._moved_at >= self._link.settings.stall_timeout:
            raise self._link.unavailable("Kafka: records exist, but none arrive")
