"""What the subcommands share: options, running a coroutine, and the console."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar, TypeVarTuple

import anyio
from cyclopts import Parameter
from rich.console import Console

from workers.connect import LOG_HELP
from workers.logging import Level, configure_logging

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

LogUrl = Annotated[
    str, Parameter(name="--log", env_var="ROADSTREAM_LOG", help=f"The log: {LOG_HELP}.")
]
AliveFile = Annotated[
    Path | None,
    Parameter(name="--alive-file", help="File to touch at every poll, for health checks."),
]
CascadeName = Annotated[
    str, Parameter(name="--cascade", help="A cascade file, or the name of a shipped cascade.")
]
LogLevel = Annotated[
    Level, Parameter(name="--log-level", help="Events of this level and above are logged.")
]
DEFAULT_KAFKA = "kafka://127.0.0.1:9092"


def run_async(level: Level, function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
    """Run a coroutine function on uvloop, with logging set up."""
    configure_logging(level)
    return anyio.run(function, *args, backend_options={"use_uvloop": True})


def console() -> Console:
    """Return the console for what people read while a command runs: standard error."""
    return Console(stderr=True)
