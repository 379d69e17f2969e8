"""One tier's judgement of a batch: read, decode, infer, calibrate, pool, route. Blocking code."""

import threading
import time
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from contextvars import copy_context
from itertools import product
from pathlib import Path

import msgspec

from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.errors import ImageError
from roadstream.stages.batching.latency_model import AffineLatency, Run, TierLatency
from roadstream.stages.batching.shapes import Shape, Shapes, Size, sizes_of
from roadstream.stages.breaker import MemberBreaker, MemberPolicy
from roadstream.stages.decoding.decode import DEFAULT, DecodeLimits, decode, focal_length
from roadstream.stages.inference import Abstained, Engine, Picture, Pictures, is_out_of_memory
from roadstream.stages.voting.picture_rules import NOTHING_SEEN, asks_focal_length, picture_rules
from roadstream.stages.voting.tier_votes import LATE, TierVoting, Timing, unjudged
from roadstream.streams.clock import Clock, SystemClock
from roadstream.streams.sources.payload import Patience, read_payload
from roadstream.workers.tier.batch import TierBatch
from roadstream.workers.tier.devices import Devices
from roadstream.workers.tier.hangs import Calls
from roadstream.workers.tier.members import MemberResult, RunningMember, absent_run
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
        self._absent = [absent_run(member) for member in cascade.absent.get(tier, ())]
        self.stats = JudgeStats()
        # Two batches are judged at once, each in a thread of its own.
        self._counting = threading.Lock()
        self._voting = TierVoting(cascade, tier)
        self._picture_rules = picture_rules(cascade, tier)
        self._asks_focal_length = asks_focal_length(cascade, tier)
        self.devices, self.rank = devices or Devices(), cascade.tier_names.index(tier)
        self.occupies = tuple(dict.fromkeys(one.engine.device for one in self.members))
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

    def count_on_from(self, before: "Judge") -> None:
        """Go on with the counters of another version's judge of the same tier."""
        self.stats, self._counting = before.stats, before._counting
        known = {one.member.name: one for one in before.members}
        for one in self.members:
            if (other := known.get(one.member.name)) is not None:
                one.count_on_from(other)

    def latency_of(self, shape: Shape | None) -> TierLatency:
        """Return what batches of a shape take."""
        return self.latencies.get(shape, self.latency)

    @property
    def targets(self) -> set[str]:
        """Tiers that images may be escalated to from here."""
        return self._voting.targets

    @property
    def watched(self) -> dict[str, float]:
        """Tiers of which it matters whether somebody works for them, with their ``down_after``."""
        return {name: self.cascade.tier(name).down_after for name in self._voting.watched}

    def take_as_down(self, tiers: frozenset[str]) -> None:
        """Route images from now on as nobody works for these tiers. Any thread may call it."""
        self._voting.down = tiers

    def take_as_needed(self, seconds: Mapping[str, float]) -> None:
        """Route images from now on as they take so long at these tiers. Any thread may call it."""
        targets = self._voting.targets
        self._voting.needed = {name: took for name, took in seconds.items() if name in targets}

    @property
    def alone(self) -> float:
        """Seconds that a batch of one takes, of the costliest shape; 0 if that is not known."""
        return max(one.predict(1) for one in (self.latency, *self.latencies.values()))

    @property
    def breakers(self) -> dict[str, MemberBreaker]:
        """Each member's circuit breaker."""
        return {running.member.name: running.breaker for running in self.members}

    def judge(self, batch: TierBatch) -> None:
        """Judge a batch: its votes are made, and all else that comes of it.

        Never raises for a bad picture: its votes carry the error.
        """
        timer, clock = self._options.timer, self._options.clock
        began_at, t0 = clock.now(), timer()
        self._read(batch, _expired(batch.items, began_at))
        shown = self._shown(batch)
        for member in self.members:
            member.prepare(shown)
        t1 = timer()
        results = self._infer(batch, shown)
        t2 = timer()
        runs = [
            Run(one.member.name, one.engine.device, result.run.batch_size, result.run.latency)
            for one, result in zip(self.members, results, strict=True)
        ]
        decoding, inferring = t1 - t0, longest(runs)
        self._vote(batch, results, began_at, decoding, inferring)
        self._count(batch, decoding, inferring)
        batch.pictures = []  # it may wait long to be published, and others are decoded meanwhile
        if batch.items and batch.fits is None:
            self.latency_of(batch.items[0].shape).observe(len(batch.items), decoding, runs)
        batch.seconds = t2 - t0

    def _count(self, batch: TierBatch, decoding: float, inferring: float) -> None:
        unread = [one for one in batch.pictures if isinstance(one, ImageError)]
        late = sum([one is LATE for one in unread])
        stats = self.stats
        with self._counting:
            stats.batches += 1
            stats.images += len(batch.pictures)
            stats.bad_pictures += len(unread) - late
            stats.expired += late
            stats.decoding += decoding
            stats.inferring += inferring

    def _read(self, batch: TierBatch, late: Collection[int]) -> None:
        """Read and decode the pictures of those images that are not too late already."""
        patience = Patience(self._options.pause)
        if not self._needs_pixels and not self._needs_encoded:
            batch.pictures = [
                Picture(head=item.head, evidence=item.evidence) for item in batch.items
            ]
            return
        batch.pictures = [
            LATE if row in late else self._picture(item, patience)
            for row, item in enumerate(batch.items)
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
                    return Picture(encoded=encoded, head=item.head, evidence=item.evidence)
                pixels = decode(data, min_width=width, min_height=height, limits=self._limits)
                picture = Picture(pixels, encoded, item.head, item.evidence)
                if self._asks_focal_length:
                    picture.focal = focal_length(data, (pixels.shape[1], pixels.shape[0]))
                if not self._keeps_pixels:
                    picture.keep_only(shape)
                return picture
        except ImageError as error:
            return error
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return ImageError("too_large", "the picture does not fit into memory")

    def _shown(self, batch: TierBatch) -> Pictures:
        """Return what members see of a batch: all are of the first one's shape."""
        shape = batch.items[0].shape if batch.items else None
        sizes = None if shape is None else self.shapes.sizes(shape)
        return Pictures([one for one in batch.pictures if isinstance(one, Picture)], sizes)

    def _current(self, batch: TierBatch, shown: Pictures) -> Pictures:
        """Return what members see of a batch without what is too late by now."""
        late = _expired(batch.items, self._options.clock.now())
        for row in late:
            batch.pictures[row] = LATE
        return self._shown(batch) if late else shown

    def _infer(self, batch: TierBatch, shown: Pictures) -> list[MemberResult]:
        """Have every member infer, one after the other on a device, side by side on several."""
        if len(self.occupies) == 1:
            results = []
            with self.devices.hold(self.occupies[0], self.rank):
                shown = self._current(batch, shown)
                for member in self.members:
                    results.append(member.run(shown, self._options.timer))  # noqa: PERF401 (a frame less)
            return results
        shown = self._current(batch, shown)
        threads = [_DeviceThread(self, device, batch, shown) for device in self.occupies]
        for thread in threads[1:]:
            thread.start()
        threads[0].run()
        for thread in threads[1:]:
            thread.join()
        by_name: dict[str, MemberResult] = {}
        for thread in threads:
            by_name |= thread.results()
        return [by_name[one.member.name] for one in self.members]

    def infer_on(self, device: str, shown: Pictures) -> dict[str, MemberResult]:
        """Have the members on one device infer; return their results by name."""
        with self.devices.hold(device, self.rank):
            return {
                one.member.name: one.run(shown, self._options.timer)
                for one in self.members
                if one.engine.device == device
            }

    def _vote(
        self,
        batch: TierBatch,
        results: Sequence[MemberResult],
        began_at: float,
        decoding: float,
        inferring: float,
    ) -> None:
        """Make the votes of a batch, and say what calls for dead letters."""
        vote = self._voting.vote
        nothing = [Abstained()] * len(results[0].found)
        results = [*results, *(MemberResult(run, nothing, True, {}, None) for run in self._absent)]
        found = [result.found for result in results]
        pairs = zip(batch.items, batch.pictures, strict=True)
        images = [item for item, picture in pairs if isinstance(picture, Picture)]
        columns, fused = zip(*found, strict=True), self._voting.fused(found, images)
        now, rules = self._options.clock.now(), self._picture_rules
        for row, (item, picture) in enumerate(zip(batch.items, batch.pictures, strict=True)):
            queued = max(0.0, began_at - item.arrived_at)
            if isinstance(picture, ImageError):
                said = unjudged(item.head, len(results), str(picture), queued)
            else:
                timing = Timing(queued, decoding, inferring)
                scores, seen, boxes = next(columns), NOTHING_SEEN, next(fused)
                if rules is not None:
                    seen = rules.look(item, picture, scores, boxes)
                    if seen.lowered:
                        batch.lowered[row] = seen.lowered
                said = vote(item, scores, timing, boxes, seen, now)
            batch.votes.append(said)
        batch.runs = [result.run for result in results]
        batch.fits = min([one.fits for one in results if one.fits is not None], default=None)
        batch.judged = len(batch.items)
        if not all(result.clean for result in results):
            self._fail(batch, results)

    def _fail(self, batch: TierBatch, results: Sequence[MemberResult]) -> None:
        """Say which images of a batch call for dead letters, as a member gave no score."""
        shown = [row for row, one in enumerate(batch.pictures) if isinstance(one, Picture)]
        with self._counting:
            self.stats.unvoted += sum(batch.votes[row].error is not None for row in shown)
        for column, row in enumerate(shown):
            found = [(result.found[column], result.tries.get(column, 1)) for result in results]
            failure = self._voting.failure(row, batch.items[row].prior, batch.votes[row], found)
            if failure is not None:
                batch.failures.append(failure)


class _DeviceThread(threading.Thread):
    """The members on one device, at one batch. A daemon: a model that hangs keeps no process."""

    def __init__(self, judge: Judge, device: str, batch: TierBatch, shown: Pictures) -> None:
        super().__init__(name=f"members on {device}", daemon=True)
        self._judge, self._device, self._batch, self._shown = judge, device, batch, shown
        # So that what it logs says for which tier.
        self._context = copy_context()
        self._results: dict[str, MemberResult] = {}
        self._error: BaseException | None = None

    def run(self) -> None:
        """Have the members infer, and give the device back."""
        try:
            self._results = self._context.run(self._judge.infer_on, self._device, self._shown)
        except BaseException as error:
            self._error = error
        if (slot := self._batch.slot) is not None:
            slot.over(self._device)

    def results(self) -> dict[str, MemberResult]:
        """Return what the members found, or raise what was raised."""
        if self._error is not None:
            raise self._error
        return self._results


def longest(runs: Iterable[Run]) -> float:
    """Return how long the slowest device was busy, its members one after the other."""
    spent: dict[str, float] = {}
    for run in runs:
        spent[run.device] = spent.get(run.device, 0.0) + run.seconds
    return max(spent.values(), default=0.0)


def _expired(items: Sequence[Item], now: float) -> list[int]:
    """Return the rows of live images whose deadline has passed."""
    return [
        row
        for row, item in enumerate(items)
        if item.deadline_at is not None and item.deadline_at <= now
    ]
