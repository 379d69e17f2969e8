"""The processes of the campaign: started, killed, stopped, watched, and started again."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import anyio
import msgspec

from roadstream.bench.faults.chaos.child import ENVIRONMENT
from roadstream.bench.faults.chaos.controls import ControlPanel
from roadstream.bench.harness import resident_bytes
from roadstream.workers.service.lifecycle import SUPERVISED

ROOT = Path(__file__).resolve().parents[3]
Role = Literal["worker", "consensus", "supervisor", "producer"]
TICK = 0.05
# What a service manager such as systemd waits before it starts a dead process again.
RESTART_DELAY = 0.1
STOP_BUDGET = 25.0


async def until(condition: Callable[[], bool], within: float) -> bool:
    """Wait until ``condition`` holds; return whether it did within so many seconds."""
    give_up_at = time.monotonic() + within
    while not condition():
        if time.monotonic() > give_up_at:
            return False
        await anyio.sleep(TICK)
    return True


class Duty(NamedTuple):
    """A process that has to be there: its name, what it is, its group, its command line.

    One that is there ``once`` is not started again when it ends.
    """

    name: str
    role: Role
    group: str
    arguments: Sequence[str]
    once: bool = False


class Death(msgspec.Struct, frozen=True):
    """An end of a process that the campaign did not ask for.

    Attributes:
        name: The process.
        status: Its exit status; negative for a signal.
        at: Seconds since the campaign began.
        said: The last line of its log.
    """

    name: str
    status: int
    at: float
    said: str


class Child:
    """One started process."""

    def __init__(self, duty: Duty, process: "subprocess.Popen[bytes]") -> None:
        self.duty, self.process = duty, process
        self.started_at = time.monotonic()
        self.expected = False
        self.frozen = False

    @property
    def ended(self) -> bool:
        """Whether it is no more."""
        return self.process.poll() is not None


class Children:
    """Starts processes of the sabotaged command line and keeps them running.

    Args:
        folder: For the processes' logs.
        panel: What is asked of them.
    """

    def __init__(self, folder: Path, panel: ControlPanel) -> None:
        self._folder, self.panel = folder, panel
        self._began = time.monotonic()
        self.by_name: dict[str, Child] = {}
        self.deaths: list[Death] = []
        self.restarts = 0
        self.peaks: dict[str, int] = {}
        self._watches: list[dict[str, tuple[int, int]]] = []
        self._away: dict[str, tuple[Duty, float]] = {}
        self._excused: Callable[[Duty], bool] = lambda _: False
        self._doomed: set[str] = set()
        self.keeping = True

    def start(self, duty: Duty) -> Child:
        """Start a process, and keep it running from now on."""
        environment = {
            **os.environ,
            ENVIRONMENT: str(self.panel.folder),
            SUPERVISED: "1",
            "PYTHONPATH": str(ROOT),
        }
        with (self._folder / f"{duty.name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "roadstream.bench.faults.chaos.child", *duty.arguments],
                cwd=self._folder,
                env=environment,
                # It ends when the campaign does, however that ends.
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        child = self.by_name[duty.name] = Child(duty, process)
        return child

    def log_of(self, name: str) -> str:
        """Return what a process and those before it under its name have said."""
        path = self._folder / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def names(self, role: Role, group: str | None = None) -> list[str]:
        """Return the processes of a role that run, in the order of their start."""
        return [
            child.duty.name
            for child in self.by_name.values()
            if child.duty.role == role
            and not child.ended
            and not child.frozen
            and (group is None or child.duty.group == group)
        ]

    def kill(self, name: str, *, away: float = 0.0) -> Duty:
        """Kill a process at once; it is started again after ``away`` seconds."""
        child = self.by_name[name]
        child.expected = True
        self._away[name] = child.duty, time.monotonic() + away + RESTART_DELAY
        child.process.kill()
        return child.duty

    def expect_end(self, name: str) -> None:
        """Hold the end of a process for our doing; it is started again at once."""
        self.by_name[name].expected = True

    def doom(self, name: str) -> None:
        """Hold every end of a process for our doing, also of its successors, until it is spared."""
        self._doomed.add(name)

    def spare(self, name: str) -> None:
        """Hold only the end of the process that there is now for our doing, if it has ended."""
        self._doomed.discard(name)
        self.expect_end(name)

    def excuse(self, excused: Callable[[Duty], bool] | None) -> None:
        """Say whose ends are a fault's doing for now; ``None`` for nobody's."""
        self._excused = excused or (lambda _: False)

    def freeze(self, name: str) -> None:
        """Stop a process where it stands (SIGSTOP)."""
        self.by_name[name].frozen = True
        self.by_name[name].process.send_signal(signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """Let a frozen process go on (SIGCONT)."""
        self.by_name[name].frozen = False
        self.by_name[name].process.send_signal(signal.SIGCONT)

    async def retire(self, name: str) -> tuple[int, float]:
        """End a process in order (SIGTERM) for good; return its status and the seconds it took."""
        child = self.by_name.pop(name)
        began = time.monotonic()
        child.process.terminate()
        if not await until(lambda: child.ended, STOP_BUDGET):
            child.process.kill()
        status = child.process.wait()
        _close(child)
        return status, time.monotonic() - began

    def dismiss(self, name: str) -> None:
        """Kill a process for good."""
        child = self.by_name.pop(name)
        child.process.kill()
        child.process.wait()
        _close(child)

    async def keep(self) -> None:
        """Start again whatever dies, and sample memory, until cancelled."""
        sampled_at = 0.0
        while True:
            await anyio.sleep(TICK)
            now = time.monotonic()
            if self.keeping:
                self._revive(now)
            if now - sampled_at > 0.5:
                sampled_at = now
                self._sample()

    def _revive(self, now: float) -> None:
        for name, child in list(self.by_name.items()):
            if child.ended and name not in self._away and not child.duty.once:
                ours = child.expected or name in self._doomed or self._excused(child.duty)
                if not ours:
                    self._note(child)
                self._away[name] = child.duty, now + RESTART_DELAY
        for name, (duty, at) in list(self._away.items()):
            old = self.by_name.get(name)
            if now >= at and (old is None or old.ended):
                del self._away[name]
                if old is not None:
                    _close(old)
                    self.restarts += 1
                    self.start(duty)

    def _note(self, child: Child) -> None:
        lines = [line for line in self.log_of(child.duty.name).splitlines() if line.strip()]
        self.deaths.append(
            Death(
                child.duty.name,
                child.process.returncode,
                round(time.monotonic() - self._began, 3),
                lines[-1][-500:] if lines else "",
            )
        )

    def _sample(self) -> None:
        for name, child in self.by_name.items():
            try:
                size = resident_bytes(child.process.pid)
            except (OSError, ValueError, IndexError):
                continue
            self.peaks[name] = max(self.peaks.get(name, 0), size)
            for watch in self._watches:
                if name in watch:
                    first, most = watch[name]
                    watch[name] = first or size, max(most, size)

    @contextmanager
    def watched(self, names: Sequence[str]) -> Iterator[dict[str, int]]:
        """Fill what is yielded, at the end, with the bytes by which each process grew at most."""
        grown: dict[str, int] = {}
        watch = dict.fromkeys(names, (0, 0))
        self._watches.append(watch)
        try:
            yield grown
        finally:
            self._watches.remove(watch)
            grown.update({name: most - first for name, (first, most) in watch.items()})

    async def stop(self) -> Mapping[str, tuple[int, float]]:
        """End all in order, at the same time; return status and seconds of each."""
        self.keeping = False
        found: dict[str, tuple[int, float]] = {}

        async def retire(name: str) -> None:
            found[name] = await self.retire(name)

        async with anyio.create_task_group() as tasks:
            for name, child in list(self.by_name.items()):
                if child.frozen:
                    self.thaw(name)
                tasks.start_soon(retire, name)
        return found

    def kill_all(self) -> None:
        """Kill whatever still runs: the campaign's own end."""
        for child in self.by_name.values():
            if not child.ended:
                child.process.kill()
            child.process.wait()
            _close(child)


def _close(child: Child) -> None:
    if child.process.stdin is not None:
        child.process.stdin.close()
