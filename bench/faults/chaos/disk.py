"""A disk that can be filled: a small file system of this process and its children alone.

It is a tmpfs in a mount namespace of its own, so nobody else sees it, and it is gone when the last
process is. Where the kernel does not allow that, files of the campaign's processes may not grow
instead (RLIMIT_FSIZE), which SQLite reports as an input/output error rather than a full disk.
"""

import ctypes
import os
import resource
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_NEWNS, _NEWUSER = 0x00020000, 0x10000000
_REC, _PRIVATE = 0x4000, 0x40000
_REMOUNT, _DETACH = 0x20, 0x2


def mount_small_disk(folder: Path, size: int) -> bool:
    """Mount an empty disk of ``size`` bytes on ``folder``; return whether that is allowed here.

    Call it before there are threads: it moves this process to namespaces of its own.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.geteuid(), os.getegid()
    folder.mkdir(parents=True, exist_ok=True)
    if libc.unshare(_NEWNS | (0 if user == 0 else _NEWUSER)) != 0:
        return False
    if user != 0:
        with suppress(OSError):
            Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    if libc.mount(b"none", b"/", None, _REC | _PRIVATE, None) != 0:
        return False
    return _mount(folder, 0, size)


def unmount_small_disk(folder: Path) -> None:
    """Take the disk away again, so that its folder can be removed."""
    ctypes.CDLL(None, use_errno=True).umount2(os.fsencode(folder), _DETACH)


def _mount(folder: Path, flags: int, size: int) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"size={size}".encode()
    mounted: int = libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", flags, options)
    return mounted == 0


class Disk:
    """The disk that a log lies on.

    Args:
        folder: Where it is.
        size: Bytes of the small disk that is mounted there; 0 if none is.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self._folder, self._size = folder, size
        self._limited: list[int] = []

    def fill(self, pids: Iterable[int]) -> None:
        """Leave no room; ``pids`` are the processes that write to it."""
        if not self._size:
            for pid in pids:
                _limit(pid, 0)
                self._limited.append(pid)
            return
        found = os.statvfs(self._folder)
        used = (found.f_blocks - found.f_bfree) * found.f_frsize
        if not _mount(self._folder, _REMOUNT, used):
            raise OSError(f"{self._folder}: cannot be made smaller")

    def free(self) -> None:
        """Give the room back."""
        for pid in self._limited:
            with suppress(ProcessLookupError):
                _limit(pid, resource.RLIM_INFINITY)
        self._limited.clear()
        if self._size and not _mount(self._folder, _REMOUNT, self._size):
            raise OSError(f"{self._folder}: cannot be made larger")


def _limit(pid: int, size: int) -> None:
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))
