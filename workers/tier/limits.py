"""What a tier worker may hold and how long it waits; what is counted of it."""

import msgspec

from roadstream.schemas.histogram import Histogram
from roadstream.stages.breaker import SharePolicy
from roadstream.workers.tier.batches import Outcome


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
        dead_letters: When the worker pauses because too many records become dead letters.
    """

    queue_bytes: int = 64 << 20
    queue_batches: int = 4
    downstream_lag: int = 10_000
    poll_timeout: float = 0.25
    drain_timeout: float = 30.0
    deaths_alone: int = 2
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
        replayed: CrashNotes run alone after the process had died.
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

    def add(self, outcome: Outcome, expired: int) -> None:
        """Count what came of a batch, of which so many had expired before it was formed."""
        if not outcome.finished:
            self.fenced += len(outcome.items)
            return
        self.batches += 1
        self.judged += len(outcome.items)
        self.expired += expired
        self.escalated += sum([said.next_tier is not None for said in outcome.judgement.votes])
        self.dead_letters += outcome.letters
        if outcome.judged:
            self.service.observe(outcome.judgement.seconds)
            self.waiting.observe(max([said.queued for said in outcome.judgement.votes]))
