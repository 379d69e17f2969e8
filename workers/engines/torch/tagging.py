"""Tags of a picture, by the likeliest of a tag's values: ``weather=rain``, ``light=night``."""

from collections.abc import Sequence
from math import isnan
from typing import NamedTuple

from roadstream.schemas.errors import ImageError
from roadstream.schemas.settings.torch import TorchSettings
from roadstream.stages.inference import Abstained, EngineResult, Score
from roadstream.workers.engines.torch.scoring import Floats


class Tagging(NamedTuple):
    """Which tags a member gives.

    Attributes:
        values: The values of each tag, in order.
        least: A tag is given where its likeliest value is at least so likely.
    """

    values: dict[str, list[str]]
    least: float

    @classmethod
    def of(cls, settings: TorchSettings) -> "Tagging":
        """Return what a member's settings say."""
        values = {tag: list(values) for tag, values in settings.tags.items()}
        return cls(values, settings.tag_confidence)

    def findings(
        self, told: Sequence[Floats], raws: Sequence[float] | None
    ) -> Sequence[EngineResult]:
        """Return a finding per picture.

        Args:
            told: Per tag how likely its values are [N, values].
            raws: Scores [N]; ``None`` where tags are all that is told.
        """
        if raws is None:
            return [self._alone(row) for row in zip(*told, strict=True)]
        if not told:
            return [Score(raw, []) for raw in raws]
        return [
            Score(raw, [], tags=self._tags(self._likeliest(row)))
            for raw, *row in zip(raws, *told, strict=True)
        ]

    def _alone(self, row: Sequence[Floats]) -> EngineResult:
        likeliest = self._likeliest(row)
        tags = self._tags(likeliest)
        left = [one for one in likeliest if one.tag not in tags]
        for one in left:
            if isnan(one.likelihood):
                return ImageError("model_failed", f"expected how likely {one.tag} is, got nan")
        unsure = ", ".join(f"{one.tag}={one.value} ({one.likelihood:.2f})" for one in left)
        return Abstained(f"not sure enough: {unsure}" if unsure else "", tags)

    def _tags(self, likeliest: Sequence["_Likeliest"]) -> dict[str, str]:
        return {one.tag: one.value for one in likeliest if one.likelihood >= self.least}

    def _likeliest(self, row: Sequence[Floats]) -> list["_Likeliest"]:
        """Return the likeliest value of each tag, of a picture's likelihoods [values] per tag."""
        best = [int(likelihoods.argmax()) for likelihoods in row]
        return [
            _Likeliest(tag, values[at], float(likelihoods[at]))
            for (tag, values), at, likelihoods in zip(self.values.items(), best, row, strict=True)
        ]


class _Likeliest(NamedTuple):
    tag: str
    value: str
    likelihood: float


NO_TAGGING = Tagging({}, 1.0)
