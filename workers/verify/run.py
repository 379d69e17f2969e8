"""Gathers what ``verify`` judges: ledgers, committed offsets, and ids and places on the topics.

Everything is asked in an order that keeps a running system honest: committed offsets before the
topics, and topics before those that follow from them. Then what a group had committed past has its
outputs on the log by the time that they are looked for.

Memory: 150 to 250 bytes per image, and about 1 kB per image that needs a second look (no answer,
more than one, or sent more than once). The topics are read once, and once more for those.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from anyio import to_thread

from schemas.cascade import Cascade
from schemas.errors import UsageError
from schemas.records import LANES
from schemas.topics import (
    ANSWERS,
    CARRIED,
    CONSENSUS_GROUP,
    DEAD_LETTERS,
    VOTES,
    all_topics,
    images,
    tier_group,
    tier_inputs,
)
from sinks.readers import read_answers
from sinks.verification.answers import Baseline
from sinks.verification.findings import Findings, Report, place_name
from sinks.verification.images import Standing, Trail
from sinks.verification.judge import Judge
from streams.intervals import Intervals
from streams.log import Log, Offsets, TopicPartition
from workers.verify.census import Census
from workers.verify.ledgers import Ledgers
from workers.verify.topics import bounds, scan
from workers.verify.trails import Trails, Undelivered

KEEP = 1000
"""Findings kept of each kind, and ids of waiting images."""


async def verify(
    log: Log,
    ledgers: Path | None,
    cascade: Cascade,
    *,
    baseline: Path | None = None,
    keep: int = KEEP,
) -> Report:
    """Compare what the ledgers say with what is on the log, and return what is wrong.

    Args:
        log: The log, open, with the cascade's topics.
        ledgers: Folder of the event ledgers; ``None`` leaves all to the topics.
        cascade: Its tiers are the groups and topics that are looked at.
        baseline: Answers of a clean run over the same images.
        keep: Findings kept of each kind.

    Raises:
        UsageError: A topic is missing, or a folder or file is not what it should be.
        RunError: A file cannot be read, or the log does not answer.
    """
    topics = await _topics(log, cascade)
    clean_run = None
    if baseline is not None:
        clean_run = await to_thread.run_sync(lambda: Baseline(read_answers(baseline)))
    verification = _Verification(log, cascade.tier_names, topics, clean_run, keep)
    return await verification.run(ledgers)


async def _topics(log: Log, cascade: Cascade) -> list[str]:
    """Return the cascade's topics that exist; only that of carried votes may be missing."""
    wanted = all_topics(cascade.tier_names)
    counts = await log.partition_counts(wanted)
    if missing := [topic for topic in wanted if topic not in {*counts, CARRIED}]:
        raise UsageError(f"expected topics {', '.join(missing)}: another --log, or --cascade?")
    return [topic for topic in wanted if topic in counts]


class _Verification:
    """One verification, step by step."""

    def __init__(
        self, log: Log, tiers: list[str], topics: list[str], baseline: Baseline | None, keep: int
    ) -> None:
        self._log, self._tiers, self._topics = log, tiers, topics
        self._baseline, self._keep, self._findings = baseline, keep, Findings(keep)
        self._inputs = {
            tier_group(tier): list(tier_inputs(tier, first=i == 0)) for i, tier in enumerate(tiers)
        } | {CONSENSUS_GROUP: [topic for topic in (VOTES, CARRIED) if topic in topics]}
        self._ledgers = Ledgers()
        self._oldest: dict[TopicPartition, int] = {}
        self._committed: dict[str, Offsets] = {}
        self._unchecked: list[str] = []

    async def run(self, ledgers: Path | None) -> Report:
        self._committed = await self._ask_committed()
        first = self._committed[tier_group(self._tiers[0])]
        census = Census(self._findings, self._oldest, first, self._baseline)
        if ledgers is not None:
            await to_thread.run_sync(
                self._ledgers.read, ledgers, self._findings, census.take_acknowledged
            )
        stand = await self._ask_committed()
        for group, history in self._ledgers.histories.items():
            history.check(stand.get(group, {}))
        await self._ask_bounds()
        await self._read(census)
        return self._written(census, await self._judge(census))

    async def _ask_committed(self) -> dict[str, Offsets]:
        return {
            group: await self._log.committed(group, topics)
            for group, topics in self._inputs.items()
        }

    async def _ask_bounds(self) -> None:
        """Learn where the topics begin; no group can be past an end that is asked for later."""
        for topic in self._topics:
            found = await bounds(self._log, topic)
            self._oldest.update(found.oldest)
            for group, offsets in self._committed.items():
                for tp, end in found.ends.items():
                    if offsets.get(tp, 0) > end:
                        self._findings.add(
                            "commit ahead of work",
                            place_name(*tp, offsets[tp]),
                            f"{group} has committed {offsets[tp]}; the partition ends at {end}",
                        )

    async def _read(self, census: Census) -> None:
        """Read the answers first, which need little room, and at last those that came meanwhile."""
        log = self._log
        answers = await scan(log, ANSWERS, "beginning", census.take_answer)
        places = {
            topic: await scan(log, topic, "beginning", census.take_image)
            for topic in map(images, LANES)
        }
        await scan(log, ANSWERS, answers, census.take_answer)
        for topic, place in places.items():
            await scan(log, topic, place, census.take_image)
        await scan(log, DEAD_LETTERS, "beginning", census.take_letter)
        census.check_neighbours()

    async def _judge(self, census: Census) -> Judge:
        standing = Standing(
            self._tiers, self._committed, self._oldest, self._ledgers.histories, census.buried
        )
        trimmed = {tp.partition for tp, at in self._oldest.items() if tp.topic == ANSWERS and at}
        since = {partition: census.since.get(partition, 1 << 62) for partition in trimmed}
        judge = Judge(standing, self._findings, since, self._keep)
        for image_id in census.waiting():
            judge.wait(image_id, f"tier {self._tiers[0]}")
        trails, gaps = census.questions(), dict(self._gaps())
        second = Trails(trails, gaps)
        if trails or gaps:
            await second.gather(self._log, self._tiers, self._inputs[CONSENSUS_GROUP])
        census.count_answered_since(trails)
        for image_id, trail in trails.items():
            judge.judge(image_id, trail)
        self._check_undelivered(second.undelivered, trails, census)
        return judge

    def _gaps(self) -> Iterator[tuple[TopicPartition, Intervals]]:
        """Yield the offsets below what a group has committed that no ledger saw delivered."""
        for group, history in self._ledgers.histories.items():
            for tp, at in self._committed.get(group, {}).items():
                if gaps := history.gaps(tp, at):
                    yield tp, gaps

    def _check_undelivered(
        self, found: Undelivered, trails: Mapping[str, Trail], census: Census
    ) -> None:
        """Tell records that were skipped from those that a member without a ledger worked on."""
        groups = {topic: group for group, topics in self._inputs.items() for topic in topics}
        tiers = {tier_group(tier): tier for tier in self._tiers}
        elsewhere: Counter[str] = Counter()
        for (tp, offset), ids in found.items():
            group = groups[tp.topic]
            worked_on = (_worked_on(trails.get(name), tiers.get(group)) for name in ids)
            if (tp, offset) in census.buried or (ids and all(worked_on)):
                elsewhere[group] += 1
                continue
            detail = (
                f"{group} stands at {self._committed[group][tp]}; nobody was given it "
                f"({', '.join(ids[:3]) or 'unreadable'})"
            )
            self._findings.add("skipped offset", place_name(*tp, offset), detail)
        for group, count in elsewhere.items():
            self._unchecked.append(
                f"{group}: {count:,} records were worked on by members without a ledger here"
            )

    def _written(self, census: Census, judge: Judge) -> Report:
        found = judge.result
        return Report(
            anomalies=self._findings.counts,
            findings=self._findings.kept,
            lost=self._findings.lost,
            waiting=dict(found.waiting.most_common()),
            waiting_ids=found.waiting_ids,
            explained=list(self._explained(judge)),
            unchecked=[*self._unchecked, *self._not_checked(census, judge)],
            images=len(census),
            acknowledged=census.acknowledged,
            answers=census.answers,
            ledgers=self._ledgers.files,
            events=self._ledgers.events,
        )

    def _explained(self, judge: Judge) -> Iterator[str]:
        found = judge.result
        if found.letters:
            yield f"{found.letters:,} images ended as dead letters, unanswered"
        if found.refused:
            yield f"{found.refused:,} ids were sent with a second picture, which was refused"
        if (clean_run := self._baseline) is not None:
            yield (
                f"{clean_run.compared:,} answers compared with the clean run, "
                f"{clean_run.in_part:,} of them in part"
            )

    def _not_checked(self, census: Census, judge: Judge) -> Iterator[str]:
        ledgers = self._ledgers
        if not ledgers.files:
            yield "no ledgers: commits, and images that were acknowledged and never kept"
        else:
            if not ledgers.producers:
                yield "no ledger of a producer: images that were acknowledged and never kept"
            for group in self._inputs:
                if group not in ledgers.histories:
                    yield f"no ledger of {group}: its commits"
        for damage in ledgers.damaged:
            yield f"ledger {damage}; the rest of it was not read"
        if census.unreadable:
            yield f"{census.unreadable:,} answers and dead letters that cannot be read"
        if judge.result.unknown:
            yield f"{judge.result.unknown:,} images older than the oldest answers that are left"
        if self._baseline is not None and self._baseline.unknown:
            yield f"{self._baseline.unknown:,} answers that the clean run has not"
        for topic in dict.fromkeys(tp.topic for tp, at in self._oldest.items() if at > 0):
            yield f"{topic} was trimmed: what is gone from it"


def _worked_on(trail: Trail | None, tier: str | None) -> bool:
    """Return whether a record was worked on: its image has votes of the tier, or its answer."""
    return trail is None or bool(trail.answers) or (tier is not None and tier in trail.votes)
