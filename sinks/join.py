"""The consensus join: votes of an image come together here until it has its one answer. Pure.

Votes are a set keyed by image and tier: a second pack of the same tier changes nothing. The path of
an image is told by the votes themselves: each says to which tier it was escalated, and the join is
complete when the path ends in an exit. A pack's offset is done when every image in it is resolved,
so a crash replays exactly the open joins.
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from schemas.records import Answer, ImageVotes, VotesPack
from sinks.answer import Answerer, TierVotes
from streams.log import TopicPartition

Source = tuple[TopicPartition, int]
# Ids of answers remembered per partition, up to twice over. A crash replays what came after the
# oldest open join; where more was answered meanwhile, an image could be answered again.
ANSWERED_WINDOW = 16_384


class AnsweredIds:
    """The last ids answered on one partition: between ``window`` and twice as many."""

    def __init__(self, window: int = ANSWERED_WINDOW) -> None:
        self._window = window
        self._new: set[str] = set()
        self._old: set[str] = set()

    def __contains__(self, image_id: str) -> bool:
        """Return whether the id was answered within the window."""
        return image_id in self._new or image_id in self._old

    def add(self, image_id: str) -> None:
        """Remember an id; the oldest are forgotten beyond the window."""
        self._new.add(image_id)
        if len(self._new) >= self._window:
            self._old, self._new = self._new, set()


class _Open:
    """An image whose path has not ended: the tiers that voted, and the packs they came in."""

    __slots__ = ("first_at", "sources", "tiers")

    def __init__(self, first_at: float) -> None:
        self.first_at = first_at
        self.tiers: dict[str, TierVotes] = {}
        self.sources: list[Source] = []


class Resolved(NamedTuple):
    """What came of a step: answers per partition, and pack offsets that are done."""

    answers: list[tuple[int, Answer]]
    done: dict[TopicPartition, list[int]]


class Join:
    """The open joins of the partitions one consensus member owns.

    Args:
        answerer: Makes the answers.
        tiers: Names of the cascade's tiers, in order.
    """

    def __init__(self, answerer: Answerer, tiers: Sequence[str]) -> None:
        self._answerer = answerer
        self._first = tiers[0]
        self._order = {name: i for i, name in enumerate(tiers)}
        self._open: dict[str, _Open] = {}
        self._deadlines: list[tuple[float, str]] = []
        self._left: dict[Source, int] = {}
        self._answered: dict[int, AnsweredIds] = {}
        self.late_votes = 0

    @property
    def open_images(self) -> int:
        """Number of images waiting for votes."""
        return len(self._open)

    def assign(self, answered: Mapping[int, Iterable[str]]) -> None:
        """Start over with these partitions and the ids known to be answered on each."""
        self._open, self._deadlines, self._left = {}, [], {}
        self._answered = {}
        for partition, ids in answered.items():
            known = self._answered[partition] = AnsweredIds()
            for image_id in ids:
                known.add(image_id)

    def add(self, pack: VotesPack, source: Source, now: float) -> Resolved:
        """Take in a pack read at ``source``; return the answers it completes."""
        tp, offset = source
        answered = self._answered[tp.partition]
        resolved = Resolved([], {})
        waiting = 0
        first = pack.tier == self._first
        for votes in pack.images:
            image_id = votes.head.image_id
            if image_id in answered:
                self.late_votes += 1
            elif first and votes.next_tier is None and image_id not in self._open:
                answer = self._answerer.answer([TierVotes(pack, votes)], first_at=now, now=now)
                resolved.answers.append((tp.partition, answer))
                answered.add(image_id)
            elif not self._hold(pack, votes, source, now, resolved):
                waiting += 1
        if waiting:
            self._left[source] = waiting
        else:
            resolved.done.setdefault(tp, []).append(offset)
        return resolved

    def _hold(
        self, pack: VotesPack, votes: ImageVotes, source: Source, now: float, resolved: Resolved
    ) -> bool:
        """Add votes to an open join; return whether that completed it."""
        image_id = votes.head.image_id
        found = self._open.get(image_id)
        if found is None:
            found = self._open[image_id] = _Open(now)
            if votes.head.deadline_at is not None:
                heapq.heappush(self._deadlines, (votes.head.deadline_at, image_id))
        elif pack.tier in found.tiers:
            self.late_votes += 1
            found.sources.append(source)
            return False
        found.tiers[pack.tier] = TierVotes(pack, votes)
        if not self._is_complete(found):
            found.sources.append(source)
            return False
        self._resolve(image_id, source[0].partition, now, complete=True, resolved=resolved)
        return True

    def _is_complete(self, found: _Open) -> bool:
        tier: str | None = self._first
        for _ in found.tiers:  # a path that goes in circles, as no router makes, ends too
            said = found.tiers.get(tier) if tier is not None else None
            if said is None:
                break
            tier = said.votes.next_tier
        return tier is None or tier in found.tiers

    def _resolve(
        self, image_id: str, partition: int, now: float, *, complete: bool, resolved: Resolved
    ) -> None:
        found = self._open.pop(image_id)
        passed = sorted(found.tiers.values(), key=lambda said: self._order.get(said.pack.tier, 99))
        answer = self._answerer.answer(passed, first_at=found.first_at, now=now, complete=complete)
        resolved.answers.append((partition, answer))
        self._answered[partition].add(image_id)
        for source in found.sources:
            self._left[source] -= 1
            if self._left[source] == 0:
                del self._left[source]
                resolved.done.setdefault(source[0], []).append(source[1])

    def expire(self, now: float) -> Resolved:
        """Answer, with the votes so far, every open image whose deadline has passed."""
        resolved = Resolved([], {})
        while self._deadlines and self._deadlines[0][0] <= now:
            _, image_id = heapq.heappop(self._deadlines)
            found = self._open.get(image_id)
            if found is None:
                continue
            partition = found.sources[0][0].partition
            self._resolve(image_id, partition, now, complete=False, resolved=resolved)
        return resolved

    @property
    def next_deadline_at(self) -> float | None:
        """When ``expire`` has something to do next; ``None`` if never."""
        return self._deadlines[0][0] if self._deadlines else None
