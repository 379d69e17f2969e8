"""An engine of your own: how much of a picture is as orange as cones and signs of roadwork."""

from math import log
from typing import Annotated

import numpy as np
from msgspec import Meta

from roadstream.schemas.cascade.model import Cascade, Member
from roadstream.schemas.engines import EngineTraits
from roadstream.schemas.settings.base import EngineSettings
from roadstream.stages.inference import Engine, Pictures, Pixels, Score
from roadstream.workers.engines.options import EngineOptions


class OrangeSettings(EngineSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the ``orange`` engine.

    Attributes:
        even_odds: Share of orange pixels at which roadwork is as likely as not.
    """

    even_odds: Annotated[float, Meta(gt=0, lt=1)] = 0.001


class OrangeEngine(Engine):
    """Scores pictures by the share of their pixels that are orange."""

    traits = EngineTraits(settings=OrangeSettings)
    only_at_size = True

    def __init__(self, cascade: Cascade, member: Member, options: EngineOptions) -> None:
        del cascade, options  # needed by engines with weights, and with threads
        assert isinstance(member.settings, OrangeSettings)
        self._settings, self._size = member.settings, (member.width, member.height)

    def load(self) -> None:
        """Nothing to load. A model would be read here, and its library imported."""

    def infer(self, batch: Pictures) -> list[Score]:
        """Return the log-odds of roadwork per picture."""
        return [self._score(picture.at(*self._size)) for picture in batch]

    def _score(self, pixels: Pixels) -> Score:
        red, green, blue = np.moveaxis(pixels.astype(np.int16), 2, 0)
        share = float(np.mean((red > green + 80) & (green > blue + 20)))
        return Score(log((share + 1e-4) / self._settings.even_odds), boxes=[])

    def close(self) -> None:
        """Nothing to give back."""
