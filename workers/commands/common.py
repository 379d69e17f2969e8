"""What the subcommands share: options, running a coroutine, and the console."""

import gc
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar, TypeVarTuple

import anyio
from cyclopts import Parameter
from rich.console import Console

from schemas.errors import UsageError
from workers.connect import LOG_HELP
from workers.logging import Level, configure_logging

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

LogUrl = Annotated[
    str, Parameter(name="--log", env_var="ROADSTREAM_LOG", help=f"The log: {LOG_HELP}.")
]
Paths = Annotated[
    str,
    Parameter(
        name="PATHS",
        allow_leading_hyphen=True,
        help="Folders, picture files, globs, videos, or - for a list on standard input.",
    ),
]
AliveFile = Annotated[
    Path | None,
    Parameter(name="--alive-file", help="File to touch at every poll, for health checks."),
]
LedgerFolder = Annotated[
    Path | None,
    Parameter(
        name="--ledger",
        help="Folder in which to note every acknowledgement and commit, for `roadstream verify`.",
    ),
]
CascadeName = Annotated[
    str, Parameter(name="--cascade", help="A cascade file, or the name of a shipped cascade.")
]
LogLevel = Annotated[
    Level, Parameter(name="--log-level", help="Events of this level and above are logged.")
]
DEFAULT_KAFKA = "kafka://127.0.0.1:9092"


def check_paths(command: str, paths: tuple[str, ...]) -> None:
    """Check the PATHS of a command.

    Raises:
        UsageError: There are none, or one looks like a mistyped option.
    """
    if not paths:
        raise UsageError(f"{command}: expected at least one PATH, got none (see --help)")
    for path in paths:
        if path.startswith("-") and path != "-":
            raise UsageError(
                f"{command}: unknown option {path} (see --help; a file of that name is ./{path})"
            )


def run_async(level: Level, function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
    """Run a coroutine function on uvloop, with logging set up."""
    configure_logging(level)
    # A batch allocates thousands of lists that die without a cycle; looking for cycles as often as
    # Python does by default takes a sixth of the consensus sink's time.
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)
    return anyio.run(function, *args, backend_options={"use_uvloop": True})


def console() -> Console:
    """Return the console for what people read while a command runs: standard error."""
    return Console(stderr=True)
