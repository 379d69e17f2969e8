"""What a batch takes: ``l(b) = α·b + β``, learnt at warm-up and from every batch since.

A member has such a model per device and shape; a tier's batch is decoded, then run by its members,
one after the other on one device and side by side on different ones.
"""

import threading
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol


class LatencyModel(Protocol):
    """What the batcher must know of the time that batches take."""

    @property
    def alpha(self) -> float:
        """Seconds that one image more takes."""

    @property
    def beta(self) -> float:
        """Seconds that a batch takes besides."""

    @property
    def margin(self) -> float:
        """Factor on a prediction: by how much batches differ from theirs (standard deviation)."""

    def predict(self, size: int) -> float:
        """Return the expected seconds for a batch of ``size``."""

    def preparing(self, size: int) -> float:
        """Return how much of that passes before it needs a device."""

    def largest_within(self, seconds: float, limit: int, wait: float = 0.0) -> int:
        """Return the largest batch up to ``limit`` that is done within ``seconds``; 0 if none.

        Args:
            seconds: From now.
            limit: Largest batch that is asked for.
            wait: Seconds until the device is free; decoding goes on meanwhile.
        """


class AffineLatency:
    """Running least-squares fit of ``l(b) = α·b + β`` over recent batches.

    Old batches fade by ``DECAY`` per batch, so that the fit follows a device that slows down.
    Batches of nearly one size do not tell α from β: they scale both, as soon as both are known.
    A single slow batch (a garbage collection, a page fault) counts as ``OUTLIER`` times what was
    expected at most.
    """

    DECAY = 0.98
    OUTLIER = 3.0
    # Share of the squared sizes that is their variance: 0.02 is a deviation of 14 %.
    SPREAD = 0.02
    # Of normal noise, the standard deviation over the mean absolute one. More than one of them is
    # not worth what it costs: `python -m roadstream.bench.batching` with 2.33 loses up to
    # a point of goodput.
    _MARGIN = 1.25
    _MOST_MARGIN = 1.5

    def __init__(self, alpha: float = 0.0, beta: float = 0.0) -> None:
        self.alpha, self.beta = alpha, beta
        self._n = self._x = self._y = self._xx = self._xy = 0.0
        self._deviation = 0.0
        self._told_apart = alpha > 0.0 and beta > 0.0

    @property
    def margin(self) -> float:
        """See ``LatencyModel``."""
        return min(1.0 + self._MARGIN * self._deviation, self._MOST_MARGIN)

    def observe(self, size: int, seconds: float) -> None:
        """Learn that a batch of ``size`` took ``seconds``."""
        expected = self.predict(size)
        if self._n and expected > 0.0:
            most = self.OUTLIER * expected
            self._learn_noise(min(seconds, most) / expected)
            seconds = min(seconds, most) if self._told_apart else seconds
        decay = self.DECAY
        self._n = decay * self._n + 1
        self._x = decay * self._x + size
        self._y = decay * self._y + seconds
        self._xx = decay * self._xx + size * size
        self._xy = decay * self._xy + size * seconds
        self._fit()

    def _learn_noise(self, ratio: float) -> None:
        self._deviation += (1 - self.DECAY) * (abs(ratio - 1.0) - self._deviation)

    def _fit(self) -> None:
        spread = self._n * self._xx - self._x * self._x
        least = 1e-9 if not self._told_apart else self.SPREAD
        if spread > least * self._n * self._xx:
            slope = (self._n * self._xy - self._x * self._y) / spread
            self.alpha = max(0.0, slope)
            self.beta = max(0.0, (self._y - self.alpha * self._x) / self._n)
            self._told_apart = spread > self.SPREAD * self._n * self._xx
            return
        expected = self.alpha * self._x + self.beta * self._n
        if self._told_apart and expected > 0.0:
            self.alpha *= self._y / expected
            self.beta *= self._y / expected
        else:
            self.alpha, self.beta = self._y / self._x, 0.0

    def predict(self, size: int) -> float:
        """Return the expected seconds for a batch of ``size``."""
        return self.alpha * size + self.beta

    def preparing(self, size: int) -> float:
        """See ``LatencyModel``: all of it is counted as time on the device."""
        return 0.0 * size

    def largest_within(self, seconds: float, limit: int, wait: float = 0.0) -> int:
        """See ``LatencyModel``."""
        return largest(self.alpha, self.beta, seconds - wait, limit)


def largest(alpha: float, beta: float, seconds: float, limit: int) -> int:
    """Return the largest batch up to ``limit`` with ``alpha·b + beta ≤ seconds``; 0 if none."""
    if alpha * limit + beta <= seconds:
        return limit
    room = seconds - beta
    return int(min(limit, room / alpha)) if room > 0.0 else 0


class Run(NamedTuple):
    """A member's run of a batch.

    Attributes:
        member: Its name.
        device: What it ran on.
        size: Pictures it was shown.
        seconds: What that took, without waiting for the device.
    """

    member: str
    device: str
    size: int
    seconds: float


class TierLatency:
    """What a tier's batches of one shape take: decoding, then its members on their devices.

    It is observed by the threads that judge, and asked by the event loop.

    Args:
        members: What each member is known to take, with its device; more may be observed.

    Attributes:
        decoding: What reading, decoding and preparing take.
    """

    def __init__(self, members: Mapping[str, tuple[str, AffineLatency]] | None = None) -> None:
        self.decoding = AffineLatency()
        self._members = dict(members or {})
        self._learning = threading.Lock()
        self._add_up()

    def _add_up(self) -> None:
        """Sum what the members of each device take, as they take turns on it.

        What is asked for is replaced whole, never changed.
        """
        sums: dict[str, tuple[float, float]] = {}
        for device, time in self._members.values():
            alpha, beta = sums.get(device, (0.0, 0.0))
            sums[device] = alpha + time.alpha, beta + time.beta
        self._devices = sums
        self._slowest = max(sums.values(), default=(0.0, 0.0))
        self._margin = max([time.margin for _, time in self._members.values()], default=1.0)

    @property
    def alpha(self) -> float:
        """See ``LatencyModel``."""
        return self._slowest[0] + self.decoding.alpha

    @property
    def beta(self) -> float:
        """See ``LatencyModel``."""
        return self._slowest[1] + self.decoding.beta

    @property
    def margin(self) -> float:
        """See ``LatencyModel``: that of the member whose time varies most."""
        return self._margin

    def observe(self, size: int, decoding: float, runs: Iterable[Run]) -> None:
        """Learn what a batch took.

        Args:
            size: Images in it.
            decoding: Seconds until its pictures were ready to be inferred.
            runs: What its members took; those that were shown nothing say nothing.
        """
        with self._learning:
            self.decoding.observe(size, decoding)
            for run in runs:
                if not run.size:
                    continue
                known = self._members.get(run.member)
                if known is None or known[0] != run.device:
                    known = self._members[run.member] = run.device, AffineLatency()
                known[1].observe(run.size, run.seconds)
            self._add_up()

    def predict(self, size: int) -> float:
        """Return the expected seconds for a batch of ``size``, decoding included."""
        return self.decoding.predict(size) + self.running(size)

    def preparing(self, size: int) -> float:
        """See ``LatencyModel``."""
        return self.decoding.predict(size)

    def running(self, size: int, device: str | None = None) -> float:
        """Return the expected seconds of that on ``device``, or on the slowest one."""
        if device is not None:
            alpha, beta = self._devices.get(device, (0.0, 0.0))
            return alpha * size + beta
        return max([alpha * size + beta for alpha, beta in self._devices.values()], default=0.0)

    def largest_within(self, seconds: float, limit: int, wait: float = 0.0) -> int:
        """See ``LatencyModel``."""
        decoding = self.decoding
        found = limit
        for alpha, beta in self._devices.values() or [(0.0, 0.0)]:
            whole = largest(alpha + decoding.alpha, beta + decoding.beta, seconds, found)
            found = whole if wait <= 0.0 else largest(alpha, beta, seconds - wait, whole)
        return found
