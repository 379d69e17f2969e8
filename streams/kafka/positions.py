"""Where a group member starts to read, and what it does about records that are gone."""

from typing import Literal, NamedTuple

Fault = Literal["missed", "beyond_end"]


class StartPosition(NamedTuple):
    """Where to go on in a partition.

    Attributes:
        position: Offset to be read next.
        fault: ``missed`` when retention took records that the group had not committed,
            ``beyond_end`` when the partition ends before what the group has read.
    """

    position: int
    fault: Fault | None = None


def first_position(committed: int | None, oldest: int) -> StartPosition:
    """Return where a group starts that stands at ``committed``; at the oldest if nowhere yet."""
    if committed is None:
        return StartPosition(oldest)
    return StartPosition(oldest, "missed") if committed < oldest else StartPosition(committed)


def next_position(position: int, oldest: int, end: int) -> StartPosition:
    """Return where to go on when Kafka has said that ``position`` is out of range.

    A partition that ends before it was made anew, or has lost records: going on from its end could
    skip records, so it is read from the oldest one, and answers known already are not given again.
    """
    if position < oldest:
        return StartPosition(oldest, "missed")
    return StartPosition(oldest, "beyond_end") if position > end else StartPosition(position)
