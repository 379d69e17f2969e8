"""The event ledger: what is written, what a kill or a full disk leaves, and reading it back."""

import os
import resource
import signal
import time
from pathlib import Path

import pytest

from schemas import codec
from schemas.errors import OutputError, RunError
from schemas.events import Acknowledged, Closed, Committed, Event, Fenced, Opened
from streams.event_ledger import EventLedger, LedgerFile, ledger_files, moment, ranges
from streams.log import TopicPartition


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

    assert file.path.stat().st_size == before + 10
    assert [type(event) for event in file] == [Opened]
    assert file.torn is None


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    line = codec.encode_json(Committed(1.0, [("t", 0, 5)]))
    path.write_bytes(line + b"\n" + line[:-4])

    file = LedgerFile(path)
    assert list(file) == [Committed(1.0, [("t", 0, 5)])]
    assert (file.torn, file.events) == (None, 1)


def test_reading_ends_at_a_line_that_is_no_event_and_says_where(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    line = codec.encode_json(Fenced(1.0, 1)) + b"\n"
    path.write_bytes(line + b'{"event":"unheard"}\n' + line)

    file = LedgerFile(path)
    assert list(file) == [Fenced(1.0, 1)]
    assert (file.torn or "").startswith("line 2: ")


def test_a_file_that_has_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"x.jsonl: cannot be read"):
        list(LedgerFile(tmp_path / "x.jsonl"))


def test_ranges_are_runs_without_gaps_whatever_the_order() -> None:
    found = ranges([(TopicPartition("t", 1), [7, 3, 4, 5, 9]), (TopicPartition("u", 0), [])])

    assert found == [("t", 1, 3, 5), ("t", 1, 7, 7), ("t", 1, 9, 9)]
