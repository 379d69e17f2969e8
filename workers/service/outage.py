"""Runs a part of a process again, in place, each time its log or its disk has failed it.

An outage must not cost the models: loading and warming them takes longer than most outages last.
"""

import time
from collections.abc import Awaitable, Callable, Iterator

import anyio
import structlog

from roadstream.schemas.backoff import Backoff
from roadstream.schemas.errors import (
    ForbiddenError,
    LogUnavailableError,
    MachineError,
    OutputError,
    RunError,
)

logger = structlog.get_logger()
FIRST_DELAY, LAST_DELAY = 0.5, 15.0
# Until a person grants a right or raises a limit, asking more often helps nobody.
MENDING_DELAY = 15.0
# An outage is told of when it begins, when its reason changes, and then once in so many seconds;
# one that only a person can end is not told of again.
TOLD_AGAIN = 60.0
# A part that has worked for this long since its last failure has got over it.
SETTLED_AFTER = 10.0

Work = Callable[[anyio.Event], Awaitable[None]]
# What passes by itself: a broker comes back, a lock is let go of, somebody makes room on the disk,
# another process gives back its files.
PASSING = (LogUnavailableError, OutputError, MachineError)


class Persistent:
    """Runs a part until it is to stop, through any number of outages.

    Args:
        name: The part, in logs and metrics.
        worked_at: Returns when the part last worked, on the monotonic clock; 0 if it never did.
        passing: Errors that are waited out. Others end the run.
        patience: Seconds without any work after which an error is not waited out; ``None`` for no
            limit.
        backoff: Delays between tries.
        done_at: Returns when work was last done, where a part can turn without doing any: it is
            down until then. By default ``worked_at``.
    """

    def __init__(
        self,
        name: str,
        worked_at: Callable[[], float],
        *,
        passing: tuple[type[RunError], ...] = PASSING,
        patience: float | None = None,
        backoff: Backoff | None = None,
        done_at: Callable[[], float] | None = None,
    ) -> None:
        self.name, self.worked_at = name, worked_at
        self._done_at = done_at or worked_at
        self._told, self._told_at = "", 0.0
        self._passing, self._patience = passing, patience
        self._backoff = backoff or Backoff(FIRST_DELAY, LAST_DELAY)
        self.failures = 0
        self.last_error = ""
        self._failed_at: float | None = None
        self._down_since = 0.0

    def down_for(self, now: float) -> float | None:
        """Return for how many seconds it has been failing; ``None`` while it works."""
        if self._failed_at is None or self._done_at() > self._failed_at:
            return None
        return now - self._down_since

    async def run(self, work: Work, stopping: anyio.Event) -> None:
        """Run ``work`` until it returns; after an error that passes, again.

        Raises:
            RoadstreamError: An error that does not pass, or that has lasted too long.
        """
        while True:
            began = time.monotonic()
            try:
                await work(stopping)
                return
            except (RunError, ExceptionGroup) as error:
                reason = self._reason(error)
                if reason is None:
                    raise
                delay = self._failed(reason, began)
                if stopping.is_set():
                    return  # what was not committed is done by whoever comes next
                if delay is None:
                    raise
            with anyio.move_on_after(delay):
                await stopping.wait()
            if stopping.is_set():
                return

    def _reason(self, error: Exception) -> RunError | None:
        """Return the error behind ``error`` if everything in it passes by itself."""
        causes = list(_leaves(error))
        first = causes[0]
        if isinstance(first, RunError) and all(isinstance(c, self._passing) for c in causes):
            return first
        return None

    def _failed(self, reason: RunError, began: float) -> float | None:
        now, worked_at = time.monotonic(), self._done_at()
        if self.down_for(now) is None:
            self._told = ""
            self._down_since = max(began, worked_at)
        if worked_at - began >= SETTLED_AFTER:
            self._backoff.reset()
        self._failed_at = now
        self.failures += 1
        self.last_error = str(reason)
        down_for = now - self._down_since
        tired = self._patience is not None and down_for > self._patience
        if tired:
            return None
        delay, forbidden = self._backoff.next(), isinstance(reason, ForbiddenError)
        if forbidden:
            delay = max(delay, MENDING_DELAY)
        if self._told != str(reason) or (now - self._told_at >= TOLD_AGAIN and not forbidden):
            self._told, self._told_at = str(reason), now
            self._tell(forbidden=forbidden, down_for=down_for)
        return delay

    def _tell(self, *, forbidden: bool, down_for: float) -> None:
        if forbidden:
            logger.error(
                "to_be_mended", part=self.name, error=self._told, tried_every=MENDING_DELAY
            )
        else:
            said = {"down_for": round(down_for, 1), "failures": self.failures}
            logger.warning("waiting_out", part=self.name, error=self._told, **said)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _leaves(part)
    else:
        yield error
