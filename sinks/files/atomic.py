"""A file that appears whole: written beside its target and moved into place when complete."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from roadstream.schemas.errors import OutputError, UsageError
from roadstream.sinks.sink import AnswerSink


class AtomicFile:
    """A temporary binary file beside ``path``; ``commit`` moves it there, ``discard`` drops it.

    Until ``commit`` the target is what it was before. Temporary files that killed processes of
    this machine left for the same target are removed on opening.

    Attributes:
        path: The target, with links resolved.

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
            self._file = self._part.open("wb")
        except OSError as problem:
            raise self._failure(problem) from problem

    @contextmanager
    def writing(self) -> Iterator[BinaryIO]:
        """Yield where to write; raise ``OutputError`` of an ``OSError`` within the block."""
        try:
            yield self._file
        except OSError as problem:
            raise self._failure(problem) from problem

    def commit(self) -> None:
        """Put the file in place, durably; raise ``OutputError`` if that cannot be."""
        with self.writing() as file:
            file.flush()
            os.fsync(file.fileno())
            file.close()
            self._part.replace(self.path)

    def discard(self) -> None:
        """Drop the temporary file; never raises."""
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._part.unlink(missing_ok=True)

    def _failure(self, problem: OSError) -> OutputError:
        reason = problem.strerror or problem
        return OutputError(f"{self._given}: expected a file that can be written: {reason}")


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Yield where to write a file that is in place at the end of the block, or not at all.

    Raises:
        UsageError: As ``AtomicFile``.
        OutputError: It cannot be written.
    """
    atomic = AtomicFile(path)
    try:
        with atomic.writing() as file:
            yield file
        atomic.commit()
    except BaseException:
        atomic.discard()
        raise


class FileSink(AnswerSink):
    """A sink whose target is a file, which appears whole when it is committed."""

    def __init__(self, target: str) -> None:
        self.file = AtomicFile(Path(target))

    def commit(self) -> None:
        self.file.commit()

    def abort(self) -> None:
        self.file.discard()


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
