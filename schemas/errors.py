"""The error tree: every fault that Roadstream raises on purpose, with its facts.

::

    RoadstreamError
    ├── UsageError            the caller asked for something that cannot be (exit status 2)
    │   └── ConfigError       a settings or cascade file is wrong: file, key, expected, got
    ├── RunError              the surroundings failed while running (exit status 1)
    │   ├── LogUnavailableError a log does not answer (retriable)
    │   │   └── RegroupError        a group must be joined anew: its topics have changed
    │   ├── OutputError       an output could not be written: disk full, no permission
    │   │   ├── RecordRefusedError  the log refuses some records for good: they are too large
    │   │   └── ForbiddenError      the log does not allow it: a right is missing, a policy
    │   ├── ChangedError        weights are no longer what the cascade was loaded with (status 65)
    │   ├── MachineError        this machine has too few file descriptors or too little memory
    │   ├── FencedError         this consumer no longer owns what it tried to commit
    │   └── ReplacedError       another process has this one's member name (exit status 78)
    ├── EngineError           an engine broke its promise: a bug here, not a fault of the data
    │   ├── DeviceMemoryError   a batch did not fit into memory; a smaller one may (retriable)
    │   ├── EngineDownError     the engine as a whole is away: its process, its server (retriable)
    │   └── OutOfServiceError   a member was not asked: its circuit breaker is open
    ├── ImageError            one picture cannot be scored; never harms its neighbours
    └── RecordError           bytes on a topic are not the record that was expected
"""

import re
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import msgspec

ImageFault = Literal[
    "missing",
    "unreadable",
    "bad_name",
    "empty",
    "not_an_image",
    "truncated",
    "damaged",
    "unsupported",
    "too_large",
    "too_many_pixels",
    "changed",
    "refused",
    "damaged_video",
    "model_failed",
    "model_abstained",
    "process_killed",
    "expired",
]


class RoadstreamError(Exception):
    """Base of all errors raised on purpose; its text is one line for a person."""

    retriable: ClassVar[bool] = False
    exit_status: ClassVar[int] = 1


class UsageError(RoadstreamError):
    """What the caller asked for cannot be done as asked."""

    exit_status = 2


class ConfigError(UsageError):
    """A settings or cascade file does not say what is expected.

    Args:
        where: File and key, such as ``lite.toml: tiers[1].members[0].weight``.
        expected: What would be right there.
        got: What stands there.
    """

    def __init__(self, where: str, expected: str, got: str) -> None:
        super().__init__(f"{where}: expected {expected}, got {got}")
        self.where = where


class RunError(RoadstreamError):
    """The surroundings failed: a disk, a broker, a process."""


class LogUnavailableError(RunError):
    """A log cannot be reached or does not answer in time; trying again may help.

    Its exit status is ``EX_TEMPFAIL`` of sysexits.h, which a supervisor may take as it is meant.
    """

    retriable = True
    exit_status = 75


class RegroupError(LogUnavailableError):
    """The partitions of a group's topics have changed; it has to be joined anew."""


class OutputError(RunError):
    """An output file or state file could not be written."""


class Refusal(NamedTuple):
    """A record that a log refuses for good.

    Attributes:
        row: Its position among the outputs of the call.
        topic: Where it should have gone.
        size: Its bytes, key and value.
        limit: Bytes that the topic allows, as far as that is known.
    """

    row: int
    topic: str
    size: int
    limit: int | None = None

    def __str__(self) -> str:
        """Say what was expected and what came."""
        most = "fewer" if self.limit is None else f"at most {self.limit:,}"
        return f"{self.topic} refuses a record of {self.size:,} bytes: expected {most}"


class RecordRefusedError(OutputError):
    """The log refuses some records for good; all others of the call are acknowledged.

    Args:
        refused: Which, and why.
    """

    def __init__(self, refused: Sequence[Refusal]) -> None:
        more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
        super().__init__(f"{refused[0]}{more}")
        self.refused = refused


class ForbiddenError(OutputError):
    """The log does not allow something until a person mends it: a missing right, a policy."""


class ChangedError(RunError):
    """Weights on the disk are not those that the cascade was loaded with.

    What was judged with them would bear the hash of others. Its exit status is ``EX_DATAERR`` of
    sysexits.h: putting the weights back helps, and so does starting the whole system anew.

    Args:
        where: The member, and the file or folder with its weights.
        expected: The digest on loading.
        got: The digest now, or why there is none.
    """

    exit_status = 65

    def __init__(self, where: str, expected: str, got: str) -> None:
        super().__init__(
            f"{where}: changed since the cascade was loaded: expected {expected}, got {got}"
        )


class MachineError(RunError):
    """This machine has too little of something (open files, memory); no picture is at fault."""

    retriable = True


class FencedError(RunError):
    """A commit came from a consumer that has lost the partition since.

    Nothing is wrong with the data: the new owner does the work again.
    """


class ReplacedError(RunError):
    """Another process has joined the group under this one's member name, which is theirs by now.

    Starting this one again would take the name back, and so on in turn: its exit status is
    ``EX_CONFIG`` of sysexits.h, after which a supervisor must not.
    """

    exit_status = 78


class EngineError(RoadstreamError):
    """An engine gave something other than one score per picture: a bug of the engine."""


class DeviceMemoryError(EngineError):
    """A batch did not fit into the memory of the device; no picture of it is at fault."""

    retriable = True


class EngineDownError(EngineError):
    """The engine as a whole is away, its process or its server; no picture is at fault."""

    retriable = True


class OutOfServiceError(EngineError):
    """A member was not shown a picture, as it kept failing; no picture is at fault."""

    def __init__(self, member: str) -> None:
        super().__init__(f"model_failed: {member} is out of service, as it kept failing")


class RecordError(RoadstreamError):
    """The bytes of a record do not decode to what its topic promises."""

    def __init__(self, topic: str, partition: int, offset: int, problem: str) -> None:
        super().__init__(f"{topic}[{partition}]@{offset}: {problem}")
        self.topic, self.partition, self.offset = topic, partition, offset


class ImageError(RoadstreamError):
    """One picture cannot be scored.

    Args:
        fault: The kind of fault, stable for programs.
        problem: What was expected and what came, for a person.
    """

    def __init__(self, fault: ImageFault, problem: str) -> None:
        super().__init__(f"{fault}: {problem}")
        self.fault, self.problem = fault, problem


# Characters of a wrong value that a message repeats.
MOST_SHOWN = 200
# What msgspec says, and of which field.
_AT = re.compile(r"^(?P<problem>.*?)(?: - at `\$(?P<path>[^`]*)`)?$", re.DOTALL)


def config_error(
    error: msgspec.ValidationError, given: Any, where: str, *, root: str = "", schema: str
) -> ConfigError:
    """Say what msgspec found wrong in settings as a person would: file, key, expected, got.

    Args:
        error: What it raised.
        given: What it was given to convert, decoded.
        where: The file.
        root: Key in the file that ``given`` stood at; empty for the whole.
        schema: Name of the schema that ``roadstream schema`` shows, for a hint.
    """
    match = _AT.match(str(error))
    assert match is not None
    problem, path = match["problem"], (match["path"] or "").removeprefix(".")
    at = f"{where}: {_joined(root, path) or 'top level'}"
    if found := re.match(r"Object contains unknown field `(.*)`", problem, re.DOTALL):
        return unknown_key(at, found[1], schema)
    if found := re.match(r"Object missing required field `(.*)`", problem):
        return ConfigError(f"{where}: {_joined(root, path, found[1])}", "a value", "nothing")
    if problem.startswith("Invalid "):
        hint = f"(see `roadstream schema {schema}`)"
        return ConfigError(at, f"a known value {hint}", _value_at(given, path))
    if problem == "Number out of range":
        return ConfigError(at, "a smaller number", _value_at(given, path))
    expected, _, got = problem.removeprefix("Expected ").partition(", got ")
    return ConfigError(at, expected, got or _value_at(given, path))


def unknown_key(at: str, name: str, schema: str) -> ConfigError:
    """Return the error that a file has a key which nobody knows.

    Args:
        at: The file, and the key of the table with it.
        name: The unknown key.
        schema: Name of the schema that tells the known ones.
    """
    expected = f"a known key (see `roadstream schema {schema}`)"
    return ConfigError(at, expected, f"the unknown key {shortened(name) or repr(name)}")


def _joined(*keys: str) -> str:
    return ".".join(key for key in keys if key)


def _value_at(value: Any, path: str) -> str:
    for key in re.findall(r"[^.\[\]]+", path):
        try:
            value = value[int(key)] if isinstance(value, list) else value[key]
        except (KeyError, IndexError, ValueError, TypeError):
            return "nothing"
    try:
        return shortened(repr(value))
    except RecursionError:
        return "tables within tables without end"


def shortened(text: str) -> str:
    """Return as much of a wrong value as a message repeats."""
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"
