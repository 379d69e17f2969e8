"""Watches the simulated log and checks, at every record and every commit, what is promised."""

import hashlib
import struct
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import msgspec

from roadstream.schemas import codec
from roadstream.schemas.errors import RecordError
from roadstream.schemas.records.answer import Answer
from roadstream.schemas.records.votes import VotesPack
from roadstream.schemas.topics import (
    ANSWERS,
    CARRIED,
    CONSENSUS_GROUP,
    DEAD_LETTERS,
    VOTES,
    tier_group,
    tier_inputs,
)
from roadstream.streams.log import Polled, TopicPartition
from roadstream.streams.memory.store import Appender, MemoryRecord

UNREADABLE = -1


class Expected(msgspec.Struct, frozen=True):
    """What an undisturbed run says of a picture; compared with every answer."""

    status: str
    label: str | None
    probability: float | None
    exit_tier: str | None


class Broken(msgspec.Struct, frozen=True):
    """A promise that did not hold.

    Attributes:
        promise: Its name, as ``roadstream verify`` names anomalies.
        what: What came instead.
        at: Virtual seconds.
        step: Callbacks run until then.
    """

    promise: str
    what: str
    at: float
    step: int


class Tally(msgspec.Struct):
    """What was seen.

    Attributes:
        records: Records appended.
        statuses: Answers by status.
        doubled_by_zombies: Second answers that a member wrote after it had lost the partition, or
            whose first was written so; equal to the first.
        degraded: Answers that a member is missing from.
        dead_letters: Dead letters by reason.
        missed: Records that members were told of as gone.
        evicted: Sessions that ended by silence.
        commits: Commits seen.
        carried: Votes of open images that were sent on in a later pack.
    """

    records: int = 0
    statuses: Counter[str] = msgspec.field(default_factory=Counter)
    doubled_by_zombies: int = 0
    degraded: int = 0
    dead_letters: Counter[str] = msgspec.field(default_factory=Counter)
    missed: int = 0
    evicted: int = 0
    commits: int = 0
    carried: int = 0


class Checker:
    """A ``Watcher`` that knows the images by number.

    Args:
        images: How many there will be.
        tiers: Names of the tiers, in order.
        expected: What an undisturbed run says, per grey level; ``None`` to learn it.
        levels: Grey levels an image was sent with: one, or two for a conflicting pair.
        now: Virtual time and step, for the record.
    """

    def __init__(
        self,
        images: int,
        tiers: Sequence[str],
        expected: Mapping[int, Expected] | None,
        levels: Callable[[int], Sequence[int]],
        now: Callable[[], tuple[float, int]],
    ) -> None:
        self.learnt: dict[int, Expected] = {}
        self._expected, self._levels, self._now = expected, levels, now
        self._tiers = {name: i + 1 for i, name in enumerate(tiers)}
        self.answers = bytearray(images)
        self.excused: dict[int, tuple[TopicPartition, int]] = {}
        self._missed: list[tuple[TopicPartition, int, int]] = []
        self.tally = Tally()
        self.broken: list[Broken] = []
        self._first = array("Q", bytes(8 * images))
        self._by_zombie: set[int] = set()
        # Images that some member gave no vote for at some time: their way may have been another.
        self._shaken = bytearray(images)
        # Images that were sent with a deadline at some time.
        self._hurried = bytearray(images)
        self._voted = {name: bytearray(images) for name in tiers}
        self._next = {name: bytearray(images) for name in tiers}
        self._escalated = {name: bytearray(images) for name in tiers}
        self._inputs: dict[TopicPartition, array[int]] = {}
        self._packs: dict[TopicPartition, dict[int, tuple[str, list[int]]]] = {}
        self._letters: set[tuple[str, int, int]] = set()
        self._commits: dict[tuple[str, TopicPartition], int] = {}
        self._tier_of = {
            topic: name for i, name in enumerate(tiers) for topic in tier_inputs(name, first=i == 0)
        }
        self._tier_of_group = {tier_group(name): name for name in tiers}
        self._digest = hashlib.sha256()

    @property
    def digest(self) -> str:
        """Hash of everything that happened, in its order and with its virtual time."""
        return self._digest.hexdigest()

    def break_promise(self, promise: str, what: str) -> None:
        """Note a promise that did not hold."""
        self.broken.append(Broken(promise, what, *self._now()))

    def _note(self, what: str, tp: TopicPartition, offset: int, value: bytes) -> None:
        self._digest.update(b"%s %s %d %d %.9f " % (
            what.encode(), tp.topic.encode(), tp.partition, offset, self._now()[0]
        ))  # fmt: skip
        self._digest.update(value)

    def appended(self, tp: TopicPartition, record: MemoryRecord, by: Appender | None) -> None:
        """See ``Watcher``."""
        value = record.value or b""
        self._note("appended", tp, record.offset, value)
        self.tally.records += 1
        if tp.topic == ANSWERS:
            self._answered(codec.decode_answer(value), tp, by)
        elif tp.topic in (VOTES, CARRIED):
            self._pack(tp, record.offset, value)
        elif tp.topic == DEAD_LETTERS:
            letter = codec.decode_dead_letter(value)
            self.tally.dead_letters[letter.reason] += 1
            self._letters.add((letter.topic, letter.partition, letter.offset))
        else:
            self._input(tp, record.offset, value)

    def _input(self, tp: TopicPartition, offset: int, value: bytes) -> None:
        tier = self._tier_of[tp.topic]
        numbers = self._inputs.setdefault(tp, array("q"))
        assert len(numbers) == offset
        try:
            if tp.topic.startswith("images."):
                head = codec.decode(codec.decode_image, value, *tp, offset).head
            else:
                head = codec.decode(codec.decode_escalation, value, *tp, offset).head
        except RecordError:
            numbers.append(UNREADABLE)
            return
        number = int(head.image_id[1:])
        numbers.append(number)
        self._escalated[tier][number] = 1
        if head.deadline_at is not None:
            self._hurried[number] = 1

    def _pack(self, tp: TopicPartition, offset: int, value: bytes) -> None:
        packs = self._packs.setdefault(tp, {})
        try:
            pack = codec.decode(codec.decode_votes, value, *tp, offset)
        except RecordError:
            packs[offset] = ("", [UNREADABLE])
            return
        packs[offset] = (pack.tier, [int(votes.head.image_id[1:]) for votes in pack.images])
        if tp.topic == VOTES:
            self._votes(pack)

    def _votes(self, pack: VotesPack) -> None:
        """Note who voted, and where the image goes on: the later of two votes of a tier counts."""
        voted, goes_on = self._voted[pack.tier], self._next[pack.tier]
        for votes in pack.images:
            number = int(votes.head.image_id[1:])
            voted[number] = 1
            if None in votes.probability:
                self._shaken[number] = 1
            goes_on[number] = 0 if votes.next_tier is None else self._tiers[votes.next_tier]

    def _answered(self, answer: Answer, tp: TopicPartition, by: Appender | None) -> None:
        number = int(answer.head.image_id[1:])
        self.tally.statuses[answer.status] += 1
        if "degraded" in answer.flags:
            self.tally.degraded += 1
        zombie = by is not None and not by.owns(tp.partition)
        said = _essence(answer)
        if not self.answers[number]:
            self._first[number] = said
            if zombie:
                self._by_zombie.add(number)
            self._check_answer(number, answer)
        else:
            self._check_double(number, answer, said, zombie)
        self.answers[number] = min(255, self.answers[number] + 1)

    def _check_double(self, number: int, answer: Answer, said: int, zombie: bool) -> None:
        if self._first[number] != said:
            self.break_promise("divergent", f"{answer.head.image_id}: {answer}")
        elif zombie or number in self._by_zombie:
            self.tally.doubled_by_zombies += 1
        else:
            self.break_promise("doubled", answer.head.image_id)

    def _check_answer(self, number: int, answer: Answer) -> None:
        """Compare with an undisturbed run, unless the deadline, a sick member, or retention, which
        took votes or an escalation, explains it.
        """
        deadline_at = answer.head.deadline_at
        in_time = deadline_at is None or answer.answered_at <= deadline_at
        if answer.status == "answered" and not in_time:
            self.break_promise("deadline ignored", answer.head.image_id)
        if self._expected is None:
            self.learnt[self._levels(number)[0]] = _outcome(answer)
            return
        known = [self._expected[level] for level in self._levels(number)]
        if _outcome(answer) in known:
            return
        late = self._hurried[number] and answer.status in ("partial", "failed")
        taken = number in self.excused and answer.status == "partial"
        if not (late or taken or self._shaken[number]):
            self.break_promise(
                "neighbour changed", f"{answer.head.image_id}: expected {known}, got {answer}"
            )

    def delivered(self, group: str, member: str, polled: Polled) -> None:
        """See ``Watcher``. What a zombie is still given has been committed by others since."""

    def committed(self, group: str, member: str, tp: TopicPartition, offset: int) -> None:
        """See ``Watcher``."""
        self._note(f"{group} {member} committed", tp, offset, b"")
        self.tally.commits += 1
        before = self._commits.get((group, tp), 0)
        if offset < before:
            self.break_promise(
                "commit moved backwards", f"{group} {member} {tp}: {before}→{offset}"
            )
            return
        self._commits[group, tp] = offset
        if group == CONSENSUS_GROUP:
            self._check_joined(tp, before, offset)
        else:
            self._check_judged(self._tier_of_group[group], tp, before, offset)

    def _check_judged(self, tier: str, tp: TopicPartition, before: int, offset: int) -> None:
        """Every image below the commit has its votes, and its escalation where they ask for one."""
        numbers = self._inputs.get(tp, array("q"))
        if offset > len(numbers):
            self.break_promise("commit ahead of work", f"{tp}: {offset} of {len(numbers)}")
        names = list(self._tiers)
        for at in range(before, min(offset, len(numbers))):
            number = numbers[at]
            if number == UNREADABLE or number in self.excused:
                done = number in self.excused or (*tp, at) in self._letters
            else:
                goes_on = self._next[tier][number]
                done = bool(self._voted[tier][number]) and (
                    not goes_on or bool(self._escalated[names[goes_on - 1]][number])
                )
            if not done:
                self.break_promise("commit ahead of work", f"{tp}@{at}: image {number}")

    def _check_joined(self, tp: TopicPartition, before: int, offset: int) -> None:
        """Every image of the packs below the commit is answered, or its votes come once more."""
        packs = self._packs.get(tp, {})
        if before < offset and offset - 1 not in packs:
            self.break_promise("commit ahead of work", f"{tp}: {offset}")
        for at in range(before, offset):
            tier, numbers = packs.pop(at, ("", []))
            for number in numbers:
                if number == UNREADABLE:
                    done = (*tp, at) in self._letters
                else:
                    done = bool(self.answers[number]) or number in self.excused
                if not done and not self._comes_again(tp, tier, number, offset):
                    self.break_promise("commit ahead of work", f"{tp}@{at}: image {number}")

    def _comes_again(self, tp: TopicPartition, tier: str, number: int, offset: int) -> bool:
        """Return whether a pack that is not committed yet holds these votes too."""
        found = any(
            its_tier == tier and number in numbers and (at >= offset or topic != tp.topic)
            for topic in (VOTES, CARRIED)
            for at, (its_tier, numbers) in self._packs.get(
                TopicPartition(topic, tp.partition), {}
            ).items()
        )
        self.tally.carried += found
        return found

    def excuse(self, tp: TopicPartition, first: int, before: int) -> None:
        """Take note that retention takes these offsets, whatever is in them."""
        for at in range(first, before):
            if tp.topic in (VOTES, CARRIED):
                numbers = self._packs.get(tp, {}).get(at, ("", []))[1]
            else:
                numbers = [self._inputs[tp][at]]
            for number in numbers:
                self.excused.setdefault(number, (tp, at))

    def missed(self, group: str, tp: TopicPartition, first: int, oldest: int) -> None:
        """See ``Watcher``."""
        self._note(f"{group} missed", tp, first, b"")
        self.tally.missed += oldest - first
        self._missed.append((tp, first, oldest))

    def evicted(self, group: str, member: str) -> None:
        """See ``Watcher``."""
        self.tally.evicted += 1

    def unanswered(self, count: int) -> list[int]:
        """Return the images among the first ``count`` without an answer and without an excuse."""
        if not self.answers.count(0, 0, count):
            return []
        return [n for n in range(count) if not self.answers[n] and n not in self.excused]

    def check_alarms(self) -> int:
        """Check that somebody was told of every image that retention took; return how many."""
        taken = [(n, tp, at) for n, (tp, at) in self.excused.items() if not self.answers[n]]
        for number, tp, at in taken:
            if not any(tp == gone and first <= at < end for gone, first, end in self._missed):
                self.break_promise("missed in silence", f"{tp}@{at}: image {number}")
        return len(taken)


def _essence(answer: Answer) -> int:
    """Return what two answers to one image must have in common, as a number."""
    found: int = struct.unpack("Q", hashlib.sha256(repr(_outcome(answer)).encode()).digest()[:8])[0]
    return found


def _outcome(answer: Answer) -> Expected:
    return Expected(answer.status, answer.label, answer.probability, answer.exit_tier)
