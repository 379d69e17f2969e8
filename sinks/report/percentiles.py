"""Percentiles of durations in bounded memory, whatever their number."""

import math

LEAST = 1e-6
"""Seconds; anything shorter counts as this."""
MOST = 1e6
"""Seconds (eleven days); anything longer counts as this."""
GROWTH = 1.02
"""Ratio of neighbouring buckets: a percentile is right within 1 %."""

_STEP = math.log(GROWTH)


class Durations:
    """Counts seconds in buckets that grow by 2 %, of which there are at most 1,400."""

    def __init__(self) -> None:
        self.count = 0
        self._buckets: dict[int, int] = {}

    def add(self, seconds: float) -> None:
        """Count one duration; negative ones, of clocks that disagree, count as the least."""
        within = seconds if LEAST < seconds < MOST else min(MOST, max(LEAST, seconds))
        place = round(math.log(within / LEAST) / _STEP)
        self._buckets[place] = self._buckets.get(place, 0) + 1
        self.count += 1

    def percentile(self, share: float) -> float:
        """Return the seconds that ``share`` (0 to 1) of the durations do not exceed.

        Raises:
            ValueError: Nothing was counted.
        """
        if not self.count:
            raise ValueError("no durations were counted")
        rank, passed = max(1, math.ceil(share * self.count)), 0
        for place in sorted(self._buckets):
            passed += self._buckets[place]
            if passed >= rank:
                return LEAST * math.exp(place * _STEP)
        raise AssertionError("ranks end within the count")
