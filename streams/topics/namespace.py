"""Another log's topics and groups under a name of their own: ``NAME.`` before each.

Two systems on one cluster then share nothing, and whatever uses this log knows plain names only.
Errors of the log itself tell the real ones, which is what a person finds on the cluster.
"""

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache

from roadstream.schemas.errors import UsageError
from roadstream.streams.forwarding import ForwardingLog
from roadstream.streams.log import (
    Assignment,
    Consumer,
    GroupListener,
    Log,
    Offsets,
    Output,
    Polled,
    Producer,
    Reader,
    Right,
    Start,
    TopicFault,
    TopicPartition,
    Uncommitted,
)

_MOST = 64
# With these, a topic of the namespace could be one of a system without a namespace, as
# ``tier.images.live`` is the topic of a tier called ``images``; the others would only confuse.
_TAKEN = frozenset({"tier", "images", "votes", "answers", "dead-letters", "cascades", "roadstream"})


def check_namespace(name: str) -> str:
    """Return a namespace that Kafka allows, and under which no topic is another system's.

    Raises:
        UsageError: It is none.
    """
    plain = name.replace("-", "").replace("_", "")
    if not (name.isascii() and plain.isalnum() and name[0].isalnum() and len(name) <= _MOST):
        raise UsageError(
            f"--namespace: expected a letter or digit, then up to {_MOST - 1} letters, digits, "
            f"'-' or '_', got {name!r}"
        )
    if name.lower() in _TAKEN:
        raise UsageError(f"--namespace: expected a name other than {', '.join(sorted(_TAKEN))}")
    return name


class Names:
    """Translates topics and groups; what it has met once costs a look-up.

    Args:
        namespace: Stands before every name, with a dot.
    """

    def __init__(self, namespace: str) -> None:
        self.prefix = f"{namespace}."
        self.outer: Callable[[str], str] = cache(lambda name: self.prefix + name)
        self.outside: Callable[[TopicPartition], TopicPartition] = cache(
            lambda tp: TopicPartition(self.prefix + tp.topic, tp.partition)
        )
        self.inside: Callable[[TopicPartition], TopicPartition] = cache(
            lambda tp: TopicPartition(tp.topic.removeprefix(self.prefix), tp.partition)
        )

    def outputs(self, outputs: Sequence[Output]) -> list[Output]:
        """Return outputs for the log itself."""
        outer = self.outer
        return [Output(outer(o.topic), o.key, o.value, o.partition, o.headers) for o in outputs]

    def given(self, offsets: Offsets) -> dict[TopicPartition, int]:
        """Return offsets for the log itself."""
        return {self.outside(tp): at for tp, at in offsets.items()}

    def told(self, offsets: Offsets) -> dict[TopicPartition, int]:
        """Return offsets as the log's user knows them."""
        return {self.inside(tp): at for tp, at in offsets.items()}

    def polled(self, polled: Polled) -> Polled:
        """Return records by the partitions that the log's user knows."""
        return {self.inside(tp): records for tp, records in polled.items()}


class NamespacedLog(ForwardingLog):
    """A log seen from within a namespace.

    Args:
        inner: The log itself, not yet open.
        namespace: As ``check_namespace`` allows it.
    """

    def __init__(self, inner: Log, namespace: str) -> None:
        super().__init__(inner)
        self.namespace = check_namespace(namespace)
        self._names = Names(namespace)

    async def identity(self) -> str:
        """See ``Log.identity``: each namespace is a log of its own."""
        return f"{await self.inner.identity()}/{self.namespace}"

    async def create_topics(self, topics: Collection[str], partitions: int) -> None:
        """See ``Log.create_topics``."""
        await self.inner.create_topics([self._names.outer(t) for t in topics], partitions)

    async def partition_counts(self, topics: Collection[str]) -> Mapping[str, int]:
        """See ``Log.partition_counts``."""
        found = await self.inner.partition_counts([self._names.outer(t) for t in topics])
        return {name.removeprefix(self._names.prefix): count for name, count in found.items()}

    async def uncommitted(self, group: str, topics: Collection[str]) -> Uncommitted:
        """See ``Log.uncommitted``."""
        outer = self._names.outer
        found = await self.inner.uncommitted(outer(group), [outer(t) for t in topics])
        return {self._names.inside(tp): left for tp, left in found.items()}

    async def committed(self, group: str, topics: Collection[str]) -> Offsets:
        """See ``Log.committed``."""
        outer = self._names.outer
        found = await self.inner.committed(outer(group), [outer(t) for t in topics])
        return self._names.told(found)

    async def silence(self, group: str) -> float:
        """See ``Log.silence``."""
        return await self.inner.silence(self._names.outer(group))

    async def topic_faults(self, topics: Collection[str]) -> Sequence[TopicFault]:
        """See ``Log.topic_faults``."""
        return await self.inner.topic_faults([self._names.outer(t) for t in topics])

    async def check_rights(self, rights: Collection[Right]) -> None:
        """See ``Log.check_rights``."""
        outer = self._names.outer
        await self.inner.check_rights([right._replace(name=outer(right.name)) for right in rights])

    def real_name(self, name: str) -> str:
        """See ``Log.real_name``."""
        return self._names.outer(name)

    async def commit(self, group: str, offsets: Offsets) -> None:
        """See ``Log.commit``."""
        await self.inner.commit(self._names.outer(group), self._names.given(offsets))

    async def trim(self, topics: Collection[str], group: str) -> None:
        """See ``Log.trim``."""
        outer = self._names.outer
        await self.inner.trim([outer(t) for t in topics], outer(group))

    async def compact(self, topic: str, key: bytes) -> None:
        """See ``Log.compact``."""
        await self.inner.compact(self._names.outer(topic), key)

    def producer(self) -> AbstractAsyncContextManager[Producer]:
        """See ``Log.producer``."""
        return self._producer()

    @asynccontextmanager
    async def _producer(self) -> AsyncIterator[Producer]:
        async with self.inner.producer() as producer:
            yield _Producer(producer, self._names)

    def consumer(
        self,
        group: str,
        topics: Collection[str],
        *,
        listener: GroupListener | None = None,
        member_id: str | None = None,
    ) -> AbstractAsyncContextManager[Consumer]:
        """See ``Log.consumer``."""
        return self._consumer(group, topics, listener, member_id)

    @asynccontextmanager
    async def _consumer(
        self,
        group: str,
        topics: Collection[str],
        listener: GroupListener | None,
        member_id: str | None,
    ) -> AsyncIterator[Consumer]:
        outer = self._names.outer
        hearing = None if listener is None else _Listener(listener, self._names)
        async with self.inner.consumer(
            outer(group), [outer(t) for t in topics], listener=hearing, member_id=member_id
        ) as consumer:
            yield _Consumer(consumer, self._names)

    def reader(
        self, topic: str, start: Start | Mapping[int, int]
    ) -> AbstractAsyncContextManager[Reader]:
        """See ``Log.reader``."""
        return self._reader(topic, start)

    @asynccontextmanager
    async def _reader(self, topic: str, start: Start | Mapping[int, int]) -> AsyncIterator[Reader]:
        async with self.inner.reader(self._names.outer(topic), start) as reader:
            yield _Reader(reader, self._names)


class _Producer(Producer):
    def __init__(self, inner: Producer, names: Names) -> None:
        self._inner, self._names = inner, names

    async def publish(self, outputs: Sequence[Output]) -> None:
        await self._inner.publish(self._names.outputs(outputs))


class _Reader(Reader):
    def __init__(self, inner: Reader, names: Names) -> None:
        self._inner, self._names = inner, names

    @property
    def positions(self) -> Mapping[int, int]:
        return self._inner.positions

    async def poll(self, *, max_records: int, timeout: float) -> Polled:
        polled = await self._inner.poll(max_records=max_records, timeout=timeout)
        return self._names.polled(polled)

    async def ends(self) -> Mapping[int, int]:
        return await self._inner.ends()


class _Consumer(Consumer):
    def __init__(self, inner: Consumer, names: Names) -> None:
        self._inner, self._names = inner, names
        self._seen: tuple[Assignment | None, Assignment] = None, Assignment(0, frozenset())

    @property
    def assignment(self) -> Assignment:
        now = self._inner.assignment
        if now is not self._seen[0]:
            told = Assignment(now.epoch, frozenset(map(self._names.inside, now.partitions)))
            self._seen = now, told
        return self._seen[1]

    async def poll(
        self, *, max_records: int, timeout: float, topics: Collection[str] | None = None
    ) -> Polled:
        wanted = None if topics is None else [self._names.outer(t) for t in topics]
        polled = await self._inner.poll(max_records=max_records, timeout=timeout, topics=wanted)
        return self._names.polled(polled)

    async def publish(self, outputs: Sequence[Output], commit: Offsets, epoch: int) -> None:
        await self._inner.publish(self._names.outputs(outputs), self._names.given(commit), epoch)

    async def committed(self) -> Offsets:
        return self._names.told(await self._inner.committed())


class _Listener(GroupListener):
    def __init__(self, inner: GroupListener, names: Names) -> None:
        self._inner, self._names = inner, names

    async def revoked(self, partitions: Collection[TopicPartition]) -> None:
        await self._inner.revoked(frozenset(map(self._names.inside, partitions)))

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        await self._inner.assigned(frozenset(map(self._names.inside, partitions)))

    def committed(self, offsets: Offsets) -> None:
        self._inner.committed(self._names.told(offsets))

    def missed(self, tp: TopicPartition, first: int, oldest: int) -> None:
        self._inner.missed(self._names.inside(tp), first, oldest)
