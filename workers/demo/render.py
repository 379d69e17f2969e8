"""Render a synthetic drive past roadwork: pictures with labels and boxes, the same for each seed.

It shows a new user what the product does without any real picture, and feeds the load tests.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from roadstream.workers.demo.canvas import Sprite
from roadstream.workers.demo.texture import (
    TILE,
    TILE_SCALE,
    ground_levels,
    hills,
    hood,
    noise,
    vignette,
)
from roadstream.workers.demo.world import (
    ASPHALT_LEFT,
    ASPHALT_RIGHT,
    LANE,
    LEFT_EDGE,
    NEAREST,
    RIGHT_EDGE,
    VIEW,
    WORK_VIEW,
    Thing,
    Weather,
    World,
    Zone,
    build_world,
)

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_CAMERA = 1.35  # metres above the road
_FOCAL = 0.86  # of the picture's width: 60° across, as dashcams have
_HORIZON = 0.46  # of the picture's height
_SMALLEST = 5  # pixels; anything lower is not drawn


@dataclass(frozen=True, slots=True)
class LabelledBox:
    """Where something of a roadwork is, in [0, 1] of the picture's width and height."""

    kind: str
    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of a synthetic drive.

    Attributes:
        image: RGB uint8 [H, W, 3].
        roadwork: Whether roadwork is to be seen.
        boxes: Its parts, nearest last.
    """

    image: Pixels
    roadwork: bool
    boxes: tuple[LabelledBox, ...]


def render_drive(
    frames: int, width: int = 1280, height: int = 720, seed: int = 0
) -> Iterator[Frame]:
    """Render a drive: about 40 % of its frames show roadwork, in changing weather.

    Args:
        frames: Number of pictures, at least 1.
        width: Of each, in pixels.
        height: Of each, in pixels.
        seed: Same seed, same pictures.
    """
    rng = np.random.default_rng(seed)
    world = build_world(frames, rng)
    renderer = _Renderer(world, width, height, rng)
    for index in range(frames):
        yield renderer.frame(index)


def write_drive(
    folder: Path, frames: int, *, width: int = 1280, height: int = 720, seed: int = 0
) -> Path:
    """Write a drive as ``frame_000.jpg`` … and ``labels.csv`` (columns file, label).

    Returns:
        Path of ``labels.csv``; a label is ``roadwork`` or ``none``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    digits = max(3, len(str(frames - 1)))
    labels = folder / "labels.csv"
    with labels.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["file", "label"])
        for index, frame in enumerate(render_drive(frames, width, height, seed)):
            name = f"frame_{index:0{digits}d}.jpg"
            bgr = cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR)
            _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 90])
            (folder / name).write_bytes(encoded.tobytes())
            rows.writerow([name, "roadwork" if frame.roadwork else "none"])
    return labels


class _Renderer:
    """Draws frame after frame of one world; what does not change is drawn once."""

    def __init__(self, world: World, width: int, height: int, rng: np.random.Generator) -> None:
        self.world, self.width, self.height = world, width, height
        self.focal = _FOCAL * width
        self.horizon = round(_HORIZON * height)
        self.middle = width / 2
        rows = np.arange(self.horizon + 1, height, dtype=np.float32)
        self.depth: Floats = self.focal * _CAMERA / (rows - self.horizon)
        columns = np.arange(width, dtype=np.float32)
        self.across: Floats = (columns[None, :] - self.middle) * self.depth[:, None] / self.focal
        self.ground = ground_levels(rng)
        sky = (self.horizon // 2 + 1, width)
        self.clouds = np.clip(noise(sky, (3, 6, 14, 30), rng) - 0.1, 0, 1.6)
        self.hills = hills(sky, rng)
        grain = rng.normal(0, 2.3, (height + 64, width + 64, 1)).round()
        self.grain = np.repeat(grain, 3, axis=2).astype(np.int16)
        self.vignette = vignette(width, height)
        self.hood = hood(width, height)
        self.rng = rng

    def frame(self, index: int) -> Frame:
        at = index * self.world.step
        weather = self.world.weather(at)
        bend = self.world.curvature(at)
        working = self.world.working(at)
        canvas = np.empty((self.height, self.width, 3), np.uint8)
        self.draw_sky(canvas, weather, at)
        self.draw_ground(canvas, weather, at, bend)
        self.draw_markings(canvas, weather, at, bend, working)
        boxes = self.draw_things(canvas, weather, index, bend, working)
        return Frame(self.develop(canvas, weather), bool(boxes), tuple(boxes))

    def draw_sky(self, canvas: Pixels, weather: Weather, at: float) -> None:
        """Gradient, clouds and far hills, at half the resolution: nothing there is sharp."""
        wide, high = self.width // 2, self.clouds.shape[0]
        horizon = np.asarray(weather.horizon, np.float32)
        rows = np.linspace(0, 1, high, dtype=np.float32)[:, None] ** 1.6
        sky = np.asarray(weather.zenith, np.float32) * (1 - rows) + horizon * rows
        shift = int(at * 0.06) % wide
        clouds = self.clouds[:, shift : shift + wide] * ((1 - rows**3) * weather.clouds * 95)
        image = sky[:, None, :] + clouds[..., None]
        hazy = 1 - np.exp(-330 / weather.visibility)
        hill = np.array([74, 92, 84]) * np.asarray(weather.light)
        colour = (hill * (1 - hazy) + horizon * hazy).astype(np.float32)
        turned = int(at * 0.12) % wide
        image += self.hills[:, turned : turned + wide, None] * (colour - image)
        size = (self.width, self.horizon + 1)
        canvas[: size[1]] = cv2.resize(cv2.convertScaleAbs(image), size)

    def draw_ground(self, canvas: Pixels, weather: Weather, at: float, bend: float) -> None:
        """Look up every pixel of the ground in its pattern, far rows in a coarser one."""
        x = self.across - (0.5 * bend * self.depth**2)[:, None]
        below = np.empty((*x.shape, 3), np.uint8)
        for level, (far, near) in enumerate(((14.0, 0.0), (34.0, 14.0), (80.0, 34.0), (1e9, 80.0))):
            rows = np.flatnonzero((self.depth <= far) & (self.depth > near))
            if len(rows) == 0:
                continue
            band = slice(int(rows[0]), int(rows[-1]) + 1)
            scale = TILE_SCALE / 2**level
            u = x[band] * np.float32(scale) + np.float32(self.ground[level].shape[1] / 2)
            v = np.repeat(np.mod(self.depth[band] + at, TILE)[:, None] * scale, self.width, axis=1)
            below[band] = cv2.remap(
                self.ground[level],
                u,
                v.astype(np.float32),
                cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REFLECT,
            )
        canvas[self.horizon + 1 :] = self.light_ground(below, x, weather)

    def light_ground(self, below: Pixels, x: Floats, weather: Weather) -> Pixels:
        """Apply light, the sky's mirror image on a wet road, and haze."""
        horizon = np.asarray(weather.horizon, np.float32)
        clear = np.exp(-self.depth / weather.visibility).astype(np.float32)[:, None, None]
        lit = below * (clear * np.asarray(weather.light, np.float32))
        if weather.wet > 0:
            road = ((x > ASPHALT_LEFT) & (x < ASPHALT_RIGHT)).astype(np.float32)
            mirror = weather.wet * np.clip(self.depth / 40, 0.15, 0.9)[:, None] * road
            lit += mirror[..., None] * (horizon * 0.85 - lit)
        lit += (1 - clear) * horizon
        return np.asarray(cv2.convertScaleAbs(lit), np.uint8)

    def project(self, x: float, depth: float, bend: float) -> tuple[float, float]:
        """Return column and row of a point on the ground."""
        column = self.middle + self.focal * (x + 0.5 * bend * depth**2) / depth
        return column, self.horizon + self.focal * _CAMERA / depth

    def draw_markings(
        self, canvas: Pixels, weather: Weather, at: float, bend: float, working: bool
    ) -> None:
        """Edge lines, the dashed middle line, and the dug-up ground of the roadwork."""
        if working:
            for zone in self.world.zones:
                self.dig(canvas, weather, zone, at, bend)
        for x in (LEFT_EDGE, RIGHT_EDGE):
            bounds = np.geomspace(2.0, 130, 24)
            for near, far in pairwise(bounds.tolist()):
                self.stripe(canvas, weather, (x - 0.07, x + 0.07), (near, far), bend)
        period, dash = 9.0, 3.6
        first = -(at % period)
        for start in np.arange(first, 110, period).tolist():
            near, far = max(start, 2.0), start + dash
            if far > near:
                x = LEFT_EDGE + LANE
                self.stripe(canvas, weather, (x - 0.065, x + 0.065), (near, far), bend)

    def dig(self, canvas: Pixels, weather: Weather, zone: Zone, at: float, bend: float) -> None:
        edge = RIGHT_EDGE if zone.side > 0 else LEFT_EDGE
        inner, outer = edge + zone.side * 0.9, edge + zone.side * 6.5
        bounds = np.linspace(zone.start + 12, max(zone.end, zone.start + 24), 9) - at
        for near, far in pairwise(bounds.tolist()):
            if far > 2.2 and near < WORK_VIEW:
                depths = (max(float(near), 2.2), min(float(far), WORK_VIEW))
                self.stripe(canvas, weather, (inner, outer), depths, bend, (126, 96, 66))

    def stripe(
        self,
        canvas: Pixels,
        weather: Weather,
        x: tuple[float, float],
        depths: tuple[float, float],
        bend: float,
        colour: tuple[int, int, int] = (222, 222, 214),
    ) -> None:
        """Fill a flat patch of ground, from x[0] to x[1] and depths[0] to depths[1]."""
        near, far = (float(depth) for depth in depths)
        corners = [(x[0], near), (x[1], near), (x[1], far), (x[0], far)]
        points = np.array([self.project(px, pz, bend) for px, pz in corners])
        lit = _through_air(np.asarray(colour, np.float32), weather, (near + far) / 2)
        exact = (np.clip(points, -4000, 8000) * 16).round().astype(np.int32)
        cv2.fillConvexPoly(canvas, exact, [float(c) for c in lit], cv2.LINE_AA, 4)

    def draw_things(
        self, canvas: Pixels, weather: Weather, index: int, bend: float, working: bool
    ) -> list[LabelledBox]:
        """Draw all that is in sight, far things first; return the boxes of the roadwork."""
        at = index * self.world.step
        placed = [(thing.at + thing.speed * index - at, thing) for thing in self.world.things]
        seen = [
            (depth, thing)
            for depth, thing in placed
            if NEAREST < depth < (WORK_VIEW if thing.work else VIEW) and (working or not thing.work)
        ]
        boxes: list[LabelledBox] = []
        for depth, thing in sorted(seen, key=lambda pair: -pair[0]):
            box = self.draw(canvas, weather, thing, depth, bend)
            if thing.work and box is not None:
                boxes.append(box)
        return boxes

    def draw(
        self, canvas: Pixels, weather: Weather, thing: Thing, depth: float, bend: float
    ) -> LabelledBox | None:
        """Blend one sprite in; return its box if enough of it is in the picture."""
        sprite = thing.sprite
        column, row = self.project(thing.x, depth, bend)
        scale = self.focal / depth
        wide, high = round(sprite.width * scale), round(sprite.height * scale)
        left, top = round(column - wide / 2), round(row) - high
        if high < _SMALLEST or left >= self.width or left + wide <= 0:
            return None
        _blend(canvas, _scaled(sprite, (wide, high), thing.mirrored), (left, top), weather, depth)
        if sprite.glow is not None and weather.lamps > 0.2:
            self.shine(canvas, weather, column, row - sprite.glow * scale, scale)
        return self.box(sprite, thing.mirrored, (left, top, wide, high))

    def box(
        self, sprite: Sprite, mirrored: bool, place: tuple[int, int, int, int]
    ) -> LabelledBox | None:
        left, top, wide, high = place
        x1, y1, x2, y2 = sprite.body
        if mirrored:
            x1, x2 = 1 - x2, 1 - x1
        width, height = self.width, self.height
        raw = [(left + x1 * wide) / width, (top + y1 * high) / height]
        raw += [(left + x2 * wide) / width, (top + y2 * high) / height]
        cut = [min(max(value, 0.0), 1.0) for value in raw]
        whole = (raw[2] - raw[0]) * (raw[3] - raw[1])
        seen = (cut[2] - cut[0]) * (cut[3] - cut[1])
        if seen < 0.3 * whole or cut[3] - cut[1] < 0.012:
            return None
        return LabelledBox(sprite.name, *cut)

    def shine(
        self, canvas: Pixels, weather: Weather, column: float, row: float, scale: float
    ) -> None:
        """Add the glow of two headlights."""
        radius = max(3, round(0.42 * scale * weather.lamps))
        for side in (-0.72, 0.72):
            x, y = round(column + side * scale), round(row)
            x1, y1 = max(x - radius, 0), max(y - radius, 0)
            part = canvas[y1 : y + radius + 1, x1 : x + radius + 1]
            if part.size == 0:
                continue
            rows = np.arange(part.shape[0])[:, None] + y1 - y
            columns = np.arange(part.shape[1])[None, :] + x1 - x
            glow = np.clip(1 - np.hypot(rows, columns) / radius, 0, 1) ** 1.7
            light = glow[..., None] * np.array([255, 246, 216]) * weather.lamps
            part[:] = np.clip(part + light, 0, 255)

    def develop(self, canvas: Pixels, weather: Weather) -> Pixels:
        """What the camera does to it: rain on the way, lens, sensor; and the car's own bonnet."""
        if weather.rain > 0.05:
            self.draw_rain(canvas, weather)
        hood, cover = self.hood
        part = canvas[-len(hood) :]
        part[:] = part * (1 - cover) + hood * cover * float(np.mean(weather.light))
        soft = cv2.GaussianBlur(canvas, (3, 3), 0.6)
        soft = cv2.multiply(soft, self.vignette, scale=1 / 255)
        y, x = (int(v) for v in self.rng.integers(0, 64, 2))
        grain = self.grain[y : y + self.height, x : x + self.width]
        return np.asarray(cv2.add(soft, grain, dtype=cv2.CV_8U), np.uint8)

    def draw_rain(self, canvas: Pixels, weather: Weather) -> None:
        count = round(150 * weather.rain)
        streaks = np.zeros((self.height // 2, self.width // 2), np.uint8)
        x = self.rng.integers(0, self.width // 2, count)
        y = self.rng.integers(-20, self.height // 2, count)
        lengths = self.rng.integers(6, 26, count)
        for px, py, length in zip(x.tolist(), y.tolist(), lengths.tolist(), strict=True):
            cv2.line(streaks, (px, py), (px - length // 8, py + length), 52, 1, cv2.LINE_AA)
        streaks = np.asarray(cv2.resize(streaks, (self.width, self.height)), np.uint8)
        cv2.add(canvas, cv2.merge([streaks, streaks, streaks]), canvas)


def _scaled(sprite: Sprite, size: tuple[int, int], mirrored: bool) -> Pixels:
    """Resize a sprite from the smallest level that is large enough."""
    level = sprite.levels[0]
    for smaller in sprite.levels[1:]:
        if smaller.shape[1] < size[0] or smaller.shape[0] < size[1]:
            break
        level = smaller
    scaled = np.asarray(cv2.resize(level, size, interpolation=cv2.INTER_LINEAR), np.uint8)
    return scaled[:, ::-1] if mirrored else scaled


def _blend(
    canvas: Pixels, sprite: Pixels, corner: tuple[int, int], weather: Weather, depth: float
) -> None:
    """Lay a premultiplied RGBA sprite over the canvas at (left, top), lit and hazed."""
    left, top = corner
    x1, y1 = max(left, 0), max(top, 0)
    part = canvas[y1 : max(top + sprite.shape[0], 0), x1 : max(left + sprite.shape[1], 0)]
    if part.size == 0:
        return
    y, x = y1 - top, x1 - left
    shown = np.ascontiguousarray(sprite[y : y + part.shape[0], x : x + part.shape[1]])
    haze = 1 - float(np.exp(-depth / weather.visibility))
    # colour·light·(1 − haze) + cover·horizon·haze, and 1 − cover: both linear in R, G, B, A, 1.
    lighting = np.zeros((3, 5))
    lighting[[0, 1, 2], [0, 1, 2]] = np.asarray(weather.light) * (1 - haze)
    lighting[:, 3] = np.asarray(weather.horizon) / 255 * haze
    lit = cv2.transform(shown, lighting)
    behind = cv2.transform(shown, np.array([[0, 0, 0, -1, 255]] * 3, np.float64))
    part[:] = cv2.add(lit, cv2.multiply(part, behind, scale=1 / 255))


def _through_air(colour: Floats, weather: Weather, depth: float) -> Floats:
    haze = 1 - np.exp(-depth / weather.visibility)
    lit = colour * np.asarray(weather.light) * (1 - haze) + np.asarray(weather.horizon) * haze
    return np.asarray(np.clip(lit, 0, 255), np.float32)
