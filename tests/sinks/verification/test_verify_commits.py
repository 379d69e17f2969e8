"""``verify``: commits that no sound member makes."""

from roadstream.schemas.records.events import Assigned, Committed, Delivered, Done, Event, Revoked
from roadstream.schemas.records.image import Head, Image, Inline
from roadstream.schemas.topics import CONSENSUS_GROUP, VOTES
from tests.kits.sound_run import IMAGES, ONE, SoundRun, opened, retimed
from tests.kits.verify_kit import only, unchecked


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

    assert unchecked(await run.verify()) == (
        "roadstream.tier.one: 2 records were worked on by members without a ledger here"
    )


async def test_ledgers_that_begin_later_say_nothing_about_what_was_before(run: SoundRun) -> None:
    ledgers_begin_later(run)

    assert unchecked(await run.verify()) == (
        "roadstream.tier.one: 3 records were worked on by members without a ledger here"
    )


async def test_ledgers_that_begin_with_the_oldest_record_that_is_left_say_it_all(
    run: SoundRun,
) -> None:
    ledgers_begin_later(run)

    assert (await run.verify(trimmed=[(IMAGES, 3)])).clean


def ledgers_begin_later(run: SoundRun) -> None:
    run.events["one"] = [
        opened("worker", ONE, "w1"),
        Assigned(1.0, 1, [(IMAGES, 0, 3)]),
        Delivered(2.0, 1, [(IMAGES, 0, 3, 3)]),
        Done(3.0, 1, [(IMAGES, 0, 3, 3)]),
        Committed(4.0, [(IMAGES, 0, 4)]),
    ]


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
