"""The error tree: every fault that Roadstream raises on purpose, with its facts.

::

    RoadstreamError
    ├── UsageError            the caller asked for something that cannot be (exit status 2)
    │   └── ConfigError       a settings or cascade file is wrong: file, key, expected, got
    ├── RunError              the surroundings failed while running (exit status 1)
    │   ├── LogUnavailableError a log does not answer (retriable)
    │   ├── OutputError       an output could not be written: disk full, no permission
    │   └── FencedError         this consumer no longer owns what it tried to commit
    ├── EngineError           an engine broke its promise: a bug here, not a fault of the data
    │   ├── DeviceMemoryError   a batch did not fit into memory; a smaller one may (retriable)
    │   └── EngineDownError     the engine as a whole is away: its process, its server (retriable)
    ├── ImageError            one picture cannot be scored; never harms its neighbours
    └── RecordError           bytes on a topic are not the record that was expected
"""

from typing import ClassVar, Literal

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


class OutputError(RunError):
    """An output file or state file could not be written."""


class MachineError(RunError):
    """This machine has too little of something (open files, memory); no picture is at fault."""

    retriable = True


class FencedError(RunError):
    """A commit came from a consumer that has lost the partition since.

    Nothing is wrong with the data: the new owner does the work again.
    """


class EngineError(RoadstreamError):
    """An engine gave something other than one score per picture: a bug of the engine."""


class DeviceMemoryError(EngineError):
    """A batch did not fit into the memory of the device; no picture of it is at fault."""

    retriable = True


class EngineDownError(EngineError):
    """The engine as a whole is away, its process or its server; no picture is at fault."""

    retriable = True


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
