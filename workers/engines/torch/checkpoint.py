"""A checkpoint's folder: from the disk or the hub, its configuration read and its weights told."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.errors import ConfigError
from roadstream.schemas.settings.torch import TorchSettings

if TYPE_CHECKING:
    from torch import nn

M = TypeVar("M", bound="nn.Module")
# Never a pickle (.bin, .pt, .pth, .ckpt): reading one runs what it says.
_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.yaml"]
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What lies in a checkpoint's folder.

    Attributes:
        where: The member it is for, as errors name it: ``lite: member dino``.
        source: The folder, which for a hub id is the local copy.
        cascade: The cascade, for other files of the member.
        config: ``config.json``; empty if there is none.
        preprocessor: ``preprocessor_config.json``, or the part of ``processor_config.json`` about
            pictures; empty if there is neither.
    """

    where: str
    source: Path
    cascade: Cascade
    config: dict[str, Any] = {}
    preprocessor: dict[str, Any] = {}

    @property
    def model_type(self) -> str:
        """What ``config.json`` calls the architecture in transformers; empty if it does not."""
        return str(self.config.get("model_type", ""))

    def problem(self, key: str, expected: str, got: str) -> ConfigError:
        """Return the error of a setting that does not fit, to be raised."""
        return ConfigError(f"{self.where}: settings.{key}", expected, got)

    def damaged(self, expected: str, got: object) -> ConfigError:
        """Return the error of files that are not what they should be, to be raised."""
        lines = str(got).strip().splitlines() or [type(got).__name__]
        return ConfigError(f"{self.where}: model: {self.source}", expected, lines[0][:300])


def open_checkpoint(
    source: Path | str, settings: TorchSettings, where: str, cascade: Cascade
) -> Checkpoint:
    """Return a checkpoint, downloaded if it is a hub id that is not here yet.

    Args:
        source: A folder, or a hub id.
        settings: For the revision, and whether code may come with it.
        where: The member, for errors.
        cascade: The cascade.

    Raises:
        ConfigError: There is no such folder or model, it has no weights in safetensors, or its
            configuration is no JSON.
    """
    folder = source if isinstance(source, Path) else _downloaded(source, settings, where)
    if not folder.is_dir():
        raise ConfigError(f"{where}: model", "a folder with model.safetensors", str(folder))
    if not any(folder.glob("*.safetensors")):
        pickles = [path.name for kind in _PICKLES for path in sorted(folder.glob(kind))]
        raise ConfigError(
            f"{where}: model: {folder}",
            "weights as *.safetensors (pickles are not read)",
            ", ".join(pickles[:3]) or "none",
        )
    return Checkpoint(
        where=where,
        source=folder,
        cascade=cascade,
        config=_json(folder / "config.json", where),
        preprocessor=_preprocessor(folder, where),
    )


def _preprocessor(folder: Path, where: str) -> dict[str, Any]:
    """Return how pictures are prepared: a file of its own, or a part of the processor's."""
    if found := _json(folder / "preprocessor_config.json", where):
        return found
    path = folder / "processor_config.json"
    part = _json(path, where).get("image_processor", {})
    if not isinstance(part, dict):
        raise ConfigError(f"{where}: model: {path}", "image_processor as an object", repr(part))
    return part


def _downloaded(hub_id: str, settings: TorchSettings, where: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    files = [*_FILES, "*.py"] if settings.trust_remote_code else _FILES
    try:
        return Path(snapshot_download(hub_id, revision=settings.revision, allow_patterns=files))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        named = f"{hub_id} at {settings.revision}" if settings.revision else hub_id
        said = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"{where}: model",
            "a model that is on the hub or in its local cache",
            f"{named}: {said}",
        ) from None


def _json(path: Path, where: str) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}: model: {path}", "a JSON object", str(error)) from None
    return found


def pretrained(kind: Any, checkpoint: Checkpoint, settings: TorchSettings, **options: Any) -> Any:
    """Load a class of transformers from a checkpoint, as float32, in evaluation mode, on the CPU.

    Args:
        kind: A class with ``from_pretrained``, of which it gets the rest of its arguments.
        checkpoint: Of the weights.
        settings: Whether code that comes with it may run.
        options: Further arguments of ``from_pretrained``.

    Raises:
        ConfigError: The weights are damaged, or some that the network needs are not among them or
            have another shape: transformers would draw these at random.
    """
    import torch
    from transformers.utils import logging

    # What it would report of missing weights is an error below; the rest belongs to other tasks.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    expected = f"a checkpoint of {kind.__name__}"
    try:
        module, told = kind.from_pretrained(
            checkpoint.source,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=settings.trust_remote_code,
            output_loading_info=True,
            **options,
        )
    except Exception as error:  # transformers and safetensors share no base of errors
        raise checkpoint.damaged(expected, error) from error
    lacking = sorted(told["missing_keys"]) + [str(key) for key in told["mismatched_keys"]]
    if lacking:
        raise checkpoint.damaged(
            expected, f"a file that lacks {', '.join(lacking[:3])}, {len(lacking)} in all"
        )
    return module.eval()
