"""What a process notes in its event ledger, so that ``roadstream verify`` can tell what happened.

One JSON object a line, in the order in which it happened in that process; its last fields are the
number of the line and a checksum of what stands before it (``streams/ledgers/event_ledger.py``).
``at`` is the wall clock, in seconds since the epoch, as the process found it at its start: later
steps do not show. A place in the log is ``[topic, partition, offset]``; a range of offsets
``[topic, partition, first, last]``, both ends included.
"""

from typing import Literal

import msgspec

from roadstream.schemas.records.bounds import Count, ImageId, Offset, Partition, Time, Word

Role = Literal["producer", "worker", "consensus"]
RecordOffset = tuple[Word, Partition, Offset]
Range = tuple[Word, Partition, Offset, Offset]


class _Event(msgspec.Struct, frozen=True, tag_field="event", gc=False):
    at: Time


class Opened(_Event, frozen=True, tag="opened", gc=False):
    """A process, or one group member of it, starts its ledger.

    Attributes:
        at: As in all events.
        role: What it is.
        group: Consumer group; empty for a producer.
        member: Its name in the group.
        pid: Process.
        host: Host name.
        boot: Identity of the host since it was started; empty if it has none.
        clock: ``at`` less this is the host's monotonic clock, which puts the events of all
            processes of one boot in order whatever happens to the wall clock.
        log: Identity of the log that it works on; empty in ledgers of older versions.
    """

    role: Role
    group: Word
    member: Word
    pid: Count
    host: Word
    boot: Word = ""
    clock: Time = 0.0
    log: Word = ""


class Acknowledged(_Event, frozen=True, tag="acknowledged", gc=False):
    """The log has acknowledged these images of a producer."""

    ids: list[ImageId]


class Assigned(_Event, frozen=True, tag="assigned", gc=False):
    """A member was given partitions; where its group stood on each (−1: nothing committed yet)."""

    epoch: Count
    committed: list[RecordOffset]


class Revoked(_Event, frozen=True, tag="revoked", gc=False):
    """A member has given up the partitions of this epoch."""

    epoch: Count


class Delivered(_Event, frozen=True, tag="delivered", gc=False):
    """A poll brought these records."""

    epoch: Count
    ranges: list[Range]


class Done(_Event, frozen=True, tag="done", gc=False):
    """The outputs of these records were acknowledged."""

    epoch: Count
    ranges: list[Range]


class Committed(_Event, frozen=True, tag="committed", gc=False):
    """The log has acknowledged these offsets of the group; each names the next record to read."""

    offsets: list[RecordOffset]


class Fenced(_Event, frozen=True, tag="fenced", gc=False):
    """Work of this epoch was refused: its partitions have another owner by now."""

    epoch: Count


class Missed(_Event, frozen=True, tag="missed", gc=False):
    """Retention took records from ``first`` up to ``oldest`` that were never committed."""

    topic: Word
    partition: Partition
    first: Offset
    oldest: Offset


class Closed(_Event, frozen=True, tag="closed", gc=False):
    """The process ended in order; a ledger without it ends in a crash, or is still written."""


Event = (
    Opened
    | Acknowledged
    | Assigned
    | Revoked
    | Delivered
    | Done
    | Committed
    | Fenced
    | Missed
    | Closed
)
