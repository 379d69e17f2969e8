"""A set of offsets as intervals: millions of them in the room of their gaps. Pure."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator


class Intervals:
    """Offsets, kept as disjoint runs in ascending order.

    Adding at the end, as logs grow, costs constant time; elsewhere, time in the number of runs.
    """

    __slots__ = ("_firsts", "_lasts")

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []

    def __bool__(self) -> bool:
        """Return whether there is any offset in it."""
        return bool(self._firsts)

    def __contains__(self, offset: int) -> bool:
        """Return whether the offset is in it."""
        i = bisect_right(self._firsts, offset) - 1
        return i >= 0 and offset <= self._lasts[i]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield the runs, first and last offset, in ascending order."""
        return iter(zip(self._firsts, self._lasts, strict=True))

    @property
    def lowest(self) -> int | None:
        """The lowest offset; ``None`` if there is none."""
        return self._firsts[0] if self._firsts else None

    @property
    def highest(self) -> int | None:
        """The highest offset; ``None`` if there is none."""
        return self._lasts[-1] if self._lasts else None

    def add(self, first: int, last: int) -> None:
        """Add the offsets from ``first`` to ``last``, both included."""
        firsts, lasts = self._firsts, self._lasts
        if lasts and first == lasts[-1] + 1:
            lasts[-1] = last
            return
        i = bisect_left(lasts, first - 1)  # the first run that touches or follows
        j = bisect_right(firsts, last + 1)  # behind the last run that touches or precedes
        if i < j:
            first, last = min(first, firsts[i]), max(last, lasts[j - 1])
        firsts[i:j], lasts[i:j] = [first], [last]

    def remove(self, first: int, last: int) -> None:
        """Take out the offsets from ``first`` to ``last``, both included, where they are in it."""
        firsts, lasts = self._firsts, self._lasts
        i = bisect_left(lasts, first)
        j = bisect_right(firsts, last)
        if i >= j:
            return
        left = [(firsts[i], first - 1)] if firsts[i] < first else []
        right = [(last + 1, lasts[j - 1])] if lasts[j - 1] > last else []
        firsts[i:j] = [run[0] for run in left + right]
        lasts[i:j] = [run[1] for run in left + right]

    def gaps(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield the runs of ``[start, stop)`` that are not in it."""
        at = start
        for first, last in self:
            if first >= stop:
                break
            if first > at:
                yield at, first - 1
            at = max(at, last + 1)
        if at < stop:
            yield at, stop - 1
