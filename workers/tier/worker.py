"""A tier worker: polls images, batches them late, has them judged, publishes votes, commits.

Batches are judged in threads. A thread cannot be killed, and a model that hangs must not keep its
worker from leaving: so whoever waits for a batch may be cancelled. The slot of what hangs stays
taken until it ends, which keeps the number of such threads bounded.
"""

import math
from collections import deque
from collections.abc import Callable, Collection
from functools import partial
from typing import Protocol, TypeVar

import anyio
import anyio.abc
import msgspec
import structlog
from anyio import to_thread

from roadstream.schemas.errors import ImageError
from roadstream.schemas.topics import tier_group, tier_inputs
from roadstream.stages.batching.batcher import Batcher, QueueState
from roadstream.stages.batching.device_queue import SlotRequest
from roadstream.stages.batching.policy import BatchPolicy, Moment
from roadstream.stages.breaker import ShareBreaker
from roadstream.stages.voting.tier_votes import LATE, Failure, unjudged
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
    """

    notes: CrashNotes = msgspec.field(default_factory=CrashNotes)
    clock: Clock = SystemClock()
    run_blocking: RunBlocking = partial(to_thread.run_sync, abandon_on_cancel=True)


class TierWorker:
    """One worker of one tier: a member of the tier's consumer group.

    Args:
        log: The log, open.
        judge: The tier's judge, its engines loaded and warm.
        limits: What it may hold, and how long it waits.
        options: How it takes part in the group.
        process: What it shares with its process.
        policy: Decides when a batch is due and what it holds; ``DeadlinePolicy`` by default.

    Attributes:
        tier: Name of the tier.
        judge: The judge, with its own counters and its members' breakers.
        member: Its membership.
        queue: The images waiting for a batch.
        breaker: Pauses it while too many records become dead letters.
        stats: Its counters.
    """

    def __init__(
        self,
        log: Log,
        judge: Judge,
        *,
        limits: WorkerLimits | None = None,
        options: GroupMemberOptions | None = None,
        process: ProcessParts | None = None,
        policy: BatchPolicy | None = None,
    ) -> None:
        self.tier, cascade = judge.tier, judge.cascade
        self._log, self.judge = log, judge
        self._limits = limits or WorkerLimits()
        self._process = process or ProcessParts()
        first = self.tier == cascade.tier_names[0]
        self._inputs = tier_inputs(self.tier, first=first)
        self._decoder = RecordDecoder(self.tier, first=first, shapes=judge.shapes)
        self._devices = judge.devices
        # Batches whose threads run on though nobody waits for them.
        self._abandoned: list[TierBatch] = []
        self.queue: Batcher[Item] = Batcher(
            cascade.tier(self.tier).max_batch, judge.latency, judge.latencies, policy
        )
        self.member = GroupMember(
            self, "worker", tier_group(self.tier), self._inputs, options or GroupMemberOptions()
        )
        self.breaker = ShareBreaker(self._limits.dead_letters)
        self.stats = TierStats()
        self._begin()

    def _begin(self) -> None:
        """Forget what an earlier membership left."""
        self.queue.drop()
        # Images that ran when the process died last; each runs alone.
        self._suspects: deque[Item] = deque()
        self._running: set[TierBatch] = set()
        self._changed, self._live_came, self._ended = anyio.Event(), anyio.Event(), anyio.Event()
        # Whether the last poll left records on the log, and since when images wait with no batch.
        self._more_waits, self._idle_since = False, 0.0
        self._downstream = Downstream(self._log, self.judge, self._limits.downstream_lag)

    @property
    def running(self) -> int:
        """Number of batches on their way."""
        return len(self._running)

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
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._dispatch, tasks)
                tasks.start_soon(self._expire)
                await repeat_until(stopping, self._fill)
                await self._leave()
                tasks.cancel_scope.cancel()
            await self.member.flush()
        logger.info("worker_stopped", tier=self.tier, judged=self.stats.judged)

    async def _leave(self) -> None:
        """Let the batches that run finish, and stay a member of the group meanwhile."""
        self._drop()
        give_up_at = anyio.current_time() + self._limits.drain_timeout
        while self._running and anyio.current_time() < give_up_at:
            await self._change(min(1.0, give_up_at - anyio.current_time()))
            if self._running:
                await self.member.poll(max_records=0, timeout=0)
        self.stats.abandoned += await self._drain(0)

    async def _fill(self) -> None:
        """Poll once, for as many images as there is room for."""
        self._reap()
        if (room := self._room()) <= 0:
            await self._change(self._limits.poll_timeout)
            await self.member.poll(max_records=0, timeout=0)
            return
        polled = await self.member.poll(
            max_records=room, timeout=self._limits.poll_timeout, topics=await self._open_topics()
        )
        self._more_waits = sum(map(len, polled.values())) >= room
        if polled:
            await self._enqueue(polled)
        elif not self._running:
            await self.member.flush()

    def _room(self) -> int:
        queue, limits = self.queue, self._limits
        if queue.size + sum(item.size for item in self._suspects) >= limits.queue_bytes:
            return 0
        if self.breaker.state == "closed":
            return limits.queue_batches * queue.max_batch - self._waiting()
        return queue.max_batch - self._waiting()

    def _waiting(self) -> int:
        """Return how many images wait for a batch."""
        return len(self.queue) + len(self._suspects)

    def _takes_archive(self) -> bool:
        """Return whether archive images may come: not in a pause, and for a trial a batch."""
        if self.breaker.state == "closed":
            return True
        ready = self.breaker.ready(anyio.current_time())
        return ready and not self._waiting() and not self.running

    async def _open_topics(self) -> Collection[str] | None:
        """Return the topics that may deliver: live only in a pause, so that deadlines are kept, and
        while a later tier is too far behind.
        """
        live = [topic for topic, lane in self._inputs.items() if lane == "live"]
        if not self._takes_archive():
            return live
        self.stats.held_back = await self._downstream.behind()
        return live if self.stats.held_back else None

    async def _enqueue(self, polled: Polled) -> None:
        now = self._process.clock.now()
        items, letters, unread = self._decoder.decode(polled, now)
        known = self._process.notes
        if len(known):
            self._suspects += [item for item in items if known.of(item) is not None]
            items = [item for item in items if known.of(item) is None]
        if not len(self.queue):
            self._idle_since = anyio.current_time()
        self.queue.add(items, now)
        if self.queue.next_deadline_at is not None:
            self._live_came.set()
        self._signal()
        if letters and await self.member.finish(letters, unread, self.member.epoch):
            self.stats.dead_letters += len(letters)
            self._learn_unread(len(letters), len(items))

    async def _dispatch(self, tasks: anyio.abc.TaskGroup) -> None:
        while True:
            if self._idle():
                await self._change(self._until_trial())
            elif self._suspects:
                await self._replay()
            elif (patience := self._patience()) > 0.0:
                await self._change(patience)
            else:
                slot = await self._devices.acquire(self._request())
                if not len(self.queue) or self._rests():  # revoked, or paused, meanwhile
                    slot.release()
                    continue
                batch = self._next_batch(slot)
                self.breaker.allows(anyio.current_time())  # it may be the trial
                self._running.add(batch)
                tasks.start_soon(self._run, batch)
                self._signal()

    def _idle(self) -> bool:
        """Return whether no batch may begin now: nothing waits, or the worker is paused."""
        return not self._waiting() or self._rests()

    def _rests(self) -> bool:
        """Return whether the worker is paused, and this is not the moment for a trial."""
        if self.breaker.state == "closed":
            return False
        return self.running > 0 or not self.breaker.ready(anyio.current_time())

    def _patience(self) -> float:
        """Return how long to wait for a fuller batch before a slot is asked for."""
        moment = self._moment(0.0, self._devices.in_flight)
        return self.queue.begin_at(moment) - moment.now

    def _moment(self, free_in: float, running: int) -> Moment:
        """Return what the policy is told of this moment, while so many batches are in flight."""
        idle = 0.0 if running else anyio.current_time() - self._idle_since
        return Moment(self._process.clock.now(), free_in, running, idle, self._more_waits)

    def _next_batch(self, slot: Slot) -> TierBatch:
        """Form the batch that a slot is for; a policy that fails gives the slot back."""
        try:
            # The slot itself counts as a batch in flight.
            moment = self._moment(slot.wait, self._devices.in_flight - 1)
            items, expired = self.queue.next_batch(moment)
        except BaseException:
            slot.release()
            raise
        batch = TierBatch(items, expired, epoch=self.member.epoch, slot=slot)
        self._expect(batch, slot)
        return batch

    def _request(self, *, alone: bool = False) -> SlotRequest:
        """Return a request for a slot on the devices that a batch of this tier occupies."""
        return SlotRequest(self.judge.rank, self.judge.occupies, self._state, alone)

    def _state(self) -> QueueState:
        return self.queue.state(self._process.clock.now())

    def _expect(self, batch: TierBatch, slot: Slot) -> None:
        """Say what a batch is expected to take."""
        if batch.items:
            latency, size = self.judge.latency_of(batch.items[0].shape), len(batch.items)
            seconds = {name: latency.running(size, name) for name in self.judge.occupies}
            slot.expect(latency.preparing(size), seconds)

    def _until_trial(self) -> float:
        """Return the seconds until what waits may be tried; infinity if no pause keeps it."""
        if self.running or not self._waiting():
            return math.inf
        return max(0.0, self.breaker.retry_at - anyio.current_time())

    async def _expire(self) -> None:
        """Answer live images whose deadline passes while they wait, even if no slot is free."""
        clock = self._process.clock
        while True:
            if expired := self.queue.expired(clock.now()):
                late = TierBatch([], expired, epoch=self.member.epoch)
                self._running.add(late)
                await self._run(late)
                continue
            due = self.queue.next_deadline_at
            # In short steps, as the wall clock may be moved.
            patience = math.inf if due is None else min(1.0, max(0.001, due - clock.now()))
            self._live_came = anyio.Event()
            with anyio.move_on_after(patience):
                await self._live_came.wait()

    async def _replay(self) -> None:
        """Judge the next suspect alone, with nothing else running in this process.

        One that killed so many processes alone is answered as failed, with a dead letter.
        """
        async with self._process.notes.alone:
            slot = await self._devices.acquire(self._request(alone=True))
            if not self._suspects or self._rests():  # revoked, or paused, meanwhile
                slot.release()
                return
            item = self._suspects.popleft()
            self.breaker.allows(anyio.current_time())
            batch = TierBatch([item], epoch=self.member.epoch, slot=slot, alone=True)
            suspect = self._process.notes.of(item)
            if suspect is not None and suspect.alone >= self._limits.deaths_alone:
                slot.release()
                self._give_up_on(batch, suspect.deaths)
            else:
                logger.warning("suspect_replayed", tier=self.tier, uri=item.head.uri)
            self._running.add(batch)
            await self._run(batch)

    def _give_up_on(self, batch: TierBatch, deaths: int) -> None:
        """Let the image of a batch fail without being judged."""
        head = batch.items[0].head
        error = str(ImageError("process_killed", f"{deaths} processes died while they judged it"))
        logger.error("process_killer", tier=self.tier, uri=head.uri, deaths=deaths)
        batch.slot = None
        batch.votes = [unjudged(head, len(self.judge.members), error)]
        batch.failures = [Failure(0, None, error, deaths, True, "process_killed")]

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
        self._signal()

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
            with self._process.notes.running(batch.items, alone=batch.alone):
                self.judge.judge(batch)
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
        if not batch.runs:  # none was judged
            batch.runs = [member.absent() for member in self.judge.members]
        late = [unjudged(item.head, len(batch.runs), str(LATE)) for item in batch.expired]
        batch.votes += late
        outputs = outputs_of(batch, self.judge.cascade, self.tier, self._process.clock.now())
        images = batch.images
        done: dict[TopicPartition, list[int]] = {}
        for item in images:
            done.setdefault(item.tp, []).append(item.offset)
        batch.finished = await self.member.finish(outputs, done, batch.epoch)
        if batch.finished:
            self._process.notes.settle(images)

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
        if batch.items:  # and not only expired ones
            self.queue.ended(len(batch.items), batch.seconds, self._process.clock.now())
        cap = self.queue.cap
        if batch.fits is not None:
            cap.lower(batch.fits)
            logger.warning("batch_cap", tier=self.tier, images=cap.now)
        else:
            cap.fitted(len(batch.items))

    def _learn(self, batch: TierBatch) -> None:
        """Count what came of a batch."""
        self.stats.add(batch)
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

    async def _change(self, patience: float) -> None:
        """Wait for something to change: images came, a batch ended, partitions went."""
        with anyio.move_on_after(patience):
            await self._changed.wait()

    def _signal(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()
        self.judge.devices.changed()

    def _drop(self) -> None:
        self.queue.drop()
        self._suspects.clear()
        self._signal()

    async def take_over(self, partitions: Collection[TopicPartition]) -> None:
        """Nothing to prepare: work starts afresh from the committed offsets."""

    async def give_up(self, partitions: Collection[TopicPartition]) -> None:
        """Drop what is queued, and let the batches that run finish within the drain budget."""
        self._drop()
        self.stats.abandoned += await self._drain(self._limits.drain_timeout)
