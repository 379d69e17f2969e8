"""The event ledger: what is written, what a kill or a full disk leaves, and reading it back."""

import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from roadstream.schemas import codec
from roadstream.schemas.errors import OutputError, RunError
from roadstream.schemas.records.events import Acknowledged, Closed, Committed, Event, Fenced, Opened
from roadstream.streams.ledgers.event_ledger import (
    EventLedger,
    LedgerFile,
    ledger_files,
    moment,
    ranges,
)
from roadstream.streams.log import TopicPartition


def read(folder: Path) -> list[Event]:
    [file] = ledger_files(folder)
    return list(file)


def test_a_ledger_says_who_wrote_it_and_that_it_ended(tmp_path: Path) -> None:
    ledger = EventLedger(tmp_path / "new" / "folder", "worker", "group/one", "member")
    ledger.write(Fenced(5.0, 3))
    ledger.close()
    ledger.close()

    opened, fenced, closed = read(tmp_path / "new")
    assert isinstance(opened, Opened)
    assert (opened.role, opened.group, opened.member) == ("worker", "group/one", "member")
    assert opened.pid == os.getpid()
    assert fenced == Fenced(5.0, 3)
    assert isinstance(closed, Closed)


def test_the_time_of_an_event_is_tied_to_the_hosts_monotonic_clock(tmp_path: Path) -> None:
    before = time.monotonic()
    ledger = EventLedger(tmp_path, "producer")
    ledger.close()
    after = time.monotonic()

    opened, closed = read(tmp_path)
    assert isinstance(opened, Opened)
    assert before <= opened.at - opened.clock <= closed.at - opened.clock <= after
    assert opened.boot == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert abs(moment() - time.time()) < 1.0


def test_without_a_folder_nothing_is_written(tmp_path: Path) -> None:
    ledger = EventLedger(None, "worker")
    ledger.write(Fenced(5.0, 3))
    ledger.acknowledged(["a"])
    ledger.close()

    assert not ledger.on
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_opens_twice_writes_two_files(tmp_path: Path) -> None:
    for _ in range(2):
        EventLedger(tmp_path, "worker", "g", "m").close()

    assert len(ledger_files(tmp_path)) == 2


def test_a_folder_that_cannot_be_made_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(OutputError, match=r"--ledger: .*file"):
        EventLedger(tmp_path / "file" / "ledgers", "worker")


def test_acknowledged_images_are_one_line(tmp_path: Path) -> None:
    ledger = EventLedger(tmp_path, "producer")
    ledger.acknowledged([])
    ledger.acknowledged(["a", "ü\n"])

    _, event = read(tmp_path)
    assert isinstance(event, Acknowledged)
    assert event.ids == ["a", "ü\n"]


def test_a_full_disk_ends_the_ledger_and_not_the_work(tmp_path: Path) -> None:
    """A file size limit stands for the disk: it also cuts the line in two."""
    ledger = EventLedger(tmp_path, "producer")
    [file] = ledger_files(tmp_path)
    before = file.path.stat().st_size
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before + 10, limits[1]))
        ledger.acknowledged(["a" * 100])
        assert not ledger.on
        ledger.acknowledged(["b"])
        ledger.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)

    [cut] = ledger_files(tmp_path)
    assert cut.path.stat().st_size == before + 10
    assert [type(event) for event in cut] == [Opened]
    assert cut.torn is None
    assert (file.cut, cut.cut) == (False, True)


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    line = codec.encode_json(Committed(1.0, [("t", 0, 5)]))
    path.write_bytes(line + b"\n" + line[:-4])

    file = LedgerFile(path)
    assert list(file) == [Committed(1.0, [("t", 0, 5)])]
    assert (file.torn, file.events) == (None, 1)


def written(folder: Path, count: int = 5) -> tuple[Path, list[bytes]]:
    """Return a ledger of so many lines, and the lines."""
    ledger = EventLedger(folder, "worker", "g", "m", log="here")
    for number in range(1, count - 1):
        ledger.write(Fenced(1.0, number))
    ledger.close()
    [file] = ledger_files(folder)
    return file.path, file.path.read_bytes().splitlines(keepends=True)


DAMAGES: dict[str, tuple[Callable[[list[bytes]], list[bytes]], list[int], str]] = {
    "overwritten": (
        lambda x: [*x[:2], b"\0" * len(x[2]), *x[3:]],
        [1],
        "line 3: it was changed",
    ),
    "no UTF-8": (
        lambda x: [*x[:2], b'{"event":"\xff\xfe"}\n', *x[3:]],
        [1, 3],
        "line 3: its number and checksum are missing",
    ),
    "nested too deeply": (
        lambda x: [*x[:2], b"[" * 100_000 + b"\n", *x[3:]],
        [1, 3],
        "line 3: its number and checksum are missing",
    ),
    "a digit changed": (
        lambda x: [*x[:2], x[2].replace(b'"epoch":2', b'"epoch":7'), *x[3:]],
        [1, 3],
        "line 3: it was changed: its checksum is another",
    ),
    "its number changed": (
        lambda x: [*x[:2], x[2].replace(b'"n":3', b'"n":4'), *x[3:]],
        [1, 3],
        "line 3: it was changed",
    ),
    "taken out": (
        lambda x: [*x[:2], *x[3:]],
        [1, 3],
        "line 3: 1 lines before it are missing",
    ),
    "written twice": (
        lambda x: [*x[:3], x[1], *x[3:]],
        [1, 2, 3],
        "line 4: line 2 stands here once more",
    ),
    "the first taken out": (
        lambda x: x[1:],
        [1, 2, 3],
        "line 1: 1 lines before it are missing",
    ),
    "two that became one": (
        lambda x: [*x[:2], x[2].rstrip(b"\n") + x[3], x[4]],
        [1],
        "line 3: it was changed",
    ),
}


@pytest.mark.parametrize("how", DAMAGES)
def test_a_line_that_was_changed_or_lost_is_known_and_those_around_it_are_read(
    tmp_path: Path, how: str
) -> None:
    path, lines = written(tmp_path)
    damage, left, said = DAMAGES[how]
    path.write_bytes(b"".join(damage(lines)))

    file = LedgerFile(path)
    assert [event.epoch for event in file if isinstance(event, Fenced)] == left
    assert (file.torn or "").startswith(said)
    assert file.damages > 0


def test_a_ledger_that_is_whole_has_no_damage(tmp_path: Path) -> None:
    path, lines = written(tmp_path)
    file = LedgerFile(path)

    assert len(list(file)) == len(lines)
    assert (file.torn, file.damages) == (None, 0)


def test_a_ledger_that_is_cut_anywhere_has_no_damage(tmp_path: Path) -> None:
    """As a kill leaves it, or a reader finds it while it is written."""
    path, lines = written(tmp_path)
    whole = b"".join(lines)
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        file = LedgerFile(path)
        assert len(list(file)) == whole[:end].count(b"\n")
        assert file.torn is None


def test_a_line_beyond_all_bounds_is_damage_and_takes_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("roadstream.streams.ledgers.event_ledger.LONGEST_LINE", 400)
    path, lines = written(tmp_path)
    path.write_bytes(b"".join([*lines[:2], b"x" * 5000 + b"\n", *lines[3:], b"y" * 5000]))

    file = LedgerFile(path)
    assert [event.epoch for event in file if isinstance(event, Fenced)] == [1, 3]
    assert file.damages == 1


def test_a_ledger_of_an_older_version_has_no_seals_and_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    line = codec.encode_json(Fenced(1.0, 1)) + b"\n"
    path.write_bytes(line + b'{"event":"unheard"}\n' + line)

    file = LedgerFile(path)
    assert list(file) == [Fenced(1.0, 1)] * 2
    assert (file.torn or "").startswith("line 2: ")
    assert file.damages == 1


def test_a_file_that_has_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"x.jsonl: cannot be read"):
        list(LedgerFile(tmp_path / "x.jsonl"))


def test_ranges_are_runs_without_gaps_whatever_the_order() -> None:
    found = ranges([(TopicPartition("t", 1), [7, 3, 4, 5, 9]), (TopicPartition("u", 0), [])])

    assert found == [("t", 1, 3, 5), ("t", 1, 7, 7), ("t", 1, 9, 9)]
