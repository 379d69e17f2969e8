"""Places that a vision-language model wrote: where it saw what it was asked for. Pure.

What models write, as their makers publish it:

- Molmo: ``<point x="61.5" y="40.4" alt="cone">cone</point>``, and ``<points x1=… y1=… x2=…>`` for
  several, in percent;
- Molmo 2: ``<points coords="1 1 453 612 2 501 480">cones</points>``, in thousandths: the number of
  the picture, then number, x and y of each point;
- Qwen: JSON with ``"point_2d": [x, y]`` or ``"bbox_2d": [x1, y1, x2, y2]`` and a ``"label"``;
  Qwen3-VL in thousandths, Qwen2.5-VL in pixels of the picture that it is shown.

A place is looked at whatever else is written; what is no place is passed over.
"""

import re
from collections.abc import Iterator, Sequence
from math import exp
from typing import NamedTuple

from roadstream.schemas.records.votes import MOST_BOXES, Box
from roadstream.stages.inference import Score

TAG = "points"
CONFIRMED, ELSEWHERE, NONE = "confirmed", "elsewhere", "none"
# A point becomes a box of so much of the picture's sides to each of its own.
HALF_SIDE = 0.01
LONGEST_LABEL = 64

# Whatever is repeated is bounded or ends at what it begins with, so that no text takes long.
_ELEMENT = re.compile(r"<points?\b([^<>]*)>([^<]{0,200})")
_ATTRIBUTE = re.compile(r'\b([a-z]{1,16})([0-9]{0,4})\s{0,4}=\s{0,4}"([^"]*)"', re.IGNORECASE)
_COORDS = re.compile(r"(?<![0-9.])(?:([0-9]{1,2}) )?[0-9]{1,2} ([0-9]{3,4}) ([0-9]{3,4})(?![0-9.])")
_OBJECT = re.compile(r"\{[^{}]*\}")
_PLACE = re.compile(r'"(?:point|bbox)(?:_2d)?"\s{0,8}:\s{0,8}\[([^\[\]]{0,200})\]')
_LABEL = re.compile(r'"label"\s{0,8}:\s{0,8}"([^"]{0,200})"')
_NUMBER = re.compile(r"(?<![\w.-])-?[0-9]{1,6}(?:\.[0-9]{1,32})?(?!\w)")


class Place(NamedTuple):
    """A point, or a box, in shares of the picture's sides; of a point both corners are the same."""

    x1: float
    y1: float
    x2: float
    y2: float
    label: str = ""

    @property
    def middle(self) -> tuple[float, float]:
        """Its middle."""
        return (self.x1 + self.x2) / 2, (self.y1 + self.y2) / 2

    @property
    def inside(self) -> bool:
        """Whether its middle is in the picture."""
        return all(0.0 <= at <= 1.0 for at in self.middle)

    def box(self, confidence: float) -> Box:
        """Return it as a box within the picture; a point as a small one."""
        x1, y1, x2, y2, label = self
        if x1 == x2 or y1 == y2:
            x, y = self.middle
            x1, y1, x2, y2 = x - HALF_SIDE, y - HALF_SIDE, x + HALF_SIDE, y + HALF_SIDE
        x1, y1, x2, y2 = (min(max(at, 0.0), 1.0) for at in (x1, y1, x2, y2))
        return Box(x1, y1, x2, y2, confidence, label)


def places(text: str, full: tuple[float, float], pictures: int = 1) -> list[Place]:
    """Return the places that a text holds, each once.

    Args:
        text: What a model wrote.
        full: What the right and the lower edge of the picture are, as the model counts.
        pictures: How many it was shown; places that it wrote of another than the last are none.
    """
    width, height = full
    found: dict[Place, None] = {}
    for (x1, y1, x2, y2), label in (*_elements(text, pictures), *_objects(text)):
        left, right = sorted((x1 / width, x2 / width))
        upper, lower = sorted((y1 / height, y2 / height))
        found[Place(left, upper, right, lower, " ".join(label.split())[:LONGEST_LABEL])] = None
    return list(found)


def pointed(score: Score, found: Sequence[Place], boxes: Sequence[Box]) -> Score:
    """Return a score with the places that a model wrote, and whether they confirm boxes.

    They become boxes of the vote, as likely as its answer is yes; those outside of the picture are
    counted in the text. The tag ``points`` is ``confirmed`` if one lies in a box, ``elsewhere`` if
    there are any, else ``none``.

    Args:
        score: The vote.
        found: The places.
        boxes: What earlier tiers found.
    """
    inside = [place for place in found if place.inside]
    told = [place.box(1 / (1 + exp(-score.raw))) for place in inside[:MOST_BOXES]]
    outside = len(found) - len(inside)
    left_out = f"Left out as outside of the picture: {outside}. " if outside else ""
    return score._replace(
        boxes=told, text=left_out + score.text, tags={TAG: _verdict(inside, boxes)}
    )


def _verdict(inside: Sequence[Place], boxes: Sequence[Box]) -> str:
    if any(_within(place, box) for place in inside for box in boxes):
        return CONFIRMED
    return ELSEWHERE if inside else NONE


def _within(place: Place, box: Box) -> bool:
    x, y = place.middle
    return box.x1 <= x <= box.x2 and box.y1 <= y <= box.y2


Corners = tuple[float, float, float, float]


def _elements(text: str, pictures: int) -> Iterator[tuple[Corners, str]]:
    """Yield what stands in Molmo's elements."""
    for element in _ELEMENT.finditer(text):
        given = {(name.lower(), nth): value for name, nth, value in _ATTRIBUTE.findall(element[1])}
        label = given.get(("alt", "")) or element[2]
        for (name, nth), value in given.items():
            if name == "coords":
                for x, y in _coords(value, pictures):
                    yield (x, y, x, y), label
            elif name == "x":
                for x, y in zip(_numbers(value), _numbers(given.get(("y", nth), "")), strict=False):
                    yield (x, y, x, y), label


def _coords(value: str, pictures: int) -> Iterator[tuple[float, float]]:
    """Yield the points of the last picture; the number of a picture stands before its first."""
    at = 1
    for picture, x, y in _COORDS.findall(value):
        at = int(picture or at)
        if at == pictures:
            yield float(x), float(y)


def _objects(text: str) -> Iterator[tuple[Corners, str]]:
    """Yield what stands in Qwen's JSON, whole or not."""
    for one in _OBJECT.finditer(text):
        label = _LABEL.search(one[0])
        for place in _PLACE.findall(one[0]):
            match _numbers(place):
                case [x, y]:
                    yield (x, y, x, y), label[1] if label else ""
                case [x1, y1, x2, y2]:
                    yield (x1, y1, x2, y2), label[1] if label else ""


def _numbers(text: str) -> list[float]:
    return [float(one) for one in _NUMBER.findall(text)]
