"""Engines of your own: one says tags of pictures, one looks at what earlier tiers found in them."""

from math import log

import numpy as np

from roadstream.schemas.cascade.model import Cascade, Member
from roadstream.schemas.engines import EngineTraits
from roadstream.stages.inference import Abstained, Engine, Picture, Pictures, Score
from roadstream.workers.engines.options import EngineOptions


class LightEngine(Engine):
    """Says whether it is day or night in a picture, by how bright it is; it gives no vote."""

    only_at_size = True

    def __init__(self, cascade: Cascade, member: Member, options: EngineOptions) -> None:
        del cascade, options
        self._size = (member.width, member.height)

    def load(self) -> None:
        """Nothing to load."""

    def infer(self, batch: Pictures) -> list[Abstained]:
        """Return the tag ``light`` per picture."""
        means = [float(picture.at(*self._size).mean()) for picture in batch]
        return [Abstained(tags={"light": "night" if mean < 60 else "day"}) for mean in means]

    def close(self) -> None:
        """Nothing to give back."""


class OrangeBoxEngine(Engine):
    """Scores how orange the surest box is that earlier tiers found."""

    traits = EngineTraits(evidence=True)

    def __init__(self, cascade: Cascade, member: Member, options: EngineOptions) -> None:
        del cascade, options
        self._kinds = member.settings.evidence

    def load(self) -> None:
        """Nothing to load."""

    def infer(self, batch: Pictures) -> list[Score | Abstained]:
        """Return the log-odds of roadwork per picture with a box, and a tag without one."""
        return [self._judged(picture) for picture in batch]

    def _judged(self, picture: Picture) -> Score | Abstained:
        found = picture.evidence.only(self._kinds)
        if not found.boxes:
            return Abstained(tags={"boxes": "none"})
        box = found.boxes[0]  # the most confident one, in widths and heights of the picture
        height, width = picture.pixels.shape[:2]
        rows = slice(int(box.y1 * height), int(box.y2 * height) + 1)
        columns = slice(int(box.x1 * width), int(box.x2 * width) + 1)
        red, green, blue = np.moveaxis(picture.pixels[rows, columns].astype(np.int16), 2, 0)
        orange = float(np.mean((red > green + 40) & (green > blue)))
        return Score(log((orange + 0.01) / 0.1), boxes=[box], tags={"boxes": "looked"})

    def close(self) -> None:
        """Nothing to give back."""
