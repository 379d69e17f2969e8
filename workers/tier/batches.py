"""The batches of one tier worker on their way: judged in a thread, published, finished."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import anyio
import msgspec
import structlog

from roadstream.schemas.errors import ImageError
from roadstream.stages.batching.batcher import Batch
from roadstream.stages.voting.tier_votes import LATE, unjudged
from roadstream.streams.clock import Clock, SystemClock
from roadstream.streams.group.dead_letter import Cause
from roadstream.streams.group.member import GroupMember
from roadstream.streams.log import Output, TopicPartition
from roadstream.workers.tier.crash_notes import CrashNotes
from roadstream.workers.tier.devices import Held
from roadstream.workers.tier.jobs import Jobs, RunBlocking, in_thread
from roadstream.workers.tier.judge import Judge, Judgement
from roadstream.workers.tier.outputs import Packer
from roadstream.workers.tier.records import Item

logger = structlog.get_logger()


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What a tier worker shares with its process, or has from it.

    Attributes:
        suspects: Notes of what runs, for the next process of this name.
        clock: Wall clock, for deadlines and timestamps.
        run_blocking: Runs the judging of a batch; by default in a worker thread.
    """

    notes: CrashNotes = msgspec.field(default_factory=CrashNotes)
    clock: Clock = SystemClock()
    run_blocking: RunBlocking = in_thread


class Outcome(NamedTuple):
    """What came of a batch.

    Attributes:
        items: The images that left the worker with it.
        judgement: Their judgement.
        judged: How many of them were judged, and not expired before.
        letters: How many have a dead letter.
        lost: How many of these have no vote of any member, and so a failed answer.
        finished: False when the partitions had another owner by then, who does it again.
    """

    items: list[Item]
    judgement: Judgement
    judged: int
    letters: int
    lost: int
    finished: bool


class Batches:
    """Runs batches of one worker.

    Args:
        judge: Judges them.
        member: Publishes and commits.
        jobs: The threads.
        around: The worker's surroundings.
        adapt: Given a batch and its judgement, before the next one is formed.
    """

    def __init__(
        self,
        judge: Judge,
        member: GroupMember,
        jobs: Jobs,
        around: Surroundings,
        adapt: Callable[[list[Item], Judgement], None],
    ) -> None:
        self._judge, self._member, self._jobs, self._around = judge, member, jobs, around
        self._adapt = adapt
        self._packer = Packer(judge.cascade, judge.tier)
        self._running: set[anyio.CancelScope] = set()
        self._ended = anyio.Event()

    def __len__(self) -> int:
        """Return the number of batches on their way."""
        return len(self._running)

    def launch(self) -> anyio.CancelScope:
        """Count a batch that is about to run, in the scope that is returned."""
        scope = anyio.CancelScope()
        self._running.add(scope)
        return scope

    @contextmanager
    def until_done(self, scope: anyio.CancelScope) -> Iterator[None]:
        """Be in a launched batch's scope."""
        try:
            with scope:
                yield
        finally:
            self._running.discard(scope)
            self._ended.set()
            self._ended = anyio.Event()

    async def run(
        self, batch: Batch[Item], epoch: int, held: Held, *, alone: bool = False
    ) -> Outcome:
        """Judge a batch in its turn, publish what comes of it, and finish it.

        Raises:
            LogUnavailableError: The outputs were not acknowledged.
            OutputError: The log refuses them.
        """
        items = batch.items

        def judge() -> Judgement:
            with self._around.notes.running(items, alone=alone):
                return self._judge.judge(items, held.over)

        judgement = await self._jobs.run(judge, held, lambda found: self._adapt(items, found))
        if batch.expired:
            runs = len(judgement.runs)
            late = [unjudged(item.head, runs, str(LATE)) for item in batch.expired]
            items = items + batch.expired
            judgement = judgement._replace(votes=judgement.votes + late)
        outputs = self._packer.outputs(items, judgement, self._around.clock.now())
        finished = await self._finish(items, outputs, epoch)
        lost = sum(failure.final for failure in judgement.failures)
        letters = len(judgement.failures)
        return Outcome(items, judgement, len(batch.items), letters, lost, finished)

    async def pass_by(self, expired: list[Item], epoch: int) -> Outcome:
        """Answer images whose deadline has passed, without a slot and without work.

        Raises:
            LogUnavailableError: The outputs were not acknowledged.
            OutputError: The log refuses them.
        """
        runs = [running.absent() for running in self._judge.members]
        votes = [unjudged(item.head, len(runs), str(LATE)) for item in expired]
        judgement = Judgement(runs, votes)
        outputs = self._packer.outputs(expired, judgement, self._around.clock.now())
        finished = await self._finish(expired, outputs, epoch)
        return Outcome(expired, judgement, 0, 0, 0, finished)

    async def replay(self, item: Item, epoch: int, held: Held, deaths_alone: int) -> Outcome:
        """Judge an image alone that ran when the process died.

        One that killed so many processes alone is answered as failed, with a dead letter.

        Raises:
            LogUnavailableError: The outputs were not acknowledged.
            OutputError: The log refuses them.
        """
        suspect = self._around.notes.of(item)
        if suspect is None or suspect.alone < deaths_alone:
            logger.warning("suspect_replayed", tier=self._judge.tier, uri=item.head.uri)
            return await self.run(Batch([item], []), epoch, held, alone=True)
        held.release()
        return await self._give_up_on(item, suspect.deaths, epoch)

    async def _give_up_on(self, item: Item, deaths: int, epoch: int) -> Outcome:
        error = str(ImageError("process_killed", f"{deaths} processes died while they judged it"))
        logger.error("process_killer", tier=self._judge.tier, uri=item.head.uri, deaths=deaths)
        runs = [running.absent() for running in self._judge.members]
        judgement = Judgement(runs, [unjudged(item.head, len(runs), error)])
        now = self._around.clock.now()
        outputs = self._packer.outputs([item], judgement, now)
        cause = Cause("process_killed", attempts=deaths)
        outputs.append(self._packer.letter(item, error, cause, now))
        finished = await self._finish([item], outputs, epoch)
        return Outcome([item], judgement, 0, 1, 1, finished)

    async def _finish(self, items: Sequence[Item], outputs: list[Output], epoch: int) -> bool:
        done: dict[TopicPartition, list[int]] = {}
        for item in items:
            done.setdefault(item.tp, []).append(item.offset)
        if not await self._member.finish(outputs, done, epoch):
            return False
        self._around.notes.settle(items)
        return True

    async def drain(self, timeout: float) -> int:
        """Wait until no batch runs, or ``timeout`` is over; then let go of those that still do.

        What is let go of is never published: its images are judged again by their next owner.

        Returns:
            The number of batches let go of.
        """
        with anyio.move_on_after(timeout):
            while self._running:
                await self._ended.wait()
        left = list(self._running)
        for scope in left:
            scope.cancel()
        if left:
            logger.error("drain_timed_out", tier=self._judge.tier, batches=len(left), after=timeout)
        return len(left)
