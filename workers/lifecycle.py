"""How a process is told to stop: by signal, or by its supervisor's end."""

import os
import signal
import sys
import time
from pathlib import Path

import anyio
import structlog

logger = structlog.get_logger()
SUPERVISED = "ROADSTREAM_SUPERVISED"


class Heartbeat:
    """Touches a file, at most once a second, each time it is called.

    Args:
        path: The file; ``None`` touches nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._touched_at = float("-inf")

    def __call__(self) -> None:
        """Say that the caller is alive."""
        now = time.monotonic()
        if self._path is not None and now - self._touched_at >= 1.0:
            self._touched_at = now
            self._path.touch()


async def stop_on_signal(stopping: anyio.Event) -> None:
    """Set ``stopping`` at the first SIGINT or SIGTERM; a second one ends the process at once."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for number in signals:
            if stopping.is_set():
                os._exit(128 + number)
            logger.info("stopping", signal=signal.Signals(number).name)
            stopping.set()


async def stop_with_parent(stopping: anyio.Event) -> None:
    """Set ``stopping`` when the supervisor dies: its end of our standard input closes then."""
    if SUPERVISED not in os.environ:
        return
    await anyio.wait_readable(sys.stdin.fileno())  # nobody writes to it: this is its end
    logger.info("stopping", reason="the supervisor ended")
    stopping.set()
