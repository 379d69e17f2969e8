"""What ``verify`` could not check, which keeps a run from being cleared, and what it need not."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping

from roadstream.schemas.records.image import LANES
from roadstream.schemas.topics import images
from roadstream.sinks.verification.census import Census
from roadstream.sinks.verification.images import ImageCounts
from roadstream.sinks.verification.ledgers import Ledgers
from roadstream.streams.log import Offsets, TopicPartition

FORGOTTEN = "has no committed offsets on"
"""What is said of a group whose commits the log does not know, or did not for a while."""


class Coverage:
    """Gathers what evidence there was.

    Args:
        ledgers: The ledgers, read.
        groups: The groups that are looked at, with the topics that each consumes.

    Attributes:
        asked: Whether ledgers were to be compared at all.
        elsewhere: Records per group that a member without a ledger worked on.
        untold: Records per group that nobody was given, unless a part of a ledger says so that
            cannot be read.
        remade: Partitions that were made anew since the ledgers tell of them.
    """

    def __init__(self, ledgers: Ledgers, groups: Mapping[str, Collection[str]]) -> None:
        self._ledgers, self._groups = ledgers, groups
        self.asked = False
        self.elsewhere: Counter[str] = Counter()
        self.untold: Counter[str] = Counter()
        self.remade: set[TopicPartition] = set()

    def explained(self, oldest: Mapping[TopicPartition, int]) -> Iterator[str]:
        """Yield what lies outside of the question, and what is known by other evidence."""
        ledgers = self._ledgers
        if not self.asked:
            yield (
                "without --ledger only the topics were compared: not commits, "
                "and not images that were acknowledged and never kept"
            )
        if ledgers.strangers:
            which = ", ".join(sorted(ledgers.strangers))
            yield f"{ledgers.strangers.total():,} ledgers of another log were left out ({which})"
        if ledgers.other_groups:
            which = ", ".join(sorted(ledgers.other_groups))
            yield f"ledgers of {which} were left out: no group of this cascade"
        for group, history in ledgers.histories.items():
            if history.elsewhere:
                which = ", ".join(sorted(history.elsewhere))
                yield f"{group} has {which} in ledgers of another cascade: left out"
        for group, history in ledgers.histories.items():
            if redone := [tp for tp, again in history.cut_back.items() if again]:
                yield (
                    f"{group} stood further on {_names(redone)} before the host was started anew: "
                    "a power cut takes the last commits, and their work was done again"
                )
        if ledgers.nameless:
            yield (
                f"{ledgers.nameless:,} ledgers do not say of which log they are, "
                "and were taken for this one's"
            )
        for topic in _topics(tp for tp, at in oldest.items() if at > 0):
            yield f"{topic} was trimmed: its oldest records are gone"

    def unchecked(
        self,
        census: Census,
        counts: ImageCounts,
        oldest: Mapping[TopicPartition, int],
        committed: Mapping[str, Offsets],
        since: Mapping[str, Offsets],
    ) -> Iterator[str]:
        """Yield what should have been compared and could not be.

        Args:
            census: What is known of the images.
            counts: What became of those in question.
            oldest: Oldest offset that each partition still has.
            committed: What each group has committed.
            since: The same, asked after what is oldest was.
        """
        if self.asked:
            yield from self._missing_ledgers(census, oldest, committed)
        yield from self._damaged_ledgers(committed)
        yield from self._lost_commits()
        yield from self._lost_records(oldest, since)
        unreadable = census.unreadable + counts.unreadable
        if unreadable:
            yield f"{unreadable:,} answers and dead letters that cannot be read"
        if counts.unknown:
            yield f"{counts.unknown:,} images older than the oldest answers that are left"
        if counts.letterless:
            yield f"{counts.letterless:,} images older than the oldest dead letters that are left"
        if counts.gone:
            yield f"{counts.gone:,} acknowledged images that are on no topic since it was made anew"

    def _missing_ledgers(
        self,
        census: Census,
        oldest: Mapping[TopicPartition, int],
        committed: Mapping[str, Offsets],
    ) -> Iterator[str]:
        ledgers = self._ledgers
        worked = [group for group in self._groups if any(committed.get(group, {}).values())]
        if not ledgers.files and (worked or len(census) or ledgers.strangers):
            yield "no ledgers of this log: commits, and acknowledged images that were never kept"
            return
        for group in worked:
            if group not in ledgers.histories:
                yield f"no ledger of {group}: its commits"
        if not ledgers.producers:
            if len(census):
                yield "no ledger of a producer: images that were acknowledged and never kept"
        elif (
            ledgers.producers_whole
            and not ledgers.uncertain
            and (count := census.unacknowledged()) > ledgers.unnoted
        ):
            yield (
                f"{count:,} images were sent by a producer without a ledger here: "
                "others of its images that were acknowledged and never kept"
            )
        self._count_before_the_ledgers(oldest, committed)
        for group, count in self.elsewhere.items():
            yield f"{group}: {count:,} records were worked on by members without a ledger here"

    def _count_before_the_ledgers(
        self, oldest: Mapping[TopicPartition, int], committed: Mapping[str, Offsets]
    ) -> None:
        for group, history in self._ledgers.histories.items():
            if not history.whole:
                continue
            for tp, at in committed.get(group, {}).items():
                start = history.start(tp)
                end = at if start is None else min(start, at)
                if tp not in self.remade and (count := end - oldest.get(tp, 0)) > 0:
                    self.elsewhere[group] += count

    def _damaged_ledgers(self, committed: Mapping[str, Offsets]) -> Iterator[str]:
        for damage in self._ledgers.damaged:
            yield f"a part of ledger {damage}"
        for name in self._ledgers.cut:
            yield f"ledger {name}: its process went on when it could not be written any more"
        for group, history in self._ledgers.histories.items():
            if further := [*history.unexplained(committed.get(group, {}))]:
                yield f"{group} stands further on {_names(further)} than any of its ledgers knows"
            if history.unassigned:
                yield (
                    f"{group}: {history.unassigned:,} deliveries for which its ledgers name no "
                    "assignment"
                )
        for group, count in self.untold.items():
            yield f"{group}: {count:,} records that only a damaged ledger may tell of"

    def _lost_commits(self) -> Iterator[str]:
        for group, history in self._ledgers.histories.items():
            for topic in _topics(iter(history.missed)):
                missed = (gone for tp, gone in history.missed.items() if tp.topic == topic)
                count = sum(last - first + 1 for gone in missed for first, last in gone)
                yield f"retention took {count:,} records of {topic} that {group} had not committed"
            if cut := [tp for tp, again in history.cut_back.items() if not again]:
                yield (
                    f"{group} stood further on {_names(cut)} before the host was started anew, "
                    "and has not come as far again"
                )
            if history.forgotten:
                yield (
                    f"{group} {FORGOTTEN} {_names(history.forgotten)} any more "
                    "(deleted, or expired): its commits"
                )

    def _lost_records(
        self, oldest: Mapping[TopicPartition, int], committed: Mapping[str, Offsets]
    ) -> Iterator[str]:
        if self.remade:
            yield f"what was on {_names(self.remade)} before that was made anew"
        sent = [images(lane) for lane in LANES]
        if not self._ledgers.producers:
            for topic in _topics(tp for tp, at in oldest.items() if at > 0 and tp.topic in sent):
                yield f"{topic} was trimmed, and no ledger says what was sent: what is gone from it"
        for group, topics in self._groups.items():
            offsets = committed.get(group, {})
            for topic in topics:
                ours = ((tp, at) for tp, at in oldest.items() if tp.topic == topic)
                if (count := sum(max(0, at - offsets.get(tp, 0)) for tp, at in ours)) > 0:
                    yield f"{topic} was trimmed before {group} had committed it: {count:,} records"


def _topics(partitions: Iterator[TopicPartition]) -> dict[str, None]:
    return dict.fromkeys(tp.topic for tp in partitions)


def _names(partitions: Collection[TopicPartition]) -> str:
    return ", ".join(_topics(iter(sorted(partitions))))
