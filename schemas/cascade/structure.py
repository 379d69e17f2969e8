"""Reads decoded TOML into structs, and says all that is wrong with it, not only the first thing."""

import datetime
import re
from difflib import get_close_matches
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, TypeGuard, Union, get_args, get_origin

import msgspec
from msgspec.structs import FieldInfo

from roadstream.schemas.errors import ConfigError, config_error, unknown_key

# What TOML has and JSON has not.
_TOML_TYPES = (datetime.datetime, datetime.date, datetime.time)
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


class Broken:
    """Stands for a value that is wrong, and told already: nothing more is to be said of it.

    Attributes:
        given: What the file says; ``None`` if it says nothing.
    """

    def __init__(self, given: Any = None) -> None:
        self.given = given


def decode_toml(data: bytes, where: str) -> dict[str, Any]:
    """Decode TOML; ``where`` names it in errors.

    Raises:
        ConfigError: It is none.
    """
    try:
        found: dict[str, Any] = msgspec.toml.decode(data)
    # Bytes that are no UTF-8, and numbers of thousands of digits, are a ValueError; the parser of
    # the standard library recurses into nested arrays and tables.
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise ConfigError(where, "a TOML file", str(error)) from None
    return found


class Reader:
    """Reads settings of a file as their types want them.

    What it returns has a ``Broken`` in the place of each wrong or missing value. Where nothing is
    wrong, it is what ``msgspec.convert`` returns.

    Args:
        where: The file.
        schema: Name of the schema that ``roadstream schema`` shows, for hints.
        untouched: Type whose tables are returned as they are, for the caller to read.

    Attributes:
        mistakes: All that was wrong so far.
    """

    def __init__(self, where: str, schema: str, untouched: type | None = None) -> None:
        self._where, self._schema, self._untouched = where, schema, untouched
        self.mistakes: list[ConfigError] = []

    def read(self, given: Any, kind: Any, key: str = "") -> Any:
        """Return a value as its type wants it.

        Args:
            given: What the file says.
            kind: The type.
            key: Its place in the file; empty for the whole.
        """
        if given is None:
            return self._leaf(given, kind, key)
        kind, bounds = _without_bounds(kind)
        if kind is self._untouched:
            return self._leaf(given, dict[str, Any], key)
        if (struct := _struct_of(kind, given)) is not None:
            return self._table(given, struct, key)
        container, items = get_origin(kind), get_args(kind)
        if container is dict or container is list or (container is tuple and ... in items):
            return self._items(given, kind, bounds, key)
        return self._leaf(given, _bounded(kind, bounds), key)

    def _table(self, given: dict[str, Any], struct: type[msgspec.Struct], key: str) -> Any:
        fields = _fields(struct)
        misspelled = self._unknown(given, struct, key)
        values = {}
        for name, field in fields.items():
            if name in given:
                values[field.name] = self.read(given[name], field.type, joined(key, name))
            elif name in misspelled:
                values[field.name] = Broken()
            elif field.required:
                self._add(joined(key, name), "a value", "nothing")
                values[field.name] = Broken()
        if hasattr(struct, "__post_init__") and not all(map(known, values.values())):
            return Broken(given)
        try:
            return struct(**values)
        except (TypeError, ValueError) as error:  # of its own __post_init__
            return self._wrong(msgspec.ValidationError(str(error)), given, key)

    def _unknown(self, given: dict[str, Any], struct: type[msgspec.Struct], key: str) -> set[str]:
        """Tell the keys of a table that nobody knows; return those that are meant by them."""
        config, fields = struct.__struct_config__, _fields(struct)
        if not config.forbid_unknown_fields:
            return set()
        unknown = [name for name in given if name not in fields and name != config.tag_field]
        self.mistakes += [unknown_key(self._at(key), name, self._schema) for name in unknown]
        absent = [name for name in fields if name not in given]
        return {one for name in unknown for one in get_close_matches(name, absent, n=1)}

    def _items(self, given: Any, kind: Any, bounds: tuple[Any, ...], key: str) -> Any:
        container, items = get_origin(kind), get_args(kind)
        loose = dict[str, Any] if container is dict else container[Any, ...]
        if container is list:
            loose = list[Any]
        if not known(self._leaf(given, _bounded(loose, bounds), key)):
            return Broken(given)
        if container is dict:
            places = [(joined(key, name), name, one) for name, one in given.items()]
            return {
                self._leaf(name, items[0], at): self.read(one, items[1], at)
                for at, name, one in places
            }
        return container(
            self.read(one, items[0], f"{key}[{index}]") for index, one in enumerate(given)
        )

    def _leaf(self, given: Any, kind: Any, key: str) -> Any:
        try:
            return msgspec.convert(given, kind, builtin_types=_TOML_TYPES, str_keys=True)
        except msgspec.ValidationError as error:
            return self._wrong(error, given, key)
        except RecursionError:
            self._add(key, "fewer tables within tables", "more than can be read")
            return Broken(given)

    def _wrong(self, error: msgspec.ValidationError, given: Any, key: str) -> Any:
        self.mistakes.append(config_error(error, given, self._where, root=key, schema=self._schema))
        return Broken(given)

    def _add(self, key: str, expected: str, got: str) -> None:
        self.mistakes.append(ConfigError(self._at(key), expected, got))

    def _at(self, key: str) -> str:
        return f"{self._where}: {key or 'top level'}"


def known(value: object) -> bool:
    """Tell whether something can be said of a value, as it is not broken."""
    return not isinstance(value, Broken)


def joined(key: str, name: str) -> str:
    """Return the key of a name in a table, as TOML spells it."""
    spelled = name if _BARE_KEY.fullmatch(name) else repr(name)
    return f"{key}.{spelled}" if key else spelled


@cache
def _fields(struct: type[msgspec.Struct]) -> dict[str, FieldInfo]:
    return {field.encode_name: field for field in msgspec.structs.fields(struct)}


def _without_bounds(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return a type without ``None`` and ``Annotated``; and the bounds that stood there."""
    bounds: tuple[Any, ...] = ()
    if get_origin(kind) in (Union, UnionType):
        kinds = [one for one in get_args(kind) if one is not NoneType]
        if len(kinds) == 1:
            kind = kinds[0]
    if get_origin(kind) is Annotated:
        kind, *rest = get_args(kind)
        bounds = tuple(rest)
    return kind, bounds


def _bounded(kind: Any, bounds: tuple[Any, ...]) -> Any:
    return Annotated[(kind, *bounds)] if bounds else kind


def _struct_of(kind: Any, given: Any) -> type[msgspec.Struct] | None:
    """Return the struct that a table is meant to be; of several that which its tag names."""
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    structs = [one for one in kinds if _is_struct(one)]
    if not isinstance(given, dict):
        return None
    for one in structs:
        config = one.__struct_config__
        if config.tag_field is None or given.get(config.tag_field) == config.tag:
            return one
    return None


def _is_struct(kind: Any) -> TypeGuard[type[msgspec.Struct]]:
    return (
        isinstance(kind, type)
        and issubclass(kind, msgspec.Struct)
        and not kind.__struct_config__.array_like
    )
