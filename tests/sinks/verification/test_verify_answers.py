"""``verify``: answers that are doubled, differ, or were never asked for."""

from pathlib import Path
from typing import Any

import msgspec

from roadstream.schemas.records.answer import Answer
from roadstream.schemas.records.events import Fenced, Revoked
from roadstream.schemas.topics import ANSWERS, CONSENSUS_GROUP, DEAD_LETTERS, VOTES
from roadstream.sinks.sink import open_writer
from tests.kits.builders import head
from tests.kits.sound_run import IMAGES, SoundRun, answer, retimed, worked
from tests.kits.verify_kit import letter, only, unchecked, without

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
    report = await run.verify(trimmed=[(IMAGES, 2)])

    assert report.clean
    assert report.explained == ["images.archive was trimmed: its oldest records are gone"]


async def test_where_images_were_trimmed_and_no_ledger_knows_them_nobody_is_cleared(
    run: SoundRun,
) -> None:
    """One that was never answered leaves no trace then."""
    without(run, "a")
    report = await run.verify(ledgers=False, trimmed=[(IMAGES, 2)])

    assert "images.archive was trimmed, and no ledger says what was sent" in unchecked(report)


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
    assert report.explained == [
        "3 answers compared with the clean run, 0 of them in part",
        "1 answers that the clean run has not",
    ]


async def test_a_clean_run_of_other_images_clears_nobody(run: SoundRun) -> None:
    report = await run.verify(baseline=clean_run(run, answer("z", "one")))

    assert unchecked(report) == "none of the 4 answers is in the clean run"


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
