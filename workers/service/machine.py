"""What this process may use of its machine: how many CPUs, and one heap for all threads.

glibc gives each thread a heap of its own, and each keeps what pictures and weights once took:
much memory, in a process that runs models, that was freed and is of no use to anybody.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import suppress
from math import ceil
from pathlib import Path

ROOT = Path("/")
# M_ARENA_MAX of glibc's malloc.h.
_ARENA_MAX = -8


def usable_cpus(root: Path = ROOT) -> int:
    """Return how many CPUs this process may use, at least 1.

    A container sees every CPU of its host and is given the time of some: its quota counts too,
    rounded up. See https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files.

    Args:
        root: Folder in which ``proc`` and ``sys`` lie.
    """
    return max(1, min([_affine(), *map(ceil, _quotas(root))]))


def _affine() -> int:
    if hasattr(os, "process_cpu_count"):  # from Python 3.13 on
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(root: Path) -> Iterator[float]:
    """Yield the quotas, in CPUs, of the control groups that this process is in."""
    mounted = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if not controllers:
            yield from _quotas_of_version_2(mounted, group)
        elif "cpu" in controllers.split(","):
            yield from _quotas_of_version_1(mounted / controllers, group)
            yield from _quotas_of_version_1(mounted / "cpu", group)


def _quotas_of_version_2(mounted: Path, group: str) -> Iterator[float]:
    for folder in _up(mounted, group):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        yield from _cpus(quota, period)


def _quotas_of_version_1(mounted: Path, group: str) -> Iterator[float]:
    for folder in _up(mounted, group):
        yield from _cpus(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))


def _up(mounted: Path, group: str) -> list[Path]:
    """Return a group's folder and those above it.

    In a namespace of its own the group's name is one of the host's, and its folder is the root.
    """
    names = [name for name in group.split("/") if name not in ("", "..")]
    return [mounted.joinpath(*names[:depth]) for depth in range(len(names), -1, -1)]


def _cpus(quota: str, period: str) -> Iterator[float]:
    """Yield a quota as CPUs; nothing for no limit (``max``, −1) or no such file."""
    with suppress(ValueError, ZeroDivisionError):
        if (cpus := int(quota) / int(period)) > 0:
            yield cpus


def _read(file: Path) -> str:
    try:
        return file.read_text("ascii", "replace").strip()
    except OSError:
        return ""


def share_heap() -> None:
    """Let all threads of this process take memory from one heap; call it before they begin."""
    if (mallopt := _glibc("mallopt")) is not None:
        mallopt(_ARENA_MAX, 1)


def trim_heap() -> None:
    """Give what is free back to the system, as after models were loaded."""
    if (malloc_trim := _glibc("malloc_trim")) is not None:
        malloc_trim(ctypes.c_size_t(0))


def _glibc(name: str) -> "ctypes._NamedFuncPointer | None":
    """Return a function that only glibc has."""
    try:
        found: ctypes._NamedFuncPointer = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):  # another C library
        return None
    return found
