"""When an engine's process is started, put to sleep, woken, stopped and started anew. Pure.

::

    off ─start→ starting ─ran→ up ─sleep→ falling_asleep ─slept→ asleep ─wake→ waking ─woke→ up
                               up ─stop→ stopping                        (any) ─ended→ off
"""

from typing import Literal

import msgspec

from roadstream.stages.breaker import Breaker, Cooldown

State = Literal["off", "starting", "up", "falling_asleep", "asleep", "waking", "stopping"]
Action = Literal["start", "sleep", "stop", "wake"]
Event = Literal["start", "ran", "sleep", "slept", "wake", "woke", "stop"]

_NEXT: dict[tuple[State, Event], State] = {
    ("off", "start"): "starting",
    ("starting", "ran"): "up",
    ("up", "sleep"): "falling_asleep",
    ("falling_asleep", "slept"): "asleep",
    ("asleep", "wake"): "waking",
    ("waking", "woke"): "up",
    ("up", "stop"): "stopping",
}

RESTARTS = Cooldown(first=1.0, longest=60.0)


class IdleOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How an engine is kept.

    Attributes:
        idle_after: Seconds unused after which it gives its device back; ``None`` for never.
        restarts: Pauses before it is started anew after it died.
    """

    idle_after: float | None = None
    restarts: Cooldown = RESTARTS


class IdlePolicy:
    """Decides what is to be done with the engine. Times are seconds on a monotonic clock.

    An engine that dies is started anew as long as somebody has wanted it since it last went to
    sleep or was stopped.

    Attributes:
        state: What it is now.
        can_sleep: Whether it can sleep; one that cannot is stopped.
        why: What ended it last; empty if nothing did.
    """

    def __init__(self, options: IdleOptions) -> None:
        self._options = options
        self._breaker = Breaker(options.restarts)
        self.state: State = "off"
        self.can_sleep = False
        self.why = ""
        self._wanted = False
        self._users = 0
        self._used_at = 0.0

    @property
    def ailing(self) -> bool:
        """Whether it died and has not run again since, so that waiting for it is no use."""
        return self._breaker.state != "closed"

    def want(self) -> None:
        """Somebody waits for it."""
        self._wanted = True

    def enter(self) -> None:
        """Somebody uses it from now on."""
        self._users += 1

    def leave(self, now: float) -> None:
        """Somebody has used it."""
        self._users -= 1
        self._used_at = now

    def due(self, now: float) -> Action | None:
        """Return what is to be done now, and take it as begun."""
        action = self._due(now)
        if action is not None:
            self._move(action)
        if action in ("sleep", "stop"):
            self._wanted = False
        return action

    def pause(self, now: float) -> float | None:
        """Return seconds after which something may be due though nothing happens by then."""
        if self.state == "off" and self._wanted:
            return max(0.0, self._breaker.retry_at - now)
        idle_after = self._options.idle_after
        if self.state == "up" and not self._users and idle_after is not None:
            return max(0.0, self._used_at + idle_after - now)
        return None

    def _due(self, now: float) -> Action | None:
        if self.state == "off" and self._wanted:
            return "start" if self._breaker.allows(now) else None
        if self.state == "asleep" and self._wanted:
            return "wake"
        idle_after = self._options.idle_after
        if self.state != "up" or self._users or idle_after is None:
            return None
        if now - self._used_at < idle_after:
            return None
        return "sleep" if self.can_sleep else "stop"

    def ran(self, now: float) -> None:
        """It runs."""
        self._move("ran")
        self._used_at = now
        if self._breaker.state == "half_open":
            self._breaker.recover(now)

    def slept(self) -> None:
        """It sleeps."""
        self._move("slept")

    def woke(self, now: float) -> None:
        """It is awake."""
        self._move("woke")
        self._used_at = now

    def ended(self, now: float, why: str) -> None:
        """Its process has ended, asked to or not."""
        if self.state != "stopping":
            self._breaker.trip(now)
            self.why = why
        self.state = "off"

    def _move(self, event: Event) -> None:
        self.state = _NEXT[self.state, event]
