"""What is wrong with a settings file, said so that its author finds the place."""

import re
from typing import Any

import msgspec

from roadstream.schemas.errors import ConfigError

_AT = re.compile(r"^(?P<problem>.*?)(?: - at `\$(?P<path>[^`]*)`)?$", re.DOTALL)


def config_error(
    error: msgspec.ValidationError, given: Any, where: str, *, root: str = "", schema: str
) -> ConfigError:
    """Say what msgspec found wrong as a person would: file, key, expected, got.

    Args:
        error: What it raised.
        given: What it was given to convert, decoded.
        where: The file.
        root: Key in the file that ``given`` stood at; empty for the whole.
        schema: Name of the schema that ``roadstream schema`` shows, for a hint.
    """
    match = _AT.match(str(error))
    assert match is not None
    problem, path = match["problem"], (match["path"] or "").removeprefix(".")
    hint = f"(see `roadstream schema {schema}`)"
    at = f"{where}: {_joined(root, path) or 'top level'}"
    if found := re.match(r"Object contains unknown field `(.*)`", problem):
        return ConfigError(at, f"a known key {hint}", f"the unknown key {found[1]}")
    if found := re.match(r"Object missing required field `(.*)`", problem):
        return ConfigError(f"{where}: {_joined(root, path, found[1])}", "a value", "nothing")
    if problem.startswith("Invalid "):
        return ConfigError(at, f"a known value {hint}", _value_at(given, path))
    expected, _, got = problem.removeprefix("Expected ").partition(", got ")
    return ConfigError(at, expected, got or _value_at(given, path))


def _joined(*keys: str) -> str:
    return ".".join(key for key in keys if key)


def _value_at(value: Any, path: str) -> str:
    for key in re.findall(r"[^.\[\]]+", path):
        try:
            value = value[int(key)] if isinstance(value, list) else value[key]
        except (KeyError, IndexError, ValueError, TypeError):
            return "nothing"
    return repr(value)
