"""``verify``: each anomaly is planted in a sound run and found by name; a sound run is clean."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from schemas.dead_letters import DeadLetter, DeadLetterReason, DeadLetterSettled
from schemas.errors import UsageError
from schemas.events import (
    Acknowledged,
    Assigned,
    Committed,
    Delivered,
    Done,
    Event,
    Fenced,
    Missed,
    Revoked,
)
from schemas.records import Answer, Head, Image, Inline
from schemas.topics import ANSWERS, CONSENSUS_GROUP, DEAD_LETTERS, VOTES
from sinks.verification import MEANINGS, Finding, Kind, Report, Side
from sinks.writers import open_writer
from tests.builders import head, pack, votes
from tests.workers.sound_run import (
    ESCALATED,
    IMAGES,
    ONE,
    TWO,
    SoundRun,
    answer,
    opened,
    retimed,
    worked,
)
from workers.verify import verify


@pytest.fixture
def run(tmp_path: Path) -> SoundRun:
    return SoundRun(tmp_path)


def only(report: Report, kind: Kind, what: str) -> Finding:
    """Return the one finding, which is of this kind and about this."""
    assert not report.clean
    assert report.anomalies == {kind: 1}, report.findings
    assert report.findings[0].what == what
    return report.findings[0]


def lost(report: Report, image_id: str, side: Side) -> str:
    """Return what is said of the one lost image, which this side lost."""
    finding = only(report, "lost", image_id)
    assert finding.side == side
    assert report.lost == {side: 1}
    return finding.detail


def letter(
    topic: str,
    offset: int,
    reason: DeadLetterReason = "unreadable_record",
    image: str | None = None,
) -> DeadLetter:
    return DeadLetter(
        topic=topic,
        partition=0,
        offset=offset,
        key=None,
        value=b"",
        error="broken",
        group="g",
        failed_at=1.0,
        reason=reason,
        image_id=image,
    )


def without(run: SoundRun, image_id: str) -> None:
    """Take an image's answer away."""
    run.records[ANSWERS] = [
        found
        for found in run.records[ANSWERS]
        if isinstance(found, Answer) and found.head.image_id != image_id
    ]


# Clean


async def test_a_sound_run_is_clean(run: SoundRun) -> None:
    report = await run.verify()

    assert report.clean
    assert report.tolerable
    assert (report.images, report.acknowledged, report.answers) == (4, 4, 4)
    assert (report.ledgers, report.unchecked, report.explained) == (4, [], [])


async def test_without_ledgers_the_topics_alone_are_checked_and_the_rest_is_said(
    run: SoundRun,
) -> None:
    report = await run.verify(ledgers=False)

    assert report.clean
    assert report.unchecked == [
        "no ledgers: commits, and images that were acknowledged and never kept"
    ]


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
    assert report.unchecked == ["images.archive was trimmed: what is gone from it"]


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


# Answers


async def test_two_answers_that_say_the_same_are_doubled(run: SoundRun) -> None:
    later = answer("b", "one")
    run.records[ANSWERS].append(msgspec.structs.replace(later, answered_at=99.0, took=90.0))

    finding = only(await run.verify(), "doubled", "b")
    assert "answers[0]@1 and answers[0]@4" in finding.detail


async def test_a_double_by_a_member_that_was_replaced_and_lived_on_is_a_zombies(
    run: SoundRun,
) -> None:
    run.records[ANSWERS].append(answer("b", "one"))
    run.events["consensus"] = [*run.events["consensus"][:3], Fenced(20.0, 1), Revoked(21.0, 1)]
    run.events["heir"] = retimed(worked("consensus", CONSENSUS_GROUP, "heir", VOTES, 2), 10.0)

    report = await run.verify()

    only(report, "doubled by a zombie", "b")
    assert report.tolerable


async def test_a_double_after_a_member_was_killed_is_no_zombies(run: SoundRun) -> None:
    run.records[ANSWERS].append(answer("b", "one"))
    run.events["consensus"] = run.events["consensus"][:3]
    run.events["heir"] = retimed(worked("consensus", CONSENSUS_GROUP, "heir", VOTES, 2), 10.0)

    report = await run.verify()

    only(report, "doubled", "b")
    assert not report.tolerable


async def test_two_answers_that_differ_are_divergent(run: SoundRun) -> None:
    run.records[ANSWERS].append(answer("b", "one", p=0.25, label="none"))

    assert only(await run.verify(), "divergent", "b").detail.startswith(
        "answered roadwork 0.9, then answered none 0.25"
    )


async def test_an_answer_that_a_late_vote_changed_is_named_so(run: SoundRun) -> None:
    run.records[ANSWERS].append(answer("c", "one", "two"))
    run.records[ANSWERS][2] = answer("c", "one", p=0.7)

    finding = only(await run.verify(), "late vote changed an answer", "c")
    assert "then with two" in finding.detail


async def test_an_answer_for_an_image_that_nobody_sent_is_a_phantom(run: SoundRun) -> None:
    run.records[ANSWERS].append(answer("ghost", "one"))

    assert only(await run.verify(), "phantom", "ghost").detail == (
        "answered at answers[0]@4, and on no images.* topic"
    )


async def test_where_images_were_trimmed_an_answer_is_no_phantom(run: SoundRun) -> None:
    report = await run.verify(ledgers=False, trimmed=[(IMAGES, 2)])

    assert report.clean
    assert "images.archive was trimmed: what is gone from it" in report.unchecked


async def test_an_answer_after_its_deadline_that_claims_to_be_in_time_is_found(
    run: SoundRun,
) -> None:
    run.records[ANSWERS][0] = msgspec.structs.replace(
        answer("a", "one"), head=head("a", deadline_at=8.5)
    )
    partial = msgspec.structs.replace(
        answer("b", "one"), head=head("b", deadline_at=8.5), status="partial"
    )
    run.records[ANSWERS][1] = partial

    finding = only(await run.verify(), "deadline ignored", "a")
    assert finding.detail.startswith("answered 0.500 s after its deadline")


# Neighbours


def clean_run(run: SoundRun, *answers: Answer) -> Path:
    path = run.folder / "clean.jsonl"
    with open_writer(path) as writer:
        writer.write(list(answers))
    return path


async def test_a_vote_that_differs_from_the_clean_run_in_a_bit_is_found(run: SoundRun) -> None:
    baseline = clean_run(
        run,
        answer("a", "one"),
        answer("b", "one", p=0.9000000000000001),
        answer("c", "one", "two"),
        answer("d", "one", "two"),
    )

    finding = only(await run.verify(baseline=baseline), "neighbour changed by a poison image", "b")
    assert finding.detail == "one/one-0 voted 0.9 here, 0.9000000000000001 in the clean run"


async def test_a_neighbour_that_fails_is_found_and_the_poison_image_is_not(
    run: SoundRun,
) -> None:
    failed: dict[str, Any] = {"status": "failed", "label": None, "probability": None, "tiers": []}
    for i, name in enumerate("ab"):
        run.records[ANSWERS][i] = msgspec.structs.replace(
            answer(name, "one"), error="model_failed: boom", **failed
        )
    run.records[DEAD_LETTERS] = [letter(IMAGES, 0, "model_failed", "a")]
    baseline = clean_run(run, answer("a", "one"), answer("b", "one"), answer("c", "one", "two"))

    report = await run.verify(baseline=baseline)

    only(report, "neighbour changed by a poison image", "b")
    assert report.explained == ["3 answers compared with the clean run, 0 of them in part"]
    assert report.unchecked == ["1 answers that the clean run has not"]


async def test_an_answer_that_says_what_it_lacks_is_compared_by_what_it_has(
    run: SoundRun,
) -> None:
    partial = msgspec.structs.replace(answer("c", "one", p=0.9), status="partial")
    run.records[ANSWERS][2] = partial
    baseline = clean_run(
        run, *(answer(n, "one") for n in "ab"), *(answer(n, "one", "two") for n in "cd")
    )

    report = await run.verify(baseline=baseline)

    assert report.clean
    assert report.explained == ["4 answers compared with the clean run, 1 of them in part"]


# Commits


async def test_a_record_that_was_committed_past_without_a_delivery_was_skipped(
    run: SoundRun,
) -> None:
    run.records[IMAGES].insert(2, b"no image at all")
    run.events["one"] = [
        opened("worker", ONE, "w1"),
        Assigned(1.0, 1, [(IMAGES, 0, -1)]),
        Delivered(2.0, 1, [(IMAGES, 0, 0, 1), (IMAGES, 0, 3, 4)]),
        Done(3.0, 1, [(IMAGES, 0, 0, 1), (IMAGES, 0, 3, 4)]),
        Committed(4.0, [(IMAGES, 0, 5)]),
    ]
    run.commits[ONE, IMAGES] = 5

    finding = only(await run.verify(), "skipped offset", "images.archive[0]@2")
    assert "stands at 5; nobody was given it" in finding.detail


async def test_an_image_that_was_skipped_is_lost_too(run: SoundRun) -> None:
    run.records[IMAGES].insert(2, Image(Head(image_id="e"), Inline(b"e")))
    run.events["one"][2:4] = [
        Delivered(2.0, 1, [(IMAGES, 0, 0, 1), (IMAGES, 0, 3, 4)]),
        Done(3.0, 1, [(IMAGES, 0, 0, 1), (IMAGES, 0, 3, 4)]),
    ]
    run.events["one"][-1] = Committed(4.0, [(IMAGES, 0, 5)])
    run.commits[ONE, IMAGES] = 5

    report = await run.verify()

    assert report.anomalies == {"lost": 1, "skipped offset": 1}
    assert [(f.what, f.side) for f in report.findings] == [
        ("e", "worker"),
        ("images.archive[0]@2", None),
    ]


async def test_records_that_a_member_without_a_ledger_did_were_not_skipped(run: SoundRun) -> None:
    run.events["one"] = [
        opened("worker", ONE, "w1"),
        Assigned(1.0, 1, [(IMAGES, 0, -1)]),
        Delivered(2.0, 1, [(IMAGES, 0, 0, 1)]),
        Done(3.0, 1, [(IMAGES, 0, 0, 1)]),
        Committed(4.0, [(IMAGES, 0, 2)]),
    ]

    report = await run.verify()

    assert report.clean
    assert report.unchecked == [
        "roadstream.tier.one: 2 records were worked on by members without a ledger here"
    ]


async def test_ledgers_that_begin_later_say_nothing_about_what_was_before(run: SoundRun) -> None:
    run.events["one"] = [
        opened("worker", ONE, "w1"),
        Assigned(1.0, 1, [(IMAGES, 0, 3)]),
        Delivered(2.0, 1, [(IMAGES, 0, 3, 3)]),
        Done(3.0, 1, [(IMAGES, 0, 3, 3)]),
        Committed(4.0, [(IMAGES, 0, 4)]),
    ]

    assert (await run.verify()).clean


async def test_a_commit_past_work_that_is_not_done_is_ahead_of_it(run: SoundRun) -> None:
    run.events["one"][3] = Done(3.0, 1, [(IMAGES, 0, 0, 1), (IMAGES, 0, 3, 3)])

    finding = only(await run.verify(), "commit ahead of work", "images.archive[0]@4")
    assert finding.detail == "w1 (pid 1 on host) had not finished 2 (epoch 1)"


async def test_a_commit_past_what_was_delivered_is_ahead_of_work(run: SoundRun) -> None:
    run.events["one"][2:4] = [
        Delivered(2.0, 1, [(IMAGES, 0, 0, 1)]),
        Done(3.0, 1, [(IMAGES, 0, 0, 1)]),
    ]

    finding = only(await run.verify(), "commit ahead of work", "images.archive[0]@4")
    assert finding.detail == "w1 (pid 1 on host) was given nothing just before it"


async def test_a_group_past_the_end_of_its_partition_is_ahead_of_work(run: SoundRun) -> None:
    run.commits[ONE, IMAGES] = 7

    finding = only(await run.verify(ledgers=False), "commit ahead of work", "images.archive[0]@7")
    assert finding.detail == "roadstream.tier.one has committed 7; the partition ends at 4"


async def test_a_member_that_commits_less_than_before_moves_backwards(run: SoundRun) -> None:
    run.events["one"].append(Committed(5.0, [(IMAGES, 0, 3)]))

    finding = only(await run.verify(), "commit moved backwards", "images.archive[0]@3")
    assert finding.detail == "w1 (pid 1 on host) had committed 4"


async def test_a_group_that_stands_before_an_acknowledged_commit_moved_backwards(
    run: SoundRun,
) -> None:
    run.commits[ONE, IMAGES] = 4
    run.commits[CONSENSUS_GROUP, VOTES] = 1

    finding = only(await run.verify(), "commit moved backwards", "votes[0]@1")
    assert "stands at 1; the log had acknowledged 2 to c" in finding.detail


async def test_a_member_that_begins_before_an_earlier_commit_shows_that_it_moved_back(
    run: SoundRun,
) -> None:
    run.events["heir"] = retimed(
        [
            opened("worker", ONE, "w9"),
            Assigned(1.0, 1, [(IMAGES, 0, 1)]),
            Delivered(2.0, 1, [(IMAGES, 0, 1, 3)]),
            Done(3.0, 1, [(IMAGES, 0, 1, 3)]),
            Committed(4.0, [(IMAGES, 0, 4)]),
        ],
        10.0,
    )

    finding = only(await run.verify(), "commit moved backwards", "images.archive[0]@4")
    assert "later roadstream.tier.one stood at 1, where w9" in finding.detail


def zombie(commit_at: float) -> dict[str, list[Event]]:
    """Return the ledgers of a member and of its heir, which begins at offset 2 at 10 s."""
    return {
        "one": [
            opened("worker", ONE, "w1"),
            Assigned(1.0, 1, [(IMAGES, 0, -1)]),
            Delivered(2.0, 1, [(IMAGES, 0, 0, 3)]),
            Done(3.0, 1, [(IMAGES, 0, 0, 1)]),
            Committed(4.0, [(IMAGES, 0, 2)]),
            Done(5.0, 1, [(IMAGES, 0, 2, 2)]),
            Committed(commit_at, [(IMAGES, 0, 3)]),
        ],
        "heir": [
            opened("worker", ONE, "w2"),
            Assigned(10.0, 1, [(IMAGES, 0, 2)]),
            Delivered(11.0, 1, [(IMAGES, 0, 2, 3)]),
            Done(12.0, 1, [(IMAGES, 0, 2, 3)]),
            Committed(13.0, [(IMAGES, 0, 4)]),
        ],
    }


async def test_a_commit_by_a_member_that_was_replaced_is_of_a_stale_epoch(run: SoundRun) -> None:
    run.events |= zombie(commit_at=20.0)

    finding = only(await run.verify(), "stale-epoch commit", "images.archive[0]@3")
    assert "after w2 (pid 1 on host) had taken over at 2" in finding.detail


async def test_a_commit_that_a_stopped_member_heard_of_late_is_none_of_a_stale_epoch(
    run: SoundRun,
) -> None:
    """The log had acknowledged it before the heir began, which began behind it."""
    run.events |= zombie(commit_at=20.0)
    run.events["heir"][1] = Assigned(10.0, 1, [(IMAGES, 0, 3)])
    run.events["heir"][2] = Delivered(11.0, 1, [(IMAGES, 0, 3, 3)])
    run.events["heir"][3] = Done(12.0, 1, [(IMAGES, 0, 3, 3)])

    assert (await run.verify()).clean


async def test_a_commit_of_work_that_was_finished_after_the_revocation_is_stale(
    run: SoundRun,
) -> None:
    run.events["one"][3:] = [
        Done(3.0, 1, [(IMAGES, 0, 0, 1)]),
        Revoked(4.0, 1),
        Done(5.0, 1, [(IMAGES, 0, 2, 3)]),
        Committed(6.0, [(IMAGES, 0, 4)]),
    ]

    finding = only(await run.verify(), "stale-epoch commit", "images.archive[0]@4")
    assert "finished 2 after epoch 1 had been revoked" in finding.detail


async def test_a_commit_that_is_acknowledged_after_the_revocation_is_sound(run: SoundRun) -> None:
    """As Kafka commits: the coordinator waits for what was finished before."""
    run.events["one"].insert(-1, Revoked(3.5, 1))

    assert (await run.verify()).clean


async def test_a_commit_that_is_told_after_the_next_assignment_is_sound(run: SoundRun) -> None:
    run.events["one"].insert(-1, Assigned(3.5, 2, [(IMAGES, 0, 4)]))

    assert (await run.verify()).clean


async def test_a_commit_for_a_partition_that_was_never_assigned_is_stale(run: SoundRun) -> None:
    run.events["one"].append(Committed(5.0, [("images.live", 0, 1)]))

    only(await run.verify(), "stale-epoch commit", "images.live[0]@1")


async def test_what_a_killed_member_could_not_note_is_held_against_nobody(run: SoundRun) -> None:
    """It died between the log's acknowledgement and its own note of what was done."""
    run.events["one"] = run.events["one"][:3]
    run.events["heir"] = [opened("worker", ONE, "w2", 9.0), Assigned(10.0, 1, [(IMAGES, 0, 4)])]

    assert (await run.verify()).clean


async def test_hosts_whose_clocks_differ_a_little_are_not_compared(run: SoundRun) -> None:
    run.events |= zombie(commit_at=6.0)
    run.events["heir"] = [
        opened("worker", ONE, "w2", boot="another"),
        *retimed(run.events["heir"][1:], -6.0),
    ]

    assert (await run.verify()).clean


# Ledgers and topics that are not what they should be


async def test_the_torn_last_line_of_a_killed_process_is_no_damage(run: SoundRun) -> None:
    folder = run.folder / "ledgers"
    report = await run.verify()
    with (folder / "one.jsonl").open("ab") as file:
        file.write(b'{"event":"committed","at":5.0,"off')

    again = await verify(run.log, folder, run.cascade)

    assert report == again


async def test_a_ledger_that_is_damaged_is_read_up_to_there_and_named(run: SoundRun) -> None:
    await run.verify()
    folder = run.folder / "ledgers"
    with (folder / "one.jsonl").open("ab") as file:
        file.write(b"{}\n")

    report = await verify(run.log, folder, run.cascade)

    assert report.clean
    [said] = report.unchecked
    assert said.startswith("ledger one.jsonl: line 6: ")


async def test_a_group_without_ledgers_is_named(run: SoundRun) -> None:
    del run.events["two"]

    report = await run.verify()

    assert report.clean
    assert report.unchecked == ["no ledger of roadstream.tier.two: its commits"]


async def test_answers_that_cannot_be_read_are_counted(run: SoundRun) -> None:
    run.records[ANSWERS].append(b"junk")

    report = await run.verify()

    assert report.unchecked == ["1 answers and dead letters that cannot be read"]


async def test_images_older_than_the_oldest_answer_left_are_not_called_lost(run: SoundRun) -> None:
    report = await run.verify(trimmed=[(ANSWERS, 2), (IMAGES, 4), (VOTES, 2), (ESCALATED, 2)])

    assert report.clean
    assert "2 images older than the oldest answers that are left" in report.unchecked


async def test_a_folder_that_is_not_there_is_wrong_usage(run: SoundRun) -> None:
    await run.verify()
    with pytest.raises(UsageError, match="expected a folder of ledgers"):
        await verify(run.log, run.folder / "nowhere", run.cascade)


def test_every_anomaly_has_a_planted_test() -> None:
    source = Path(__file__).read_text()
    for kind in MEANINGS:
        assert f'"{kind}"' in source
