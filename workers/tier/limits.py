"""What a tier worker may hold and how long it waits; what is counted of it."""

import msgspec

from roadstream.schemas.histogram import Histogram
from roadstream.stages.breaker import SharePolicy
from roadstream.workers.tier.batch import TierBatch


class WorkerLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a tier worker holds and waits for.

    Attributes:
        queue_bytes: Bytes of queued pictures beyond which it stops taking images.
        queue_batches: Full batches queued beyond which it stops likewise.
        downstream_lag: Records a later tier may be behind before archive images wait here.
        poll_timeout: Seconds a poll waits for the first record.
        drain_timeout: Seconds that batches which run may take once partitions are to be given up.
        deaths_alone: Times that an image may kill the process while it runs alone, before it is
            answered as failed without being tried again.
        version_patience: Seconds that images wait for a version of the cascade that this process
            cannot judge by, before they are answered without this tier.
        dead_letters: When the worker pauses because too many records become dead letters.
    """

    queue_bytes: int = 64 << 20
    queue_batches: int = 4
    downstream_lag: int = 10_000
    poll_timeout: float = 0.25
    drain_timeout: float = 30.0
    deaths_alone: int = 2
    version_patience: float = 60.0
    dead_letters: SharePolicy = SharePolicy()


class TierStats(msgspec.Struct):
    """Counters of a tier worker since its process began.

    Attributes:
        judged: Images that left it, expired ones included.
        batches: Batches that it finished.
        expired: Images whose deadline had passed before their batch was formed.
        escalated: Images sent on to a later tier.
        dead_letters: Dead letters written.
        abandoned: Batches still running when the drain budget was spent; others do them again.
        fenced: Images whose work came to nothing, as their partitions had another owner by then.
        replayed: Suspects run alone after the process had died.
        killers: Images answered as failed because they kill the process.
        out_of_memory: Batches that did not fit into memory as a whole.
        held_back: Whether archive images wait for a later tier now.
        service: Seconds that batches took, from decoding to votes.
        waiting: Seconds that the image of a batch that waited longest had waited.
    """

    judged: int = 0
    batches: int = 0
    expired: int = 0
    escalated: int = 0
    dead_letters: int = 0
    abandoned: int = 0
    fenced: int = 0
    replayed: int = 0
    killers: int = 0
    out_of_memory: int = 0
    held_back: bool = False
    service: Histogram = msgspec.field(default_factory=Histogram)
    waiting: Histogram = msgspec.field(default_factory=Histogram)

    def add(self, batch: TierBatch) -> None:
        """Count what came of a batch."""
        self.out_of_memory += batch.fits is not None
        if batch.alone:
            self.replayed += batch.judged
            self.killers += not batch.judged
        if not batch.finished:
            self.fenced += len(batch.images)
            return
        self.batches += 1
        self.judged += len(batch.images)
        self.expired += len(batch.expired)
        self.escalated += sum([said.next_tier is not None for said in batch.votes])
        self.dead_letters += len(batch.failures)
        if batch.judged:
            self.service.observe(batch.seconds)
            self.waiting.observe(max([said.queued for said in batch.votes]))
