"""Crash notes: an image that kills its process is found out, and its neighbours are answered."""

import errno
import os
import signal
import struct
import sys
import threading
import zlib
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import anyio
import anyio.lowlevel
import msgspec
import pytest
from anyio import to_thread
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from roadstream.schemas import codec
from roadstream.schemas.errors import OutputError
from roadstream.schemas.records.dead_letters import DeadLetter
from roadstream.schemas.records.votes import ImageVotes
from roadstream.schemas.topics import DEAD_LETTERS, VOTES, all_topics
from roadstream.stages.batching.batcher import QueueState
from roadstream.stages.batching.device_queue import SLOTS, SlotRequest
from roadstream.streams.embedded.log import EmbeddedLog
from roadstream.streams.log import Output, TopicPartition
from roadstream.workers.tier import crash_notes as notes_module
from roadstream.workers.tier.crash_notes import CrashNotes, _ranges
from roadstream.workers.tier.worker import ProcessParts, TierWorker
from tests.kits.crash_child import CASCADE, TOPIC
from tests.kits.examples import examples
from tests.kits.fake_engine import KILLER
from tests.kits.tier_bench import DEADLINE, Bench, image, running

ROOT = Path(__file__).parents[3]
A, B = TopicPartition("a", 0), TopicPartition("b", 3)


class Placed(NamedTuple):
    tp: TopicPartition
    offset: int


def at(tp: TopicPartition, *offsets: int) -> list[Placed]:
    return [Placed(tp, offset) for offset in offsets]


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return tmp_path / "run" / "state" / "w.suspects"


def died(notes: Path, *batches: list[Placed], alone: bool = False) -> None:
    """Leave the notes of a process that died while these batches ran."""
    suspects = CrashNotes(notes)
    with ExitStack() as running:
        for batch in batches:
            running.enter_context(suspects.running(batch, alone=alone))
        suspects.close()


def test_what_ran_when_the_process_died_is_suspected(notes: Path) -> None:
    died(notes, at(A, 3, 4, 5), at(B, 9))

    suspects = CrashNotes(notes)

    assert len(suspects) == 4
    for item in at(A, 3, 4, 5) + at(B, 9):
        found = suspects.of(item)
        assert found is not None
        assert (found.deaths, found.alone) == (1, 0)
    assert suspects.of(Placed(A, 6)) is None
    assert suspects.of(Placed(B, 3)) is None


def test_what_ended_before_is_not(notes: Path) -> None:
    suspects = CrashNotes(notes)
    with suspects.running(at(A, 1)):
        pass
    with pytest.raises(ValueError, match="no"), suspects.running(at(A, 2)):
        raise ValueError("no")
    suspects.close()

    assert len(CrashNotes(notes)) == 0


def test_deaths_are_counted_per_image(notes: Path) -> None:
    died(notes, at(A, 1, 2))
    died(notes, at(A, 1), alone=True)
    died(notes, at(A, 1), alone=True)

    suspects = CrashNotes(notes)

    killer, other = suspects.of(Placed(A, 1)), suspects.of(Placed(A, 2))
    assert killer is not None
    assert other is not None
    assert (killer.deaths, killer.alone) == (3, 2)
    assert (other.deaths, other.alone) == (1, 0)


def test_a_process_that_only_starts_and_ends_adds_no_death(notes: Path) -> None:
    died(notes, at(A, 1))
    for _ in range(3):
        CrashNotes(notes).close()

    found = CrashNotes(notes).of(Placed(A, 1))
    assert found is not None
    assert found.deaths == 1


def test_an_image_that_is_done_is_forgotten_for_good(notes: Path) -> None:
    died(notes, at(A, 1, 2))
    suspects = CrashNotes(notes)
    suspects.settle(at(A, 0, 1))
    suspects.close()

    suspects = CrashNotes(notes)
    assert suspects.of(Placed(A, 1)) is None
    assert suspects.of(Placed(A, 2)) is not None


def test_old_suspicions_are_forgotten(notes: Path) -> None:
    died(notes, at(A, 1))
    now = 1_000.0
    CrashNotes(notes, lambda: now).close()

    for later, left in ((86_399, 1), (86_400, 0)):
        suspects = CrashNotes(notes, lambda later=later: now + later)  # type: ignore[misc]
        assert len(suspects) == left
        suspects.close()
    assert not notes.stat().st_mode & 0o111


def test_a_torn_note_leaves_the_one_before(notes: Path) -> None:
    died(notes, at(A, 1))  # writes: start, batch noted
    found = bytearray(notes.read_bytes())
    places = [struct.unpack_from("<4sQ", found, place)[1] for place in (0, 1 << 18)]
    newest = places.index(max(places)) << 18
    found[newest + 20] ^= 1
    notes.write_bytes(found)

    assert len(CrashNotes(notes)) == 0


@pytest.mark.parametrize("content", [b"", b"x", b"RSS1" + bytes(100), os.urandom(1 << 19)])
def test_a_file_of_nonsense_suspects_nobody(notes: Path, content: bytes) -> None:
    notes.parent.mkdir(parents=True)
    notes.write_bytes(content)

    assert len(CrashNotes(notes)) == 0


def test_a_second_process_of_the_same_name_keeps_no_notes(notes: Path) -> None:
    first, second = CrashNotes(notes), CrashNotes(notes)
    with second.running(at(A, 1)), first.running(at(A, 2)):
        first.close()
        second.close()

    assert len(CrashNotes(notes)) == 1


def test_without_a_file_nothing_is_noted() -> None:
    suspects = CrashNotes()
    with suspects.running(at(A, 1)):
        assert suspects.noted == 0
    assert len(suspects) == 0


def test_a_file_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="file/w"):
        CrashNotes(tmp_path / "file" / "w")


def test_notes_that_do_not_fit_name_more_images_rather_than_fewer(notes: Path) -> None:
    died(notes, at(A, *range(0, 120_000, 4)))

    suspects = CrashNotes(notes)
    assert suspects.of(Placed(A, 4)) is not None or suspects.of(Placed(A, 119_996)) is not None
    assert notes.stat().st_size <= 1 << 19


@settings(deadline=None, max_examples=examples(100))
@given(st.lists(st.tuples(st.sampled_from([A, B]), st.integers(0, 30)), unique=True))
def test_ranges_name_exactly_the_images_of_a_batch(
    places: list[tuple[TopicPartition, int]],
) -> None:
    named = [
        (TopicPartition(topic, partition), offset)
        for topic, partition, first, last in _ranges([Placed(*place) for place in places])
        for offset in range(first, last + 1)
    ]
    assert sorted(named) == sorted(places)


async def fill(path: Path, levels: list[int]) -> None:
    async with EmbeddedLog(path) as log:
        await log.create_topics(all_topics(CASCADE.tier_names), 1)
        async with log.producer() as producer:
            outputs = [
                Output(TOPIC, b"k", codec.encode(image(f"{i}", level)), 0)
                for i, level in enumerate(levels)
            ]
            await producer.publish(outputs)


async def published(path: Path, topic: str) -> list[bytes]:
    found: list[bytes] = []
    async with EmbeddedLog(path) as log, log.reader(topic, "beginning") as reader:
        while any(reader.positions[p] < end for p, end in (await reader.ends()).items()):
            for records in (await reader.poll(max_records=1000, timeout=1)).values():
                found += [record.value or b"" for record in records]
    return found


async def test_an_image_that_kills_its_process_fails_and_its_neighbours_are_answered(
    tmp_path: Path, notes: Path
) -> None:
    path = tmp_path / "log.db"
    levels = [200, 100, KILLER, 150, 90, 80, 210, 40]
    await fill(path, levels)
    child = await anyio.run_process(
        [sys.executable, "-m", "tests.kits.crash_child", str(path), str(notes), "6"],
        cwd=ROOT,
        stderr=None,
    )
    lines = child.stdout.decode().splitlines()
    statuses = [int(line) for line in lines if line.lstrip("-").isdigit()]

    # Once in company, twice alone.
    assert statuses == [-signal.SIGKILL] * 3 + [0]
    said: dict[str, list[ImageVotes]] = {}
    for value in await published(path, VOTES):
        for one in codec.decode_votes(value).images:
            said.setdefault(one.head.image_id, []).append(one)
    assert set(said) == {f"{i}" for i in range(8)}
    (killer,) = said.pop("2")
    assert killer.error == "process_killed: 3 processes died while they judged it"
    assert (killer.raw, killer.next_tier) == ([None], None)
    # What was published and not committed when the process died is published again, the same.
    for name, votes in said.items():
        assert {vote.raw[0] for vote in votes} == {(levels[int(name)] - 128) / 16}
        assert not any(vote.error for vote in votes)
    (value,) = await published(path, DEAD_LETTERS)
    letter: DeadLetter = codec.decode_dead_letter(value)
    assert (letter.reason, letter.image_id, letter.attempts) == ("process_killed", "2", 3)
    assert letter.value == codec.encode(image("2", KILLER))
    assert (letter.topic, letter.partition, letter.offset) == (TOPIC, 0, 2)
    assert len(CrashNotes(notes)) == 0


async def test_suspects_run_one_by_one_with_nothing_beside_them(notes: Path) -> None:
    bench = Bench(CASCADE)
    await bench.create_topics()
    engine, judge = bench.engines["a"], bench.judge()
    engine.gate.clear()
    await bench.send(TOPIC, *[image(f"{i}", 100 + i) for i in range(8)])
    died(notes, at(TopicPartition(TOPIC, 0), 1, 2))
    suspects = CrashNotes(notes)
    around = ProcessParts(notes=suspects)
    worker = TierWorker(bench.log, judge, process=around)
    async with running(worker):
        assert await to_thread.run_sync(engine.reached.wait, DEADLINE)
        assert (worker.running, judge.devices.free("cpu"), engine.batches) == (1, 0, [[101]])
        engine.gate.set()
        assert set(await bench.said(8)) == {f"{i}" for i in range(8)}

    assert engine.batches[:2] == [[101], [102]]
    assert sorted(engine.batches[2:]) == [[100, 103, 104, 105], [106, 107]]
    assert (worker.stats.replayed, worker.stats.killers, len(suspects)) == (2, 0, 0)
    assert judge.devices.free("cpu") == SLOTS
    suspects.close()


async def test_suspects_whose_partitions_went_are_left_to_their_next_owner(notes: Path) -> None:
    bench = Bench(CASCADE)
    await bench.create_topics()
    await bench.send(TOPIC, *[image(f"{i}") for i in range(6)])
    died(notes, at(TopicPartition(TOPIC, 0), *range(6)))
    suspects, judge = CrashNotes(notes), bench.judge()
    worker = TierWorker(bench.log, judge, process=ProcessParts(notes=suspects))
    held = await judge.devices.acquire(SlotRequest(0, ("cpu",), QueueState, alone=True))
    async with running(worker):  # nothing can run
        with anyio.fail_after(DEADLINE):
            while not worker.member.in_flight:
                await anyio.lowlevel.checkpoint()
        await worker.give_up([TopicPartition(TOPIC, 0)])
    held.release()

    assert bench.engines["a"].batches == []
    assert len(suspects) == 6
    async with running(worker):
        await bench.packs(6)
    assert len(suspects) == 0
    assert judge.devices.free("cpu") == SLOTS
    suspects.close()


def test_notes_of_another_version_suspect_nobody_and_stop_nothing(notes: Path) -> None:
    first = CrashNotes(notes)
    with first.running(at(A, 1)):
        body = b"\x93\xc0\xc0\xc0"  # what a later version may write
        header = notes_module._HEADER.pack(b"RSS1", 99, len(body), zlib.crc32(body))
        os.pwrite(first._file or -1, header + body, 0)
        first.close()
    with capture_logs() as events:
        again = CrashNotes(notes)
    assert len(again) == 0
    assert [event["path"] for event in events if event["event"] == "suspects_unreadable"] == [
        str(notes)
    ]
    with again.running(at(A, 2)):
        pass
    again.close()
    assert len(CrashNotes(notes)) == 0


def test_notes_are_written_one_after_the_other_whatever_threads_write_them(
    notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    died(notes, at(B, 1))
    suspects, write = CrashNotes(notes), os.pwrite
    inside, second, most = 0, threading.Event(), 0

    def slow(descriptor: int, data: bytes, place: int) -> int:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        if inside > 1:
            second.set()
        second.wait(0.1)  # long enough for another thread to come in, if it may
        inside -= 1
        return write(descriptor, data, place)

    def run(offset: int) -> None:
        with suspects.running(at(A, offset)):
            suspects.settle(at(B, 1))

    monkeypatch.setattr(os, "pwrite", slow)
    threads = [threading.Thread(target=run, args=(offset,)) for offset in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    suspects.close()

    assert (most, suspects.noted) == (1, 3)
    assert len(CrashNotes(notes)) == 0


def test_only_one_process_of_a_name_is_told_from_the_others(notes: Path) -> None:
    first = CrashNotes(notes)
    with capture_logs() as events:
        second = CrashNotes(notes)
    assert [(one["event"], one["path"]) for one in events] == [("suspects_locked", str(notes))]
    with second.running(at(A, 1)):
        assert second.noted == 0
    first.close()
    first.close()
    with capture_logs() as events:
        third = CrashNotes(notes)
    assert events == []
    third.close()


def test_a_disk_that_takes_no_notes_ends_the_notes_and_nothing_else(
    notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suspects = CrashNotes(notes)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with capture_logs() as events, suspects.running(at(A, 1)):
            pass
    assert [(one["event"], one["reason"]) for one in events] == [
        ("suspects_lost", "No space left on device")
    ]
    with suspects.running(at(A, 2)):
        assert suspects.noted == 1
    suspects.close()
    assert len(CrashNotes(notes)) == 0


def test_notes_stand_as_they_are_documented(notes: Path) -> None:
    with CrashNotes(notes, lambda: 1_000.0).running(
        at(A, 3, 4, 7) + at(B, 8) + at(A, 9), alone=True
    ):
        places = [notes.read_bytes()[place:] for place in (0, 1 << 18)]
    headers = [struct.unpack_from("<4sQII", place) for place in places]
    magic, serial, length, checksum = max(headers, key=lambda header: header[1])
    body = places[headers.index((magic, serial, length, checksum))][20 : 20 + length]

    assert (magic, serial, zlib.crc32(body)) == (b"RSS1", 2, checksum)
    ranges = [["a", 0, 3, 4], ["a", 0, 7, 7], ["b", 3, 8, 8], ["a", 0, 9, 9]]
    assert msgspec.msgpack.decode(body) == [[[True, ranges]], []]
    assert sorted(header[1] for header in headers) == [1, 2]


def test_suspicion_lasts_from_the_last_death(notes: Path) -> None:
    died(notes, at(A, 1, 2))
    CrashNotes(notes, lambda: 0.0).close()
    CrashNotes(notes, lambda: 0.0).close()
    now = 0.0
    suspects = CrashNotes(notes, lambda: now)
    with suspects.running(at(A, 1)):
        suspects.close()
    now = 80_000.0
    CrashNotes(notes, lambda: now).close()

    later = CrashNotes(notes, lambda: 90_000.0)

    found = later.of(Placed(A, 1))
    assert found is not None
    assert (found.noted_at, found.deaths) == (80_000.0, 2)
    assert later.of(Placed(A, 2)) is None


def test_so_many_suspects_are_kept_and_the_oldest_are_forgotten(notes: Path) -> None:
    died(notes, at(A, 99_999))
    CrashNotes(notes).close()
    died(notes, at(A, *range(6_000)))

    suspects = CrashNotes(notes)

    assert len(suspects) == 4_096
    assert suspects.of(Placed(A, 99_999)) is None
    assert suspects.of(Placed(A, 0)) is None or suspects.of(Placed(A, 4_096)) is None


def test_batches_that_do_not_fit_are_noted_as_one_range_per_partition(notes: Path) -> None:
    suspects = CrashNotes(notes)
    far, near = at(A, *range(30_000, 0, -2)), at(B, *range(1, 9, 2))
    with ExitStack() as running:
        for items in (far, near, far + at(B, 20, 30)):
            running.enter_context(suspects.running(items))
        suspects.close()

    again = CrashNotes(notes)

    # Those between are suspected too; of the longest range, no more than so many.
    assert all(again.of(Placed(B, offset)) for offset in (1, 2, 7, 20, 25, 30))
    assert not any(again.of(Placed(B, offset)) for offset in (0, 8, 19, 31))
    assert all(again.of(Placed(A, offset)) for offset in (1_001, 4_098))
    assert not any(again.of(Placed(A, offset)) for offset in (1, 4_099, 30_001))
    again.close()
    assert len(CrashNotes(notes)) == 4_096


def test_notes_are_as_exact_as_their_place_allows(notes: Path) -> None:
    def noted(items: list[Placed]) -> list[object]:
        with CrashNotes(notes).running(items):
            found = notes.read_bytes()[: 1 << 18]  # the second note of a process lies in the first
        length = struct.unpack_from("<4sQI", found)[2]
        ((_, ranges),), _ = msgspec.msgpack.decode(found[20 : 20 + length])
        notes.unlink()
        return list(ranges)

    def batch(filler: int) -> list[Placed]:
        return [Placed(TopicPartition("x" * filler, 0), 1), *at(A, *range(0, 51_000, 2))]

    def size(items: list[Placed]) -> int:
        return len(msgspec.msgpack.encode([[[False, _ranges(items)]], []]))

    most = (1 << 18) - 20 - size(batch(2_000)) + 2_000
    fits, one_byte_more = batch(most), batch(most + 1)
    assert size(fits) == (1 << 18) - 20
    assert len(noted(fits)) == 25_501
    assert len(noted(one_byte_more)) == 2


def test_where_room_is_short_the_suspects_of_late_are_kept(notes: Path) -> None:
    died(notes, at(A, *range(3_000)))
    suspects = CrashNotes(notes)
    mixed = [Placed(TopicPartition("x", 0), 1), Placed(TopicPartition("y", 0), 1)] * 20_000
    with suspects.running(mixed):
        suspects.close()

    again = CrashNotes(notes)

    assert len(again) == 2_048 + 2
    assert again.of(Placed(A, 951)) is None
    assert again.of(Placed(A, 952)) is not None
