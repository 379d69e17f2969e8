"""Depth: Depth Anything V2 (Yang et al. 2024, 2406.09414) and Depth Pro (2410.02073).

How far things are says nothing of roadwork by itself, so that a depth member gives no vote: it
abstains, and says what it measured. Where a rule of the cascade checks the sizes of boxes, it hands
on a map of metres, and has done its part.
"""

from collections.abc import Hashable, Sequence
from math import pi

import numpy as np
import torch
from torch import Tensor, nn

from roadstream.schemas.cascade.rules import Size
from roadstream.schemas.records.votes import NO_TAGS
from roadstream.schemas.settings.torch import TorchSettings
from roadstream.stages.inference import Abstained, DepthMap
from roadstream.workers.engines.torch.checkpoint import Checkpoint, pretrained
from roadstream.workers.engines.torch.family import Family, Outputs

# Shares of the pixels that are nearer than what is told.
_SHARES = (0.05, 0.5, 0.95)
# Pixels per side that are looked at: sorting or copying all of them costs more than it tells.
_GRID = 256
# Bounds of the inverse depth per metre, as the authors' own code has them.
_INVERSE = (1e-4, 1e4)


class Depth(Family):
    """Tells the depth of a picture: in metres where the checkpoint was trained for them.

    Depth Pro also estimates the focal length, without which metres need a known camera.
    """

    def __init__(
        self, checkpoint: Checkpoint, settings: TorchSettings, size: tuple[int, int]
    ) -> None:
        super().__init__(checkpoint, settings, size)
        config = checkpoint.config
        self._pro = checkpoint.model_type == "depth_pro"
        self._metric = self._pro or config.get("depth_estimation_type") == "metric"
        self._mapped = any(
            isinstance(rule, Size) and rule.enabled for rule in checkpoint.cascade.rules
        )
        # Depth Anything's head has an output per pixel of whole patches alone.
        step = 1 if self._pro else int(config.get("patch_size") or 14)
        width, height = size
        if width % step or height % step:
            raise checkpoint.damaged(f"width and height in steps of {step}", f"{width} × {height}")
        if self._pro and width != height:
            raise checkpoint.damaged("width and height to be equal", f"{width} × {height}")

    def identity(self) -> Hashable:
        """Nothing in the settings changes what is measured; rules change what is told of it."""
        return "depth", self._mapped

    def load(self) -> nn.Module:
        """Return the network."""
        from transformers import DepthAnythingForDepthEstimation, DepthProForDepthEstimation

        kind = DepthProForDepthEstimation if self._pro else DepthAnythingForDepthEstimation
        module: nn.Module = pretrained(kind, self.checkpoint, self.settings)
        return module

    def forward(self, module: nn.Module, images: Tensor) -> dict[str, Tensor]:
        """Return what so many shares of the pixels are below [N, 3], and the focal length [N].

        In metres if the checkpoint tells them; else inverse depth without a unit. The focal length
        is a multiple of the picture's width; 0 where it is not told. If a rule wants it, also the
        depth of pixels all over the picture [N, height, width].
        """
        found = module(pixel_values=self.normalised(images))
        depth = found.predicted_depth.float()
        focal = torch.zeros(len(images), device=depth.device)
        if self._pro:
            if found.field_of_view is not None:
                focal = 0.5 / torch.tan(found.field_of_view.float() * (pi / 360))
                depth = depth / focal[:, None, None]
            depth = 1.0 / depth.clamp(*_INVERSE)
        down, across = (-(-side // _GRID) for side in depth.shape[1:])
        depth = depth[:, ::down, ::across]
        told = {"quantiles": _quantiles(depth), "focal": focal}
        return told | {"depth": depth.contiguous()} if self._mapped and self._metric else told

    def scores(self, outputs: Outputs) -> Sequence[Abstained]:
        """Return what was measured."""
        rows = zip(outputs["quantiles"].tolist(), outputs["focal"].tolist(), strict=True)
        tags = {"depth": "metres" if self._metric else "relative"} if self._mapped else NO_TAGS
        return [
            Abstained(self._said(quantiles, focal), tags, self._map(outputs, row, focal))
            for row, (quantiles, focal) in enumerate(rows)
        ]

    def _map(self, outputs: Outputs, row: int, focal: float) -> DepthMap | None:
        if (depth := outputs.get("depth")) is None:
            return None
        # Without a field of view Depth Pro's metres are those of a focal length of one width.
        return DepthMap(depth[row], focal or (1.0 if self._pro else None))

    def _said(self, quantiles: Sequence[float], focal: float) -> str:
        shares = ", ".join(f"{share:.0%}" for share in _SHARES)
        values = ", ".join(f"{value:.3g}" for value in quantiles)
        unit = "m" if self._metric else "(inverse depth, no unit)"
        seen = f"; focal length {focal:.3g} of the width" if np.isfinite(focal) and focal else ""
        return f"depth alone is no evidence; {shares} of the picture below {values} {unit}{seen}"


def _quantiles(depth: Tensor) -> Tensor:
    """Return depths [N, 3] that the shares of the pixels [N, height, width] are below."""
    ordered = depth.flatten(1).sort(dim=1).values
    last = ordered.shape[1] - 1
    return torch.stack([ordered[:, round(share * last)] for share in _SHARES], 1)
