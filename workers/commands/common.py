"""What the subcommands share: options, running a coroutine, and the console."""

import gc
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar, TypeVarTuple

import anyio
from cyclopts import Parameter

from roadstream.schemas.errors import UsageError
from roadstream.streams.log import Start
from roadstream.workers.observe.logging import Format, Level, configure_logging
from roadstream.workers.service.access.connect import LOG_HELP
from roadstream.workers.service.lifecycle import LEAVING, supervised

# Longer than any log's group would wait for a member that gives up its partitions.
MOST_DRAIN = 3600.0

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

LogUrl = Annotated[
    str, Parameter(name="--log", env_var="ROADSTREAM_LOG", help=f"The log: {LOG_HELP}.")
]
Namespace = Annotated[
    str | None,
    Parameter(
        name="--namespace",
        env_var="ROADSTREAM_NAMESPACE",
        help="Stands before the names of all topics and groups (NAME.votes, …), so that several "
        "systems can share a cluster. None by default.",
    ),
]
Beginning = Annotated[
    Start | None,
    Parameter(
        name="--from",
        help="Where the first tier begins if its group is new and others have answered what lies "
        "there: beginning judges all of it again, end only what comes from now on.",
    ),
]
Paths = Annotated[
    str,
    Parameter(
        name="PATHS",
        allow_leading_hyphen=True,
        help="Folders, picture files, globs, videos, or - for a list on standard input.",
    ),
]
DecodeMemory = Annotated[
    int,
    Parameter(
        name="--decode-memory",
        env_var="ROADSTREAM_DECODE_MEMORY",
        help="Most MiB that decoding one picture may take. One that would take more fails as "
        "too_many_pixels, before it is decoded.",
    ),
]
AliveFile = Annotated[
    Path | None,
    Parameter(
        name="--alive-file", help="File to touch every second while all is well, for health checks."
    ),
]
MetricsAddress = Annotated[
    str | None,
    Parameter(
        name="--metrics",
        env_var="ROADSTREAM_METRICS",
        help="HOST:PORT, or a port for this machine only, to serve /metrics, /healthz and /readyz "
        "at; 0 is any free port.",
    ),
]
HangTimeout = Annotated[
    float,
    Parameter(
        name="--hang-timeout",
        help="Seconds that a call of a model, or the reading of a picture, may take. The process "
        "then ends and is started again, and what it ran runs alone; 0 waits for ever.",
    ),
]
PolicyPath = Annotated[
    str | None,
    Parameter(
        name="--batch-policy",
        help="A batching policy of your own, module:Class: when a batch is due and how many "
        "pictures it holds.",
    ),
]
DrainTimeout = Annotated[
    float,
    Parameter(
        name="--drain-timeout",
        help="Seconds in which it ends once it is told to, whatever hangs; what is unfinished by "
        "then is done by whoever comes next.",
    ),
]
StateFolder = Annotated[
    Path | None,
    Parameter(
        name="--state",
        env_var="ROADSTREAM_STATE",
        help="Folder on a local disk for what a worker must know after a crash: the images it was "
        "at. By default, with a member name, roadstream in XDG_STATE_HOME.",
    ),
]
MemberName = Annotated[
    str | None,
    Parameter(
        name="--member",
        help="Static group membership: who comes back under it goes on at once. {host} in it "
        "stands for this host's name.",
    ),
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
Without = Annotated[
    list[str] | None,
    Parameter(
        name="--without",
        negative="",
        help="Member or tier of the cascade to do without; repeatable. Answers name what was left "
        "out.",
    ),
]
LogLevel = Annotated[
    Level, Parameter(name="--log-level", help="Events of this level and above are logged.")
]
LogFormat = Annotated[
    Format,
    Parameter(
        name="--log-format",
        env_var="ROADSTREAM_LOG_FORMAT",
        help="text for people, json for programs; auto is text on a terminal.",
    ),
]
DEFAULT_KAFKA = "kafka://127.0.0.1:9092"


def member_name(given: str | None) -> str | None:
    """Return a ``--member`` with this host's name where it asks for it."""
    return None if given is None else given.replace("{host}", socket.gethostname())


def state_folder(given: Path | None, member: str | None) -> Path | None:
    """Return the folder for a worker's state; ``None`` for a worker that nobody could recognise.

    Where nobody has asked for one and none can be made, there is none either.
    """
    if given is not None or member is None:
        return given
    home = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    try:
        folder = Path(home).expanduser() / "roadstream"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # read-only, or no home at all
        return None
    return folder if os.access(folder, os.W_OK) else None


def check_drain_timeout(seconds: float) -> float:
    """Return a ``--drain-timeout`` that can be kept.

    Raises:
        UsageError: It leaves no time to leave in order, or is no time at all.
    """
    if not LEAVING < seconds <= MOST_DRAIN:
        raise UsageError(
            f"--drain-timeout: expected more than {LEAVING:g} and at most {MOST_DRAIN:g} seconds, "
            f"got {seconds:g}"
        )
    return seconds


def run_async(
    level: Level,
    function: Callable[[*Ts], Awaitable[T]],
    *args: *Ts,
    log_format: Format = "auto",
) -> T:
    """Run a coroutine function on uvloop, with logging set up.

    A supervised process logs JSON, which its supervisor passes on in a form of its own.
    """
    configure_logging(level, "json" if supervised() else log_format)
    # A batch allocates thousands of lists that die without a cycle; looking for cycles as often as
    # Python does by default takes a sixth of the consensus sink's time.
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)
    return anyio.run(function, *args, backend_options={"use_uvloop": True})
