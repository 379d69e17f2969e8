"""``roadstream score`` after a power cut that put its log back to an older state."""

import contextlib
import os
import signal
import sqlite3
from pathlib import Path

import anyio

from roadstream.schemas.topics import ANSWERS
from roadstream.workers.service.access.connect import open_log
from tests.kits.command import roadstream, started, write_cascade, write_pictures
from tests.workers.commands.test_command_score import answers, wait_for_answers

PICTURES = 3000


def copied(log: Path, to: Path) -> None:
    """Copy a log in use as it is at one moment, as a disk may hold it after a power cut."""
    with (
        contextlib.closing(sqlite3.connect(log, timeout=30)) as source,
        contextlib.closing(sqlite3.connect(to)) as target,
    ):
        source.backup(target)


def put_back(older: Path, log: Path) -> None:
    for suffix in ("-wal", "-shm"):
        log.with_name(log.name + suffix).unlink(missing_ok=True)
    older.replace(log)


async def answers_on(log: Path) -> int:
    async with open_log(f"embedded:{log}") as opened, opened.reader(ANSWERS, "end") as reader:
        return sum(reader.positions.values())


def test_score_goes_on_from_a_log_that_was_put_back(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", PICTURES)
    out, older = tmp_path / "a.jsonl", tmp_path / "older.db"
    log = tmp_path / "a.jsonl.roadstream" / "log.db"
    command = ("score", "in", "--cascade", write_cascade(tmp_path), "--out", out.name)
    process = started(*command, folder=tmp_path)
    wait_for_answers(process, out, 100)
    copied(log, older)
    wait_for_answers(process, out, anyio.run(answers_on, older) + 1)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    put_back(older, log)

    done = roadstream(*command, folder=tmp_path)

    assert done.returncode == 0, done.stderr
    assert "the log was put back to an older state" in done.stderr
    rows = answers(out)
    assert len(rows) == len({row["image_id"] for row in rows}) == PICTURES


def test_score_sends_again_what_the_log_lost_before_anything_was_answered(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", PICTURES)
    out, older = tmp_path / "a.jsonl", tmp_path / "older.db"
    log = tmp_path / "a.jsonl.roadstream" / "log.db"
    command = ("score", "in", "--cascade", write_cascade(tmp_path), "--out", out.name)
    assert roadstream("topics", "create", "--cascade", "noop.toml", "--log", f"embedded:{log}",
                      "--partitions", "16", folder=tmp_path).returncode == 0  # fmt: skip
    copied(log, older)
    process = started(*command, folder=tmp_path)
    wait_for_answers(process, out, 100)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    put_back(older, log)
    ledger = sqlite3.connect(log.with_name("ledger.db"))
    ledger.executescript("DELETE FROM positions; UPDATE images SET answer=NULL, status=NULL;")
    ledger.close()

    done = roadstream(*command, folder=tmp_path)

    assert done.returncode == 0, done.stderr
    assert len(answers(out)) == PICTURES
