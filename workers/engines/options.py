"""What every engine of a process is given besides its member."""

from collections.abc import Hashable
from typing import Any

import msgspec


class EngineOptions(msgspec.Struct, frozen=True):
    """What the engines of one process are given.

    Attributes:
        threads: Threads per engine call.
        shared: What its engines share, such as a backbone that several members look through.
    """

    threads: int = 1
    shared: dict[Hashable, Any] = {}
