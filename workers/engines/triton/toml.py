"""A cascade as the text of a cascade file."""

from typing import Any

import msgspec
import tomli_w

from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.settings.base import EngineSettings

# Told even where it is the default, since it is what has to be changed most often.
_TOLD = "url"
# Of a cascade; they are made on loading.
_FOUND = frozenset({"hash", "folder", "snapshot"})


def cascade_toml(cascade: Cascade, comment: str) -> str:
    """Return a cascade's file: what it says beyond the defaults.

    Args:
        cascade: The cascade.
        comment: One line for the head of the file.
    """
    return f"# {comment}\n{tomli_w.dumps(_said(cascade))}"


def _said(value: Any) -> Any:
    """Return a value as TOML has it: of structs, the fields that differ from their defaults."""
    if isinstance(value, list):
        return [_said(one) for one in value]
    if not isinstance(value, msgspec.Struct):
        return value
    config = value.__struct_config__
    found = {} if config.tag is None else {config.tag_field: config.tag}
    for field in msgspec.structs.fields(value):
        one = getattr(value, field.name)
        default = field.default
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        if one is None or field.name in _FOUND:
            continue
        if isinstance(one, EngineSettings):  # each engine's are of a type of its own
            one, default = _said(one), {}
        if field.required or field.name == _TOLD or one != default:
            found[field.encode_name] = _said(one)
    return found
