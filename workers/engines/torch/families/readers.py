"""How the frozen backbones are read: one vector per picture, layer and way of pooling.

Layers are counted from 1; layer 0 is what the backbone gives in the end, normalised as it says. Two
vectors are read of a layer: ``cls``, the class token, and ``mean``, the mean of the patches; where
there is no class token, ``cls`` is the backbone's own pooling, or the mean again.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, cast

from torch import Tensor, nn

from roadstream.schemas.settings.torch import TorchSettings
from roadstream.workers.engines.torch.checkpoint import Checkpoint, pretrained
from roadstream.workers.engines.torch.families.timm import read_timm

Vectors = tuple[Tensor, Tensor]
# Where the last normalisation is.
_NORMS = {"dinov3_vit": "norm", "dinov2": "layernorm", "dinov2_with_registers": "layernorm"}


class Reader(ABC):
    """Loads a backbone and reads its layers.

    Args:
        checkpoint: Of the backbone.
        settings: The member's.
        size: Width and height of the pictures.
    """

    def __init__(
        self, checkpoint: Checkpoint, settings: TorchSettings, size: tuple[int, int]
    ) -> None:
        self.checkpoint, self.settings, self.size = checkpoint, settings, size

    @abstractmethod
    def widths(self) -> list[int]:
        """Return the width of each layer's vectors, layer 1 first; known once it is loaded."""

    @abstractmethod
    def load(self) -> nn.Module:
        """Return the backbone, on the CPU."""

    @abstractmethod
    def read(
        self, module: nn.Module, pixels: Tensor, layers: Sequence[int]
    ) -> Iterator[tuple[int, Vectors]]:
        """Yield ``cls`` and ``mean`` [N, width] of each layer asked for."""


class TokenReader(Reader):
    """Vision transformers of transformers: class token, registers, patches."""

    def widths(self) -> list[int]:
        """Return one width for all blocks."""
        return [int(self._config.hidden_size)] * int(self._config.num_hidden_layers)

    def load(self) -> nn.Module:
        """Return the model without a task."""
        from transformers import AutoModel

        module: Any = pretrained(AutoModel, self.checkpoint, self.settings)
        self._config = module.config
        self._norm = _NORMS[self.checkpoint.model_type]
        self._prefix = 1 + int(getattr(self._config, "num_register_tokens", 0))
        return cast("nn.Module", module)

    def read(
        self, module: nn.Module, pixels: Tensor, layers: Sequence[int]
    ) -> Iterator[tuple[int, Vectors]]:
        """Read tokens; the backbone's last normalisation is laid on every block's."""
        found: Any = module(pixel_values=pixels, output_hidden_states=any(layers))
        norm: nn.Module = getattr(module, self._norm)
        for layer in layers:
            tokens = norm(found.hidden_states[layer]) if layer else found.last_hidden_state
            yield layer, (tokens[:, 0], tokens[:, self._prefix :].mean(1))


class StageReader(Reader):
    """DINOv3's ConvNeXt: stages give maps, the end a pooled vector and patches."""

    def widths(self) -> list[int]:
        """Return the channels of each stage."""
        return [int(width) for width in self._config.hidden_sizes]

    def load(self) -> nn.Module:
        """Return the model without a task."""
        from transformers import AutoModel

        module: Any = pretrained(AutoModel, self.checkpoint, self.settings)
        self._config = module.config
        return cast("nn.Module", module)

    def read(
        self, module: nn.Module, pixels: Tensor, layers: Sequence[int]
    ) -> Iterator[tuple[int, Vectors]]:
        """Read maps by their mean."""
        found: Any = module(pixel_values=pixels, output_hidden_states=any(layers))
        for layer in layers:
            if layer:
                mean = found.hidden_states[layer].mean((2, 3))
                yield layer, (mean, mean)
            else:
                yield 0, (found.pooler_output, found.last_hidden_state[:, 1:].mean(1))


class TimmReader(Reader):
    """Any model of timm."""

    def widths(self) -> list[int]:
        """Return what timm tells of the model's layers."""
        return [int(one["num_chs"]) for one in self._layers]

    def load(self) -> nn.Module:
        """Return the model without its classifier."""
        module: Any = read_timm(self.checkpoint, self.size, num_classes=0)
        self._layers = list(module.feature_info)
        self._prefix = int(getattr(module, "num_prefix_tokens", 0))
        # Channels last in some hierarchical transformers, first in convolutional networks.
        self._axes = (1, 2) if getattr(module, "output_fmt", "NCHW") == "NHWC" else (2, 3)
        return cast("nn.Module", module)

    def read(
        self, module: nn.Module, pixels: Tensor, layers: Sequence[int]
    ) -> Iterator[tuple[int, Vectors]]:
        """Read the layers by timm's own interfaces for features."""
        model: Any = module
        inner = [layer for layer in layers if layer]
        if len(inner) < len(layers):
            last = model.forward_features(pixels)
            yield 0, (model.forward_head(last, pre_logits=True), self._mean(last))
        if not inner:
            return
        asked = {"indices": [layer - 1 for layer in inner], "intermediates_only": True}
        if self._prefix:
            asked |= {"return_prefix_tokens": True, "norm": True}
        for layer, found in zip(inner, model.forward_intermediates(pixels, **asked), strict=True):
            maps, first = (found[0], found[1][:, 0]) if self._prefix else (found, None)
            mean = maps.mean((2, 3))
            yield layer, (mean if first is None else first, mean)

    def _mean(self, last: Tensor) -> Tensor:
        return last[:, self._prefix :].mean(1) if last.ndim == 3 else last.mean(self._axes)


READERS: dict[str, type[Reader]] = {
    "dinov2": TokenReader,
    "dinov2_with_registers": TokenReader,
    "dinov3_convnext": StageReader,
    "dinov3_vit": TokenReader,
}
"""By ``model_type``; what has none, but an ``architecture``, is timm's."""
