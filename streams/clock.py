"""Clocks: the system's, and one that tests move by hand."""

import time
from typing import Protocol


class Clock(Protocol):
    """Source of the current time, injected wherever a decision depends on it."""

    def now(self) -> float:
        """Return seconds since the epoch. It may step back: never assume it grows."""
        ...


class SystemClock:
    """Wall clock of this machine."""

    def now(self) -> float:
        """Return seconds since the epoch."""
        return time.time()


class ManualClock:
    """Clock that stands still until it is told to move."""

    def __init__(self, start: float = 1_000_000.0) -> None:
        self._now = start

    def now(self) -> float:
        """Return the time it was last moved to."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move by ``seconds``, which may be negative."""
        self._now += seconds
