"""Starts child processes, restarts those that die, and stops them all."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import anyio
import anyio.abc
import structlog
from anyio.streams.text import TextReceiveStream

from schemas.errors import RunError
from workers.lifecycle import SUPERVISED

logger = structlog.get_logger()
# A child that lives this long has started well: its next death is restarted without delay.
SETTLED_AFTER = 30.0
FIRST_DELAY, LAST_DELAY = 0.5, 15.0
# Deaths in a row, without settling, after which the fault is taken to be permanent.
MAX_DEATHS = 5
STOP_BUDGET = 20.0
USAGE_STATUS = 2

OnLine = Callable[[str], None]


class ChildSpec(NamedTuple):
    """A child process: its name in logs, and the roadstream command it runs."""

    name: str
    arguments: Sequence[str]


class Supervisor:
    """Keeps child processes running.

    Args:
        specs: The children.
        on_line: Is given each line that a child writes to its standard error.
    """

    def __init__(self, specs: Sequence[ChildSpec], on_line: OnLine) -> None:
        self._specs, self._on_line = specs, on_line
        self._last_line: dict[str, str] = {}

    async def run(self, stopping: anyio.Event) -> None:
        """Run the children until ``stopping`` is set, then end them within a budget.

        Raises:
            RunError: A child cannot start, or dies again and again; its last line says why.
        """
        async with anyio.create_task_group() as tasks:
            for spec in self._specs:
                tasks.start_soon(self._keep, spec, stopping)

    async def _keep(self, spec: ChildSpec, stopping: anyio.Event) -> None:
        deaths, delay = 0, FIRST_DELAY
        while not stopping.is_set():
            began = anyio.current_time()
            status = await self._run_once(spec, stopping)
            if stopping.is_set():
                return
            if anyio.current_time() - began > SETTLED_AFTER:
                deaths, delay = 0, FIRST_DELAY
            deaths += 1
            why = self._last_line.get(spec.name, "it said nothing")
            if status == USAGE_STATUS or deaths >= MAX_DEATHS:
                raise RunError(f"{spec.name} ended with status {status}: {why}")
            logger.warning("child_died", name=spec.name, status=status, restart_after=delay)
            with anyio.move_on_after(delay):
                await stopping.wait()
            delay = min(2 * delay, LAST_DELAY)

    async def _run_once(self, spec: ChildSpec, stopping: anyio.Event) -> int:
        """Run a child until it ends or is to be stopped; return its exit status."""
        process = await anyio.open_process(
            [sys.executable, "-m", "workers.cli", *spec.arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, SUPERVISED: "1"},
            start_new_session=True,
        )
        logger.info("child_started", name=spec.name, pid=process.pid)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_stop_when, stopping, process)
                await self._read(spec.name, process)  # to its end, which is the child's
                status = await process.wait()
                tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await _end(process)
                await process.aclose()
        return status

    async def _read(self, name: str, process: anyio.abc.Process) -> None:
        assert process.stderr is not None
        rest = ""
        async for text in TextReceiveStream(process.stderr, errors="replace"):
            *lines, rest = (rest + text).split("\n")
            self._tell(name, lines)
        self._tell(name, [rest])

    def _tell(self, name: str, lines: list[str]) -> None:
        for line in filter(str.strip, lines):
            self._last_line[name] = line
            self._on_line(line)


async def _stop_when(stopping: anyio.Event, process: anyio.abc.Process) -> None:
    await stopping.wait()
    await _end(process)


async def _end(process: anyio.abc.Process) -> None:
    """End a child: SIGTERM, then SIGKILL once its budget is spent."""
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGTERM)
    with anyio.move_on_after(STOP_BUDGET):
        await process.wait()
    if process.returncode is None:
        process.kill()
        await process.wait()
