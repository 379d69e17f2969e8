"""A tier worker: polls images, batches them late, has them judged, publishes votes, commits.

Batches are judged in threads. A thread cannot be killed, and a model that hangs must not keep its
worker from leaving: so whoever waits for a batch may be cancelled. The slot of what hangs stays
taken until it ends, which keeps the number of such threads bounded.
"""

import math
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Protocol, TypeVar

import anyio
import anyio.abc
import msgspec
import structlog
from anyio import to_thread

from roadstream.schemas.topics import tier_group, tier_inputs
from roadstream.stages.batching.batcher import Batcher
from roadstream.stages.batching.policy import BatchPolicy
from roadstream.stages.breaker import ShareBreaker
from roadstream.stages.voting.tier_votes import LATE, unjudged
from roadstream.streams.clock import Clock, SystemClock
from roadstream.streams.group.member import GroupMember, GroupMemberOptions, repeat_until
from roadstream.streams.log import Log, Polled, TopicPartition
from roadstream.workers.tier.batch import TierBatch, outputs_of
from roadstream.workers.tier.crash_notes import CrashNotes
from roadstream.workers.tier.devices import Slot
from roadstream.workers.tier.downstream import Downstream
from roadstream.workers.tier.judge import Judge
from roadstream.workers.tier.limits import TierStats, WorkerLimits
from roadstream.workers.tier.records import Item, RecordDecoder
from roadstream.workers.tier.service_time import ServiceTimeTeller
from roadstream.workers.tier.version_queue import VersionQueue
from roadstream.workers.tier.versions import OneVersion, Versions

logger = structlog.get_logger()
T = TypeVar("T")

__all__ = ["ProcessParts", "TierStats", "TierWorker", "WorkerLimits"]


class RunBlocking(Protocol):
    """Runs a blocking call away from the event loop. Cancelled, it returns at once."""

    async def __call__(self, call: Callable[[], T], /) -> T:
        """Return what ``call`` returns, or raise what it raises."""


class ProcessParts(msgspec.Struct, frozen=True, kw_only=True):
    """What a tier worker shares with its process, or has from it.

    Attributes:
        notes: Notes of what runs, for the next process of this name.
        clock: Wall clock, for deadlines and timestamps.
        run_blocking: Runs the judging of a batch; by default in a worker thread.
        policy: Makes what decides when a batch is due and what it holds, for each queue its own;
            ``None`` for ``DeadlinePolicy``.
    """

    notes: CrashNotes = msgspec.field(default_factory=CrashNotes)
    clock: Clock = SystemClock()
    run_blocking: RunBlocking = partial(to_thread.run_sync, abandon_on_cancel=True)
    policy: Callable[[], BatchPolicy | None] = lambda: None


class TierWorker:
    """One worker of one tier: a member of the tier's consumer group.

    It takes images off the log, and gives each to the queue of its version; a batch is formed there
    and comes back to be judged, published and committed.

    Args:
        log: The log, open.
        judge: The tier's judge, its engines loaded and warm.
        limits: What it may hold, and how long it waits.
        options: How it takes part in the group.
        process: What it shares with its process.
        versions: The versions of the cascade that it judges by; by default the judge's alone.

    Attributes:
        tier: Name of the tier.
        member: Its membership.
        breaker: Pauses it while too many records become dead letters.
        stats: Its counters.
        limits: As given.
        more_waits: Whether the last poll left records on the log.
        downstream: How the later tiers stand.
        service_time: Tells earlier tiers what images take here; ``None`` at the first tier.
    """

    def __init__(
        self,
        log: Log,
        judge: Judge,
        *,
        limits: WorkerLimits | None = None,
        options: GroupMemberOptions | None = None,
        process: ProcessParts | None = None,
        versions: Versions | None = None,
    ) -> None:
        self.tier, self._log = judge.tier, log
        self.limits = limits or WorkerLimits()
        self._process = process or ProcessParts()
        self._first = self.tier == judge.cascade.tier_names[0]
        self._inputs = tier_inputs(self.tier, first=self._first)
        self._decoder = RecordDecoder(self.tier, first=self._first)
        # Batches whose threads run on though nobody waits for them.
        self._abandoned: list[TierBatch] = []
        self._versions = versions or OneVersion(judge)
        self._main = judge.cascade.hash
        self._queues = {self._main: VersionQueue(self, self._main, judge)}
        options = options or GroupMemberOptions()
        self.member = GroupMember(self, "worker", tier_group(self.tier), self._inputs, options)
        self.breaker = ShareBreaker(self.limits.dead_letters)
        self.stats = TierStats()
        self.downstream = Downstream(log, judge, self.limits.downstream_lag)
        self.service_time = None if self._first else self._teller(options.member_id)
        self._begin()

    def _teller(self, name: str | None) -> ServiceTimeTeller:
        return ServiceTimeTeller(self._log, self.tier, name, lambda: self.judge.alone, self.now)

    def batcher(self, judge: Judge) -> Batcher[Item]:
        """Return the queue for a judge's batches."""
        most = judge.cascade.tier(self.tier).max_batch
        return Batcher(most, judge.latency, judge.latencies, self._process.policy())

    def _begin(self) -> None:
        """Forget what an earlier membership left."""
        for queue in self._queues.values():
            queue.begin()
        self._running: set[TierBatch] = set()
        self._changed, self._ended = anyio.Event(), anyio.Event()
        self.more_waits = False
        self._tasks: anyio.abc.TaskGroup | None = None

    @property
    def _newest(self) -> VersionQueue:
        return self._queues[self._main]

    @property
    def judge(self) -> Judge:
        """The judge of the main version, with counters that all versions share."""
        judge = self._newest.judge
        assert judge is not None
        return judge

    @property
    def queue(self) -> Batcher[Item]:
        """The queue of the main version."""
        return self._newest.images

    @property
    def notes(self) -> CrashNotes:
        """Notes of what runs in this process."""
        return self._process.notes

    @property
    def running(self) -> int:
        """Number of batches on their way."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Number of images that wait for a batch."""
        return sum(map(len, self._queues.values()))

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the images that wait for a batch."""
        return sum([queue.size for queue in self._queues.values()])

    @property
    def needed(self) -> Mapping[str, float]:
        """Seconds that images are taken to need at the tiers they may go on to, where known."""
        targets = self.judge.targets
        return {name: took for name, took in self._versions.needed.items() if name in targets}

    def now(self) -> float:
        """Return the time of the wall clock."""
        return self._process.clock.now()

    def paused(self) -> list[str]:
        """Return why it takes no work now, or less than it should; nothing if all is well."""
        reasons = []
        if self.breaker.state != "closed":
            reasons.append("too many records became dead letters")
        if left := sum([not batch.ended for batch in self._abandoned]):
            reasons.append(f"{left} batches hang in a model")
        return reasons

    async def run(self, stopping: anyio.Event) -> None:
        """Work until ``stopping`` is set; then finish the batches that run, commit, and leave.

        It waits ``drain_timeout`` for them; what takes longer is left to the next owner. It may be
        run again, also after an error.

        Raises:
            LogUnavailableError: The log does not answer.
            OutputError: The log refuses the outputs for good.
        """
        self._begin()
        async with self.member.joined(self._log):
            logger.info("worker_started", tier=self.tier)
            async with anyio.create_task_group() as self._tasks:
                for queue in self._queues.values():
                    self._start_queue(queue)
                self._tasks.start_soon(self.downstream.presence.run)
                if self.service_time is not None:
                    self._tasks.start_soon(self.service_time.run)
                await repeat_until(stopping, self._fill)
                await self._leave()
                self._tasks.cancel_scope.cancel()
            await self.member.flush()
        logger.info("worker_stopped", tier=self.tier, judged=self.stats.judged)

    async def _leave(self) -> None:
        """Let the batches that run finish, and stay a member of the group meanwhile."""
        self._drop()
        give_up_at = anyio.current_time() + self.limits.drain_timeout
        while self._running and anyio.current_time() < give_up_at:
            await self.change(min(1.0, give_up_at - anyio.current_time()))
            if self._running:
                await self.member.poll(max_records=0, timeout=0)
        self.stats.abandoned += await self._drain(0)

    async def _fill(self) -> None:
        """Poll once, for as many images as there is room for."""
        self._reap()
        await self._follow_versions()
        if (room := self._room()) <= 0:
            await self.change(self.limits.poll_timeout)
            await self.member.poll(max_records=0, timeout=0)
            return
        polled = await self.member.poll(
            max_records=room, timeout=self.limits.poll_timeout, topics=await self._open_topics()
        )
        self.more_waits = sum(map(len, polled.values())) >= room
        if polled:
            await self._enqueue(polled)
        elif not self._running:
            await self.member.flush()

    def _room(self) -> int:
        limits, most = self.limits, self.queue.max_batch
        if self.waiting_bytes >= limits.queue_bytes:
            return 0
        if self.breaker.state == "closed":
            return limits.queue_batches * most - self.waiting
        return most - self.waiting

    async def _follow_versions(self) -> None:
        """Let versions come and go: take up the new main one, install judges, drop what is done."""
        if self._versions.main != self._main:
            self._queue_of(self._versions.main)
        if len(self._queues) == 1:
            return
        kept = (self._main, *self._versions.current)
        for version, queue in list(self._queues.items()):
            if queue.judge is None:
                await self._look_for_judge(queue)
            if version == self._versions.main and queue.judge is not None:
                self._main = version
            elif version not in kept and not len(queue) and not self._any_running(queue):
                queue.close()
                del self._queues[version]
                self._versions.done(self.tier, version)
                self._watch_later_tiers()

    def _any_running(self, queue: VersionQueue) -> bool:
        return any(batch.queue is queue for batch in (*self._running, *self._abandoned))

    async def _look_for_judge(self, queue: VersionQueue) -> None:
        """Install the judge of a version without one; give its images up after a while."""
        found = self._versions.judge(self.tier, queue.version)
        if isinstance(found, Judge):
            queue.install(found)
            self._watch_later_tiers()
            self.signal()
        elif found is not None and len(queue):
            waited = anyio.current_time() - found.since
            if waited >= self.limits.version_patience:
                logger.error(
                    "version_given_up", tier=self.tier, version=queue.version, images=len(queue),
                    reason=found.reason,
                )  # fmt: skip
                await self.carry_out(queue.unavailable(found))

    def _queue_of(self, version: str) -> VersionQueue:
        """Return the queue of a version, which begins now if it is new."""
        queue = self._queues.get(version)
        if queue is None:
            found = self._versions.judge(self.tier, version)
            judge = found if isinstance(found, Judge) else None
            queue = self._queues[version] = VersionQueue(self, version, judge)
            self._watch_later_tiers()
            self._start_queue(queue)
        return queue

    def _watch_later_tiers(self) -> None:
        judges = [queue.judge for queue in self._queues.values()]
        self.downstream.watch(judge for judge in judges if judge is not None)

    def _start_queue(self, queue: VersionQueue) -> None:
        if self._tasks is not None:
            self._tasks.start_soon(queue.dispatch)
            self._tasks.start_soon(queue.expire)

    def _takes_archive(self) -> bool:
        """Return whether archive images may come: not in a pause, and for a trial a batch."""
        if self.breaker.state == "closed":
            return True
        ready = self.breaker.ready(anyio.current_time())
        return ready and not self.waiting and not self.running

    async def _open_topics(self) -> Collection[str] | None:
        """Return the topics that may deliver: live only in a pause, so that deadlines are kept, and
        while a later tier is too far behind.
        """
        live = [topic for topic, lane in self._inputs.items() if lane == "live"]
        if not self._takes_archive():
            return live
        self.stats.held_back = await self.downstream.behind()
        return live if self.stats.held_back else None

    async def _enqueue(self, polled: Polled) -> None:
        items, letters, unread = self._decoder.decode(polled, self.now())
        known = self.notes
        for version, some in self._by_version(items).items():
            queue = self._queue_of(version)
            if len(known):
                suspects = [item for item in some if known.of(item) is not None]
                queue.add([item for item in some if known.of(item) is None], suspects)
            else:
                queue.add(some, [])
        self.signal()
        if letters and await self.member.finish(letters, unread, self.member.epoch):
            self.stats.dead_letters += len(letters)
            self._learn_unread(len(letters), len(items))

    def _by_version(self, items: list[Item]) -> dict[str, list[Item]]:
        """Return images by the version that judges them; those without one begin with one now."""
        found: dict[str, list[Item]] = {}
        begun = self._versions.begun
        for item in items:
            version = item.version or (begun(item.head) if self._first else self._main)
            some = found.get(version)
            if some is None:
                found[version] = [item]
            else:
                some.append(item)
        return found

    def rests(self) -> bool:
        """Return whether the worker is paused, and this is not the moment for a trial."""
        if self.breaker.state == "closed":
            return False
        return self.running > 0 or not self.breaker.ready(anyio.current_time())

    def until_trial(self) -> float:
        """Return the seconds until what waits may be tried; infinity if no pause keeps it."""
        if self.running:
            return math.inf
        return max(0.0, self.breaker.retry_at - anyio.current_time())

    def start(self, batch: TierBatch) -> None:
        """Let a batch begin, beside others."""
        assert self._tasks is not None
        self.breaker.allows(anyio.current_time())  # it may be the trial
        self._running.add(batch)
        self._tasks.start_soon(self._run, batch)
        self.signal()

    async def carry_out(self, batch: TierBatch, *, trial: bool = False) -> None:
        """Let a batch begin, and wait until it has ended."""
        if trial:
            self.breaker.allows(anyio.current_time())
        self._running.add(batch)
        await self._run(batch)

    async def _run(self, batch: TierBatch) -> None:
        """Judge a batch in its slot, publish what comes of it, and finish it.

        Raises:
            LogUnavailableError: The outputs were not acknowledged.
            OutputError: The log refuses them.
        """
        try:
            with batch.scope:
                if batch.slot is not None:
                    await self._judge(batch, batch.slot)
                await self._publish(batch)
                self._learn(batch)
        finally:
            self._running.discard(batch)
            self._ended.set()
            self._ended = anyio.Event()
        self.signal()

    async def _judge(self, batch: TierBatch, slot: Slot) -> None:
        """Judge a batch in a thread; the slot goes to others once that has ended."""
        try:
            await self._process.run_blocking(partial(self._judge_in_thread, batch))
            self._adapt(batch)
        finally:
            if batch.abandon():
                self._abandoned.append(batch)
            else:
                slot.release()

    def _judge_in_thread(self, batch: TierBatch) -> None:
        if not batch.begin():
            return
        try:
            with self.notes.running(batch.items, alone=batch.alone):
                judge = _home(batch).judge
                assert judge is not None
                judge.take_as_down(self.downstream.presence.down)
                judge.take_as_needed(self._versions.needed)
                judge.judge(batch)
        finally:
            batch.ended = True

    def _reap(self) -> None:
        """Take back the slots of batches that were abandoned and have ended since."""
        for batch in self._abandoned:
            if batch.ended and batch.slot is not None:
                batch.slot.release()
        self._abandoned = [batch for batch in self._abandoned if not batch.ended]

    async def _publish(self, batch: TierBatch) -> None:
        """Publish what came of a batch, and commit its images."""
        queue = _home(batch)
        if not batch.runs:  # none was judged
            batch.runs = queue.runs
        late = [unjudged(item.head, len(batch.runs), str(LATE)) for item in batch.expired]
        batch.votes += late
        outputs = outputs_of(batch, queue.cascade, queue.version, self.tier, self.now())
        images = batch.images
        done: dict[TopicPartition, list[int]] = {}
        for item in images:
            done.setdefault(item.tp, []).append(item.offset)
        batch.finished = await self.member.finish(outputs, done, batch.epoch)
        if batch.finished:
            self.notes.settle(images)

    async def _drain(self, timeout: float) -> int:
        """Wait until no batch runs, or ``timeout`` is over; then let go of those that still do.

        What is let go of is never published: its images are judged again by their next owner.

        Returns:
            The number of batches let go of.
        """
        with anyio.move_on_after(timeout):
            while self._running:
                await self._ended.wait()
        left = list(self._running)
        for batch in left:
            batch.scope.cancel()
        if left:
            logger.error("drain_timed_out", tier=self.tier, batches=len(left), after=timeout)
        return len(left)

    def _adapt(self, batch: TierBatch) -> None:
        """Adapt the size of batches to what one took."""
        images = _home(batch).images
        if batch.items:  # and not only expired ones
            images.ended(len(batch.items), batch.seconds, self.now())
        cap = images.cap
        if batch.fits is not None:
            cap.lower(batch.fits)
            logger.warning("batch_cap", tier=self.tier, images=cap.now)
        else:
            cap.fitted(len(batch.items))

    def _learn(self, batch: TierBatch) -> None:
        """Count what came of a batch."""
        self.stats.add(batch)
        if self.service_time is not None:
            self.service_time.observe(batch)
        records = max(batch.judged, len(batch.failures)) if batch.finished else 0
        self._watch(batch.lost, records)

    def _learn_unread(self, letters: int, items: int) -> None:
        """Count records that could not be read, and those that came with them.

        In a pause those decide that were read; records of which none was are a trial that failed.
        """
        if self.breaker.state == "closed":
            self._watch(letters, letters + items)
        elif self._takes_archive():
            self.breaker.allows(anyio.current_time())
            self._watch(letters, letters)

    def _watch(self, lost: int, records: int) -> None:
        """Pause if too many records came to nothing but a dead letter, or end the pause."""
        before, now = self.breaker.state, anyio.current_time()
        self.breaker.observe(lost, records, now)
        if self.breaker.state == "open" != before:
            retry_after = round(self.breaker.retry_at - now, 3)
            logger.error("tier_paused", tier=self.tier, retry_after=retry_after)
        elif self.breaker.state != before:
            logger.warning("tier_resumed", tier=self.tier)

    async def change(self, patience: float) -> None:
        """Wait for something to change: images came, a batch ended, partitions went."""
        with anyio.move_on_after(patience):
            await self._changed.wait()

    def signal(self) -> None:
        """Let those who wait for a change look again."""
        self._changed.set()
        self._changed = anyio.Event()
        self.judge.devices.changed()

    def _drop(self) -> None:
        for queue in self._queues.values():
            queue.drop()
        self.signal()

    async def take_over(self, partitions: Collection[TopicPartition]) -> None:
        """Nothing to prepare: work starts afresh from the committed offsets."""

    async def give_up(self, partitions: Collection[TopicPartition]) -> None:
        """Drop what is queued, and let the batches that run finish within the drain budget."""
        self._drop()
        self.stats.abandoned += await self._drain(self.limits.drain_timeout)


def _home(batch: TierBatch) -> VersionQueue:
    """Return where a batch of a worker waited."""
    assert batch.queue is not None
    return batch.queue
