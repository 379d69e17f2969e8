"""A batch on its way through a tier: one value, with one owner at a time."""

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import anyio

from roadstream.schemas import codec
from roadstream.schemas.errors import ImageError
from roadstream.schemas.records import headers
from roadstream.schemas.records.votes import Box, ImageVotes, MemberRun, PriorVote, VotesPack
from roadstream.schemas.topics import DEAD_LETTERS, VOTES, tier_group
from roadstream.schemas.topics import tier as tier_topic
from roadstream.stages.inference import Picture
from roadstream.stages.voting.evidence import evidence_after, revised
from roadstream.stages.voting.tier_votes import Failure
from roadstream.streams.group.dead_letter import Cause, dead_letter
from roadstream.streams.log import Output
from roadstream.workers.tier.devices import Slot
from roadstream.workers.tier.records import EscalationView, Item

if TYPE_CHECKING:
    from roadstream.workers.tier.version_queue import VersionQueue


class TierBatch:
    """The images of a batch, all of one version, what it occupies, and all that comes of it.

    Its worker's event loop forms it and hands it to a thread, which judges it; then the loop has it
    back and publishes what came of it. Only ``begin`` and ``abandon`` may be called by both: a
    thread cannot be killed, so a loop that waits no longer leaves the batch to its thread.

    Args:
        items: The images to be judged.
        expired: Live images whose deadline had passed before it was formed.
        epoch: Of the assignment under which they were read.
        slot: What it occupies; ``None`` where nothing is to be judged, and in no worker.
        alone: Whether nothing else runs in its process.
        queue: Where its images waited; ``None`` in no worker.

    Attributes:
        pictures: Per item its picture, or why there is none, for as long as it is judged.
        runs: The member runs that the votes refer to.
        votes: Per item the tier's votes, then per expired image.
        lowered: Per row of an image of which rules changed boxes, what these became.
        failures: Images that call for a dead letter besides.
        fits: Largest part of it that fitted into memory, if it did not; else ``None``.
        seconds: What judging it took.
        judged: How many images were judged.
        finished: Whether it was published and committed; else its images have another owner.
        ended: Whether its thread has begun and ended.
    """

    __slots__ = (
        "_abandoned", "_begun", "_deciding", "_scope", "alone", "ended", "epoch", "expired",
        "failures", "finished", "fits", "items", "judged", "lowered", "pictures", "queue", "runs",
        "seconds", "slot", "votes",
    )  # fmt: skip

    def __init__(
        self,
        items: list[Item],
        expired: Sequence[Item] = (),
        *,
        epoch: int = 0,
        slot: Slot | None = None,
        alone: bool = False,
        queue: "VersionQueue | None" = None,
    ) -> None:
        self.items, self.expired, self.epoch = items, expired, epoch
        self.queue = queue
        self.slot, self.alone = slot, alone
        self.pictures: list[Picture | ImageError] = []
        self.runs: list[MemberRun] = []
        self.votes: list[ImageVotes] = []
        self.lowered: dict[int, Mapping[Box, Box]] = {}
        self.failures: list[Failure] = []
        self.fits: int | None = None
        self.seconds = 0.0
        self.judged = 0
        self.finished = self.ended = False
        self._scope: anyio.CancelScope | None = None
        self._deciding = threading.Lock()
        self._begun = self._abandoned = False

    @property
    def images(self) -> list[Item]:
        """All that leave the tier with it, as their votes stand."""
        return [*self.items, *self.expired] if self.expired else self.items

    @property
    def lost(self) -> int:
        """Number of images that have no vote of any member, and so a failed answer."""
        return sum([failure.final for failure in self.failures])

    @property
    def scope(self) -> anyio.CancelScope:
        """What its worker cancels to wait for it no longer."""
        if self._scope is None:
            self._scope = anyio.CancelScope()
        return self._scope

    def begin(self) -> bool:
        """Return whether its thread may begin: not once it was abandoned."""
        with self._deciding:
            self._begun = not self._abandoned
            return self._begun

    def abandon(self) -> bool:
        """Wait for it no longer; return whether its thread runs on all the same."""
        with self._deciding:
            self._abandoned = True
            return self._begun and not self.ended


def outputs_of(batch: TierBatch, cascade: str, version: str, tier: str, now: float) -> list[Output]:
    """Return one votes pack per partition, an escalation per image that goes on, and a dead letter
    per image that failed.

    Args:
        batch: The batch, judged.
        cascade: Name of the cascade.
        version: Its hash.
        tier: Name of the tier.
        now: Seconds since the epoch.
    """
    outputs: list[Output] = []
    images = batch.images
    by_partition: dict[int, list[int]] = {}
    for i, item in enumerate(images):
        by_partition.setdefault(item.tp.partition, []).append(i)
    for partition, rows in by_partition.items():
        votes = [batch.votes[i] for i in rows]
        pack = VotesPack(
            tier=tier,
            cascade=cascade,
            cascade_hash=version,
            sent_at=now,
            runs=batch.runs,
            images=votes,
        )
        outputs.append(Output(VOTES, None, codec.encode(pack), partition, headers.VOTES))
        for i, said in zip(rows, votes, strict=True):
            if said.next_tier is not None:
                outputs.append(_escalation(batch, i, said.next_tier, version))
    outputs += [_letter(images[one.row], one, tier, now) for one in batch.failures]
    return outputs


def _letter(item: Item, failure: Failure, tier: str, now: float) -> Output:
    attempts = max(1, failure.attempts)
    cause = Cause(failure.reason, item.head.image_id, tier, failure.member, attempts)
    letter = dead_letter(item.tp, item, failure.error, tier_group(tier), now, cause)
    return Output(DEAD_LETTERS, item.key, letter, item.tp.partition, headers.DEAD_LETTER)


def _escalation(batch: TierBatch, row: int, target: str, version: str) -> Output:
    item, said, runs = batch.items[row], batch.votes[row], batch.runs
    cast = [
        PriorVote(run.member, run.weight, p)
        for run, p in zip(runs, said.probability, strict=True)
        if p is not None and run.weight > 0
    ]
    votes = revised(item.prior + cast, said.revised)
    evidence = evidence_after(item.evidence, said, runs, votes, batch.lowered.get(row))
    escalation = EscalationView(item.head, item.payload, votes, said.reason, version, evidence)
    value = codec.encode(escalation)
    topic = tier_topic(target, item.head.lane)
    return Output(topic, item.head.key, value, item.tp.partition, headers.ESCALATION)
