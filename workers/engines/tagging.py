"""Tags from what a model says of a picture besides its vote: log-odds of a few named values."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray

from roadstream.schemas.errors import ConfigError, EngineError
from roadstream.schemas.records.bounds import MOST_TAG, MOST_TAGS, TAG_NAME

PREFIX = "tag_"
_NAME = re.compile(TAG_NAME)
_VALUES = (
    f"a metadata property of that name with two or more different values of 1 to {MOST_TAG} "
    "characters, separated by commas"
)


class Head(NamedTuple):
    """An output that tells the value of one tag: the tag's name, and the values in order."""

    tag: str
    values: tuple[str, ...]

    @property
    def output(self) -> str:
        """Name of the output, and of the metadata property with its values."""
        return PREFIX + self.tag


class Tagger(NamedTuple):
    """How the outputs of some heads become tags.

    Attributes:
        heads: See ``heads_of``.
        confidence: Least softmax of the likeliest value; below it there is no tag of that name.
    """

    heads: Sequence[Head]
    confidence: float

    def tags(self, logits: Sequence[NDArray[Any]]) -> dict[str, str]:
        """Return one picture's tags by name.

        Args:
            logits: Of each head, float [K].

        Raises:
            EngineError: There are not as many numbers as values, or one is not finite.
        """
        found = {}
        for head, row in zip(self.heads, logits, strict=True):
            value = self._value(head, row.tolist())
            if value is not None:
                found[head.tag] = value
        return found

    def _value(self, head: Head, odds: list[float]) -> str | None:
        if len(odds) != len(head.values) or not math.isfinite(sum(odds)):
            expected = f"{len(head.values)} finite numbers in {head.output}"
            raise EngineError(f"expected {expected}, got {odds}")
        most = max(odds)
        share = 1.0 / sum(math.exp(each - most) for each in odds)
        return head.values[odds.index(most)] if share >= self.confidence else None


def heads_of(outputs: Mapping[str, Any], properties: Mapping[str, str], where: str) -> list[Head]:
    """Check the outputs that are called ``tag_NAME`` and return them as heads, in their order.

    Args:
        outputs: What onnxruntime tells of each output, by name: ``type`` and ``shape``.
        properties: The model's metadata; that of an output's name has its values, separated by
            commas.
        where: Names the model in errors.

    Raises:
        ConfigError: An output has another type or shape, names no tag, or its values have no
            names; or there are more than a picture may have tags.
    """
    names = [name for name in outputs if name.startswith(PREFIX)]
    if len(names) > MOST_TAGS:
        raise ConfigError(where, f"at most {MOST_TAGS} outputs {PREFIX}NAME", str(len(names)))
    return [_head(outputs[name], properties, f"{where}: output {name}") for name in names]


def _head(output: Any, properties: Mapping[str, str], where: str) -> Head:
    tag = output.name.removeprefix(PREFIX)
    if not _NAME.fullmatch(tag):
        expected = f"a tag's name of 1 to 64 letters, digits, - and _ after {PREFIX}"
        raise ConfigError(where, expected, repr(tag))
    told = properties.get(output.name)
    values = tuple(value.strip() for value in told.split(",")) if told is not None else ()
    named = all(0 < len(value) <= MOST_TAG for value in values)
    if len(values) < 2 or not named or len(set(values)) < len(values):
        raise ConfigError(where, _VALUES, repr(told))
    shape = output.shape
    one_each = len(shape) == 2 and shape[1] == len(values) and shape[0] != 0
    if output.type != "tensor(float)" or not one_each:
        expected = f"float32 [N, {len(values)}], a number for each of {', '.join(values)}"
        raise ConfigError(where, expected, f"{output.type} {shape}")
    return Head(tag, values)


def chosen_heads(
    outputs: Mapping[str, Any],
    properties: Mapping[str, str],
    tags: bool | Sequence[str],
    where: str,
) -> list[Head]:
    """Return the heads of the tags that are wanted: all, or those that are named.

    Args:
        outputs: See ``heads_of``.
        properties: See ``heads_of``.
        tags: Names, or whether any are wanted.
        where: Names the model in errors.

    Raises:
        ConfigError: A named tag has no head, or as ``heads_of``.
    """
    if not tags:
        return []
    heads = heads_of(outputs, properties, where)
    if tags is True:
        return heads
    there = [head.tag for head in heads]
    if missing := [tag for tag in tags if tag not in there]:
        expected = f"settings.tags among {', '.join(there) or 'none'}, of which it has outputs"
        raise ConfigError(where, expected, ", ".join(missing))
    return [head for head in heads if head.tag in tags]
