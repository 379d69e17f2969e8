"""The join: votes that wait for long are carried, and a copy is the same as its original."""

import pytest

from roadstream.sinks.consensus.join import JoinLimits, Resolved
from roadstream.streams.log import TopicPartition
from tests.kits.builders import head, pack, votes
from tests.kits.join_kit import COPIES, NOW, SMALL, TP, flow, hashed, ids, new_join


def test_votes_that_wait_for_many_answers_are_carried_without_the_rest_of_their_pack() -> None:
    join = new_join(limits=SMALL)
    said = pack("one", votes("a", 0.9, next_tier="two"), votes("b", 0.9))
    assert ids(join.add(said, (TP, 0), NOW)) == ["b"]

    *before, last = flow(join, 4, 1)

    assert [one.carried for one in before] == [[]] * 3
    ((partition, copy),) = last.carried
    assert (partition, copy.images, copy.runs) == (0, said.images[:1], said.runs)
    assert sorted(last.done[TP]) == [0, 4]
    assert (join.open_images, join.stats.carried) == (1, 1)


def test_a_copy_takes_the_place_of_what_it_copies_and_is_not_late() -> None:
    join = new_join(limits=SMALL)
    join.add(pack("one", votes("a", 0.9, next_tier="two")), (TP, 0), NOW)
    ((_, copy),) = flow(join, 5, 1)[-1].carried

    assert join.add(copy, (COPIES, 0), NOW) == Resolved.nothing()
    resolved = join.add(pack("two", votes("a", 0.8)), (TP, 6), NOW + 1)

    assert ids(resolved) == ["a"]
    assert [vote.tier for vote in resolved.answers[0][1].votes] == ["one", "two"]
    assert resolved.done == {COPIES: [0], TP: [6]}
    assert join.stats.late_votes == 0


def test_a_copy_is_carried_again_and_nothing_is_on_an_idle_partition() -> None:
    join = new_join(limits=SMALL)
    join.add(pack("one", votes("a", 0.9, next_tier="two")), (TP, 0), NOW)
    ((_, copy),) = flow(join, 5, 1)[-1].carried
    join.add(copy, (COPIES, 0), NOW)

    assert [join.expire(NOW + i) for i in range(100)] == [Resolved.nothing()] * 100
    last = flow(join, 5, 6)[-1]

    assert last.carried == [(0, copy)]
    assert last.done[COPIES] == [0]
    assert join.stats.carried == 2


@pytest.mark.parametrize("expires", [False, True])
def test_an_image_answered_while_its_copy_travels_is_not_opened_by_it(*, expires: bool) -> None:
    join = new_join(limits=SMALL)
    live = head("a", deadline_at=NOW + 5)
    join.add(pack("one", votes(live, 0.9, next_tier="two")), (TP, 0), NOW)
    ((_, copy),) = flow(join, 5, 1)[-1].carried
    if expires:
        answered = join.expire(NOW + 6)
    else:
        answered = join.add(pack("two", votes(live, 0.9)), (TP, 6), NOW + 1)
    assert ids(answered) == ["a"]

    assert join.add(copy, (COPIES, 0), NOW + 7) == Resolved([], {COPIES: [0]}, [], [])
    assert (join.open_images, join.stats.late_votes) == (0, 0)
    flow(join, 9, 7)
    assert not join.copies_overdue


def test_a_copy_that_stays_away_is_missed() -> None:
    join = new_join(limits=SMALL)
    join.add(pack("one", votes("a", 0.9, next_tier="two")), (TP, 0), NOW)
    ((_, copy),) = flow(join, 5, 1)[-1].carried
    flow(join, 4, 6)
    assert not join.copies_overdue
    flow(join, 1, 10)
    assert join.copies_overdue

    join.add(copy, (COPIES, 0), NOW)
    assert not join.copies_overdue


def test_images_answered_long_before_a_takeover_are_not_kept_waiting_by_open_ones() -> None:
    join = new_join(answered=[f"old-{i}" for i in range(16)], limits=SMALL)
    join.add(pack("one", votes("a", 0.9, next_tier="two")), (TP, 0), NOW)

    recent = join.add(pack("one", votes("old-15")), (TP, 1), NOW)
    old = join.add(pack("one", votes("old-2")), (TP, 2), NOW)

    assert recent.carried == []
    assert [copy.images[0].head.image_id for _, copy in old.carried] == ["a"]
    assert sorted(old.done[TP]) == [0, 2]


def test_a_stale_copy_does_not_replace_fresher_votes() -> None:
    join = new_join(limits=SMALL)
    join.add(pack("one", votes("a", 0.9, next_tier="three")), (TP, 0), NOW)
    ((_, stale),) = flow(join, 5, 1)[-1].carried
    join.add(pack("one", votes("a", 0.6, next_tier="two")), (TP, 6), NOW)

    assert join.add(stale, (COPIES, 0), NOW) == Resolved.nothing()
    resolved = join.add(pack("two", votes("a", 0.8)), (TP, 7), NOW)

    ((_, answer),) = resolved.answers
    assert [(vote.tier, vote.probability) for vote in answer.votes] == [("one", 0.6), ("two", 0.8)]
    assert {tp: sorted(offsets) for tp, offsets in resolved.done.items()} == {
        COPIES: [0],
        TP: [6, 7],
    }


def test_of_two_copies_the_later_one_counts_and_fresh_votes_count_more_than_both() -> None:
    join = new_join()
    join.add(pack("one", votes("a", 0.9, next_tier="three")), (COPIES, 0), NOW)
    join.add(pack("one", votes("a", 0.8, next_tier="two")), (COPIES, 1), NOW)
    join.add(pack("one", votes("b", 0.7, next_tier="three")), (COPIES, 2), NOW)
    join.add(pack("one", votes("b", 0.6, next_tier="two")), (TP, 0), NOW)

    resolved = join.add(pack("two", votes("a"), votes("b")), (TP, 1), NOW)

    found = {answer.head.image_id: answer.votes[0].probability for _, answer in resolved.answers}
    assert found == {"a": 0.8, "b": 0.6}


def test_votes_of_a_superseded_pack_are_not_carried() -> None:
    join = new_join(limits=SMALL)
    join.add(pack("one", votes("a", 0.9, next_tier="three")), (TP, 0), NOW)
    flow(join, 1, 1)
    fresher = pack("one", votes("a", 0.6, next_tier="two"))
    join.add(fresher, (TP, 2), NOW)

    *_, drops, carries = flow(join, 5, 3)

    assert (drops.carried, sorted(drops.done[TP])) == ([], [0, 6])
    assert [copy.images for _, copy in carries.carried] == [fresher.images]
    assert (sorted(carries.done[TP]), join.stats.carried) == ([2, 7], 1)


def test_an_image_twice_in_a_pack_is_carried_once() -> None:
    join = new_join(limits=SMALL)
    twice = votes("a", 0.9, next_tier="two")
    join.add(pack("one", twice, twice), (TP, 0), NOW)

    last = flow(join, 5, 1)[-1]

    assert [copy.images for _, copy in last.carried] == [[twice]]
    assert (sorted(last.done[TP]), join.stats.carried) == ([0, 5], 1)


def test_votes_that_were_refused_are_not_carried_with_the_rest_of_their_pack() -> None:
    join = new_join(limits=JoinLimits(window=16, carry_after=4, at_once=8))
    join.add(pack("two", votes(hashed("a", b"1" * 16), 0.9)), (TP, 0), NOW)
    other = votes(hashed("a", b"2" * 16), 0.1, next_tier="two")
    waits = votes("b", 0.9, next_tier="two")
    join.add(pack("one", other, waits), (TP, 1), NOW)

    carried = [copy.images for _, copy in flow(join, 5, 2)[-1].carried]

    assert carried == [[votes(hashed("a", b"1" * 16), 0.9)], [waits]]


def test_answers_at_a_deadline_count_towards_carrying() -> None:
    join = new_join(limits=SMALL)
    join.add(pack("one", votes("a", 0.9, next_tier="two")), (TP, 0), NOW)
    live = [votes(head(f"{i}", deadline_at=NOW + 5), 0.9, next_tier="two") for i in range(5)]
    join.add(pack("one", *live), (TP, 1), NOW)

    resolved = join.expire(NOW + 5)

    assert [copy.images[0].head.image_id for _, copy in resolved.carried] == ["a"]
    assert sorted(resolved.done[TP]) == [0, 1]


def test_votes_are_carried_on_their_own_partition_by_its_own_answers() -> None:
    join = new_join(partitions=2, limits=SMALL)
    other = TopicPartition("votes", 1)
    join.add(pack("one", votes("a", 0.9, next_tier="two")), (TP, 0), NOW)
    join.add(pack("one", votes("b", 0.9, next_tier="two")), (other, 0), NOW)

    found = [join.add(pack("one", votes(f"{i}")), (other, 1 + i), NOW) for i in range(5)]

    assert [one.carried for one in found[:-1]] == [[]] * 4
    assert [(p, copy.images[0].head.image_id) for p, copy in found[-1].carried] == [(1, "b")]
    assert (join.count(0), join.count(1)) == (0, 5)
    flow(join, 5, 1)
    assert not join.copies_overdue
    for i in range(5):
        join.add(pack("one", votes(f"more-{i}")), (other, 6 + i), NOW)
    assert join.copies_overdue


def test_an_old_image_that_came_again_while_nothing_waited_hurries_nobody_later() -> None:
    join = new_join(answered=[f"old-{i}" for i in range(16)], limits=SMALL)
    assert join.stats.restored == 16
    join.add(pack("one", votes("old-2")), (TP, 0), NOW)
    join.add(pack("one", votes("a", 0.9, next_tier="two")), (TP, 1), NOW)

    assert [one.carried for one in flow(join, 4, 2)] == [[]] * 4


def test_a_copy_that_somebody_else_made_of_an_answered_image_changes_nothing() -> None:
    join = new_join(answered=["a"], limits=SMALL)
    copy = pack("one", votes("a", 0.9, next_tier="two"))

    assert join.add(copy, (COPIES, 0), NOW) == Resolved([], {COPIES: [0]}, [], [])
    assert join.stats.late_votes == 0
