"""Open a file below a folder so that no link leads out of it, whoever changes what meanwhile.

Checking a path and opening it afterwards leaves a moment in which a folder can be exchanged for a
link. So the folder is opened first and the kernel resolves the rest of the path below it
(``openat2`` with ``RESOLVE_BENEATH``, https://man7.org/linux/man-pages/man2/openat2.2.html, Linux
5.6). Where there is no such call, folder after folder is opened without following links.
"""

# Paths stay strings: Path would cost more, and os.open takes none of its methods.
# ruff: noqa: PTH118, PTH206

import ctypes
import errno
import os
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from roadstream.schemas.errors import ImageError

# O_NONBLOCK: a pipe put in the file's place must not hang the reader.
READING = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
# Search permission is all that a folder on the way needs, where the system can say so.
_FOLDER = os.O_DIRECTORY | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)

_OPENAT2 = 437  # on every Linux architecture: it came after their tables were made one
_RESOLVE_NO_MAGICLINKS, _RESOLVE_BENEATH = 0x02, 0x08
# What a path says that changes while it is looked at; it is then looked at anew, so many times.
_CHANGING = frozenset({errno.EXDEV, errno.ELOOP, errno.EAGAIN, errno.EINVAL, errno.ENOTDIR})
_TRIES = 4

Opener = Callable[[int, str], int]


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def open_inside(path: str, roots: Sequence[Path], opener: Opener | None = None) -> int:
    """Open a file for reading that lies inside one of some folders, and return its descriptor.

    Links are followed as long as they stay inside the folder.

    Args:
        path: Absolute path.
        roots: The folders.
        opener: Opens a path below an open folder; by default the best way of this system.

    Raises:
        ImageError: ``refused``: it lies outside all of them, or a link to it leads outside;
            ``changed``: its folders do not stand still.
        OSError: As ``os.open``.
    """
    opener = opener or best_opener()
    for tries in range(1, _TRIES + 1):
        try:
            root, below = _place(path, roots)
            return _open_below(root, below, opener)
        except OSError as error:
            if error.errno not in _CHANGING:
                raise
            if tries == _TRIES:
                raise _never_still(error, path, roots) from None
    raise AssertionError("unreachable")


def _place(path: str, roots: Sequence[Path]) -> tuple[str, str]:
    """Return the root that holds a path, and the path below it, both without links as of now."""
    real = os.path.realpath(path)
    for root in roots:
        folder = os.path.realpath(root)
        if real == folder:
            return folder, os.curdir
        if real.startswith(os.path.join(folder, "")):
            return folder, real[len(os.path.join(folder, "")) :]
    raise _outside(path, roots)


def _never_still(error: OSError, path: str, roots: Sequence[Path]) -> Exception:
    """Return what to say of a path that could not be opened however often it was looked at."""
    if error.errno == errno.EXDEV:
        return _outside(path, roots)
    if error.errno == errno.EINVAL:  # what was a link is none any more, time and again
        return ImageError("changed", f"{path}: a folder on its way is being exchanged")
    return error


def _outside(path: str, roots: Sequence[Path]) -> ImageError:
    allowed = ", ".join(str(root) for root in roots) or "none"
    return ImageError("refused", f"{path} is not inside an allowed folder (allowed: {allowed})")


def _open_below(root: str, below: str, opener: Opener) -> int:
    folder = os.open(root, _FOLDER)
    try:
        return opener(folder, below)
    finally:
        os.close(folder)


@cache
def best_opener() -> Opener:
    """Return ``by_kernel`` where this system has it, else ``by_steps``."""
    if sys.platform != "linux":  # the number is of another call there
        return by_steps
    try:
        os.close(_open_below(os.sep, os.curdir, by_kernel))
    except OSError:  # an older kernel, or a sandbox forbids it
        return by_steps
    return by_kernel


def by_kernel(folder: int, below: str) -> int:
    """Open a path below an open folder; links may lead anywhere inside it.

    Raises:
        OSError: As ``openat2``; ``EXDEV`` where a link leads out.
    """
    how = _OpenHow(READING, 0, _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS)
    name = os.fsencode(below)
    number, size = ctypes.c_long(_OPENAT2), ctypes.c_size_t(ctypes.sizeof(how))
    descriptor: int = _libc().syscall(number, ctypes.c_long(folder), name, ctypes.byref(how), size)
    if descriptor < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), below)
    return descriptor


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def by_steps(folder: int, below: str) -> int:
    """Open a path below an open folder, name by name; a link on the way is an error.

    Raises:
        OSError: As ``os.open``; ``ELOOP`` or ``ENOTDIR`` for a link.
    """
    *above, last = below.split(os.sep)
    if os.pardir in (*above, last):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), below)
    opened = folder
    try:
        for name in above:
            deeper = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=opened)
            if opened != folder:
                os.close(opened)
            opened = deeper
        return os.open(last, READING | os.O_NOFOLLOW, dir_fd=opened)
    finally:
        if opened != folder:
            os.close(opened)
