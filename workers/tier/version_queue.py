"""The images of one version of the cascade at a tier: they wait here for a batch of their own."""

import math
from collections import deque
from typing import TYPE_CHECKING

import anyio
import structlog

from roadstream.schemas.errors import ImageError
from roadstream.schemas.records.bounds import MOST_TEXT
from roadstream.schemas.records.votes import MemberRun
from roadstream.stages.batching.batcher import Batcher, QueueState
from roadstream.stages.batching.device_queue import SlotRequest
from roadstream.stages.batching.policy import Moment
from roadstream.stages.voting.tier_votes import Failure, unjudged
from roadstream.workers.tier.batch import TierBatch
from roadstream.workers.tier.devices import Slot
from roadstream.workers.tier.judge import Judge
from roadstream.workers.tier.records import Item
from roadstream.workers.tier.versions import Unavailable

if TYPE_CHECKING:
    from roadstream.workers.tier.worker import TierWorker

logger = structlog.get_logger()


class VersionQueue:
    """One version's images at a tier worker, from when they come until their batch begins.

    Args:
        worker: The worker.
        version: Hash of the version.
        judge: Its judge; ``None`` while it is being loaded.

    Attributes:
        judge: As given, or installed since.
        cascade: Name of its cascade.
        images: Those that wait for a batch.
        suspects: Those that ran when the process died last; each runs alone.
    """

    def __init__(self, worker: "TierWorker", version: str, judge: Judge | None = None) -> None:
        self._worker, self.version = worker, version
        self.judge = judge
        self.cascade = "" if judge is None else judge.cascade.name
        self.images: Batcher[Item] = Batcher(1) if judge is None else worker.batcher(judge)
        self.suspects: deque[Item] = deque()
        self._live_came = anyio.Event()
        # Since when images wait with no batch.
        self._idle_since = 0.0
        self._closed = False

    def __len__(self) -> int:
        """Return how many images wait."""
        return len(self.images) + len(self.suspects)

    @property
    def size(self) -> int:
        """Bytes of the images that wait."""
        return self.images.size + sum(item.size for item in self.suspects)

    @property
    def runs(self) -> list[MemberRun]:
        """Runs of its members, none of which was called."""
        return [] if self.judge is None else [one.absent() for one in self.judge.members]

    def drop(self) -> None:
        """Forget what waits."""
        self.images.drop()
        self.suspects.clear()

    def begin(self) -> None:
        """Be ready to run, with nothing waiting."""
        self.drop()
        self._live_came = anyio.Event()
        self._idle_since = 0.0

    def close(self) -> None:
        """Let ``dispatch`` and ``expire`` return: nothing waits, and nothing will."""
        self._closed = True
        self._live_came.set()
        self._worker.signal()

    def install(self, judge: Judge) -> None:
        """Let its images be judged from now on."""
        waiting = self.images.drop()
        self.judge, self.cascade = judge, judge.cascade.name
        self.images = self._worker.batcher(judge)
        self.add(waiting, [])

    def add(self, items: list[Item], suspects: list[Item]) -> None:
        """Take in images, and those that are to run alone."""
        if self.judge is not None and self.judge.shapes.several:
            for item in items:
                item.shape = item.shape_among(self.judge.shapes)
        if not len(self.images):
            self._idle_since = anyio.current_time()
        self.suspects += suspects
        self.images.add(items, self._worker.now())
        if self.images.next_deadline_at is not None:
            self._live_came.set()

    async def dispatch(self) -> None:
        """Form batches and let them begin, until it is cancelled or closed."""
        worker = self._worker
        while not self._closed:
            if self.judge is None:
                await worker.change(math.inf)
            elif self._idle():
                await worker.change(self._until_trial())
            elif self.suspects:
                await self._replay(self.judge)
            elif (patience := self._patience(self.judge)) > 0.0:
                await worker.change(patience)
            else:
                await self._start(self.judge)

    async def _start(self, judge: Judge) -> None:
        """Wait for a slot, and let the next batch begin in it."""
        slot = await judge.devices.acquire(self._request(judge))
        if not len(self.images) or self._worker.rests():  # revoked, or paused, meanwhile
            slot.release()
            return
        self._worker.start(self._next_batch(judge, slot))

    def _idle(self) -> bool:
        """Return whether no batch may begin now: nothing waits, or the worker is paused."""
        return not len(self) or self._worker.rests()

    def _patience(self, judge: Judge) -> float:
        """Return how long to wait for a fuller batch before a slot is asked for."""
        moment = self._moment(0.0, judge.devices.in_flight)
        return self.images.begin_at(moment) - moment.now

    def _moment(self, free_in: float, running: int) -> Moment:
        """Return what the policy is told of this moment, while so many batches are in flight."""
        idle = 0.0 if running else anyio.current_time() - self._idle_since
        worker = self._worker
        return Moment(worker.now(), free_in, running, idle, worker.more_waits)

    def _next_batch(self, judge: Judge, slot: Slot) -> TierBatch:
        """Form the batch that a slot is for; a policy that fails gives the slot back."""
        try:
            # The slot itself counts as a batch in flight.
            moment = self._moment(slot.wait, judge.devices.in_flight - 1)
            items, expired = self.images.next_batch(moment)
        except BaseException:
            slot.release()
            raise
        batch = TierBatch(items, expired, epoch=self._worker.member.epoch, slot=slot, queue=self)
        if items:
            latency, size = judge.latency_of(items[0].shape), len(items)
            seconds = {name: latency.running(size, name) for name in judge.occupies}
            slot.expect(latency.preparing(size), seconds)
        return batch

    def _request(self, judge: Judge, *, alone: bool = False) -> SlotRequest:
        """Return a request for a slot on the devices that a batch of this tier occupies."""
        return SlotRequest(judge.rank, judge.occupies, self._state, alone)

    def _state(self) -> QueueState:
        return self.images.state(self._worker.now())

    def _until_trial(self) -> float:
        """Return the seconds until what waits may be tried; infinity if no pause keeps it."""
        return self._worker.until_trial() if len(self) else math.inf

    async def expire(self) -> None:
        """Answer live images whose deadline passes while they wait, even if no slot is free."""
        worker = self._worker
        while not self._closed:
            if expired := self.images.expired(worker.now()):
                await worker.carry_out(
                    TierBatch([], expired, epoch=worker.member.epoch, queue=self)
                )
                continue
            due = self.images.next_deadline_at
            # In short steps, as the wall clock may be moved.
            patience = math.inf if due is None else min(1.0, max(0.001, due - worker.now()))
            self._live_came = anyio.Event()
            with anyio.move_on_after(patience):
                await self._live_came.wait()

    async def _replay(self, judge: Judge) -> None:
        """Judge the next suspect alone, with nothing else running in this process.

        One that killed so many processes alone is answered as failed, with a dead letter.
        """
        worker = self._worker
        notes = worker.notes
        async with notes.alone:
            slot = await judge.devices.acquire(self._request(judge, alone=True))
            if not self.suspects or worker.rests():  # revoked, or paused, meanwhile
                slot.release()
                return
            item = self.suspects.popleft()
            batch = TierBatch([item], epoch=worker.member.epoch, slot=slot, alone=True, queue=self)
            suspect = notes.of(item)
            if suspect is not None and suspect.alone >= worker.limits.deaths_alone:
                slot.release()
                self._give_up_on(batch, suspect.deaths)
            else:
                logger.warning("suspect_replayed", tier=worker.tier, uri=item.head.uri)
            await worker.carry_out(batch, trial=True)

    def _give_up_on(self, batch: TierBatch, deaths: int) -> None:
        """Let the image of a batch fail without being judged."""
        head = batch.items[0].head
        error = str(ImageError("process_killed", f"{deaths} processes died while they judged it"))
        logger.error("process_killer", tier=self._worker.tier, uri=head.uri, deaths=deaths)
        batch.slot = None
        batch.votes = [unjudged(head, len(self.runs), error)]
        batch.failures = [Failure(0, None, error, deaths, True, "process_killed")]

    def unavailable(self, why: Unavailable) -> TierBatch:
        """Return the batch of all that waits, none of it judged: there is no judge for it."""
        self.cascade = why.cascade
        error = f"version_unavailable: {self.version}: {why.reason}"[:MOST_TEXT]
        items = [*self.suspects, *self.images.drop()]
        self.suspects.clear()
        batch = TierBatch(items, epoch=self._worker.member.epoch, queue=self)
        batch.runs = list(why.runs)
        batch.votes = [unjudged(item.head, len(why.runs), error) for item in items]
        return batch
