"""Checks the images that need a second look: no answer, more than one, or sent more than once."""

from collections import Counter
from collections.abc import Mapping

import msgspec

from roadstream.schemas import codec
from roadstream.schemas.records.image import LANES
from roadstream.schemas.topics import CONSENSUS_GROUP, images, tier_group
from roadstream.sinks.verification.answers import compare
from roadstream.sinks.verification.findings import Findings
from roadstream.sinks.verification.images import LogState, Trail, follow
from roadstream.streams.log import record_name


class ImageCounts(msgspec.Struct):
    """What came of it, apart from anomalies.

    Attributes:
        waiting: Images still being worked on, per place.
        waiting_ids: The first of them.
        letters: Images that ended as dead letters and have no answer, per reason and place.
        refused: Images of which a second picture under the same id was refused.
        unknown: Images whose answer may have been trimmed.
        letterless: Images without an answer whose dead letter may have been trimmed.
        gone: Acknowledged images whose topic was made anew.
        unreadable: Second answers that cannot be read, or cannot be compared with one.
    """

    waiting: Counter[str] = msgspec.field(default_factory=Counter)
    waiting_ids: list[str] = []
    letters: int = 0
    refused: int = 0
    unknown: int = 0
    letterless: int = 0
    gone: int = 0
    unreadable: int = 0


class ImageChecker:
    """Checks trails, one image after the other.

    Args:
        log: The state of the log: what was committed, trimmed and given up.
        findings: Where anomalies go.
        answers_since: Per partition, the time (in milliseconds since the epoch) before which
            answers may have been trimmed; absent where all are there.
        letters_since: The time before which dead letters may have been trimmed; 0 if all are there.
        keep: How many ids of waiting images to keep.
    """

    def __init__(
        self,
        log: LogState,
        findings: Findings,
        answers_since: Mapping[int, int],
        letters_since: int,
        keep: int,
    ) -> None:
        self._log, self._findings, self._since = log, findings, answers_since
        self._letters_since, self._keep = letters_since, keep
        self.result = ImageCounts()

    def check(self, image_id: str, trail: Trail) -> None:
        """ImageChecker one image."""
        if trail.answers:
            self._answered(image_id, trail)
        elif self._may_have_been_trimmed(trail):
            self.result.unknown += 1
        else:
            self._unanswered(image_id, trail)

    def wait(self, image_id: str, where: str) -> None:
        """Note an image that is still being worked on."""
        self.result.waiting[where] += 1
        if len(self.result.waiting_ids) < self._keep:
            self.result.waiting_ids.append(image_id)

    def _may_have_been_trimmed(self, trail: Trail) -> bool:
        """Return whether its answer may have been there and is no longer."""
        if not self._since:
            return False
        partitions = {tp.partition for tp, _ in trail.sent}
        if not partitions:
            return True
        return any(trail.sent_at < self._since.get(partition, 0) for partition in partitions)

    def _unanswered(self, image_id: str, trail: Trail) -> None:
        outcome = follow(trail, self._log)
        match outcome.state:
            case "waiting":
                self.wait(image_id, outcome.detail)
            case "dead letter":
                self.result.letters += 1
            case "unknown":
                self.result.gone += 1
            case "lost" if trail.sent_at < self._letters_since:
                self.result.letterless += 1
            case "lost":
                self._findings.add("lost", image_id, outcome.detail, outcome.side)

    def _answered(self, image_id: str, trail: Trail) -> None:
        self._check_sent(image_id, trail)
        if len(trail.hashes) > 1:
            self._check_refusal(image_id, trail)
        first, *more = trail.answers
        for later in more:
            places = " and ".join(record_name(place) for place, _ in (first, later))
            try:
                kind, detail = compare(*(codec.decode_answer(value) for _, value in (first, later)))
            except codec.UNREADABLE:
                self.result.unreadable += 1
                continue
            if kind == "doubled" and self._by_zombie(trail):
                kind = "doubled by a zombie"
            self._findings.add(kind, image_id, f"{detail} ({places})")

    def _by_zombie(self, trail: Trail) -> bool:
        history = self._log.histories.get(CONSENSUS_GROUP)
        packs = [vote.place for votes in trail.votes.values() for vote in votes]
        return history is not None and history.by_zombie(packs)

    def _check_sent(self, image_id: str, trail: Trail) -> None:
        if trail.sent or trail.acknowledged or trail.replayed:
            return
        (tp, offset), _ = trail.answers[0]
        places = [tp._replace(topic=images(lane)) for lane in LANES]
        if any(self._log.oldest.get(at, 0) > 0 or at in self._log.remade for at in places):
            return  # what it answers was trimmed, or is gone with its topic; said once, for all
        detail = f"answered at {record_name((tp, offset))}, and on no images.* topic"
        self._findings.add("phantom", image_id, detail)

    def _check_refusal(self, image_id: str, trail: Trail) -> None:
        """Two pictures under one id: all but one must have been refused aloud."""
        if "duplicate" in trail.letters.values():
            self.result.refused += 1
            return
        log = self._log
        group = tier_group(log.tiers[0])
        packs = trail.votes.get(log.tiers[0], [])
        if not all(log.passed(group, place) for place in trail.sent):
            self.wait(image_id, f"tier {log.tiers[0]}")
        elif not all(log.passed(CONSENSUS_GROUP, vote.place) for vote in packs):
            self.wait(image_id, "consensus")
        else:
            self._findings.add(
                "lost",
                image_id,
                f"sent {len(trail.sent)} times with {len(trail.hashes)} different pictures, "
                "of which none was refused",
                "sink" if len(packs) > 1 else "worker",
            )
