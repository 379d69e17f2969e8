"""A tier that nobody works for: who waits for it is answered without it, once, and says so."""

import anyio
import msgspec
import pytest

from roadstream.bench.simulation.virtual_loop import VirtualLoop
from roadstream.schemas import codec
from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.records.answer import Answer
from roadstream.schemas.topics import ANSWERS
from roadstream.sinks.consensus.horizon import ASKED_EVERY, Horizon
from roadstream.sinks.consensus.join import ORPHAN_AFTER, Join, JoinLimits
from tests.kits.builders import CASCADE_HASH, cascade, head, pack, tier, votes
from tests.kits.join_kit import COPIES, NOW, SMALL, TP, flow, ids, new_join
from tests.sinks.consensus.test_consensus_waits import Bench, virtually

A, B = CASCADE_HASH, "b" * 16


def patient(*patience: float | None, version: str = A) -> Cascade:
    """Return a cascade whose tiers from the second on are waited for so many seconds."""
    names = ["one", "two", "three"]
    limits = dict(zip(names[1:], patience, strict=False))
    tiers = [msgspec.structs.replace(tier(n), give_up_after=limits.get(n)) for n in names]
    return cascade(*tiers, version=version)


def waiting(*packs_of: str, versions: list[Cascade], clock: float = NOW) -> Join:
    """Return a join with an image a that each of these versions sent on to tier two."""
    join = new_join(versions=versions)
    for offset, version in enumerate(packs_of):
        said = votes("a", 0.6, next_tier="two")
        assert ids(join.add(pack("one", said, version=version), (TP, offset), clock)) == []
    return join


def given_up(join: Join, now: float) -> Answer:
    ((_, answer),) = join.expire(now).answers
    return answer


def test_an_image_is_answered_without_a_tier_that_stays_silent() -> None:
    join = waiting(A, versions=[patient(60)])
    assert ids(join.expire(NOW + 59)) == []

    answer = given_up(join, NOW + 60)

    assert (answer.status, answer.flags) == ("partial", ["partial", "degraded"])
    assert answer.error == "tier_unavailable: no votes of tier two within 60 s"
    assert answer.missing_tiers == ["two"]
    assert [vote.tier for vote in answer.votes] == ["one"]
    assert join.open_images == 0
    assert join.next_give_up_at is None


def test_why_a_tier_is_missing_stands_before_what_else_went_wrong() -> None:
    join = new_join(versions=[patient(60)])
    failed = votes("a", 0.6, None, next_tier="two", error="model_failed: one-1")
    unvoted = votes("b", None, next_tier="two", error="truncated: ends early")
    join.add(pack("one", failed), (TP, 0), NOW)
    join.add(pack("one", unvoted), (TP, 1), NOW)
    (_, a), (_, b) = join.expire(NOW + 60).answers
    why = "tier_unavailable: no votes of tier two within 60 s"
    assert a.error == f"{why}; model_failed: one-1"
    assert (b.status, b.error, b.missing_tiers) == (
        "failed", f"{why}; truncated: ends early", ["two"]
    )  # fmt: skip


def test_the_time_runs_from_the_votes_that_sent_it_there() -> None:
    join = waiting(A, versions=[patient(60, 30)])
    join.add(pack("two", votes("a", 0.7, next_tier="three")), (TP, 1), NOW + 50)
    assert ids(join.expire(NOW + 79)) == []
    answer = given_up(join, NOW + 80)
    assert (answer.missing_tiers, answer.exit_tier) == (["three"], "two")


def test_votes_that_are_repeated_give_no_more_time() -> None:
    join = waiting(A, A, versions=[patient(60)])
    join.add(pack("one", votes("a", 0.6, next_tier="two")), (TP, 2), NOW + 50)
    assert given_up(join, NOW + 60).missing_tiers == ["two"]


def test_another_way_to_a_tier_without_a_limit_waits_as_long_as_it_takes() -> None:
    join = waiting(A, versions=[patient(60)])
    join.add(pack("one", votes("a", 0.6, next_tier="three")), (TP, 1), NOW + 50)
    assert ids(join.expire(NOW + 1e6)) == []
    assert join.next_give_up_at is None


@pytest.mark.parametrize("step", [-3_600, 3_600])
def test_a_wall_clock_that_steps_changes_nothing(step: float) -> None:
    join = new_join(versions=[patient(60)])
    join.tick(NOW, 5.0)
    join.add(pack("one", votes("a", 0.6, next_tier="two")), (TP, 0), NOW)
    join.tick(NOW + step + 59, 64.0)
    assert ids(join.expire(NOW + step + 59)) == []
    join.tick(NOW + step + 60, 65.0)
    assert given_up(join, NOW + step + 60).missing_tiers == ["two"]


def test_of_two_versions_the_one_that_gives_up_first_answers() -> None:
    join = waiting(A, B, versions=[patient(60), patient(20, version=B)])
    assert given_up(join, NOW + 20).cascade_hash == B
    assert join.stats.late_votes == 1


def test_a_version_that_goes_on_is_not_held_up_by_one_that_waits() -> None:
    join = waiting(A, B, versions=[patient(60), patient(60, version=B)])
    ((_, answer),) = join.add(pack("two", votes("a", 0.7), version=B), (TP, 2), NOW + 59).answers
    assert (answer.cascade_hash, answer.status) == (B, "answered")
    assert join.expire(NOW + 60).answers == []


def test_a_live_image_names_the_tier_that_it_waited_for_at_its_deadline() -> None:
    join = new_join()
    live = head("a", deadline_at=NOW + 5)
    join.add(pack("one", votes(live, 0.9, next_tier="two")), (TP, 0), NOW)
    answer = given_up(join, NOW + 5)
    assert (answer.status, answer.flags) == ("partial", ["partial"])
    assert answer.missing_tiers == ["two"]


def test_no_more_are_given_up_at_once_than_are_asked_for() -> None:
    join = new_join(versions=[patient(60)])
    some = [votes(f"{i}", 0.9, next_tier="two") for i in range(5)]
    join.add(pack("one", *some), (TP, 0), NOW)
    assert [len(join.expire(NOW + 60, 2).answers) for _ in range(4)] == [2, 2, 1, 0]


def test_who_waits_is_not_given_up_before_all_that_was_there_then_is_read() -> None:
    join = waiting(A, versions=[patient(60)])
    assert ids(join.expire(NOW + 100, None, NOW + 59)) == []
    assert ids(join.expire(NOW + 100, None, NOW + 60)) == ["a"]


def test_a_copy_that_comes_back_gives_no_more_time() -> None:
    join = new_join(limits=SMALL, versions=[patient(60)])
    join.add(pack("one", votes("a", 0.6, next_tier="two")), (TP, 0), NOW)
    ((_, copy),) = [one for resolved in flow(join, 8, 1) for one in resolved.carried]
    join.add(copy, (COPIES, 0), NOW + 50)
    assert ids(join.expire(NOW + 60)) == ["a"]


@pytest.mark.parametrize("late", ["given up", "expired"])
def test_votes_that_come_when_the_image_is_long_forgotten_are_late(late: str) -> None:
    join = new_join(limits=SMALL, versions=[patient(60)])
    image = head("a", deadline_at=NOW + 5 if late == "expired" else None)
    join.add(pack("one", votes(image, 0.6, next_tier="two")), (TP, 0), NOW)
    assert ids(join.expire(NOW + 60)) == ["a"]
    flow(join, 100, 1, NOW + 100)
    queued = msgspec.structs.replace(votes(image, 0.7), queued=3_000.0)

    back = join.add(pack("two", queued), (TP, 200), NOW + 3_000)
    waited = join.expire(NOW + 3_000 + ORPHAN_AFTER)

    assert back.answers == waited.answers == []
    assert waited.done == {TP: [200]}
    assert (join.stats.late_votes, join.open_images) == (1, 0)


def test_they_are_late_after_a_takeover_as_well() -> None:
    join = new_join(limits=SMALL, versions=[patient(60)])
    join.assign({0: dict.fromkeys(f"{n}" for n in range(SMALL.window))}, NOW + 100)
    live = head("a", deadline_at=NOW + 5)
    queued = msgspec.structs.replace(votes("b", 0.7), queued=3_000.0)
    join.add(pack("two", votes(live, 0.7), queued), (TP, 200), NOW + 3_000)
    assert ids(join.expire(NOW + 3_000 + ORPHAN_AFTER)) == []
    assert join.stats.late_votes == 2


@pytest.mark.parametrize("deadline_at", [None, NOW + 101])
def test_an_orphan_whose_answer_would_be_remembered_is_answered(deadline_at: float | None) -> None:
    join = new_join(limits=SMALL, versions=[patient(60)])
    flow(join, 2 * SMALL.window, 0, NOW + 100)
    lost = msgspec.structs.replace(
        votes(head("a", deadline_at=deadline_at), 0.7), queued=0.0 if deadline_at else 60.0
    )
    join.add(pack("two", lost), (TP, 200), NOW + 110)
    (answer,) = (a for _, a in join.expire(NOW + 110 + ORPHAN_AFTER).answers)
    assert (answer.status, answer.missing_tiers) == ("partial", ["one"])


def test_an_orphan_that_cannot_have_been_answered_is_answered() -> None:
    join = new_join(versions=[patient(60)])
    join.add(pack("two", votes("a", 0.7)), (TP, 0), NOW)
    assert given_up(join, NOW + ORPHAN_AFTER).missing_tiers == ["one"]


def test_the_horizon_is_reached_when_what_was_there_has_been_read() -> None:
    horizon = Horizon({0: 5, 1: 0})
    assert not horizon.wants(None, 10.0)
    assert not horizon.wants(10.1, 10.0)
    assert horizon.wants(10.0, 10.0)
    horizon.mark({0: 7, 1: 1, 2: 9}, 10.0)
    assert not horizon.wants(10.0, 99.0)
    horizon.read(0, 6)
    assert horizon.until < 10.0
    horizon.read(1, 0)
    assert horizon.until == 10.0
    assert not horizon.wants(10.0, 99.0)
    assert not horizon.wants(10.5, 10.0 + ASKED_EVERY - 0.1)
    assert horizon.wants(10.5, 10.0 + ASKED_EVERY)


def test_offsets_without_records_keep_nobody_waiting() -> None:
    horizon = Horizon({0: 5})
    horizon.mark({0: 9}, 10.0)
    horizon.reached_end()
    assert horizon.until == 10.0


def test_a_consensus_that_is_behind_does_not_give_up_what_has_been_voted_on() -> None:
    async def test(loop: VirtualLoop) -> None:
        bench = Bench(loop, cascade=patient(60), limits=JoinLimits())
        await bench.create_topics()
        bench.send(pack("one", votes("a", 0.9, next_tier="two"), votes("b", 0.9, next_tier="two")))
        async with bench.running():
            await anyio.sleep(1)
            bench.latency["poll"] = 9.0  # so that 600 records, 64 a poll, take more than a minute
            bench.send(*(pack("one", votes(f"{n}")) for n in range(600)))
            bench.send(pack("two", votes("a", 0.7)))
            await anyio.sleep(65)
            assert "b" not in bench.answers
            await anyio.sleep(60)
        answers = map(codec.decode_answer, bench.values(ANSWERS))
        found = {one.head.image_id: (one.status, one.missing_tiers) for one in answers}
        assert found["a"] == ("answered", [])
        assert found["b"] == ("partial", ["two"])

    virtually(test)


def test_a_busy_consensus_gives_up_in_time() -> None:
    async def test(loop: VirtualLoop) -> None:
        bench = Bench(loop, cascade=patient(60))
        await bench.create_topics()
        bench.send(pack("one", votes("a", 0.9, next_tier="two")))
        async with bench.running():
            for number in range(640):
                bench.send(pack("one", votes(f"{number}")))
                await anyio.sleep(0.1)
                assert ("a" not in bench.answers) or number >= 599
            assert "a" in bench.answers

    virtually(test)
