"""Requests of a group's members that aiokafka knows only in versions without a member's own name.

Without ``group.instance.id`` in a heartbeat or a commit, a static member whose name somebody else
has taken hears that it is unknown, joins anew, and so takes the name back: for ever, in turn. Nor
can such a member leave. All versions here are Kafka 2.4's, the first with all of them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from aiokafka.coordinator.protocol import ConsumerProtocol
from aiokafka.errors import for_code
from aiokafka.protocol.types import Boolean, Bytes, Int16, Int32, Int64, Schema, String

from roadstream.streams.kafka.requests import VersionedRequest, many
from roadstream.streams.log import TopicPartition

FENCED = 82
"""``FENCED_INSTANCE_ID``: somebody else has joined the group under this member's name."""

_TEXT = String("utf-8")
_WHO = ("member_id", _TEXT), ("group_instance_id", _TEXT)
_GIVEN = ("metadata", Bytes), ("assignment", Bytes)
_OFFSET = ("partition", Int32), ("offset", Int64), ("leader_epoch", Int32), ("metadata", _TEXT)
_DONE = ("partition", Int32), ("error_code", Int16)


class NamedHeartbeat(
    VersionedRequest,
    key=12,
    version=3,
    question=Schema(
        ("group", _TEXT),
        ("generation_id", Int32),
        ("member_id", _TEXT),
        ("group_instance_id", _TEXT),
    ),
    answer=Schema(("throttle_time_ms", Int32), ("error_code", Int16)),
):
    """A heartbeat of a member; ``name`` is its static name, if it has one."""

    def __init__(self, group: str, generation: int, member_id: str, name: str | None) -> None:
        super().__init__(group, generation, member_id, name)


class NamedCommit(
    VersionedRequest,
    key=8,
    version=7,
    question=Schema(
        ("group", _TEXT),
        ("generation_id", Int32),
        ("member_id", _TEXT),
        ("group_instance_id", _TEXT),
        many("topics", ("topic", _TEXT), many("partitions", *_OFFSET)),
    ),
    answer=Schema(
        ("throttle_time_ms", Int32),
        many("topics", ("topic", _TEXT), many("partitions", *_DONE)),
    ),
):
    """A commit of a member; ``name`` is its static name, if it has one."""

    def __init__(
        self,
        group: str,
        generation: int,
        member_id: str,
        name: str | None,
        offsets: Mapping[str, Sequence[tuple[int, int]]],
    ) -> None:
        topics = [
            (topic, [(partition, at, -1, "") for partition, at in places])
            for topic, places in offsets.items()
        ]
        super().__init__(group, generation, member_id, name, topics)


class Leave(
    VersionedRequest,
    key=13,
    version=3,
    question=Schema(("group", _TEXT), many("members", *_WHO)),
    answer=Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        many("members", *_WHO, ("error_code", Int16)),
    ),
):
    """Takes a member out of its group at once, a static one too."""

    def __init__(self, group: str, member_id: str, name: str | None) -> None:
        super().__init__(group, [(member_id, name)])


class Describe(
    VersionedRequest,
    key=15,
    version=4,
    question=Schema(many("groups", _TEXT), ("include_authorized_operations", Boolean)),
    answer=Schema(
        ("throttle_time_ms", Int32),
        many(
            "groups",
            ("error_code", Int16),
            ("group", _TEXT),
            ("state", _TEXT),
            ("protocol_type", _TEXT),
            ("protocol", _TEXT),
            many("members", *_WHO, ("client_id", _TEXT), ("client_host", _TEXT), *_GIVEN),
            ("authorized_operations", Int32),
        ),
    ),
):
    """Asks a coordinator who is in a group; ``described_in`` reads the answer."""

    def __init__(self, group: str) -> None:
        super().__init__([group], True)


class DescribedMember(NamedTuple):
    """A member of a group, as its coordinator knows it.

    Attributes:
        member_id: Its id.
        name: Its static name, if it has one.
        client_id: What its client calls itself.
        host: Address from which it is connected.
        partitions: What it was given.
    """

    member_id: str
    name: str | None
    client_id: str
    host: str
    partitions: frozenset[TopicPartition]


class Group(NamedTuple):
    """A group, as its coordinator knows it.

    Attributes:
        state: ``Stable`` when nobody joins or leaves.
        members: Who is in it.
        operations: What this client may do with it, as bits; see ``rights.allows``.
    """

    state: str
    members: Sequence[DescribedMember]
    operations: int = 0

    @property
    def is_worked(self) -> bool:
        """Whether a member has partitions; while they are given out, whether there is a member."""
        if self.state != "Stable":
            return bool(self.members)
        return any(member.partitions for member in self.members)


def described_in(answer: Any) -> Group:
    """Return the group that an answer describes.

    Raises:
        KafkaError: The coordinator could not say.
    """
    error_code, _, state, _, _, members, operations = answer.groups[0]
    if error_code:
        raise for_code(error_code)()
    found = [
        DescribedMember(member_id, name, client_id, host.lstrip("/"), _partitions(assignment))
        for member_id, name, client_id, host, _, assignment in members
    ]
    return Group(state, found, operations)


def _partitions(assignment: bytes) -> frozenset[TopicPartition]:
    if not assignment:
        return frozenset()
    given = ConsumerProtocol.ASSIGNMENT.decode(assignment)
    return frozenset(TopicPartition(*tp) for tp in given.partitions())
