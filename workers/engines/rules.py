"""Engines without weights: the cone rule, and one that does nothing (for benchmarks)."""

from roadstream.schemas.cascade.model import Cascade, Member
from roadstream.schemas.records.votes import Box
from roadstream.stages.inference import Engine, Pictures, Pixels, Score
from roadstream.stages.rules.cones import find_cones
from roadstream.workers.engines.options import EngineOptions


class ConesEngine(Engine):
    """The colour-and-shape rule of ``roadstream.stages.rules.cones``.

    Args:
        cascade: Unused.
        member: For the size of the pictures it looks at, which its calibration was fitted on.
        options: Unused.
    """

    def __init__(self, cascade: Cascade, member: Member, options: EngineOptions) -> None:
        del cascade, options
        self._size = (member.width, member.height)
        self.only_at_size = not member.sizes

    def load(self) -> None:
        """Nothing to load."""

    def infer(self, batch: Pictures) -> list[Score]:
        """Return the rule's score and its cones as boxes."""
        return [_score(picture.at(*self._size)) for picture in batch]

    def close(self) -> None:
        """Nothing to give back."""


def _score(pixels: Pixels) -> Score:
    found = find_cones(pixels)
    boxes = [Box(b.x1, b.y1, b.x2, b.y2, b.confidence, "cone") for b in found.boxes]
    return Score(found.score, boxes)


class NoopEngine(Engine):
    """Gives every picture the same score without looking at it: measures what is around it.

    Args:
        unused: What every engine is made of.
    """

    needs_pixels = False
    _SCORE = Score(4.0, [])

    def __init__(self, *unused: object) -> None:
        del unused

    def load(self) -> None:
        """Nothing to load."""

    def warm_up(self, largest: int = 1) -> None:
        """Nothing to warm."""

    def infer(self, batch: Pictures) -> list[Score]:
        """Return the same score for each."""
        return [self._SCORE] * len(batch)

    def close(self) -> None:
        """Nothing to give back."""
