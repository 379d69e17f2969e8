"""A batch on its way through a tier: one value, with one owner at a time."""

import threading
from collections.abc import Sequence

import anyio

from roadstream.schemas.errors import ImageError
from roadstream.schemas.records.votes import ImageVotes, MemberRun
from roadstream.stages.inference import Picture
from roadstream.stages.voting.tier_votes import Failure
from roadstream.workers.tier.devices import Slot
from roadstream.workers.tier.records import Item


class TierBatch:
    """The images of a batch, what it occupies, and all that comes of it.

    Its worker's event loop forms it and hands it to a thread, which judges it; then the loop has it
    back and publishes what came of it. Only ``begin`` and ``abandon`` may be called by both: a
    thread cannot be killed, so a loop that waits no longer leaves the batch to its thread.

    Args:
        items: The images to be judged.
        expired: Live images whose deadline had passed before it was formed.
        epoch: Of the assignment under which they were read.
        slot: What it occupies; ``None`` where nothing is to be judged, and in no worker.
        alone: Whether nothing else runs in its process.

    Attributes:
        pictures: Per item its picture, or why there is none.
        runs: The member runs that the votes refer to.
        votes: Per item the tier's votes, then per expired image.
        failures: Images that call for a dead letter besides.
        fits: Largest part of it that fitted into memory, if it did not; else ``None``.
        seconds: What judging it took.
        judged: How many images were judged.
        finished: Whether it was published and committed; else its images have another owner.
        ended: Whether its thread has begun and ended.
    """

    __slots__ = (
        "_abandoned", "_begun", "_deciding", "_scope", "alone", "ended", "epoch", "expired",
        "failures", "finished", "fits", "items", "judged", "pictures", "runs", "seconds", "slot",
        "votes",
    )  # fmt: skip

    def __init__(
        self,
        items: list[Item],
        expired: Sequence[Item] = (),
        *,
        epoch: int = 0,
        slot: Slot | None = None,
        alone: bool = False,
    ) -> None:
        self.items, self.expired, self.epoch = items, expired, epoch
        self.slot, self.alone = slot, alone
        self.pictures: list[Picture | ImageError] = []
        self.runs: list[MemberRun] = []
        self.votes: list[ImageVotes] = []
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
        return [*self.items, *self.expired]

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
