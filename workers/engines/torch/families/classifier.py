"""Image classifiers of transformers: any class named ``…ForImageClassification``."""

import inspect
from collections.abc import Sequence

from torch import Tensor, nn

from roadstream.schemas.settings.torch import TorchSettings
from roadstream.stages.inference import EngineResult
from roadstream.workers.engines.torch.checkpoint import Checkpoint, pretrained
from roadstream.workers.engines.torch.classes import Verdict
from roadstream.workers.engines.torch.family import Family, Outputs


class Classifier(Family):
    """A network with one output per class, some of which mean roadwork.

    Its score is the log-odds that the picture shows one of these: against all other classes where
    they exclude each other (softmax), and of the likeliest of them where they do not (sigmoid). A
    network with a single output gives the log-odds itself.
    """

    gives_tags = True

    def __init__(
        self, checkpoint: Checkpoint, settings: TorchSettings, size: tuple[int, int]
    ) -> None:
        super().__init__(checkpoint, settings, size)
        names = _names(checkpoint)
        several = checkpoint.config.get("problem_type") == "multi_label_classification"
        self.verdict = Verdict.of(checkpoint, settings, names, several=several)

    def identity(self) -> str:
        """All that members ask of the network is its logits."""
        return "logits"

    def load(self) -> nn.Module:
        """Return the network."""
        from transformers import AutoModelForImageClassification

        module: nn.Module = pretrained(
            AutoModelForImageClassification, self.checkpoint, self.settings
        )
        self._extra = interpolation(module, self.size)
        return module

    def forward(self, module: nn.Module, images: Tensor) -> dict[str, Tensor]:
        """Return the logits [N, classes]."""
        found = module(pixel_values=self.normalised(images), **self._extra)
        return {"logits": found.logits.float()}

    def scores(self, outputs: Outputs) -> Sequence[EngineResult]:
        """Return the log-odds of roadwork, and the tags."""
        return self.verdict.scores(outputs["logits"])


def interpolation(module: nn.Module, size: tuple[int, int]) -> dict[str, bool]:
    """Return the argument that lets a network take another size than it was trained with.

    Networks that need none take any size, or say what is wrong when they are tried out.
    """
    # Not the file's: that leaves out what equals a default.
    trained = getattr(module.config, "image_size", None)
    sides = (trained, trained) if isinstance(trained, int) else tuple(trained or ())
    takes = "interpolate_pos_encoding" in inspect.signature(module.forward).parameters
    return {"interpolate_pos_encoding": True} if takes and sides != size[::-1] else {}


def _names(checkpoint: Checkpoint) -> list[str]:
    """Return the names of the classes, in order."""
    names = checkpoint.config.get("id2label")
    if not isinstance(names, dict):
        # What PreTrainedConfig assumes where the file is silent.
        return [f"LABEL_{i}" for i in range(int(checkpoint.config.get("num_labels", 2)))]
    try:
        return [str(names[key]) for key in sorted(names, key=int)]
    except ValueError as error:
        raise checkpoint.damaged("id2label with the classes' numbers as keys", error) from None
