"""A file that appears whole: written beside its target and moved into place when complete."""

import os
from contextlib import suppress
from pathlib import Path

from roadstream.schemas.errors import OutputError, UsageError


class AtomicFile:
    """A temporary binary file beside ``path``; ``commit`` moves it there, ``discard`` drops it.

    Until ``commit`` the target is what it was before. Temporary files that killed processes of
    this machine left for the same target are removed on opening.

    Attributes:
        path: The target, with links resolved.
        file: Where to write; ``OSError`` of its methods is for the caller to turn to ``failure``.

    Raises:
        UsageError: The target is there and no regular file, or its folder does not exist.
        OutputError: The folder cannot be written to.
    """

    def __init__(self, path: Path) -> None:
        self._given = path
        self.path = Path(os.path.realpath(path))
        self._part = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        try:
            _check(path, self.path)
            _remove_stale(self.path)
            self.file = self._part.open("wb")
        except OSError as problem:
            raise self.failure(problem) from problem

    def commit(self) -> None:
        """Put the file in place, durably; on ``OutputError`` the temporary file is gone."""
        try:
            self.file.flush()
            os.fsync(self.file.fileno())
            self.file.close()
            self._part.replace(self.path)
        except OSError as problem:
            self.discard()
            raise self.failure(problem) from problem

    def discard(self) -> None:
        """Drop the temporary file; never raises."""
        with suppress(OSError):
            self.file.close()
        with suppress(OSError):
            self._part.unlink(missing_ok=True)

    def failure(self, problem: OSError) -> OutputError:
        """Return the error that tells a person about ``problem`` with this file."""
        reason = problem.strerror or problem
        return OutputError(f"{self._given}: expected a file that can be written: {reason}")


def _check(path: Path, target: Path) -> None:
    if target.is_dir():
        raise UsageError(f"{path}: expected a file to write, got a folder")
    if target.exists() and not target.is_file():  # moving a file there would do away with it
        raise UsageError(f"{path}: expected a file to write, got a device, pipe or socket")
    if not target.parent.is_dir():
        raise UsageError(f"{path}: expected an existing folder {target.parent}, found none")


def _remove_stale(target: Path) -> None:
    before, after = f".{target.name}.", ".part"
    with suppress(OSError):
        for found in target.parent.iterdir():
            pid = found.name.removeprefix(before).removesuffix(after)
            if found.name == f"{before}{pid}{after}" and pid.isdecimal() and _gone(int(pid)):
                found.unlink(missing_ok=True)


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False
