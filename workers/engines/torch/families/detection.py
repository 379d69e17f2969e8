"""Detectors that know a fixed list of classes: D-FINE, RT-DETR, RF-DETR, DEIMv2, YOLOS."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from roadstream.schemas.errors import ConfigError
from roadstream.schemas.settings.torch import TorchSettings
from roadstream.workers.engines.torch.checkpoint import Checkpoint, pretrained
from roadstream.workers.engines.torch.classes import columns_of
from roadstream.workers.engines.torch.families.places import Finder

# Keeps log-odds of softmax probabilities within ±16, the resolution of float32.
_EDGE = 1e-7


class _Kind(NamedTuple):
    """What tells one architecture from another here.

    Attributes:
        step: What width and height are multiples of, from its configuration.
        softmax: Whether its classes exclude each other, the last one meaning "nothing".
        square: Whether it takes square pictures only.
        copies: Whether it copies a constant to the device in each run.
    """

    step: Callable[[Any], int]
    softmax: Callable[[Any], bool] = lambda _: False
    square: Callable[[Any], bool] = lambda _: False
    copies: bool = False


def _without_focal_loss(config: Any) -> bool:
    return not config.use_focal_loss


_RT = _Kind(step=lambda config: int(max(config.feat_strides)), softmax=_without_focal_loss)
_KINDS = {
    "d_fine": _RT,
    "deimv2": _RT,
    "rt_detr": _RT,
    "rt_detr_v2": _RT,
    "rf_detr": _Kind(
        step=lambda config: config.backbone_config.patch_size * config.backbone_config.num_windows,
        # Transformers cuts the windows as if the picture were square.
        square=lambda config: config.backbone_config.num_windows > 1,
        copies=True,
    ),
    "yolos": _Kind(step=lambda config: int(config.patch_size), softmax=lambda _: True),
}


class Detector(Finder):
    """A detector of classes, some of which mean roadwork.

    Its score is the log-odds of the likeliest place of the likeliest of these classes.
    """

    def __init__(
        self, checkpoint: Checkpoint, settings: TorchSettings, size: tuple[int, int]
    ) -> None:
        super().__init__(checkpoint, settings, size)
        kind = _KINDS.get(self.config.model_type)
        if kind is None:
            known = ", ".join(sorted(_KINDS))
            raise checkpoint.damaged(f"a model_type of {known}", self.config.model_type)
        self._softmax = self.exclusive = kind.softmax(self.config)
        self._names = [str(self.config.id2label[i]) for i in range(self.config.num_labels)]
        self._chosen = columns_of(checkpoint, settings.roadwork, self._names)
        self.check_multiples(kind.step(self.config))
        if kind.square(self.config) and size[0] != size[1]:
            raise self.bad_size("a square, which its windows ask for")
        if kind.copies and settings.cuda_graphs and not settings.compile:
            raise ConfigError(
                f"{checkpoint.where}: settings.cuda_graphs",
                f"compile = true beside it for {self.config.model_type}, which does not stay on "
                "the device otherwise",
                "compile = false",
            )

    @property
    def names(self) -> Sequence[str]:
        """As ``id2label`` has them."""
        return self._names

    @property
    def chosen(self) -> Sequence[int]:
        """As ``settings.roadwork`` names them."""
        return self._chosen

    def identity(self) -> str:
        """All that members ask of the network is what is where."""
        return "places"

    def load(self) -> nn.Module:
        """Return the network."""
        from transformers import AutoModelForObjectDetection

        module: nn.Module = pretrained(AutoModelForObjectDetection, self.checkpoint, self.settings)
        return module

    def found(self, module: nn.Module, images: Tensor) -> dict[str, Tensor]:
        """Return log-odds and box of each query."""
        out = module(pixel_values=self.normalised(images))
        logits = out.logits
        if self._softmax:
            logits = torch.logit(logits.float().softmax(2)[..., :-1], eps=_EDGE)
        return {"logits": logits, "boxes": out.pred_boxes}
