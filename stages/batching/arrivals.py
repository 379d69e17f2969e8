"""What is known of the live images that come: how fast, and how tight their deadlines are."""

import math
from collections import deque


class Arrivals:
    """Remembers live arrivals of late."""

    # A live deadline counts as seen lately for so many seconds after its item came.
    MEMORY = 10.0
    # The rate is that of the last so many items, or of the last two deadlines if more came in them:
    # fewer tell little, and an older past tells nothing of a burst.
    ITEMS, BUDGETS = 30.0, 2.0
    # Budgets are taken for at least and at most so many seconds: no clock tells less apart, and
    # rates and windows that follow from them stay finite.
    LEAST, MOST = 1e-6, 1e9

    def __init__(self) -> None:
        # Budgets of live items as (until, budget), both growing: the first is the tightest.
        self._budgets: deque[tuple[float, float]] = deque()
        self._rate = 0.0
        self._at = self._since = -math.inf

    def note(self, budget: float, now: float) -> None:
        """Note a live item that has ``budget`` seconds left; one that is too late says nothing."""
        if not budget > 0.0:  # or is no number
            return
        budget = min(max(budget, self.LEAST), self.MOST)
        while self._budgets and self._budgets[-1][1] >= budget:
            self._budgets.pop()
        self._budgets.append((now + self.MEMORY, budget))
        if self._rate == 0.0:
            self._since = now
        window = self._window(now)
        self._rate = self._faded(now, window) + 1.0 / window
        self._at = now

    def _window(self, now: float) -> float:
        """Return the seconds in which the weight of an item fades to 1/e."""
        items = min(self.ITEMS / self._rate, now - self._since) if self._rate > 0.0 else 0.0
        return max(self.BUDGETS * self._budgets[0][1], items)

    def _faded(self, now: float, window: float) -> float:
        return self._rate * math.exp(min(0.0, self._at - now) / window)

    def rate(self, now: float) -> float:
        """Return the live items per second of late."""
        return self._faded(now, self._window(now)) if self.tightest(now) < math.inf else 0.0

    def tightest(self, now: float) -> float:
        """Return the shortest time that a live item of late had; infinity if there was none."""
        while self._budgets and self._budgets[0][0] < now:
            self._budgets.popleft()
        if not self._budgets:
            self._rate = 0.0
            return math.inf
        return self._budgets[0][1]
