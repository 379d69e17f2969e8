"""When open images are due, on a wall clock that may step back and forth. Pure.

Deadlines are wall-clock times, since producer and consensus share no other clock. An image is due
when the wall clock says so, or when as much steady time has passed since its first votes came as it
had left then, whichever is first. So a step back postpones no answer beyond the time that was left,
and a step forward makes due what the clock now says is due: answering early, with the votes so far,
is the lesser harm. What comes after a step is measured by the clock as it then stands.
"""

import heapq
from collections.abc import Iterator


class Deadlines:
    """Images with their deadlines. One may be popped twice: the caller knows what is open."""

    def __init__(self) -> None:
        self._by_wall: list[tuple[float, str]] = []
        self._by_steady: list[tuple[float, str]] = []
        # Wall clock minus steady clock, as last told; before that, the wall counts as steady.
        self._ahead = 0.0

    def tick(self, now: float, steady: float) -> None:
        """Tell both clocks, in seconds: the wall, and one that never steps."""
        self._ahead = now - steady

    def push(self, deadline_at: float, image_id: str, now: float) -> None:
        """Note the deadline of an image whose first votes came now."""
        heapq.heappush(self._by_wall, (deadline_at, image_id))
        heapq.heappush(self._by_steady, (max(now, deadline_at) - self._ahead, image_id))

    def pop(self, now: float) -> Iterator[str]:
        """Yield the images that are due, each once per clock that says so."""
        while self._by_wall and self._by_wall[0][0] <= now:
            yield heapq.heappop(self._by_wall)[1]
        while self._by_steady and self._by_steady[0][0] + self._ahead <= now:
            yield heapq.heappop(self._by_steady)[1]

    @property
    def next_at(self) -> float | None:
        """The wall-clock time at which an image is due next; ``None`` if never."""
        if not (self._by_wall and self._by_steady):
            return None  # what is left on one of them was due on the other
        return min(self._by_wall[0][0], self._by_steady[0][0] + self._ahead)
