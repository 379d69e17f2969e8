"""Reads checkpoints in timm's own format: an ``architecture`` in ``config.json``, safetensors."""

from typing import Any

from roadstream.schemas.errors import ConfigError
from roadstream.workers.engines.torch.checkpoint import Checkpoint
from roadstream.workers.engines.torch.family import Statistics


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
