"""When open images are due, on a wall clock that may step back and forth. Pure.

Deadlines are wall-clock times, since producer and consensus share no other clock. An image is due
when the wall clock says so, or when as much steady time has passed since its first votes came as it
had left then, whichever is first. So a step back postpones no answer beyond the time that was left,
and a step forward makes due what the clock now says is due: answering early, with the votes so far,
is the lesser harm. What comes after a step is measured by the clock as it then stands.
"""

import heapq
from collections.abc import Iterator
from math import inf


class _Heap:
    """Times with the images that are due then; entries whose image is due no more may lie in it."""

    # Entries that are due no more are let lie until they are more than all others, and so many.
    SLACK = 64

    def __init__(self) -> None:
        self._entries: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def push(self, at: float, image_id: str) -> None:
        heapq.heappush(self._entries, (at, image_id))

    def first(self, due: dict[str, float]) -> tuple[float, str] | None:
        """Return the earliest entry, having dropped those before it that are due no more."""
        entries = self._entries
        while entries:
            at, image_id = entries[0]
            if due.get(image_id) == at:
                return entries[0]
            heapq.heappop(entries)
        return None

    def trim(self, due: dict[str, float]) -> None:
        """Drop what is due no more, if that is most of it: a constant cost per image, in all."""
        if len(self._entries) > 2 * len(due) + self.SLACK:
            self._entries = [(at, image_id) for image_id, at in due.items()]
            heapq.heapify(self._entries)


class Deadlines:
    """Images with their deadlines, as long as they are open."""

    def __init__(self) -> None:
        self._by_wall, self._by_steady = _Heap(), _Heap()
        self._walls: dict[str, float] = {}
        self._steadies: dict[str, float] = {}
        # Wall clock minus steady clock, as last told; before that, the wall counts as steady.
        self._ahead = 0.0

    def __len__(self) -> int:
        """Return the number of images with a deadline."""
        return len(self._walls)

    def __contains__(self, image_id: str) -> bool:
        """Return whether an image has a deadline."""
        return image_id in self._walls

    @property
    def entries(self) -> int:
        """Number of entries held for them: at most a small multiple, and a constant besides."""
        return len(self._by_wall) + len(self._by_steady)

    def tick(self, now: float, steady: float) -> None:
        """Tell both clocks, in seconds: the wall, and one that never steps."""
        self._ahead = now - steady

    def push(self, deadline_at: float, image_id: str, now: float) -> None:
        """Note the deadline of an image whose first votes came now; one without end is none."""
        if not -inf < deadline_at < inf:
            return
        steady = max(now, deadline_at) - self._ahead
        self._walls[image_id], self._steadies[image_id] = deadline_at, steady
        self._by_wall.push(deadline_at, image_id)
        self._by_steady.push(steady, image_id)

    def discard(self, image_id: str) -> None:
        """Forget the deadline of an image that has its answer, if it had one."""
        if self._walls.pop(image_id, None) is None:
            return
        del self._steadies[image_id]
        self._by_wall.trim(self._walls)
        self._by_steady.trim(self._steadies)

    def pop(self, now: float) -> Iterator[str]:
        """Yield the images that are due, and forget their deadlines."""
        while (image_id := self._due(now)) is not None:
            self.discard(image_id)
            yield image_id

    def _due(self, now: float) -> str | None:
        first = self._by_wall.first(self._walls)
        if first is not None and first[0] <= now:
            return first[1]
        first = self._by_steady.first(self._steadies)
        return first[1] if first is not None and first[0] + self._ahead <= now else None

    @property
    def next_at(self) -> float | None:
        """The wall-clock time at which an image is due next; ``None`` if never."""
        by_wall = self._by_wall.first(self._walls)
        by_steady = self._by_steady.first(self._steadies)
        if by_wall is None or by_steady is None:
            return None
        return min(by_wall[0], by_steady[0] + self._ahead)
