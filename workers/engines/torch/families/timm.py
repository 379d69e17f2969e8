"""Image classifiers of timm, whatever their architecture."""

from collections.abc import Sequence

from torch import Tensor, nn

from roadstream.schemas.settings.torch import TorchSettings
from roadstream.stages.inference import Score
from roadstream.workers.engines.torch.checkpoint import Checkpoint
from roadstream.workers.engines.torch.classes import Verdict
from roadstream.workers.engines.torch.families.timm_checkpoint import read_timm, timm_statistics
from roadstream.workers.engines.torch.family import Family, Outputs, Statistics


class Timm(Family):
    """A network with one output per class; its score is that of ``Classifier``.

    Classes have the names of ``settings.classes``, else those of ``label_names`` in its file, else
    their numbers, counted from 0.
    """

    def __init__(
        self, checkpoint: Checkpoint, settings: TorchSettings, size: tuple[int, int]
    ) -> None:
        super().__init__(checkpoint, settings, size)
        count = checkpoint.config.get("num_classes")
        if not isinstance(count, int) or count < 1:
            raise checkpoint.damaged("a classifier, or settings.head", f"num_classes {count}")
        names = checkpoint.config.get("label_names")
        if not isinstance(names, list) or len(names) != count:
            names = list(range(count))
        self.verdict = Verdict.of(
            checkpoint, settings, [str(name) for name in names], several=False
        )

    def statistics(self) -> Statistics:
        """Return how pixels are normalised."""
        return timm_statistics(self.checkpoint)

    def identity(self) -> str:
        """All that members ask of the network is its logits."""
        return "logits"

    def load(self) -> nn.Module:
        """Return the network."""
        module: nn.Module = read_timm(self.checkpoint, self.size)
        return module

    def forward(self, module: nn.Module, images: Tensor) -> dict[str, Tensor]:
        """Return the logits [N, classes]."""
        return {"logits": module(self.normalised(images)).float()}

    def scores(self, outputs: Outputs) -> Sequence[Score]:
        """Return the log-odds of roadwork."""
        return self.verdict.scores(outputs["logits"])
