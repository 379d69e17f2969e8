"""Manages an engine process: one thread starts, wakes, rests and restarts it, as decided."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress

import structlog

from roadstream.schemas.errors import EngineDownError
from roadstream.workers.engines.vllm.child.engine_wire import Done, Load
from roadstream.workers.engines.vllm.idle_policy import Action, IdleOptions, IdlePolicy, State
from roadstream.workers.engines.vllm.process import EngineProcess, Reply

logger = structlog.get_logger()


class ManagedEngine:
    """Lends an engine to the members that use it.

    Args:
        name: Of the engine, for logs and errors.
        make: Makes a process, not yet started; raises EngineDownError where it must not be.
        load: What it is to run.
        options: When it rests.
        start_timeout: Seconds that a start or a waking may take.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], EngineProcess],
        load: Load,
        *,
        options: IdleOptions,
        start_timeout: float,
    ) -> None:
        self._name, self._make, self._load = name, make, load
        self._start_timeout = start_timeout
        self._policy = IdlePolicy(options)
        self._changed = threading.Condition()
        self._closed = False
        self._members = 0
        self._process: EngineProcess | None = None
        self._thread = threading.Thread(target=self._run, name=f"keep {name}", daemon=True)

    @property
    def state(self) -> State:
        """What the engine is now; see ``idle_policy``."""
        return self._policy.state

    @property
    def closed(self) -> bool:
        """Whether every member has closed it."""
        return self._closed

    @property
    def pid(self) -> int | None:
        """Process id of the engine, and of its process group; ``None`` if there is none."""
        process = self._process
        return None if process is None else process.pid

    def reached(self, state: State, timeout: float) -> bool:
        """Wait until the engine is in that state, at most so many seconds; return whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: self._policy.state == state, timeout)

    @contextmanager
    def using(self, patience: float) -> Iterator[EngineProcess]:
        """Lend the engine, started or woken if need be.

        Args:
            patience: Seconds to wait for it; an engine that died is not waited for.

        Raises:
            EngineDownError: It does not run by then.
        """
        process = self._lent(patience)
        try:
            yield process
        finally:
            with self._changed:
                self._policy.leave(time.monotonic())
                self._changed.notify_all()

    def share(self) -> None:
        """Count one more member that is to use and to close it; at least one, before its use."""
        with self._changed:
            self._members += 1
            if self._members == 1:
                self._thread.start()

    def close(self) -> None:
        """End the engine and its thread, once every member has closed it."""
        with self._changed:
            self._members -= 1
            if self._members > 0:
                return
            self._closed = True
            self._changed.notify_all()
            process = self._process
        if process is not None:
            process.stop()
        self._thread.join()

    def _lent(self, patience: float) -> EngineProcess:
        policy = self._policy
        with self._changed:
            policy.want()
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._closed or policy.state == "up" or policy.ailing, patience
            )
            if self._closed or policy.state != "up" or self._process is None:
                raise EngineDownError(self._absence())
            policy.enter()
            return self._process

    def _absence(self) -> str:
        if self._closed:
            return f"{self._name}: the engine is closed"
        if self._policy.ailing:
            return self._policy.why
        return f"{self._name}: the engine is {self._policy.state.replace('_', ' ')}"

    def _run(self) -> None:
        policy = self._policy
        while True:
            with self._changed:
                action = None
                while not self._closed and (action := policy.due(time.monotonic())) is None:
                    self._changed.wait(policy.pause(time.monotonic()))
                if self._closed:
                    return
            assert action is not None
            self._do(action)

    def _do(self, action: Action) -> None:
        logger.info("engine_" + action, engine=self._name)
        try:
            match action:
                case "start":
                    self._start()
                case "sleep":
                    self._done(self._living().sleep())
                    with self._changed:
                        self._policy.slept()
                        self._changed.notify_all()
                case "wake":
                    self._done(self._living().wake())
                    with self._changed:
                        self._policy.woke(time.monotonic())
                        self._changed.notify_all()
                case "stop":
                    self._living().stop()
        except EngineDownError:
            pass  # its end is told by ``_ended``
        except TimeoutError:
            with suppress(EngineDownError):
                self._living().kill()
        self._settled(action)

    def _done(self, reply: Future[Reply]) -> None:
        """Wait until the engine has done it; one that cannot is of no use any more.

        Raises:
            TimeoutError: It has not.
        """
        answer = reply.result(self._start_timeout)
        if not isinstance(answer, Done):
            raise TimeoutError(str(answer))

    def _start(self) -> None:
        try:
            process = self._make()
            process.start(self._load, self._ended)
        except EngineDownError as error:
            self._ended(str(error))
            raise
        with self._changed:
            if self._policy.state == "starting":
                self._process = process
            closed = self._closed
        if closed:
            process.kill()
        ready = process.wait(self._start_timeout)
        with self._changed:
            if self._policy.state == "starting":
                self._policy.can_sleep = ready.can_sleep
                self._policy.ran(time.monotonic())
            self._changed.notify_all()
        logger.info("engine_up", engine=self._name, vllm=ready.vllm, platform=ready.platform)

    def _settled(self, action: Action) -> None:
        """Wait until what was begun has come to an end, good or bad."""
        begun = {"start": "starting", "sleep": "falling_asleep", "wake": "waking"}
        with self._changed:
            state = begun.get(action, "stopping")
            self._changed.wait_for(lambda: self._closed or self._policy.state != state)

    def _living(self) -> EngineProcess:
        if self._process is None:
            raise EngineDownError(f"{self._name}: the engine is down")
        return self._process

    def _ended(self, why: str) -> None:
        with self._changed:
            asked = self._closed or self._policy.state == "stopping"
            self._policy.ended(time.monotonic(), why)
            self._process = None
            self._changed.notify_all()
        if not asked:
            logger.error("engine_down", engine=self._name, error=why)
