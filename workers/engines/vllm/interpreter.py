"""Finds the Python of the environment that vLLM is installed in."""

import importlib.util
import os
import sys
from pathlib import Path

from roadstream.schemas.errors import ConfigError

VARIABLE = "ROADSTREAM_VLLM_PYTHON"


def find_interpreter(given: str | None, where: str) -> str:
    """Return the path of the interpreter that runs the engine.

    Args:
        given: The member's setting.
        where: The setting's place, for errors.

    Raises:
        ConfigError: There is none; the text says how to make one.
    """
    for source, named in ((f"{where}.python", given), (VARIABLE, os.environ.get(VARIABLE))):
        if named:
            if os.access(named, os.X_OK) and Path(named).is_file():
                return named
            raise ConfigError(source, "an interpreter that can be run", named)
    if importlib.util.find_spec("vllm") is not None:
        return sys.executable
    raise ConfigError(
        f"{where}.python",
        f"an interpreter with vLLM in its environment, here or in {VARIABLE}; make one with"
        " `uv venv --python 3.12 vllm && uv pip install --python vllm/bin/python vllm`"
        " (see docs/guide/vllm.md)",
        "nothing",
    )
