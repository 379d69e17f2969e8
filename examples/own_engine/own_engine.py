"""An engine of your own: a linear model of a picture's colours, with its weights in a file."""

import numpy as np

from roadstream.schemas.cascade.model import Cascade, Member
from roadstream.schemas.engines import EngineTraits
from roadstream.schemas.errors import ConfigError
from roadstream.stages.inference import Engine, Pictures, Score
from roadstream.workers.engines.options import EngineOptions


class LinearEngine(Engine):
    """Scores pictures by a weight per colour of each pixel, and one more for all pictures.

    Its file has the weights as numbers, one a line: ``height * width * 3`` and the last one.
    """

    traits = EngineTraits(model="file")
    only_at_size = True

    def __init__(self, cascade: Cascade, member: Member, options: EngineOptions) -> None:
        del options  # threads per call, for a library that has threads of its own
        self._path = cascade.model_path(member)
        self._size = (member.width, member.height)

    def load(self) -> None:
        """Read the weights. A library that runs a model would be imported here.

        Raises:
            ConfigError: They are no numbers, or too few or too many.
        """
        width, height = self._size
        expected = f"{height * width * 3 + 1} numbers, one a line"
        try:
            weights = np.loadtxt(self._path, ndmin=1)
        except ValueError as error:
            raise ConfigError(str(self._path), expected, str(error)) from error
        if weights.shape != (height * width * 3 + 1,):
            raise ConfigError(str(self._path), expected, f"an array of {weights.shape}")
        self._weights, self._bias = weights[:-1], weights[-1]

    def infer(self, batch: Pictures) -> list[Score]:
        """Return the log-odds of roadwork per picture."""
        pixels = batch.stack(*self._size)  # uint8 RGB [N, height, width, 3]
        raw = pixels.reshape(len(batch), -1) / 255 @ self._weights + self._bias
        return [Score(float(one), boxes=[]) for one in raw]

    def close(self) -> None:
        """Give the weights back."""
        self._weights = np.zeros(0)
