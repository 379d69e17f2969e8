"""Hypothesis strategies for any value of a msgspec type, bounds of its fields included."""

from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st
from msgspec import inspect

_OTHERS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["", [], {}])
)


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for the valid values of a type."""
    return _values(inspect.type_info(kind))


def _values(info: inspect.Type) -> st.SearchStrategy[Any]:  # noqa: PLR0911 (one per type)
    match info:
        case inspect.StructType():
            return _structs(info)
        case inspect.UnionType(types=types):
            return st.one_of([_values(one) for one in types])
        case inspect.NoneType():
            return st.none()
        case inspect.BoolType():
            return st.booleans()
        case inspect.LiteralType(values=values):
            return st.sampled_from(values)
        case inspect.IntType(ge=ge, le=le):
            low = -(2**63) if ge is None else ge
            return st.integers(low, 2**63 - 1 if le is None else le)
        case inspect.FloatType():
            return _floats(info)
        case _:
            return _sequences(info)


def _sequences(info: inspect.Type) -> st.SearchStrategy[Any]:
    match info:
        case inspect.StrType():
            return _strings(info)
        case inspect.BytesType(min_length=least, max_length=most):
            return st.binary(min_size=least or 0, max_size=most or 20)
        case inspect.ListType(item_type=item):
            return st.lists(_values(item), min_size=info.min_length or 0, max_size=3)
        case inspect.VarTupleType(item_type=item):
            return st.lists(_values(item), max_size=3).map(tuple)
        case inspect.TupleType(item_types=items):
            return st.tuples(*map(_values, items))
        case inspect.DictType(key_type=key, value_type=value):
            return st.dictionaries(_values(key), _values(value), max_size=3)
    raise NotImplementedError(info)


def _strings(info: inspect.StrType) -> st.SearchStrategy[str]:
    if info.pattern is not None:
        return st.from_regex(info.pattern, fullmatch=True).filter(lambda text: len(text) <= 12)
    return st.text(min_size=info.min_length or 0, max_size=min(12, info.max_length or 12))


def _floats(info: inspect.FloatType) -> st.SearchStrategy[float]:
    low = info.gt if info.ge is None else info.ge
    high = info.lt if info.le is None else info.le
    return st.floats(
        low,
        high,
        exclude_min=info.gt is not None,
        exclude_max=info.lt is not None,
        allow_nan=False,
        allow_infinity=False,
    )


def _structs(info: inspect.StructType) -> st.SearchStrategy[Any]:
    fields = {field.name: _values(field.type) for field in info.fields}
    return st.builds(info.cls, **fields)


def near(value: Any, draw: st.DataObject) -> Any:
    """Return what a record is encoded from (maps, lists, scalars), but for one thing in it."""
    return _changed(value, draw.draw(st.sampled_from(list(_places(value, ())))), draw)


def _places(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    yield path
    inner = dict(enumerate(value)) if isinstance(value, list) else value
    for key, one in inner.items() if isinstance(inner, dict) else ():
        yield from _places(one, (*path, key))


def _changed(value: Any, path: tuple[Any, ...], draw: st.DataObject) -> Any:
    if not path:
        return draw.draw(_OTHERS | st.just([value]) | st.just({"a": value}))
    copy, (key, *rest) = value.copy(), path
    if not rest and draw.draw(st.integers(0, 4)) == 0:
        del copy[key]
    else:
        copy[key] = _changed(value[key], tuple(rest), draw)
    return copy
