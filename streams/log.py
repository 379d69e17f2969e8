"""The port to a partitioned, replayable log: what a producer, consumer and reader promise.

Three implementations live beside it: ``embedded`` (SQLite), ``kafka``, ``memory`` (the test kit).
One contract suite, ``tests/streams/test_log_contract.py``, runs on all three.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal, NamedTuple, Protocol

from roadstream.schemas.records.headers import Headers

Start = Literal["beginning", "end"]
Operation = Literal["READ", "WRITE", "CREATE", "DESCRIBE", "DESCRIBE_CONFIGS", "IDEMPOTENT_WRITE"]
"""As Kafka names them. READ and WRITE include DESCRIBE."""

Resource = Literal["topic", "group", "cluster"]


class Right(NamedTuple):
    """A right that a client has or lacks."""

    operation: Operation
    resource: Resource
    name: str

    def __str__(self) -> str:
        """Say it as Kafka's own messages and ``kafka-acls`` do."""
        return f"{self.operation} on {self.resource} {self.name}".rstrip()


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int


RecordId = tuple[TopicPartition, int]
"""Which record of a log: its partition and offset."""


def record_name(record: RecordId) -> str:
    """Return which record is meant, as people write it: ``votes[3]@17``."""
    (topic, partition), offset = record
    return f"{topic}[{partition}]@{offset}"


class Record(Protocol):
    """A record as it is read. Implementations may hand out their client's own objects."""

    @property
    def offset(self) -> int:
        """Position in its partition. Offsets grow; gaps are normal."""

    @property
    def key(self) -> bytes | None:
        """Key, or ``None``."""

    @property
    def value(self) -> bytes | None:
        """Value; ``None`` is a tombstone that no Roadstream record uses."""

    @property
    def timestamp(self) -> int:
        """Milliseconds since the epoch at which it was appended, as Kafka counts."""

    @property
    def headers(self) -> Headers:
        """Its headers, as they were sent: in their order, with repeated names and null values."""


class Output(NamedTuple):
    """A record to be appended. Without a ``partition``, the key's hash chooses one."""

    topic: str
    key: bytes | None
    value: bytes
    partition: int | None = None
    headers: Headers = ()


class Assignment(NamedTuple):
    """What a consumer owns. ``epoch`` grows with every change, so that stale work is known."""

    epoch: int
    partitions: frozenset[TopicPartition]


Offsets = Mapping[TopicPartition, int]
Uncommitted = Mapping[TopicPartition, range]

Harm = Literal["loses", "refuses", "risks"]
"""Of a topic: it loses records for certain, refuses some, or puts some at risk."""


class TopicFault(NamedTuple):
    """Something about a topic that costs records, or may.

    Attributes:
        topic: Its name on the log itself.
        key: Of what about it.
        expected: What would be right.
        got: What it is.
        mend: The command that mends it.
        harm: How bad it is.
    """

    topic: str
    key: str
    expected: str
    got: str
    mend: str
    harm: Harm

    def __str__(self) -> str:
        """Say it in a line."""
        return (
            f"{self.topic}: {self.key}: expected {self.expected}, got {self.got}; "
            f"mend it with `{self.mend}`"
        )


def in_topic_order(
    positions: Mapping[TopicPartition, int], topics: Sequence[str]
) -> list[tuple[TopicPartition, int]]:
    """Return positions by topic, in the order of ``topics``, and within a topic as they come."""
    if len(topics) == 1:
        return list(positions.items())
    rank = {topic: i for i, topic in enumerate(topics)}
    return sorted(positions.items(), key=lambda item: rank[item[0].topic])


Polled = Mapping[TopicPartition, Sequence[Record]]


class GroupListener(Protocol):
    """Hears what becomes of a consumer's membership. The consumer awaits the first two."""

    async def revoked(self, partitions: Collection[TopicPartition]) -> None:
        """Finish or drop work on these partitions; what is not committed when this returns is lost
        to the next owner, who does it again. The consumer bounds how long it waits.
        """

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        """Prepare for these partitions; no record of them is delivered before this returns."""

    def committed(self, offsets: Offsets) -> None:
        """The log has acknowledged these offsets of the group."""

    def missed(self, tp: TopicPartition, first: int, oldest: int) -> None:
        """Records from ``first`` up to ``oldest`` are gone, and the group never committed them.

        Retention was faster than the group. The consumer goes on from ``oldest``. Until the group
        has committed past it, its next owner may be told again.
        """


class Producer(ABC):
    """Appends records that stem from outside the log. Open it with ``async with``."""

    @abstractmethod
    async def publish(self, outputs: Sequence[Output]) -> None:
        """Append records; when this returns, the log has acknowledged every one.

        Order is kept within a partition. On an error any part may have been appended, so a caller
        that tries again can repeat records, never lose them.

        Raises:
            LogUnavailableError: The log did not acknowledge in time.
            RecordRefusedError: Some records are too large for their topic, and are named; all
                others are acknowledged.
            ForbiddenError: The log does not allow it.
            OutputError: The log cannot take the records (disk full).
        """


class Consumer(ABC):
    """A member of a consumer group. Open it with ``async with``; leaving it leaves the group.

    Delivery is at least once: a record is delivered again to whoever owns its partition until an
    offset past it is committed. Within a partition, records arrive in order of offset.
    """

    @property
    @abstractmethod
    def assignment(self) -> Assignment:
        """The partitions owned now; empty until the first ``poll`` returns."""

    @abstractmethod
    async def poll(
        self, *, max_records: int, timeout: float, topics: Collection[str] | None = None
    ) -> Polled:
        """Return up to ``max_records`` new records, waiting ``timeout`` seconds for the first.

        Calling it also keeps the membership alive, so call it at least every second, with
        ``max_records=0`` when no work is wanted. ``topics`` limits which of the subscribed topics
        may deliver this time. Records come only from partitions in ``assignment``. Topics deliver
        in the order of their subscription: a later one what an earlier one leaves room for.

        Raises:
            LogUnavailableError: The log does not answer.
            ReplacedError: Another process has joined the group under this member's name.
        """

    @abstractmethod
    async def publish(self, outputs: Sequence[Output], commit: Offsets, epoch: int) -> None:
        """Append ``outputs``, then commit the offsets in ``commit`` for this group.

        When it returns, the outputs are acknowledged. The offsets are committed atomically with
        them where the log can (embedded, memory), else soon after and never before (Kafka; leaving
        the consumer commits the rest); the listener hears of it. Offsets name the next record to
        read. A commit never moves an offset backwards.

        Raises:
            FencedError: The epoch is stale, or this member was silent for so long that its group
                may have given its partitions away; nothing was appended.
            LogUnavailableError: Not acknowledged in time; the outputs may or may not be there.
            RecordRefusedError: Some outputs are too large for their topic, and are named; all
                others are acknowledged, and nothing is committed.
            ForbiddenError: The log does not allow it.
            OutputError: The log cannot take the outputs (disk full).
        """

    @abstractmethod
    async def committed(self) -> Offsets:
        """Return this group's committed offsets of the partitions owned now; absent if none."""


class Reader(ABC):
    """Reads a topic without a group: every partition, from chosen positions. Use ``async with``."""

    @property
    @abstractmethod
    def positions(self) -> Mapping[int, int]:
        """Next offset to be read, per partition."""

    @abstractmethod
    async def poll(self, *, max_records: int, timeout: float) -> Polled:
        """Return up to ``max_records`` records, waiting up to ``timeout`` seconds for the first."""

    @abstractmethod
    async def ends(self) -> Mapping[int, int]:
        """Return the offset after the last record, per partition."""


class Log(ABC):
    """A log holding topics. Open it with ``async with``."""

    @abstractmethod
    async def create_topics(self, topics: Collection[str], partitions: int) -> None:
        """Create the topics that do not exist yet; existing ones are left as they are."""

    @abstractmethod
    async def partition_counts(self, topics: Collection[str]) -> Mapping[str, int]:
        """Return the number of partitions of each topic that exists."""

    @abstractmethod
    async def uncommitted(self, group: str, topics: Collection[str]) -> Uncommitted:
        """Return which offsets of each partition of these topics the group has not committed yet.

        Raises:
            LogUnavailableError: The log does not answer.
        """

    async def lag(self, group: str, topics: Collection[str]) -> int:
        """Return how many records of these topics the group has not committed yet; raises so."""
        return sum(map(len, (await self.uncommitted(group, topics)).values()))

    @abstractmethod
    async def committed(self, group: str, topics: Collection[str]) -> Offsets:
        """Return what a group has committed on these topics, by whichever member; absent if none.

        For those who look on from outside the group.
        """

    @abstractmethod
    async def silence(self, group: str) -> float:
        """Return for how many seconds no member of a group has polled; infinity if it has none.

        No clock that can be set matters. A member that leaves is none from then on. The log notes
        polls only so often, so the answer may be too large by as much: an eighth of the session
        timeout (embedded). Kafka does not tell when somebody polled, only who is in the group: the
        answer is 0 or infinity, and who dies, hangs, or leaves to come back is in it until its
        session timeout is over.

        Raises:
            ForbiddenError: This client may not ask.
            LogUnavailableError: The log does not answer, or takes nothing: then nobody can poll.
        """

    @abstractmethod
    async def identity(self) -> str:
        """Return what tells this log from every other, by whatever address it is reached.

        A log that is deleted and made again, in the same file or elsewhere, has another one.

        Raises:
            LogUnavailableError: The log does not answer.
        """

    def real_name(self, name: str) -> str:
        """Return what a topic or group is called on the log itself, with any namespace."""
        return name

    @abstractmethod
    async def commit(self, group: str, offsets: Offsets) -> None:
        """Say for a group that has no members yet where it begins.

        Raises:
            LogUnavailableError: The log does not answer, or the group has members.
        """

    async def trim(self, topics: Collection[str], group: str) -> None:
        """Let go of the records that ``group`` has committed past.

        Only where the log leaves that to its users (embedded); Kafka has retention of its own.
        """
        return

    async def compact(self, topic: str, key: bytes) -> None:
        """Let go of the records of a topic that have this key, but the last in each partition.

        Only where the log leaves that to its users (embedded); Kafka compacts by itself.
        """
        return

    async def topic_faults(self, topics: Collection[str]) -> Sequence[TopicFault]:
        """Return what is wrong with those of the topics that exist, the worst first.

        Only where topics have settings of their own (Kafka).

        Raises:
            ForbiddenError: This client may not ask.
            LogUnavailableError: The log does not answer.
        """
        return []

    async def check_rights(self, rights: Collection[Right]) -> None:
        """Check that this client has rights, before it needs them.

        Only where clients have rights (Kafka). Topics that do not exist are passed over.

        Raises:
            ForbiddenError: Some are missing; it names all of them.
            LogUnavailableError: The log does not answer.
        """
        return

    @abstractmethod
    def producer(self) -> AbstractAsyncContextManager[Producer]:
        """Open a producer."""

    @abstractmethod
    def consumer(
        self,
        group: str,
        topics: Collection[str],
        *,
        listener: GroupListener | None = None,
        member_id: str | None = None,
    ) -> AbstractAsyncContextManager[Consumer]:
        """Join ``group`` for ``topics``, which must have equal partition counts.

        A partition number belongs to one member in all the topics at once. A group without
        committed offsets starts at the beginning. ``member_id`` makes the membership static: a
        process that comes back under it takes its partitions at once, and one that still runs under
        it ends. Leaving gives the partitions to the others at once; only who leaves by an error of
        the log stays, to come back.
        """

    @abstractmethod
    def reader(
        self, topic: str, start: Start | Mapping[int, int]
    ) -> AbstractAsyncContextManager[Reader]:
        """Read ``topic`` from its beginning, its end, or given offsets per partition.

        A partition without an offset is read from its beginning. An offset below the oldest record
        means the oldest, and one beyond the end means the end: a log that was put back to an older
        state goes on from there.
        """

    @abstractmethod
    async def __aenter__(self) -> "Log":
        """Connect."""

    @abstractmethod
    async def __aexit__(self, *exc_info: object) -> None:
        """Disconnect; bounded in time even when the log is gone."""
