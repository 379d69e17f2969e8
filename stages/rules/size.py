"""The size check: whether boxes are as wide, in metres, as what they show can be. Pure.

A pinhole camera shows a thing of ``m`` metres that is ``d`` metres away ``f·m/d`` wide, where ``f``
is its focal length. With ``f`` and the box's width both as shares of the picture's width, the thing
is ``width·d/f`` metres wide.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from roadstream.schemas.cascade.rules import Size
from roadstream.schemas.records.votes import Box
from roadstream.stages.inference import DepthMap

# Focal lengths that cameras have, as multiples of the picture's width: from fields of view of 157°
# to telescopes.
_SHORTEST, _LONGEST = 0.1, 50.0
# A box that comes so near to the picture's sides, in widths of it, may show only a part.
_MARGIN = 0.01
# Pixels of the depth map below which a box is too narrow, or too low, for its depth to be told from
# that of what is beside it.
_LEAST_PIXELS = 2
# Boxes that are told of one by one.
_MOST_TOLD = 3


class Focal(NamedTuple):
    """The focal length of a picture, as a multiple of its width.

    Attributes:
        least: The least that it may be.
        greatest: The greatest; the same where it is known.
        factor: Factor of the confidence of boxes whose size it makes impossible.
        said: Who says so, in words.
    """

    least: float
    greatest: float
    factor: float
    said: str


class Sized(NamedTuple):
    """A box of a kind whose size is known.

    Attributes:
        box: The box.
        kind: By what words its label was told.
        expected: Least and greatest width of that kind, in metres.
        metres: Least and greatest width of what it shows, by all focal lengths that are possible;
            ``None`` where the depth map does not tell.
        possible: Whether it is as wide as its kind can be; ``None`` likewise.
    """

    box: Box
    kind: str
    expected: tuple[float, float]
    metres: tuple[float, float] | None = None
    possible: bool | None = None


class Sizes(NamedTuple):
    """What the check says of a picture.

    Attributes:
        tag: ``plausible``, ``impossible`` or ``unknown``; empty if it has nothing to check.
        said: What was measured, in words.
        lowered: Boxes of an impossible size, with the confidence that is left to them.
    """

    tag: str = ""
    said: str = ""
    lowered: Mapping[Box, Box] = {}


NOTHING_TO_CHECK = Sizes()


class SizeCheck:
    """A cascade's size check, ready to be asked once per picture.

    Args:
        rule: Its settings.
    """

    def __init__(self, rule: Size) -> None:
        self._rule = rule
        self._kinds = [(name, _words(name), bounds) for name, bounds in rule.metres.items()]

    def check(
        self, boxes: Iterable[Box], depth: DepthMap | str, told: float | None = None
    ) -> Sizes:
        """Return what it says of a picture; in what order boxes come makes no difference.

        Args:
            boxes: What was found in it.
            depth: How far away things are, or why that is not known.
            told: Focal length as a multiple of the picture's width, as its file says it.
        """
        found = sorted(self._of_known_kind(boxes), key=_surest)
        if not found:
            return NOTHING_TO_CHECK
        if isinstance(depth, str):
            return Sizes("unknown", f"size: not checked: {depth}")
        focal = self._focal(depth, told)
        sized = [self._sized(one, depth.metres, focal) for one in found]
        wrong = [one for one in sized if one.possible is False]
        lowered = {one.box: _scaled(one.box, focal.factor) for one in wrong}
        return Sizes(_tag(sized), _said(sized, wrong, focal), lowered)

    def _of_known_kind(self, boxes: Iterable[Box]) -> Iterator[Sized]:
        """Yield the boxes within the picture of which it is known how wide they can be, once."""
        for box in dict.fromkeys(boxes):
            if (kind := self._kind(box.label)) is not None and _cut(box) is not None:
                yield Sized(box, *kind)

    def _kind(self, label: str) -> tuple[str, tuple[float, float]] | None:
        """Return by what words a label is known, and the widths of all that it may mean."""
        words = _words(label)
        fitting = [(name, bounds) for name, asked, bounds in self._kinds if asked <= words]
        if not fitting:
            return None
        names, ranges = zip(*fitting, strict=True)
        return " or ".join(names), (min(low for low, _ in ranges), max(high for _, high in ranges))

    def _focal(self, depth: DepthMap, told: float | None) -> Focal:
        """Return the focal length by the first who says one that a camera can have."""
        rule, wrong = self._rule, ""
        sayers = [(rule.focal, "the cascade"), (depth.focal, "the depth member"), (told, "EXIF")]
        for value, sayer in sayers:
            if value is None:
                continue
            if _SHORTEST <= value <= _LONGEST:
                said = f"focal length {value:.3g} of the width by {sayer}"
                return Focal(value, value, rule.factor, said)
            wrong += f" ({sayer} says {value:g})"
        said = f"soft, as no focal length is known{wrong}"
        return Focal(*rule.focal_range, rule.soft_factor, said)

    def _sized(self, one: Sized, metres: NDArray[np.floating[Any]], focal: Focal) -> Sized:
        """Return a box with its size."""
        cut = _cut(one.box)
        if cut is None or (depth := _depth(cut, metres)) is None:
            return one
        width = (cut.x2 - cut.x1) * depth
        least, greatest = width / focal.greatest, width / focal.least
        low, high = one.expected
        slack = 1 + self._rule.slack
        partly = cut.x1 < _MARGIN or cut.x2 > 1 - _MARGIN
        possible = least <= high * slack and (partly or greatest >= low / slack)
        return one._replace(metres=(least, greatest), possible=possible)


def _surest(one: Sized) -> tuple[float, ...]:
    """Return what sorts boxes: the surest first, and the rest by their places."""
    box = one.box
    return -box.confidence, box.x1, box.y1, box.x2, box.y2


def _words(text: str) -> frozenset[str]:
    """Return the words of a label or of a kind's name, singular."""
    found = re.findall(r"[^\W_]+", text.casefold())
    return frozenset(word[:-1] if len(word) > 3 and word[-1] == "s" else word for word in found)


def _cut(box: Box) -> Box | None:
    """Return the part of a box that lies in the picture; ``None`` if it has no area there."""
    x1, x2 = sorted(min(max(x, 0.0), 1.0) for x in (box.x1, box.x2))
    y1, y2 = sorted(min(max(y, 0.0), 1.0) for y in (box.y1, box.y2))
    return Box(x1, y1, x2, y2, box.confidence) if x1 < x2 and y1 < y2 else None


def _depth(box: Box, metres: NDArray[np.floating[Any]]) -> float | None:
    """Return how far away is what a box shows; ``None`` if the map does not tell.

    It is the lower quartile in the middle of the box's lower half. Cones, barriers and machines are
    widest at their foot; what is beside them, and what is seen through their gaps, is farther away,
    and covers more of a box than what stands before them.
    """
    height, width = metres.shape
    across, down = box.x2 - box.x1, box.y2 - box.y1
    if across * width < _LEAST_PIXELS or down * height < _LEAST_PIXELS:
        return None
    rows = _span(box.y1 + down / 2, box.y2, height)
    columns = _span(box.x1 + across / 4, box.x2 - across / 4, width)
    part = metres[rows, columns]
    known = part[np.isfinite(part) & (part > 0)]
    if 2 * known.size < part.size:
        return None
    return float(np.partition(known, (known.size - 1) // 4)[(known.size - 1) // 4])


def _span(begin: float, end: float, pixels: int) -> slice:
    """Return the pixels of so many that lie in a part of a side, at least one."""
    first = min(math.floor(begin * pixels), pixels - 1)
    return slice(first, max(math.ceil(end * pixels), first + 1))


def _scaled(box: Box, factor: float) -> Box:
    return Box(box.x1, box.y1, box.x2, box.y2, box.confidence * factor, box.label)


def _tag(sized: Sequence[Sized]) -> str:
    verdicts = {one.possible for one in sized}
    if True in verdicts:
        return "plausible"
    return "impossible" if False in verdicts else "unknown"


def _said(sized: Sequence[Sized], wrong: Sequence[Sized], focal: Focal) -> str:
    parts = [_told(one, focal.factor) for one in wrong[:_MOST_TOLD]]
    if len(wrong) > _MOST_TOLD:
        parts.append(f"{len(wrong) - _MOST_TOLD} more of an impossible size")
    if fitting := sum(one.possible is True for one in sized):
        parts.append(f"{fitting} of a possible size")
    if unknown := sum(one.possible is None for one in sized):
        parts.append(f"{unknown} whose depth is not known")
    return f"size: {', '.join(parts)}; {focal.said}"


def _told(one: Sized, factor: float) -> str:
    low, high = one.expected
    least, greatest = one.metres or (0.0, 0.0)
    wide = f"{least:.2g}" if least == greatest else f"{least:.2g} to {greatest:.2g}"
    return f"a {one.kind} {wide} m wide, not {low:g} to {high:g}: confidence × {factor:g}"


def ratio(boxes: Sequence[Box], lowered: Mapping[Box, Box]) -> float:
    """Return what the confidence of the surest of some boxes is multiplied by; 1 without any."""
    before = max((box.confidence for box in boxes), default=0.0)
    after = max((lowered.get(box, box).confidence for box in boxes), default=0.0)
    return after / before if before > 0 else 1.0
