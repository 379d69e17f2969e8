"""Growing delays between tries of what has failed."""

import random
from collections.abc import Callable


def no_jitter() -> float:
    """Draw nothing: each delay of a ``Backoff`` with it is as long as its bound."""
    return 1.0


class Backoff:
    """Growing delays: each is drawn between half of a bound and the bound, which then doubles.

    The spread keeps processes that failed together from coming back together ("equal jitter",
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter).

    Args:
        first: First bound, in seconds.
        last: The bound stops growing here.
        draw: Returns a number from 0 to 1: how far from half of the bound to all of it.
    """

    def __init__(
        self, first: float, last: float, draw: Callable[[], float] = random.random
    ) -> None:
        self._first, self._last, self._draw = min(first, last), last, draw
        self._bound = self._first

    def next(self) -> float:
        """Return the next delay in seconds."""
        bound = self._bound
        self._bound = min(2 * bound, self._last)
        return bound * (1 + self._draw()) / 2

    def reset(self) -> None:
        """Begin again with the first bound."""
        self._bound = self._first
