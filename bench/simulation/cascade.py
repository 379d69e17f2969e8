"""The cascade of the simulation: scripted engines that read a picture's grey level, and break."""

import functools
import io

import numpy as np
from PIL import Image as Pillow

from roadstream.schemas.cascade.model import Cascade, Member, Tier
from roadstream.schemas.cascade.routes import Route
from roadstream.schemas.errors import DeviceMemoryError
from roadstream.stages.inference import Engine, Pictures, Score

POISON, NONSENSE, NO_PICTURE = 13, 14, -1
# From sure to unsure, on both sides; one in a dozen breaks something.
LEVELS = [250, 6, 240, 10, 230, 20, 200, 60, 160, 140, 129, 128, 127, 110, 245, 12, 248, 8, 235, 16]
RARE_LEVELS = [POISON, NONSENSE, NO_PICTURE]
ALL_LEVELS = sorted({*LEVELS, *RARE_LEVELS})


@functools.cache
def picture(level: int) -> bytes:
    """Return a JPEG of one grey level; for ``NO_PICTURE``, bytes that are none."""
    if level == NO_PICTURE:
        return b"no picture"
    target = io.BytesIO()
    pixels = np.full((8, 8, 3), level, np.uint8)
    Pillow.fromarray(pixels).save(target, "JPEG", quality=100, subsampling=0)
    return target.getvalue()


class Troubles:
    """What ails the engines of all processes at the moment.

    Attributes:
        fits: Largest batch that fits into memory; ``None`` for any.
        sick: Members that fail on every picture.
    """

    def __init__(self) -> None:
        self.fits: int | None = None
        self.sick: set[str] = set()


class ScriptedEngine(Engine):
    """Gives log-odds of ``(level − 128) / scale``; breaks on poison, nonsense and troubles."""

    def __init__(self, name: str, scale: float, troubles: Troubles) -> None:
        self._name, self._scale, self._troubles = name, scale, troubles

    def load(self) -> None:
        """Nothing to load."""

    def infer(self, batch: Pictures) -> list[Score]:
        """Return a score per picture."""
        troubles = self._troubles
        if troubles.fits is not None and len(batch) > troubles.fits:
            raise DeviceMemoryError(f"{len(batch)} pictures do not fit, {troubles.fits} do")
        if self._name in troubles.sick:
            raise RuntimeError("sick")
        levels = [int(one.pixels[0, 0, 0]) for one in batch]
        if POISON in levels:
            raise RuntimeError("poison")
        return [
            Score(float("nan") if level == NONSENSE else (level - 128) / self._scale, [])
            for level in levels
        ]

    def close(self) -> None:
        """Nothing to give back."""


class NoopEngine(ScriptedEngine):
    """Looks at nothing and says the same of everything."""

    needs_pixels = False

    def infer(self, batch: Pictures) -> list[Score]:
        """Return 2.0 for each."""
        return [Score(2.0, []) for _ in batch]


SCALES = {"first": 16.0, "second": 24.0, "third": 8.0, "shade": -8.0, "last": 0.0}


def _member(name: str, weight: float = 1.0) -> Member:
    return Member(name=name, engine="noop", weight=weight, width=8, height=8)


def cascade(max_batch: int) -> Cascade:
    """Return three tiers: most images exit at the first, the last one looks at nothing."""
    first = Tier(
        name="one",
        members=[_member("first"), _member("second", 0.5)],
        routes=[Route(to="three", max_confidence=0.02), Route(to="exit", min_confidence=0.9)],
        max_batch=max_batch,
    )
    second = Tier(
        name="two",
        members=[_member("third"), _member("shade", 0.0)],
        routes=[Route(to="exit", min_confidence=0.6)],
        max_batch=max_batch,
    )
    third = Tier(name="three", members=[_member("last", 2.0)], routes=[], max_batch=max_batch)
    tiers = [first, second, third]
    return Cascade(name="simulation", tiers=tiers, threshold=0.5, hash="0123456789abcdef")


def engines(troubles: Troubles) -> dict[str, Engine]:
    """Return the engine of every member."""
    return {
        name: (ScriptedEngine if scale else NoopEngine)(name, scale, troubles)
        for name, scale in SCALES.items()
    }
