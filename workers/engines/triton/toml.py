"""A cascade as the text of a cascade file."""

import json
import re
from typing import Any

import msgspec

from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.settings.base import EngineSettings

_BARE = re.compile(r"[A-Za-z0-9_-]+")
# Told even where it is the default, since it is what has to be changed most often.
_TOLD = "url"


def cascade_toml(cascade: Cascade, comment: str) -> str:
    """Return a cascade's file: what it says beyond the defaults, tables in their order.

    Args:
        cascade: The cascade.
        comment: One line for the head of the file.
    """
    lines = [f"# {comment}"]
    top = _said(cascade, {"tiers", "pool", "hash", "folder", "snapshot"})
    lines += [f"{key} = {_value(value)}" for key, value in top.items()]
    if pool := _said(cascade.pool, set()):
        lines += ["", "[pool]", *[f"{key} = {_value(value)}" for key, value in pool.items()]]
    for tier in cascade.tiers:
        lines += ["", "[[tiers]]"]
        lines += [f"{k} = {_value(v)}" for k, v in _said(tier, {"members", "routes"}).items()]
        for table, entries in (("members", tier.members), ("routes", tier.routes)):
            for entry in entries:
                lines += ["", f"[[tiers.{table}]]"]
                lines += [f"{k} = {_value(v)}" for k, v in _said(entry, set()).items()]
    return "\n".join(lines) + "\n"


def _said(struct: msgspec.Struct, without: set[str]) -> dict[str, Any]:
    """Return the fields that differ from their defaults, as plain values."""
    fields = msgspec.structs.fields(struct)
    found = {}
    for field in fields:
        value = getattr(struct, field.name)
        default = field.default
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        if isinstance(value, EngineSettings):
            value, default = _said(value, set()), {}
        told = field.required or field.name == _TOLD or value != default
        if told and field.name not in without:
            found[field.encode_name] = msgspec.to_builtins(value)
    return found


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else json.dumps(key, ensure_ascii=False)


def _value(value: Any) -> str:
    """Return a value as TOML; tables inline. What JSON escapes in a string, TOML reads alike."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            return json.dumps(value, ensure_ascii=False)
        case list() | tuple():
            return f"[{', '.join(map(_value, value))}]"
        case dict():
            pairs = [f"{_key(k)} = {_value(v)}" for k, v in value.items() if v is not None]
            return f"{{ {', '.join(pairs)} }}" if pairs else "{}"
        case _:
            raise TypeError(f"expected a value that TOML has, got {type(value).__name__}")
