"""Compiles loops to machine code; the only module that knows numba.

The first call of a function compiles it, or loads what an earlier process compiled: seconds the
first time, a fraction of one after. So modules with such functions are imported where a cascade
asks for them, and never on an event loop. Compiled code runs without the interpreter's lock.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Any:
    """Compile on first call, and keep the machine code on disk if there is a place for it.

    What a function calls is part of its machine code, and numba looks for changes only in the
    function's own file: it must call no compiled function of another.
    """
    try:
        return numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # neither this folder nor the user's cache can be written
        return numba.njit(nogil=True, error_model="numpy")(function)


def forget(function: Any) -> None:
    """Delete what earlier processes kept of a compiled function, and of all others of its file."""
    folder, name = function.stats.cache_path, Path(function.py_func.__code__.co_filename).stem
    for file in Path(folder).glob(f"{name}.*.nb?") if folder else ():
        file.unlink(missing_ok=True)
