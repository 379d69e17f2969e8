"""The join: votes that wait for long are carried, and a copy is the same as its original."""

import pytest

from sinks.join import Resolved
from tests.builders import head, pack, votes
from tests.sinks.join_kit import COPIES, NOW, SMALL, TP, flow, ids, new_join


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
