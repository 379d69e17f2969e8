"""Circuit breakers: stop calling what keeps failing, and try it again after a growing pause. Pure.

One state machine, two reasons to open. A member's breaker opens after failures in a row on distinct
pictures; a tier's opens when too large a share of its last records failed. See M. Nygard, *Release
It!*, chapter "Circuit Breaker".
"""

from collections import deque
from collections.abc import Iterable
from typing import Literal

import msgspec

from roadstream.schemas.backoff import Backoff, no_jitter

State = Literal["closed", "open", "half_open"]
Event = Literal["trip", "try", "recover"]

_NEXT: dict[tuple[State, Event], State] = {
    ("closed", "trip"): "open",
    ("open", "try"): "half_open",
    ("half_open", "trip"): "open",
    ("half_open", "recover"): "closed",
}


class Cooldown(msgspec.Struct, frozen=True, kw_only=True):
    """How long a breaker stays open: ``first`` seconds, twice as long each time it reopens.

    Attributes:
        first: Seconds of the first pause.
        longest: Seconds beyond which pauses do not grow.
    """

    first: float = 5.0
    longest: float = 300.0


class Breaker:
    """Closed: work flows. Open: none does. Half-open: one trial decides, and nothing else runs.

    Times are seconds on a monotonic clock. A breaker that opens again before it stayed closed for
    as long as its last pause goes on where its pauses had grown to; else they start over.

    Attributes:
        state: What it is now.
        opened: Times that it opened.
        trials: Times that it let a trial through.
        retry_at: When it will let the next trial through: an open one, or a half-open one whose
            trial was never heard of again.
    """

    def __init__(self, cooldown: Cooldown | None = None) -> None:
        cooldown = cooldown or Cooldown()
        self._pauses = Backoff(cooldown.first, cooldown.longest, no_jitter)
        self.state: State = "closed"
        self.opened = self.trials = 0
        self.retry_at = 0.0
        self._pause = 0.0
        self._closed_at = float("-inf")

    def ready(self, now: float) -> bool:
        """Return whether ``allows`` would let work through; nothing changes."""
        return self.state == "closed" or now >= self.retry_at

    def allows(self, now: float) -> bool:
        """Return whether work may be begun, and take it as begun.

        One whose pause is over turns half-open and lets one trial through. The next waits for the
        outcome of that, or for as long as the pause if there is none.
        """
        if self.state == "closed":
            return True
        if now < self.retry_at:
            return False
        if self.state == "open":
            self._move("try")
        self.trials += 1
        self.retry_at = now + self._pause
        return True

    def undecided(self, now: float) -> None:
        """Note that a trial came to nothing that says how things stand; the next may begin."""
        if self.state == "half_open":
            self.retry_at = now

    def trip(self, now: float) -> None:
        """Open it. What is open already stays so: late news of old work changes nothing."""
        if self.state == "open":
            return
        if self.state == "closed" and now - self._closed_at >= self._pause:
            self._pauses.reset()
        self._pause = self._pauses.next()
        self._move("trip")
        self.opened += 1
        self.retry_at = now + self._pause

    def recover(self, now: float) -> None:
        """Close it after a trial that went well."""
        self._move("recover")
        self._closed_at = now

    def _move(self, event: Event) -> None:
        self.state = _NEXT[self.state, event]


class MemberPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When a member is taken out.

    A few pictures that break a model are no broken model, however often they come: only distinct
    pictures count, and one success in between starts the count anew.

    Attributes:
        pictures: Distinct pictures in a row on which it failed, without one success.
        batches: Batches in a row likewise; both must be reached.
        cooldown: How long it stays out.
    """

    pictures: int = 12
    batches: int = 3
    cooldown: Cooldown = Cooldown()


class MemberBreaker(Breaker):
    """Takes out a member that fails on everything. See ``MemberPolicy``.

    Attributes:
        skipped: Batches on which the member was not called.
    """

    def __init__(self, policy: MemberPolicy | None = None) -> None:
        self._policy = policy or MemberPolicy()
        super().__init__(self._policy.cooldown)
        self._failed: set[bytes | str] = set()
        self._batches = 0
        self.skipped = 0

    def allows(self, now: float) -> bool:
        """Return whether the member may be called for a batch."""
        if super().allows(now):
            return True
        self.skipped += 1
        return False

    def succeeded(self, now: float) -> None:
        """Note a batch with at least one score."""
        if self._batches:
            self._forget()
        if self.state == "half_open":
            self.recover(now)

    def failed(self, pictures: Iterable[bytes | str], now: float) -> None:
        """Note a batch without any score, by the identities of its pictures."""
        self._batches += 1
        if len(self._failed) < self._policy.pictures:
            self._failed.update(pictures)
        hopeless = (
            self._batches >= self._policy.batches and len(self._failed) >= self._policy.pictures
        )
        if hopeless or self.state == "half_open":
            self.trip(now)
            self._forget()

    def _forget(self) -> None:
        self._failed.clear()
        self._batches = 0


class SharePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When a tier is paused.

    Attributes:
        share: Share of failed records above which it is, in [0, 1].
        last: Records looked back on.
        least: Records below which nothing is concluded.
        cooldown: How long it pauses.
    """

    share: float = 0.5
    last: int = 100
    least: int = 20
    cooldown: Cooldown = Cooldown()


class ShareBreaker(Breaker):
    """Pauses a tier when too large a share of its last records failed. See ``SharePolicy``."""

    def __init__(self, policy: SharePolicy | None = None) -> None:
        self._policy = policy or SharePolicy()
        super().__init__(self._policy.cooldown)
        # Groups of records as (failed, all), oldest first, at least ``last`` records in all.
        self._groups: deque[tuple[int, int]] = deque()
        self._failed = self._all = 0

    def observe(self, failed: int, records: int, now: float) -> None:
        """Note that of so many ``records``, ``failed`` ended as dead letters."""
        if records <= 0:
            self.undecided(now)
        if records <= 0 or self.state == "open":
            return
        if self.state == "half_open":
            self._groups.clear()
            self._failed = self._all = 0
            if failed > self._policy.share * records:
                self.trip(now)
                return
            self.recover(now)
        self._groups.append((failed, records))
        self._failed += failed
        self._all += records
        while self._all - self._groups[0][1] >= self._policy.last:
            gone_failed, gone = self._groups.popleft()
            self._failed -= gone_failed
            self._all -= gone
        if self._all >= self._policy.least and self._failed > self._policy.share * self._all:
            self.trip(now)
