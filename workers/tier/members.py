"""A tier's members at work: each behind its circuit breaker, with what is counted of it."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

import msgspec
import structlog

from roadstream.schemas.cascade.model import Member
from roadstream.schemas.errors import EngineDownError, EngineError, ImageError, OutOfServiceError
from roadstream.schemas.records.votes import MemberRun
from roadstream.stages.breaker import MemberBreaker, MemberPolicy
from roadstream.stages.inference import (
    Abstained,
    Engine,
    Finding,
    Findings,
    Pictures,
    Score,
    infer_isolated,
    is_late,
)
from roadstream.workers.tier.devices import is_local
from roadstream.workers.tier.hangs import Calls, Restarted

logger = structlog.get_logger()


class ModelStats(msgspec.Struct):
    """Counters of one member since its process began.

    Attributes:
        batches: Batches it was called for.
        pictures: Pictures in them.
        runs: Calls of its engine; more than batches where pictures had to be told apart.
        failures: Pictures on which it raised, or gave no usable score.
        abstained: Pictures on which it gave no vote, of its own accord.
        late: Pictures whose deadline passed while its engine had them.
        out_of_memory: Batches that did not fit into memory.
        too_large: Pictures that did not fit even alone.
        away: Pictures that it was not shown while its engine was away.
        skipped: Pictures that it was not shown while its breaker was open.
        seconds: Time in its engine.
    """

    batches: int = 0
    pictures: int = 0
    runs: int = 0
    failures: int = 0
    abstained: int = 0
    late: int = 0
    out_of_memory: int = 0
    too_large: int = 0
    away: int = 0
    skipped: int = 0
    seconds: float = 0.0


class MemberResult(NamedTuple):
    """What came of a member's run over a batch.

    Attributes:
        run: For the pack.
        found: Per picture its score, or why there is none: a fault of the picture, or not.
        clean: Whether every picture has a score, or the member chose to give none.
        tries: See ``Findings``.
        fits: See ``Findings``.
    """

    run: MemberRun
    found: Sequence[Finding | EngineError]
    clean: bool
    tries: dict[int, int]
    fits: int | None


class RunningMember:
    """A member with its engine.

    Args:
        member: As the cascade says.
        engine: Loaded and warm.
        policy: When it is taken out.
        calls: Its engine's calls are noted there.

    Attributes:
        breaker: Its circuit breaker.
        stats: Its counters.
        out: Stands for its score while it is out of service.
    """

    def __init__(
        self, member: Member, engine: Engine, policy: MemberPolicy, calls: Calls | None = None
    ) -> None:
        self.member, self.engine, self._calls = member, engine, calls or Calls()
        self._version = f"{member.model_version}+{engine.version}".removesuffix("+")
        self.breaker = MemberBreaker(policy)
        self.stats = ModelStats()
        # Where it runs elsewhere, two batches may be with it at once.
        self._books = threading.Lock()
        self.out = OutOfServiceError(member.name)

    def count_on_from(self, before: "RunningMember") -> None:
        """Go on with the counters of the same member of another version."""
        self.stats, self._books = before.stats, before._books

    def run(self, pictures: Pictures, timer: Callable[[], float]) -> MemberResult:
        """Infer a batch, unless the breaker is open. Never raises for what the engine does.

        Args:
            pictures: The batch; by their heads the breaker tells the pictures of a failed batch
                from those of the next.
            timer: Monotonic seconds.
        """
        began = timer()
        size = len(pictures)
        if not size:
            return MemberResult(self.absent(), [], True, {}, None)
        with self._books:
            if not self.breaker.allows(began):
                self.stats.skipped += size
                return MemberResult(self.absent(), [self.out] * size, False, {}, None)
            trial = self.breaker.state == "half_open"
        with self._watched(size) as again:
            findings = infer_isolated(self.engine, pictures, again)
        now = timer()
        with self._books:
            found = findings.found
            run = self._run_record(now - began, size)
            scored = self._count(findings, now - began)
            failed = not (scored or isinstance(found[0], EngineDownError) or _all_late(found))
            if trial or self.breaker.state != "half_open":  # else the trial alone decides
                self._learn(scored, found, pictures, now)
            if failed and trial:  # what failed in a trial failed by the member's fault
                return MemberResult(run, [self.out] * size, False, {}, findings.fits)
            return MemberResult(run, found, scored == size, findings.tries, findings.fits)

    def _learn(self, scored: int, found: Sequence[Finding], pictures: Pictures, now: float) -> None:
        """Tell the breaker what came of a batch."""
        if scored:
            self._succeeded(now)
        elif isinstance(found[0], EngineDownError):
            self._trip(now, found[0])
        elif _all_late(found):  # too slow for live images is not broken
            self.breaker.undecided(now)
        else:
            self._failed([picture.identity for picture in pictures], now, found[0])

    def prepare(self, pictures: Pictures) -> None:
        """Let the engine prepare a batch, unless the breaker is open."""
        if self.breaker.state == "open" or not pictures:
            return
        # What goes wrong here goes wrong again in ``infer``, where the culprit is found.
        with suppress(Exception), self._watched(len(pictures)):
            self.engine.prepare(pictures)

    @contextmanager
    def _watched(self, size: int) -> Iterator[Restarted]:
        """Watch a call of its engine, unless that runs elsewhere."""
        if not is_local(self.engine.device):
            yield lambda: None
            return
        with self._calls.running(f"member {self.member.name}, {size} pictures") as restarted:
            yield restarted

    def _count(self, findings: Findings, seconds: float) -> int:
        """Count what came of a batch; return on how many pictures the member did its part."""
        stats, found = self.stats, findings.found
        stats.batches += 1
        stats.pictures += len(found)
        stats.runs += findings.runs
        stats.seconds += seconds
        if findings.fits is not None:
            stats.out_of_memory += 1
        if set(map(type, found)) == {Score}:
            return len(found)
        scored = sum(isinstance(one, Score) for one in found)
        abstained = sum(isinstance(one, Abstained) for one in found)
        late = sum(map(is_late, found))
        faults = sum(isinstance(one, ImageError) for one in found) - late
        away = sum(isinstance(one, EngineDownError) for one in found)
        stats.abstained += abstained
        stats.late += late
        stats.failures += faults
        stats.away += away
        stats.too_large += len(found) - scored - abstained - late - faults - away
        return scored + abstained

    def absent(self) -> MemberRun:
        """Return the run of a member that was not called."""
        return self._run_record(0.0, 0)

    def _run_record(self, latency: float, size: int) -> MemberRun:
        member = self.member
        return MemberRun(
            member.name,
            self._version,
            member.weight,
            member.calibration is not None,
            latency,
            size,
        )

    def _succeeded(self, now: float) -> None:
        before = self.breaker.state
        self.breaker.succeeded(now)
        if before == "half_open":
            logger.warning("member_back", member=self.member.name)

    def _failed(self, names: list[bytes | str], now: float, example: object) -> None:
        opened = self.breaker.opened
        self.breaker.failed(names, now)
        if self.breaker.opened > opened:
            self._log_out(now, example)

    def _trip(self, now: float, error: EngineDownError) -> None:
        self.breaker.trip(now)
        self._log_out(now, error)

    def _log_out(self, now: float, error: object) -> None:
        logger.error(
            "member_out",
            member=self.member.name,
            retry_after=round(self.breaker.retry_at - now, 3),
            error=str(error),
        )


def _all_late(found: Sequence[object]) -> bool:
    return all(map(is_late, found))


def absent_run(member: Member) -> MemberRun:
    """Return the run of a member that is left out: it was shown nothing."""
    fitted = member.calibration is not None
    return MemberRun(member.name, member.model_version, member.weight, fitted, 0.0, 0)
