"""Whole records drawn from their types, extremes included, for Hypothesis.

What is drawn follows the types that the decoders have, so no list of fields can fall behind them:
``within`` draws what decodes, ``around`` also what does not, as another client might send it.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

Plain = st.SearchStrategy[Any]
# More of one kind would draw for long and say no more.
MOST_LISTED, MOST_DRAWN = 3, 40
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=MOST_DRAWN)
STRANGE = [
    "\x00",
    "\r\n",
    "\t",
    "\u202e",
    "\U0010ffff",
    "=1+1",
    '"',
    ",",
    "[red]",
    "</script>",
    " ",
    "ÿ",
]


@cache
def within(kind: Any) -> Plain:
    """Draw what decodes as ``kind``, as plain lists, dicts, numbers and strings."""
    return _drawn(inspect.type_info(kind))


def _drawn(info: inspect.Type) -> Plain:
    return _STRATEGIES[type(info)](info)


def _number(info: inspect.FloatType) -> Plain:
    assert info.ge is not None, "a number without a bound"
    assert info.le is not None, "a number without a bound"
    low, high = float(info.ge), float(info.le)
    ends = [low, high, *(x for x in (-0.0, 5e-324, -5e-324, 1, 1.7e9) if low <= x <= high)]
    return st.sampled_from(ends) | st.floats(low, high)


def _whole(info: inspect.IntType) -> Plain:
    assert info.ge is not None, "a number without a bound"
    assert info.le is not None, "a number without a bound"
    return st.sampled_from([info.ge, info.le]) | st.integers(info.ge, info.le) | st.integers(0, 3)


def _text(info: inspect.StrType) -> Plain:
    if info.pattern is not None:
        return st.from_regex(info.pattern, fullmatch=True)
    least, most = info.min_length or 0, info.max_length
    assert most is not None, "a string without a bound"
    strange = [text for text in [*STRANGE, "x" * most] if len(text) >= least]
    return st.sampled_from(strange) | TEXTS.filter(lambda text: len(text) >= least)


def _bytes(info: inspect.BytesType) -> Plain:
    return st.binary(min_size=info.min_length or 0, max_size=min(info.max_length or 40, 40))


def _struct(info: inspect.StructType) -> Plain:
    fields = {field.encode_name: _drawn(field.type) for field in info.fields}
    if info.array_like:
        return st.tuples(*fields.values()).map(list)
    needed = {field.encode_name for field in info.fields if field.required}
    if info.tag_field is not None:
        fields[info.tag_field] = st.just(info.tag)
        needed.add(info.tag_field)
    return st.fixed_dictionaries(
        {name: one for name, one in fields.items() if name in needed},
        optional={name: one for name, one in fields.items() if name not in needed},
    )


_STRATEGIES: dict[type[inspect.Type], Callable[[Any], Plain]] = {
    inspect.FloatType: _number,
    inspect.IntType: _whole,
    inspect.StrType: _text,
    inspect.BytesType: _bytes,
    inspect.BoolType: lambda _: st.booleans(),
    inspect.NoneType: lambda _: st.none(),
    inspect.LiteralType: lambda info: st.sampled_from(info.values),
    inspect.UnionType: lambda info: st.one_of([_drawn(one) for one in info.types]),
    inspect.ListType: lambda info: st.lists(_drawn(info.item_type), max_size=MOST_LISTED),
    inspect.DictType: lambda info: st.dictionaries(
        _drawn(info.key_type), _drawn(info.value_type), max_size=MOST_LISTED
    ),
    inspect.TupleType: lambda info: st.tuples(*map(_drawn, info.item_types)).map(list),
    inspect.StructType: _struct,
}
ABSURD = st.sampled_from(
    [math.nan, math.inf, -math.inf, 1e300, -1e300, -1, 2**63, 2**64 - 1, -(2**63), "", "x" * 70_000]
) | st.one_of(
    st.none(), st.booleans(), st.floats(), st.binary(max_size=3), TEXTS, st.just([]), st.just({})
)


@st.composite
def around(draw: st.DrawFn, kind: Any) -> Any:
    """Draw what is nearly a ``kind``: with something absurd, missing or besides in it."""
    record = draw(within(kind))
    for _ in range(draw(st.integers(0, 2))):
        record = _spoilt(draw, record)
    return record


def _spoilt(draw: st.DrawFn, value: Any) -> Any:
    """Return ``value`` with one place in it spoilt."""
    if not value or not isinstance(value, dict | list) or draw(st.integers(0, 5)) == 0:
        return draw(ABSURD)
    copy = value.copy()
    places = sorted(copy) if isinstance(copy, dict) else list(range(len(copy)))
    place = draw(st.sampled_from(places))
    match draw(st.sampled_from(["deeper", "deeper", "deeper", "missing", "besides"])):
        case "deeper":
            copy[place] = _spoilt(draw, copy[place])
        case "missing":
            del copy[place]
        case _ if isinstance(copy, dict):
            copy[draw(TEXTS)] = draw(ABSURD)
        case _:
            copy.append(draw(ABSURD))
    return copy


def packed(plain: Any) -> bytes:
    """Return what was drawn as it lies on a log."""
    return msgspec.msgpack.encode(plain)


def evened(record: Any) -> Any:
    """Return votes or an answer as drawn, with an entry per member run in every list."""
    for tier in record.get("tiers", []):
        tier[2:4] = [one or [None] * len(tier[1]) for one in _as_long(tier[2:4], tier[1])]
        tier[7:9] = _as_long(tier[7:9], tier[1])
        tier[10:11] = _as_long(tier[10:11], tier[1])
    runs = record.get("runs", [])
    for said in record.get("images", []):
        said[1:3] = [one or [None] * len(runs) for one in _as_long(said[1:3], runs)]
        said[8], said[10], said[12] = _as_long([said[8], said[10], said[12]], runs)
    return record


def _as_long(lists: list[Any], runs: list[Any]) -> list[Any]:
    """Return raw scores, probabilities, boxes or texts, as long as the runs; boxes may be none."""
    return [one if one is None else _repeated(one, len(runs)) for one in lists]


def _repeated(some: list[Any], count: int) -> list[Any] | None:
    return [some[i % len(some)] for i in range(count)] if some or not count else None
