"""Imported by the command line, before all else: no file of the folder it is run in is a module."""

import os
import sys


def _put_working_folder_last() -> None:
    """Let no file of the user's folder stand in for a module, where ``PYTHONPATH`` has it first.

    An empty part of it means the working folder: few want that who write ``$PYTHONPATH:/more``.
    """
    parts = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if len(parts) == 1 or "" not in parts:
        return
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, parts))  # for children
    try:
        here = os.getcwd()  # noqa: PTH109 (as it is in the path)
    except OSError:
        return
    sys.path[:] = [*(folder for folder in sys.path if folder not in ("", here)), here]


_put_working_folder_last()
