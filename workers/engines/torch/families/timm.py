"""Image classifiers of timm, whatever their architecture."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from roadstream.schemas.errors import ConfigError
from roadstream.schemas.settings.torch import TorchSettings
from roadstream.stages.inference import EngineResult
from roadstream.workers.engines.torch.checkpoint import Checkpoint
from roadstream.workers.engines.torch.classes import Verdict
from roadstream.workers.engines.torch.family import Family, Outputs, Statistics


class Timm(Family):
    """A network with one output per class; its score is that of ``Classifier``.

    Classes have the names of ``settings.classes``, else those of ``label_names`` in its file, else
    their numbers, counted from 0.
    """

    gives_tags = True

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

    def scores(self, outputs: Outputs) -> Sequence[EngineResult]:
        """Return the log-odds of roadwork, and the tags."""
        return self.verdict.scores(outputs["logits"])


def read_timm(checkpoint: Checkpoint, size: tuple[int, int], **options: Any) -> Any:
    """Return the network with its weights, in evaluation mode, on the CPU.

    Args:
        checkpoint: Its folder.
        size: Width and height of the pictures; networks with fixed positions are fitted to it.
        options: Further arguments of ``timm.create_model``.

    Raises:
        ConfigError: timm is not installed or does not know the architecture, or the weights are not
            there or are not this network's.
    """
    try:
        import timm
    except ImportError as error:
        expected = "timm (pip install 'roadstream[torch]')"
        raise ConfigError(f"{checkpoint.where}: engine", expected, str(error)) from None
    if not (checkpoint.source / "model.safetensors").is_file():
        # Without it timm would look for a pickle.
        raise checkpoint.damaged("model.safetensors", "other files")
    width, height = size
    if _configured(checkpoint).get("fixed_input_size"):
        options["img_size"] = (height, width)
    try:
        return timm.create_model(
            f"local-dir:{checkpoint.source}", pretrained=True, **options
        ).eval()
    except Exception as error:  # timm, torch and safetensors share no base of errors
        expected = f"a checkpoint of timm's {checkpoint.config.get('architecture')}"
        raise checkpoint.damaged(expected, error) from error


def timm_statistics(checkpoint: Checkpoint) -> Statistics:
    """Return how pixels are normalised, as timm's ``pretrained_cfg`` says."""
    configured = _configured(checkpoint)
    return Statistics.of({"image_mean": configured.get("mean"), "image_std": configured.get("std")})


def _configured(checkpoint: Checkpoint) -> dict[str, Any]:
    found = checkpoint.config.get("pretrained_cfg")
    return found if isinstance(found, dict) else {}
