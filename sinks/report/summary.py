"""What a report says about a file of answers, gathered row by row in bounded memory."""

import heapq
import math
from collections import Counter
from collections.abc import Collection, Iterable
from typing import NamedTuple

from roadstream.sinks.columns import AnswerRow, VoteRow

BINS = 20
"""Bars of a histogram over [0, 1]."""
SHOWN = 24
"""Pictures per contact sheet."""
MOST_NAMES = 64
"""Different tiers, members, faults, tags or ways counted by name; further ones are put together."""
LONGEST_NAME = 400
"""Characters by which tags and ways are told apart."""
OTHERS = "(others)"
LEAST = 1e-6
"""Seconds; anything shorter counts as this."""
MOST = 1e6
"""Seconds (eleven days); anything longer counts as this."""
GROWTH = 1.02
"""Ratio of neighbouring buckets: a percentile is right within 1 %."""

_STEP = math.log(GROWTH)


class Durations:
    """Counts seconds in buckets that grow by 2 %, of which there are at most 1,400."""

    def __init__(self) -> None:
        self.count = 0
        self._buckets: dict[int, int] = {}

    def add(self, seconds: float) -> None:
        """Count one duration; negative ones, of clocks that disagree, count as the least."""
        within = seconds if LEAST < seconds < MOST else min(MOST, max(LEAST, seconds))
        place = round(math.log(within / LEAST) / _STEP)
        self._buckets[place] = self._buckets.get(place, 0) + 1
        self.count += 1

    @property
    def marks(self) -> tuple[float, float, float]:
        """p50, p90 and p99, in seconds."""
        return self.percentile(0.5), self.percentile(0.9), self.percentile(0.99)

    def percentile(self, share: float) -> float:
        """Return the seconds that ``share`` (0 to 1) of the durations do not exceed.

        Raises:
            ValueError: Nothing was counted.
        """
        if not self.count:
            raise ValueError("no durations were counted")
        rank, passed = max(1, math.ceil(share * self.count)), 0
        for place in sorted(self._buckets):
            passed += self._buckets[place]
            if passed >= rank:
                return LEAST * math.exp(place * _STEP)
        raise AssertionError("ranks end within the count")


class Best:
    """The rows with the highest ranks; of equal ranks, the earlier."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._heap: list[tuple[float, int, AnswerRow]] = []
        self._seen = 0

    def add(self, rank: float, row: AnswerRow) -> None:
        """Offer a row."""
        self._seen += 1
        entry = (rank, -self._seen, row)
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, entry)
        elif rank > self._heap[0][0]:
            heapq.heapreplace(self._heap, entry)

    def rows(self) -> list[AnswerRow]:
        """Return the rows, best first."""
        return [entry[2] for entry in sorted(self._heap, reverse=True)]


class BinCounts:
    """Counts of values in [0, 1] by bin, and within a bin by group."""

    def __init__(self) -> None:
        self.bins: list[Counter[str]] = [Counter() for _ in range(BINS)]

    def add(self, value: float, group: str) -> None:
        """Count a value; those outside [0, 1] go to the nearest bin."""
        self.bins[min(max(int(value * BINS), 0), BINS - 1)][group] += 1


class MemberTotals:
    """One member's votes over the whole file."""

    def __init__(self, tier: str, name: str, *, shadow: bool) -> None:
        self.tier, self.name, self.shadow = tier, name, shadow
        self.calibrated = True
        self.votes = self.roadwork = self.agreeing = 0
        self.inference = Durations()

    def add(self, vote: VoteRow, label: str | None) -> None:
        """Count a vote beside the label of its answer."""
        self.votes += 1
        yes = (vote["probability"] or 0.0) >= 0.5
        self.roadwork += yes
        self.agreeing += yes == (label == "roadwork")
        self.calibrated &= vote["calibrated"]
        self.inference.add(vote["latency"])


class Stage(NamedTuple):
    """A place where time goes: ``tier`` is empty for the whole way and for joining."""

    tier: str
    name: str


class Summary:
    """Everything a report shows; memory is bounded by the constants above."""

    def __init__(self) -> None:
        self.answers = 0
        self.statuses: Counter[str] = Counter()
        self.labels: Counter[str] = Counter()
        self.flags: Counter[str] = Counter()
        self.missing: Counter[str] = Counter()
        self.missing_tiers: Counter[str] = Counter()
        self.tags: dict[str, Counter[str]] = {}
        self.ways: dict[str, Counter[str]] = {}
        self.faults: Counter[str] = Counter()
        self.cascades: Counter[str] = Counter()
        self.thresholds: Counter[str] = Counter()
        self.exits: dict[str, Counter[str]] = {}
        self.depth: dict[str, int] = {}
        self.probability, self.confidence = BinCounts(), BinCounts()
        self.stages: dict[tuple[str, str], Durations] = {}
        self.members: dict[tuple[str, str, bool], MemberTotals] = {}
        self.roadwork, self.uncertain = Best(SHOWN), Best(SHOWN)
        self._failures: dict[str, list[AnswerRow]] = {}

    def add(self, row: AnswerRow) -> None:
        """Count a row."""
        self.answers += 1
        self.statuses[row["status"]] += 1
        self.flags.update(row["flags"])
        for name in row["missing"]:
            _count(self.missing, name)
        for name in row["missing_tiers"]:
            _count(self.missing_tiers, name)
        for name, value in row["tags"].items():
            _count_label(self.tags, f"{name}={value}", row)
        if row["way"] is not None:
            _count_label(self.ways, row["way"], row)
        _count(self.cascades, f"{row['cascade']} {row['cascade_hash'][:12]}".strip())
        self._add_times(row)
        if row["status"] == "failed":
            self._add_failure(row)
        else:
            self._add_judgement(row)

    def _add_judgement(self, row: AnswerRow) -> None:
        label = row["label"] or "none"
        self.labels[label] += 1
        tier = _bounded(self.exits, row["exit_tier"] or "–")
        self.exits.setdefault(tier, Counter())[label] += 1
        _count(self.thresholds, f"{row['threshold']:.2f}")
        if row["probability"] is not None:
            self.probability.add(row["probability"], label)
            if label == "roadwork":
                self.roadwork.add(row["probability"], row)
        if row["confidence"] is not None:
            self.confidence.add(row["confidence"], tier)
            self.uncertain.add(-row["confidence"], row)
        for vote in row["votes"]:
            self._add_vote(vote, row["label"], shadow=False)
        for vote in row["shadow_votes"]:
            self._add_vote(vote, row["label"], shadow=True)

    def _add_vote(self, vote: VoteRow, label: str | None, *, shadow: bool) -> None:
        key = (vote["tier"], vote["member"], shadow)
        if key not in self.members and len(self.members) >= MOST_NAMES:
            key = (OTHERS, OTHERS, shadow)
        if key not in self.members:
            self.members[key] = MemberTotals(key[0], key[1], shadow=shadow)
        self.members[key].add(vote, label)

    def _add_failure(self, row: AnswerRow) -> None:
        fault = fault_of(row)
        _count(self.faults, fault)
        kept = self._failures.setdefault(_bounded(self._failures, fault), [])
        if len(kept) < SHOWN:
            kept.append(row)

    def _add_times(self, row: AnswerRow) -> None:
        latency = row["latency"]
        self._time("", "total", latency["total"])
        self._time("", "joining", latency["joining"])
        for depth, tier in enumerate(latency["tiers"]):
            name = _bounded(self.depth, tier["tier"])
            self.depth[name] = max(depth, self.depth.get(name, 0))
            self._time(name, "queued", tier["queued"])
            self._time(name, "decoding", tier["decoding"])
            self._time(name, "inferring", tier["inferring"])

    def _time(self, tier: str, name: str, seconds: float) -> None:
        durations = self.stages.get((tier, name))
        if durations is None:
            durations = self.stages[Stage(tier, name)] = Durations()
        durations.add(seconds)

    def missing_most(self) -> list[tuple[str, int]]:
        """Return what was missing from most answers, in words: tiers first, then members."""
        tiers = [(f"tier {name}", count) for name, count in self.missing_tiers.most_common(SHOWN)]
        members = [(f"member {name}", count) for name, count in self.missing.most_common(SHOWN)]
        return tiers + members

    def tiers(self, names: Iterable[str]) -> list[str]:
        """Return tier names from the first tier to the last."""
        return sorted(names, key=lambda name: (self.depth.get(name, MOST_NAMES), name))

    def ordered_stages(self) -> dict[Stage, Durations]:
        """Return where time went, in the order in which an image comes by."""
        steps = ("queued", "decoding", "inferring")
        order = [Stage(tier, step) for tier in self.tiers(self.depth) for step in steps]
        order = [Stage("", "total"), *order, Stage("", "joining")]
        return {stage: self.stages[stage] for stage in order if stage in self.stages}

    def ordered_members(self) -> list[MemberTotals]:
        """Return the members of the first tier, and so on; those that are shadows behind others."""
        tiers = {tier: place for place, tier in enumerate(self.tiers(self.depth))}
        return sorted(self.members.values(), key=lambda m: (tiers.get(m.tier, 99), m.shadow))

    def failures(self) -> list[AnswerRow]:
        """Return up to ``SHOWN`` failures: of each kind in turn, so that rare ones are seen."""
        kinds = self._failures.values()
        turns = [rows[n] for n in range(SHOWN) for rows in kinds if n < len(rows)]
        return turns[:SHOWN]


def fault_of(row: AnswerRow) -> str:
    """Return the kind of fault of a failed answer: its error up to the colon."""
    fault = (row["error"] or "").partition(":")[0].strip()
    return fault if fault and len(fault) <= 40 else "unknown"


def _bounded(known: Collection[str], name: str) -> str:
    return name if name in known or len(known) < MOST_NAMES else OTHERS


def most_common(counts: dict[str, Counter[str]], most: int) -> list[tuple[str, Counter[str]]]:
    """Return the names with the most images, and these images by label."""
    return sorted(counts.items(), key=lambda pair: -pair[1].total())[:most]


def _count_label(counts: dict[str, Counter[str]], name: str, row: AnswerRow) -> None:
    name = _bounded(counts, name[:LONGEST_NAME])
    counts.setdefault(name, Counter())[row["label"] or row["status"]] += 1


def _count(counter: Counter[str], name: str) -> None:
    counter[_bounded(counter, name)] += 1
