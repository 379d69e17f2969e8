"""Gathers what ``verify`` compares: ledgers, committed offsets, and ids and places on the topics.

Everything is asked in an order that keeps a running system honest: committed offsets before the
topics, and topics before those that follow from them. Then what a group had committed past has its
outputs on the log by the time that they are looked for. Only the votes are read after the answers
that they led to, for their versions.

Memory: 150 to 250 bytes per image, and about 1 kB per image that needs a second look (no answer,
more than one, one by votes of another version, or sent more than once). The topics are read once,
and once more for those.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import structlog
from anyio import to_thread

from roadstream.schemas import codec
from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.errors import OutputError, UsageError
from roadstream.schemas.records.claims import CascadeVersion, decode_told
from roadstream.schemas.records.image import LANES
from roadstream.schemas.topics import (
    ANSWERS,
    CARRIED,
    CASCADES,
    CONSENSUS_GROUP,
    DEAD_LETTERS,
    VOTES,
    all_topics,
    images,
    tier_group,
    tier_inputs,
)
from roadstream.sinks.files.readers import read_answers
from roadstream.sinks.verification.answers import Baseline
from roadstream.sinks.verification.census import Census
from roadstream.sinks.verification.commits import Accusation
from roadstream.sinks.verification.coverage import Coverage
from roadstream.sinks.verification.findings import Findings, Report
from roadstream.sinks.verification.images import ImageChecker, LogState, Trail
from roadstream.sinks.verification.ledgers import Ledgers
from roadstream.sinks.verification.topics import bounds, oldest_record, scan
from roadstream.sinks.verification.trails import Trails, Undelivered
from roadstream.streams.group.intervals import Intervals
from roadstream.streams.log import Log, Offsets, Record, TopicPartition, record_name

logger = structlog.get_logger()

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
        cascade: Its tiers, and those of its other versions that the log knows of, are the groups
            and topics that are looked at.
        baseline: Answers of a clean run over the same images.
        keep: Findings kept of each kind.

    Raises:
        UsageError: A topic is missing, or a folder or file is not what it should be.
        RunError: A file cannot be read, or the log does not answer.
    """
    tiers = await _all_tiers(log, cascade)
    topics = await _topics(log, cascade, tiers)
    clean_run = None
    if baseline is not None:
        clean_run = await to_thread.run_sync(lambda: Baseline(read_answers(baseline)))
    identity = await log.identity()
    verification = _Verification(log, identity, tiers, topics, clean_run, keep)
    return await verification.run(ledgers)


async def _all_tiers(log: Log, cascade: Cascade) -> list[str]:
    """Return the cascade's tiers, and after them those of its other versions that have topics."""
    told = dict.fromkeys(cascade.tier_names)
    try:
        if CASCADES in await log.partition_counts([CASCADES]):
            await scan(log, CASCADES, "beginning", lambda _, record: told.update(_tiers(record)))
    except OutputError as error:  # to read it is no right that anybody must have
        logger.warning("versions_unread", topic=log.real_name(CASCADES), reason=str(error))
    others = [tier for tier in told if tier not in cascade.tier_names]
    there = await log.partition_counts([t for o in others for t in tier_inputs(o, first=False)])
    return cascade.tier_names + [
        tier for tier in others if tier_inputs(tier, first=False).keys() <= there.keys()
    ]


class _Tier(msgspec.Struct):
    name: str


class _Tiers(msgspec.Struct):
    tiers: list[_Tier]


def _tiers(record: Record) -> dict[str, None]:
    """Return the tiers of the version of the cascade that a record tells of, if it does."""
    try:
        told = decode_told(record.value or b"")
        if isinstance(told, CascadeVersion):
            return {tier.name: None for tier in _read_tiers(told.snapshot.text).tiers}
    except codec.UNREADABLE:
        pass
    return {}


def _read_tiers(text: bytes) -> _Tiers:
    return msgspec.toml.decode(text, type=_Tiers)


async def _topics(log: Log, cascade: Cascade, tiers: list[str]) -> list[str]:
    """Return the topics of these tiers; only that of carried votes may be missing."""
    wanted = all_topics(tiers)
    counts = await log.partition_counts(wanted)
    if missing := [log.real_name(topic) for topic in wanted if topic not in {*counts, CARRIED}]:
        raise UsageError(f"expected topics {', '.join(missing)}: another --log, or --cascade?")
    return [topic for topic in wanted if topic in counts]


class _Verification:
    """One verification, step by step."""

    def __init__(
        self,
        log: Log,
        identity: str,
        tiers: list[str],
        topics: list[str],
        baseline: Baseline | None,
        keep: int,
    ) -> None:
        self._log, self._tiers, self._topics = log, tiers, topics
        self._baseline, self._keep, self._findings = baseline, keep, Findings(keep)
        self._inputs = {
            tier_group(tier): list(tier_inputs(tier, first=i == 0)) for i, tier in enumerate(tiers)
        } | {CONSENSUS_GROUP: [topic for topic in (VOTES, CARRIED) if topic in topics]}
        self._ledgers = Ledgers(identity, self._inputs, self._findings)
        self._oldest: dict[TopicPartition, int] = {}
        self._ends: dict[TopicPartition, int] = {}
        self._committed: dict[str, Offsets] = {}
        self._committed_since: dict[str, Offsets] = {}
        self._coverage = Coverage(self._ledgers, self._inputs)

    async def run(self, ledgers: Path | None) -> Report:
        self._committed = await self._ask_committed()
        first = self._committed[tier_group(self._tiers[0])]
        ends: dict[TopicPartition, int] = {}
        for topic in map(images, LANES) if ledgers is not None else ():
            ends.update((await bounds(self._log, topic)).ends)
        census = Census(self._findings, self._oldest, first, self._baseline, ends)
        if ledgers is not None:
            self._coverage.asked = True
            await to_thread.run_sync(self._ledgers.read, ledgers, census.take_acknowledged)
        stand = await self._ask_committed()
        await self._ask_bounds()
        self._committed_since = await self._ask_committed()
        await self._check_commits(stand)
        await self._read(census)
        return self._written(census, await self._check_images(census))

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
            self._ends.update(found.ends)

    async def _check_commits(self, stand: Mapping[str, Offsets]) -> None:
        """Accuse groups of their commits, but not of those on topics that were made anew."""
        found = [*self._past_the_end()]
        suspects = {accusation.tp for accusation in found}
        for group, history in self._ledgers.histories.items():
            accusations = history.accusations(stand.get(group, {}))
            suspects |= {accusation.tp for accusation in accusations}
            suspects |= set(history.beyond(self._ends))
            found += accusations
        remade = self._coverage.remade
        remade |= {tp for tp in sorted(suspects) if await self._is_made_anew(tp)}
        for accusation in found:
            if accusation.tp not in remade:
                self._findings.add(accusation.kind, accusation.what, accusation.detail)

    def _past_the_end(self) -> Iterator[Accusation]:
        for group, offsets in self._committed.items():
            for tp, at in offsets.items():
                if at > (end := self._ends.get(tp, 0)):
                    detail = f"{group} has committed {at}; the partition ends at {end}"
                    yield Accusation(tp, "commit ahead of work", record_name((tp, at)), detail)

    async def _is_made_anew(self, tp: TopicPartition) -> bool:
        """Return whether a topic was deleted and made again since the ledgers tell of it.

        Then an offset was delivered before the record that stands there now was appended, or
        nothing is there at all. A partition that has only lost its end still has older records.
        """
        histories = self._ledgers.histories.values()
        oldest = await oldest_record(self._log, tp)
        if oldest is None:
            return any(tp in history.beyond(self._ends) for history in histories)
        appended_at = oldest.timestamp / 1000
        return any(history.knew_another(tp, oldest.offset, appended_at) for history in histories)

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
        for topic in self._inputs[CONSENSUS_GROUP]:
            await scan(log, topic, "beginning", census.take_votes)
        census.check_neighbours()

    async def _check_images(self, census: Census) -> ImageChecker:
        ledgers = self._ledgers
        state = LogState(
            self._tiers,
            self._committed,
            self._oldest,
            ledgers.histories,
            census.buried,
            [group for group in self._inputs if ledgers.patchy(group)],
            self._coverage.remade,
        )
        trimmed = {tp.partition for tp, at in self._oldest.items() if tp.topic == ANSWERS and at}
        since = {partition: census.since.get(partition, 1 << 62) for partition in trimmed}
        letters_since = self._letters_since(census)
        checker = ImageChecker(state, self._findings, since, letters_since, self._keep)
        for image_id in census.waiting():
            checker.wait(image_id, f"tier {self._tiers[0]}")
        trails, gaps = census.questions(), dict(self._gaps())
        second = Trails(trails, gaps)
        if trails or gaps:
            await second.gather(self._log, self._tiers, self._inputs[CONSENSUS_GROUP])
        census.count_answered_since(trails)
        for image_id, trail in trails.items():
            checker.check(image_id, trail)
        self._check_undelivered(second.undelivered, trails, census)
        self._check_unreadable(second.undelivered, checker, census)
        return checker

    def _letters_since(self, census: Census) -> int:
        """Return the time before which dead letters may have been trimmed."""
        trimmed = [
            tp.partition for tp, at in self._oldest.items() if at and tp.topic == DEAD_LETTERS
        ]
        return max((census.letters_since.get(p, 1 << 62) for p in trimmed), default=0)

    def _check_unreadable(
        self, skipped: Undelivered, checker: ImageChecker, census: Census
    ) -> None:
        """Look for records that cannot be read and were committed without a dead letter."""
        first = self._tiers[0]
        for tp, offset in census.unreadable_images:
            if (tp, offset) in census.buried or (tp, offset) in skipped:
                continue
            if any(at and where.topic == DEAD_LETTERS for where, at in self._oldest.items()):
                checker.result.letterless += 1
                continue
            detail = f"cannot be read; tier {first} committed it without a dead letter"
            self._findings.add("lost", record_name((tp, offset)), detail, "worker")

    def _gaps(self) -> Iterator[tuple[TopicPartition, Intervals]]:
        """Yield the offsets below what a group has committed that no ledger saw delivered."""
        for group, history in self._ledgers.histories.items():
            for tp, at in self._committed.get(group, {}).items():
                if tp not in self._coverage.remade and (gaps := history.gaps(tp, at)):
                    yield tp, gaps

    def _check_undelivered(
        self, found: Undelivered, trails: Mapping[str, Trail], census: Census
    ) -> None:
        """Tell records that were skipped from those that a member without a ledger worked on."""
        groups = {topic: group for group, topics in self._inputs.items() for topic in topics}
        tiers = {tier_group(tier): tier for tier in self._tiers}
        coverage = self._coverage
        for (tp, offset), ids in found.items():
            group = groups[tp.topic]
            worked_on = (_worked_on(trails.get(name), tiers.get(group)) for name in ids)
            done, patchy = ids and all(worked_on), self._ledgers.patchy(group)
            if done or patchy or (tp, offset) in census.buried:
                (coverage.untold if patchy else coverage.elsewhere)[group] += 1
                continue
            detail = (
                f"{group} stands at {self._committed[group][tp]}; nobody was given it "
                f"({', '.join(ids[:3]) or 'unreadable'})"
            )
            self._findings.add("skipped offset", record_name((tp, offset)), detail)

    def _written(self, census: Census, checker: ImageChecker) -> Report:
        found, coverage = checker.result, self._coverage
        return Report(
            anomalies=self._findings.counts,
            findings=self._findings.kept,
            lost=self._findings.lost,
            waiting=dict(found.waiting.most_common()),
            waiting_ids=found.waiting_ids,
            explained=[*self._explained(checker), *coverage.explained(self._oldest)],
            unchecked=[
                *coverage.unchecked(
                    census, found, self._oldest, self._committed, self._committed_since
                ),
                *self._not_compared(),
            ],
            images=len(census),
            acknowledged=census.acknowledged,
            answers=census.answers,
            ledgers=self._ledgers.files,
            events=self._ledgers.events,
        )

    def _not_compared(self) -> Iterator[str]:
        clean_run = self._baseline
        if clean_run is not None and clean_run.unknown and not clean_run.compared:
            yield f"none of the {clean_run.unknown:,} answers is in the clean run"

    def _explained(self, checker: ImageChecker) -> Iterator[str]:
        found = checker.result
        if found.letters:
            yield f"{found.letters:,} images ended as dead letters, unanswered"
        if found.refused:
            yield f"{found.refused:,} ids were sent with a second picture, which was refused"
        if (clean_run := self._baseline) is not None:
            yield (
                f"{clean_run.compared:,} answers compared with the clean run, "
                f"{clean_run.in_part:,} of them in part"
            )
            if clean_run.compared and clean_run.unknown:
                yield f"{clean_run.unknown:,} answers that the clean run has not"


def _worked_on(trail: Trail | None, tier: str | None) -> bool:
    """Return whether a record was worked on: its image has votes of the tier, or its answer."""
    return trail is None or bool(trail.answers) or (tier is not None and tier in trail.votes)
