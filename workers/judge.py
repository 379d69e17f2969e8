"""One tier's judgement of a batch: read, decode, infer, calibrate, pool, route. Blocking code."""

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import structlog

from schemas.cascade import Cascade, Member
from schemas.errors import ImageError
from schemas.records import Box, Head, ImageVotes, MemberRun, Payload, PriorVote
from stages.calibration import Calibrator, calibrator
from stages.decode import decode
from stages.inference import Engine, Picture, Score, infer_isolated
from stages.route import Router
from stages.vote import decision_confidence, disagreement, pooled
from streams.log import TopicPartition
from streams.sources.payload import read_payload

logger = structlog.get_logger()


class Item(msgspec.Struct, gc=False):
    """An image waiting at a tier, with the place in the log it came from.

    Attributes:
        head: The image.
        payload: Its picture.
        prior: Votes of earlier tiers.
        tp: Partition it was read from.
        offset: Its offset there.
        arrived_at: When it was appended to this tier's topic.
        deadline_at: Copied from the head.
        size: Bytes held in memory.
    """

    head: Head
    payload: Payload
    prior: list[PriorVote]
    tp: TopicPartition
    offset: int
    arrived_at: float
    deadline_at: float | None
    size: int


class RunningMember(NamedTuple):
    """A member of the tier with its engine."""

    member: Member
    engine: Engine
    calibrate: Calibrator


class Judgement(NamedTuple):
    """Votes for a batch, in its order, and the member runs they refer to."""

    runs: list[MemberRun]
    votes: list[ImageVotes]


class Judge:
    """Judges batches of one tier.

    Args:
        cascade: The cascade.
        tier: Name of the tier.
        engines: Engine per member name.
        device: Held while engines run, so that the members of a process share its device.
        roots: Folders that references may point into; ``None`` allows every folder.
        max_bytes: Largest picture that is read.
    """

    def __init__(
        self,
        cascade: Cascade,
        tier: str,
        engines: dict[str, Engine],
        *,
        device: threading.Lock,
        roots: Sequence[Path] | None,
        max_bytes: int,
    ) -> None:
        members = cascade.tier(tier).members
        self.cascade, self.tier = cascade, tier
        self.members = [
            RunningMember(m, engines[m.name], calibrator(m.calibration)) for m in members
        ]
        self._router = Router(cascade, tier)
        self._pool = pooled(cascade.pool)
        self._device, self._roots, self._max_bytes = device, roots, max_bytes
        self._size = (max(m.width for m in members), max(m.height for m in members))
        self._needs_pixels = any(running.engine.needs_pixels for running in self.members)

    @property
    def targets(self) -> set[str]:
        """Tiers that images may be escalated to from here."""
        return self._router.targets

    def judge(self, items: Sequence[Item]) -> Judgement:
        """Judge a batch. Never raises for a bad picture: its votes carry the error."""
        began_at, t0 = time.time(), time.perf_counter()
        pictures: list[Picture | ImageError] = [self._picture(item) for item in items]
        decoding = time.perf_counter() - t0
        with self._device:
            t1 = time.perf_counter()
            runs, scores = self._infer([p for p in pictures if isinstance(p, Picture)])
            inferring = time.perf_counter() - t1
        votes: list[ImageVotes] = []
        column = 0
        for item, picture in zip(items, pictures, strict=True):
            queued = max(0.0, began_at - item.arrived_at)
            if isinstance(picture, ImageError):
                votes.append(unjudged(item.head, len(runs), str(picture), queued))
                continue
            found = [row[column] for row in scores]
            column += 1
            votes.append(self._vote(item, found, (queued, decoding, inferring)))
        return Judgement(runs, votes)

    def _picture(self, item: Item) -> Picture | ImageError:
        if not self._needs_pixels:
            return _NO_PICTURE
        try:
            data = read_payload(item.payload, self._roots, self._max_bytes)
            return Picture(decode(data, min_width=self._size[0], min_height=self._size[1]))
        except ImageError as error:
            return error

    def _infer(
        self, pictures: list[Picture]
    ) -> tuple[list[MemberRun], list[list[Score | ImageError]]]:
        runs: list[MemberRun] = []
        scores: list[list[Score | ImageError]] = []
        for member, engine, _ in self.members:
            began = time.perf_counter()
            scores.append(infer_isolated(engine, pictures))
            runs.append(
                MemberRun(
                    member.name,
                    member.model_version,
                    member.weight,
                    member.calibration is not None,
                    time.perf_counter() - began,
                    len(pictures),
                )
            )
        return runs, scores

    def _vote(
        self,
        item: Item,
        found: list[Score | ImageError],
        times: tuple[float, float, float],
    ) -> ImageVotes:
        raws: list[float | None] = []
        ps: list[float | None] = []
        voted = [vote.probability for vote in item.prior]
        weights = [vote.weight for vote in item.prior]
        problem: ImageError | None = None
        for score, (member, _, calibrate) in zip(found, self.members, strict=True):
            if isinstance(score, ImageError):
                problem = score
                logger.warning(
                    "member_failed", member=member.name, uri=item.head.uri, error=str(score)
                )
                raws.append(None)
                ps.append(None)
                continue
            p = calibrate(score.raw)
            raws.append(score.raw)
            ps.append(p)
            if member.weight > 0:
                voted.append(p)
                weights.append(member.weight)
        confidence = decision_confidence(self._pool(voted, weights)) if weights else 0.0
        spread = disagreement(voted, weights) if self._router.needs_disagreement else 0.0
        decision = self._router.decide(confidence, spread)
        counted = len(voted) > len(item.prior)
        error = None if problem is None or counted else str(problem)
        return ImageVotes(
            item.head, raws, ps, decision.next_tier, decision.reason, *times, _boxes(found), error
        )


def _boxes(found: list[Score | ImageError]) -> list[list[Box]] | None:
    """Return the boxes per member, or ``None`` if no member has any."""
    for score in found:
        if isinstance(score, Score) and score.boxes:
            return [s.boxes if isinstance(s, Score) else [] for s in found]
    return None


def unjudged(head: Head, members: int, error: str, queued: float = 0.0) -> ImageVotes:
    """Return the votes of a tier that could not judge an image: none, an exit, and why."""
    nothing: list[float | None] = [None] * members
    return ImageVotes(head, nothing, nothing, None, "not judged", queued, error=error)


class _NoPicture(Picture):
    """Stands for a picture where no member looks at pixels."""

    def __init__(self) -> None:
        pass


_NO_PICTURE = _NoPicture()
