"""Says once a minute, in a line, what each part of a process did and how it stands.

A part that did nothing, and for which nothing waits, says so once and then once an hour: a night
without pictures fills no disk, and whoever reads the log still sees that the process lives.
"""

import math
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
import structlog
from anyio import lowlevel

from roadstream.sinks.consensus.worker import Consensus
from roadstream.workers.service.outage import Persistent
from roadstream.workers.service.supervision.supervisor import Supervisor

if TYPE_CHECKING:
    from roadstream.workers.tier.worker import TierWorker

logger = structlog.get_logger()

MINUTE = 60.0
QUIET = 3600.0

Counts = Mapping[str, int]
Fields = dict[str, Any]


class Account(NamedTuple):
    """What a part can tell of itself.

    Attributes:
        counts: Returns counters that only grow.
        did: Given by how much they grew in how many seconds, returns what to tell of it.
        stands: Given the monotonic time, returns how it stands; nothing, 0 or ``None`` is well.
        who: Its identity in log lines, beyond its process's.
        quiet: The event while nothing happens.
    """

    counts: Callable[[], Counts]
    did: Callable[[Counts, float], Fields]
    stands: Callable[[float], Fields]
    who: Mapping[str, str] = {}
    quiet: str = "idle"


class Minutes:
    """Tells of one part, minute by minute.

    Args:
        account: What it can tell.
        now: Monotonic seconds.
    """

    def __init__(self, account: Account, now: float) -> None:
        self._account, self._before = account, account.counts()
        self._at = self._moved_at = now
        self._quiet_at = -math.inf

    def tell(self, now: float) -> None:
        """Tell of the time since it was last called, unless that was as quiet as before."""
        account, counts = self._account, self._account.counts()
        grew = {name: count - self._before[name] for name, count in counts.items()}
        did, stands = account.did(grew, now - self._at), account.stands(now)
        self._before, self._at = counts, now
        if any(grew.values()) or any(stands.values()):
            self._moved_at, self._quiet_at = now, -math.inf
            # A lag of 0 is good news, one that is unknown is none.
            told = {k: v for k, v in stands.items() if v or (k == "lag" and v is not None)}
            logger.info("minute", **account.who, **did, **told)
        elif now - self._quiet_at >= QUIET:
            self._quiet_at = now
            logger.info(account.quiet, **account.who, for_seconds=round(now - self._moved_at))


Lag = Callable[[], int | None]


def of_tier(worker: "TierWorker", running: Persistent, lag: Lag, who: Mapping[str, str]) -> Account:
    """Return the account of a tier's worker."""
    stats, read = worker.stats, worker.judge.stats

    def counts() -> Counts:
        return {
            "pictures": stats.judged,
            "batches": stats.batches,
            "escalations": stats.escalated,
            "expired": stats.expired + read.expired,
            "unvoted": read.unvoted,
            "dead_letters": stats.dead_letters,
            "fenced": stats.fenced,
        }

    def did(grew: Counts, seconds: float) -> Fields:
        pictures, escalations = grew["pictures"], grew["escalations"]
        return {
            "pictures": pictures,
            "per_second": _rate(pictures, seconds),
            "mean_batch": round(pictures / max(1, grew["batches"]), 1),
            "exits": pictures - escalations,
            "escalations": escalations,
            **_faults(grew, "expired", "unvoted", "dead_letters", "fenced"),
        }

    def stands(now: float) -> Fields:
        members = worker.judge.members
        return {
            "lag": lag(),
            "queued": worker.waiting,
            "members_out": [m.member.name for m in members if m.breaker.state != "closed"],
            "paused": worker.paused(),
            "down_for": _down(running, now),
        }

    return Account(counts, did, stands, who)


def of_consensus(consensus: Consensus, running: Persistent, lag: Lag) -> Account:
    """Return the account of the consensus."""
    stats = consensus.stats

    def counts() -> Counts:
        given = stats.answers.given.items()
        return {
            "answers": stats.answers.total,
            "partial": sum(count for (status, _), count in given if status == "partial"),
            "failed": sum(count for (status, _), count in given if status == "failed"),
            "dead_letters": stats.dead_letters,
            "late_votes": stats.join.late_votes,
        }

    def did(grew: Counts, seconds: float) -> Fields:
        return {
            "answers": grew["answers"],
            "per_second": _rate(grew["answers"], seconds),
            **_faults(grew, "partial", "failed", "dead_letters", "late_votes"),
        }

    def stands(now: float) -> Fields:
        return {
            "lag": lag(),
            "open_images": stats.open_images,
            "oldest_open": round(stats.oldest_open_seconds, 1) if stats.open_images else 0,
            "down_for": _down(running, now),
        }

    return Account(counts, did, stands)


def of_supervisor(supervisor: Supervisor) -> Account:
    """Return the account of a supervisor: of its children, who say for themselves what they do."""
    children = supervisor.children

    def counts() -> Counts:
        return {"restarts": sum(child.restarts for child in children.values())}

    def did(grew: Counts, seconds: float) -> Fields:
        return {"children": len(children), **grew}

    def stands(now: float) -> Fields:
        return {"not_working": supervisor.unready(now)}

    return Account(counts, did, stands, quiet="children_work")


def _rate(count: int, seconds: float) -> float:
    return round(count / max(seconds, 1.0), 1)


def _faults(grew: Counts, *names: str) -> Fields:
    return {name: grew[name] for name in names if grew[name]}


def _down(running: Persistent, now: float) -> float:
    return round(running.down_for(now) or 0.0, 1)


async def tell_each_minute(
    parts: Callable[[], Iterable[Minutes]], ask: Callable[[], Awaitable[None]] = lowlevel.checkpoint
) -> None:
    """Tell of each part every minute, after ``ask`` has asked the log what it must know."""
    while True:
        await anyio.sleep(MINUTE)
        await ask()
        now = time.monotonic()
        for part in parts():
            part.tell(now)
