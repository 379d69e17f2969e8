"""A canvas in metres for drawing road objects, and the light, dirt and wear that finish them."""

import colorsys
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Colour = tuple[float, float, float]  # RGB, 0..255
Points = Sequence[tuple[float, float]]
Pixels = NDArray[np.uint8]
Layer = NDArray[Any]  # float32 [height, width, 1 or 3]; NumPy's stubs lose the dtype in arithmetic

OVERSAMPLING = 3  # drawn without antialiasing at this many times the final size
MARGIN = 0.15  # of the longer side, for what leans or slopes out of its bounds
NEUTRAL = 128  # value of the shade channel that leaves a colour as it is
LUMINANCE = np.array([0.3, 0.59, 0.11], np.float32)
STRIPS = 12  # facets of a cylinder; their borders are smoothed away
SOFTNESS = 1.6  # pixels over which one shade runs into the next

# Hue in degrees, saturation and value: the range that each paint is drawn from.
PAINTS = {
    "orange": ((10, 26), (0.85, 1.0), (0.8, 1.0)),
    "vermilion": ((2, 14), (0.82, 0.98), (0.75, 1.0)),
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


def dimmed(colour: Colour, share: float) -> Colour:
    """Return a colour with `share` of its brightness."""
    red, green, blue = (min(255.0, share * part) for part in colour)
    return (red, green, blue)


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
        margin = MARGIN * max(width, height)
        size = (int((height + 2 * margin) * scale), int((width + 2 * margin) * scale))
        self.colour = np.zeros((*size, 4), np.uint8)
        self.light = np.zeros((*size, 2), np.uint8)
        self.texture = 0.03  # spread of the brightness of folds, dents and stains
        self._scale = scale
        origin = (0.5 * size[1], (height + margin) * scale)
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

    def stroke(self, points: Points, width: float, colour: Colour, glow: float = 0.0) -> None:
        """Draw a thin line of even width, for letters and wires."""
        pixels, thick = [self._pixels(points)], max(1, round(width * self._scale))
        cv2.polylines(self.colour, pixels, False, (*colour, 255.0), thick)
        cv2.polylines(self.light, pixels, False, (NEUTRAL, 255 * glow), thick)

    def column(
        self, bottom: tuple[float, float], top: tuple[float, float], colour: Colour,
        glow: float = 0.0, x: float = 0.0,
    ) -> None:  # fmt: skip
        """Fill a round column between two (height, radius) with dark flanks and curved ends."""
        (y0, r0), (y1, r1) = bottom, top
        u = np.linspace(-1, 1, STRIPS + 1)
        sag = 0.16 * np.sqrt(1 - u**2)
        low = self._pixels(np.stack([x + r0 * u, y0 - r0 * sag], 1))
        high = self._pixels(np.stack([x + r1 * u, y1 - r1 * sag], 1))
        cv2.fillPoly(self.colour, [np.concatenate([low, high[::-1]])], (*colour, 255.0))
        lit = 1.12 - 0.5 * np.abs((u[1:] + u[:-1]) / 2 + 0.15) ** 1.8
        strips = np.stack([low[:-1], low[1:], high[1:], high[:-1]], 1)
        for strip, shade in zip(strips, lit, strict=True):
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
        for x in np.arange(start, max(x1, x1 - reach), 2 * step).tolist():
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
        painted, light = (
            cv2.resize(layer[part], size, interpolation=cv2.INTER_AREA).astype(np.float32)
            for layer in (self.colour, self.light)
        )
        # Outside the shapes all layers are zero, so averages there must be divided by the cover.
        alpha = painted[..., 3:]
        cover = np.maximum(alpha, 1) / 255
        colour, glow = painted[..., :3] / cover, light[..., 1:] / cover / 255
        soft = [cv2.GaussianBlur(np.ascontiguousarray(layer), (0, 0), SOFTNESS)
                for layer in (light[..., 0], cover[..., 0])]  # fmt: skip
        shade = (soft[0] / soft[1] / NEUTRAL)[..., None]
        lit = _weathered(self.rng, colour, self.texture) * shade
        expose = _by_night if night else _by_day
        seen = expose(self.rng, lit, colour, glow)
        cut = np.concatenate([seen.clip(0, 255), alpha], 2).astype(np.uint8)
        x, y, width, height = cv2.boundingRect(cut[..., 3])
        return np.ascontiguousarray(cut[y : y + height, x : x + width])

    def _pixels(self, points: "Points | NDArray[np.float64]") -> NDArray[np.int32]:
        metres = np.asarray(points, np.float64)
        pixels: NDArray[np.int32] = np.rint(
            metres @ self._matrix[:, :2].T + self._matrix[:, 2]
        ).astype(np.int32)
        return pixels


def _clouds(rng: Generator, size: tuple[int, int], cells: tuple[int, int]) -> Layer:
    """Smooth noise [height, width, 1] from so many rows and columns of normal numbers."""
    coarse = rng.standard_normal(cells, np.float32)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)[..., None]


def _weathered(rng: Generator, colour: Layer, texture: float) -> Layer:
    """Fade, dirty and unevenly light a colour image."""
    height, width = colour.shape[:2]
    size = (height, width)
    fade, grey = np.float32(rng.beta(1, 5) * 0.7), (colour @ LUMINANCE)[..., None]
    aged = (1 - 0.8 * fade) * colour + fade * (0.7 * grey + 30)
    clouds = _clouds(rng, size, (9, 9))
    rising = np.linspace(0.2, 0.8, height, dtype=np.float32)[:, None, None]
    dirt = np.float32(rng.beta(1, 3.5)) * rising * (0.8 + 0.5 * clouds)
    grime = np.array([96, 86, 74], np.float32) * np.float32(rng.uniform(0.5, 1.2))
    aged += dirt.clip(0, 0.8) * (grime - aged)
    side = np.float32(rng.normal(0, 0.15)) * np.linspace(-1, 1, width, dtype=np.float32)
    above = np.float32(rng.normal(0.06, 0.08)) * np.linspace(1, -1, height, dtype=np.float32)
    lit = 1 + side[None, :, None] + above[:, None, None] + 0.05 * clouds
    rows, columns = (int(count) for count in rng.integers(4, 40, 2))  # streaks down or across
    lit += np.float32(texture) * _clouds(rng, size, (rows, columns))
    lit += np.float32(0.02) * rng.standard_normal((height, width, 1), np.float32)
    return aged * lit * rng.normal(1, 0.03, 3).astype(np.float32)


def _by_day(rng: Generator, lit: Layer, colour: Layer, glow: Layer) -> Layer:
    """Set exposure and haze by day; what sends light back is a little brighter."""
    back = np.float32(rng.uniform(0, 0.6) if rng.random() < 0.3 else 0.1)
    bright = (lit + glow * back * colour) * np.float32(np.exp(rng.normal(0.02, 0.22)))
    # A sensor's overfull channel spills into the others: bright orange turns pale.
    brightest = np.maximum(np.maximum(bright[..., 0], bright[..., 1]), bright[..., 2])
    bright += 0.35 * np.maximum(brightest - 235, 0)[..., None]
    haze = np.float32(rng.beta(1, 8) * 0.8)
    return bright + haze * (np.float32(rng.uniform(120, 220)) - bright)


def _by_night(rng: Generator, lit: Layer, colour: Layer, glow: Layer) -> Layer:
    """Leave an object nearly black but for what sends light back, with a soft halo."""
    ambient = np.float32(rng.uniform(0.03, 0.2)) * np.array([1.05, 1, 0.95], np.float32)
    back = glow * np.float32(rng.uniform(0.4, 1.3)) * (0.5 * colour + 0.5 * lit)
    seen: Layer = lit * ambient + back + np.float32(0.35) * cv2.GaussianBlur(back, (0, 0), 3)
    return seen
