"""How real processes end: in time, whatever hangs, and with a word about what hung."""

import contextlib
import signal
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from roadstream.schemas import codec
from roadstream.schemas.records.image import Head, Image, Inline
from roadstream.schemas.topics import all_topics, images
from roadstream.streams.embedded.log import EmbeddedLog
from roadstream.streams.log import Output
from roadstream.workers.service import lifecycle
from roadstream.workers.service.lifecycle import Deadline, Heartbeat, drain_within
from tests.kits.command import ROADSTREAM, write_cascade

TIERS = ["first", "second"]
STUCK = Path(__file__).parents[2] / "kits" / "stuck_child.py"
# What hangs here hangs for ever, so this bounds a failure only, however slow the host is.
BOUND = 100.0


async def prepared(folder: Path, pictures: int) -> Path:
    """Return an embedded log with the cascade's topics and some images."""
    path = folder / "log.db"
    async with EmbeddedLog(path) as log:
        await log.create_topics(all_topics(TIERS), 2)
        async with log.producer() as producer:
            await producer.publish(
                [
                    Output(
                        images("archive"),
                        None,
                        codec.encode(Image(Head(image_id=str(i), uri=f"{i}.jpg"), Inline(b"x"))),
                        i % 2,
                    )
                    for i in range(pictures)
                ]
            )
    return path


def spawn(*arguments: str | Path, folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_line(process: "subprocess.Popen[str]", text: str) -> None:
    """Read the process's lines up to one with ``text``."""
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return
    raise AssertionError(f"ended without saying {text!r}")


@pytest.mark.parametrize(
    ("how", "budget", "last_words"),
    [("waits", "1.0", "ended_by_force"), ("computes", "3.0", "Timeout (0:00:05")],
)
async def test_a_model_that_hangs_does_not_keep_its_process(
    how: str, budget: str, last_words: str, tmp_path: Path
) -> None:
    log = await prepared(tmp_path, 4)
    cascade = tmp_path / write_cascade(tmp_path)
    process = spawn(STUCK, how, log, cascade, budget, folder=tmp_path)
    try:
        await anyio.to_thread.run_sync(wait_for_line, process, "stuck")
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=BOUND)
    finally:
        process.kill()
    assert process.returncode == 1
    assert "stopping" in said
    assert last_words in said


async def test_a_process_ends_in_time_while_another_holds_the_lock_of_its_log(
    tmp_path: Path,
) -> None:
    log = await prepared(tmp_path, 0)
    cascade = tmp_path / write_cascade(tmp_path)
    process = spawn(
        ROADSTREAM, "consensus", "--log", f"embedded:{log}", "--cascade", cascade,
        "--drain-timeout", "5.5", folder=tmp_path,
    )  # fmt: skip
    holder = sqlite3.connect(log, isolation_level=None)
    try:
        await anyio.to_thread.run_sync(wait_for_line, process, '"assigned"')
        holder.execute("BEGIN IMMEDIATE")
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=BOUND)
    finally:
        holder.close()
        process.kill()
    assert "stopping" in said
    assert "expected the file's lock within" not in said  # SQLite's own patience is far longer


async def test_a_second_signal_ends_a_process_at_once(tmp_path: Path) -> None:
    log = await prepared(tmp_path, 4)
    cascade = tmp_path / write_cascade(tmp_path)
    process = spawn(STUCK, "waits", log, cascade, "60", folder=tmp_path)
    try:
        await anyio.to_thread.run_sync(wait_for_line, process, "stuck")
        process.send_signal(signal.SIGTERM)
        await anyio.to_thread.run_sync(wait_for_line, process, "stopping")
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=BOUND)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM
    assert "ended_at_once" in said


async def test_work_that_ends_in_time_is_not_cut_short() -> None:
    stopping, ended = anyio.Event(), anyio.Event()
    deadline = Deadline(3600)
    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as work:
            tasks.start_soon(drain_within, deadline, stopping, work)
            stopping.set()
            await anyio.lowlevel.checkpoint()
            ended.set()
        tasks.cancel_scope.cancel()
    deadline.take_back()
    assert ended.is_set()
    assert not work.cancelled_caught


async def test_work_that_outlasts_its_time_is_cut_short_so_that_it_can_leave() -> None:
    stopping = anyio.Event()
    deadline = Deadline(5.0)  # all of it is kept for leaving
    left = False
    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as work:
            tasks.start_soon(drain_within, deadline, stopping, work)
            stopping.set()
            try:
                await anyio.sleep_forever()
            finally:
                left = True
        tasks.cancel_scope.cancel()
    deadline.take_back()
    assert work.cancelled_caught
    assert left


def test_a_heart_beats_into_its_file_and_to_its_supervisor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, contextlib.ExitStack() as stack:
        monkeypatch.setenv("ROADSTREAM_SUPERVISED", "service")
        monkeypatch.setattr(lifecycle, "STANDARD_INPUT", theirs.fileno())
        beat = stack.enter_context(contextlib.closing(Heartbeat(tmp_path / "alive")))
        assert not (tmp_path / "alive").exists()
        beat(False)
        beat(True)
        assert ours.recv(10) == b".+"
        assert (tmp_path / "alive").exists()
        for _ in range(5_000):  # a supervisor that stands still never reads
            beat(True)


def test_a_heart_beats_on_where_its_file_cannot_be() -> None:
    Heartbeat(Path("/proc/no/such/file"))(True)
