"""The regions of shared memory that a member's requests go through, each used by one at a time."""

import threading
from collections.abc import Callable

import structlog

from roadstream.schemas.errors import EngineDownError, EngineError
from roadstream.workers.engines.triton.memory import Region

logger = structlog.get_logger()
# More requests than that at once go over gRPC.
MOST = 8


class Regions:
    """Keeps regions that the server knows, and makes new ones as they are needed. Thread-safe.

    Args:
        register: Tells the server of a region (blocking).
        unregister: Lets it forget one (blocking).
        member: For the log.
    """

    def __init__(
        self,
        register: Callable[[Region], None],
        unregister: Callable[[Region], None],
        member: str,
    ) -> None:
        self._register, self._unregister, self._member = register, unregister, member
        self._lock = threading.Lock()
        self._free: list[Region] = []
        self._used = 0
        self._epoch = -1
        self._refused = False

    def take(self, size: int, epoch: int) -> Region | None:
        """Return a region of at least ``size`` bytes, or ``None`` where there can be none.

        Args:
            size: Bytes.
            epoch: Of the server; one that began anew knows no region of before.

        Raises:
            EngineDownError: The server is away.
        """
        with self._lock:
            stale = self._begin(epoch)
            if self._refused or self._used >= MOST:
                return None
            self._used += 1
            found = self._smallest(size)
            if found is None and self._used + len(self._free) > MOST:
                stale.append(self._free.pop(0))
        for region in stale:
            self._forget(region)
        made = None
        try:
            made = found or self._make(size)
        finally:
            if made is None:
                with self._lock:
                    self._used -= 1
        return made

    def give(self, region: Region, epoch: int) -> None:
        """Give back what `take` returned for that ``epoch``."""
        with self._lock:
            self._used -= 1
            keep = epoch == self._epoch and not self._refused
            if keep:
                self._free.append(region)
        if not keep:
            self._forget(region)

    def close(self) -> None:
        """Give all back."""
        with self._lock:
            free, self._free = self._free, []
            self._refused = True
        for region in free:
            self._forget(region)

    def _begin(self, epoch: int) -> list[Region]:
        """Start with a server that began anew; return the regions that it does not know."""
        if epoch == self._epoch:
            return []
        stale, self._free = self._free, []
        self._epoch, self._refused = epoch, False
        return stale

    def _smallest(self, size: int) -> Region | None:
        """Take the smallest free region that is large enough."""
        fitting = [region for region in self._free if region.size >= size]
        if not fitting:
            return None
        found = min(fitting, key=lambda region: region.size)
        self._free.remove(found)
        return found

    def _make(self, size: int) -> Region | None:
        """Return a new region that the server knows; say once per server why there is none."""
        try:
            region = Region(size)
        except OSError as error:
            self._do_without(error)
            return None
        try:
            self._register(region)
        except EngineError as error:
            region.close()
            if isinstance(error, EngineDownError):
                raise
            self._do_without(error)
            return None
        region.hide()
        return region

    def _do_without(self, error: Exception) -> None:
        with self._lock:
            first, self._refused = not self._refused, True
        if first:
            said = {"member": self._member, "error": str(error)}
            logger.warning("triton_without_shared_memory", **said, instead="gRPC")

    def _forget(self, region: Region) -> None:
        try:
            self._unregister(region)
        finally:
            region.close()
