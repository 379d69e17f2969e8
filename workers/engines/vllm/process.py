"""A vLLM process as its worker sees it: asked from any thread, ended with all it started."""

import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import IO

import structlog

from roadstream.schemas.errors import ConfigError, EngineDownError
from roadstream.workers.engines.vllm.child import engine_wire as wire

logger = structlog.get_logger()

# Lines of what the process last said on standard error, for the error that tells of its end.
_LAST_WORDS = 30
# The last line of a traceback, as vLLM logs it or as Python prints it …
_RAISED = re.compile(r"(?:^|\] )(?P<error>(?:\w+\.)*\w+(?:Error|Exception)\b.*)")
# … unless it only says that the core has died of another.
_NO_CAUSE = ("EngineDeadError", "Engine core initialization failed")
_STOP_PATIENCE = 10.0
_LISTEN_PATIENCE = 2.0

Reply = wire.Answered | wire.Late | wire.Undecided | wire.Refused | wire.Done


class EngineProcess:
    """One life of an engine. When it is over, every request raises `EngineDownError`.

    Args:
        command: What is run; the number of a socket is added to it.
        environment: Its environment variables.
        name: Of the engine, for logs and errors.

    Attributes:
        ready: What the engine said once it ran; ``None`` before.
    """

    def __init__(self, command: Sequence[str], environment: dict[str, str], name: str) -> None:
        self._command, self._environment, self._name = command, environment, name
        self._requests: dict[int, Future[Reply]] = {}
        self._number = 0
        self._guard, self._sending = threading.Lock(), threading.Lock()
        self._over: str | None = None
        self._killed = False
        self._last_words: deque[str] = deque(maxlen=_LAST_WORDS)
        self._started: Future[wire.Ready] = Future()
        self.ready: wire.Ready | None = None

    def start(self, load: wire.Load, on_end: Callable[[str], None]) -> None:
        """Start it, without waiting until it runs.

        Args:
            load: What it is to run.
            on_end: Told once, by a thread, why it ended.

        Raises:
            EngineDownError: The command cannot be run.
        """
        self._sock, theirs = socket.socketpair()
        with theirs:
            try:
                self._child = subprocess.Popen(
                    [*self._command, str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    pass_fds=[theirs.fileno()],
                    env=self._environment,
                    # A group of its own: ended as a whole, and not by a Ctrl-C at our terminal.
                    process_group=0,
                )
            except OSError as error:
                self._sock.close()
                raise EngineDownError(f"{self._command[0]} cannot be run: {error}") from None
        said = self._child.stdout
        assert said is not None
        listener = threading.Thread(target=self._listen, args=(said,), daemon=True)
        listener.start()
        threading.Thread(target=self._read, args=(on_end, listener), daemon=True).start()
        self._send(load)

    def wait(self, timeout: float) -> wire.Ready:
        """Return once it runs.

        Raises:
            EngineDownError: It ended instead.
            TimeoutError: It does not run yet.
        """
        return self._started.result(timeout)

    @property
    def pid(self) -> int:
        """Its process id, which is also that of its group."""
        return self._child.pid

    def ask(
        self, how: wire.How, question: str, pictures: list[wire.Shown], patience: float | None
    ) -> tuple[int, Future[Reply]]:
        """Send a request; return its number and what will be its reply.

        Raises:
            EngineDownError: The process has ended.
        """
        number, reply = self._new()
        self._send(wire.Ask(number, how, question, pictures, patience))
        return number, reply

    def forget(self, number: int) -> None:
        """Abort a request."""
        with self._guard:
            self._requests.pop(number, None)
        with suppress(EngineDownError):
            self._send(wire.Forget(number))

    def sleep(self) -> Future[Reply]:
        """Have it give back its device."""
        number, reply = self._new()
        self._send(wire.Sleep(number))
        return reply

    def wake(self) -> Future[Reply]:
        """Have it take its device again."""
        number, reply = self._new()
        self._send(wire.Wake(number))
        return reply

    def stop(self) -> None:
        """End it: gently first, then for certain."""
        with suppress(EngineDownError):
            self._send(wire.Stop())
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(_STOP_PATIENCE if self._started.done() else 0.0)
        self.kill()

    def kill(self) -> None:
        """End it and all that it started, at once; again is fine."""
        with self._guard:
            killed, self._killed = self._killed, True
        if not killed:  # its number may be another's by then
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def _new(self) -> tuple[int, Future[Reply]]:
        reply: Future[Reply] = Future()
        with self._guard:
            if self._over is not None:
                raise EngineDownError(self._over)
            self._number += 1
            self._requests[self._number] = reply
            return self._number, reply

    def _send(self, message: wire.ToEngine) -> None:
        try:
            with self._sending:
                wire.send(self._sock, message)
        except OSError:
            raise EngineDownError(self._over or f"{self._name}: the engine has ended") from None

    def _read(self, on_end: Callable[[str], None], listener: threading.Thread) -> None:
        why = "its process ended"
        try:
            while (data := wire.receive(self._sock)) is not None:
                message = wire.decode_reply(data)
                if isinstance(message, wire.Failed):
                    why = message.problem
                elif isinstance(message, wire.Ready):
                    self.ready = message
                    self._started.set_result(message)
                else:
                    with self._guard:
                        reply = self._requests.pop(message.number, None)
                    if reply is not None:
                        reply.set_result(message)
        except Exception as error:  # a reply that is none ends it as the end of its process does
            why = f"it said what it must not: {error}"
        self._end(why, on_end, listener)

    def _end(self, why: str, on_end: Callable[[str], None], listener: threading.Thread) -> None:
        self.kill()
        # The group is dead, so that nobody should hold the other end.
        listener.join(_LISTEN_PATIENCE)
        problem = f"{self._name}: the engine is down: {why}"
        cause = last_error(self._last_words)
        if cause and cause not in why:
            problem += f"; the last error that it logged: {cause}"
        if not self._started.done() and self._last_words:
            problem += f" ({' | '.join(self._last_words)[-2000:]})"
        # First, so that who hears of it below does not come back to the dead one.
        on_end(problem)
        with self._guard:
            self._over = problem
            left, self._requests = self._requests, {}
        if not self._started.done():
            self._started.set_exception(EngineDownError(problem))
        for reply in left.values():
            reply.set_exception(EngineDownError(problem))
        self._sock.close()

    def _listen(self, said: IO[bytes]) -> None:
        with said:
            for line in said:
                text = line.decode(errors="replace").rstrip()
                if text:
                    self._last_words.append(text)
                    logger.debug("vllm_says", engine=self._name, line=text)


def last_error(lines: Iterable[str]) -> str:
    """Return the last error among lines of a log that tells a cause; empty if there is none."""
    raised = [found["error"] for line in lines if (found := _RAISED.search(line))]
    causes = [one for one in raised if not any(empty in one for empty in _NO_CAUSE)]
    return causes[-1] if causes else ""


VARIABLE = "ROADSTREAM_VLLM_PYTHON"


def find_interpreter(given: str | None, where: str) -> str:
    """Return the path of the interpreter that runs the engine.

    Args:
        given: The member's setting.
        where: The setting's place, for errors.

    Raises:
        ConfigError: There is none; the text says how to make one.
    """
    for source, named in ((f"{where}.python", given), (VARIABLE, os.environ.get(VARIABLE))):
        if named:
            if os.access(named, os.X_OK) and Path(named).is_file():
                return named
            raise ConfigError(source, "an interpreter that can be run", named)
    if importlib.util.find_spec("vllm") is not None:
        return sys.executable
    raise ConfigError(
        f"{where}.python",
        f"an interpreter with vLLM in its environment, here or in {VARIABLE}; make one with"
        " `uv venv --python 3.12 vllm && uv pip install --python vllm/bin/python vllm`"
        " (see docs/guide/vllm.md)",
        "nothing",
    )
