"""A canvas in metres for drawing road objects, and the light, dirt and wear that finish them."""

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Colour = tuple[float, float, float]  # RGB, 0..255
Points = Sequence[tuple[float, float]]
Pixels = NDArray[np.uint8]

OVERSAMPLING = 3  # drawn without antialiasing at this many times the final size
NEUTRAL = 128  # value of the shade channel that leaves a colour as it is
STRIPS = 12  # facets of a cylinder

# Hue in degrees, saturation and value: the range that each paint is drawn from.
PAINTS = {
    "orange": ((10, 26), (0.85, 1.0), (0.8, 1.0)),
    "red": ((352, 366), (0.75, 0.95), (0.6, 0.9)),
    "yellow": ((40, 54), (0.8, 1.0), (0.75, 1.0)),
    "lime": ((62, 80), (0.7, 0.95), (0.8, 1.0)),
    "green": ((110, 165), (0.5, 0.9), (0.25, 0.6)),
    "blue": ((205, 228), (0.6, 0.95), (0.35, 0.8)),
    "white": ((20, 60), (0.0, 0.06), (0.82, 1.0)),
    "silver": ((40, 220), (0.0, 0.06), (0.6, 0.85)),
    "grey": ((20, 220), (0.0, 0.1), (0.3, 0.6)),
    "black": ((0, 360), (0.0, 0.3), (0.04, 0.16)),
    "glass": ((190, 230), (0.1, 0.4), (0.08, 0.3)),
    "amber": ((34, 46), (0.6, 1.0), (1.0, 1.0)),
    "brown": ((15, 40), (0.2, 0.6), (0.2, 0.5)),
    "skin": ((12, 28), (0.3, 0.6), (0.3, 0.9)),
    "cloth": ((0, 360), (0.05, 0.5), (0.1, 0.6)),
    "navy": ((210, 240), (0.2, 0.6), (0.08, 0.3)),
}


def paint(rng: Generator, *names: str) -> Colour:
    """Draw one shade of one of the named paints."""
    hue, saturation, value = PAINTS[names[int(rng.integers(len(names)))]]
    red, green, blue = colorsys.hsv_to_rgb(
        rng.uniform(*hue) / 360 % 1, rng.uniform(*saturation), rng.uniform(*value)
    )
    return (255 * red, 255 * green, 255 * blue)


def _clip(points: Points, bound: float, side: int) -> list[tuple[float, float]]:
    """Keep the part of a polygon with `side * x <= side * bound`."""
    kept: list[tuple[float, float]] = []
    for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
        if side * x0 <= side * bound:
            kept.append((x0, y0))
        if (x0 - bound) * (x1 - bound) < 0:
            kept.append((bound, y0 + (y1 - y0) * (bound - x0) / (x1 - x0)))
    return kept


class Canvas:
    """Filled shapes in metres: x to the right from the middle, y up from the ground.

    Beside its colour each pixel has a shade (how much light falls on it) and a glow (how much
    of a lamp or of headlights it sends back at night, 0..1).
    """

    def __init__(self, rng: Generator, width: float, height: float) -> None:
        self.rng = rng
        self.longest = int(rng.integers(160, 241))
        scale = OVERSAMPLING * self.longest / max(width, height)
        size = (int(1.3 * height * scale), int(1.3 * width * scale))
        self.colour = np.zeros((*size, 4), np.uint8)
        self.light = np.zeros((*size, 2), np.uint8)
        origin = (0.5 * size[1], 1.15 * height * scale)
        self._base = np.array([[scale, 0, origin[0]], [0, -scale, origin[1]]])
        self._matrix = self._base

    def stand(self, lean: float = 0.0, squeeze: float = 1.0, slope: float = 0.0) -> None:
        """Draw what follows leaning (radians), seen from the side, or on a sloping line."""
        turned = [[np.cos(lean), np.sin(lean), 0], [-np.sin(lean), np.cos(lean), 0], [0, 0, 1]]
        seen = [[squeeze, 0, 0], [slope, 1, 0], [0, 0, 1]]
        self._matrix = self._base @ np.array(turned) @ np.array(seen)

    def poly(self, points: Points, colour: Colour, glow: float = 0.0, shade: float = 1.0) -> None:
        """Fill a polygon."""
        pixels = self._pixels(points)
        cv2.fillPoly(self.colour, [pixels], (*colour, 255.0))
        cv2.fillPoly(self.light, [pixels], (NEUTRAL * shade, 255 * glow))

    def box(
        self, corners: tuple[float, float, float, float], colour: Colour, glow: float = 0.0
    ) -> None:
        """Fill a rectangle from (left, bottom) to (right, top)."""
        x0, y0, x1, y1 = corners
        self.poly([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour, glow)

    def disc(
        self, centre: tuple[float, float], radii: tuple[float, float], colour: Colour,
        glow: float = 0.0, shade: float = 1.0,
    ) -> None:  # fmt: skip
        """Fill an ellipse."""
        turns = np.linspace(0, 2 * np.pi, 20, endpoint=False)
        x, y = centre[0] + radii[0] * np.cos(turns), centre[1] + radii[1] * np.sin(turns)
        self.poly(list(zip(x, y, strict=True)), colour, glow, shade)

    def line(
        self, points: Points, widths: tuple[float, float], colour: Colour,
        glow: float = 0.0, shade: float = 1.0,
    ) -> None:  # fmt: skip
        """Draw a chain of straight limbs whose thickness goes from the first to the second."""
        thick = np.linspace(*widths, len(points)) / 2
        for (start, r0), (end, r1) in zip(
            zip(points[:-1], thick[:-1], strict=True), zip(points[1:], thick[1:], strict=True),
            strict=True,
        ):  # fmt: skip
            along = np.subtract(end, start)
            along = along / (np.hypot(*along) + 1e-9)
            across = np.array([-along[1], along[0]])
            fan = np.linspace(-np.pi / 2, np.pi / 2, 5)[:, None]
            front = np.array(end) + r1 * (np.cos(fan) * along + np.sin(fan) * across)
            back = np.array(start) - r0 * (np.cos(fan) * along + np.sin(fan) * across)
            outline = [(float(x), float(y)) for x, y in np.concatenate([front, back])]
            self.poly(outline, colour, glow, shade)

    def column(
        self, bottom: tuple[float, float], top: tuple[float, float], colour: Colour,
        glow: float = 0.0, x: float = 0.0,
    ) -> None:  # fmt: skip
        """Fill a round column between two (height, radius) with dark flanks and curved ends."""
        (y0, r0), (y1, r1) = bottom, top
        u = np.linspace(-1, 1, STRIPS + 1)
        sag = 0.16 * np.sqrt(1 - u**2)
        low = np.stack([x + r0 * u, y0 - r0 * sag], 1)
        high = np.stack([x + r1 * u, y1 - r1 * sag], 1)
        outline = self._pixels(np.concatenate([low, high[::-1]]))
        cv2.fillPoly(self.colour, [outline], (*colour, 255.0))
        lit = 1.12 - 0.5 * np.abs((u[1:] + u[:-1]) / 2 + 0.15) ** 1.8
        for i, shade in enumerate(lit):
            strip = self._pixels(np.stack([low[i], low[i + 1], high[i + 1], high[i]]))
            cv2.fillPoly(self.light, [strip], (NEUTRAL * shade, 255 * glow))

    def stripes(
        self, corners: tuple[float, float, float, float], colours: tuple[Colour, Colour],
        step: float, slant: float, glow: float,
    ) -> None:  # fmt: skip
        """Fill a rectangle with stripes `step` wide that run `slant` to the right per unit up."""
        x0, y0, x1, y1 = corners
        self.box(corners, colours[0], glow)
        reach = slant * (y1 - y0)
        start = min(x0, x0 - reach) + self.rng.uniform(-1, 0) * step
        for x in np.arange(start, max(x1, x1 - reach), 2 * step):
            band = [(x, y0), (x + step, y0), (x + step + reach, y1), (x + reach, y1)]
            band = _clip(band, x1, 1)
            band = _clip(band, x0, -1) if len(band) > 2 else []
            if len(band) > 2:
                self.poly(band, colours[1], glow)

    def finish(self, night: bool) -> Pixels:
        """Return the object as RGBA [height, width, 4], cut tight, lit, worn and dirty."""
        x, y, width, height = cv2.boundingRect(self.colour[..., 3])
        part = np.s_[y : y + height, x : x + width]
        scale = self.longest / max(width, height)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        layers = [
            cv2.resize(layer[part], size, interpolation=cv2.INTER_AREA).astype(np.float32)
            for layer in (self.colour, self.light)
        ]
        # Outside the shapes all layers are zero, so averages there must be divided by the cover.
        alpha = layers[0][..., 3:]
        cover = np.maximum(alpha, 1) / 255
        colour, light = layers[0][..., :3] / cover, layers[1] / cover
        shade, glow = light[..., :1] / NEUTRAL, light[..., 1:] / 255
        lit = _weathered(self.rng, colour) * shade
        seen = (
            _by_night(self.rng, lit, colour, glow)
            if night
            else _by_day(self.rng, lit, colour, glow)
        )
        cut = np.concatenate([seen.clip(0, 255), alpha], 2).astype(np.uint8)
        x, y, width, height = cv2.boundingRect(cut[..., 3])
        return np.ascontiguousarray(cut[y : y + height, x : x + width])

    def _pixels(self, points: "Points | NDArray[np.float64]") -> NDArray[np.int32]:
        metres = np.asarray(points, np.float64)
        return np.rint(metres @ self._matrix[:, :2].T + self._matrix[:, 2]).astype(np.int32)


def _clouds(rng: Generator, size: tuple[int, int], cells: int) -> NDArray[np.float32]:
    """Smooth noise [height, width, 1] with a mean of 0 and a spread near 1."""
    coarse = rng.standard_normal((cells, cells), np.float32)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)[..., None]


def _weathered(rng: Generator, colour: NDArray[np.float32]) -> NDArray[np.float32]:
    """Fade, dirty and unevenly light a colour image."""
    height, width = colour.shape[:2]
    grey = colour.mean(2, keepdims=True)
    fade = np.float32(rng.beta(1.2, 4) * 0.7)
    aged = colour + fade * (0.7 * grey + 30 - 0.8 * colour)
    dirt = (
        np.float32(rng.beta(1.2, 3))
        * np.linspace(0.25, 0.8, height, dtype=np.float32)[:, None, None]
    )
    dirt = (dirt * (0.8 + 0.5 * _clouds(rng, (height, width), 7))).clip(0, 0.8)
    grime = np.array([88, 78, 66], np.float32) * np.float32(rng.uniform(0.5, 1.1))
    aged = aged + dirt * (grime - aged)
    side = np.float32(rng.uniform(-0.35, 0.35)) * np.linspace(-1, 1, width, dtype=np.float32)
    lit = (1 + side[None, :, None]) * (1 + 0.05 * _clouds(rng, (height, width), 5))
    grain = 1 + 0.02 * rng.standard_normal((height, width, 1), np.float32)
    return aged * lit * grain * rng.normal(1, 0.03, 3).astype(np.float32)


def _by_day(
    rng: Generator, lit: NDArray[np.float32], colour: NDArray[np.float32], glow: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Set the exposure of an object by day; what sends light back is a little brighter."""
    exposure = np.float32(np.exp(rng.normal(-0.12, 0.22)))
    back = np.float32(rng.uniform(0, 0.6) if rng.random() < 0.3 else 0)
    return lit * exposure + glow * back * colour


def _by_night(
    rng: Generator, lit: NDArray[np.float32], colour: NDArray[np.float32], glow: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Leave an object nearly black but for what sends light back, with a soft halo."""
    ambient = np.float32(rng.uniform(0.03, 0.2)) * np.array([1.05, 1, 0.95], np.float32)
    back = glow * np.float32(rng.uniform(0.7, 1.3)) * colour
    halo = cv2.GaussianBlur(back, (0, 0), 3)
    return lit * ambient + back + np.float32(0.35) * halo
