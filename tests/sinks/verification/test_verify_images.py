"""``verify``: images that are lost, and those that only seem to be."""

import pytest

from roadstream.schemas.records.dead_letters import DeadLetterSettled
from roadstream.schemas.records.events import (
    Acknowledged,
    Assigned,
    Committed,
    Delivered,
    Done,
    Missed,
)
from roadstream.schemas.records.image import Head, Image, Inline
from roadstream.schemas.topics import ANSWERS, CONSENSUS_GROUP, DEAD_LETTERS, VOTES
from roadstream.sinks.verification.findings import Side
from tests.kits.builders import pack, votes
from tests.kits.sound_run import ESCALATED, IMAGES, ONE, TWO, SoundRun, answer, opened, worked
from tests.kits.verify_kit import letter, lost, unchecked, without

# Lost


async def test_an_image_that_was_acknowledged_and_is_on_no_topic_was_lost_by_the_broker(
    run: SoundRun,
) -> None:
    run.events["producer"].append(Acknowledged(2.0, ["e"]))

    assert lost(await run.verify(), "e", "broker") == "acknowledged, but not on images.*"


async def test_an_image_whose_offset_was_committed_without_votes_was_lost_by_the_worker(
    run: SoundRun,
) -> None:
    run.records[VOTES] = [
        pack("one", votes("a"), votes("b"), votes("c", next_tier="two")),
        pack("two", votes("c")),
    ]
    without(run, "d")

    detail = lost(await run.verify(ledgers=False), "d", "worker")
    assert detail == "read by tier one at images.archive[0]@3 and committed without votes"


async def test_votes_that_were_acknowledged_and_are_not_there_were_lost_by_the_broker(
    run: SoundRun,
) -> None:
    run.records[VOTES] = [pack("one", votes("a"), votes("b")), pack("two", votes("c"))]
    run.records[ESCALATED] = [run.records[ESCALATED][0]]
    run.records[ANSWERS] = run.records[ANSWERS][:2]
    run.records[IMAGES] = run.records[IMAGES][:3]
    run.events["producer"] = [opened("producer", "", ""), Acknowledged(1.0, ["a", "b", "c"])]
    for name, topic, count in (("one", IMAGES, 3), ("two", ESCALATED, 1)):
        group = ONE if name == "one" else TWO
        run.events[name] = worked("worker", group, name, topic, count)
        run.commits[group, topic] = count

    assert "acknowledged and are not there" in lost(await run.verify(), "c", "broker")


@pytest.mark.parametrize(("ledgers", "side"), [(False, "worker"), (True, "broker")])
async def test_an_escalation_that_is_not_on_its_topic_was_lost_by_whoever_should_have_it(
    run: SoundRun, ledgers: bool, side: Side
) -> None:
    run.records[ESCALATED].pop()
    run.records[VOTES][1] = pack("two", votes("c"))
    run.commits[TWO, ESCALATED] = 1
    run.events["two"] = worked("worker", TWO, "w2", ESCALATED, 1)
    # Its votes of tier one wait at the consensus, as they must.
    run.commits[CONSENSUS_GROUP, VOTES] = 0
    run.events["consensus"].pop()
    without(run, "d")

    detail = lost(await run.verify(ledgers=ledgers), "d", side)
    assert detail == ("tier one voted to escalate it to two, but tier.two.* has no record of it")


async def test_an_image_with_all_its_votes_and_no_answer_was_lost_by_the_sink(
    run: SoundRun,
) -> None:
    without(run, "d")

    assert lost(await run.verify(), "d", "sink") == (
        "the consensus committed its votes of one, two without an answer"
    )


async def test_votes_that_the_consensus_let_go_of_too_early_are_the_sinks_loss(
    run: SoundRun,
) -> None:
    """Tier two still works on d, but nobody will join what it says."""
    run.records[VOTES][1] = pack("two", votes("c"))
    run.commits[TWO, ESCALATED] = 1
    run.events["two"] = worked("worker", TWO, "w2", ESCALATED, 1)
    without(run, "d")

    assert "the consensus committed its votes of one" in lost(await run.verify(), "d", "sink")


async def test_an_image_that_retention_took_before_it_was_worked_on_is_laid_to_retention(
    run: SoundRun,
) -> None:
    run.records[IMAGES] = [run.records[IMAGES][0], *run.records[IMAGES]]
    run.records[IMAGES][0] = Image(Head(image_id="e"), Inline(b"e"))
    run.events["producer"].append(Acknowledged(2.0, ["e"]))
    run.events["one"] = [
        opened("worker", ONE, "w1"),
        Missed(1.0, IMAGES, 0, 0, 1),
        Assigned(1.0, 1, [(IMAGES, 0, -1)]),
        Delivered(2.0, 1, [(IMAGES, 0, 1, 4)]),
        Done(3.0, 1, [(IMAGES, 0, 1, 4)]),
        Committed(4.0, [(IMAGES, 0, 5)]),
    ]
    run.commits[ONE, IMAGES] = 5

    report = await run.verify(trimmed=[(IMAGES, 1)])

    assert "retention passed" in lost(report, "e", "retention")
    assert report.unchecked == [
        "retention took 1 records of images.archive that roadstream.tier.one had not committed"
    ]


async def test_a_record_that_cannot_be_read_and_has_no_dead_letter_is_lost(run: SoundRun) -> None:
    run.records[IMAGES].append(b"no image at all")
    run.events["one"] = worked("worker", ONE, "w1", IMAGES, 5)
    run.commits[ONE, IMAGES] = 5

    assert "without a dead letter" in lost(await run.verify(), "images.archive[0]@4", "worker")


async def test_a_record_that_cannot_be_read_and_has_its_dead_letter_is_none(run: SoundRun) -> None:
    run.records[IMAGES].append(b"no image at all")
    run.events["one"] = worked("worker", ONE, "w1", IMAGES, 5)
    run.commits[ONE, IMAGES] = 5
    run.records[DEAD_LETTERS] = [letter(IMAGES, 4)]

    assert (await run.verify()).clean


async def test_an_image_whose_dead_letter_may_have_been_trimmed_is_not_called_lost(
    run: SoundRun,
) -> None:
    without(run, "a")
    run.records[DEAD_LETTERS] = [letter(IMAGES, 0, image="a")]

    assert unchecked(await run.verify(trimmed=[(DEAD_LETTERS, 1)])) == (
        "1 images older than the oldest dead letters that are left"
    )


async def test_what_retention_took_before_it_was_worked_on_keeps_a_run_from_being_cleared(
    run: SoundRun,
) -> None:
    """Nobody knows which images they were, unless their producer kept a ledger."""
    run.events["one"].insert(1, Missed(0.5, IMAGES, 0, 0, 2))

    assert "retention took 2 records of images.archive" in unchecked(await run.verify())


async def test_a_second_picture_under_one_id_that_nobody_refused_is_lost(run: SoundRun) -> None:
    run.records[IMAGES][0] = Image(Head(image_id="a", content_hash=b"1" * 16), Inline(b"1"))
    run.records[IMAGES][1] = Image(Head(image_id="a", content_hash=b"2" * 16), Inline(b"2"))
    run.records[VOTES][0] = pack(
        "one", votes("a"), votes("a"), *(votes(n, next_tier="two") for n in "cd")
    )
    run.events["producer"] = [opened("producer", "", ""), Acknowledged(1.0, ["a", "c", "d"])]
    without(run, "b")

    assert "2 different pictures, of which none was refused" in lost(
        await run.verify(), "a", "sink"
    )


# No losses


async def test_a_second_picture_that_was_refused_is_no_loss(run: SoundRun) -> None:
    run.records[IMAGES][0] = Image(Head(image_id="a", content_hash=b"1" * 16), Inline(b"1"))
    run.records[IMAGES][1] = Image(Head(image_id="a", content_hash=b"2" * 16), Inline(b"2"))
    run.events["producer"] = [opened("producer", "", ""), Acknowledged(1.0, ["a", "c", "d"])]
    run.records[VOTES][0] = pack(
        "one", votes("a"), votes("a"), *(votes(n, next_tier="two") for n in "cd")
    )
    run.records[DEAD_LETTERS] = [letter(VOTES, 0, "duplicate", "a")]
    without(run, "b")

    report = await run.verify()

    assert report.clean
    assert report.explained == ["1 ids were sent with a second picture, which was refused"]


async def test_the_same_picture_sent_twice_is_no_loss(run: SoundRun) -> None:
    run.records[IMAGES].append(run.records[IMAGES][0])
    run.records[VOTES].append(pack("one", votes("a")))
    run.commits[ONE, IMAGES] = 5
    run.commits[CONSENSUS_GROUP, VOTES] = 3
    run.events["one"] = worked("worker", ONE, "w1", IMAGES, 5)
    run.events["consensus"] = worked("consensus", CONSENSUS_GROUP, "c", VOTES, 3)

    assert (await run.verify()).clean


@pytest.mark.parametrize("whole", [True, False])
async def test_an_image_that_ended_as_a_dead_letter_is_no_loss(run: SoundRun, whole: bool) -> None:
    run.records[VOTES] = [
        pack("one", votes("a"), votes("b"), votes("c", next_tier="two")),
        pack("two", votes("c")),
    ]
    run.records[ESCALATED].pop()
    run.commits[TWO, ESCALATED] = 1
    run.events["two"] = worked("worker", TWO, "w2", ESCALATED, 1)
    run.records[DEAD_LETTERS] = [letter(IMAGES, 3, image=None if whole else "d")]
    without(run, "d")

    report = await run.verify()

    assert report.clean
    assert report.explained == ["1 images ended as dead letters, unanswered"]


async def test_a_dead_letter_of_a_neighbour_in_the_same_pack_excuses_nobody(run: SoundRun) -> None:
    run.records[DEAD_LETTERS] = [letter(VOTES, 1, image="c")]
    without(run, "d")

    lost(await run.verify(), "d", "sink")


async def test_an_image_that_was_replayed_from_the_dead_letters_was_sent(run: SoundRun) -> None:
    run.records[DEAD_LETTERS] = [
        letter(IMAGES, 0, "model_failed", "a"),
        DeadLetterSettled(0, "replayed", 2.0, "a~replay-1"),
    ]
    run.records[VOTES].append(pack("one", votes("a~replay-1")))
    run.records[ANSWERS].append(answer("a~replay-1", "one"))
    run.commits[CONSENSUS_GROUP, VOTES] = 3
    run.events["consensus"] = worked("consensus", CONSENSUS_GROUP, "c", VOTES, 3)

    assert (await run.verify()).clean


# Still being worked on


@pytest.mark.parametrize("ledgers", [True, False])
async def test_an_image_that_its_tier_has_not_committed_is_worked_on_and_not_lost(
    run: SoundRun, ledgers: bool
) -> None:
    run.records[IMAGES].append(Image(Head(image_id="e"), Inline(b"e")))

    report = await run.verify(ledgers=ledgers)

    assert not report.clean
    assert report.tolerable is False
    assert (report.anomalies, report.waiting) == ({}, {"tier one": 1})
    assert report.waiting_ids == ["e"]


async def test_an_image_that_waits_for_a_later_tier_is_worked_on(run: SoundRun) -> None:
    run.records[VOTES].pop()
    run.commits[TWO, ESCALATED] = run.commits[CONSENSUS_GROUP, VOTES] = 0
    run.events["two"] = run.events["two"][:3]
    run.events["consensus"] = run.events["consensus"][:3]
    run.records[ANSWERS] = run.records[ANSWERS][:2]

    report = await run.verify()

    assert (report.anomalies, report.waiting) == ({}, {"tier two": 2})


async def test_carried_votes_keep_an_image_alive(run: SoundRun) -> None:
    """The consensus has done with the old pack: it holds a copy further on."""
    run.records["votes.carried"] = [pack("one", votes("d", next_tier="two"))]
    run.records[VOTES][1] = pack("two", votes("c"))
    run.commits[TWO, ESCALATED] = 1
    run.events["two"] = worked("worker", TWO, "w2", ESCALATED, 1)
    without(run, "d")

    report = await run.verify()

    assert (report.anomalies, report.waiting) == ({}, {"tier two": 1})


async def test_an_image_that_the_consensus_has_not_committed_is_worked_on(run: SoundRun) -> None:
    run.commits[CONSENSUS_GROUP, VOTES] = 1
    run.events["consensus"][-1] = Committed(4.0, [(VOTES, 0, 1)])
    run.records[VOTES][0] = pack(
        "one", votes("a"), votes("b"), votes("c", next_tier="two"), votes("d", next_tier="two")
    )
    run.commits[CONSENSUS_GROUP, VOTES] = 0
    run.events["consensus"] = run.events["consensus"][:3]
    run.records[ANSWERS] = run.records[ANSWERS][:3]

    report = await run.verify()

    assert (report.anomalies, report.waiting) == ({}, {"consensus": 1})


async def test_work_that_a_killed_worker_left_half_published_is_worked_on(run: SoundRun) -> None:
    """Votes are out and the escalation is not, but the offset was not committed: all is redone."""
    run.records[ESCALATED] = []
    run.records[VOTES].pop()
    run.commits[ONE, IMAGES] = 2
    run.events["one"] = run.events["one"][:3]
    run.commits[TWO, ESCALATED] = run.commits[CONSENSUS_GROUP, VOTES] = 0
    del run.events["two"]
    run.events["consensus"] = run.events["consensus"][:3]
    run.records[ANSWERS] = run.records[ANSWERS][:2]

    report = await run.verify()

    assert (report.anomalies, report.waiting) == ({}, {"tier one": 2})
