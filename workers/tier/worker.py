"""A tier worker: polls images, batches them late, has them judged, publishes votes, commits."""

import math
from collections import deque
from collections.abc import Collection, Sequence

import anyio
import anyio.abc
import structlog

from roadstream.schemas.topics import tier_group, tier_inputs
from roadstream.stages.batching.batcher import Batch, Batcher, QueueState
from roadstream.stages.breaker import ShareBreaker
from roadstream.streams.group.member import GroupMember, MemberOptions, repeat_until
from roadstream.streams.log import Log, Polled, TopicPartition
from roadstream.workers.tier.backpressure import Downstream
from roadstream.workers.tier.batches import Batches, Outcome, Surroundings
from roadstream.workers.tier.devices import Held
from roadstream.workers.tier.jobs import Jobs
from roadstream.workers.tier.judge import Judge, Judgement
from roadstream.workers.tier.limits import TierStats, WorkerLimits
from roadstream.workers.tier.records import Item, RecordDecoder

logger = structlog.get_logger()

__all__ = ["TierStats", "TierWorker", "WorkerLimits"]


class TierWorker:
    """One worker of one tier: a member of the tier's consumer group.

    Args:
        log: The log, open.
        judge: The tier's judge, its engines loaded and warm.
        limits: What it may hold, and how long it waits.
        options: How it takes part in the group.
        surroundings: What it shares with its process.

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
        options: MemberOptions | None = None,
        surroundings: Surroundings | None = None,
    ) -> None:
        self.tier, cascade = judge.tier, judge.cascade
        self._log, self.judge = log, judge
        self._limits = limits or WorkerLimits()
        self._around = surroundings or Surroundings()
        first = self.tier == cascade.tier_names[0]
        self._inputs = tier_inputs(self.tier, first=first)
        self._decoder = RecordDecoder(self.tier, first=first, shapes=judge.shapes)
        self._jobs = Jobs(judge.devices, judge.occupies, judge.rank, self._around.run_blocking)
        self.queue: Batcher[Item] = Batcher(
            cascade.tier(self.tier).max_batch, judge.latency, judge.latencies
        )
        self.member = GroupMember(
            self, "worker", tier_group(self.tier), self._inputs, options or MemberOptions()
        )
        self.breaker = ShareBreaker(self._limits.dead_letters)
        self.stats = TierStats()
        self._begin()

    def _begin(self) -> None:
        """Forget what an earlier membership left."""
        self.queue.drop()
        # Images that ran when the process died last; each runs alone.
        self._suspects: deque[Item] = deque()
        self._batches = Batches(self.judge, self.member, self._jobs, self._around, self._adapt)
        self._changed, self._live_came = anyio.Event(), anyio.Event()
        # Whether the last poll left records on the log, and since when images wait with no batch.
        self._more_waits, self._idle_since = False, 0.0
        self._downstream = Downstream(self._log, self.judge, self._limits.downstream_lag)

    @property
    def running(self) -> int:
        """Number of batches on their way."""
        return len(self._batches)

    def paused(self) -> list[str]:
        """Return why it takes no work now, or less than it should; nothing if all is well."""
        reasons = []
        if self.breaker.state != "closed":
            reasons.append("too many records became dead letters")
        if left := self._jobs.left_running:
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
        while len(self._batches) and anyio.current_time() < give_up_at:
            await self._change(min(1.0, give_up_at - anyio.current_time()))
            if len(self._batches):
                await self.member.poll(max_records=0, timeout=0)
        self.stats.abandoned += await self._batches.drain(0)

    async def _fill(self) -> None:
        """Poll once, for as many images as there is room for."""
        self._jobs.reap()
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
        elif not len(self._batches):
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
        now = self._around.clock.now()
        items, letters, unread = self._decoder.decode(polled, now)
        known = self._around.notes
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
                held = await self._jobs.acquire(self._state)
                if not len(self.queue) or self._rests():  # revoked, or paused, meanwhile
                    held.release()
                    continue
                batch = self.queue.next_batch(self._around.clock.now(), held.wait)
                self._expect(batch.items, held)
                self.breaker.allows(anyio.current_time())  # it may be the trial
                scope = self._batches.launch()
                tasks.start_soon(self._process, batch, self.member.epoch, held, scope)
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
        """Return how long to wait for a fuller batch: only while the devices idle, and more images
        were on the log than the last poll took.
        """
        if not self._more_waits or self.judge.devices.in_flight:
            return 0.0
        waited = anyio.current_time() - self._idle_since
        return self.queue.patience(self._around.clock.now(), waited)

    def _state(self) -> QueueState:
        return self.queue.state(self._around.clock.now())

    def _expect(self, items: Sequence[Item], held: Held) -> None:
        """Say what a batch is expected to take."""
        if items:
            latency, size = self.judge.latency_of(items[0].shape), len(items)
            seconds = {name: latency.running(size, name) for name in self.judge.occupies}
            held.expect(latency.preparing(size), seconds)

    def _until_trial(self) -> float:
        """Return the seconds until what waits may be tried; infinity if no pause keeps it."""
        if self.running or not self._waiting():
            return math.inf
        return max(0.0, self.breaker.retry_at - anyio.current_time())

    async def _expire(self) -> None:
        """Answer live images whose deadline passes while they wait, even if no slot is free."""
        clock = self._around.clock
        while True:
            if expired := self.queue.expired(clock.now()):
                with self._batches.until_done(self._batches.launch()):
                    outcome = await self._batches.pass_by(expired, self.member.epoch)
                    self._learn(outcome, len(expired))
                self._signal()
                continue
            due = self.queue.next_deadline_at
            # In short steps, as the wall clock may be moved.
            patience = math.inf if due is None else min(1.0, max(0.001, due - clock.now()))
            self._live_came = anyio.Event()
            with anyio.move_on_after(patience):
                await self._live_came.wait()

    async def _process(
        self, batch: Batch[Item], epoch: int, held: Held, scope: anyio.CancelScope
    ) -> None:
        with self._batches.until_done(scope):
            self._learn(await self._batches.run(batch, epoch, held), len(batch.expired))
        self._signal()

    async def _replay(self) -> None:
        """Judge the next suspect alone, with nothing else running in this process."""
        async with self._around.notes.alone:
            held = await self._jobs.acquire(self._state, alone=True)
            if not self._suspects or self._rests():  # revoked, or paused, meanwhile
                held.release()
                return
            item, epoch = self._suspects.popleft(), self.member.epoch
            self.breaker.allows(anyio.current_time())
            with self._batches.until_done(self._batches.launch()):
                outcome = await self._batches.replay(item, epoch, held, self._limits.deaths_alone)
                self.stats.replayed += outcome.judged
                self.stats.killers += not outcome.judged
                self._learn(outcome)
        self._signal()

    def _adapt(self, items: Sequence[Item], judgement: Judgement) -> None:
        """Adapt the size of batches to what one took."""
        cap = self.queue.cap
        if judgement.fits is not None:
            cap.lower(judgement.fits)
            logger.warning("batch_cap", tier=self.tier, images=cap.now)
        else:
            cap.fitted(len(items))

    def _learn(self, outcome: Outcome, expired: int = 0) -> None:
        """Count what came of a batch."""
        self.stats.out_of_memory += outcome.judgement.fits is not None
        self.stats.add(outcome, expired)
        records = max(outcome.judged, outcome.letters) if outcome.finished else 0
        self._watch(outcome.lost, records)

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
        self.stats.abandoned += await self._batches.drain(self._limits.drain_timeout)
