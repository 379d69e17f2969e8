"""What a contact sheet shows: pictures as small JPEGs, and the boxes that were found in them."""

import base64
import io
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from roadstream.sinks.columns import AnswerRow, BoxRow
from roadstream.sinks.report.summary import fault_of

LoadImage = Callable[[str], NDArray[np.uint8] | None]
"""Returns the upright RGB picture of a uri, or ``None`` when it cannot be shown; never raises."""

MOST_BOXES = 32
"""Boxes drawn on a picture, the most confident ones."""
LARGEST = 32_000
"""Bytes of one JPEG: 72 pictures stay under 3.1 MB as base64."""
_TRIES = ((400, 80), (400, 60), (320, 45), (240, 40), (160, 30))
"""Longest side in pixels and JPEG quality: noise and foliage need the later ones."""


class Thumbnail(NamedTuple):
    """A picture for a page: its data URI, and its size in pixels."""

    uri: str
    width: int
    height: int


BLANK = Thumbnail("", 320, 180)
"""Stands for a picture that cannot be shown."""


class DrawnBox(NamedTuple):
    """A box in pixels of a thumbnail, and where its label stands."""

    title: str
    label: str
    x: float
    y: float
    width: float
    height: float
    text_x: float
    text_y: float
    anchor: str


class Picture(msgspec.Struct, frozen=True):
    """A picture of the sheet.

    Attributes:
        number: Tells it from the others on the page.
        row: Its answer.
        thumbnail: Itself, or ``BLANK``.
        boxes: What is drawn on it.
    """

    number: int
    row: AnswerRow
    thumbnail: Thumbnail
    boxes: list[DrawnBox]

    @property
    def name(self) -> str:
        """What it is called: its uri, or else its id."""
        return self.row["uri"] or self.row["image_id"]

    @property
    def file(self) -> str:
        """The last part of its name."""
        return self.name.rpartition("/")[2]

    @property
    def folder(self) -> str:
        """The part of its name before the last; behind an ellipsis if there is more before it."""
        above, _, folder = self.name.rpartition("/")[0].rpartition("/")
        return f"…/{folder}" if above else folder

    @property
    def blank(self) -> str:
        """What is said in its place."""
        failed = self.row["status"] == "failed"
        return fault_of(self.row).replace("_", " ") if failed else "not shown here"


class Card(NamedTuple):
    """A picture at one place of the sheet; the first of a picture's cards holds its pixels."""

    picture: Picture
    first: bool


class ContactSheet:
    """Makes cards; a picture that has several is embedded once.

    Attributes:
        pictures: Those of all cards made so far, by the ids of their images.
    """

    def __init__(self, load_image: LoadImage) -> None:
        self.pictures: dict[str, Picture] = {}
        self._load_image = load_image

    def cards(self, rows: Iterable[AnswerRow]) -> list[Card]:
        """Return the cards of answers."""
        return [self._card(row) for row in rows]

    def _card(self, row: AnswerRow) -> Card:
        known = self.pictures.get(row["image_id"])
        if known is not None:
            return Card(known, first=False)
        pixels = self._load_image(row["uri"])
        small = BLANK if pixels is None or not pixels.size else thumbnail(pixels)
        boxes = [_drawn(box, finder, small) for box, finder in _boxes(row)]
        made = self.pictures[row["image_id"]] = Picture(len(self.pictures), row, small, boxes)
        return Card(made, first=True)


def _boxes(row: AnswerRow) -> list[tuple[BoxRow, str]]:
    """Return the boxes to draw and who found them: fused ones where a tier has such."""
    fused = {box["tier"] for box in row["boxes"]}
    found: list[tuple[BoxRow, str]] = [(box, box["tier"]) for box in row["boxes"]]
    for vote in row["votes"]:
        if vote["tier"] not in fused:
            found += [(box, vote["member"]) for box in vote["boxes"]]
    found.sort(key=lambda pair: -pair[0]["confidence"])
    return found[:MOST_BOXES]


def _drawn(box: BoxRow, finder: str, on: Thumbnail) -> DrawnBox:
    left, right = sorted(min(max(box[x], 0.0), 1.0) * on.width for x in ("x1", "x2"))
    top, bottom = sorted(min(max(box[y], 0.0), 1.0) * on.height for y in ("y1", "y2"))
    # Beside the box where the picture has room.
    x, anchor = (left, "start") if left + right < on.width else (right, "end")
    y = top - 2 if top > on.height / 2 else bottom + 8
    title = f"{box['label'] or 'box'} {box['confidence']:.2f} · {finder}"
    width, height = max(right - left, 1), max(bottom - top, 1)
    return DrawnBox(title, box["label"], left, top, width, height, x, y, anchor)


def thumbnail(pixels: NDArray[np.uint8]) -> Thumbnail:
    """Shrink a picture to at most 400 pixels a side and ``LARGEST`` bytes.

    Args:
        pixels: Upright RGB picture, uint8, shape (height, width, 3), not empty.
    """
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(pixels))
    for side, quality in _TRIES:
        small = picture.copy() if max(picture.size) <= side else _shrunk(picture, side)
        data = io.BytesIO()
        small.save(data, "JPEG", quality=quality, optimize=True)
        if data.tell() <= LARGEST:
            break
    text = base64.b64encode(data.getvalue()).decode()
    return Thumbnail(f"data:image/jpeg;base64,{text}", *small.size)


def _shrunk(picture: Any, side: int) -> Any:
    ratio = side / max(picture.size)
    size = tuple(max(1, round(length * ratio)) for length in picture.size)
    return picture.resize(size, reducing_gap=2.0)
