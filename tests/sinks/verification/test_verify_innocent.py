"""``verify``: what sound runs look like when much happens to them; nobody is accused."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from roadstream.schemas import codec
from roadstream.schemas.records.events import (
    Acknowledged,
    Assigned,
    Closed,
    Committed,
    Delivered,
    Done,
    Event,
    Missed,
    Opened,
    Revoked,
)
from roadstream.schemas.records.image import Head, Image, Inline
from roadstream.schemas.topics import ANSWERS, CONSENSUS_GROUP, VOTES
from roadstream.sinks.verification.run import verify
from roadstream.streams.ledgers.event_ledger import CUT
from roadstream.streams.log import TopicPartition
from tests.kits.builders import pack, votes
from tests.kits.sound_run import (
    CASCADE,
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
from tests.kits.verify_kit import lost, only, unchecked, without

ELSEWHERE = "another-log"


def strange(events: list[Event]) -> list[Event]:
    """Return a ledger as one of another log."""
    first, *rest = events
    assert isinstance(first, Opened)
    return [msgspec.structs.replace(first, log=ELSEWHERE), *rest]


# One process, several sessions


def rejoined() -> list[list[Event]]:
    """Return the ledgers of a member that left after an error of the log, and joined again."""
    first: list[Event] = [
        opened("worker", ONE, "w1"),
        Assigned(1.0, 1, [(IMAGES, 0, -1)]),
        Delivered(2.0, 1, [(IMAGES, 0, 0, 2)]),
        Done(3.0, 1, [(IMAGES, 0, 0, 1)]),
        Committed(4.0, [(IMAGES, 0, 2)]),
        Closed(4.5),
    ]
    second: list[Event] = [
        opened("worker", ONE, "w1", 5.0),
        Assigned(6.0, 3, [(IMAGES, 0, 2)]),
        Delivered(7.0, 3, [(IMAGES, 0, 2, 3)]),
        Done(8.0, 3, [(IMAGES, 0, 2, 3)]),
        Committed(9.0, [(IMAGES, 0, 4)]),
        Closed(9.5),
    ]
    return [first, second]


async def test_a_member_that_joins_again_after_an_error_is_sound(run: SoundRun) -> None:
    run.events["one"], run.events["one.k"] = rejoined()

    assert (await run.verify()).clean


async def test_the_epochs_of_two_sessions_may_be_counted_from_one_each(run: SoundRun) -> None:
    """As older versions did."""
    first, second = rejoined()
    run.events["one"] = first
    run.events["one.k"] = [
        msgspec.structs.replace(event, epoch=1)
        if isinstance(event, Assigned | Delivered | Done)
        else event
        for event in second
    ]

    assert (await run.verify()).clean


async def test_a_commit_that_older_versions_noted_in_the_next_session_is_the_earlier_ones(
    run: SoundRun,
) -> None:
    first, second = rejoined()
    run.events["one"] = [event for event in first if not isinstance(event, Committed)]
    run.events["one.k"] = [second[0], Committed(5.5, [(IMAGES, 0, 2)]), *second[1:]]

    assert (await run.verify()).clean


async def test_such_a_commit_is_compared_with_the_work_of_the_earlier_session(
    run: SoundRun,
) -> None:
    first, second = rejoined()
    run.events["one"] = [event for event in first if not isinstance(event, Committed)]
    run.events["one.k"] = [second[0], Committed(5.5, [(IMAGES, 0, 3)]), *second[1:]]
    run.events["one.k"][2] = Assigned(6.0, 3, [(IMAGES, 0, 3)])

    finding = only(await run.verify(), "commit ahead of work", "images.archive[0]@3")
    assert "had not finished 2" in finding.detail


async def test_another_process_under_the_same_name_and_number_is_another(run: SoundRun) -> None:
    """In containers every process is number 1, on one host since it was started."""
    first, second = rejoined()
    run.events["one"] = first[:4]  # killed before it could note the commit
    run.events["one.k"] = second

    assert (await run.verify()).clean


async def test_a_wall_clock_that_was_set_back_between_two_processes_matters_nothing(
    run: SoundRun,
) -> None:
    first, second = rejoined()
    set_back = retimed(second, -3600.0)
    set_back[0] = msgspec.structs.replace(set_back[0], clock=-3600.0)
    run.events["one"], run.events["one.k"] = first, set_back

    assert (await run.verify()).clean


async def test_partitions_that_were_added_begin_at_the_beginning(run: SoundRun) -> None:
    run.events["one"] += [
        Revoked(5.0, 1),
        Assigned(6.0, 2, [(IMAGES, 0, 4), (IMAGES, 1, -1)]),
        Closed(7.0),
    ]

    assert (await run.verify()).clean


async def test_a_group_that_retention_has_overtaken_may_commit_where_it_goes_on(
    run: SoundRun,
) -> None:
    """On Kafka it does so at once, or the next owner would be told of the gap again."""
    run.records[IMAGES].insert(0, Image(Head(image_id="a"), Inline(b"a")))
    run.records[IMAGES].insert(0, Image(Head(image_id="a"), Inline(b"a")))
    run.events["one"] = [
        opened("worker", ONE, "w1"),
        Assigned(1.0, 1, [(IMAGES, 0, 0)]),
        Missed(1.5, IMAGES, 0, 0, 2),
        Committed(1.6, [(IMAGES, 0, 2)]),
        Delivered(2.0, 1, [(IMAGES, 0, 2, 5)]),
        Done(3.0, 1, [(IMAGES, 0, 2, 5)]),
        Committed(4.0, [(IMAGES, 0, 6)]),
    ]
    run.commits[ONE, IMAGES] = 6

    report = await run.verify(trimmed=[(IMAGES, 2)])

    assert "retention took 2 records of images.archive" in unchecked(report)


# Several logs and cascades, one folder


async def test_ledgers_of_another_log_are_left_out_and_named(run: SoundRun) -> None:
    """A folder that was used before, by a log that is gone; its offsets were higher."""
    run.events["old-producer"] = strange(
        [opened("producer", "", ""), Acknowledged(1.0, ["gone", "with", "it"])]
    )
    for name, group, topic in (("one", ONE, IMAGES), ("c", CONSENSUS_GROUP, VOTES)):
        run.events[f"old-{name}"] = strange(worked("worker", group, "w0", topic, 900))

    report = await run.verify()

    assert report.clean
    assert report.ledgers == 4
    assert report.explained == ["3 ledgers of another log were left out (another-log)"]


async def test_ledgers_of_another_log_alone_are_none(run: SoundRun) -> None:
    run.events = {name: strange(events) for name, events in run.events.items()}

    assert unchecked(await run.verify()) == (
        "no ledgers of this log: commits, and acknowledged images that were never kept"
    )


async def test_groups_of_another_cascade_are_left_out_and_named(run: SoundRun) -> None:
    run.events["other"] = worked("worker", "roadstream.tier.three", "w3", "tier.three.live", 50)

    report = await run.verify()

    assert report.clean
    assert report.explained == [
        "ledgers of roadstream.tier.three were left out: no group of this cascade"
    ]


async def test_topics_that_a_group_of_the_same_name_has_in_another_cascade_are_left_out(
    run: SoundRun,
) -> None:
    """There tier two is the first one, and reads new images."""
    run.events["other"] = worked("worker", TWO, "w3", "images.live", 50)

    report = await run.verify()

    assert report.clean
    assert report.explained == [
        "roadstream.tier.two has images.live in ledgers of another cascade: left out"
    ]


async def test_ledgers_that_name_no_log_are_used_and_that_is_said(run: SoundRun) -> None:
    await run.verify()
    folder = run.folder / "ledgers"
    old = [codec.encode_json(event) + b"\n" for event in run.events["one"]]
    (folder / "one.jsonl").write_bytes(b"".join(old))

    report = await verify(run.log, folder, CASCADE)

    assert report.clean
    assert report.explained == [
        "1 ledgers do not say of which log they are, and were taken for this one's"
    ]


# Ledgers that are short, and offsets that begin anew


@pytest.mark.parametrize("content", [b"", b'{"event":"ope', b"\0" * 512])
async def test_a_ledger_without_a_whole_line_is_none(run: SoundRun, content: bytes) -> None:
    await run.verify()
    (run.folder / "ledgers" / "empty.jsonl").write_bytes(content)

    assert (await verify(run.log, run.folder / "ledgers", CASCADE)).clean


async def test_a_member_that_did_nothing_is_sound(run: SoundRun) -> None:
    run.events["idle"] = [opened("worker", ONE, "w9"), Closed(1.0)]
    run.events["killed at once"] = [opened("worker", TWO, "w9")]

    assert (await run.verify()).clean


async def test_a_group_whose_offsets_are_gone_moved_nothing_backwards(run: SoundRun) -> None:
    """It was deleted, or its offsets have expired."""
    del run.commits[CONSENSUS_GROUP, VOTES]

    assert "roadstream.consensus has no committed offsets on votes any more" in unchecked(
        await run.verify()
    )


async def test_a_member_that_begins_anew_after_its_group_was_deleted_moved_nothing_backwards(
    run: SoundRun,
) -> None:
    run.events["later"] = retimed(worked("worker", ONE, "w9", IMAGES, 4), 50.0)

    assert "has no committed offsets on images.archive any more" in unchecked(await run.verify())


def after_a_power_cut(run: SoundRun) -> None:
    """Let the host have been started anew since a member had done and committed it all."""
    run.kind = "embedded"
    run.events["before"] = worked("worker", ONE, "w1", IMAGES, 4)
    first, *later = retimed(worked("worker", ONE, "w1", IMAGES, 4), 50.0)
    assert isinstance(first, Opened)
    run.events["one"] = [msgspec.structs.replace(first, boot="another"), *later]
    run.events["one"][1] = Assigned(51.0, 1, [(IMAGES, 0, 2)])
    run.events["one"][2] = Delivered(52.0, 1, [(IMAGES, 0, 2, 3)])
    run.events["one"][3] = Done(53.0, 1, [(IMAGES, 0, 2, 3)])


async def test_a_power_cut_may_take_the_last_commits_of_an_embedded_log(run: SoundRun) -> None:
    after_a_power_cut(run)

    report = await run.verify()

    assert report.clean, report
    [said] = report.explained
    assert "stood further on images.archive before the host was started anew" in said


async def test_a_power_cut_takes_no_commits_of_other_logs(run: SoundRun) -> None:
    after_a_power_cut(run)
    run.kind = ""

    only(await run.verify(), "commit moved backwards", "images.archive[0]@4")


async def test_a_group_that_has_not_come_as_far_again_is_not_cleared(run: SoundRun) -> None:
    after_a_power_cut(run)
    del run.events["one"]
    run.commits[ONE, IMAGES] = 2

    assert "and has not come as far again" in unchecked(await run.verify())


def made_anew(run: SoundRun) -> None:
    """Let ``images.archive`` have been deleted when 900 records of it were done, and made again."""
    run.events["before"] = worked("worker", ONE, "w0", IMAGES, 900)
    run.events["one"] = retimed(run.events["one"], 50.0)
    run.clock.advance(40.0)


async def test_a_topic_that_was_made_anew_begins_at_the_beginning(run: SoundRun) -> None:
    made_anew(run)
    run.events["producer"].append(Acknowledged(2.0, ["x", "y"]))
    # A group keeps its offsets for a while; here it had done less before than afterwards.
    report = await run.verify()

    assert report.verdict == "unchecked", report.findings
    assert "what was on images.archive before that was made anew" in report.unchecked
    assert "2 acknowledged images that are on no topic since it was made anew" in report.unchecked


async def test_a_topic_that_has_only_lost_its_end_was_not_made_anew(run: SoundRun) -> None:
    """The broker is to blame: its older records are still there."""
    run.records[VOTES].pop()
    run.commits[CONSENSUS_GROUP, VOTES] = 1

    finding = only(await run.verify(), "commit moved backwards", "votes[0]@1")
    assert "stands at 1; the log had acknowledged 2 to c" in finding.detail


# Ledgers that are damaged


def cut_line(path: Path, number: int) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:number] + lines[number + 1 :]))


def overwrite_line(path: Path, number: int) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    lines[number] = b"\xff" * (len(lines[number]) - 1) + b"\n"
    path.write_bytes(b"".join(lines))


@pytest.mark.parametrize("damage", [cut_line, overwrite_line])
async def test_no_line_that_is_missing_accuses_or_clears_anybody(
    run: SoundRun, damage: Callable[[Path, int], None]
) -> None:
    first, second = rejoined()
    run.events["one"] = [*first[:-1], Revoked(4.2, 1), *second[1:]]
    assert (await run.verify()).clean
    folder = run.folder / "ledgers"
    for path in sorted(folder.glob("*.jsonl")):
        whole = path.read_bytes()
        lines = whole.count(b"\n")
        # Nobody can tell a last line that was taken out from one that was never written.
        for number in range(lines if damage is overwrite_line else lines - 1):
            damage(path, number)
            report = await verify(run.log, folder, CASCADE)
            assert report.verdict == "unchecked", (path.name, number, report)
            assert any(path.name in line for line in report.unchecked)
        path.write_bytes(whole)


async def test_a_damage_does_not_hide_an_image_that_was_lost(run: SoundRun) -> None:
    without(run, "a")
    await run.verify()
    folder = run.folder / "ledgers"
    overwrite_line(folder / "producer.jsonl", 1)

    report = await verify(run.log, folder, CASCADE)

    assert "a" in [finding.what for finding in report.findings]
    assert report.anomalies == {"lost": 1}


async def test_who_lost_an_image_is_not_told_by_a_ledger_that_is_damaged(run: SoundRun) -> None:
    """Its votes may have been acknowledged: the line that would say so is gone."""
    run.records[VOTES].pop()
    run.commits[CONSENSUS_GROUP, VOTES] = 0
    run.events["consensus"] = worked("consensus", CONSENSUS_GROUP, "c", VOTES, 1)[:3]
    run.records[ANSWERS] = [answer("a", "one"), answer("b", "one"), answer("c", "one", "two")]
    await run.verify()
    folder = run.folder / "ledgers"
    overwrite_line(folder / "two.jsonl", 3)

    assert "without votes" in lost(await verify(run.log, folder, CASCADE), "d", "unknown")


async def test_an_acknowledgement_that_cannot_be_read_clears_nobody(run: SoundRun) -> None:
    """The one image that the log never kept stands in the line that is gone."""
    run.events["producer"] += [Acknowledged(2.0, ["never kept"]), Acknowledged(3.0, ["a"])]
    await run.verify()
    folder = run.folder / "ledgers"
    overwrite_line(folder / "producer.jsonl", 2)

    said = unchecked(await verify(run.log, folder, CASCADE))
    assert said.startswith("a part of ledger producer.jsonl: line 3: ")


async def test_a_ledger_that_its_process_could_not_go_on_writing_clears_nobody(
    run: SoundRun,
) -> None:
    await run.verify()
    folder = run.folder / "ledgers"
    (folder / "producer.jsonl").rename(folder / f"producer{CUT}")

    assert f"ledger producer{CUT}: its process went on" in unchecked(
        await verify(run.log, folder, CASCADE)
    )


async def test_a_ledger_that_cannot_be_opened_clears_nobody(run: SoundRun) -> None:
    await run.verify()
    (run.folder / "ledgers" / "folder.jsonl").mkdir()

    assert "folder.jsonl: cannot be read" in unchecked(
        await verify(run.log, run.folder / "ledgers", CASCADE)
    )


# Producers and members without a ledger


async def test_images_of_a_producer_without_a_ledger_clear_nobody(run: SoundRun) -> None:
    run.events["producer"][1:] = [Acknowledged(1.0, ["a", "b"]), Closed(2.0)]

    assert "2 images were sent by a producer without a ledger" in unchecked(await run.verify())


async def test_a_producer_that_was_killed_may_have_noted_less_than_it_sent(run: SoundRun) -> None:
    run.events["producer"][1:] = [Acknowledged(1.0, ["a", "b"])]

    assert (await run.verify()).clean


async def test_a_ledger_that_lacks_more_than_a_kill_explains_clears_nobody(run: SoundRun) -> None:
    """As one that was cut off where a line ends."""
    many = [f"more-{i}" for i in range(300)]
    run.records[IMAGES] += [Image(Head(image_id=name), Inline(b"")) for name in many]
    run.records[VOTES].append(pack("one", *(votes(name) for name in many)))
    run.records[ANSWERS] += [answer(name, "one") for name in many]
    run.events["one"] = worked("worker", ONE, "w1", IMAGES, 304)
    run.events["consensus"] = worked("consensus", CONSENSUS_GROUP, "c", VOTES, 3)
    run.commits = {(ONE, IMAGES): 304, (TWO, ESCALATED): 2, (CONSENSUS_GROUP, VOTES): 3}

    assert "300 images were sent by a producer without a ledger" in unchecked(await run.verify())


async def test_no_ledger_of_any_producer_clears_nobody(run: SoundRun) -> None:
    del run.events["producer"]

    assert "no ledger of a producer" in unchecked(await run.verify())


async def test_an_empty_folder_clears_nobody(run: SoundRun) -> None:
    run.events = {}

    assert "no ledgers of this log" in unchecked(await run.verify())


async def test_groups_that_have_committed_nothing_need_no_ledger(tmp_path: Path) -> None:
    """All images left at the first tier."""
    run = SoundRun(tmp_path)
    run.records[IMAGES] = run.records[IMAGES][:2]
    run.records[ESCALATED], run.records[VOTES][1:] = [], []
    run.records[ANSWERS] = run.records[ANSWERS][:2]
    run.events = {
        "producer": [opened("producer", "", ""), Acknowledged(1.0, ["a", "b"])],
        "one": worked("worker", ONE, "w1", IMAGES, 2),
        "consensus": worked("consensus", CONSENSUS_GROUP, "c", VOTES, 1),
    }
    run.commits = {(ONE, IMAGES): 2, (CONSENSUS_GROUP, VOTES): 1}

    report = await run.verify()

    assert report.clean
    assert TopicPartition(ESCALATED, 0) not in await run.log.committed(TWO, [ESCALATED])
