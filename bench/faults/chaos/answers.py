"""Reads the answers as they come, holds each against what is expected, and measures the gaps."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import anyio

from roadstream.bench.faults.chaos.expected import Verdict, verdict_of
from roadstream.bench.faults.chaos.pictures import class_of
from roadstream.schemas import codec
from roadstream.schemas.errors import RunError
from roadstream.schemas.records.answer import Answer
from roadstream.schemas.records.dead_letters import DeadLetter
from roadstream.schemas.topics import ANSWERS, DEAD_LETTERS
from roadstream.streams.log import Log, Polled

READ_BATCH = 1024
RETRY_AFTER = 0.2
# Shorter times without an answer are no gaps.
LEAST_GAP = 0.3


class Anomaly(NamedTuple):
    """Something that must not be: its name, where or on what, and what was seen."""

    name: str
    what: str
    seen: str


def verdict_is_late(verdict: Verdict) -> bool:
    """Return whether a deadline cut an answer short."""
    return verdict.status == "partial" or verdict.fault == "expired"


class Answers:
    """Every answer so far, by image id.

    Args:
        log: The log, open.
        expected: The verdict of each class of picture, by variant of the cascade.
        tag: Begins the ids of the campaign's own images.
        folder: Where those lie that `roadstream produce` is given; all other answers are a
            stranger's.
    """

    def __init__(
        self, log: Log, expected: Mapping[str, Mapping[str, Verdict]], tag: str, folder: Path
    ) -> None:
        self._log, self._expected, self.tag = log, expected, tag
        self._variants: dict[str, str] = {}
        self._folder = str(folder)
        self.produced: Counter[str] = Counter()
        self.verdicts: dict[str, Verdict] = {}
        self.at: dict[str, float] = {}
        self.statuses: Counter[str] = Counter()
        self.anomalies: list[Anomaly] = []
        self.refused: set[str] = set()
        # The class of the second picture under an id, where there is one.
        self.others: dict[str, str] = {}
        self.letters: Counter[str] = Counter()
        self.repeated: list[str] = []
        self._last_at = time.monotonic()
        self._gaps: list[tuple[float, float]] = []

    def expect(self, version: str, variant: str) -> None:
        """Let answers of a version of the cascade, told by its hash, be those of a variant."""
        self._variants[version] = variant

    def gap_since(self, since: float) -> float:
        """Return the seconds of the longest time without an answer since then, until now."""
        spans = [*self._gaps, (self._last_at, time.monotonic())]
        return max(end - max(start, since) for start, end in spans if end > since)

    async def follow(self) -> None:
        """Read answers until cancelled, whatever the log does meanwhile."""
        await self._follow(ANSWERS, self._take_answers)

    async def follow_letters(self) -> None:
        """Read dead letters likewise."""
        await self._follow(DEAD_LETTERS, self._take_letters)

    async def _follow(self, topic: str, take: Callable[[Polled], None]) -> None:
        positions: dict[int, int] = {}
        while True:
            try:
                async with self._log.reader(topic, positions or "beginning") as reader:
                    while True:
                        polled = await reader.poll(max_records=READ_BATCH, timeout=0.25)
                        positions = dict(reader.positions)
                        take(polled)
            except RunError:
                await anyio.sleep(RETRY_AFTER)

    def _take_answers(self, polled: Polled) -> None:
        now = time.monotonic()
        for tp, records in polled.items():
            for record in records:
                self._take(codec.decode(codec.decode_answer, record.value, *tp, record.offset), now)
        if polled:
            if now - self._last_at > LEAST_GAP:
                self._gaps.append((self._last_at, now))
            self._last_at = now

    def _take(self, answer: Answer, now: float) -> None:
        image_id, verdict = answer.head.image_id, verdict_of(answer)
        own = image_id.startswith(self.tag)
        if not own and not answer.head.uri.startswith(self._folder):
            return
        before = self.verdicts.get(image_id)
        if before is not None:
            self.repeated.append(image_id)
            name = "doubled" if before == verdict else "divergent"
            self.anomalies.append(Anomaly(name, image_id, f"{before} and {verdict}"))
            return
        self.verdicts[image_id] = verdict
        self.at[image_id] = now
        self.statuses[answer.status] += 1
        if not own:
            self.produced[str(Path(answer.head.uri).parent)] += 1
        kind = class_of(image_id) if own else Path(answer.head.uri).stem.partition("-")[2]
        if problem := self._judge(answer, verdict, kind):
            self.anomalies.append(Anomaly("changed", image_id, problem))

    def _judge(self, answer: Answer, verdict: Verdict, kind: str) -> str | None:
        """Say what is wrong with an answer, if anything is."""
        head = answer.head
        late = head.deadline_at is not None and answer.answered_at >= head.deadline_at
        if late and answer.status != "answered":
            return None  # what a deadline allows
        variant = self._variants.get(answer.cascade_hash)
        if variant is None:
            return f"expected a version that can judge, got {answer.cascade_hash}"
        known = self._expected[variant]
        expected = known.get(kind)
        if expected is None or expected == verdict:
            return None
        other = self.others.get(head.image_id)
        if other is not None and known[other] == verdict:
            return None  # the other one of two pictures came first
        return f"expected {expected} of version {variant}, got {verdict}"

    def _take_letters(self, polled: Polled) -> None:
        for tp, records in polled.items():
            for record in records:
                letter = codec.decode(
                    codec.decode_dead_letter_or_settled, record.value, *tp, record.offset
                )
                if isinstance(letter, DeadLetter):
                    self.letters[letter.reason] += 1
                    if letter.reason == "duplicate" and letter.image_id is not None:
                        self.refused.add(letter.image_id)
