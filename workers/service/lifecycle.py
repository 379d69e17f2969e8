"""How a process is told to stop, by signal or by its supervisor's end, and how long that may take.

A supervised child has a socket as its standard input. Its end means that the supervisor is gone;
the child writes to it, once a second, that it is well.
"""

import contextlib
import faulthandler
import os
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Literal, NoReturn, TypeVar

import anyio
import structlog
from anyio import to_thread

logger = structlog.get_logger()
T = TypeVar("T")
# Set by a supervisor for its children: what it runs, a service for ever or a job to its end.
SUPERVISED = "ROADSTREAM_SUPERVISED"
Kind = Literal["service", "job"]
# Its number, as Python has no object for it where it was closed.
STANDARD_INPUT = 0
ALIVE, READY = b".", b"+"
DRAIN_TIMEOUT = 15.0
# Of the drain budget, what is kept for leaving in order after unfinished work was given up.
LEAVING = 5.0
# A thread that holds the interpreter's lock keeps our own timer from running, not this one.
LAST_RESORT = 2.0
# Ended by force: what was unfinished is done by whoever comes next.
CUT_SHORT = 1


def supervised() -> Kind | None:
    """Return what kind of run a supervisor has started this process for; ``None`` without one."""
    kind = os.environ.get(SUPERVISED)
    return None if kind is None else "job" if kind == "job" else "service"


class Heartbeat:
    """Says that this process is well: to a file that it touches, and to its supervisor.

    Args:
        path: The file; ``None`` touches nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._supervisor: socket.socket | None = None
        if supervised():
            with contextlib.suppress(OSError):  # started by something that imitates a supervisor
                self._supervisor = socket.socket(fileno=os.dup(STANDARD_INPUT))
                self._supervisor.setblocking(False)

    def __call__(self, ready: bool) -> None:
        """Beat once; ``ready`` says whether work is being done."""
        if self._path is not None:
            # A full or vanished disk must not end the work; the file growing old says enough.
            with contextlib.suppress(OSError):
                self._path.touch()
        if self._supervisor is not None:
            with contextlib.suppress(OSError):  # full: the supervisor itself stands still
                self._supervisor.send(READY if ready else ALIVE)

    def close(self) -> None:
        """Fall silent."""
        if self._supervisor is not None:
            self._supervisor.close()
            self._supervisor = None


async def stop_on_signal(stopping: anyio.Event) -> None:
    """Set ``stopping`` at the first SIGINT or SIGTERM; a second one ends the process at once."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for number in signals:
            if stopping.is_set():
                _end_at_once(128 + number, partial(_say_twice, signal.Signals(number).name))
            logger.info("stopping", signal=signal.Signals(number).name)
            stopping.set()


async def act_on_hangup(act: Callable[[], Awaitable[None]], stopping: anyio.Event) -> None:
    """Do ``act`` at each SIGHUP; where it says that our terminal is gone, set ``stopping``.

    Where SIGHUP is ignored, as under ``nohup``, it stays so.
    """
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        return
    had_terminal = _has_terminal()
    with anyio.open_signal_receiver(signal.SIGHUP) as signals:
        async for _ in signals:
            if had_terminal and not _has_terminal():
                logger.info("stopping", signal="SIGHUP", reason="the terminal is gone")
                stopping.set()
                return
            await act()


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


async def stop_with_parent(stopping: anyio.Event) -> None:
    """Set ``stopping`` when the supervisor dies: its end of our standard input closes then."""
    if not supervised():
        return
    await anyio.wait_readable(STANDARD_INPUT)  # nobody writes to it: this is its end
    logger.info("stopping", reason="the supervisor ended")
    stopping.set()


async def until_stopped(stopping: anyio.Event, function: Callable[[], Awaitable[T]]) -> T | None:
    """Do what may take long before there is any work to finish; drop it once ``stopping`` is set.

    Returns:
        What it returns; ``None`` if it was dropped.
    """
    found: T | None = None
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:

        async def give_up() -> None:
            await stopping.wait()
            tasks.cancel_scope.cancel()

        tasks.start_soon(give_up)
        try:
            found = await function()
        except Exception as error:  # as it was, and not in a group
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return found


async def in_thread_until_stopped(stopping: anyio.Event, function: Callable[[], T]) -> T | None:
    """Call a blocking function as ``until_stopped`` does; a thread that is dropped runs on.

    The command then ends without waiting for it, see ``end_process``.
    """
    dropped = True

    async def call() -> T:
        nonlocal dropped
        result = await to_thread.run_sync(function, abandon_on_cancel=True)
        dropped = False
        return result

    try:
        return await until_stopped(stopping, call)
    finally:
        if dropped and stopping.is_set():
            _dropped.set()


def end_process(status: int) -> NoReturn:
    """Exit with this status, without a thread that was dropped: Python itself would wait for it."""
    if _dropped.is_set():
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


_dropped = threading.Event()


class Deadline:
    """Ends this process by force if it has not ended by itself in time.

    Its last words are a line, and where its threads were if not even a line could be written.

    Args:
        budget: Seconds from ``start`` on.
    """

    def __init__(self, budget: float) -> None:
        self.budget = budget
        self._timer = threading.Timer(budget, _give_up, [budget])
        self._timer.daemon = True

    def start(self) -> None:
        """Begin to count."""
        self._timer.start()
        with contextlib.suppress(ValueError, OSError):  # standard error is no file: only the line
            faulthandler.dump_traceback_later(self.budget + LAST_RESORT, exit=True)

    def take_back(self) -> None:
        """Let the process live; fine if it was never started."""
        self._timer.cancel()
        faulthandler.cancel_dump_traceback_later()


async def drain_within(deadline: Deadline, stopping: anyio.Event, work: anyio.CancelScope) -> None:
    """Once ``stopping`` is set, give the work its time; then cut it short, so that it can leave.

    From then on the process ends by the deadline whatever hangs: a model, a client, a thread. It
    ends in order if it can, and by force otherwise.
    """
    await stopping.wait()
    deadline.start()
    await anyio.sleep(max(0.0, deadline.budget - LEAVING))
    logger.warning("drain_cut_short", after=max(0.0, deadline.budget - LEAVING))
    work.cancel()


def _give_up(budget: float) -> None:
    _end_at_once(CUT_SHORT, partial(_say_so, budget))


def _end_at_once(status: int, say: Callable[[], None]) -> NoReturn:
    # In a thread of its own: if what hung is the reader of our standard error, so does this.
    last_words = threading.Thread(target=say, daemon=True)
    last_words.start()
    last_words.join(timeout=1.0)
    os._exit(status)


def _say_twice(name: str) -> None:
    logger.warning("ended_at_once", signal=name, hint="it was told to stop for the second time")


def _say_so(budget: float) -> None:
    logger.error(
        "ended_by_force",
        drain_timeout=budget,
        hint="something hung; its work was not committed and is done by whoever comes next",
    )
