"""Memory that the C library keeps though it was freed: little, in a process that runs models.

glibc gives each thread a heap of its own, and each keeps what pictures and weights once took.
"""

import ctypes

# M_ARENA_MAX of glibc's malloc.h.
_ARENA_MAX = -8


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
