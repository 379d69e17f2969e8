"""What an image with a deadline takes that is sent to a tier now, as its worker finds. Pure.

That is a high quantile of what such images took lately, from their record on the tier's topic until
their votes were on the log: who waits for them loses no more than one in ten that way. Without any,
the next one waits for a batch that runs, if there was one lately, and then takes a batch of one.
"""

import math
from collections import deque
from collections.abc import Iterable

QUANTILE = 0.9
# Seconds that count as lately: what is known of a burst is forgotten by then, and images that
# nobody sent any more meanwhile come again.
LATELY = 60.0
# More tell no more of a quantile.
MOST = 1000

# Changes by less than this share, or by less than so many seconds, are not worth telling.
CHANGE, LEAST_CHANGE = 0.25, 0.01
# Seconds between two changes that are told, and after which it is told again without one.
OFTEN, AGAIN = 10.0, 60.0


class _Lately:
    """Durations of late."""

    def __init__(self) -> None:
        self._found: deque[tuple[float, float]] = deque(maxlen=MOST)

    def add(self, now: float, seconds: float) -> None:
        self._found.append((now, seconds))

    def quantile(self, now: float) -> float | None:
        """Return the duration that so many of them do not exceed; ``None`` without any."""
        while self._found and self._found[0][0] <= now - LATELY:
            self._found.popleft()
        found = sorted(seconds for _, seconds in self._found)
        return found[math.ceil(QUANTILE * len(found)) - 1] if found else None


class ServiceTimeEstimate:
    """Learns what images with a deadline take at a tier; ``now`` is monotonic and in seconds."""

    def __init__(self) -> None:
        self._images, self._batches = _Lately(), _Lately()

    def observe(self, images: Iterable[float], batch: float, now: float) -> None:
        """Learn from a batch that has ended.

        Args:
            images: What each of its images with a deadline took, in seconds.
            batch: What it took itself; 0 if none of it was judged.
            now: The time.
        """
        for seconds in images:
            self._images.add(now, seconds)
        if batch > 0.0:
            self._batches.add(now, batch)

    def seconds(self, alone: float, now: float) -> float | None:
        """Return what an image takes that is sent now; ``None`` while nothing is known.

        Args:
            alone: What a batch of one is expected to take; 0 if that is not known.
            now: The time.
        """
        if (found := self._images.quantile(now)) is not None:
            return found
        return alone + (self._batches.quantile(now) or 0.0) if alone > 0.0 else None


class ToldTime:
    """What was told of a service time, and when it is worth telling again."""

    def __init__(self) -> None:
        self.seconds: float | None = None
        self._at = -math.inf

    def differs(self, seconds: float) -> bool:
        """Return whether it is another time than what was told."""
        told = self.seconds
        return told is None or abs(seconds - told) > max(CHANGE * told, LEAST_CHANGE)

    def is_due(self, seconds: float, now: float) -> bool:
        """Return whether it should be told now."""
        return now - self._at >= (OFTEN if self.differs(seconds) else AGAIN)

    def note(self, seconds: float, now: float) -> None:
        """Note that it is told."""
        self.seconds, self._at = seconds, now
