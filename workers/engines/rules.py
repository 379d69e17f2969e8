"""Engines without weights: the cone rule, and one that does nothing (for benchmarks)."""

from collections.abc import Sequence

from schemas.records import Box
from stages.cones import find_cones
from stages.inference import Engine, Picture, Score


class ConesEngine(Engine):
    """The colour-and-shape rule of ``stages.cones``."""

    def load(self) -> None:
        """Nothing to load."""

    def infer(self, batch: Sequence[Picture]) -> list[Score]:
        """Return the rule's score and its cones as boxes."""
        return [_score(picture) for picture in batch]

    def close(self) -> None:
        """Nothing to give back."""


def _score(picture: Picture) -> Score:
    found = find_cones(picture.pixels)
    boxes = [Box(b.x1, b.y1, b.x2, b.y2, b.confidence, "cone") for b in found.boxes]
    return Score(found.score, boxes)


class NoopEngine(Engine):
    """Gives every picture the same score without looking at it: measures what is around it."""

    needs_pixels = False
    _SCORE = Score(4.0, [])

    def load(self) -> None:
        """Nothing to load."""

    def warm_up(self) -> None:
        """Nothing to warm."""

    def infer(self, batch: Sequence[Picture]) -> list[Score]:
        """Return the same score for each."""
        return [self._SCORE] * len(batch)

    def close(self) -> None:
        """Nothing to give back."""
