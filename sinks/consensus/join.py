"""The consensus join: votes of an image come together here until it has its one answer. Pure.

Votes are a set keyed by image, version of the cascade, and tier. The path of an image is told by
the votes themselves: each says to which tier it was escalated, and the join is complete when the
path ends in an exit. Of two votes of one tier the later one in ``votes`` counts until the answer is
given: a worker that died half way wrote the first, and only of the second it is certain that its
escalation is out.

No answer has votes of two versions. An image has several if the worker that began it died, and the
next began it anew by another: it is answered by the version whose path ends first, by the rules of
that one, and the votes of the others are late.

An image whose first tier's votes do not come within ``ORPHAN_AFTER`` of a later tier's is answered
with what there is: retention took them, and it would wait for ever. So is one that a tier has let
go while the path leads elsewhere, as votes of another client may say, to a tier that stays silent.
An image that was sent to a tier with ``give_up_after`` is answered without it when its votes have
not come for so long. They may come when all others have long been answered, and the image is
remembered no more; then they tell by themselves that they are late: see ``OpenPath.answered_by``.

A pack's offset is done when every image in it is resolved, so a crash replays exactly the open
joins. What was answered meanwhile is read back from the last ``JoinLimits.window`` answers of the
partition. That is exact because no pack stays uncommitted for more than ``carry_after`` answers of
its partition: then the votes of its open images are *carried*, published again on
``votes.carried``, and the pack is done. A copy comes back at once, whatever backlog there is on
``votes``, takes the place of what it copies, and is in its turn carried after as many answers; on
an idle partition nothing is. What must fit into the window:

    carry_after      answers while the oldest uncommitted pack waits
  + at_once / 2      until the log has acknowledged its offset, or else no more are given
  + at_once          answers of one step, and one pack
  + at_once          a zombie's step, acknowledged after its successor has read the window
  + lateness         answers between an image's answer and its last vote

With a window of 16,384 and 4,096 for the others, 2,048 less two packs are left for the last. Only a
vote that comes later than that, and a crash before its offset is committed, can lead to a second
answer.
"""

from collections.abc import Iterator, Mapping
from math import inf
from typing import NamedTuple

import msgspec
import structlog

from roadstream.schemas.records.answer import Answer
from roadstream.schemas.records.image import Head
from roadstream.schemas.records.votes import ImageVotes, VotesPack
from roadstream.schemas.topics import CARRIED
from roadstream.sinks.consensus.answer import COMPLETE, Ending, TierVotes
from roadstream.sinks.consensus.answered import ANSWERED_WINDOW, AnsweredIds, Content, differs
from roadstream.sinks.consensus.deadlines import Deadlines
from roadstream.sinks.consensus.open_images import (
    OpenImage,
    OpenPack,
    OpenPath,
    OpenVotes,
    OwnedPartition,
)
from roadstream.sinks.consensus.refusal import Refused
from roadstream.sinks.consensus.versions import KnownVersions
from roadstream.streams.log import RecordId, TopicPartition

logger = structlog.get_logger()

# Both are published together; only an outage of the log comes between them.
ORPHAN_AFTER = 300.0


class JoinLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How long an open join may keep its packs, in answers of a partition; see the module.

    Attributes:
        window: Answers that are read back when a partition is taken over.
        carry_after: Answers after which the votes of open images are carried forward.
        at_once: Answers published in one go, about. It also bounds their memory, and how long one
            transaction keeps the embedded log's lock from the workers.
    """

    window: int = ANSWERED_WINDOW
    carry_after: int = ANSWERED_WINDOW // 4
    at_once: int = ANSWERED_WINDOW // 4

    @property
    def wait_after(self) -> int:
        """Answers after the delivery of a pack before which its offset must be acknowledged."""
        return self.carry_after + self.at_once // 2


class Resolved(NamedTuple):
    """What came of a step.

    Attributes:
        answers: With their partitions.
        done: Offsets of packs that are done once the rest of this is published.
        carried: Packs to be published on ``votes.carried``, with their partitions.
        refused: Votes to become dead letters.
    """

    answers: list[tuple[int, Answer]]
    done: dict[TopicPartition, list[int]]
    carried: list[tuple[int, VotesPack]]
    refused: list[Refused]

    @classmethod
    def nothing(cls) -> "Resolved":
        """Return the outcome of a step in which nothing happened, to be filled."""
        return cls([], {}, [], [])


class JoinStats(msgspec.Struct):
    """Counters of a join since its process began.

    Attributes:
        late_votes: Votes for images answered already, and of tiers that had voted.
        refused_duplicates: Votes for a picture whose id belongs to another one.
        carried: Votes carried forward.
        restored: Answered images read back when partitions were taken over.
    """

    late_votes: int = 0
    refused_duplicates: int = 0
    carried: int = 0
    restored: int = 0


class Join:
    """The open joins of the partitions one consensus member owns.

    Args:
        versions: The rules by which votes are joined; those of a pack's version must be there.
        limits: How long packs stay open.
    """

    def __init__(self, versions: KnownVersions, limits: JoinLimits | None = None) -> None:
        self.versions = versions
        self.limits = limits or JoinLimits()
        self._open: dict[str, OpenImage] = {}
        self._forget_deadlines()
        self._ahead = 0.0
        self._partitions: dict[int, OwnedPartition] = {}
        self.stats = JoinStats()

    @property
    def open_images(self) -> int:
        """Number of images waiting for votes."""
        return len(self._open)

    @property
    def oldest_at(self) -> float | None:
        """When the first votes came of the image that has waited longest."""
        return next(iter(self._open.values())).first_at if self._open else None

    @property
    def next_deadline_at(self) -> float | None:
        """When ``expire`` has something to do next, give-ups aside; ``None`` if never."""
        due = [at for at in (self._deadlines.next_at, self._orphans.next_at) if at is not None]
        return min(due, default=None)

    @property
    def next_give_up_at(self) -> float | None:
        """The steady time at which an image has waited for a tier for too long; or ``None``."""
        return self._give_ups.next_at

    def count(self, partition: int) -> int:
        """Return how many answers were given on a partition since it was taken over."""
        return self._partitions[partition].answered.count

    @property
    def copies_overdue(self) -> bool:
        """Whether a copy is on its way for so long that it must come before anything else."""
        return any(
            part.answered.count - next(iter(part.travelling.values())) > self.limits.at_once
            for part in self._partitions.values()
            if part.travelling
        )

    def assign(self, answered: Mapping[int, Mapping[str, Content]], now: float = -inf) -> None:
        """Start over with these partitions and the images known to be answered on each.

        Args:
            answered: Per partition, content hashes by image id, oldest first.
            now: The wall clock's time.
        """
        self._open = {}
        self._forget_deadlines()
        window = self.limits.window
        self._partitions = {
            partition: OwnedPartition(AnsweredIds(window, ids, now))
            for partition, ids in answered.items()
        }
        self.stats.restored += sum(map(len, answered.values()))

    def _forget_deadlines(self) -> None:
        self._deadlines, self._orphans = Deadlines(), Deadlines()
        # By steady time alone: it is measured here, and no clock of others has to do with it.
        self._give_ups = Deadlines()

    def tick(self, now: float, steady: float) -> None:
        """Tell the time before a step: the wall clock, and one that never steps."""
        self._deadlines.tick(now, steady)
        self._orphans.tick(now, steady)
        self._ahead = now - steady

    def add(self, pack: VotesPack, source: RecordId, now: float) -> Resolved:
        """Take in a pack read at ``source``; return what it completes."""
        tp, offset = source
        part = self._partitions[tp.partition]
        answered, images = part.answered, self._open
        resolved = Resolved.nothing()
        opened: OpenPack | None = None
        rules = self.versions.rules(pack.cascade_hash)
        first, give = pack.tier == rules.first, rules.answerer.answer
        for votes in pack.images:
            head = votes.head
            image_id = head.image_id
            if image_id in answered:
                self._late(part, pack, votes, source, resolved)
            elif first and votes.next_tier is None and image_id not in images:
                answer = give([TierVotes(pack, votes)], first_at=now, now=now)
                resolved.answers.append((tp.partition, answer))
                answered.add(image_id, head.content_hash, now)
            else:
                opened = opened or OpenPack(
                    pack, rules, source, answered.count, tp.topic == CARRIED
                )
                self._keep_open(part, opened, votes, now, resolved)
        if opened is not None and opened.left:
            part.packs[source] = opened
        else:
            resolved.done.setdefault(tp, []).append(offset)
        self._carry_old(part, resolved)
        return resolved

    def _late(
        self,
        part: OwnedPartition,
        pack: VotesPack,
        votes: ImageVotes,
        source: RecordId,
        resolved: Resolved,
    ) -> None:
        image_id = votes.head.image_id
        known = part.answered.content_hash(image_id)
        if differs(known, votes.head):
            self._refuse(pack, votes, source, known, resolved)
        elif source[0].topic == CARRIED:
            part.travelling.pop((pack.cascade_hash, pack.tier, image_id), None)
        else:
            self.stats.late_votes += 1
        restored_at = part.answered.restored_at(image_id)
        if restored_at is not None:
            part.replayed_from = min(part.replayed_from, restored_at)

    def _refuse(
        self,
        pack: VotesPack,
        votes: ImageVotes,
        source: RecordId,
        known: Content,
        resolved: Resolved,
    ) -> None:
        self.stats.refused_duplicates += 1
        alone = msgspec.structs.replace(pack, images=[votes])
        resolved.refused.append(Refused(source, alone, known))

    def _keep_open(
        self,
        part: OwnedPartition,
        opened: OpenPack,
        votes: ImageVotes,
        now: float,
        resolved: Resolved,
    ) -> None:
        """Add votes to an open join; it may be complete then."""
        head, tier = votes.head, opened.pack.tier
        found = self._open.get(head.image_id)
        if found is None:
            partition = opened.source[0].partition
            found = self._open[head.image_id] = OpenImage(partition, now)
        elif differs(found.content_hash, head):
            self._refuse(opened.pack, votes, opened.source, found.content_hash, resolved)
            return
        found.content_hash = found.content_hash or head.content_hash
        found.sources.append(opened)
        opened.left += 1
        version = opened.rules.joined_as
        path = found.paths.get(version)
        if path is None:
            path = found.paths[version] = OpenPath(opened.rules)
        elif opened.rules.answerer.note is not None:  # the answer is to say so
            path.rules = opened.rules
        if not self._counts(part, path.votes.get(tier), opened, head.image_id):
            return
        path.votes[tier] = OpenVotes(opened, TierVotes(opened.pack, votes))
        if (awaited := path.awaited) is None:
            self._resolve(head.image_id, path, now, COMPLETE, resolved)
        else:
            self._watch(found, path, awaited, head, now)

    def _watch(
        self, found: OpenImage, path: OpenPath, awaited: str, head: Head, now: float
    ) -> None:
        """See that an open image does not wait for longer than it may."""
        image_id, deadline_at = head.image_id, head.deadline_at
        if deadline_at is not None and image_id not in self._deadlines:
            self._deadlines.push(deadline_at, image_id, now)
        if path.is_orphan and found.is_orphan and image_id not in self._orphans:
            self._orphans.push(now + ORPHAN_AFTER, image_id, now)
        steady = now - self._ahead
        if path.rules.give_up_after and path.wait_for(awaited, steady):
            self._give_ups.discard(image_id)
            due = min(other.gives_up_at for other in found.paths.values())
            self._give_ups.push(due, image_id, steady)

    def _counts(
        self, part: OwnedPartition, cast: OpenVotes | None, opened: OpenPack, image_id: str
    ) -> bool:
        """Return whether votes take the place of those of their tier from before, if anything."""
        if opened.copied:
            pack = opened.pack
            part.travelling.pop((pack.cascade_hash, pack.tier, image_id), None)
            return cast is None or cast.pack is None or cast.pack.copied
        self.stats.late_votes += cast is not None
        return True

    def _resolve(
        self, image_id: str, path: OpenPath, now: float, ending: Ending, resolved: Resolved
    ) -> None:
        """Answer an image by one of its paths; the votes of the others are late."""
        found = self._open[image_id]
        part = self._partitions[found.partition]
        answer = path.rules.answerer.answer(
            path.passed, first_at=found.first_at, now=now, ending=ending
        )
        resolved.answers.append((found.partition, answer))
        part.answered.add(image_id, found.content_hash, now)
        self._close(image_id, path, resolved)

    def _close(self, image_id: str, path: OpenPath | None, resolved: Resolved) -> None:
        """Let go of an image, answered by this path: the votes of all others are late."""
        found = self._open.pop(image_id)
        for deadlines in (self._deadlines, self._orphans, self._give_ups):
            deadlines.discard(image_id)
        for other in found.paths.values():
            self.stats.late_votes += 0 if other is path else len(other.votes)
        part = self._partitions[found.partition]
        for opened in found.sources:
            opened.left -= 1
            if opened.left == 0:
                self._release(part, opened, resolved)

    def _release(self, part: OwnedPartition, opened: OpenPack, resolved: Resolved) -> None:
        # A pack that is just being added is not there yet; its offset is done when it is through.
        if part.packs.pop(opened.source, None) is not None:
            tp, offset = opened.source
            resolved.done.setdefault(tp, []).append(offset)

    def expire(self, now: float, at_most: int | None = None, known_until: float = inf) -> Resolved:
        """Answer, with the votes so far, open images that are due.

        Args:
            now: The wall clock's time.
            at_most: So many of them, or all.
            known_until: The steady time until which all votes have been read: who waits for a tier
                is given up only as of then.
        """
        resolved = Resolved.nothing()
        for image_id, path, ending in self._due(now, known_until, resolved):
            self._resolve(image_id, path, now, ending, resolved)
            if len(resolved.answers) == at_most:
                break
        for partition in {partition for partition, _ in resolved.answers}:
            self._carry_old(self._partitions[partition], resolved)
        return resolved

    def _due(
        self, now: float, known_until: float, resolved: Resolved
    ) -> Iterator[tuple[str, OpenPath, Ending]]:
        for image_id in self._deadlines.pop(now):
            if not self._is_late(image_id, resolved):
                path = self._open[image_id].furthest
                yield image_id, path, Ending("expired", path.awaited)
        for image_id in self._orphans.pop(now):
            found = self._open[image_id]
            if found.is_orphan and not self._is_late(image_id, resolved):
                path = found.furthest
                logger.warning("orphan", image_id=image_id, tiers=list(path.votes))
                yield image_id, path, Ending("orphan", path.awaited)
        for image_id in self._give_ups.pop(min(now - self._ahead, known_until)):
            path = min(self._open[image_id].paths.values(), key=lambda path: path.gives_up_at)
            tier = path.awaited or ""
            yield image_id, path, Ending("given up", tier, path.rules.give_up_after[tier])

    def _is_late(self, image_id: str, resolved: Resolved) -> bool:
        """Let go of an image that was answered before all that is remembered."""
        found = self._open[image_id]
        if not found.was_answered(self._partitions[found.partition].answered.forgotten_until):
            return False
        self._close(image_id, None, resolved)
        return True

    def _carry_old(self, part: OwnedPartition, resolved: Resolved) -> None:
        """Carry forward what has been open for too many answers."""
        latest = part.answered.count - self.limits.carry_after
        while part.packs:
            oldest = next(iter(part.packs.values()))
            if min(oldest.count, part.replayed_from) >= latest:
                return
            self._carry(part, oldest, resolved)
        part.replayed_from = inf

    def _carry(self, part: OwnedPartition, opened: OpenPack, resolved: Resolved) -> None:
        """Let go of a pack; what only it holds of its open images goes out as a copy."""
        version, tier = opened.pack.cascade_hash, opened.pack.tier
        images = list[ImageVotes]()
        for votes in opened.pack.images:
            found = self._open.get(votes.head.image_id)
            if found is None or opened not in found.sources:
                continue
            found.sources = [other for other in found.sources if other is not opened]
            cast = found.paths[opened.rules.joined_as].votes[tier]
            if cast.pack is opened:
                cast.pack = None
                images.append(cast.voted.votes)
                part.travelling[version, tier, votes.head.image_id] = part.answered.count
        self._release(part, opened, resolved)
        if images:
            copy = msgspec.structs.replace(opened.pack, images=images)
            resolved.carried.append((opened.source[0].partition, copy))
            self.stats.carried += len(images)
