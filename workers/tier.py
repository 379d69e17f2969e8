"""A tier worker: polls images, batches them late, has them judged, publishes votes, commits."""

import time
from collections.abc import Collection, Sequence

import anyio
import anyio.abc
import msgspec
import structlog
from anyio import to_thread

from schemas import codec
from schemas.errors import RecordError
from schemas.records import Escalation, Inline, Payload, PriorVote, VotesPack
from schemas.topics import DEAD_LETTERS, VOTES, tier_group, tier_inputs
from schemas.topics import tier as tier_topic
from sinks.consensus import dead_letter
from stages.batcher import Batch, Batcher
from streams.clock import Clock, SystemClock
from streams.log import Log, Output, Polled, Record, TopicPartition
from streams.member import GroupMember, MemberOptions
from workers.judge import Item, Judge, Judgement, unjudged

logger = structlog.get_logger()


class WorkerLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a tier worker holds and waits for.

    Attributes:
        queue_bytes: Bytes of queued pictures beyond which it stops taking images.
        queue_batches: Full batches queued beyond which it stops likewise.
        downstream_lag: Records a later tier may be behind before archive images wait here.
        poll_timeout: Seconds a poll waits for the first record.
    """

    queue_bytes: int = 64 << 20
    queue_batches: int = 4
    downstream_lag: int = 10_000
    poll_timeout: float = 0.25


class TierWorker:
    """One worker of one tier: a member of the tier's consumer group.

    Args:
        log: The log, open.
        judge: The tier's judge, its engines loaded and warm.
        slots: Batches this process may judge at once, shared by its workers; two let the decoding
            of one batch overlap the inference of another.
        limits: What it may hold.
        options: How it takes part in the group.
    """

    def __init__(
        self,
        log: Log,
        judge: Judge,
        *,
        slots: anyio.Semaphore,
        limits: WorkerLimits | None = None,
        options: MemberOptions | None = None,
    ) -> None:
        cascade = judge.cascade
        self._log, self._judge, self._slots = log, judge, slots
        self._limits = limits or WorkerLimits()
        self._clock: Clock = SystemClock()
        self._first = judge.tier == cascade.tier_names[0]
        self._inputs = tier_inputs(judge.tier, first=self._first)
        self._queue: Batcher[Item] = Batcher(cascade.tier(judge.tier).max_batch)
        self.member = GroupMember(
            self, "worker", tier_group(judge.tier), self._inputs, options or MemberOptions()
        )
        self._work, self._changed = anyio.Event(), anyio.Event()
        self._running = 0
        self._stopped = False
        self._lag_checked_at = float("-inf")
        self._held_back = False
        self.judged = 0

    async def run(self, stopping: anyio.Event) -> None:
        """Work until ``stopping`` is set; then finish the batches that run, commit, and leave.

        Raises:
            LogUnavailableError: The log does not answer.
        """
        async with self.member.joined(self._log):
            logger.info("worker_started", tier=self._judge.tier)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._dispatch, tasks)
                while not stopping.is_set():
                    await self._fill()
                self._stopped = True
                self._queue.drop()
                self._work.set()
            await self.member.flush()
        logger.info("worker_stopped", tier=self._judge.tier, judged=self.judged)

    async def _fill(self) -> None:
        """Poll once, for as many images as there is room for."""
        room = self._room()
        if room <= 0:
            with anyio.move_on_after(self._limits.poll_timeout):
                await self._changed.wait()
            await self.member.poll(max_records=0, timeout=0)
            return
        polled = await self.member.poll(
            max_records=room, timeout=self._limits.poll_timeout, topics=await self._open_topics()
        )
        if polled:
            await self._enqueue(polled)
        elif self._running == 0:
            await self.member.flush()

    def _room(self) -> int:
        if self._queue.size >= self._limits.queue_bytes:
            return 0
        return self._limits.queue_batches * self._queue.max_batch - len(self._queue)

    async def _open_topics(self) -> Collection[str] | None:
        """Return the topics that may deliver: live only while a later tier is too far behind."""
        if not self._judge.targets:
            return None
        now = time.monotonic()
        if now - self._lag_checked_at >= 1.0:
            self._lag_checked_at = now
            lags = [
                await self._log.lag(tier_group(name), list(tier_inputs(name, first=False)))
                for name in self._judge.targets
            ]
            held_back = max(lags) > self._limits.downstream_lag
            if held_back != self._held_back:
                self._held_back = held_back
                logger.info("backpressure", tier=self._judge.tier, on=held_back, lag=max(lags))
        if not self._held_back:
            return None
        return [topic for topic, lane in self._inputs.items() if lane == "live"]

    async def _enqueue(self, polled: Polled) -> None:
        letters: list[Output] = []
        unread: dict[TopicPartition, list[int]] = {}
        items: list[Item] = []
        now = self._clock.now()
        for tp, records in polled.items():
            for record in records:
                try:
                    items.append(self._item(tp, record))
                except RecordError as error:
                    logger.error("dead_letter", error=str(error))
                    letter = dead_letter(tp, record, error, tier_group(self._judge.tier), now)
                    letters.append(Output(DEAD_LETTERS, record.key, letter, tp.partition))
                    unread.setdefault(tp, []).append(record.offset)
        self._queue.add(items, now)
        self._work.set()
        if letters:
            await self.member.finish(letters, unread, self.member.epoch)

    def _item(self, tp: TopicPartition, record: Record) -> Item:
        prior: list[PriorVote]
        if self._first:
            image = codec.decode(codec.decode_image, record.value, *tp, record.offset)
            head, payload, prior = image.head, image.payload, []
        else:
            escalated = codec.decode(codec.decode_escalation, record.value, *tp, record.offset)
            head, payload, prior = escalated.head, escalated.payload, escalated.votes
        return Item(
            head,
            payload,
            prior,
            tp,
            record.offset,
            record.timestamp / 1000,
            head.deadline_at,
            _size(payload),
        )

    async def _dispatch(self, tasks: anyio.abc.TaskGroup) -> None:
        while not self._stopped:
            if not len(self._queue):
                self._work = anyio.Event()
                await self._work.wait()
                continue
            await self._slots.acquire()
            batch = self._queue.next_batch(self._clock.now())
            self._running += 1
            tasks.start_soon(self._process, batch, self.member.epoch)
            self._signal()

    async def _process(self, batch: Batch[Item], epoch: int) -> None:
        try:
            began = time.perf_counter()
            try:
                judgement = await to_thread.run_sync(self._judge.judge, batch.items)
            finally:
                self._slots.release()
            if batch.items:
                self._queue.service_time.observe(len(batch.items), time.perf_counter() - began)
            late = [
                unjudged(
                    item.head, len(judgement.runs), "expired: the deadline passed in the queue"
                )
                for item in batch.expired
            ]
            items = batch.items + batch.expired
            judgement = Judgement(judgement.runs, judgement.votes + late)
            done: dict[TopicPartition, list[int]] = {}
            for item in items:
                done.setdefault(item.tp, []).append(item.offset)
            await self.member.finish(self._outputs(items, judgement), done, epoch)
            self.judged += len(items)
        finally:
            self._running -= 1
            self._signal()

    def _signal(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    def _outputs(self, items: Sequence[Item], judgement: Judgement) -> list[Output]:
        """Return one votes pack per partition, and an escalation per image that goes on."""
        outputs: list[Output] = []
        by_partition: dict[int, list[int]] = {}
        for i, item in enumerate(items):
            by_partition.setdefault(item.tp.partition, []).append(i)
        sent_at = self._clock.now()
        for partition, rows in by_partition.items():
            votes = [judgement.votes[i] for i in rows]
            pack = VotesPack(
                tier=self._judge.tier,
                cascade=self._judge.cascade.name,
                cascade_hash=self._judge.cascade.hash,
                sent_at=sent_at,
                runs=judgement.runs,
                images=votes,
            )
            outputs.append(Output(VOTES, None, codec.encode(pack), partition))
            for i, said in zip(rows, votes, strict=True):
                if said.next_tier is not None:
                    outputs.append(self._escalation(items[i], said.next_tier, judgement, i))
        return outputs

    def _escalation(self, item: Item, target: str, judgement: Judgement, row: int) -> Output:
        said = judgement.votes[row]
        cast = [
            PriorVote(run.member, run.weight, p)
            for run, p in zip(judgement.runs, said.probability, strict=True)
            if p is not None and run.weight > 0
        ]
        escalation = Escalation(item.head, item.payload, item.prior + cast, said.reason)
        topic = tier_topic(target, item.head.lane)
        return Output(topic, item.head.key, codec.encode(escalation), item.tp.partition)

    async def take_over(self, partitions: Collection[TopicPartition]) -> None:
        """Nothing to prepare: work starts afresh from the committed offsets."""

    async def give_up(self, partitions: Collection[TopicPartition]) -> None:
        """Drop what is queued, and let the batches that run finish."""
        self._queue.drop()
        while self._running:
            await self._changed.wait()


def _size(payload: Payload) -> int:
    return len(payload.data) if isinstance(payload, Inline) else 512
