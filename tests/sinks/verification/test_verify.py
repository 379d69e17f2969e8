"""``verify``: a sound run is clean, and what could not be checked is said; see ``verify_kit``."""

from pathlib import Path

import pytest

from roadstream.schemas.errors import UsageError
from roadstream.schemas.topics import ANSWERS, VOTES
from roadstream.sinks.verification.findings import MEANINGS
from roadstream.sinks.verification.run import verify
from tests.kits.sound_run import ESCALATED, IMAGES, SoundRun
from tests.kits.verify_kit import unchecked

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
    [said] = report.explained
    assert said.startswith("without --ledger only the topics were compared: not commits, ")


# Ledgers and topics that are not what they should be


async def test_the_torn_last_line_of_a_killed_process_is_no_damage(run: SoundRun) -> None:
    folder = run.folder / "ledgers"
    report = await run.verify()
    with (folder / "one.jsonl").open("ab") as file:
        file.write(b'{"event":"committed","at":5.0,"off')

    again = await verify(run.log, folder, run.cascade)

    assert report == again


async def test_a_ledger_that_is_damaged_clears_nobody_and_is_named(run: SoundRun) -> None:
    await run.verify()
    folder = run.folder / "ledgers"
    with (folder / "one.jsonl").open("ab") as file:
        file.write(b"{}\n")

    report = unchecked(await verify(run.log, folder, run.cascade))

    assert report.startswith("a part of ledger one.jsonl: line 6: ")


async def test_a_group_without_ledgers_is_named(run: SoundRun) -> None:
    del run.events["two"]

    assert unchecked(await run.verify()) == "no ledger of roadstream.tier.two: its commits"


async def test_answers_that_cannot_be_read_are_counted(run: SoundRun) -> None:
    run.records[ANSWERS].append(b"junk")

    report = await run.verify()

    assert unchecked(report) == "1 answers and dead letters that cannot be read"


async def test_images_older_than_the_oldest_answer_left_are_not_called_lost(run: SoundRun) -> None:
    report = await run.verify(trimmed=[(ANSWERS, 2), (IMAGES, 4), (VOTES, 2), (ESCALATED, 2)])

    assert unchecked(report) == "2 images older than the oldest answers that are left"


async def test_a_folder_that_is_not_there_is_wrong_usage(run: SoundRun) -> None:
    await run.verify()
    with pytest.raises(UsageError, match="expected a folder of ledgers"):
        await verify(run.log, run.folder / "nowhere", run.cascade)


def test_every_anomaly_has_a_planted_test() -> None:
    modules = Path(__file__).parent.glob("test_verify*.py")
    source = "".join(module.read_text() for module in modules)
    for kind in MEANINGS:
        assert f'"{kind}"' in source
