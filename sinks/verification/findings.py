"""What ``roadstream verify`` finds: the anomalies by name, worst first, and the report. Pure."""

from collections import Counter
from typing import Literal

import msgspec

Kind = Literal[
    "lost",
    "doubled",
    "divergent",
    "mixed versions",
    "phantom",
    "skipped offset",
    "commit ahead of work",
    "commit moved backwards",
    "stale-epoch commit",
    "late vote changed an answer",
    "deadline ignored",
    "neighbour changed by a poison image",
    "doubled by a zombie",
]
MEANINGS: dict[Kind, str] = {
    "lost": "acknowledged, never answered, and nobody works on it any more",
    "doubled": "two answer records that say the same",
    "divergent": "two answer records that say different things",
    "mixed versions": "an answer by votes of other versions of the cascade than the one it names",
    "phantom": "an answer for an image that nobody sent",
    "skipped offset": "a record that its group committed past without a delivery",
    "commit ahead of work": "an offset committed before the work below it was acknowledged",
    "commit moved backwards": "a group that stands before an offset it had committed",
    "stale-epoch commit": "an offset committed by a member that had lost the partition",
    "late vote changed an answer": "a second answer with tiers that the first one lacks",
    "deadline ignored": "answered as if in time, after its deadline",
    "neighbour changed by a poison image": "an answer that differs from that of the clean run",
    "doubled by a zombie": "the same answer twice: a member that was stopped wrote the second",
}
"""Every anomaly and what it is, worst first. The last is the one that the product allows."""

Verdict = Literal["clean", "anomalies", "open", "unchecked"]
Side = Literal["broker", "worker", "sink", "retention", "unknown"]


class Finding(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One anomaly.

    Attributes:
        kind: Its name.
        what: The image id, or the place in the log: ``topic[partition]@offset``.
        detail: What was seen, for a person.
        side: Who lost it, of a lost one.
    """

    kind: Kind
    what: str
    detail: str
    side: Side | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was found, and what could not be looked at.

    Attributes:
        anomalies: How many of each kind, worst first; kinds that were not found are absent.
        findings: The first of each kind, worst first.
        lost: How many were lost, per side.
        waiting: Images still being worked on, per place.
        waiting_ids: The first of them.
        explained: What is no anomaly and yet worth a line.
        unchecked: What should have been checked and could not be, and why: it is not cleared.
        images: Distinct images seen, by the topics and the producers' ledgers.
        acknowledged: Images that the producers' ledgers say were acknowledged.
        answers: Answer records on the log.
        ledgers: Ledger files read.
        events: Events in them.
    """

    anomalies: dict[Kind, int]
    findings: list[Finding]
    lost: dict[Side, int]
    waiting: dict[str, int]
    waiting_ids: list[str]
    explained: list[str]
    unchecked: list[str]
    images: int
    acknowledged: int
    answers: int
    ledgers: int
    events: int

    @property
    def verdict(self) -> Verdict:
        """What it amounts to: the first that holds of these.

        ``anomalies``: there are some. ``open``: images are still being worked on. ``unchecked``:
        nothing was found, but not all could be checked. ``clean``: all is well.
        """
        if self.anomalies:
            return "anomalies"
        if self.unfinished:
            return "open"
        return "unchecked" if self.unchecked else "clean"

    @property
    def clean(self) -> bool:
        """Whether everything was checked, there is no anomaly and nothing is being worked on."""
        return self.verdict == "clean"

    @property
    def tolerable(self) -> bool:
        """Whether it is clean but for answers that a zombie doubled, which are allowed."""
        others = self.anomalies.keys() - {"doubled by a zombie"}
        return not (self.unfinished or self.unchecked or others)

    @property
    def unfinished(self) -> int:
        """How many images are still being worked on."""
        return sum(self.waiting.values())


class Findings:
    """Collects anomalies: counts all, keeps the first of each kind.

    Args:
        keep: How many of each kind to keep.
    """

    def __init__(self, keep: int = 1000) -> None:
        self._keep = keep
        self._counts: Counter[Kind] = Counter()
        self._sides: Counter[Side] = Counter()
        self._kept: dict[Kind, list[Finding]] = {}

    def add(self, kind: Kind, what: str, detail: str, side: Side | None = None) -> None:
        """Note an anomaly."""
        self._counts[kind] += 1
        if side is not None:
            self._sides[side] += 1
        kept = self._kept.setdefault(kind, [])
        if len(kept) < self._keep:
            kept.append(Finding(kind, what, detail, side))

    @property
    def counts(self) -> dict[Kind, int]:
        """How many of each kind were found, worst first."""
        return {kind: self._counts[kind] for kind in MEANINGS if self._counts[kind]}

    @property
    def lost(self) -> dict[Side, int]:
        """How many were lost, per side."""
        return dict(self._sides.most_common())

    @property
    def kept(self) -> list[Finding]:
        """The first of each kind, worst first."""
        return [finding for kind in MEANINGS for finding in self._kept.get(kind, ())]
