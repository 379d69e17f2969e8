"""``verify`` where two versions of the cascade judge side by side: no answer may mix them."""

from pathlib import Path

import msgspec
import pytest

from roadstream.schemas.cascade.model import Snapshot
from roadstream.schemas.records.answer import Answer
from roadstream.schemas.records.claims import CascadeVersion
from roadstream.schemas.records.image import Head, Inline
from roadstream.schemas.records.votes import Escalation, VotesPack
from roadstream.schemas.topics import ANSWERS, CASCADES, CONSENSUS_GROUP, VOTES, tier_group
from tests.kits.builders import CASCADE_HASH, pack, votes
from tests.kits.sound_run import ESCALATED, SoundRun, answer, worked
from tests.kits.verify_kit import lost, only, without

A, B = CASCADE_HASH, "b" * 16
NEW = "tier.new.archive"


@pytest.fixture
def run(tmp_path: Path) -> SoundRun:
    return SoundRun(tmp_path)


def vote(run: SoundRun, *packs: VotesPack) -> None:
    """Let more packs be on ``votes``, which the consensus reads and commits."""
    run.records[VOTES] += packs
    commit(run, len(run.records[VOTES]))


def commit(run: SoundRun, count: int) -> None:
    """Let the consensus have committed so many packs."""
    run.commits[CONSENSUS_GROUP, VOTES] = count
    events = worked("consensus", CONSENSUS_GROUP, "c", VOTES, count)
    run.events["consensus"] = events if count else events[:2]


def named(run: SoundRun, image_id: str, version: str) -> None:
    """Let an image's answer name another version."""
    for i, found in enumerate(run.records[ANSWERS]):
        if isinstance(found, Answer) and found.head.image_id == image_id:
            run.records[ANSWERS][i] = msgspec.structs.replace(found, cascade_hash=version)


def of_b(said: VotesPack) -> VotesPack:
    return msgspec.structs.replace(said, cascade_hash=B)


async def test_an_answer_by_votes_of_another_version_is_named(run: SoundRun) -> None:
    named(run, "c", B)
    finding = only(await run.verify(), "mixed versions", "c")
    assert finding.detail == (
        f"answered by version {B} at answers[0]@2, with tier one, which voted by {A} (votes[0]@0)"
    )


@pytest.mark.parametrize("ledgers", [True, False])
async def test_an_answer_with_one_tier_of_another_version_is_named(
    run: SoundRun, *, ledgers: bool
) -> None:
    first, second = run.records[VOTES]
    assert isinstance(second, VotesPack)
    run.records[VOTES] = [first, of_b(second)]
    report = await run.verify(ledgers=ledgers)
    assert report.anomalies == {"mixed versions": 2}
    assert [finding.what for finding in report.findings] == ["c", "d"]
    assert "with tier two, which voted by" in report.findings[0].detail


async def test_images_that_two_versions_began_are_answered_by_one(run: SoundRun) -> None:
    vote(
        run,
        pack("one", votes("a", next_tier="two"), votes("c"), version=B),
        pack("two", votes("a"), version=B),
    )
    named(run, "c", B)
    run.records[ANSWERS][2] = msgspec.structs.replace(answer("c", "one"), cascade_hash=B)
    assert (await run.verify()).clean


async def test_answers_and_votes_that_name_no_version_are_none_of_another(run: SoundRun) -> None:
    named(run, "c", "")
    first, second = run.records[VOTES]
    assert isinstance(first, VotesPack)
    run.records[VOTES] = [msgspec.structs.replace(first, cascade_hash=""), second]
    assert (await run.verify()).clean


async def test_votes_that_were_trimmed_accuse_nobody(run: SoundRun) -> None:
    vote(run, pack("one", votes("a", next_tier="two"), version=B))
    assert (await run.verify(trimmed=[(VOTES, 1)])).clean


async def test_an_image_that_another_version_goes_on_with_is_not_lost(run: SoundRun) -> None:
    without(run, "d")
    first, second = run.records[VOTES]
    assert isinstance(second, VotesPack)
    run.records[VOTES] = [first, msgspec.structs.replace(second, images=second.images[:1])]
    run.records[ESCALATED] += [Escalation(Head(image_id="d"), Inline(b""), [], cascade_hash=B)]
    vote(run, pack("one", votes("d", next_tier="two"), version=B))
    commit(run, 0)
    report = await run.verify()
    assert (report.anomalies, report.waiting) == ({}, {"tier two": 1})


async def test_an_image_that_a_zombie_sent_elsewhere_in_vain_is_not_lost(run: SoundRun) -> None:
    await newer(run)
    without(run, "b")
    del run.commits[tier_group("new"), NEW], run.events["new"]
    run.records[VOTES][-1] = pack("one", votes("b", next_tier="two"))
    commit(run, 0)
    report = await run.verify()
    assert (report.anomalies, report.waiting) == ({}, {"tier new": 1})


async def newer(run: SoundRun) -> None:
    """Let image b, by a newer version, go on to a tier that ours has not."""
    await run.log.create_topics([CASCADES], 1)
    await run.log.create_topics([NEW, NEW.replace("archive", "live")], 1)
    text = b'name = "test"\n[[tiers]]\nname = "one"\nmembers = [{}]\n[[tiers]]\nname = "new"\n'
    told = CascadeVersion(snapshot=Snapshot(text=text, hash=B), told_at=0.0)
    run.records[CASCADES] = [b"\xc1 a stranger's", told]
    first, second = run.records[VOTES]
    assert isinstance(first, VotesPack)
    kept = [said for said in first.images if said.head.image_id != "b"]
    run.records[VOTES] = [msgspec.structs.replace(first, images=kept), second]
    run.records[NEW] = [Escalation(Head(image_id="b"), Inline(b""), [], cascade_hash=B)]
    vote(
        run,
        pack("one", votes("b", next_tier="new"), version=B),
        pack("new", votes("b"), version=B),
    )
    run.records[ANSWERS][1] = msgspec.structs.replace(answer("b", "one", "new"), cascade_hash=B)
    run.events["new"] = worked("worker", tier_group("new"), "w3", NEW, 1)
    run.commits[tier_group("new"), NEW] = 1


async def test_a_run_with_a_tier_of_a_newer_version_is_clean(run: SoundRun) -> None:
    await newer(run)
    assert (await run.verify()).clean


async def test_an_image_that_the_tier_of_a_newer_version_lost_is_named(run: SoundRun) -> None:
    await newer(run)
    without(run, "b")
    run.records[VOTES].pop()
    commit(run, 2)
    assert "acknowledged and are not there" in lost(await run.verify(), "b", "broker")


async def test_an_image_that_waits_before_the_tier_of_a_newer_version_is_not_lost(
    run: SoundRun,
) -> None:
    await newer(run)
    without(run, "b")
    del run.commits[tier_group("new"), NEW], run.events["new"]
    run.records[VOTES].pop()
    commit(run, 2)
    report = await run.verify()
    assert (report.anomalies, report.waiting) == ({}, {"tier new": 1})
