"""What the options of commands take, and what is said of any other value."""

from typing import Literal

from roadstream.schemas.errors import UsageError
from roadstream.streams.sources.listing import expand, is_glob
from roadstream.streams.sources.schemes import open_source, scheme_of
from roadstream.streams.sources.source import SourceOptions

# Beyond any use, and small enough that times and products stay numbers.
MOST_SECONDS = 1e9
MOST_FPS = 1000
MOST_MEBIBYTES = 1 << 20
# Processes, threads and the like of one command; partitions of a topic; pictures, ids shown.
MOST_WORKERS, MOST_PARTITIONS, MOST_SHOWN = 1024, 10_000, 1_000_000
# MiB; as in stages/decoding/decode.py, which commands that decode nothing do without.
DECODE_MEMORY = 512


def check_number(option: str, value: float | None, least: float, most: float, what: str) -> None:
    """Check that a number, if one is given, is one from ``least`` to ``most``.

    Args:
        option: As it is typed.
        value: What was given.
        least: The least that it takes.
        most: The most that it takes.
        what: What it says, for a person.

    Raises:
        UsageError: It is none, or out of these bounds.
    """
    if value is not None and not least <= value <= most:
        raise UsageError(f"{option}: expected {what}, {least} to {most:.15g}, got {value}")


def check_above(option: str, value: float | None, most: float, what: str) -> None:
    """Check that a number, if one is given, is above 0 and at most ``most``; see ``check_number``.

    Raises:
        UsageError: It is none, or out of these bounds.
    """
    if value is not None and not 0 < value <= most:
        raise UsageError(f"{option}: expected {what} above 0 and at most {most:.15g}, got {value}")


def check_stream(value: str | None) -> int | Literal["all"] | None:
    """Return what ``--stream`` asks for: a stream's number, all, or ``None`` for the largest.

    Raises:
        UsageError: It is neither.
    """
    if value is None or value == "all":
        return "all" if value else None
    if not (value.isascii() and value.isdigit() and len(value) <= 4):
        raise UsageError(f"--stream: expected all or the number of a video stream, got {value!r}")
    return int(value)


def check_hang_timeout(seconds: float) -> float:
    """Return a ``--hang-timeout``.

    Raises:
        UsageError: It is no time.
    """
    check_number("--hang-timeout", seconds, 0, MOST_SECONDS, "seconds")
    return seconds


def check_decode_memory(mebibytes: int) -> int:
    """Return a ``--decode-memory``.

    Raises:
        UsageError: It is no amount of memory.
    """
    check_number("--decode-memory", mebibytes, 1, MOST_MEBIBYTES, "MiB")
    return mebibytes


def check_paths(command: str, paths: tuple[str, ...]) -> None:
    """Check the PATHS of a command.

    Raises:
        UsageError: There are none, one looks like a mistyped option, a glob matches nothing, or the
            source of a word's scheme does not take it.
    """
    if not paths:
        raise UsageError(f"{command}: expected at least one PATH, got none (see --help)")
    for path in paths:
        if path.startswith("-") and path != "-":
            raise UsageError(
                f"{command}: unknown option {path} (see --help; a file of that name is ./{path})"
            )
        if scheme_of(path) is not None:
            open_source(path, SourceOptions())
        elif is_glob(path) and next(expand(path), None) is None:
            raise UsageError(f"{command}: {path} matches no file")
