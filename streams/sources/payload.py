"""Read the bytes behind an image record's payload, trusting no path and no file."""

# Paths stay strings as the user spelled them; Path would rewrite "./a" and "a//b", and costs more.
# ruff: noqa: PTH114, PTH116, PTH117, PTH123

import errno
import hashlib
import os
import re
import stat
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, TypeVar

from roadstream.schemas.errors import ConfigError, ImageError, MachineError
from roadstream.schemas.records.image import Inline, Payload, Reference, Unreadable
from roadstream.streams.sources.beneath import READING, open_inside
from roadstream.streams.sources.identity import local
from roadstream.streams.sources.schemes import open_reader
from roadstream.streams.sources.source import PayloadReader

T = TypeVar("T")

_VANISHED = "there is no such file (or it has vanished since)"
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
}


# Storage that may be well again in a moment: a network file system, a disk that is being moved.
_STORAGE = frozenset({errno.EIO, errno.ESTALE, errno.EAGAIN, errno.ETIMEDOUT, errno.EINTR})
# What the machine has too little of; it says nothing of the file.
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_BLOCK = 1 << 16
_ENDS = 1 << 20
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


class Patience:
    """How long a machine is waited for whose storage, files or memory fail in a way that may pass.

    One is shared by all pictures of a batch, so that a batch of files on a dead disk fails in
    bounded time too.

    Args:
        pause: Waits so many seconds.
        budget: Seconds to be waited in all.
    """

    DELAYS = (0.02, 0.1, 0.5)

    def __init__(self, pause: Callable[[float], None] = time.sleep, budget: float = 2.0) -> None:
        self._pause, self._left = pause, budget

    def wait(self, failures: int) -> bool:
        """Wait before the next try after so many; return False when it is time to give up."""
        if failures > len(self.DELAYS) or self._left < self.DELAYS[failures - 1]:
            return False
        self._left -= self.DELAYS[failures - 1]
        self._pause(self.DELAYS[failures - 1])
        return True


def read_payload(
    payload: Payload,
    roots: Sequence[Path] | None,
    max_bytes: int,
    patience: Patience | None = None,
) -> bytes:
    """Return the encoded picture that a payload holds or points to.

    Args:
        payload: From an image or escalation record.
        roots: Folders that references may point into, symlinks resolved; ``None`` for anywhere.
        max_bytes: Largest picture to be read.
        patience: For storage that fails in a way that may pass; by default, one of its own.

    Raises:
        ImageError: ``refused`` outside the roots, and for a scheme that nobody reads; ``changed``
            where size or hash differ from the record's; ``missing``, ``unreadable``, ``too_large``;
            an `Unreadable`'s own fault.
        MachineError: The machine has no file descriptor or no memory for it, after all patience.
    """
    match payload:
        case Inline(data):
            if len(data) > max_bytes:
                raise too_large(len(data), max_bytes)
            return data
        case Reference():
            return _read_reference(payload, roots, max_bytes, patience or Patience())
        case Unreadable(fault, problem):
            raise ImageError(fault, problem)


def read_file(path: str, max_bytes: int) -> bytes:
    """Read a regular file of at most ``max_bytes`` bytes, again where an error may pass.

    Raises:
        ImageError: ``missing``, ``unreadable``, ``bad_name`` or ``too_large``.
        MachineError: As for ``read_payload``.
    """
    return patiently(lambda: _read(path, None, max_bytes), Patience())


def patiently(call: Callable[[], T], patience: Patience) -> T:
    """Return what ``call`` returns, called again where an error may pass.

    Raises:
        ImageError: Its ``OSError``, as a fault of the file.
        MachineError: The machine has too little of something, and says nothing of the file.
    """
    failures = 0
    while True:
        try:
            return call()
        except OSError as error:
            failures += 1
            if error.errno in _STORAGE | _EXHAUSTED and patience.wait(failures):
                continue
            tries = f" (tried {failures} times)" if failures > 1 else ""
            if error.errno in _EXHAUSTED:
                raise MachineError(f"cannot open pictures: {error.strerror}{tries}") from None
            fault = file_fault(error)
            raise ImageError(fault.fault, f"{fault.problem}{tries}") from None


def _read(path: str, roots: Sequence[Path] | None, max_bytes: int) -> bytes:
    with open_file(path, roots) as file:
        data = ready(file.read(max_bytes + 1))
        if len(data) > max_bytes:
            raise too_large(os.fstat(file.fileno()).st_size, max_bytes)
        return data


def open_file(path: str, roots: Sequence[Path] | None) -> BinaryIO:
    """Open a regular file for reading, without ever waiting for it.

    Args:
        path: Absolute path.
        roots: Folders that it must lie in, whatever links lead to it; ``None`` for any.

    Raises:
        ImageError: ``refused`` outside of them; ``unreadable`` for what is no regular file.
        OSError: As ``os.open``.
    """
    descriptor = os.open(path, READING) if roots is None else open_inside(path, roots)
    try:
        check_regular(os.fstat(descriptor))
        return open(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def look(path: str) -> os.stat_result:
    """Return the status of a file that is there, regular, readable and not empty.

    Raises:
        ImageError: ``missing``, ``unreadable``, ``bad_name`` or ``empty``.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise ImageError("missing", absent(path)) from None
    except OSError as error:
        raise file_fault(error) from None
    check_regular(status)
    if status.st_size == 0:
        raise ImageError("empty", "the file has no bytes")
    if not os.access(path, os.R_OK):
        raise ImageError("unreadable", "permission denied")
    return status


def hash_file(path: str, max_bytes: int) -> tuple[int, bytes]:
    """Return a file's size and SHA-256 without holding the file in memory.

    Raises:
        ImageError: ``unreadable`` or ``too_large``.
        OSError: As ``os.open``.
    """
    found, size = hashlib.sha256(), 0
    with open_file(path, None) as file:
        while block := ready(file.read(_BLOCK)):
            found.update(block)
            size += len(block)
            if size > max_bytes:
                raise too_large(os.fstat(file.fileno()).st_size, max_bytes)
    return size, found.digest()


def video_content(path: str) -> bytes:
    """Return 32 bytes that tell a video's content: a hash of its size, first and last MiB.

    Raises:
        ImageError: ``missing``, ``unreadable``, ``bad_name`` or ``empty``.
        MachineError: As for ``read_payload``.
    """
    look(path)
    return patiently(lambda: _hash_ends(path), Patience())


def _hash_ends(path: str) -> bytes:
    with open_file(path, None) as file:
        size = os.fstat(file.fileno()).st_size
        found = hashlib.sha256(size.to_bytes(8, "big"))
        found.update(ready(file.read(_ENDS)))
        file.seek(max(size - _ENDS, 0))
        found.update(ready(file.read(_ENDS)))
        return found.digest()


def ready(data: bytes | None) -> bytes:
    """Return what was read of a file that was opened so that it never waits.

    Raises:
        BlockingIOError: It would have waited, as some files of ``/proc`` do.
    """
    if data is None:
        raise BlockingIOError(errno.EAGAIN, "it has nothing to be read now")
    return data


def check_regular(status: os.stat_result) -> None:
    """Refuse whatever is not a regular file.

    Raises:
        ImageError: ``unreadable``, naming what it is.
    """
    if (what := irregular(status)) is not None:
        raise ImageError("unreadable", f"is {what}, expected a picture file")


def irregular(status: os.stat_result) -> str | None:
    """Say what it is that is no regular file; ``None`` for one."""
    kind = stat.S_IFMT(status.st_mode)
    return None if kind == stat.S_IFREG else _KINDS.get(kind, "no regular file")


def absent(path: str) -> str:
    """Say what is wrong with a path at which nothing is found."""
    return "a symbolic link to nothing" if os.path.islink(path) else _VANISHED


def too_large(size: int, limit: int) -> ImageError:
    """Build the fault of a file over its limit, both in bytes."""
    return ImageError("too_large", f"{size:,} bytes; at most {limit:,} are allowed")


def file_fault(error: OSError) -> ImageError:
    """Turn what the operating system said about a file into a fault."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return ImageError("missing", _VANISHED)
    if isinstance(error, PermissionError):
        return ImageError("unreadable", "permission denied")
    if error.errno == errno.ELOOP:
        return ImageError("unreadable", "symbolic links lead in a circle")
    if error.errno == errno.ENAMETOOLONG:
        return ImageError("bad_name", "the name is longer than the file system allows")
    return ImageError("unreadable", error.strerror or type(error).__name__)


class FileReader(PayloadReader):
    """Reads what lies in files of this machine: absolute paths, and ``file:///…``."""

    def read(self, path: str, roots: Sequence[Path] | None, max_bytes: int) -> bytes:
        return _read(local(path), roots, max_bytes)


FILES = FileReader()


def _read_reference(
    reference: Reference, roots: Sequence[Path] | None, max_bytes: int, patience: Patience
) -> bytes:
    reader = _reader(reference.path)
    if reference.size > max_bytes:
        raise too_large(reference.size, max_bytes)
    data = patiently(lambda: reader.read(reference.path, roots, max_bytes), patience)
    if len(data) != reference.size:
        raise ImageError(
            "changed", f"expected {reference.size:,} bytes as when it was sent, got {len(data):,}"
        )
    if reference.sha256 is not None and hashlib.sha256(data).digest() != reference.sha256:
        raise ImageError("changed", "its content is not what was sent (SHA-256 differs)")
    return data


def _reader(reference: str) -> PayloadReader:
    """Return what reads a reference, by its scheme.

    Raises:
        ImageError: ``refused``: it is no absolute path, and nobody reads its scheme;
            ``unreadable``: what another distribution brings for it cannot be used.
    """
    path = local(reference)
    if os.path.isabs(path) and "\0" not in path:
        return FILES
    try:
        reader = open_reader(path)
    except ConfigError as error:
        raise ImageError("unreadable", str(error)) from error
    if reader is None:
        scheme = _SCHEME.match(path)
        what = f"{scheme[0]} references are not followed, " if scheme else ""
        raise ImageError("refused", f"{what}expected an absolute path, got {path!r}")
    return reader
