"""The join under everything at once: whatever is repeated, delayed, expired, carried or crashed.

A model of one partition: what was appended, what the group has committed, and one consumer after
the other. Windows are so small that a run outgrows them many times over.
"""

from collections import Counter
from typing import NamedTuple

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from roadstream.schemas.records.answer import Answer
from roadstream.schemas.records.votes import VotesPack
from roadstream.schemas.topics import CARRIED, VOTES
from roadstream.sinks.consensus.answered import Content
from roadstream.sinks.consensus.join import Join, JoinLimits, Resolved
from roadstream.sinks.consensus.restore import Unacknowledged
from roadstream.sinks.consensus.versions import KnownVersions
from roadstream.stages.voting.rules import vote_math
from roadstream.streams.group.tracker import OffsetTracker
from roadstream.streams.log import TopicPartition
from tests.kits.builders import cascade, head, pack, votes
from tests.kits.examples import examples

TIERS = ["one", "two", "three"]
PATHS = [["one"], ["one", "two"], ["one", "three"], ["one", "two", "three"]]
PACK = 2
# Votes appended between the last fresh vote of an answered image and a repetition of one.
LATE = 2
AT_ONCE = CARRY = 3
# In a row, with no offset acknowledged between them: each may give as many answers as an
# acknowledgement is waited for, and three times that is more than the window.
MOST_CRASHES = 2
# As the module of the join has it, without zombies: a vote is late by the answers that LATE votes
# and a pack can give, and what falls due meanwhile.
WINDOW = CARRY + AT_ONCE // 2 + AT_ONCE + 2 * PACK + LATE + PACK + AT_ONCE
LIMITS = JoinLimits(window=WINDOW, carry_after=CARRY, at_once=AT_ONCE)
TOPICS = {topic: TopicPartition(topic, 0) for topic in (VOTES, CARRIED)}


class Sent(NamedTuple):
    """An image: its path, and its deadline if it has one."""

    path: list[str]
    deadline_at: float | None


class Consumer:
    """What a member knows: lost with it."""

    def __init__(
        self, restored: dict[str, Content], committed: dict[str, int], copies: int, now: float
    ):
        chosen = cascade()
        self.join = Join(KnownVersions(chosen, vote_math), LIMITS)
        self.join.assign({0: restored}, now)
        self.unacknowledged = Unacknowledged()
        self.tracker = OffsetTracker()
        self.tracker.assign(0, TOPICS.values())
        self.position = dict(committed)
        self.copies_until = copies
        self.done: set[tuple[str, int]] = set()

    @property
    def copies_first(self) -> bool:
        return self.join.copies_overdue or self.position[CARRIED] < self.copies_until


def judged(answer: Answer) -> Answer:
    """Return the answer without its times, which depend on when packs came."""
    return msgspec.structs.replace(answer, answered_at=0.0, took=0.0, joining=0.0)


class JoinMachine(RuleBasedStateMachine):
    """See the module."""

    limits = LIMITS

    @initialize()
    def start(self) -> None:
        self.log: dict[str, list[VotesPack]] = {VOTES: [], CARRIED: []}
        self.answers: list[Answer] = []
        self.committed = {VOTES: 0, CARRIED: 0}
        self.images: dict[str, Sent] = {}
        self.waiting: list[tuple[str, str]] = []
        self.appended: list[tuple[str, str]] = []
        self.now = 1_000.0
        self.steady = 50.0
        self.crashes = 0
        self.restart()

    @rule()
    def restart(self) -> None:
        tail = self.answers[-WINDOW:]
        restored = {answer.head.image_id: answer.head.content_hash for answer in tail}
        self.consumer = Consumer(restored, self.committed, len(self.log[CARRIED]), self.now)

    @rule(paths=st.lists(st.sampled_from(PATHS), min_size=1, max_size=3), budget=st.integers(0, 40))
    def submit(self, paths: list[list[str]], budget: int) -> None:
        for path in paths:
            deadline_at = self.now + budget if budget > 20 else None
            name = self.image(path, deadline_at)
            self.waiting += [(name, tier) for tier in path]

    def image(self, path: list[str], deadline_at: float | None = None) -> str:
        name = f"image-{len(self.images)}"
        self.images[name] = Sent(path, deadline_at)
        return name

    @rule(packs=st.integers(1, 6))
    def confident_images_flow(self, packs: int) -> None:
        for _ in range(packs):
            self.put([(self.image(["one"]), "one") for _ in range(PACK)])

    @rule(tiers=st.lists(st.sampled_from(TIERS), min_size=1, max_size=4), data=st.data())
    def append(self, tiers: list[str], data: st.DataObject) -> None:
        for tier in tiers:
            self.waiting = [entry for entry in self.waiting if not self.too_late(entry[0])]
            ready = [entry for entry in self.waiting if entry[1] == tier]
            if not ready:
                continue
            some = st.lists(st.sampled_from(ready), min_size=1, max_size=PACK, unique=True)
            chosen = data.draw(some)
            self.waiting = [entry for entry in self.waiting if entry not in chosen]
            self.put(chosen)

    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        may = [entry for entry in dict.fromkeys(self.appended) if not self.too_late(entry[0])]
        if may:
            self.put([data.draw(st.sampled_from(may))])

    def too_late(self, name: str) -> bool:
        """Return whether the image may have been answered too long ago for another vote."""
        said = [i for i, (other, _) in enumerate(self.appended) if other == name]
        sent = self.images[name]
        if not said:
            return False
        if sent.deadline_at is None:
            if {tier for other, tier in self.appended if other == name} != set(sent.path):
                return False
            since = max(self.appended.index((name, tier)) for tier in sent.path)
        else:
            since = said[0]
        return len(self.appended) - since > LATE

    def began(self, name: str) -> bool:
        """Return whether its first tier's votes have come: without, it may be let go of."""
        return (name, self.images[name].path[0]) in self.appended

    def may_be_let_go_of(self, name: str) -> bool:
        """Return whether an image may stay without an answer: it had a deadline, and its first
        tier's votes never came, as where retention took them.
        """
        return self.images[name].deadline_at is not None and not self.began(name)

    def put(self, chosen: list[tuple[str, str]]) -> None:
        entries = []
        for name, tier in chosen:
            sent = self.images[name]
            targets = dict(zip(sent.path, [*sent.path[1:], None], strict=True))
            image = head(name, deadline_at=sent.deadline_at)
            p = 0.2 + 0.1 * (hash_of(name, tier) % 7)
            entries.append(votes(image, p, next_tier=targets[tier]))
            self.appended.append((name, tier))
        self.log[VOTES].append(pack(chosen[0][1], *entries))

    @rule(seconds=st.integers(0, 20), step=st.sampled_from([0, 0, -50, 50]))
    def time_passes(self, seconds: int, step: int) -> None:
        self.now += seconds + step
        self.steady += seconds

    @rule()
    def acknowledge(self) -> None:
        offsets = self.consumer.tracker.committable()
        self.consumer.tracker.committed(offsets, 0)
        self.consumer.unacknowledged.acknowledged(offsets)
        self.crashes = 0 if offsets else self.crashes
        for (topic, _), offset in offsets.items():
            assert offset >= self.committed[topic]
            self.committed[topic] = offset

    @rule(
        steps=st.integers(1, 6),
        copies=st.booleans(),
        end=st.sampled_from(["done", "done", "done", "crash", "crash after publishing"]),
        acknowledged=st.booleans(),
    )
    def work(self, *, steps: int, copies: bool, end: str, acknowledged: bool) -> None:
        if self.crashes == MOST_CRASHES:
            end, acknowledged = "done", True
        self.crashes += end != "done"
        for _ in range(steps - 1):
            self.step(copies=copies, end="done", acknowledged=acknowledged)
        self.step(copies=copies, end=end, acknowledged=acknowledged)

    def step(self, *, copies: bool, end: str, acknowledged: bool) -> None:
        consumer = self.consumer
        if consumer.unacknowledged.must_wait(consumer.join):
            self.acknowledge()
        if consumer.unacknowledged.must_wait(consumer.join):
            raise AssertionError("a pack was held for longer than may be")
        consumer.join.tick(self.now, self.steady)
        found = self.work_off(copies=copies)
        if end == "crash":
            self.restart()
            return
        self.publish(found)
        if end == "crash after publishing":
            self.restart()
            return
        done: dict[TopicPartition, list[int]] = {}
        for one in found:
            for tp, offsets in one.done.items():
                done.setdefault(tp, []).extend(offsets)
                for offset in offsets:
                    assert (tp.topic, offset) not in consumer.done
                    consumer.done.add((tp.topic, offset))
        consumer.tracker.done(done, 0)
        if acknowledged:
            self.acknowledge()

    def work_off(self, *, copies: bool) -> list[Resolved]:
        consumer, found, outputs = self.consumer, list[Resolved](), 0
        first = consumer.copies_first
        while True:
            order = [CARRIED, VOTES] if copies or first else [VOTES, CARRIED]
            some = [t for t in order if consumer.position[t] < len(self.log[t])]
            if outputs >= AT_ONCE or not some or (first and some[0] != CARRIED):
                break
            offset, tp = consumer.position[some[0]], TOPICS[some[0]]
            consumer.position[some[0]] += 1
            consumer.tracker.deliver(tp, [offset])
            consumer.unacknowledged.delivered(tp, offset, consumer.join.count(0))
            found.append(consumer.join.add(self.log[some[0]][offset], (tp, offset), self.now))
            outputs += len(found[-1].answers)
        found.append(consumer.join.expire(self.now, max(1, AT_ONCE - outputs)))
        return found

    def publish(self, found: list[Resolved]) -> None:
        for one in found:
            self.answers += [answer for _, answer in one.answers]
            self.log[CARRIED] += [carried for _, carried in one.carried]
            assert not one.refused

    @invariant()
    def no_image_is_answered_twice(self) -> None:
        counted = Counter(answer.head.image_id for answer in getattr(self, "answers", []))
        assert all(count == 1 for count in counted.values()), counted

    @invariant()
    def a_restart_finds_every_vote_of_an_open_image(self) -> None:
        if not hasattr(self, "answers"):
            return
        answered = {answer.head.image_id for answer in self.answers}
        kept = {
            (said.head.image_id, one.tier)
            for topic, packs in self.log.items()
            for one in packs[self.committed[topic] :]
            for said in one.images
        }
        open_images = {name for name in self.images if name not in answered and self.began(name)}
        assert {entry for entry in self.appended if entry[0] in open_images} <= kept

    def teardown(self) -> None:
        if not hasattr(self, "answers"):
            return
        self.restart()
        for entry in self.waiting:
            if not self.too_late(entry[0]):
                self.put([entry])
        self.now = self.steady = self.now + 1_000
        for _ in range(20 * len(self.log[VOTES]) + 100):
            self.step(copies=True, end="done", acknowledged=True)
        found = {answer.head.image_id: judged(answer) for answer in self.answers}
        assert {name for name in self.images if not self.may_be_let_go_of(name)} <= found.keys()
        assert len(self.answers) == len(found)
        assert self.consumer.join.open_images == 0
        assert self.committed == {topic: len(packs) for topic, packs in self.log.items()}
        for name, sent in self.images.items():
            if sent.deadline_at is None:
                assert [v.tier for v in found[name].votes] == sent.path
                assert found[name].status == "answered"


def hash_of(*words: str) -> int:
    return sum(map(ord, "".join(words)))


JoinMachine.TestCase.settings = settings(
    deadline=None, max_examples=examples(40), stateful_step_count=50
)
TestJoin = JoinMachine.TestCase
