"""The inference port: what an engine promises, and how a bad picture harms no neighbour."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.errors import EngineError, ImageError
from schemas.records import Box
from stages.decode import resize

Pixels = NDArray[np.uint8]


class Picture:
    """A decoded picture, resized at most once per size however many members want it.

    Attributes:
        pixels: uint8 RGB [H, W, 3], upright.
    """

    __slots__ = ("_sizes", "pixels")

    def __init__(self, pixels: Pixels) -> None:
        self.pixels = pixels
        self._sizes: dict[tuple[int, int], Pixels] = {}

    def at(self, width: int, height: int) -> Pixels:
        """Return it stretched to ``width`` × ``height``: uint8 RGB [height, width, 3]."""
        found = self._sizes.get((width, height))
        if found is None:
            found = self._sizes[width, height] = resize(self.pixels, width, height)
        return found


class Score(NamedTuple):
    """A member's finding for one picture: a finite raw score, and boxes if it has them."""

    raw: float
    boxes: list[Box]


class Engine(ABC):
    """Runs one member. One call at a time; calls block and are made in a worker thread.

    Lifecycle: ``load`` once, ``warm_up`` once, ``infer`` often, ``close`` once.
    """

    needs_pixels = True

    @abstractmethod
    def load(self) -> None:
        """Read weights and take device memory.

        Raises:
            ConfigError: The weights are not there or are not what the member says.
        """

    def warm_up(self) -> None:
        """Run once on a blank picture, so that the first real batch is not slow."""
        self.infer([Picture(np.zeros((64, 64, 3), np.uint8))])

    @abstractmethod
    def infer(self, batch: Sequence[Picture]) -> list[Score]:
        """Return one score per picture, in order.

        Raises:
            Exception: Anything; the caller isolates the picture that causes it.
        """

    @abstractmethod
    def close(self) -> None:
        """Give everything back; closing twice is fine."""


def infer_isolated(engine: Engine, batch: Sequence[Picture]) -> list[Score | ImageError]:
    """Infer a batch so that a picture that breaks the engine harms none of its neighbours.

    A batch that raises is halved until the culprit stands alone: at most 2·⌈log₂ n⌉ extra runs per
    culprit. A score that is NaN or infinite fails its own picture only.
    """
    if not batch:
        return []
    try:
        scores = engine.infer(batch)
        if len(scores) != len(batch):
            raise EngineError(f"expected {len(batch)} scores, got {len(scores)}")
    except Exception as error:
        if len(batch) == 1:
            return [ImageError("model_failed", f"{type(error).__name__}: {error}")]
        middle = len(batch) // 2
        return infer_isolated(engine, batch[:middle]) + infer_isolated(engine, batch[middle:])
    return [
        score
        if math.isfinite(score.raw)
        else ImageError("model_failed", f"expected a finite score, got {score.raw}")
        for score in scores
    ]
