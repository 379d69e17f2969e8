"""A trained head on frozen features: read from safetensors, checked against the features' width.

Tensors of the file, of floating dtype, with F the width of the joined features:

- ``adapters.<layer>.down.weight`` [r, f], ``.down.bias`` [r], ``.up.weight`` [f, r], ``.up.bias``
  [f]: optional, for all layers or none. A layer's features x become x + up(gelu(down(x))).
- ``norm.weight`` [F], ``norm.bias`` [F]: optional layer normalisation.
- ``hidden.weight`` [h, F], ``hidden.bias`` [h]: optional layer with GELU.
- ``linear.weight`` [classes, F or h], ``linear.bias`` [classes].
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from roadstream.workers.engines.torch.checkpoint import Checkpoint

Weights = dict[str, Tensor]


class Head(nn.Module):
    """Adapters, normalisation and one or two linear layers.

    Args:
        weights: As the file has them, checked.
        names: Names of the features of each layer, in order.
    """

    def __init__(self, weights: Weights, names: Sequence[tuple[int, list[str]]]) -> None:
        super().__init__()
        self._names = names
        self._has = frozenset(weights)
        for name, value in weights.items():
            self.register_buffer(name.replace(".", "_"), value.float())

    def _of(self, name: str) -> Tensor:
        return self.get_buffer(name.replace(".", "_"))

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return functional.linear(x, self._of(f"{name}.weight"), self._of(f"{name}.bias"))

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Return logits [N, classes] for features [N, f] by name."""
        joined = []
        for layer, names in self._names:
            x = torch.cat([features[name].float() for name in names], dim=1)
            if f"adapters.{layer}.down.weight" in self._has:
                down = functional.gelu(self._linear(x, f"adapters.{layer}.down"))
                x = x + self._linear(down, f"adapters.{layer}.up")
            joined.append(x)
        x = torch.cat(joined, dim=1)
        if "norm.weight" in self._has:
            norm = self._of("norm.weight")
            x = functional.layer_norm(x, norm.shape, norm, self._of("norm.bias"))
        if "hidden.weight" in self._has:
            x = functional.gelu(self._linear(x, "hidden"))
        return self._linear(x, "linear")


class HeadFile:
    """The tensors of a head, before anything is known of the features.

    Args:
        checkpoint: For errors, and the folder that the file is relative to.
        name: The file.

    Attributes:
        classes: Number of outputs.

    Raises:
        ConfigError: It is no safetensors file, or lacks what every head has.
    """

    def __init__(self, checkpoint: Checkpoint, name: str) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import load

        cascade = checkpoint.cascade
        self._checkpoint, self._path = checkpoint, Path(cascade.folder, name)
        try:
            self._weights: Weights = load(cascade.read(name))
        except (OSError, SafetensorError) as error:
            said = f"{self._path}: {error}"
            raise checkpoint.problem("head", "a safetensors file", said) from None
        for tensor, value in self._weights.items():
            self._check(tensor, value.is_floating_point(), "a floating dtype", str(value.dtype))
        self.classes = len(self._shape("linear.bias", 1))

    def _check(self, tensor: str, holds: bool, expected: str, got: str) -> None:
        if not holds:
            raise self._checkpoint.problem(f"head: {self._path}: {tensor}", expected, got)

    def _shape(self, tensor: str, dimensions: int) -> Tensor:
        value = self._weights.get(tensor)
        self._check(tensor, value is not None, f"a tensor of {dimensions} dimensions", "nothing")
        assert value is not None
        self._check(
            tensor, value.ndim == dimensions, f"{dimensions} dimensions", str(list(value.shape))
        )
        return value

    def fit(self, names: Sequence[tuple[int, list[str]]], widths: Sequence[int]) -> Head:
        """Return the head for features of these names.

        Args:
            names: Per layer, the names of what is joined.
            widths: Per layer, the width of that.

        Raises:
            ConfigError: A tensor has another shape than these features ask for, is missing, or is
                none of a head's.
        """
        expected = self._expected([layer for layer, _ in names], widths)
        for tensor, shape in expected.items():
            found = list(self._shape(tensor, len(shape)).shape)
            self._check(tensor, found == shape, f"shape {shape}", f"{found}")
        for tensor in self._weights:
            self._check(tensor, tensor in expected, "only tensors of a head", "this one")
        return Head(self._weights, names)

    def _expected(self, layers: Sequence[int], widths: Sequence[int]) -> dict[str, list[int]]:
        width, weights = sum(widths), self._weights
        shapes: dict[str, list[int]] = {}
        if any(tensor.startswith("adapters.") for tensor in weights):
            for layer, own in zip(layers, widths, strict=True):
                key = f"adapters.{layer}"
                rank = len(self._shape(f"{key}.down.weight", 2))
                shapes |= {f"{key}.down.weight": [rank, own], f"{key}.down.bias": [rank]}
                shapes |= {f"{key}.up.weight": [own, rank], f"{key}.up.bias": [own]}
        if "norm.weight" in weights:
            shapes |= {"norm.weight": [width], "norm.bias": [width]}
        if "hidden.weight" in weights:
            inner = len(self._shape("hidden.weight", 2))
            shapes |= {"hidden.weight": [inner, width], "hidden.bias": [inner]}
            width = inner
        return shapes | {"linear.weight": [self.classes, width], "linear.bias": [self.classes]}
