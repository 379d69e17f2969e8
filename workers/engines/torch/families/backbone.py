"""A frozen backbone under a trained head: DINOv3 and DINOv2 of transformers, any model of timm.

Members with the same backbone share it: it is loaded once and runs once per batch, whatever layers
and ways of pooling their heads want.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from roadstream.schemas.settings.torch import TorchSettings
from roadstream.stages.inference import EngineResult
from roadstream.workers.engines.torch.checkpoint import Checkpoint
from roadstream.workers.engines.torch.classes import Verdict
from roadstream.workers.engines.torch.families.readers import READERS, Reader, TimmReader
from roadstream.workers.engines.torch.families.timm import timm_statistics
from roadstream.workers.engines.torch.family import Family, Outputs, Statistics
from roadstream.workers.engines.torch.heads import HeadFile


class Backbone(Family):
    """Features of one or several layers, and a head on them.

    The score is the log-odds of the head's single output, or of the classes that mean roadwork.
    """

    gives_tags = True

    def __init__(
        self, checkpoint: Checkpoint, settings: TorchSettings, size: tuple[int, int]
    ) -> None:
        super().__init__(checkpoint, settings, size)
        if settings.head is None:
            raise checkpoint.problem("head", "a safetensors file of a trained head", "nothing")
        self._head = HeadFile(checkpoint, settings.head)
        self.verdict = Verdict.of(
            checkpoint,
            settings,
            settings.classes or [f"output {i}" for i in range(self._head.classes)],
            several=False,
        )
        self._reader: Reader = _reader(checkpoint)(checkpoint, settings, size)
        self._own = tuple(settings.layers) or (0,)
        self._wanted = set(self._own)

    def statistics(self) -> Statistics:
        """Return how pixels are normalised, where the checkpoint's format says it."""
        if isinstance(self._reader, TimmReader):
            return timm_statistics(self.checkpoint)
        return super().statistics()

    def identity(self) -> str:
        """All that members ask of the network is features, of whatever layers."""
        return "features"

    def absorb(self, other: Family) -> None:
        """Read the other member's layers too."""
        assert isinstance(other, Backbone)
        self._wanted |= other._wanted
        other._reader = self._reader

    def load(self) -> nn.Module:
        """Return the backbone."""
        return self._reader.load()

    def forward(self, module: nn.Module, images: Tensor) -> dict[str, Tensor]:
        """Return vectors [N, width] by layer and way of pooling: ``cls.8``, ``mean.8``."""
        features: dict[str, Tensor] = {}
        pixels = self.normalised(images)
        for layer, (first, mean) in self._reader.read(module, pixels, sorted(self._wanted)):
            features |= {f"cls.{layer}": first.float(), f"mean.{layer}": mean.float()}
        return features

    def load_head(self) -> nn.Module:
        """Return the head, which fits what it is given."""
        widths = self._reader.widths()
        ways = self.settings.pooling.split("+")
        for layer in self._own:
            if layer > len(widths):
                raise self.checkpoint.problem("layers", f"1 to {len(widths)}", str(layer))
        return self._head.fit(
            [(layer, [f"{way}.{layer}" for way in ways]) for layer in self._own],
            [widths[layer - 1] * len(ways) for layer in self._own],
        )

    def finish(self, head: nn.Module, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the head's logits [N, classes]."""
        return {"logits": head(features)}

    def scores(self, outputs: Outputs) -> Sequence[EngineResult]:
        """Return the log-odds of roadwork, and the tags."""
        return self.verdict.scores(outputs["logits"])


def _reader(checkpoint: Checkpoint) -> type[Reader]:
    if (found := READERS.get(checkpoint.model_type)) is not None:
        return found
    if "architecture" in checkpoint.config:
        return TimmReader
    raise checkpoint.damaged(
        f"a backbone with a model_type of {', '.join(READERS)}, or one of timm",
        f"model_type {checkpoint.model_type!r}",
    )
