"""How hard an image is to judge: six features, their weighted mean, and a bin of it. Pure.

Every feature is in [0, 1], and the more of it, the harder is the image. What is not known of an
image is left out, and the weights of the others count in proportion: it is neither easy nor hard.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import fsum, sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from roadstream.schemas.cascade.rules import DIFFICULTY_WEIGHTS, Difficulty

# So many points of a picture are looked at, whatever its size: enough to tell mean and spread of
# its brightness to a hundredth, in 20 microseconds.
_ROWS, _COLUMNS = 48, 80
# Neighbouring points whose brightness differs by more than this, of 255, have an edge between them.
_EDGE = 24
# Brightness and its standard deviation, in [0, 1], of a picture that is exposed as it should be.
_BRIGHTNESS, _CONTRAST = 0.45, 0.25
# Objects in a picture at which their feature is 0.5.
_OBJECTS = 5
_WEATHER = {"dry": 0.0, "rain": 0.5, "fog": 1.0, "snow": 1.0}


class Surface(NamedTuple):
    """What is measured of a picture's pixels.

    Attributes:
        brightness: Mean, in [0, 1].
        contrast: Standard deviation of the brightness, in [0, 0.5].
        edges: Share of neighbouring points that an edge lies between.
    """

    brightness: float
    contrast: float
    edges: float


class Features(NamedTuple):
    """What makes an image hard, in [0, 1] each; ``None`` where it is not known.

    Attributes:
        variance: Twice the standard deviation of what its members make of it.
        objects: Grows with the number of boxes.
        weather: 0 when dry, 0.5 in rain, 1 in fog or snow.
        exposure: How far brightness and contrast are from those of a well exposed picture.
        edges: Edge density.
        past: Share of similar scenes that were answered wrongly.
    """

    variance: float | None = None
    objects: float | None = None
    weather: float | None = None
    exposure: float | None = None
    edges: float | None = None
    past: float | None = None


def features(
    probabilities: Sequence[float],
    boxes: int | None = None,
    weather: str | None = None,
    surface: Surface | None = None,
) -> Features:
    """Return an image's features.

    Args:
        probabilities: What its members make of it, in any order; those that are absent are not
            among them.
        boxes: Number of objects found; ``None`` if nobody has looked for any.
        weather: The value of the tag ``weather``.
        surface: What its pixels look like; ``None`` if nobody has looked at them.
    """
    return Features(
        _variance(probabilities),
        None if boxes is None else boxes / (boxes + _OBJECTS),
        None if weather is None else _WEATHER.get(weather),
        None if surface is None else _exposure(surface),
        None if surface is None else surface.edges,
    )


def _variance(ps: Sequence[float]) -> float | None:
    """Return twice the standard deviation; ``None`` for fewer than two voters."""
    if len(ps) < 2:
        return None
    mean = fsum(ps) / len(ps)
    return min(1.0, 2 * sqrt(fsum([(p - mean) ** 2 for p in ps]) / len(ps)))


def _exposure(surface: Surface) -> float:
    """Return the mean of what is amiss with brightness and with contrast."""
    off = abs(surface.brightness - _BRIGHTNESS) / max(_BRIGHTNESS, 1 - _BRIGHTNESS)
    flat = max(0.0, 1 - surface.contrast / _CONTRAST)
    return (off + flat) / 2


def surface(pixels: NDArray[np.uint8]) -> Surface | None:
    """Return what a picture's pixels look like, by its green channel; ``None`` without any.

    Args:
        pixels: uint8 RGB [H, W, 3].
    """
    height, width = pixels.shape[:2]
    if not height or not width:
        return None
    green = np.take(pixels, _points(height, width)).astype(np.int32)
    flat = green.ravel()
    mean = int(flat.sum()) / flat.size
    variance = max(0.0, int(flat @ flat) / flat.size - mean * mean)
    across = np.abs(green[:, 1:] - green[:, :-1]) > _EDGE
    down = np.abs(green[1:] - green[:-1]) > _EDGE
    edges = int(np.count_nonzero(across)) + int(np.count_nonzero(down))
    return Surface(mean / 255, sqrt(variance) / 255, edges / (across.size + down.size))


@lru_cache(maxsize=64)
def _points(height: int, width: int) -> NDArray[np.intp]:
    """Return where the green of the points lies in a picture's bytes: [48, 80]."""
    rows = (2 * np.arange(_ROWS) + 1) * height // (2 * _ROWS)
    columns = (2 * np.arange(_COLUMNS) + 1) * width // (2 * _COLUMNS)
    found: NDArray[Any] = (rows[:, None] * width + columns) * 3 + 1
    return found


class Bins:
    """A ``difficulty`` rule, ready to be asked once per image.

    Args:
        rule: Its settings.
    """

    def __init__(self, rule: Difficulty) -> None:
        weights: Mapping[str, float] = DIFFICULTY_WEIGHTS | rule.weights
        self._weights = [weights[name] for name in Features._fields]
        self._bounds = rule.bounds

    def score(self, found: Features) -> float | None:
        """Return how hard an image is, in [0, 1]; ``None`` if nothing of weight is known of it."""
        known = [
            (value, weight)
            for value, weight in zip(found, self._weights, strict=True)
            if value is not None and weight > 0
        ]
        if not known:
            return None
        total = fsum([weight for _, weight in known])
        return min(1.0, fsum([value * weight for value, weight in known]) / total)

    def level(self, found: Features) -> str | None:
        """Return an image's bin, ``1`` (easy) to ``5``; ``None`` without a score."""
        score = self.score(found)
        return None if score is None else str(bisect_right(self._bounds, score) + 1)
