"""The second reading of the topics, for ``verify``: everything about the images in question."""

from collections.abc import Callable, Mapping, Sequence

from roadstream.schemas import codec
from roadstream.schemas.records.partial import (
    decode_partial_answer,
    decode_partial_escalation,
    decode_partial_image,
    decode_partial_votes,
)
from roadstream.schemas.topics import ANSWERS, tier_inputs
from roadstream.sinks.verification.images import TierVote, Trail
from roadstream.sinks.verification.topics import scan
from roadstream.streams.group.intervals import Intervals
from roadstream.streams.log import Log, Record, RecordId, TopicPartition

Undelivered = dict[RecordId, list[str]]


class Trails:
    """Collects the trails of the images in question.

    Args:
        trails: A trail per image in question, to be filled.
        gaps: Offsets per partition that no ledger says were delivered.

    Attributes:
        undelivered: The records that stand there, with the ids in them.
    """

    def __init__(self, trails: dict[str, Trail], gaps: Mapping[TopicPartition, Intervals]) -> None:
        self._trails, self._gaps = trails, gaps
        self.undelivered: Undelivered = {}

    async def gather(self, log: Log, tiers: Sequence[str], votes: Sequence[str]) -> None:
        """Read every topic, each before those that follow from it.

        Args:
            log: The log.
            tiers: Tiers of all versions of the cascade, in order.
            votes: Topics of votes.

        Raises:
            LogUnavailableError: The log does not answer.
        """
        for i, tier in enumerate(tiers):
            for topic in tier_inputs(tier, first=i == 0):
                take = self._image if i == 0 else self._escalation(tier)
                await scan(log, topic, "beginning", take)
        for topic in votes:
            await scan(log, topic, "beginning", self._votes)
        if self._trails:
            await scan(log, ANSWERS, "beginning", self._answer)

    def _note(self, tp: TopicPartition, offset: int, ids: list[str]) -> None:
        gap = self._gaps.get(tp)
        if gap is not None and offset in gap:
            self.undelivered[tp, offset] = ids

    def _image(self, tp: TopicPartition, record: Record) -> None:
        try:
            head = decode_partial_image(record.value or b"").head
        except codec.UNREADABLE:
            self._note(tp, record.offset, [])
            return
        self._note(tp, record.offset, [head.image_id])
        if (trail := self._trails.get(head.image_id)) is not None:
            trail.sent.append((tp, record.offset))
            trail.sent_at = max(trail.sent_at, record.timestamp)
            if head.content_hash is not None:
                trail.hashes.add(head.content_hash)

    def _escalation(self, tier: str) -> Callable[[TopicPartition, Record], None]:
        def take(tp: TopicPartition, record: Record) -> None:
            try:
                escalation = decode_partial_escalation(record.value or b"")
            except codec.UNREADABLE:
                self._note(tp, record.offset, [])
                return
            image_id = escalation.head.image_id
            self._note(tp, record.offset, [image_id])
            if (trail := self._trails.get(image_id)) is not None:
                trail.escalated.setdefault(tier, []).append((tp, record.offset))
                if escalation.cascade_hash:
                    trail.stamps[tp, record.offset] = escalation.cascade_hash

        return take

    def _votes(self, tp: TopicPartition, record: Record) -> None:
        place = tp, record.offset
        try:
            pack = decode_partial_votes(record.value or b"")
        except codec.UNREADABLE:
            self._note(*place, [])
            return
        self._note(*place, [votes.head.image_id for votes in pack.images])
        for votes in pack.images:
            if (trail := self._trails.get(votes.head.image_id)) is not None:
                said = TierVote(votes.next_tier, place, pack.cascade_hash)
                trail.votes.setdefault(pack.tier, []).append(said)

    def _answer(self, tp: TopicPartition, record: Record) -> None:
        value = record.value or b""
        try:
            image_id = decode_partial_answer(value).head.image_id
        except codec.UNREADABLE:
            return
        if (trail := self._trails.get(image_id)) is not None:
            trail.answers.append(((tp, record.offset), value))
