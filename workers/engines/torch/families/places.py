"""What detectors have in common: from places with log-odds and boxes to a score and a few boxes."""

import os
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from roadstream.schemas.errors import ConfigError
from roadstream.schemas.records.votes import Box
from roadstream.schemas.settings.torch import TorchSettings
from roadstream.stages.inference import Score
from roadstream.workers.engines.torch.checkpoint import Checkpoint
from roadstream.workers.engines.torch.family import Family, Outputs
from roadstream.workers.engines.torch.placement import Placement
from roadstream.workers.engines.torch.scoring import clipped

# Transformers checks shapes on the device, and waits for each answer; this is its own switch.
os.environ.setdefault("TRANSFORMERS_DISABLE_TORCH_CHECK", "1")


class Strongest(nn.Module):
    """The best log-odds of the classes that mean roadwork, and where these are strongest.

    Args:
        chosen: Columns of these classes.
        most: So many boxes at most.
        exclusive: Whether a place stands for its likeliest class alone, which must be one of them;
            if not, it stands for each class that is likely enough.
    """

    def __init__(self, chosen: Sequence[int], most: int, *, exclusive: bool) -> None:
        super().__init__()
        self._most, self._exclusive = most, exclusive
        self.chosen: Tensor
        self.register_buffer("chosen", torch.tensor(list(chosen)), persistent=False)

    def forward(self, logits: Tensor, boxes: Tensor) -> dict[str, Tensor]:
        """Return ``raw`` [N], and ``logits`` [N, K], ``columns`` [N, K], ``corners`` [N, K, 4].

        Args:
            logits: float32 [N, places, classes], log-odds.
            boxes: float32 [N, places, 4]: centre, width and height, as shares of the picture.
        """
        mine = logits.index_select(2, self.chosen)
        raw = mine.amax((1, 2))
        if self._exclusive:
            mine = mine.masked_fill(mine < logits.amax(2, keepdim=True), -torch.inf)
        classes = mine.shape[2]
        strength, at = mine.flatten(1).topk(min(self._most, mine[0].numel()), dim=1)
        where = at // classes
        middle, half = boxes[..., :2], boxes[..., 2:] / 2
        corners = torch.cat([middle - half, middle + half], 2)
        return {
            "raw": raw,
            "logits": strength,
            "columns": self.chosen[at % classes],
            "corners": corners.gather(1, where.unsqueeze(2).expand(-1, -1, 4)),
        }


class Finder(Family):
    """A network that finds places, each with log-odds per class and a box.

    In half precision, matrix products and convolutions are rounded and the rest is not
    (``torch.autocast``): coordinates are sums of small steps, which bfloat16 would swallow.

    Args:
        checkpoint: As for every family.
        settings: Likewise.
        size: Likewise.

    Attributes:
        exclusive: Whether a place stands for its likeliest class alone.
    """

    exclusive = False

    def __init__(
        self, checkpoint: Checkpoint, settings: TorchSettings, size: tuple[int, int]
    ) -> None:
        super().__init__(checkpoint, settings, size)
        self.config = config_of(checkpoint, settings)

    @property
    @abstractmethod
    def names(self) -> Sequence[str]:
        """Names of the classes, by column."""

    @property
    @abstractmethod
    def chosen(self) -> Sequence[int]:
        """Columns of the classes that mean roadwork."""

    @abstractmethod
    def found(self, module: nn.Module, images: Tensor) -> dict[str, Tensor]:
        """Return what the head is called with; for `Strongest`, ``logits`` and ``boxes``.

        Args:
            module: As for ``forward``, and under the same rules.
            images: Likewise.
        """

    def put(self, module: nn.Module, place: Placement) -> nn.Module:
        """Return the network on the device, its weights as float32."""
        return place._replace(dtype=torch.float32).put(module)

    def forward(self, module: nn.Module, images: Tensor) -> dict[str, Tensor]:
        """Return what is found at all places, as float32."""
        dtype = self.place.dtype
        # A CUDA graph must not find weights in a cache that is emptied after recording.
        with torch.autocast(
            self.place.device.type, dtype, enabled=dtype != torch.float32, cache_enabled=False
        ):
            found = self.found(module, images)
        return {name: value.float() for name, value in found.items()}

    def load_head(self) -> nn.Module:
        """Return what picks the places that are told."""
        return Strongest(self.chosen, self.settings.max_boxes, exclusive=self.exclusive)

    def finish(self, head: nn.Module, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the score and the strongest places."""
        found: dict[str, Tensor] = head(**features)
        return found

    def scores(self, outputs: Outputs) -> list[Score]:
        """Return the best log-odds, and the boxes that are likely enough, strongest first."""
        raws = clipped(outputs["raw"])
        confidences = 1.0 / (1.0 + np.exp(-np.asarray(clipped(outputs["logits"]))))
        corners = outputs["corners"].astype(np.float64).clip(0.0, 1.0)
        return [
            Score(raw, self._boxes(*found))
            for raw, *found in zip(raws, confidences, outputs["columns"], corners, strict=True)
        ]

    def _boxes(
        self, confidences: NDArray[Any], columns: NDArray[Any], corners: NDArray[Any]
    ) -> list[Box]:
        likely = confidences > self.settings.min_confidence
        # What lies outside of the picture is left with no area.
        likely &= (corners[:, 2:] > corners[:, :2]).all(axis=1)
        found = []
        for i in np.flatnonzero(likely):
            x1, y1, x2, y2 = corners[i].tolist()
            name = self.names[int(columns[i])]
            found.append(Box(x1, y1, x2, y2, float(confidences[i]), name))
        return found

    def bad_size(self, expected: str) -> ConfigError:
        """Return the error of a width and height that do not fit, to be raised."""
        width, height = self.size
        return ConfigError(
            f"{self.checkpoint.where}: width, height", expected, f"{width} × {height}"
        )

    def check_multiples(self, step: int) -> None:
        """See to it that width and height are multiples of a step.

        Raises:
            ConfigError: They are not.
        """
        if any(side % step for side in self.size):
            raise self.bad_size(f"multiples of {step}")


def held_against(logits: Tensor, meant: int) -> Tensor:
    """Return log-odds [N, places, classes], the first less what the others are likelier by.

    Args:
        logits: Of classes that mean roadwork, then of those that mean none, if there are any.
        meant: Number of the former.
    """
    mine, others = logits[..., :meant], logits[..., meant:]
    if not others.shape[2]:
        return mine
    return torch.cat([mine - (others.amax(2, keepdim=True) - mine).clamp(min=0), others], 2)


def check_length(
    checkpoint: Checkpoint, key: str, tokens: Sequence[Any], most: int, text: str
) -> None:
    """See to it that a text is not longer than the network takes.

    Raises:
        ConfigError: It is.
    """
    if len(tokens) > most:
        raise checkpoint.problem(key, f"at most {most} tokens", f"{len(tokens)} in {text!r}")


def config_of(checkpoint: Checkpoint, settings: TorchSettings) -> Any:
    """Return the configuration as transformers reads it, with its defaults.

    Raises:
        ConfigError: It cannot be read.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(
            checkpoint.source, local_files_only=True, trust_remote_code=settings.trust_remote_code
        )
    except Exception as error:  # transformers' errors share no base
        raise checkpoint.damaged("a configuration of a detector", error) from error
