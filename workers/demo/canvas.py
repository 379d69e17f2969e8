"""A drawing board in metres, and the sprites that come off it: pictures with transparency."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]
Point = tuple[float, float]

BLACK: Colour = (28, 28, 30)

_SUPER = 2  # drawn this much larger, then reduced: smooth edges


@dataclass(frozen=True, slots=True)
class Sprite:
    """A thing that stands on the ground, seen from the front.

    Attributes:
        name: What it is.
        width: Metres, of the whole picture.
        height: Metres, likewise; its bottom edge stands on the ground.
        levels: RGBA uint8 [H, W, 4], premultiplied, each half the size of the one before.
        body: (x1, y1, x2, y2) of the thing without its shadow, in [0, 1] of the picture.
        glow: Height of its lamps in metres where it has lamps to be seen at dusk.
    """

    name: str
    width: float
    height: float
    levels: tuple[Pixels, ...]
    body: tuple[float, float, float, float]
    glow: float | None = None


class Canvas:
    """A drawing board in metres: x to the right from the middle, y up from the ground."""

    def __init__(self, width: float, height: float, scale: float) -> None:
        self.width, self.height = width, height
        self.scale = scale * _SUPER
        shape = (round(height * self.scale), round(width * self.scale))
        self.colour = np.zeros((*shape, 3), np.uint8)
        self.mask = np.zeros(shape, np.uint8)

    def at(self, points: Sequence[Point]) -> npt.NDArray[np.int32]:
        """Return the pixels (column, row) of points."""
        x_y = np.asarray(points, np.float64)
        x = (x_y[:, 0] + self.width / 2) * self.scale
        y = (self.height - x_y[:, 1]) * self.scale
        return np.stack([x, y], axis=1).round().astype(np.int32)

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        """Fill a polygon."""
        corners = self.at(points)
        cv2.fillPoly(self.colour, [corners], colour, cv2.LINE_AA)
        cv2.fillPoly(self.mask, [corners], 255, cv2.LINE_AA)

    def box(self, x1: float, y1: float, x2: float, y2: float, colour: Colour) -> None:
        """Fill an upright rectangle."""
        self.polygon([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], colour)

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        """Fill an ellipse around (x, y)."""
        turn = np.linspace(0, 2 * np.pi, 40)
        ring = [(x + rx * np.cos(a), y + ry * np.sin(a)) for a in turn]
        self.polygon([(float(px), float(py)) for px, py in ring], colour)

    def line(self, points: Sequence[Point], thickness: float, colour: Colour) -> None:
        """Draw a bent line, ``thickness`` in metres."""
        width = max(1, round(thickness * self.scale))
        corners = self.at(points)
        cv2.polylines(self.colour, [corners], False, colour, width, cv2.LINE_AA)
        cv2.polylines(self.mask, [corners], False, 255, width, cv2.LINE_AA)

    def text(self, words: str, x: float, y: float, size: float) -> None:
        """Write black words centred at (x, y), letters ``size`` metres high."""
        face, scale = cv2.FONT_HERSHEY_DUPLEX, size * self.scale / 22
        weight = max(1, round(scale * 2.2))
        (width, height), _ = cv2.getTextSize(words, face, scale, weight)
        column, row = self.at([(x, y)])[0]
        place = (int(column - width / 2), int(row + height / 2))
        cv2.putText(self.colour, words, place, face, scale, BLACK, weight, cv2.LINE_AA)

    def round_off(self, x1: float, x2: float, depth: float = 0.45) -> None:
        """Shade the columns from x1 to x2 like an upright cylinder lit from the left."""
        columns = np.arange(self.colour.shape[1]) / self.scale - self.width / 2
        across = np.clip((columns - x1) / max(x2 - x1, 1e-6), 0, 1)
        light = 1.06 - depth * np.abs(across - 0.38) ** 1.6 / 0.62**1.6
        light[(columns < x1) | (columns > x2)] = 1.0
        lit = self.colour * light.astype(np.float32)[None, :, None]
        self.colour = np.clip(lit, 0, 255).astype(np.uint8)

    def grain(self, strength: float, seed: int) -> None:
        """Roughen the surface: dirt, folds, leaves."""
        rng = np.random.default_rng(seed)
        shape = self.mask.shape
        rough = np.zeros(shape, np.float32)
        for cells in (4, 11, 29):
            coarse = rng.normal(0, 1, (cells, cells)).astype(np.float32)
            rough += cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)
        lit = self.colour * (1 + np.float32(strength) * rough[..., None])
        self.colour = np.clip(lit, 0, 255).astype(np.uint8)

    def sprite(self, name: str, shadow: float = 0.5, glow: float | None = None) -> Sprite:
        """Finish: add a soft shadow on the ground and build the smaller levels."""
        columns = np.flatnonzero(self.mask.max(axis=0))
        rows = np.flatnonzero(self.mask.max(axis=1))
        height, width = self.mask.shape
        body = (columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, 1.0)
        size = (width // _SUPER, height // _SUPER)
        alpha = cv2.resize(self.mask, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        colour = cv2.resize(self.colour, size, interpolation=cv2.INTER_AREA).astype(np.float32)
        dark = _shadow(size, body, shadow)
        premultiplied = colour * alpha[..., None]
        cover = alpha + dark * (1 - alpha)
        level = np.dstack([premultiplied, cover * 255]).round().clip(0, 255).astype(np.uint8)
        levels = [level]
        while min(level.shape[:2]) >= 8:
            half = (max(1, level.shape[1] // 2), max(1, level.shape[0] // 2))
            level = np.asarray(cv2.resize(level, half, interpolation=cv2.INTER_AREA), np.uint8)
            levels.append(level)
        bounds = (float(body[0]), float(body[1]), float(body[2]), float(body[3]))
        return Sprite(name, self.width, self.height, tuple(levels), bounds, glow)


def _shadow(
    size: tuple[int, int], body: tuple[float, float, float, float], strength: float
) -> npt.NDArray[np.float32]:
    """A flat dark ellipse under the thing: [H, W] in [0, 1]."""
    width, height = size
    x = (np.arange(width) + 0.5) / width
    y = (np.arange(height) + 0.5) / height
    middle, half = (body[0] + body[2]) / 2 + 0.02, min((body[2] - body[0]) / 2 * 1.15, 0.38)
    flat = min(0.5 * half * width / height, 0.12)
    distance = np.hypot((x[None, :] - middle) / half, (y[:, None] - (1 - flat * 0.55)) / flat)
    return (strength * np.clip(1.25 - distance, 0, 1)).astype(np.float32)
