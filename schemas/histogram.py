"""A histogram of fixed buckets: one addition per observation, read by whoever shows metrics."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence

# Upper bounds in seconds. From the shortest wait worth telling apart to the longest deadline.
LATENCY_BOUNDS = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    *(1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 300.0),
)
# Upper bounds in seconds of what nobody waits for: from a second to a month.
ARCHIVE_BOUNDS = (
    *(1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 10800.0),
    *(21600.0, 43200.0, 86400.0, 259200.0, 604800.0, 2592000.0),
)
# Upper bounds of probabilities. Calibrated ones gather at both ends, so there they are finer.
PROBABILITY_BOUNDS = (
    *(0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5),
    *(0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 1.0),
)
# Upper bounds in images of a batch.
SIZE_BOUNDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)


class Histogram:
    """Counts observations by bucket.

    One thread observes; others may read at any time and then see a count or a sum that is one
    observation ahead of the other.

    Args:
        bounds: Upper bounds of the buckets, ascending, each included; one more bucket has no bound.
    """

    def __init__(self, bounds: Sequence[float] = LATENCY_BOUNDS) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count a value, ``times`` over."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    @property
    def count(self) -> int:
        """Number of observations."""
        return sum(self.counts)

    def cumulative(self) -> Iterator[tuple[str, int]]:
        """Yield the bound of each bucket as Prometheus writes it, and the count up to it."""
        total = 0
        for bound, count in zip((*self.bounds, float("inf")), list(self.counts), strict=True):
            total += count
            yield ("+Inf" if bound == float("inf") else repr(bound)), total
