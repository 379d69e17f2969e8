"""Looks for answers that are not of one version of the cascade: their votes must be on the log."""

from collections import Counter, defaultdict

from roadstream.bench.faults.chaos.answers import Anomaly
from roadstream.schemas import codec
from roadstream.schemas.topics import ANSWERS, CARRIED, VOTES
from roadstream.sinks.verification.topics import scan
from roadstream.streams.log import Log, Record, TopicPartition


class Mixtures:
    """What the log says of versions.

    Args:
        tag: Begins the ids of the campaign's own images.

    Attributes:
        answers: How many answers each version gave.
        anomalies: Answers with a tier that has no votes of the answer's version.
    """

    def __init__(self, tag: str) -> None:
        self._tag = tag
        self._voted: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
        self._hashes: dict[str, str] = {}
        self.answers: Counter[str] = Counter()
        self.anomalies: list[Anomaly] = []

    @property
    def begun_twice(self) -> int:
        """How many answered images have votes of several versions."""
        return sum(len({v for v, _ in self._voted[i]}) > 1 for i in self._hashes)

    async def look(self, log: Log) -> None:
        """Read all votes and answers that there are."""
        for topic in (VOTES, CARRIED):
            await scan(log, topic, "beginning", self._take_votes)
        await scan(log, ANSWERS, "beginning", self._take_answer)

    def _take_votes(self, tp: TopicPartition, record: Record) -> None:
        pack = codec.decode(codec.decode_votes, record.value, *tp, record.offset)
        for votes in pack.images:
            self._voted[votes.head.image_id].add((pack.cascade_hash, pack.tier))

    def _take_answer(self, tp: TopicPartition, record: Record) -> None:
        answer = codec.decode(codec.decode_answer, record.value, *tp, record.offset)
        image_id, version = answer.head.image_id, answer.cascade_hash
        if not image_id.startswith(self._tag):
            return
        self.answers[version] += 1
        before = self._hashes.setdefault(image_id, version)
        if before != version:
            self.anomalies.append(Anomaly("two versions", image_id, f"{before} and {version}"))
        voted = self._voted[image_id]
        lacks = [one.tier for one in answer.tiers if (version, one.tier) not in voted]
        if lacks:
            seen = f"{version} with tiers {', '.join(lacks)}; its votes: {sorted(voted)}"
            self.anomalies.append(Anomaly("mixed versions", image_id, seen))
