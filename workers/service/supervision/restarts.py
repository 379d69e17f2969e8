"""When a child process that died is started again, and when the fault is taken to be permanent."""

import msgspec

from roadstream.schemas.backoff import Backoff
from roadstream.schemas.errors import ChangedError, ReplacedError, UsageError
from roadstream.workers.service.lifecycle import Kind
from roadstream.workers.service.outage import FIRST_DELAY, LAST_DELAY

# Deaths in a row after which the fault is taken to be permanent.
MAX_DEATHS = 5
# A child that did its work for this long has started well.
SETTLED_AFTER = 30.0
# EX_TEMPFAIL of sysexits.h: what our processes exit with when their log does not answer.
TEMPORARY_STATUS = 75


class Death(msgspec.Struct, frozen=True):
    """How a child ended.

    Attributes:
        status: Its exit status; of a signal, the negative number.
        worked_for: Seconds for which it said that it did its work.
        progress: A number that grows with the work of all children.
    """

    status: int
    worked_for: float
    progress: int = 0


class Restarts:
    """Decides for one child, death by death.

    A *service* comes back: from signals (somebody's ``kill``, the kernel short of memory; after a
    SIGTERM the status is 0) and from outages for ever, from its own failures for ever once it has
    worked well. A *job* must end: five deaths in a row with no progress between them are the last.
    A member name that another process has is final for both; an outage counts for neither.

    Wrong usage is final for a child that has never worked. Later, its command line was right, and
    something around it has changed: a topic is gone, a settings file is broken. The others serve on
    and a person mends it, so a service tries again for ever. The same goes for weights that have
    changed, at any time: the others hold those that they were started with.

    Args:
        kind: What the children are for.
        backoff: Delays between starts; the first start after a death in good health is at once.
    """

    def __init__(self, kind: Kind, backoff: Backoff | None = None) -> None:
        self._kind, self._backoff = kind, backoff or Backoff(FIRST_DELAY, LAST_DELAY)
        self._deaths = 0
        self._progress = 0
        self._worked = self._settled = False
        self._at_once = True

    def after(self, death: Death) -> float | None:
        """Return the seconds after which to start the child again; ``None`` for never."""
        self._worked = self._worked or death.worked_for > 0
        wrong_usage = death.status == UsageError.exit_status and not self._worked
        if wrong_usage or death.status == ReplacedError.exit_status:
            return None
        if death.worked_for >= SETTLED_AFTER:
            self._deaths = 0
            self._settled = self._at_once = True
            self._backoff.reset()
        elif death.progress > self._progress:
            self._deaths = 0
        self._progress = death.progress
        if death.status == TEMPORARY_STATUS:
            return self._backoff.next()
        self._deaths += 1
        if self._deaths >= MAX_DEATHS and self._is_final(death):
            return None
        delay = 0.0 if self._at_once else self._backoff.next()
        self._at_once = False
        return delay

    def _is_final(self, death: Death) -> bool:
        if self._kind == "job":
            return True
        by_signal = death.status <= 0
        to_mend = death.status in (UsageError.exit_status, ChangedError.exit_status)
        return not (by_signal or to_mend or self._settled)
