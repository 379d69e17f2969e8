"""The first reading, for ``verify``: what is known of every image, in a few bits each."""

from collections.abc import Iterator, Mapping

from roadstream.schemas import codec
from roadstream.schemas.records.answer import Answer
from roadstream.schemas.records.dead_letters import DeadLetter, DeadLetterReason
from roadstream.schemas.records.image import LANES
from roadstream.schemas.records.partial import (
    PartialAnswer,
    decode_partial_answer,
    decode_partial_image,
    decode_partial_votes,
)
from roadstream.schemas.topics import images
from roadstream.sinks.verification.answers import Baseline
from roadstream.sinks.verification.findings import Findings
from roadstream.sinks.verification.images import Trail
from roadstream.streams.log import Offsets, Record, RecordId, TopicPartition, record_name

_ANSWERED, _TWICE, _SENT, _RESENT, _ACKNOWLEDGED, _REPLAYED, _PASSED, _UNSURE = (
    1 << i for i in range(8)
)
"""Answered, more than once; sent, more than once; by a producer's ledger; by replaying a dead
letter; its tier has committed past it; its record may have been trimmed. Above these bits stands
the number of the version that answered it, and above that, per tier, ``_SAID``, ``_BY_IT`` and
``_BY_OTHERS``. Images share the few numbers that there are: none costs memory of its own."""
_SAID, _BY_IT, _BY_OTHERS = 1, 2, 4
"""The answer has the tier; the tier voted by the version of the answer; it voted by another."""
_VERSION, _VERSION_BITS, _TIER_BITS = 8, 24, 3
_ANY_VERSION, _TIERS = (1 << _VERSION_BITS) - 1, _VERSION + _VERSION_BITS


class Census:
    """Takes in acknowledgements, answers, images and dead letters, in this order or again.

    Args:
        findings: Where anomalies go that one answer shows by itself.
        oldest: Oldest offset that each partition still has.
        committed: What the first tier has committed.
        baseline: Answers of a clean run to compare with.
        ends: Where each partition ended before the ledgers were read, which know what was sent
            until then; empty without ledgers.

    Attributes:
        acknowledged: Images that were acknowledged, by the producers' ledgers.
        answers: Answer records.
        unreadable: Answers and dead letters that cannot be read.
        since: Time of the first answer of each partition, in milliseconds since the epoch.
        letters: Dead letters per image, by the place of the record.
        buried: Places of records that became dead letters as a whole.
        letters_since: Time of the first dead letter that each partition still has, likewise.
        unreadable_images: Records for images that cannot be read, and that were committed.
    """

    def __init__(
        self,
        findings: Findings,
        oldest: Mapping[TopicPartition, int],
        committed: Offsets,
        baseline: Baseline | None,
        ends: Mapping[TopicPartition, int],
    ) -> None:
        self._findings, self._oldest, self._committed = findings, oldest, committed
        self._baseline, self._ends = baseline, ends
        self._unknown: set[str] = set()
        self._images: dict[str, int] = {}
        self._changed: list[tuple[str, str]] = []
        self._known: dict[int, int] = {}
        self._version_numbers: dict[str, int] = {"": 0}
        self._tier_places: dict[str, int] = {}
        self.acknowledged = self.answers = self.unreadable = 0
        self.since: dict[int, int] = {}
        self.letters: dict[str, dict[RecordId, DeadLetterReason]] = {}
        self.buried: set[RecordId] = set()
        self.letters_since: dict[int, int] = {}
        self.unreadable_images: list[RecordId] = []

    def __len__(self) -> int:
        """Return the number of distinct images."""
        return len(self._images)

    def _mark(self, image_id: str, bits: int) -> None:
        known = self._images.get(image_id, 0) | bits
        self._images[image_id] = self._known.setdefault(known, known)

    def take_acknowledged(self, ids: list[str]) -> None:
        """Take in what a producer's ledger says."""
        self.acknowledged += len(ids)
        for image_id in ids:
            self._mark(image_id, _ACKNOWLEDGED)

    def take_answer(self, tp: TopicPartition, record: Record) -> None:
        """Take in an answer."""
        value = record.value or b""
        try:
            answer = decode_partial_answer(value)
            whole = None if self._baseline is None else codec.decode_answer(value)
        except codec.UNREADABLE:
            self.unreadable += 1
            return
        self.answers += 1
        self.since.setdefault(tp.partition, record.timestamp)
        head = answer.head
        again = self._images.get(head.image_id, 0) & _ANSWERED
        bits = _TWICE if again else self._judged(answer)
        if any(self._oldest.get(TopicPartition(images(lane), tp.partition), 0) for lane in LANES):
            bits |= _UNSURE
        self._mark(head.image_id, bits | _ANSWERED)
        if answer.status == "answered" and head.deadline_at is not None:
            late = answer.answered_at - head.deadline_at
            if late > 0:
                where = record_name((tp, record.offset))
                detail = f"answered {late:.3f} s after its deadline ({where})"
                self._findings.add("deadline ignored", head.image_id, detail)
        if whole is not None:
            self._compare(whole)

    def _judged(self, answer: PartialAnswer) -> int:
        """Return bits that tell the version and the tiers of an answer; none if it names none."""
        if not answer.cascade_hash:
            return 0
        bits = self._version_number(answer.cascade_hash) << _VERSION
        for tier in answer.tiers:
            bits |= _SAID << self._tier_place(tier.tier)
        return bits

    def _version_number(self, version: str) -> int:
        return self._version_numbers.setdefault(version, len(self._version_numbers))

    def _tier_place(self, tier: str) -> int:
        places = self._tier_places
        return places.setdefault(tier, _TIERS + _TIER_BITS * len(places))

    def take_votes(self, tp: TopicPartition, record: Record) -> None:
        """Take in by which version a tier voted; to be told after the answers."""
        try:
            pack = decode_partial_votes(record.value or b"")
        except codec.UNREADABLE:
            return
        version, place = self._version_number(pack.cascade_hash), self._tier_place(pack.tier)
        by_it, by_others, images = _BY_IT << place, _BY_OTHERS << place, self._images
        for votes in pack.images:
            image_id = votes.head.image_id
            known = images.get(image_id, 0)
            if named := known >> _VERSION & _ANY_VERSION:
                seen = known | (by_it if version == named or not version else by_others)
                images[image_id] = self._known.setdefault(seen, seen)

    def mixed(self) -> Iterator[str]:
        """Yield the images of which a tier voted, but never by the version of the answer."""
        suspect = {known for known in self._known if self._is_mixed(known)}
        if suspect:
            yield from (image_id for image_id, known in self._images.items() if known in suspect)

    def _is_mixed(self, known: int) -> bool:
        return any(
            known >> place & 0b111 == _SAID | _BY_OTHERS for place in self._tier_places.values()
        )

    def _compare(self, answer: Answer) -> None:
        how = None if self._baseline is None else self._baseline.differs(answer)
        if how is not None:
            self._changed.append((answer.head.image_id, how))

    def take_image(self, tp: TopicPartition, record: Record) -> None:
        """Take in an image. One that cannot be read must have a dead letter, once it is done."""
        try:
            image_id = decode_partial_image(record.value or b"").head.image_id
        except codec.UNREADABLE:
            if self._committed.get(tp, 0) > record.offset:
                self.unreadable_images.append((tp, record.offset))
            return
        known = self._images.get(image_id, 0)
        bits = _RESENT if known & _SENT else 0
        if record.offset < self._ends.get(tp, 0) and not known & _ACKNOWLEDGED:
            self._unknown.add(image_id)
        if self._committed.get(tp, 0) > record.offset:
            bits |= _PASSED
        self._mark(image_id, bits | _SENT)

    def take_letter(self, tp: TopicPartition, record: Record) -> None:
        """Take in a dead letter, or the note that one was settled."""
        self.letters_since.setdefault(tp.partition, record.timestamp)
        try:
            letter = codec.decode_dead_letter_or_settled(record.value or b"")
        except codec.UNREADABLE:
            self.unreadable += 1
            return
        if isinstance(letter, DeadLetter):
            place = TopicPartition(letter.topic, letter.partition), letter.offset
            if letter.image_id is None:
                self.buried.add(place)
            else:
                self.letters.setdefault(letter.image_id, {})[place] = letter.reason
        elif letter.image_id is not None:
            self._mark(letter.image_id, _REPLAYED)

    def unacknowledged(self) -> int:
        """Return how many images were on the log, before any was read, that no ledger knows of."""
        return sum(not self._images[image_id] & _REPLAYED for image_id in self._unknown)

    def waiting(self) -> Iterator[str]:
        """Yield the images that the first tier has yet to commit."""
        for image_id, known in self._images.items():
            if known & (_ANSWERED | _PASSED | _SENT) == _SENT:
                yield image_id

    def questions(self) -> dict[str, Trail]:
        """Return an empty trail for every other image that has not just one sound answer."""
        asked = [image_id for image_id, known in self._images.items() if _is_questionable(known)]
        return {
            image_id: Trail(
                acknowledged=bool(self._images[image_id] & _ACKNOWLEDGED),
                replayed=bool(self._images[image_id] & _REPLAYED),
                letters=self.letters.get(image_id, {}),
            )
            for image_id in dict.fromkeys([*asked, *self.mixed()])
        }

    def count_answered_since(self, trails: Mapping[str, Trail]) -> None:
        """Count the answers that came between the first reading and the second."""
        self.answers += sum(
            len(trail.answers)
            for image_id, trail in trails.items()
            if self._images[image_id] & _ANSWERED == 0
        )

    def check_neighbours(self) -> None:
        """Name the answers that differ from the clean run's; those of poison images may."""
        for image_id, how in self._changed:
            if image_id not in self.letters:
                self._findings.add("neighbour changed by a poison image", image_id, how)


def _is_questionable(known: int) -> bool:
    if known & _ANSWERED == 0:
        return known & (_PASSED | _SENT) != _SENT
    if known & (_TWICE | _RESENT):
        return True
    return known & (_SENT | _ACKNOWLEDGED | _REPLAYED | _UNSURE) == 0
