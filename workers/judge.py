"""One tier's judgement of a batch: read, decode, infer, calibrate, pool, route. Blocking code."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import msgspec

from schemas.cascade import Cascade
from schemas.errors import ImageError
from schemas.records import ImageVotes, MemberRun
from stages.breaker import MemberBreaker, MemberPolicy
from stages.decode import DEFAULT, DecodeLimits, decode
from stages.inference import Engine, Picture
from streams.clock import Clock, SystemClock
from streams.sources.payload import Patience, read_payload
from workers.intake import Item
from workers.members import Ballot, RunningMember
from workers.voting import LATE, Failure, Voting, unjudged


class JudgeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a judge may read, and when it takes out a member.

    Attributes:
        roots: Folders that references may point into; ``None`` allows every folder.
        max_bytes: Largest picture that is read.
        max_pixels: Most pixels that are decoded; see ``DecodeLimits`` for reduced JPEGs.
        breaker: When a member is taken out.
        clock: Wall clock for deadlines and waiting times.
        timer: Monotonic seconds.
        pause: Waits so many seconds before storage is asked again.
    """

    roots: Sequence[Path] | None = None
    max_bytes: int = 64 << 20
    max_pixels: int = DEFAULT.max_pixels
    breaker: MemberPolicy = MemberPolicy()
    clock: Clock = SystemClock()
    timer: Callable[[], float] = time.perf_counter
    pause: Callable[[float], None] = time.sleep


class JudgeStats(msgspec.Struct):
    """Counters of a judge since its process began; its members have their own.

    Attributes:
        batches: Batches judged.
        images: Images in them.
        bad_pictures: Images whose picture could not be read or decoded.
        expired: Live images whose deadline had passed before they could be inferred.
        unvoted: Images for which no member of weight voted.
        decoding: Seconds spent reading and decoding.
        inferring: Seconds spent inferring, after waiting for the device.
    """

    batches: int = 0
    images: int = 0
    bad_pictures: int = 0
    expired: int = 0
    unvoted: int = 0
    decoding: float = 0.0
    inferring: float = 0.0


class Judgement(NamedTuple):
    """What came of a batch.

    Attributes:
        runs: The member runs.
        votes: Per item, in their order, the votes that refer to these runs.
        failures: Images that call for a dead letter besides.
        fits: Largest batch that fitted into memory, if one did not; else ``None``.
        seconds: What it took.
    """

    runs: list[MemberRun]
    votes: list[ImageVotes]
    failures: Sequence[Failure] = ()
    fits: int | None = None
    seconds: float = 0.0


class Judge:
    """Judges batches of one tier.

    Args:
        cascade: The cascade.
        tier: Name of the tier.
        engines: Engine per member name.
        device: Held while engines run, so that the members of a process share its device.
        options: What it may read, and when it takes out a member.

    Attributes:
        members: The tier's members, with their breakers and counters.
        stats: Its counters.
    """

    def __init__(
        self,
        cascade: Cascade,
        tier: str,
        engines: dict[str, Engine],
        *,
        device: AbstractContextManager[object],
        options: JudgeOptions | None = None,
    ) -> None:
        members = cascade.tier(tier).members
        self.cascade, self.tier = cascade, tier
        self._options = options = options or JudgeOptions()
        self.members = [RunningMember(m, engines[m.name], options.breaker) for m in members]
        self.stats = JudgeStats()
        self._voting = Voting(cascade, tier, self.members)
        self._device = device
        self._limits = DecodeLimits(
            max_bytes=options.max_bytes,
            max_pixels=options.max_pixels,
            max_jpeg_pixels=2 * options.max_pixels,
        )
        self._size = (max(m.width for m in members), max(m.height for m in members))
        self._needs_pixels = any(running.engine.needs_pixels for running in self.members)

    @property
    def targets(self) -> set[str]:
        """Tiers that images may be escalated to from here."""
        return self._voting.targets

    @property
    def breakers(self) -> dict[str, MemberBreaker]:
        """Each member's circuit breaker."""
        return {running.member.name: running.breaker for running in self.members}

    def judge(self, items: Sequence[Item]) -> Judgement:
        """Judge a batch. Never raises for a bad picture: its votes carry the error."""
        timer, clock, stats = self._options.timer, self._options.clock, self.stats
        began_at, t0 = clock.now(), timer()
        live = [row for row, item in enumerate(items) if item.deadline_at is not None]
        pictures = self._pictures(items, live, began_at)
        t1 = timer()
        with self._device:
            t2 = timer()
            if live:
                for row in _expired(items, live, clock.now()):
                    pictures[row] = LATE
            ballots = self._infer(items, pictures)
            t3 = timer()
        stats.batches += 1
        stats.images += len(items)
        stats.decoding += t1 - t0
        stats.inferring += t3 - t2
        return self._judgement(items, pictures, ballots, (began_at, t1 - t0, t3 - t2))._replace(
            seconds=t3 - t0
        )

    def _pictures(
        self, items: Sequence[Item], live: Sequence[int], now: float
    ) -> list[Picture | ImageError]:
        """Read and decode the pictures of those images that are not too late already."""
        late = set(_expired(items, live, now))
        patience = Patience(self._options.pause)
        if not self._needs_pixels:
            return [_NO_PICTURE] * len(items)
        return [
            LATE if row in late else self._picture(item, patience) for row, item in enumerate(items)
        ]

    def _picture(self, item: Item, patience: Patience) -> Picture | ImageError:
        width, height = self._size
        options = self._options
        try:
            data = read_payload(item.readable(), options.roots, options.max_bytes, patience)
            return Picture(decode(data, min_width=width, min_height=height, limits=self._limits))
        except ImageError as error:
            return error
        except MemoryError:
            return ImageError("too_large", "the picture does not fit into memory")

    def _infer(
        self, items: Sequence[Item], pictures: Sequence[Picture | ImageError]
    ) -> list[Ballot]:
        shown = [one for one in pictures if isinstance(one, Picture)]

        def names() -> list[bytes | str]:
            return [
                item.identity
                for item, picture in zip(items, pictures, strict=True)
                if isinstance(picture, Picture)
            ]

        return [running.vote(shown, names, self._options.timer) for running in self.members]

    def _judgement(
        self,
        items: Sequence[Item],
        pictures: Sequence[Picture | ImageError],
        ballots: Sequence[Ballot],
        times: tuple[float, float, float],
    ) -> Judgement:
        began_at, decoding, inferring = times
        vote = self._voting.vote
        votes: list[ImageVotes] = []
        columns = zip(*[ballot.found for ballot in ballots], strict=True)
        for item, picture in zip(items, pictures, strict=True):
            queued = max(0.0, began_at - item.arrived_at)
            if isinstance(picture, ImageError):
                votes.append(self._unread(item, picture, queued))
            else:
                votes.append(vote(item, next(columns), (queued, decoding, inferring)))
        failures: list[Failure] = []
        if not all(ballot.clean for ballot in ballots):
            failures = self._failures(items, pictures, votes, ballots)
        fits = min((b.fits for b in ballots if b.fits is not None), default=None)
        return Judgement([ballot.run for ballot in ballots], votes, failures, fits)

    def _failures(
        self,
        items: Sequence[Item],
        pictures: Sequence[Picture | ImageError],
        votes: Sequence[ImageVotes],
        ballots: Sequence[Ballot],
    ) -> list[Failure]:
        """Return what calls for dead letters, of a batch in which a member gave no score."""
        failures: list[Failure] = []
        shown = [row for row, one in enumerate(pictures) if isinstance(one, Picture)]
        for column, row in enumerate(shown):
            self.stats.unvoted += votes[row].error is not None
            found = [(ballot.found[column], ballot.tries.get(column, 1)) for ballot in ballots]
            failure = self._voting.failure(row, items[row], votes[row], found)
            if failure is not None:
                failures.append(failure)
        return failures

    def _unread(self, item: Item, fault: ImageError, queued: float) -> ImageVotes:
        if fault is LATE:
            self.stats.expired += 1
        else:
            self.stats.bad_pictures += 1
        return unjudged(item.head, len(self.members), str(fault), queued)


def _expired(items: Sequence[Item], live: Sequence[int], now: float) -> list[int]:
    """Return the rows of live images whose deadline has passed."""
    return [row for row in live if (items[row].deadline_at or 0.0) <= now]


class _NoPicture(Picture):
    """Stands for a picture where no member looks at pixels."""

    def __init__(self) -> None:
        pass


_NO_PICTURE = _NoPicture()
