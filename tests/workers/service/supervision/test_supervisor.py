"""The supervisor with real children: restarts, reasons, and an end within its budget."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from roadstream.schemas.errors import RunError, UsageError
from roadstream.schemas.topics import all_topics
from roadstream.streams.embedded.log import EmbeddedLog
from roadstream.workers.service.supervision.supervisor import (
    LAST_WORDS,
    LONGEST_LINE,
    Child,
    ChildSpec,
    Supervisor,
    SupervisorOptions,
)

DEADLINE = 60.0
CASCADE = """
name = "noop"
[[tiers]]
name = "one"
members = [{ name = "m", engine = "noop" }]
"""


class Lines:
    """What children said, and a way to wait until one of them says something."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._more = anyio.Event()

    def __call__(self, child: str, pid: int | None, line: str) -> None:
        self.lines.append(line)
        self._more.set()
        self._more = anyio.Event()

    async def wait(self, text: str, times: int = 1) -> None:
        with anyio.fail_after(DEADLINE):
            while sum(text in line for line in self.lines) < times:
                await self._more.wait()


async def consensus(folder: Path, name: str = "consensus") -> ChildSpec:
    """Return a child that runs until it is stopped, with the log and cascade it needs."""
    (folder / "noop.toml").write_text(CASCADE)
    async with EmbeddedLog(folder / "log.db") as log:
        await log.create_topics(all_topics(["one"]), 2)
    arguments = ["--log", f"embedded:{folder}/log.db", "--cascade", f"{folder}/noop.toml"]
    return ChildSpec(name, ["consensus", *arguments, "--log-level", "info"])


def pids(events: list[Any]) -> list[int]:
    return [event["child_pid"] for event in events if event["event"] == "child_started"]


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def test_children_run_until_they_are_told_to_stop(tmp_path: Path) -> None:
    said, stopping = Lines(), anyio.Event()
    specs = [await consensus(tmp_path, name) for name in ("first", "second")]
    with capture_logs() as events, anyio.fail_after(DEADLINE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Supervisor(specs, said).run, stopping)
            await said.wait("consensus_started", times=2)
            assert len(pids(events)) == 2
            stopping.set()

    assert sum("consensus_stopped" in line for line in said.lines) == 2
    assert all(is_gone(pid) for pid in pids(events))


async def test_a_child_that_is_killed_starts_again(tmp_path: Path) -> None:
    said, stopping = Lines(), anyio.Event()
    with capture_logs() as events, anyio.fail_after(DEADLINE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Supervisor([await consensus(tmp_path)], said).run, stopping)
            await said.wait("consensus_started")
            os.kill(pids(events)[0], signal.SIGKILL)
            await said.wait("consensus_started", times=2)
            stopping.set()

    (death,) = [event for event in events if event["event"] == "child_died"]
    assert (death["child"], death["status"], death["how"]) == ("consensus", -9, "SIGKILL")
    assert len(pids(events)) == 2


async def test_a_child_that_the_machine_cannot_start_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python, said, stopping = tmp_path / "python", Lines(), anyio.Event()
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    supervisor = Supervisor([await consensus(tmp_path)], said)
    with capture_logs() as events:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(supervisor.run, stopping)
            await said.wait("consensus_started")
            away = python.rename(tmp_path / "away")
            os.kill(pids(events)[0], signal.SIGKILL)
            with anyio.fail_after(DEADLINE):
                while supervisor.children["consensus"].status != 75:  # noqa: ASYNC110 (nobody tells)
                    await anyio.sleep(0.01)
            away.rename(python)
            await said.wait("consensus_started", times=2)
            stopping.set()
    died = [event["said"] for event in events if event["event"] == "child_died"]
    assert died[1] == f"cannot be started: {python}: No such file or directory"


async def test_a_job_whose_children_the_machine_cannot_start_ends_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    supervisor = Supervisor([ChildSpec("one", [])], Lines(), SupervisorOptions(kind="job"))
    with pytest.RaisesGroup(pytest.RaisesExc(RunError, match=r"^one ended .*: cannot be started")):
        await supervisor.run(anyio.Event())


async def test_a_child_that_cannot_start_ends_everything_and_says_why(tmp_path: Path) -> None:
    said = Lines()
    bad = ChildSpec("worker 0", ["work", "--cascade", str(tmp_path / "none.toml")])
    with (
        capture_logs() as events,
        anyio.fail_after(DEADLINE),
        pytest.RaisesGroup(
            pytest.RaisesExc(
                UsageError,
                match=r"^worker 0 ended with status 2: --cascade: expected a cascade "
                r"file or one of .*, got .*none\.toml \(No such file or directory\)$",
            )
        ),
    ):
        await Supervisor([bad, await consensus(tmp_path)], said).run(anyio.Event())

    assert len(pids(events)) == 2
    assert all(is_gone(pid) for pid in pids(events))


async def test_a_child_that_ends_in_order_has_not_died_and_starts_again(tmp_path: Path) -> None:
    said, stopping = Lines(), anyio.Event()
    with capture_logs() as events, anyio.fail_after(DEADLINE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Supervisor([await consensus(tmp_path)], said).run, stopping)
            await said.wait("consensus_started")
            os.kill(pids(events)[0], signal.SIGTERM)
            await said.wait("consensus_started", times=2)
            stopping.set()

    ends = [event for event in events if event["event"] in {"child_ended", "child_died"}]
    assert [(e["event"], e["status"], e["log_level"]) for e in ends] == [
        ("child_ended", 0, "info"),
        ("child_ended", 0, "info"),
    ]


ODD = r"""
import os, subprocess, sys
os.write(2, b"first\nno UTF-8: \xff\r\n" + b"\n  \n" + "halves: \xe2".encode("latin-1"))
os.write(2, "\x82\xac\n".encode("latin-1") + b"x" * 200_000)
subprocess.Popen(["sleep", "30"], stdout=subprocess.DEVNULL)  # it keeps standard error open
os.write(2, b"\nlast words")
"""


async def test_nothing_that_a_child_writes_is_lost_or_torn_and_no_line_is_without_end() -> None:
    said = Lines()
    supervisor = Supervisor([], said)
    child, all_said = Child("odd"), anyio.Event()
    async with (
        await anyio.open_process([sys.executable, "-c", ODD]) as process,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(supervisor._read, child, process, all_said)
        await process.wait()
        with anyio.move_on_after(LAST_WORDS):  # as long as the supervisor waits
            await all_said.wait()
        tasks.cancel_scope.cancel()

    assert said.lines[:3] == ["first", "no UTF-8: \ufffd\r", "halves: \u20ac"]
    assert "".join(said.lines[3:-1]) == "x" * 200_000
    assert said.lines[-1] == "last words"
    assert all(len(line) <= 2 * LONGEST_LINE for line in said.lines)
    assert child.last_words == "last words"


async def test_why_a_child_ends_is_not_hidden_by_what_its_threads_log_meanwhile() -> None:
    said, child = Lines(), Child("hasty")
    late = '{"timestamp": "2026-01-01T00:00:00Z", "level": "warning", "event": "member_failed"}'

    Supervisor([], said)._tell(child, [late, "roadstream: no such policy", late])

    assert child.last_words == "no such policy"
    assert said.lines == [late, late]


async def test_cancelling_the_supervisor_ends_its_children(tmp_path: Path) -> None:
    said = Lines()
    with capture_logs() as events, anyio.fail_after(DEADLINE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Supervisor([await consensus(tmp_path)], said).run, anyio.Event())
            await said.wait("consensus_started")
            tasks.cancel_scope.cancel()

    assert all(is_gone(pid) for pid in pids(events))


async def test_a_child_that_stands_still_is_killed_and_started_again(tmp_path: Path) -> None:
    said, stopping = Lines(), anyio.Event()
    supervisor = Supervisor([await consensus(tmp_path)], said, SupervisorOptions(silent_for=6.0))
    with capture_logs() as events, anyio.fail_after(DEADLINE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(supervisor.run, stopping)
            await said.wait("consensus_started")
            os.kill(pids(events)[0], signal.SIGSTOP)
            await said.wait("consensus_started", times=2)
            stopping.set()

    (child,) = supervisor.children.values()
    assert (child.silenced, child.restarts) == (1, 1)
    assert [e["child"] for e in events if e["event"] == "child_silent"] == ["consensus"]
    assert all(is_gone(pid) for pid in pids(events))


async def test_children_without_a_process_are_named(tmp_path: Path) -> None:
    supervisor = Supervisor([await consensus(tmp_path)], Lines())
    reason = "consensus: no process; the last ended with None"
    assert supervisor.unready(time.monotonic()) == [reason]


async def test_a_child_whose_broker_is_away_ends_with_75_and_is_started_again() -> None:
    stopping, deaths = anyio.Event(), []

    def progress() -> int:  # asked at each death
        deaths.append(0)
        if len(deaths) == 2:
            stopping.set()
        return 0

    # A service would wait for it; a command that reads the log ends.
    spec = ChildSpec("answers", ["answers", "--log", "kafka://127.0.0.1:1"])
    supervisor = Supervisor(
        [spec], said := Lines(), SupervisorOptions(kind="job", progress=progress)
    )
    with capture_logs() as events, anyio.fail_after(DEADLINE):
        await supervisor.run(stopping)

    assert said.lines == []  # its error is told with its end
    first = next(event for event in events if event["event"] == "child_died")
    assert (first["status"], first["restart_after"] > 0) == (75, True)
    assert first["said"].startswith("no Kafka broker answers at 127.0.0.1:1")


async def test_no_child_is_started_once_it_is_to_stop() -> None:
    stopping = anyio.Event()
    stopping.set()
    with capture_logs() as events:
        await Supervisor([ChildSpec("never", ["--help"])], Lines()).run(stopping)
    assert events == []
