"""The join: packs in any order, late or twice, give one and the same answer per image."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from roadstream.schemas.records.answer import Answer
from roadstream.schemas.records.votes import VotesPack
from roadstream.sinks.consensus.answered import AnsweredIds
from roadstream.sinks.consensus.join import ORPHAN_AFTER, Join, Resolved
from roadstream.sinks.consensus.versions import KnownVersions
from roadstream.stages.voting.rules import vote_math
from roadstream.streams.log import RecordId, TopicPartition
from tests.kits.builders import cascade, head, pack, votes
from tests.kits.examples import examples
from tests.kits.join_kit import NOW, TIERS, TP, hashed, ids, new_join

PATHS = [["one"], ["one", "two"], ["one", "three"], ["one", "two", "three"]]


class Delivery(NamedTuple):
    """A pack and the offset it is read at."""

    pack: VotesPack
    offset: int


def judged(answer: Answer) -> Answer:
    """Return the answer without its times, which depend on when packs came."""
    return msgspec.structs.replace(answer, answered_at=0.0, took=0.0, joining=0.0)


@st.composite
def packs(draw: st.DrawFn) -> list[VotesPack]:
    """Draw images with paths, their votes dealt into packs, some packs twice, in any order."""
    waiting: dict[str, list[tuple[str, str | None, float]]] = {tier: [] for tier in TIERS}
    for number in range(draw(st.integers(1, 6))):
        path: list[str] = draw(st.sampled_from(PATHS))
        for tier, target in zip(path, [*path[1:], None], strict=True):
            waiting[tier].append((f"image-{number}", target, draw(st.floats(0.1, 0.9))))
    dealt = []
    for tier, entries in waiting.items():
        while entries:
            size = draw(st.integers(1, len(entries)))
            said = [votes(i, p, next_tier=target) for i, target, p in entries[:size]]
            dealt.append(pack(tier, *said))
            del entries[:size]
    twice = draw(st.lists(st.sampled_from(dealt), max_size=4))
    return list(draw(st.permutations(dealt + twice)))


def image_ids(some: Iterable[VotesPack]) -> set[str]:
    return {said.head.image_id for one in some for said in one.images}


def in_order(some: Sequence[VotesPack]) -> dict[str, Answer]:
    """Return the answers when every pack comes once and tier by tier."""
    join, answers = new_join(), {}
    once = [one for i, one in enumerate(some) if one not in some[:i]]
    for offset, one in enumerate(sorted(once, key=lambda p: TIERS.index(p.tier))):
        for _, answer in join.add(one, (TP, offset), NOW).answers:
            answers[answer.head.image_id] = judged(answer)
    return answers


@settings(deadline=None, max_examples=examples(200))
@given(packs())
def test_any_order_and_any_repetition_give_the_same_answers(delivered: list[VotesPack]) -> None:
    join, answers = new_join(), []
    for offset, one in enumerate(delivered):
        answers += join.add(one, (TP, offset), NOW).answers

    found = {answer.head.image_id: judged(answer) for _, answer in answers}
    assert len(answers) == len(found)
    assert found == in_order(delivered)
    assert found.keys() == image_ids(delivered)
    assert join.open_images == 0
    entries = [(one.tier, said.head.image_id) for one in delivered for said in one.images]
    assert join.stats.late_votes == len(entries) - len(set(entries))


@settings(deadline=None, max_examples=examples(200))
@given(packs())
def test_an_offset_is_done_exactly_when_all_images_of_its_pack_are_resolved(
    delivered: list[VotesPack],
) -> None:
    join, answered, done = new_join(), set[str](), list[int]()
    for offset, one in enumerate(delivered):
        resolved = join.add(one, (TP, offset), NOW)
        answered.update(ids(resolved))
        done += resolved.done.get(TP, [])
        expected = {i for i in range(offset + 1) if image_ids([delivered[i]]) <= answered}
        assert len(done) == len(set(done))
        assert set(done) == expected


@settings(deadline=None, max_examples=examples(200))
@given(packs(), st.data())
def test_a_crash_replays_the_open_joins_and_answers_nothing_twice(
    delivered: list[VotesPack], data: st.DataObject
) -> None:
    answers: list[Answer] = []
    done: set[int] = set()
    committed = 0
    crashes = data.draw(st.lists(st.integers(1, len(delivered)), max_size=3).map(sorted))
    for until in [*crashes, len(delivered)]:
        join = new_join(answer.head.image_id for answer in answers)
        for offset in range(committed, until):
            resolved = join.add(delivered[offset], (TP, offset), NOW)
            answers += [answer for _, answer in resolved.answers]
            done.update(resolved.done.get(TP, []))
        undone = [offset for offset in range(until) if offset not in done]
        committed = min(undone, default=until)

    counted = Counter(answer.head.image_id for answer in answers)
    assert counted == dict.fromkeys(image_ids(delivered), 1)
    assert committed == len(delivered)
    assert {a.head.image_id: judged(a) for a in answers} == in_order(delivered)


@settings(deadline=None, max_examples=examples(200))
@given(
    st.lists(
        st.tuples(st.sampled_from(PATHS), st.integers(1, 20), st.permutations(range(3))),
        min_size=1,
        max_size=5,
    ),
    st.lists(st.integers(0, 6), min_size=15, max_size=15),
)
def test_every_image_with_a_deadline_is_answered_once_at_the_latest_then(
    images: list[tuple[list[str], int, list[int]]], pauses: list[int]
) -> None:
    deliveries = []
    for number, (path, budget, order) in enumerate(images):
        image = head(f"image-{number}", deadline_at=NOW + budget)
        for tier, target in zip(path, [*path[1:], None], strict=True):
            rank = order[TIERS.index(tier)]
            deliveries.append((rank, pack(tier, votes(image, 0.8, next_tier=target))))
    deliveries.sort(key=lambda delivery: delivery[0])
    join, now, done = new_join(), NOW, list[RecordId]()
    answers: dict[str, Answer] = {}

    def take(resolved: Resolved) -> None:
        for _, answer in resolved.answers:
            assert answer.head.image_id not in answers
            answers[answer.head.image_id] = answer
        done.extend((tp, offset) for tp, offsets in resolved.done.items() for offset in offsets)

    for offset, ((_, one), pause) in enumerate(zip(deliveries, pauses, strict=False)):
        now += pause
        take(join.add(one, (TP, offset), now))
        take(join.expire(now))
        assert join.next_deadline_at is None or join.next_deadline_at > now
    take(join.expire(NOW + 1_000))

    assert len(answers) == len(images)
    assert sorted(offset for _, offset in done) == list(range(len(deliveries)))
    for answer in answers.values():
        deadline = answer.head.deadline_at or 0.0
        path = images[int(answer.head.image_id.removeprefix("image-"))][0]
        complete = [vote.tier for vote in answer.votes] == path
        in_time = answer.answered_at <= deadline
        assert answer.status == ("answered" if complete and in_time else "partial")
        assert answer.votes


def test_an_expired_image_goes_out_with_the_votes_so_far() -> None:
    join = new_join()
    live = head("a", deadline_at=NOW + 5)
    assert ids(join.add(pack("one", votes(live, 0.9, next_tier="two")), (TP, 0), NOW)) == []
    assert join.next_deadline_at == NOW + 5
    assert join.expire(NOW + 4.9) == Resolved.nothing()

    resolved = join.expire(NOW + 5)

    ((partition, answer),) = resolved.answers
    assert (partition, answer.status, answer.flags) == (0, "partial", ["partial"])
    assert [vote.tier for vote in answer.votes] == ["one"]
    assert resolved.done == {TP: [0]}
    assert join.next_deadline_at is None
    assert join.open_images == 0


def test_an_expired_image_without_a_vote_has_failed_as_expired() -> None:
    join = new_join()
    live = head("a", deadline_at=NOW + 5)
    unvoted = votes(live, None, next_tier="two", error="model_abstained: no idea")
    assert ids(join.add(pack("one", unvoted), (TP, 0), NOW)) == []

    ((_, answer),) = join.expire(NOW + 5).answers

    assert (answer.status, answer.label, answer.flags) == ("failed", None, ["failed"])
    assert answer.error == "expired: the deadline passed before any member voted"
    assert [tier.tier for tier in answer.tiers] == ["one"]


def test_an_orphan_without_a_vote_has_not_expired() -> None:
    join = new_join()
    join.add(pack("two", votes("torn", None)), (TP, 0), NOW)
    ((_, answer),) = join.expire(NOW + ORPHAN_AFTER).answers
    assert (answer.status, answer.error) == ("failed", "model_failed: no member voted")


def test_an_image_whose_first_tier_stays_silent_is_answered_with_what_there_is() -> None:
    join = new_join()
    join.add(pack("two", votes("torn", 0.8)), (TP, 0), NOW)
    join.add(pack("one", votes("waiting", 0.6, next_tier="two")), (TP, 1), NOW)
    join.add(pack("two", votes("late", 0.7)), (TP, 2), NOW)
    join.add(pack("one", votes("late", 0.6, next_tier="two")), (TP, 3), NOW + 1)
    assert join.expire(NOW + ORPHAN_AFTER - 1) == Resolved.nothing()
    assert join.next_deadline_at == NOW + ORPHAN_AFTER
    resolved = join.expire(NOW + ORPHAN_AFTER)
    assert [(a.head.image_id, a.status) for _, a in resolved.answers] == [("torn", "partial")]
    assert resolved.done == {TP: [0]}
    assert join.open_images == 1


def test_votes_after_the_answer_are_counted_and_change_nothing() -> None:
    join = new_join()
    live = head("a", deadline_at=NOW + 5)
    join.add(pack("one", votes(live, 0.9, next_tier="two")), (TP, 0), NOW)
    join.expire(NOW + 6)

    resolved = join.add(pack("two", votes(live, 0.1)), (TP, 1), NOW + 7)

    assert resolved == Resolved([], {TP: [1]}, [], [])
    assert join.stats.late_votes == 1


def test_ids_known_to_be_answered_are_not_answered_again() -> None:
    join = new_join(answered=["a"])

    resolved = join.add(pack("one", votes("a"), votes("b")), (TP, 7), NOW)

    assert ids(resolved) == ["b"]
    assert resolved.done == {TP: [7]}
    assert join.stats.late_votes == 1


def test_an_image_twice_in_one_pack_is_one_image() -> None:
    join = new_join()
    first = join.add(
        pack("one", votes("a", 0.9, next_tier="two"), votes("a", 0.9, next_tier="two")),
        (TP, 0),
        NOW,
    )
    second = join.add(pack("two", votes("a", 0.9)), (TP, 1), NOW)

    assert (ids(first), ids(second)) == ([], ["a"])
    assert sorted(second.done[TP]) == [0, 1]
    assert ids(join.add(pack("one", votes("b"), votes("b")), (TP, 2), NOW)) == ["b"]


def test_an_empty_pack_is_done_at_once() -> None:
    assert new_join().add(pack("one"), (TP, 3), NOW) == Resolved([], {TP: [3]}, [], [])


def test_partitions_are_answered_where_their_votes_came_from() -> None:
    join = new_join(partitions=2)
    for partition in range(2):
        source = TopicPartition("votes", partition), 0
        join.add(pack("one", votes(f"image-{partition}", 0.9, next_tier="two")), source, NOW)
    for partition in (1, 0):
        source = TopicPartition("votes", partition), 1
        resolved = join.add(pack("two", votes(f"image-{partition}", 0.9)), source, NOW)
        assert [p for p, _ in resolved.answers] == [partition]


def test_a_path_that_goes_in_circles_ends() -> None:
    join = new_join()
    resolved = join.add(pack("one", votes("a", 0.9, next_tier="one")), (TP, 0), NOW)

    assert (ids(resolved), resolved.done) == (["a"], {TP: [0]})


def test_a_new_assignment_forgets_open_joins() -> None:
    join = new_join()
    live = head("a", deadline_at=NOW + 5)
    join.add(pack("one", votes(live, 0.9, next_tier="two")), (TP, 0), NOW)

    join.assign({0: {}})

    assert (join.open_images, join.next_deadline_at) == (0, None)
    assert join.expire(NOW + 10) == Resolved.nothing()


@given(st.integers(1, 8), st.lists(st.integers(0, 30), max_size=80))
def test_the_last_answered_ids_are_remembered_and_no_more_than_twice_the_window(
    window: int, numbers: list[int]
) -> None:
    answered = AnsweredIds(window)
    for count, number in enumerate(numbers, 1):
        answered.add(str(number))
        assert all(str(recent) in answered for recent in numbers[max(0, count - window) : count])
        assert sum(str(number) in answered for number in set(numbers)) <= 2 * window


@pytest.mark.parametrize("window", [1, 3])
def test_ids_beyond_the_window_are_forgotten(window: int) -> None:
    answered = AnsweredIds(window)
    for number in range(10):
        answered.add(str(number))

    assert "0" not in answered
    assert "9" in answered


def test_answers_are_counted_and_a_takeover_is_forgotten_after_a_window_of_them() -> None:
    answered = AnsweredIds(3, {"old-0": None, "old-1": None})
    assert (answered.restored_at("old-0"), answered.restored_at("old-1")) == (-2, -1)
    for number in range(10):
        assert answered.count == number
        answered.add(f"{number}")
    assert answered.restored_at("old-0") is answered.restored_at("9") is None


def test_of_two_votes_of_one_tier_the_later_one_counts() -> None:
    join = new_join()
    join.add(pack("one", votes("a", 0.9, next_tier="three")), (TP, 0), NOW)
    join.add(pack("one", votes("a", 0.8, next_tier="two")), (TP, 1), NOW)
    resolved = join.add(pack("two", votes("a", 0.7)), (TP, 2), NOW)

    ((_, answer),) = resolved.answers
    assert [(vote.tier, vote.probability) for vote in answer.votes] == [("one", 0.8), ("two", 0.7)]
    assert sorted(resolved.done[TP]) == [0, 1, 2]


@pytest.mark.parametrize("waits", [False, True], ids=["answered", "open"])
def test_another_picture_under_an_id_is_refused_and_its_neighbour_answered(*, waits: bool) -> None:
    join = new_join()
    first = votes(hashed("a", b"1" * 16), 0.9, next_tier="two" if waits else None)
    join.add(pack("one", first), (TP, 0), NOW)
    second = votes(hashed("a", b"2" * 16), 0.1)

    resolved = join.add(pack("one", second, votes("b")), (TP, 1), NOW)

    assert ids(resolved) == ["b"]
    assert resolved.done == {TP: [1]}
    ((source, refused, known),) = resolved.refused
    assert (source, refused.images, known) == ((TP, 1), [second], b"1" * 16)
    assert (join.stats.refused_duplicates, join.stats.late_votes) == (1, 0)
    if waits:
        same = votes(hashed("a", b"1" * 16), 0.9)
        ((_, answer),) = join.add(pack("two", same), (TP, 2), NOW).answers
        assert [vote.probability for vote in answer.votes] == [0.9, 0.9]


@pytest.mark.parametrize("known", [None, b"1" * 16])
@pytest.mark.parametrize("got", [None, b"1" * 16])
def test_the_same_picture_or_an_unknown_one_is_one_image(
    known: bytes | None, got: bytes | None
) -> None:
    join = new_join()
    join.add(pack("one", votes(hashed("a", known))), (TP, 0), NOW)

    resolved = join.add(pack("one", votes(hashed("a", got))), (TP, 1), NOW)

    assert resolved == Resolved([], {TP: [1]}, [], [])
    assert join.stats.late_votes == 1


def test_contents_are_known_after_a_takeover() -> None:
    join = new_join()
    join.assign({0: {"a": b"1" * 16}})

    resolved = join.add(pack("one", votes(hashed("a", b"2" * 16))), (TP, 0), NOW)

    assert [refused.known for refused in resolved.refused] == [b"1" * 16]


def test_no_more_images_expire_at_once_than_are_asked_for() -> None:
    join = new_join()
    live = [votes(head(f"{i}", deadline_at=NOW + 5), 0.9, next_tier="two") for i in range(5)]
    join.add(pack("one", *live), (TP, 0), NOW)

    assert [len(join.expire(NOW + 6, 2).answers) for _ in range(4)] == [2, 2, 1, 0]


def test_deadlines_of_answered_images_are_forgotten() -> None:
    join = new_join()
    for i in range(100):
        image = head(f"{i}", deadline_at=NOW + 3_600)
        first = votes(image, 0.9, next_tier="two")
        join.add(pack("one", first), (TP, 2 * i), NOW)
        assert join.next_deadline_at == NOW + 3_600
        assert ids(join.add(pack("two", votes(image, 0.9)), (TP, 2 * i + 1), NOW)) == [f"{i}"]
        assert join.next_deadline_at is None


def test_an_image_that_waits_for_its_first_tier_alone_is_no_orphan_once_answered() -> None:
    join = new_join()
    join.add(pack("two", votes("a")), (TP, 0), NOW)
    assert join.next_deadline_at == NOW + ORPHAN_AFTER
    join.add(pack("one", votes("a", next_tier="two")), (TP, 1), NOW)
    assert join.next_deadline_at is None


def test_an_image_that_was_let_go_off_its_path_does_not_wait_for_ever() -> None:
    join = new_join()
    join.add(pack("two", votes("a", 0.9)), (TP, 0), NOW)
    join.add(pack("one", votes("a", 0.8, next_tier="three")), (TP, 1), NOW + 1)
    assert ids(join.expire(NOW + ORPHAN_AFTER - 1)) == []

    resolved = join.expire(NOW + ORPHAN_AFTER)

    (_, answer), *others = resolved.answers
    assert not others
    assert answer.head.image_id == "a"
    assert answer.status == "partial"
    assert [tier.tier for tier in answer.tiers] == ["one", "two"]
    assert sorted(resolved.done[TP]) == [0, 1]


def test_an_image_whose_path_goes_on_waits_as_long_as_it_takes() -> None:
    join = new_join()
    join.add(pack("one", votes("a", 0.8, next_tier="two")), (TP, 0), NOW)
    join.add(pack("two", votes("a", 0.8, next_tier="three")), (TP, 1), NOW + 1)
    assert join.next_deadline_at is None
    assert ids(join.expire(NOW + 1e6)) == []
    assert ids(join.add(pack("three", votes("a")), (TP, 2), NOW + 1e6)) == ["a"]


def test_content_that_becomes_known_while_an_image_waits_is_that_of_its_id() -> None:
    join = new_join()
    join.add(pack("one", votes(hashed("a", None), next_tier="two")), (TP, 0), NOW)
    join.add(pack("one", votes(hashed("a", b"1" * 16), next_tier="two")), (TP, 1), NOW)
    join.add(pack("one", votes(hashed("a", None), next_tier="two")), (TP, 2), NOW)

    refused = join.add(pack("two", votes(hashed("a", b"2" * 16))), (TP, 3), NOW).refused
    resolved = join.add(pack("two", votes("a")), (TP, 4), NOW)
    late = join.add(pack("two", votes(hashed("a", b"2" * 16))), (TP, 5), NOW)

    assert [one.known for one in refused + late.refused] == [b"1" * 16] * 2
    assert (ids(resolved), resolved.done) == (["a"], {TP: [0, 1, 2, 4]})


def test_the_image_that_has_waited_longest_is_told() -> None:
    join = new_join()
    assert join.oldest_at is None
    join.add(pack("one", votes("a", next_tier="two")), (TP, 0), NOW)
    join.add(pack("one", votes("b", next_tier="two")), (TP, 1), NOW + 3)
    assert join.oldest_at == NOW
    join.add(pack("two", votes("a")), (TP, 2), NOW + 5)
    assert (join.oldest_at, join.open_images) == (NOW + 3, 1)


def test_a_new_assignment_forgets_orphans_and_the_answers_of_other_partitions() -> None:
    join = new_join(answered=["a"])
    join.add(pack("two", votes("torn")), (TP, 0), NOW)

    join.assign({0: {"b": None}})

    assert join.next_deadline_at is None
    assert ids(join.add(pack("one", votes("a"), votes("b")), (TP, 0), NOW)) == ["a"]
    assert (join.stats.restored, join.stats.late_votes) == (2, 1)


def test_tiers_stand_in_the_answer_in_the_cascades_order() -> None:
    join = new_join()
    join.add(pack("three", votes("a")), (TP, 0), NOW)
    join.add(pack("two", votes("a", next_tier="three")), (TP, 1), NOW + 2)
    ((_, answer),) = join.add(pack("one", votes("a", next_tier="two")), (TP, 2), NOW + 5).answers

    assert [tier.tier for tier in answer.tiers] == ["one", "two", "three"]
    assert (answer.joining, answer.answered_at) == (5.0, NOW + 5)


def test_an_answer_is_due_at_whichever_comes_first_deadline_or_end_of_patience() -> None:
    join = new_join()
    join.add(pack("two", votes("torn")), (TP, 0), NOW)
    join.add(pack("one", votes(head("a", deadline_at=NOW + 5), next_tier="two")), (TP, 1), NOW)
    assert join.next_deadline_at == NOW + 5
    assert ids(join.expire(NOW + 5)) == ["a"]
    assert join.next_deadline_at == NOW + ORPHAN_AFTER
    assert ids(join.expire(NOW + ORPHAN_AFTER, 1)) == ["torn"]


def test_deadlines_and_patience_hold_by_a_clock_that_never_steps() -> None:
    join = new_join()
    join.tick(NOW, 7.0)
    join.add(pack("one", votes(head("a", deadline_at=NOW + 5), next_tier="two")), (TP, 0), NOW)
    join.add(pack("two", votes("torn")), (TP, 1), NOW)

    back = NOW - 3_600
    join.tick(back + 4, 11.0)
    assert ids(join.expire(back + 4)) == []
    join.tick(back + 5, 12.0)
    assert ids(join.expire(back + 5)) == ["a"]
    join.tick(back + ORPHAN_AFTER - 1, 6.0 + ORPHAN_AFTER)
    assert ids(join.expire(back + ORPHAN_AFTER - 1)) == []
    join.tick(back + ORPHAN_AFTER, 7.0 + ORPHAN_AFTER)
    assert ids(join.expire(back + ORPHAN_AFTER)) == ["torn"]


def test_every_refusal_is_counted() -> None:
    join = new_join()
    join.add(pack("one", votes(hashed("a", b"1" * 16))), (TP, 0), NOW)
    other = votes(hashed("a", b"2" * 16))
    assert len(join.add(pack("one", other, other), (TP, 1), NOW).refused) == 2
    assert join.stats.refused_duplicates == 2


def test_an_orphan_is_told_with_the_tiers_that_spoke() -> None:
    join = new_join()
    join.add(pack("two", votes("torn", next_tier="three")), (TP, 0), NOW)
    join.add(pack("three", votes("torn")), (TP, 1), NOW + 1)
    with capture_logs() as events:
        join.expire(NOW + ORPHAN_AFTER)
    assert [(one["event"], one["image_id"], one["tiers"]) for one in events] == [
        ("orphan", "torn", ["two", "three"])
    ]


def test_an_image_that_waited_for_its_first_tier_waits_on_where_its_path_goes_on() -> None:
    join = new_join()
    join.add(pack("two", votes("a", next_tier="three")), (TP, 0), NOW)
    join.add(pack("one", votes("a", next_tier="two")), (TP, 1), NOW + 1)

    assert ids(join.expire(NOW + ORPHAN_AFTER)) == []
    assert join.next_deadline_at is None
    assert ids(join.add(pack("three", votes("a")), (TP, 2), NOW + 1_000)) == ["a"]


def test_a_join_without_partitions_has_nothing_to_do() -> None:
    chosen = cascade()
    join = Join(KnownVersions(chosen, vote_math))
    assert (join.open_images, join.oldest_at, join.next_deadline_at) == (0, None, None)
    assert not join.copies_overdue
    assert join.expire(NOW) == Resolved.nothing()
