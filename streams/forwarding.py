"""A log that is another log, but for what a subclass says otherwise."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Self

from roadstream.streams.log import (
    Consumer,
    GroupListener,
    Log,
    Offsets,
    Producer,
    Reader,
    Right,
    Start,
    TopicFault,
    Uncommitted,
)


class ForwardingLog(Log):
    """Passes every call on; see ``Log`` for each.

    Args:
        inner: The log itself, not yet open.

    Attributes:
        inner: The log itself.
    """

    def __init__(self, inner: Log) -> None:
        self.inner = inner

    async def __aenter__(self) -> Self:
        await self.inner.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.inner.__aexit__(*exc_info)

    async def create_topics(self, topics: Collection[str], partitions: int) -> None:
        await self.inner.create_topics(topics, partitions)

    async def partition_counts(self, topics: Collection[str]) -> Mapping[str, int]:
        return await self.inner.partition_counts(topics)

    async def uncommitted(self, group: str, topics: Collection[str]) -> Uncommitted:
        return await self.inner.uncommitted(group, topics)

    async def committed(self, group: str, topics: Collection[str]) -> Offsets:
        return await self.inner.committed(group, topics)

    async def silence(self, group: str) -> float:
        return await self.inner.silence(group)

    async def identity(self) -> str:
        return await self.inner.identity()

    def real_name(self, name: str) -> str:
        return self.inner.real_name(name)

    async def commit(self, group: str, offsets: Offsets) -> None:
        await self.inner.commit(group, offsets)

    async def trim(self, topics: Collection[str], group: str) -> None:
        await self.inner.trim(topics, group)

    async def compact(self, topic: str, key: bytes) -> None:
        await self.inner.compact(topic, key)

    async def topic_faults(self, topics: Collection[str]) -> Sequence[TopicFault]:
        return await self.inner.topic_faults(topics)

    async def check_rights(self, rights: Collection[Right]) -> None:
        await self.inner.check_rights(rights)

    def producer(self) -> AbstractAsyncContextManager[Producer]:
        return self.inner.producer()

    def consumer(
        self,
        group: str,
        topics: Collection[str],
        *,
        listener: GroupListener | None = None,
        member_id: str | None = None,
    ) -> AbstractAsyncContextManager[Consumer]:
        return self.inner.consumer(group, topics, listener=listener, member_id=member_id)

    def reader(
        self, topic: str, start: Start | Mapping[int, int]
    ) -> AbstractAsyncContextManager[Reader]:
        return self.inner.reader(topic, start)
