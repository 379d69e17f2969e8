"""What the campaign asks of a process that it has started: a small file per process, and a clock.

A control file holds one order, ``verb`` or ``verb argument``; it is read again whenever it changes.
``die POINT`` is carried out once, by SIGKILL of the process itself, and removed first, so that the
process that is started in its place lives.
"""

import mmap
import os
import signal
import struct
import time
from pathlib import Path

POINTS = (
    "before-model", "in-model", "after-model", "before-publish", "in-publish", "after-publish",
    "in-take-over", "in-give-up",
)  # fmt: skip
_OFFSET = struct.Struct("=d")


class Controls:
    """The orders of one process, as that process sees them.

    Args:
        folder: Where the campaign keeps its control files; ``None`` obeys nobody.
        name: The process's name there.
    """

    def __init__(self, folder: Path | None, name: str = "") -> None:
        self._path = None if folder is None else folder / name
        self._stamp: tuple[int, int] | None = None
        self._order = ("", "")

    def order(self) -> tuple[str, str]:
        """Return the present verb and its argument, both empty if there is none."""
        if self._path is None:
            return self._order
        try:
            found = self._path.stat()
        except FileNotFoundError:
            self._stamp, self._order = None, ("", "")
            return self._order
        stamp = found.st_mtime_ns, found.st_ino
        if stamp != self._stamp:
            self._stamp = stamp
            verb, _, argument = self._path.read_text().strip().partition(" ")
            self._order = verb, argument
        return self._order

    def number(self, verb: str) -> float:
        """Return the number that goes with ``verb``, 0 if that is not the order."""
        found, argument = self.order()
        return float(argument) if found == verb else 0.0

    def point(self, name: str) -> None:
        """Die here if that is the order."""
        if self.order() == ("die", name) and self._path is not None:
            self._path.unlink()
            os.kill(os.getpid(), signal.SIGKILL)


class ControlPanel:
    """The same files, as the campaign sees them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def give(self, name: str, order: str) -> None:
        """Give a process its order, in place of an earlier one."""
        draft = self.folder / f".{name}"
        draft.write_text(order)
        draft.replace(self.folder / name)

    def clear(self, name: str) -> None:
        """Take an order back."""
        (self.folder / name).unlink(missing_ok=True)

    def pending(self, name: str) -> bool:
        """Return whether the order still stands; a ``die`` is gone when it was carried out."""
        return (self.folder / name).exists()


class SharedClock:
    """A wall clock whose error the campaign sets, for all processes of a machine at once.

    Args:
        path: A file of one double: seconds to be added to the system's clock.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(_OFFSET.pack(0.0))
        with path.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), _OFFSET.size)

    @property
    def error(self) -> float:
        """Seconds that this clock is ahead; negative if it is behind."""
        found: float = _OFFSET.unpack_from(self._page)[0]
        return found

    def step(self, error: float) -> None:
        """Set the error."""
        _OFFSET.pack_into(self._page, 0, error)

    def install(self) -> None:
        """Make ``time.time`` and ``time.time_ns`` of this process follow this clock."""
        true, true_ns, page = time.time, time.time_ns, self._page

        def wrong() -> float:
            seconds: float = true() + _OFFSET.unpack_from(page)[0]
            return seconds

        def wrong_ns() -> int:
            return true_ns() + int(_OFFSET.unpack_from(page)[0] * 1e9)

        time.time, time.time_ns = wrong, wrong_ns
