"""Up to when all votes have been read that were on the log. Pure.

An image that waits for a tier for too long is answered without it. But where the consensus is
behind, the tier may have voted long ago, and its votes lie among those that are still to be read.
So it is noted once in a while where the votes end, and whoever was due by then is given up only
when these have been read.
"""

from collections.abc import Mapping
from math import inf

# Asking the log where its votes end costs about as much as a poll, on Kafka a connection.
ASKED_EVERY = 2.0


class Horizon:
    """What was on the log at some time, and how much of it has been read.

    Args:
        positions: Per partition owned, the offset that is read next.

    Attributes:
        until: Steady time, in seconds, until which all is known.
    """

    def __init__(self, positions: Mapping[int, int]) -> None:
        self._positions = dict(positions)
        self._ends: Mapping[int, int] | None = None
        self._asked_at = self.until = -inf

    def wants(self, due: float | None, steady: float) -> bool:
        """Return whether the log should be asked where votes end: somebody has waited so long."""
        if due is None or due > steady or self._ends is not None:
            return False
        return due > self.until and steady - self._asked_at >= ASKED_EVERY

    def mark(self, ends: Mapping[int, int], asked_at: float) -> None:
        """Note where the votes of each partition ended when the log was asked."""
        self._ends, self._asked_at = ends, asked_at
        self._look()

    def read(self, partition: int, offset: int) -> None:
        """Note a record that was taken in."""
        self._positions[partition] = offset + 1
        if self._ends is not None:
            self._look()

    def reached_end(self) -> None:
        """Note that the log had no more; its last offsets may hold no record."""
        if self._ends is not None:
            self._ends, self.until = None, self._asked_at

    def _look(self) -> None:
        ends = self._ends or {}
        if all(at >= ends.get(partition, 0) for partition, at in self._positions.items()):
            self.reached_end()
