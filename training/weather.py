"""Pictures of dry days under another light and another weather, for the heads that tell these.

Every change is known by name, so that its label is certain; how strong it is follows from `rng`.
All pictures are uint8 RGB [H, W, 3]. Nothing is known of depth: a picture is taken for a road that
meets the sky at a horizon about the middle, as dashcams see it.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from roadstream.stages.rules.cones import Pixels

LIGHT = ("day", "dusk", "night")
WEATHER = ("dry", "rain", "fog", "snow")
Floats = NDArray[Any]  # float32 or float64: OpenCV types its results loosely


class Scene(NamedTuple):
    """A picture that is being changed.

    Attributes:
        image: float32 [H, W, 3] in [0, 1].
        ground: How much a row belongs to the ground, float32 [H, 1, 1] in [0, 1].
        sky: How much a pixel looks like sky, float32 [H, W, 1] in [0, 1].
        distance: Of a row, float32 [H, 1, 1]; 1 at the lower edge, and larger up to the horizon.
    """

    image: Floats
    ground: Floats
    sky: Floats
    distance: Floats


def under(image: Pixels, light: str, weather: str, rng: Generator) -> Pixels:
    """Show a picture of a dry day under a light and a weather of `LIGHT` and `WEATHER`."""
    scene = _scene(image, rng)
    for change in (WEATHERS.get(weather), LIGHTS.get(light)):
        if change is not None:
            scene = scene._replace(image=np.clip(change(scene, rng), 0, 1, dtype=np.float32))
    return np.asarray(np.clip(scene.image * 255, 0, 255), np.uint8)


def _scene(image: Pixels, rng: Generator) -> Scene:
    part = image.astype(np.float32) / 255
    rows = np.linspace(0, 1, len(image), dtype=np.float32)[:, None, None]
    horizon = rng.uniform(0.36, 0.54)
    ground = np.clip((rows - horizon) / 0.08, 0, 1)
    bright = part.min(2, keepdims=True)
    paleness = np.clip((bright - 0.45) / 0.25, 0, 1)
    sky = cv2.GaussianBlur(paleness * (1 - ground), (0, 0), 2.0)[..., None]
    away = np.abs(rows - horizon) / (1 - horizon)
    distance = 1.06 / (np.where(rows > horizon, away, away * 0.4) + 0.06)
    return Scene(part, ground, sky, distance)


def _patches(shape: tuple[int, ...], cells: float, rng: Generator) -> Floats:
    """Return smooth random patches, about `cells` across: float32 [H, W, 1] in [0, 1]."""
    height, width = shape[:2]
    small = rng.random((max(2, int(cells * height / width)), max(2, int(cells)))).astype(np.float32)
    return np.clip(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), 0, 1)[
        ..., None
    ]


def _faded(image: Floats, colour: float) -> Floats:
    """Keep so much of the colour."""
    grey = image.mean(2, keepdims=True)
    return np.asarray(grey + (image - grey) * colour)


def fog(scene: Scene, rng: Generator) -> Floats:
    """Hide what is far behind a pale veil: contrast falls with distance (Koschmieder)."""
    nearest = rng.uniform(0.03, 0.22)
    uneven = 0.7 + 0.6 * _patches(scene.image.shape, rng.uniform(2, 5), rng)
    clear = np.exp(-nearest * scene.distance * uneven)
    air = rng.uniform(0.5, 0.92) * (1 + rng.normal(0, 0.025, 3))
    image = _faded(scene.image, rng.uniform(0.4, 0.9))
    image = image * (1 - scene.sky * 0.9) + air * scene.sky * 0.9
    return np.asarray(image * clear + air * (1 - clear))


def rain(scene: Scene, rng: Generator) -> Floats:
    """Wet the road, grey the sky, and draw streaks or drops on the windscreen."""
    image = _wet(scene, rng)
    grey = rng.uniform(0.45, 0.8)
    image = image * (1 - scene.sky * 0.8) + grey * scene.sky * 0.8
    haze = 1 - np.exp(-rng.uniform(0.0, 0.05) * scene.distance)
    image = _faded(image, rng.uniform(0.4, 0.85)) * (1 - haze) + grey * haze
    image = image * rng.uniform(0.6, 0.95)
    chosen = rng.integers(3)
    if chosen != 0:
        image = _drops(image, rng)
    if chosen != 1:
        image = image + _streaks(image.shape, rng)
    return np.asarray(image)


def _wet(scene: Scene, rng: Generator) -> Floats:
    """Let the ground mirror what stands above it, more in some places than in others."""
    height, width = scene.image.shape[:2]
    edge = int(np.argmax(scene.ground[:, 0, 0] > 0))
    mirrored = cv2.resize(scene.image[edge::-1], (width, height - edge))
    mirrored = cv2.GaussianBlur(mirrored, (0, 0), rng.uniform(1, 4), sigmaY=rng.uniform(4, 16))
    share = rng.uniform(0.25, 0.75) * (0.4 + 0.6 * _patches(scene.image.shape, 5, rng))
    share = (share * scene.ground)[edge:]
    wet = scene.image.copy()
    wet[edge:] = wet[edge:] * rng.uniform(0.5, 0.85) * (1 - share) + mirrored * share
    return wet


def _drops(image: Floats, rng: Generator) -> Floats:
    """Lay drops on the glass: in each the picture stands upside down, small and blurred."""
    height, width = image.shape[:2]
    turned = cv2.GaussianBlur(image[::-1, ::-1], (0, 0), 3.0)
    mask: Floats = np.zeros((height, width), np.float32)
    largest = rng.uniform(2, 12)
    for _ in range(int(rng.uniform(60, 500) / largest)):
        place = (int(rng.integers(width)), int(rng.integers(height)))
        axes = (int(rng.uniform(1, largest)), int(rng.uniform(1, largest)))
        cv2.ellipse(mask, place, axes, 0, 0, 360, float(rng.uniform(0.2, 0.9)), -1)
    mask = cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.6, 2.0))[..., None]
    rim = cv2.Sobel(mask, cv2.CV_32F, 0, 1)[..., None] * rng.uniform(0.0, 0.15)
    film = rng.uniform(0, 0.5)
    image = image * (1 - film) + cv2.GaussianBlur(image, (0, 0), 2.5) * film
    return np.asarray(image * (1 - mask) + turned * mask + rim)


def _streaks(shape: tuple[int, ...], rng: Generator) -> Floats:
    height, width = shape[:2]
    layer: Floats = np.zeros((height, width), np.float32)
    slant, length = rng.normal(0, 0.25), rng.uniform(0.03, 0.12) * height
    for _ in range(int(rng.integers(80, 400))):
        x, y = rng.uniform(0, width), rng.uniform(-20, height)
        end = (int(x + slant * length), int(y + length * rng.uniform(0.6, 1.2)))
        cv2.line(layer, (int(x), int(y)), end, float(rng.uniform(0.1, 0.35)), 1, cv2.LINE_AA)
    return cv2.GaussianBlur(layer, (0, 0), 0.6)[..., None]


def snow(scene: Scene, rng: Generator) -> Floats:
    """Whiten the ground but for tracks, pale the sky, and mostly let flakes fall."""
    image = _faded(scene.image, rng.uniform(0.3, 0.8))
    lying = np.clip(
        _patches(image.shape, rng.uniform(4, 14), rng) * 1.8 - rng.uniform(0, 0.7), 0, 1
    )
    lying = lying * scene.ground * (1 - _tracks(image.shape, rng)) * rng.uniform(0.75, 1.0)
    white = rng.uniform(0.75, 0.97) * np.array([0.98, 0.99, 1.02])
    image = (image * (1 - lying) + (white * 0.75 + image * 0.25) * lying).astype(np.float32)
    # Snow on what looks up: the upper edges of dark things.
    grey = image.mean(2, dtype=np.float32)
    up = np.clip(cv2.Sobel(grey, cv2.CV_32F, 0, 1, ksize=3) * -1.0, 0, 1)[..., None]
    image = image + (white - image) * cv2.GaussianBlur(up, (0, 0), 1.0)[..., None] * 0.7
    pale = rng.uniform(0.65, 0.95)
    image = image * (1 - scene.sky * 0.8) + pale * scene.sky * 0.8
    haze = 1 - np.exp(-rng.uniform(0.0, 0.06) * scene.distance)
    image = image * (1 - haze) + pale * haze
    return np.asarray(_flakes(image, rng) if rng.random() < 0.65 else image)


def _tracks(shape: tuple[int, ...], rng: Generator) -> Floats:
    """Return where wheels or a plough have cleared the road: float32 [H, W, 1] in [0, 1]."""
    height, width = shape[:2]
    mask: Floats = np.zeros((height, width), np.float32)
    middle, top = width * rng.uniform(0.35, 0.65), int(height * 0.45)
    half = width * rng.uniform(0.04, 0.5)
    sides = [(-1.0, 1.0)] if rng.random() < 0.5 else [(-1.0, -0.6), (0.6, 1.0)]
    for left, right in sides:
        corners = [(middle - 2, top), (middle + 2, top)]
        corners += [(middle + right * half, height), (middle + left * half, height)]
        cv2.fillPoly(mask, [np.array(corners, np.int32)], rng.uniform(0.0, 1.0))
    return cv2.GaussianBlur(mask, (0, 0), 3.0)[..., None]


def _flakes(image: Floats, rng: Generator) -> Floats:
    height, width = image.shape[:2]
    layer: Floats = np.zeros((height, width), np.float32)
    for _ in range(int(rng.integers(60, 500))):
        place = (int(rng.integers(width)), int(rng.integers(height)))
        radius = max(1, int(rng.exponential(1.3)))
        cv2.circle(layer, place, radius, float(rng.uniform(0.4, 1.0)), -1, cv2.LINE_AA)
    layer = cv2.GaussianBlur(layer, (0, 0), 0.9)[..., None]
    return np.asarray(image + (0.95 - image) * layer * 0.85)


TINTS = ((1.15, 0.92, 0.6), (0.8, 0.95, 1.2), (1.0, 1.0, 1.0), (1.0, 1.02, 0.75))
"""Sodium lamps, the blue hour and cold LEDs, a neutral camera, and greenish ones."""


def night(scene: Scene, rng: Generator) -> Floats:
    """Take the sky's light away; headlights, street lamps and windows are what is left."""
    height, width = scene.image.shape[:2]
    rows = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    columns = np.linspace(-1, 1, width, dtype=np.float32)[None, :, None]
    beam = np.exp(-((rows - rng.uniform(0.65, 0.85)) ** 2) / 0.05 - columns**2 / 0.5)
    streets = rng.uniform(0.0, 1.0) * _patches(scene.image.shape, rng.uniform(2, 5), rng) ** 2
    gain = rng.uniform(0.03, 0.25) + streets + beam * rng.uniform(0.0, 0.7)
    image = scene.image ** rng.uniform(1.0, 1.8) * gain
    dark = np.array([0.35, 0.4, 0.6]) * rng.uniform(0.0, 0.18)
    image = image * (1 - scene.sky) + dark * scene.sky
    above = 1 - scene.ground
    image = image * (1 - above * rng.uniform(0.0, 0.85))
    image = image * np.array(TINTS[rng.integers(len(TINTS))])
    image = image + _lamps(scene.image.shape, int(rng.integers(2, 26)), rng)
    return np.asarray(image + rng.normal(0, rng.uniform(0.004, 0.035), image.shape))


def dusk(scene: Scene, rng: Generator) -> Floats:
    """Let the sun be gone: a sky that still glows, dim ground, the first lamps."""
    height = scene.image.shape[0]
    rows = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    low = np.array([(0.95, 0.55, 0.3), (0.85, 0.6, 0.6), (0.6, 0.62, 0.72)][rng.integers(3)])
    high = np.array([(0.15, 0.2, 0.42), (0.3, 0.33, 0.5)][rng.integers(2)])
    share = np.clip(rows / 0.5, 0, 1) ** rng.uniform(0.7, 2.5)
    glow = (high * (1 - share) + low * share) * rng.uniform(0.5, 1.0)
    image = _faded(scene.image, rng.uniform(0.35, 0.9)) ** rng.uniform(1.0, 1.5)
    cast = np.array([rng.uniform(0.75, 1.1), rng.uniform(0.8, 0.95), rng.uniform(0.85, 1.25)])
    image = image * cast * rng.uniform(0.22, 0.75)
    image = image * (1 - scene.sky) + glow * scene.sky
    image = image + _lamps(scene.image.shape, int(rng.integers(0, 10)), rng) * 0.8
    return np.asarray(image + rng.normal(0, rng.uniform(0.002, 0.015), image.shape))


LAMPS = ((1.0, 0.95, 0.8), (1.0, 0.7, 0.3), (1.0, 0.15, 0.1), (0.8, 0.9, 1.0), (0.2, 1.0, 0.5))


def _lamps(shape: tuple[int, ...], count: int, rng: Generator) -> Floats:
    """Return the light of lamps, windows and rear lights: a bright core and a wide glow."""
    height, width = shape[:2]
    cores = np.zeros((height, width, 3), np.float32)
    for _ in range(count):
        row = float(np.clip(rng.normal(0.45, 0.14), 0.02, 0.95))
        place = (int(rng.integers(width)), int(row * height))
        colour = tuple(float(c) for c in LAMPS[rng.integers(len(LAMPS))])
        cv2.circle(cores, place, max(1, int(rng.exponential(1.8))), colour, -1, cv2.LINE_AA)
    glow = cv2.GaussianBlur(cores, (0, 0), rng.uniform(5, 16)) * rng.uniform(1.5, 5.0)
    return np.asarray(cv2.GaussianBlur(cores, (0, 0), 0.8) + glow)


Change = Callable[[Scene, Generator], Floats]
LIGHTS: Mapping[str, Change] = {"dusk": dusk, "night": night}
WEATHERS: Mapping[str, Change] = {"rain": rain, "fog": fog, "snow": snow}
