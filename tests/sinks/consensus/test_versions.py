"""Versions of the cascade side by side: no answer mixes two, and each is made by its own rules."""

import gc
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from roadstream.schemas.cascade.model import Cascade, Pool
from roadstream.schemas.records.answer import Answer
from roadstream.schemas.records.votes import VotesPack
from roadstream.sinks.consensus.join import ORPHAN_AFTER, Join
from roadstream.sinks.consensus.versions import VERSIONS_KEPT, KnownVersions
from roadstream.stages.voting.rules import vote_math
from tests.kits.builders import CASCADE_HASH, cascade, head, pack, tier, votes
from tests.kits.consensus_kit import Told, answers, consensus, prepared, running, send
from tests.kits.examples import examples
from tests.kits.join_kit import COPIES, NOW, SMALL, TP, flow, ids, new_join

A, B = CASCADE_HASH, "b" * 16
OTHER = cascade(
    tier("one"),
    tier("three"),
    tier("two"),
    threshold=0.8,
    pool=Pool(method="linear"),
    version=B,
)
BOTH = [cascade(), OTHER]


def answered(join: Join, *packs: VotesPack) -> list[Answer]:
    found = [join.add(one, (TP, offset), NOW) for offset, one in enumerate(packs)]
    return [answer for resolved in found for _, answer in resolved.answers]


def voted(answer: Answer) -> list[tuple[str, float]]:
    return [(vote.tier, vote.probability) for vote in answer.votes]


def test_each_answer_is_made_by_the_rules_of_its_version() -> None:
    first, second = answered(
        new_join(versions=BOTH),
        pack("one", votes("a", 0.9, 0.5)),
        pack("one", votes("b", 0.9, 0.5), version=B),
    )
    assert (first.cascade_hash, first.threshold, first.label) == (A, 0.5, "roadwork")
    assert (second.cascade_hash, second.threshold, second.label) == (B, 0.8, "none")
    assert first.probability == pytest.approx(0.75)
    assert second.probability == pytest.approx(0.7)


def test_an_image_that_was_begun_by_two_versions_has_votes_of_one() -> None:
    join = new_join(versions=BOTH)
    (answer,) = answered(
        join,
        pack("one", votes("a", 0.9, next_tier="two")),
        pack("one", votes("a", 0.6, next_tier="two"), version=B),
        pack("two", votes("a", 0.7), version=B),
        pack("two", votes("a", 0.8)),
    )
    assert (answer.cascade_hash, voted(answer)) == (B, [("one", 0.6), ("two", 0.7)])
    assert join.stats.late_votes == 2
    assert join.open_images == 0


def test_an_exit_by_another_version_answers_an_open_image() -> None:
    join = new_join(versions=BOTH)
    (answer,) = answered(
        join,
        pack("one", votes("a", 0.9, next_tier="two")),
        pack("one", votes("a", 0.6), version=B),
    )
    assert (answer.cascade_hash, voted(answer)) == (B, [("one", 0.6)])
    assert join.stats.late_votes == 1


def test_tiers_of_two_versions_stand_in_the_order_of_their_own() -> None:
    (answer,) = answered(
        new_join(versions=BOTH),
        pack("two", votes("a", 0.9), version=B),
        pack("one", votes("a", 0.6, next_tier="three"), version=B),
        pack("three", votes("a", 0.7, next_tier="two"), version=B),
    )
    assert [name for name, _ in voted(answer)] == ["one", "three", "two"]


@pytest.mark.parametrize(("also", "version"), [([], A), (["two"], B)], ids=["first", "furthest"])
def test_at_its_deadline_an_image_is_answered_by_the_version_that_came_furthest(
    also: Sequence[str], version: str
) -> None:
    live = head("a", deadline_at=NOW + 5)
    join = new_join(versions=BOTH)
    packs = [
        pack("one", votes(live, 0.9, next_tier="two")),
        pack("one", votes(live, 0.6, next_tier="two"), version=B),
        *(pack(name, votes(live, 0.7, next_tier="three"), version=B) for name in also),
    ]
    assert answered(join, *packs) == []

    ((_, answer),) = join.expire(NOW + 5).answers

    assert (answer.status, answer.cascade_hash) == ("partial", version)
    assert {vote.tier for vote in answer.votes} == {"one", *also}
    assert join.stats.late_votes == 1


def test_a_path_without_a_beginning_makes_no_orphan_of_an_image_begun_by_another() -> None:
    join = new_join(versions=BOTH)
    join.add(pack("two", votes("a", 0.9)), (TP, 0), NOW)
    join.add(pack("one", votes("a", 0.9, next_tier="two"), version=B), (TP, 1), NOW)
    assert ids(join.expire(NOW + ORPHAN_AFTER)) == []
    ((_, answer),) = join.add(pack("two", votes("a", 0.9), version=B), (TP, 2), NOW).answers
    assert answer.status == "answered"


def test_votes_of_two_versions_are_carried_apart_and_come_back_apart() -> None:
    join = new_join(versions=BOTH, limits=SMALL)
    waiting = votes("a", 0.9, next_tier="two")
    join.add(pack("one", waiting), (TP, 0), NOW)
    join.add(pack("one", waiting, version=B), (TP, 1), NOW)

    carried = [one for resolved in flow(join, 8, 2) for _, one in resolved.carried]
    assert [(one.cascade_hash, one.images) for one in carried] == [(A, [waiting]), (B, [waiting])]

    for offset, one in enumerate(carried):
        assert ids(join.add(one, (COPIES, offset), NOW)) == []
    resolved = join.add(pack("two", votes("a", 0.7), version=B), (TP, 50), NOW)
    assert [answer.cascade_hash for _, answer in resolved.answers] == [B]
    assert resolved.done == {COPIES: [0, 1], TP: [50]}


@settings(deadline=None, max_examples=examples(200))
@given(st.data())
def test_no_answer_mixes_two_versions_whatever_the_order(data: st.DataObject) -> None:
    parts = []
    for number in range(data.draw(st.integers(1, 4))):
        for version in data.draw(st.sampled_from([[A], [B], [A, B]])):
            path = data.draw(st.sampled_from([["one"], ["one", "two"], ["one", "two", "three"]]))
            p = 0.7 if version == A else 0.6
            for name, onward in zip(path, [*path[1:], None], strict=True):
                said = votes(f"{number}", p, next_tier=onward)
                parts.append(pack(name, said, version=version))
    join = new_join(versions=BOTH)
    found = answered(join, *data.draw(st.permutations(parts)))

    assert len({answer.head.image_id for answer in found}) == len(found)
    assert {answer.head.image_id for answer in found} == {p.images[0].head.image_id for p in parts}
    for answer in found:
        expected = 0.7 if answer.cascade_hash == A else 0.6
        assert {p for _, p in voted(answer)} == {expected}
        assert answer.status == "answered"


def versions_of(count: int) -> list[Cascade]:
    return [cascade(version=f"{number:016}") for number in range(count)]


@pytest.mark.parametrize("backwards", [False, True])
def test_what_was_begun_before_there_were_versions_is_answered_and_says_so(backwards: bool) -> None:
    join = new_join(limits=SMALL)
    join.versions.learn("old", None)
    packs = [
        pack("one", votes("a", 0.9, next_tier="two"), version="old"),
        pack("two", votes("a", 0.7)),
    ]
    (answer,) = answered(join, *(reversed(packs) if backwards else packs))
    assert voted(answer) == [("one", 0.9), ("two", 0.7)]
    assert "degraded" in answer.flags
    assert answer.error is not None
    assert "has no cascade version old" in answer.error
    assert join.open_images == 0


def test_votes_of_an_unknown_version_are_carried_and_come_back() -> None:
    join = new_join(limits=SMALL)
    join.versions.learn("old", None)
    join.add(pack("one", votes("a", 0.9, next_tier="two"), version="old"), (TP, 0), NOW)
    (copy,) = [one for step in flow(join, 5, 1) for _, one in step.carried]
    assert copy.cascade_hash == "old"
    join.add(copy, (COPIES, 0), NOW)
    (answer,) = answered(join, pack("two", votes("a", 0.7)))
    assert voted(answer) == [("one", 0.9), ("two", 0.7)]


def test_rules_that_open_images_need_are_kept_whatever_else_comes() -> None:
    join = new_join(versions=BOTH)
    join.add(pack("one", votes("a", 0.6, next_tier="two"), version=B), (TP, 0), NOW)
    for other in versions_of(1_000):
        join.versions.learn(other.hash, other)
    assert B in join.versions
    ((_, answer),) = join.add(pack("two", votes("a", 0.7), version=B), (TP, 1), NOW).answers
    assert answer.threshold == 0.8


def test_rules_that_nobody_needs_are_forgotten_the_least_used_first() -> None:
    known = KnownVersions(cascade(), vote_math)
    for number, other in enumerate(versions_of(VERSIONS_KEPT + 10)):
        known.learn(other.hash, other)
        if number >= 1:
            known.rules(f"{1:016}")
    gc.collect()
    kept = [number for number in range(VERSIONS_KEPT + 10) if f"{number:016}" in known]
    assert kept == [1, *range(11, VERSIONS_KEPT + 10)]
    assert A in known


async def test_a_version_is_looked_up_once_and_its_votes_wait_for_it() -> None:
    log, told = await prepared(), Told(OTHER)
    async with running(member := consensus(log, versions=told)):
        await send(log, *(pack("one", votes(f"{n}", 0.75), version=B) for n in range(3)))
        found = await answers(log, 3)

    assert told.asked == [B]
    assert [(one.cascade_hash, one.threshold, one.label) for one in found] == [(B, 0.8, "none")] * 3
    assert [one.flags for one in found] == [[]] * 3
    assert member.stats.foreign_packs == 0


@pytest.mark.parametrize("broken", [False, True])
async def test_a_version_that_nobody_told_of_is_judged_by_our_own_rules_and_says_so(
    *, broken: bool
) -> None:
    log, told = await prepared(), Told()
    told.broken = {B} if broken else set()
    with capture_logs() as events:
        async with running(member := consensus(log, versions=told)):
            for n in range(3):
                await send(log, pack("one", votes(f"{n}", 0.75, error="odd: x"), version=B))
            found = await answers(log, 3)

    why = (
        f"cascade version {B} cannot be read here: {B}.toml: engine: expected noop, got a plug-in"
        if broken
        else f"the topic cascades has no cascade version {B}"
    )
    note = f"version_unknown: {why}; judged by the rules of {A}"
    assert {one.error for one in found} == {f"{note}; odd: x"}
    assert {(one.cascade_hash, one.threshold, *one.flags) for one in found} == {
        (B, 0.5, "partial", "degraded")
    }
    assert (told.asked, member.stats.foreign_packs) == ([B], 3)
    assert [one["got"] for one in events if one["event"] == "foreign_cascade"] == [B]


async def test_a_thousand_versions_are_all_answered_by_their_own_rules() -> None:
    many = [cascade(version=f"{n:016}", threshold=0.1 + 0.8 * (n % 7) / 7) for n in range(1_000)]
    log = await prepared()
    async with running(consensus(log, versions=Told(*many))):
        await send(log, *(pack("one", votes(c.hash, 0.75), version=c.hash) for c in many))
        found = await answers(log, 1_000)

    assert {one.cascade_hash: one.threshold for one in found} == {c.hash: c.threshold for c in many}
    assert {tuple(one.flags) for one in found} == {()}
