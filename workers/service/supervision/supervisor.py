"""Starts child processes, restarts those that die or fall silent, and stops them all."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import anyio
import anyio.abc
import msgspec
import structlog
from anyio.streams.text import TextReceiveStream

from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.errors import ReplacedError, RoadstreamError, RunError, UsageError
from roadstream.workers.service.lifecycle import DRAIN_TIMEOUT, READY, SUPERVISED, Kind
from roadstream.workers.service.supervision.last_words import is_error_line, last_words
from roadstream.workers.service.supervision.pinned import Inherited, pinned
from roadstream.workers.service.supervision.restarts import TEMPORARY_STATUS, Death, Restarts

logger = structlog.get_logger()
# A child beats every second; one that was silent for so long is stopped or stuck, and is killed.
SILENT_FOR = 60.0
# The first beat comes once everything is imported, which a busy machine takes its time for.
STARTING_FOR = 120.0
# What a child gets beyond its own drain budget before it is killed.
GRACE = 5.0
# For what a child wrote just before it died.
LAST_WORDS = 1.0

# Last words that are older say nothing of a death.
WORDS_FOR = 60.0
# Of a line that never ends, what is passed on at once.
LONGEST_LINE = 1 << 16

OnLine = Callable[[str, int | None, str], None]
# How a child ends that was told to, before it had its own way of ending and after; or that made way
# for another, as all children of one `up` do for those of a second.
ORDERLY = frozenset({0, -signal.SIGTERM, ReplacedError.exit_status})


class ChildSpec(NamedTuple):
    """A child process: its name in logs, and the roadstream command it runs."""

    name: str
    arguments: Sequence[str]


class SupervisorOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a supervisor looks after its children.

    Attributes:
        kind: What they are for; see ``Restarts``.
        silent_for: Seconds of silence after which a child is killed and started again.
        drain_timeout: Seconds in which a child that is told to stop ends by itself.
        progress: Returns a number that grows with the children's work; matters to a job.
    """

    kind: Kind = "service"
    silent_for: float = SILENT_FOR
    drain_timeout: float = DRAIN_TIMEOUT
    progress: Callable[[], int] = int


class Child(msgspec.Struct):
    """A child as it is now, and its counters since the supervisor began. Times are monotonic.

    Attributes:
        name: As in its ``ChildSpec``.
        pid: Its process; ``None`` while none runs.
        restarts: Times it was started again.
        silenced: Times it was killed for its silence.
        status: How it ended last; ``None`` if it never did.
        beat_at: When it was last known to be alive.
        ready_since: Since when it has done its work; ``None`` while it does not.
        worked_for: Seconds for which this process of it has done its work, earlier stretches.
        words: The last line it wrote that may tell why it ends.
        words_at: When it did.
        explained: Whether they are the error that it ends with. Threads that still run may log
            more, such as that the models are closed.
    """

    name: str
    pid: int | None = None
    restarts: int = 0
    silenced: int = 0
    status: int | None = None
    beat_at: float = 0.0
    ready_since: float | None = None
    worked_for: float = 0.0
    words: str = ""
    words_at: float = 0.0
    explained: bool = False

    @property
    def last_words(self) -> str:
        """Why it ended, in its own words."""
        lately = time.monotonic() - self.words_at < WORDS_FOR
        return self.words if self.words and lately else "it said nothing"

    def beat(self, ready: bool, now: float) -> None:
        """Note that it is alive, and whether it does its work."""
        self.beat_at = now
        if ready and self.ready_since is None:
            self.ready_since = now
        elif not ready and self.ready_since is not None:
            self.worked_for += now - self.ready_since
            self.ready_since = None


class Supervisor:
    """Keeps child processes running.

    Args:
        specs: The children.
        on_line: Is given each line that a child writes to its standard error, with its name and
            process id. The error that a command ends with is told with its end instead.
        options: How they are looked after.
        cascade: What they judge by, whenever they start; ``None`` lets each load what it is told.
    """

    def __init__(
        self,
        specs: Sequence[ChildSpec],
        on_line: OnLine,
        options: SupervisorOptions | None = None,
        cascade: Cascade | None = None,
    ) -> None:
        self._specs, self._on_line, self._cascade = list(specs), on_line, cascade
        self._inherited, self._own = Inherited({}, ()), dict[str, Inherited]()
        self._pinned = contextlib.ExitStack()
        self._start_keeping: Callable[[ChildSpec], object] | None = None
        self._options = options or SupervisorOptions()
        self.children = {spec.name: Child(spec.name) for spec in specs}

    async def run(self, stopping: anyio.Event) -> None:
        """Run the children until ``stopping`` is set, then end them within a budget.

        Raises:
            RunError: A child cannot start, or dies again and again; its last line says why.
            ReplacedError: Another process has a child's member name.
            UsageError: A child of a service says that it is used wrongly.
        """
        self._inherited = self._pinned.enter_context(pinned(self._cascade))
        try:
            async with anyio.create_task_group() as tasks:
                keep = self._start_keeping = lambda spec: tasks.start_soon(
                    self._keep, spec, stopping
                )
                for spec in self._specs:
                    keep(spec)
        finally:
            self._start_keeping = None
            self._pinned.close()

    def add(self, spec: ChildSpec, cascade: Cascade | None) -> None:
        """Keep another child running too, which judges by a cascade of its own."""
        self.children[spec.name] = Child(spec.name)
        self._own[spec.name] = self._pinned.enter_context(pinned(cascade))
        self._specs.append(spec)
        if self._start_keeping is not None:
            self._start_keeping(spec)

    def unready(self, now: float) -> list[str]:
        """Return which children do not do their work now, and since when they were last heard."""
        reasons = []
        for child in self.children.values():
            if child.pid is None:
                reasons.append(f"{child.name}: no process; the last ended with {child.status}")
            elif child.ready_since is None:
                heard = now - child.beat_at
                reasons.append(f"{child.name}: does no work; heard of {heard:.0f} s ago")
        return reasons

    async def _keep(self, spec: ChildSpec, stopping: anyio.Event) -> None:
        child, restarts = self.children[spec.name], Restarts(self._options.kind)
        while not stopping.is_set():
            try:
                status = await self._run_once(spec, child, stopping)
            except anyio.get_cancelled_exc_class():
                _log_end(child)
                raise
            if stopping.is_set():
                _log_end(child)
                return
            delay = restarts.after(Death(status, child.worked_for, self._options.progress()))
            if delay is None:
                raise self._fault(status)(
                    f"{spec.name} ended with {_named(status)}: {child.last_words}"
                )
            _log_end(child, restart_after=round(delay, 2))
            with anyio.move_on_after(delay):
                await stopping.wait()
            child.restarts += 1

    def _fault(self, status: int) -> type[RoadstreamError]:
        if status == ReplacedError.exit_status:
            return ReplacedError
        # A job keeps what was done; that is more to say than a usage error does.
        usage = status == UsageError.exit_status and self._options.kind == "service"
        return UsageError if usage else RunError

    async def _run_once(self, spec: ChildSpec, child: Child, stopping: anyio.Event) -> int:
        """Run a child until it ends or is to be stopped; return its exit status."""
        child.words, child.explained = "", False
        try:
            ours, process = await self._start(spec)
        except OSError as error:
            # No files or processes left, or the interpreter is being exchanged: a service outlasts
            # that, a job must end.
            where = "" if error.filename is None else f"{error.filename}: "
            child.words = f"cannot be started: {where}{error.strerror}"
            child.words_at, child.worked_for = time.monotonic(), 0.0
            service = self._options.kind == "service"
            child.status = TEMPORARY_STATUS if service else RunError.exit_status
            return child.status
        with ours:
            ours.setblocking(False)
            child.pid, child.worked_for = process.pid, 0.0
            child.beat(False, time.monotonic())
            logger.info("child_started", child=spec.name, child_pid=process.pid)
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._stop_when, stopping, process)
                    tasks.start_soon(self._listen, ours, child, process)
                    tasks.start_soon(self._read, child, process, said_all := anyio.Event())
                    status = await process.wait()
                    # Not for ever: a grandchild may have inherited its standard error.
                    with anyio.move_on_after(LAST_WORDS):
                        await said_all.wait()
                    tasks.cancel_scope.cancel()
            finally:
                with anyio.CancelScope(shield=True):
                    await self._end(process)
                    await process.aclose()
                child.beat(False, time.monotonic())
                child.pid, child.status = None, process.returncode
        return status

    async def _start(self, spec: ChildSpec) -> tuple[socket.socket, anyio.abc.Process]:
        """Start a child; return our end of its standard input, and its process.

        Raises:
            OSError: The machine does not let us.
        """
        ours, theirs = socket.socketpair()
        inherited = self._own.get(spec.name, self._inherited)
        with theirs, contextlib.ExitStack() as unless_started:
            unless_started.enter_context(ours)
            process = await anyio.open_process(
                [sys.executable, "-P", "-m", "roadstream.workers.cli", *spec.arguments],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={**os.environ, SUPERVISED: self._options.kind, **inherited.environment},
                pass_fds=inherited.descriptors,
                start_new_session=True,
            )
            unless_started.pop_all()
        return ours, process

    async def _read(self, child: Child, process: anyio.abc.Process, said_all: anyio.Event) -> None:
        assert process.stderr is not None
        rest = ""
        try:
            async for text in TextReceiveStream(process.stderr, errors="replace"):
                *lines, rest = (rest + text).split("\n")
                if len(rest) > LONGEST_LINE:
                    lines, rest = [*lines, rest], ""
                self._tell(child, lines)
        finally:  # also when a grandchild keeps it open
            self._tell(child, [rest])
        said_all.set()

    def _tell(self, child: Child, lines: list[str]) -> None:
        for line in filter(str.strip, lines):
            is_error = is_error_line(line)
            if (words := last_words(line)) and (is_error or not child.explained):
                child.words, child.words_at, child.explained = words, time.monotonic(), is_error
            if not is_error:
                self._on_line(child.name, child.pid, line)

    async def _listen(self, ours: socket.socket, child: Child, process: anyio.abc.Process) -> None:
        """Note the child's beats; kill it when they stay away."""
        patience = max(STARTING_FOR, self._options.silent_for)
        while True:
            with anyio.move_on_after(patience):
                await anyio.wait_readable(ours)
            # Looked at once more: if it was we who stood still, its beats have been waiting.
            try:
                beats = ours.recv(4096)
            except BlockingIOError:
                break
            except ConnectionError:
                beats = b""
            if not beats:
                return  # it has closed its end, which it does when it dies
            child.beat(beats.endswith(READY), time.monotonic())
            patience = self._options.silent_for
        child.silenced += 1
        logger.error("child_silent", child=child.name, child_pid=process.pid, after=patience)
        with contextlib.suppress(ProcessLookupError):
            process.kill()

    async def _stop_when(self, stopping: anyio.Event, process: anyio.abc.Process) -> None:
        await stopping.wait()
        await self._end(process)

    async def _end(self, process: anyio.abc.Process) -> None:
        """End a child: SIGTERM, then SIGKILL once its budget is spent."""
        if process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        with anyio.move_on_after(self._options.drain_timeout + GRACE):
            await process.wait()
        if process.returncode is None:
            logger.error(
                "child_killed", child_pid=process.pid, reason="it did not end in its budget"
            )
            process.kill()
            await process.wait()


def _named(status: int) -> str:
    """Return an exit status in words; of a signal, its name."""
    with contextlib.suppress(ValueError):
        if status < 0:
            return signal.Signals(-status).name
    return f"status {status}"


def _log_end(child: Child, **more: float) -> None:
    """Say how a child ended: in order, as it was told to, or not, and then in which words."""
    status, said = child.status, child.last_words
    if status in ORDERLY:
        logger.info("child_ended", child=child.name, status=status, **more)
    elif status is not None:
        ended = _named(status)
        logger.warning("child_died", child=child.name, status=status, how=ended, said=said, **more)
