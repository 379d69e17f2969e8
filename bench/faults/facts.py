"""What is noted about a campaign while it runs."""

from pathlib import Path

import msgspec


class Recovery(msgspec.Struct, frozen=True):
    """How long the partitions of a killed process stood still.

    Attributes:
        kind: Of the fault.
        target: The process.
        seconds: From its end until its group went on, on the last of its partitions.
        alone: Whether no other fault went on at the same time.
    """

    kind: str
    target: str
    seconds: float
    alone: bool


class Happened(msgspec.Struct, frozen=True):
    """A fault that was injected: when, upon what, and for how long it was felt.

    Attributes:
        number: Of the fault in the plan.
        kind: Of the fault.
        at: Seconds since the campaign began.
        seconds: Until all had recovered from it.
        targets: The processes it fell upon.
        gap: Longest time without an answer meanwhile.
    """

    number: int
    kind: str
    at: float
    seconds: float
    targets: list[str]
    gap: float


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """Where a campaign takes place.

    Attributes:
        url: The log, as ``--log`` takes it.
        folder: For everything that is written.
        ledger: Folder of the event ledgers.
        common: Options that every command is given.
        state: Options that every worker is given as well.
        partitions: Of each topic.
        session_timeout: Of the groups, in seconds.
        processes: How many of each tier, and of the consensus.
    """

    url: str
    folder: Path
    ledger: Path
    common: list[str]
    state: list[str]
    partitions: int
    session_timeout: float
    processes: int
