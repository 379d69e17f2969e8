"""How a process is told to stop: by signal, or by its supervisor's end."""

import os
import signal
import sys

import anyio
import structlog

logger = structlog.get_logger()
SUPERVISED = "ROADSTREAM_SUPERVISED"


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
