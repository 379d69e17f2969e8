"""What tiers take, as their workers tell on the topic ``cascades``. Pure."""

from collections.abc import Mapping
from typing import NamedTuple

from roadstream.schemas.records.claims import ServiceTime

# A worker tells once a minute: one that was not heard twice is gone, or knows no better.
AGED = 150.0
# Seconds for the answer: the consensus reads the votes, joins them and publishes.
MARGIN = 0.05
# Anybody may write to the topic.
MOST_WORKERS = 1000


class _Heard(NamedTuple):
    seconds: float
    told_at: float


class ServiceTimes:
    """Remembers what each worker of a tier has told last; the slowest of them counts.

    One thread hears, and any may ask.
    """

    def __init__(self) -> None:
        # Replaced whole, never changed, as others read it.
        self._heard: dict[tuple[str, str], _Heard] = {}

    def hear(self, told: ServiceTime, now: float) -> None:
        """Take note of what a worker told; ``now`` is wall clock."""
        if abs(now - told.told_at) >= AGED:
            return
        recent = {who: one for who, one in self._heard.items() if now - one.told_at < AGED}
        recent.pop((told.tier, told.worker), None)
        if len(recent) < MOST_WORKERS:
            recent[told.tier, told.worker] = _Heard(told.seconds, told.told_at)
        self._heard = recent

    def needed(self, now: float) -> Mapping[str, float]:
        """Return the seconds that an image takes from now until it is answered, by tier.

        Tiers of which nobody has told lately are not in it.
        """
        found: dict[str, float] = {}
        for (tier, _), one in self._heard.items():
            if abs(now - one.told_at) < AGED:
                found[tier] = max(found.get(tier, 0.0), one.seconds + MARGIN)
        return found
