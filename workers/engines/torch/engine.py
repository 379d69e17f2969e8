"""The ``torch`` engine: checkpoints of known families on a CPU or a CUDA device.

Nothing here imports PyTorch before a member is loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from roadstream.schemas.cascade.model import Cascade, Member
from roadstream.stages.batching.shapes import Size, sizes_of
from roadstream.stages.inference import Engine, EngineResult, Pictures
from roadstream.workers.engines.options import EngineOptions

if TYPE_CHECKING:
    from roadstream.workers.engines.torch.model import Model


class TorchEngine(Engine):
    """Runs one member.

    Args:
        cascade: For the folder that its files are relative to.
        member: Its checkpoint, size and settings.
        options: Threads per call, and what the engines of this process share.
    """

    def __init__(self, cascade: Cascade, member: Member, options: EngineOptions) -> None:
        self._cascade, self._member, self._options = cascade, member, options
        self._models: dict[Size, Model] = {}

    @property
    def model(self) -> Model:
        """The member at work on pictures of its usual size; after ``load``."""
        return self.model_for((self._member.width, self._member.height))

    def model_for(self, size: Size) -> Model:
        """Return the member at work on pictures of a size; after ``load``."""
        return self._models[size]

    def load(self) -> None:
        """Load checkpoint and head, put them on the device, and try them on a black picture.

        A network is loaded for each size of the member's pictures; these share their weights.

        Raises:
            ConfigError: The device is not there, or settings, checkpoint and head are not what they
                should be or do not fit together.
            DeviceMemoryError: Not even one picture fits.
        """
        from roadstream.workers.engines.torch.concepts import concepts_of
        from roadstream.workers.engines.torch.model import Model, open_family

        concepts = concepts_of(self._cascade, self._member)
        for size in sizes_of(self._member):
            family = open_family(self._cascade, self._member, size, concepts)
            self._models[size] = Model(family, self._options.threads, self._options.shared)
        self.version = "" if concepts is None else concepts.tag
        self.device = self.model.device

    def warm_up(self, largest: int = 1) -> None:
        """Compile, record, or run each batch size once."""
        for model in self._models.values():
            model.warm_up(largest)

    def prepare(self, batch: Pictures) -> None:
        """Resize, stack, and start the copy to the device."""
        self._models[batch.size_for(self._member)].prepare(batch)

    def infer(self, batch: Pictures) -> list[EngineResult]:
        """Return a finding per picture."""
        return list(self._models[batch.size_for(self._member)].infer(batch))

    def close(self) -> None:
        """Let go of the networks."""
        for model in self._models.values():
            model.close()
        self._models.clear()
