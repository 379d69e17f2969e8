"""Patterns of a synthetic drive that are made once: ground, clouds, hills, lens, bonnet."""

import cv2
import numpy as np
import numpy.typing as npt

from roadstream.workers.demo.world import ASPHALT_LEFT, ASPHALT_RIGHT

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

TILE, TILE_SCALE = 64.0, 16  # metres and pixels per metre of the ground's pattern


def noise(shape: tuple[int, int], cells: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """Sum smooth noise of several grains, about −1 to 1, repeating in neither direction."""
    total = np.zeros(shape, np.float32)
    for k, count in enumerate(cells):
        size = (max(2, count), max(2, round(count * shape[1] / shape[0])))
        coarse = rng.normal(0, 0.6 / 1.6**k, size).astype(np.float32)
        total += cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)
    return total


def ground_levels(rng: np.random.Generator) -> list[Pixels]:
    """Asphalt, verge and grass around the road as seen from above, RGB, four levels of detail."""
    wide, long = round(160 * TILE_SCALE), round(TILE * TILE_SCALE)
    x = ((np.arange(wide) + 0.5) / TILE_SCALE - 80).astype(np.float32)[None, :]
    rough = noise((long, wide), (24, 90), rng)
    fine = rng.normal(0, 1, (long, wide)).astype(np.float32)
    edge = x + 0.25 * noise((long, wide), (60,), rng)
    grass = np.array([92, 112, 56], np.float32) * (1 + 0.16 * rough + 0.1 * fine)[..., None]
    gravel = np.array([138, 128, 112], np.float32) * (1 + 0.06 * rough + 0.1 * fine)[..., None]
    wheel = sum(np.exp(-(((x - c) / 0.35) ** 2)) for c in (-4.3, -2.7, -0.8, 0.8))
    tar = (1 + 0.05 * rough + 0.055 * fine) * (1 - 0.1 * wheel)
    asphalt = np.array([104, 105, 107], np.float32) * tar[..., None]
    for _ in range(5):
        row, column = (
            int(rng.integers(0, long - 90)),
            round((80 + rng.uniform(-5, 1)) * TILE_SCALE),
        )
        patch = asphalt[row : row + int(rng.integers(30, 90)), column : column + 30]
        patch *= np.float32(rng.uniform(0.8, 0.92))
    on_road = _inside(x, ASPHALT_LEFT, ASPHALT_RIGHT, 0.06)[..., None]
    on_verge = _inside(edge, ASPHALT_LEFT - 1.2, ASPHALT_RIGHT + 1.2, 0.3)[..., None]
    level = grass + on_verge * (gravel - grass)
    level += on_road * (asphalt - level)
    levels = [np.asarray(cv2.convertScaleAbs(level), np.uint8)]
    for _ in range(3):
        half = (levels[-1].shape[1] // 2, levels[-1].shape[0] // 2)
        smaller = cv2.resize(levels[-1], half, interpolation=cv2.INTER_AREA)
        levels.append(np.asarray(smaller, np.uint8))
    return levels


def _inside(x: Floats, low: float, high: float, soft: float) -> Floats:
    return np.asarray(np.clip(np.minimum(x - low, high - x) / soft + 0.5, 0, 1), np.float32)


def hills(shape: tuple[int, int], rng: np.random.Generator) -> Floats:
    """How much of each sky pixel [H, W] is hidden by the far hills and woods."""
    height, width = shape
    line = noise((8, width), (2, 5), rng)[4] + 0.25 * noise((8, width), (20,), rng)[4]
    heights = np.clip((0.076 + 0.044 * line) * height, 1, None)
    rows = np.arange(height)[:, None]
    return np.asarray(np.clip(rows - (height - heights[None, :]) + 1, 0, 1), np.float32)


def vignette(width: int, height: int) -> Pixels:
    """How the lens darkens the corners: factors [H, W, 3] from 0 to 255."""
    y = np.linspace(-1, 1, height)[:, None]
    x = np.linspace(-1, 1, width)[None, :]
    light = 255 * (1 - 0.16 * (x**2 + y**2) ** 1.3 / 2)
    return np.repeat(light[..., None], 3, axis=2).clip(0, 255).astype(np.uint8)


def hood(width: int, height: int) -> tuple[Floats, Floats]:
    """The car's bonnet at the lower edge: colours and how much they cover."""
    rows = round(0.085 * height)
    x = np.linspace(-1, 1, width)[None, :]
    y = np.linspace(1, 0, rows)[:, None]
    top = 0.86 * (1 - np.abs(x) ** 3.2)
    cover = np.clip((top - y) * rows / 2, 0, 1)[..., None]
    sheen = 26 + 46 * np.clip(1 - np.abs(y - top + 0.1) * 4, 0, 1) + 10 * (1 - np.abs(x))
    colour = sheen[..., None] * np.array([0.95, 1.0, 1.08])
    return colour.astype(np.float32), cover.astype(np.float32)
