"""What a family of checkpoints must tell: how it is read, run, and what its output means here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from roadstream.schemas.settings.base import EvidenceKind
from roadstream.schemas.settings.torch import TorchSettings
from roadstream.stages.inference import EngineResult, Pictures
from roadstream.workers.engines.torch.checkpoint import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor, nn

    from roadstream.workers.engines.torch.placement import Placement

Inputs = dict[str, NDArray[Any]]
Outputs = dict[str, NDArray[np.float32]]


class Statistics(NamedTuple):
    """What pixels 0–255 are multiplied with and what is added then, per channel.

    Attributes:
        scale: Factor.
        shift: Summand.
        bgr: Whether the network wants blue first.
    """

    scale: tuple[float, ...]
    shift: tuple[float, ...]
    bgr: bool = False

    @classmethod
    def of(cls, preprocessor: dict[str, object]) -> Statistics:
        """Return those of a ``preprocessor_config.json`` as transformers writes it."""
        given = msgspec.convert(preprocessor, _Preprocessor)
        factor = given.rescale_factor if given.do_rescale else 1.0
        mean, std = (0.0,) * 3, (1.0,) * 3
        if given.do_normalize:
            mean, std = given.image_mean or mean, given.image_std or std
        return cls(
            tuple(factor / s for s in std),
            tuple(-m / s for m, s in zip(mean, std, strict=True)),
            given.do_flip_channel_order,
        )


class _Preprocessor(msgspec.Struct):
    """The part of a ``preprocessor_config.json`` that is about numbers, not about sizes."""

    do_rescale: bool = True
    rescale_factor: float = 1 / 255
    do_normalize: bool = True
    image_mean: tuple[float, float, float] | None = None
    image_std: tuple[float, float, float] | None = None
    do_flip_channel_order: bool = False


class Family(ABC):
    """One kind of checkpoint, as one member uses it.

    Its network is what members can share: where ``identity`` says so, one module is loaded for all
    of them, and it runs once per batch. What is a member's own is done by ``finish`` and then
    ``scores``.

    Args:
        checkpoint: What lies in its folder.
        settings: The member's.
        size: Width and height in pixels of the pictures it is given.

    Attributes:
        takes_concepts: Whether it takes texts, and so a list of ``concepts``.
        takes_others: Whether it takes texts that mean no roadwork, if it takes any.
        gives_tags: Whether it gives ``tags``.
        takes_evidence: What of earlier tiers' findings it can make use of, by ``inputs``.

    Raises:
        ConfigError: The settings do not fit the checkpoint.
    """

    takes_concepts = False
    takes_others = True
    gives_tags = False
    takes_evidence: tuple[EvidenceKind, ...] = ()

    def __init__(
        self, checkpoint: Checkpoint, settings: TorchSettings, size: tuple[int, int]
    ) -> None:
        self.checkpoint, self.settings, self.size = checkpoint, settings, size

    def statistics(self) -> Statistics:
        """Return how pixels are normalised; as ``preprocessor_config.json`` says.

        Raises:
            ConfigError: It does not say it in numbers for three channels.
        """
        try:
            return Statistics.of(self.checkpoint.preprocessor)
        except (msgspec.ValidationError, ZeroDivisionError) as error:
            raise self.checkpoint.damaged("image_mean and image_std of 3 numbers", error) from None

    def identity(self) -> Hashable:
        """Return what the outputs of ``forward`` depend on besides checkpoint, size and placement.

        Members for which it is equal share the network and its runs. By default: all settings.
        """
        return msgspec.json.encode(self.settings)

    def absorb(self, other: Family) -> None:
        """Have ``forward`` also give what a member needs that shares the network from now on."""
        del other

    @abstractmethod
    def load(self) -> nn.Module:
        """Return the network with its weights, in evaluation mode, on the CPU.

        Raises:
            ConfigError: The weights are not there, or are not what they should be.
        """

    def put(self, module: nn.Module, place: Placement) -> nn.Module:
        """Return the network where it is to run; override it to keep a part in float32."""
        return place.put(module)

    def settle(self, place: Placement) -> None:
        """Get ready for a device: called once before anything runs there."""
        import torch

        scale, shift, self._bgr = self.statistics()
        self.place = place
        self._scale = torch.tensor(scale, device=place.device)
        self._shift = torch.tensor(shift, device=place.device)

    def normalised(self, images: Tensor) -> Tensor:
        """Return pixels as the network wants them: [N, 3, height, width] in its precision."""
        import torch

        if self._bgr:
            images = images.flip(-1)
        if self.place.channels_last:
            # Row by row, as PyTorch is slow at rows of three.
            n, height, width, _ = images.shape
            scale, shift = self._scale.repeat(width), self._shift.repeat(width)
            rows = images.reshape(n, height, 3 * width).float().mul_(scale).add_(shift)
            planes = rows.view(n, height, width, 3).permute(0, 3, 1, 2)
        else:
            planes = images.permute(0, 3, 1, 2)
            planes = planes.to(torch.float32, memory_format=torch.contiguous_format)
            planes.mul_(self._scale.view(3, 1, 1)).add_(self._shift.view(3, 1, 1))
        return planes.to(self.place.dtype)

    def inputs(self, batch: Pictures) -> Inputs:
        """Return what ``forward`` is given by name besides the pixels, if anything.

        The first dimension of each is the batch, the others never change. Members that share the
        network get the same: what it depends on is part of ``identity``.
        """
        del batch
        return {}

    @abstractmethod
    def forward(self, module: nn.Module, images: Tensor) -> dict[str, Tensor]:
        """Run the network.

        Nothing here may wait for the device, and shapes may depend on the batch size alone: this is
        compiled, or recorded as a CUDA graph. The first dimension of all outputs is the batch.

        Args:
            module: The network, on the device, in the member's precision.
            images: uint8 RGB [N, height, width, 3], on the device; cast and normalised here.
        """

    def load_head(self) -> nn.Module | None:
        """Return what this member puts on top of the shared network, on the CPU, if anything.

        Called after ``load``, and also where another member has loaded the network already.

        Raises:
            ConfigError: Its weights are not there, or do not fit the network.
        """
        return None

    def finish(self, head: nn.Module, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Run the head, in float32, on what ``forward`` gave; under the same rules."""
        del head
        return features

    @abstractmethod
    def scores(self, outputs: Outputs) -> Sequence[EngineResult]:
        """Return a finding per picture, from outputs copied to the host as float32."""
