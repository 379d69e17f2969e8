"""One tier's judgement of a batch: read, decode, infer, calibrate, pool, route. Blocking code."""

import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import msgspec

from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.errors import ImageError
from roadstream.schemas.records.votes import ImageVotes, MemberRun
from roadstream.stages.batching.latency_model import AffineLatency, TierLatency
from roadstream.stages.batching.shapes import Shape, Shapes, Size, sizes_of
from roadstream.stages.breaker import MemberBreaker, MemberPolicy
from roadstream.stages.decoding.decode import DEFAULT, DecodeLimits, decode
from roadstream.stages.inference import Engine, Picture, Pictures, is_out_of_memory
from roadstream.stages.voting.tier_votes import LATE, Failure, TierVoting, Timing, unjudged
from roadstream.streams.clock import Clock, SystemClock
from roadstream.streams.sources.payload import Patience, read_payload
from roadstream.workers.tier.devices import Devices
from roadstream.workers.tier.hangs import Calls
from roadstream.workers.tier.members import Ballot, RunningMember
from roadstream.workers.tier.panel import Panel, longest
from roadstream.workers.tier.records import Item

# What a member was seen to take at warm-up, by its name and the size of its pictures.
Learnt = Mapping[tuple[str, Size], AffineLatency]


class JudgeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a judge may read, and when it takes out a member.

    Attributes:
        roots: Folders that references may point into; ``None`` allows every folder.
        max_bytes: Largest picture that is read.
        max_pixels: Most pixels that are decoded; see ``DecodeLimits`` for reduced JPEGs.
        max_memory: Most bytes that decoding one picture may take.
        breaker: When a member is taken out.
        clock: Wall clock for deadlines and waiting times.
        timer: Monotonic seconds.
        calls: What blocks is noted here.
        pause: Waits so many seconds before storage is asked again.
    """

    roots: Sequence[Path] | None = None
    max_bytes: int = 64 << 20
    max_pixels: int = DEFAULT.max_pixels
    max_memory: int = DEFAULT.max_memory
    breaker: MemberPolicy = MemberPolicy()
    clock: Clock = SystemClock()
    timer: Callable[[], float] = time.perf_counter
    calls: Calls = msgspec.field(default_factory=Calls)
    pause: Callable[[float], None] = time.sleep


class JudgeStats(msgspec.Struct):
    """Counters of a judge since its process began; its members have their own.

    Attributes:
        batches: Batches judged.
        images: Images in them.
        bad_pictures: Images whose picture could not be read or decoded.
        expired: Live images whose deadline had passed before they could be inferred.
        unvoted: Images for which no member of weight voted.
        decoding: Seconds spent reading, decoding and preparing.
        inferring: Seconds spent inferring, without waiting for a device.
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


def _ignore(device: str) -> None:
    """Do nothing: nobody waits for the device."""


class Judge:
    """Judges batches of one tier.

    Args:
        cascade: The cascade.
        tier: Name of the tier.
        engines: Engine per member name.
        devices: The devices that the members of a process share.
        options: What it may read, and when it takes out a member.
        learnt: What members were seen to take at warm-up.

    Attributes:
        members: The tier's members, with their breakers and counters.
        stats: Its counters.
        devices: The devices of this process.
        occupies: Names of those that a batch occupies.
        rank: Position of the tier in the cascade, counted from 0.
        shapes: The shapes of its pictures.
        latency: What its batches take.
        latencies: The same for every shape of theirs, where they have several.
    """

    def __init__(
        self,
        cascade: Cascade,
        tier: str,
        engines: dict[str, Engine],
        *,
        devices: Devices | None = None,
        options: JudgeOptions | None = None,
        learnt: Learnt | None = None,
    ) -> None:
        members = cascade.tier(tier).members
        self.cascade, self.tier = cascade, tier
        self._options = options = options or JudgeOptions()
        self.members = [
            RunningMember(m, engines[m.name], options.breaker, options.calls) for m in members
        ]
        self.stats = JudgeStats()
        # Two batches are judged at once, each in a thread of its own.
        self._counting = threading.Lock()
        self._voting = TierVoting(cascade, tier)
        self.devices, self.rank = devices or Devices(), cascade.tier_names.index(tier)
        self._panel = Panel(self.members, self.devices, self.rank, options.timer)
        self.occupies = self._panel.devices
        self._limits = DecodeLimits(
            max_bytes=options.max_bytes,
            max_pixels=options.max_pixels,
            max_jpeg_pixels=2 * options.max_pixels,
            max_memory=options.max_memory,
        )
        self.shapes = Shapes(members)
        self.latency = self._latency(self.shapes.plain, learnt or {})
        self.latencies: dict[Hashable, TierLatency] = {}
        if self.shapes.several:
            shapes = product(*[sizes_of(member) for member in members])
            self.latencies = {shape: self._latency(shape, learnt or {}) for shape in shapes}
        self._needs_pixels = any(running.engine.needs_pixels for running in self.members)
        self._keeps_pixels = not all(
            running.engine.only_at_size or not running.engine.needs_pixels
            for running in self.members
        )
        self._needs_encoded = any(running.engine.needs_encoded for running in self.members)

    def _latency(self, shape: Shape, learnt: Learnt) -> TierLatency:
        """Return what batches of a shape take, as far as that is known."""
        known: dict[str, tuple[str, AffineLatency]] = {}
        for running, size in zip(self.members, shape, strict=True):
            if (time := learnt.get((running.member.name, size))) is not None:
                known[running.member.name] = running.engine.device, time
        return TierLatency(known)

    def latency_of(self, shape: Shape | None) -> TierLatency:
        """Return what batches of a shape take."""
        return self.latencies.get(shape, self.latency)

    @property
    def targets(self) -> set[str]:
        """Tiers that images may be escalated to from here."""
        return self._voting.targets

    @property
    def breakers(self) -> dict[str, MemberBreaker]:
        """Each member's circuit breaker."""
        return {running.member.name: running.breaker for running in self.members}

    def judge(self, items: Sequence[Item], over: Callable[[str], None] = _ignore) -> Judgement:
        """Judge a batch. Never raises for a bad picture: its votes carry the error.

        Args:
            items: The batch.
            over: Told of each device that the batch is done with before it ends.
        """
        timer, clock = self._options.timer, self._options.clock
        began_at, t0 = clock.now(), timer()
        live = [row for row, item in enumerate(items) if item.deadline_at is not None]
        pictures = self._pictures(items, live, began_at)
        batch = self._shown(items, pictures)
        self._panel.prepare(batch)
        t1 = timer()
        ballots = self._vote(items, pictures, live, batch, over)
        t2 = timer()
        runs = self._panel.runs(ballots)
        decoding, inferring = t1 - t0, longest(runs)
        judgement = self._judgement(items, pictures, ballots, (began_at, decoding, inferring))
        self._count(pictures, decoding, inferring)
        if items and judgement.fits is None:
            self.latency_of(items[0].shape).observe(len(items), decoding, runs)
        return judgement._replace(seconds=t2 - t0)

    def _count(
        self, pictures: Sequence[Picture | ImageError], decoding: float, inferring: float
    ) -> None:
        unread = [one for one in pictures if isinstance(one, ImageError)]
        late = sum(one is LATE for one in unread)
        stats = self.stats
        with self._counting:
            stats.batches += 1
            stats.images += len(pictures)
            stats.bad_pictures += len(unread) - late
            stats.expired += late
            stats.decoding += decoding
            stats.inferring += inferring

    def _pictures(
        self, items: Sequence[Item], live: Sequence[int], now: float
    ) -> list[Picture | ImageError]:
        """Read and decode the pictures of those images that are not too late already."""
        late = set(_expired(items, live, now))
        patience = Patience(self._options.pause)
        if not self._needs_pixels and not self._needs_encoded:
            return [Picture(head=item.head) for item in items]
        return [
            LATE if row in late else self._picture(item, patience) for row, item in enumerate(items)
        ]

    def _picture(self, item: Item, patience: Patience) -> Picture | ImageError:
        shape = item.shape or self.shapes.plain
        width, height = max(w for w, _ in shape), max(h for _, h in shape)
        options = self._options
        try:
            with options.calls.running(f"reading {item.head.uri}"):
                data = read_payload(item.readable(), options.roots, options.max_bytes, patience)
                encoded = data if self._needs_encoded else None
                if not self._needs_pixels:
                    return Picture(encoded=encoded, head=item.head)
                pixels = decode(data, min_width=width, min_height=height, limits=self._limits)
                picture = Picture(pixels, encoded, item.head)
                if not self._keeps_pixels:
                    picture.keep_only(shape)
                return picture
        except ImageError as error:
            return error
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return ImageError("too_large", "the picture does not fit into memory")

    def _shown(self, items: Sequence[Item], pictures: Sequence[Picture | ImageError]) -> Pictures:
        """Return the batch that members see: all are of the first one's shape."""
        shape = items[0].shape if items else None
        sizes = None if shape is None else self.shapes.sizes(shape)
        return Pictures([one for one in pictures if isinstance(one, Picture)], sizes)

    def _vote(
        self,
        items: Sequence[Item],
        pictures: list[Picture | ImageError],
        live: Sequence[int],
        batch: Pictures,
        over: Callable[[str], None],
    ) -> list[Ballot]:
        """Have every member vote; what is late by the time of their turn becomes ``LATE``."""

        def current() -> Pictures:
            late = _expired(items, live, self._options.clock.now())
            for row in late:
                pictures[row] = LATE
            return self._shown(items, pictures) if late else batch

        def names() -> list[bytes | str]:
            return [
                item.identity
                for item, picture in zip(items, pictures, strict=True)
                if isinstance(picture, Picture)
            ]

        return self._panel.vote(current, names, over)

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
        found = [ballot.found for ballot in ballots]
        columns, fused = zip(*found, strict=True), self._voting.fused(found)
        for item, picture in zip(items, pictures, strict=True):
            queued = max(0.0, began_at - item.arrived_at)
            if isinstance(picture, ImageError):
                votes.append(unjudged(item.head, len(self.members), str(picture), queued))
            else:
                timing = Timing(queued, decoding, inferring)
                votes.append(vote(item.head, item.prior, next(columns), timing, next(fused)))
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
        with self._counting:
            self.stats.unvoted += sum(votes[row].error is not None for row in shown)
        for column, row in enumerate(shown):
            found = [(ballot.found[column], ballot.tries.get(column, 1)) for ballot in ballots]
            failure = self._voting.failure(row, items[row].prior, votes[row], found)
            if failure is not None:
                failures.append(failure)
        return failures


def _expired(items: Sequence[Item], live: Sequence[int], now: float) -> list[int]:
    """Return the rows of live images whose deadline has passed."""
    return [row for row in live if (items[row].deadline_at or 0.0) <= now]
