"""YOLO detectors of Ultralytics, from a ``model.yaml`` and safetensors, never from their pickles.

The package is under the AGPL-3.0, which reaches services on a network: Roadstream neither brings it
nor needs it. ``docs/guide/models.md`` says how it is installed and how weights are converted.
"""

import os
import re
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor, nn

from roadstream.schemas.errors import ConfigError
from roadstream.schemas.settings.torch import TorchSettings
from roadstream.stages.inference import Score
from roadstream.workers.engines.torch.checkpoint import Checkpoint
from roadstream.workers.engines.torch.classes import columns_of
from roadstream.workers.engines.torch.families.places import Finder, Strongest
from roadstream.workers.engines.torch.family import Family, Outputs

# Places that are looked at before those that overlap a stronger one are dropped, and how much they
# must overlap; the package's own defaults.
_CANDIDATES = 300
_OVERLAP = 0.7
# Ultralytics evaluates this entry as Python: only the making of an activation is let through.
_ACTIVATION = re.compile(r"(torch\.)?nn\.[A-Z][A-Za-z0-9]*\([A-Za-z_=0-9., -]*\)")
_STEP = 32
# On import the package asks a name server whether it is online, and may install what it lacks.
_QUIET = {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_VERBOSE": "false"}


class Ultralytics(Finder):
    """A detector whose score is the log-odds of the likeliest place of a class that means roadwork.

    Heads that are trained to give one place per object are used as such where there is one; the
    places of others are thinned out by how much they overlap.
    """

    def __init__(
        self, checkpoint: Checkpoint, settings: TorchSettings, size: tuple[int, int]
    ) -> None:
        # There is no config.json that transformers could read, as other detectors have it.
        Family.__init__(self, checkpoint, settings, size)
        self._yaml = _model_yaml(checkpoint)
        self._names = _names(checkpoint, self._yaml)
        self._chosen = columns_of(checkpoint, settings.roadwork, self._names)
        self._thin = not self._yaml.get("end2end", False)
        self.check_multiples(_STEP)

    @property
    def names(self) -> Sequence[str]:
        """As ``model.yaml`` has them."""
        return self._names

    @property
    def chosen(self) -> Sequence[int]:
        """As ``settings.roadwork`` names them."""
        return self._chosen

    def identity(self) -> Hashable:
        """All that members ask of the network is what is where."""
        return "places"

    def load(self) -> nn.Module:
        """Return the network, its normalisations folded into its convolutions."""
        model = self._built()
        weights = _weights(self.checkpoint)
        try:
            model.load_state_dict(weights, strict=True)
        except RuntimeError as error:
            raise self.checkpoint.damaged("weights of the network in model.yaml", error) from error
        if not self._thin:
            _one_place_per_object(model.model[-1])
        found: nn.Module = model.float().eval().fuse(verbose=False)
        return found

    def _built(self) -> Any:
        try:
            detection = _library()
        except ImportError as error:
            expected = "Ultralytics, which docs/guide/models.md says how to install"
            raise ConfigError(f"{self.checkpoint.where}: model", expected, str(error)) from None
        try:
            with torch.random.fork_rng(devices=[]):
                model = detection(dict(self._yaml), ch=3, verbose=False)
        except Exception as error:  # whatever a parser raises on what it does not know
            raise self.checkpoint.damaged("a model.yaml of Ultralytics", error) from error
        if type(model.model[-1]).__name__ != "Detect":
            raise self.checkpoint.damaged("a detector", type(model.model[-1]).__name__)
        return model

    def found(self, module: nn.Module, images: Tensor) -> dict[str, Tensor]:
        """Return log-odds and box of each place."""
        decoded, raw = module(self.normalised(images))
        width, height = self.size
        sides = torch.tensor((width, height, width, height), device=decoded.device)
        boxes = decoded[:, :4].permute(0, 2, 1) / sides
        return {"logits": raw["scores"].permute(0, 2, 1), "boxes": boxes}

    def load_head(self) -> nn.Module:
        """Return what picks the candidates."""
        most = _CANDIDATES if self._thin else self.settings.max_boxes
        return Strongest(self.chosen, most, exclusive=False)

    def scores(self, outputs: Outputs) -> list[Score]:
        """Return the best log-odds, and the boxes that are left, strongest first."""
        if self._thin:
            rows = zip(outputs["columns"], outputs["corners"], strict=True)
            kept = np.stack([thinned(columns, corners) for columns, corners in rows])
            outputs = {**outputs, "logits": np.where(kept, outputs["logits"], -np.inf)}
        most = self.settings.max_boxes
        return [Score(one.raw, one.boxes[:most]) for one in super().scores(outputs)]


def thinned(columns: NDArray[np.float32], corners: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which of a picture's places stay: those that overlap no stronger one of their class.

    Args:
        columns: Classes [K], strongest place first.
        corners: Boxes [K, 4].
    """
    first, last = corners[:, None, :2], corners[:, None, 2:]
    sides = np.minimum(last, corners[:, 2:]) - np.maximum(first, corners[:, :2])
    both = sides.clip(0).prod(2)
    area = (corners[:, 2:] - corners[:, :2]).clip(0).prod(1)
    union = np.maximum(area[:, None] + area - both, np.finfo(np.float32).tiny)
    clash = (both / union > _OVERLAP) & (columns[:, None] == columns)
    kept = np.ones(len(columns), np.bool_)
    for i, row in enumerate(clash):
        if kept[i]:
            kept[i + 1 :] &= ~row[i + 1 :]
    return kept


def _library() -> Any:
    """Return the class of detectors.

    Raises:
        ImportError: The package is not installed.
    """
    import cv2

    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    threads = cv2.getNumThreads()
    try:
        from ultralytics.nn.tasks import DetectionModel
    finally:
        # The package switches OpenCV's threads off, for all of the process.
        cv2.setNumThreads(threads)
    return DetectionModel


def _one_place_per_object(head: Any) -> None:
    """Make the head that is trained to give one place per object the only one."""
    head.cv2, head.cv3 = head.one2one_cv2, head.one2one_cv3
    head.one2one_cv2 = head.one2one_cv3 = None
    head.end2end = False  # so that it tells all places, not its own choice of classes


def _model_yaml(checkpoint: Checkpoint) -> dict[str, Any]:
    path = checkpoint.source / "model.yaml"
    expected = "a model.yaml beside model.safetensors"
    try:
        found = yaml.safe_load(path.read_bytes())
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise checkpoint.damaged(expected, error) from None
    if not isinstance(found, dict) or not {"backbone", "head", "nc"} <= found.keys():
        raise checkpoint.damaged(f"{expected} with nc, backbone and head", type(found).__name__)
    activation = found.get("activation")
    if activation is not None and not _ACTIVATION.fullmatch(str(activation)):
        raise checkpoint.damaged("activation: nn.Something(numbers)", str(activation))
    return found


def _names(checkpoint: Checkpoint, model: dict[str, Any]) -> list[str]:
    """Return the names of the classes, in order."""
    given = model.get("names")
    if isinstance(given, dict):
        given = [given[key] for key in sorted(given)]
    if not isinstance(given, list) or len(given) != model["nc"]:
        raise checkpoint.damaged(f"names of its {model['nc']} classes in model.yaml", given)
    return [str(name) for name in given]


def _weights(checkpoint: Checkpoint) -> dict[str, NDArray[Any] | Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = checkpoint.source / "model.safetensors"
    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise checkpoint.damaged("model.safetensors", error) from error
