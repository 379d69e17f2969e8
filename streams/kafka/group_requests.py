"""Requests of a group's members that aiokafka knows only in versions without a member's own name.

Without ``group.instance.id`` in a heartbeat or a commit, a static member whose name somebody else
has taken hears that it is unknown, joins anew, and so takes the name back: for ever, in turn. Nor
can such a member leave. All versions here are Kafka 2.4's, the first with all of them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from aiokafka.coordinator.protocol import ConsumerProtocol
from aiokafka.errors import for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Bytes, Int16, Int32, Int64, Schema, String

from roadstream.streams.log import TopicPartition

FENCED = 82
"""``FENCED_INSTANCE_ID``: somebody else has joined the group under this member's name."""

_TEXT = String("utf-8")


class _HeartbeatAnswer(Response):  # type: ignore[misc]  # aiokafka is untyped
    API_KEY, API_VERSION = 12, 3
    SCHEMA = Schema(("throttle_time_ms", Int32), ("error_code", Int16))


class _Heartbeat(RequestStruct):  # type: ignore[misc]  # aiokafka is untyped
    API_KEY, API_VERSION = 12, 3
    RESPONSE_TYPE: ClassVar[type[Response]] = _HeartbeatAnswer
    SCHEMA = Schema(
        ("group", _TEXT),
        ("generation_id", Int32),
        ("member_id", _TEXT),
        ("group_instance_id", _TEXT),
    )


class NamedHeartbeat(Request[_Heartbeat]):  # type: ignore[misc]  # aiokafka is untyped
    """A heartbeat of a member; ``name`` is its static name, if it has one."""

    API_KEY = 12

    def __init__(self, group: str, generation: int, member_id: str, name: str | None) -> None:
        self._fields = group, generation, member_id, name

    def build(self, request_struct_class: type[_Heartbeat]) -> _Heartbeat:
        """Return what goes over the wire; aiokafka calls this."""
        return request_struct_class(*self._fields)


class _CommitAnswer(Response):  # type: ignore[misc]  # aiokafka is untyped
    API_KEY, API_VERSION = 8, 7
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            Array(
                ("topic", _TEXT),
                ("partitions", Array(("partition", Int32), ("error_code", Int16))),
            ),
        ),
    )


class _Commit(RequestStruct):  # type: ignore[misc]  # aiokafka is untyped
    API_KEY, API_VERSION = 8, 7
    RESPONSE_TYPE: ClassVar[type[Response]] = _CommitAnswer
    SCHEMA = Schema(
        ("group", _TEXT),
        ("generation_id", Int32),
        ("member_id", _TEXT),
        ("group_instance_id", _TEXT),
        (
            "topics",
            Array(
                ("topic", _TEXT),
                (
                    "partitions",
                    Array(
                        ("partition", Int32),
                        ("offset", Int64),
                        ("leader_epoch", Int32),
                        ("metadata", _TEXT),
                    ),
                ),
            ),
        ),
    )


class NamedCommit(Request[_Commit]):  # type: ignore[misc]  # aiokafka is untyped
    """A commit of a member; ``name`` is its static name, if it has one."""

    API_KEY = 8

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
        self._fields = group, generation, member_id, name, topics

    def build(self, request_struct_class: type[_Commit]) -> _Commit:
        """Return what goes over the wire; aiokafka calls this."""
        return request_struct_class(*self._fields)


class _LeaveAnswer(Response):  # type: ignore[misc]  # aiokafka is untyped
    API_KEY, API_VERSION = 13, 3
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        (
            "members",
            Array(("member_id", _TEXT), ("group_instance_id", _TEXT), ("error_code", Int16)),
        ),
    )


class _Leave(RequestStruct):  # type: ignore[misc]  # aiokafka is untyped
    API_KEY, API_VERSION = 13, 3
    RESPONSE_TYPE: ClassVar[type[Response]] = _LeaveAnswer
    SCHEMA = Schema(
        ("group", _TEXT),
        ("members", Array(("member_id", _TEXT), ("group_instance_id", _TEXT))),
    )


class Leave(Request[_Leave]):  # type: ignore[misc]  # aiokafka is untyped
    """Takes a member out of its group at once, a static one too."""

    API_KEY = 13

    def __init__(self, group: str, member_id: str, name: str | None) -> None:
        self._fields = group, [(member_id, name)]

    def build(self, request_struct_class: type[_Leave]) -> _Leave:
        """Return what goes over the wire; aiokafka calls this."""
        return request_struct_class(*self._fields)


class _DescribeAnswer(Response):  # type: ignore[misc]  # aiokafka is untyped
    API_KEY, API_VERSION = 15, 4
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "groups",
            Array(
                ("error_code", Int16),
                ("group", _TEXT),
                ("state", _TEXT),
                ("protocol_type", _TEXT),
                ("protocol", _TEXT),
                (
                    "members",
                    Array(
                        ("member_id", _TEXT),
                        ("group_instance_id", _TEXT),
                        ("client_id", _TEXT),
                        ("client_host", _TEXT),
                        ("metadata", Bytes),
                        ("assignment", Bytes),
                    ),
                ),
                ("authorized_operations", Int32),
            ),
        ),
    )


class _Describe(RequestStruct):  # type: ignore[misc]  # aiokafka is untyped
    API_KEY, API_VERSION = 15, 4
    RESPONSE_TYPE: ClassVar[type[Response]] = _DescribeAnswer
    SCHEMA = Schema(("groups", Array(_TEXT)), ("include_authorized_operations", Boolean))


class Describe(Request[_Describe]):  # type: ignore[misc]  # aiokafka is untyped
    """Asks a coordinator who is in a group; ``described_in`` reads the answer."""

    API_KEY = 15

    def __init__(self, group: str) -> None:
        self._group = group

    def build(self, request_struct_class: type[_Describe]) -> _Describe:
        """Return what goes over the wire; aiokafka calls this."""
        return request_struct_class([self._group], True)


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
