"""Numbers on the command line: what their options take, and what is said of any other."""

from typing import Literal

from roadstream.schemas.errors import UsageError

# Beyond any use, and small enough that times and products stay numbers.
MOST_SECONDS = 1e9
MOST_FPS = 1000
MOST_MEBIBYTES = 1 << 20
# Processes, threads and the like of one command; partitions of a topic; pictures, ids shown.
MOST_WORKERS, MOST_PARTITIONS, MOST_SHOWN = 1024, 10_000, 1_000_000


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
