"""Which family reads a checkpoint."""

from importlib import import_module

from roadstream.schemas.settings.torch import TorchSettings
from roadstream.workers.engines.torch.checkpoint import Checkpoint
from roadstream.workers.engines.torch.family import Family

FAMILIES = {
    "backbone": "backbone:Backbone",
    "classifier": "classifier:Classifier",
    "depth": "depth:Depth",
    "detection": "detection:Detector",
    "florence": "florence:Florence",
    "grounding": "grounding:Grounding",
    "owl": "owl:Owl",
    "sam": "sam:Sam",
    "siglip": "siglip:Siglip",
    "timm": "timm:Timm",
    "ultralytics": "ultralytics:Ultralytics",
    "vlm": "vlm:Vlm",
}
"""Module beside this one and class, by the name that ``settings.family`` has."""

MODEL_TYPES = {
    "d_fine": "detection",
    "deimv2": "detection",
    "depth_anything": "depth",
    "depth_pro": "depth",
    "florence2": "florence",
    "grounding-dino": "grounding",
    "mm-grounding-dino": "grounding",
    "owlv2": "owl",
    "rf_detr": "detection",
    "rt_detr": "detection",
    "rt_detr_v2": "detection",
    "sam3": "sam",
    "sam3_video": "sam",
    "siglip": "siglip",
    "siglip2": "siglip",
    "yolos": "detection",
}
"""Family by the ``model_type`` of ``config.json``."""


def family_of(checkpoint: Checkpoint, settings: TorchSettings) -> type[Family]:
    """Return the family that reads a checkpoint.

    A head wants a backbone; a class named ``…ForImageClassification`` is a classifier; then the
    ``model_type`` decides; any other ``…ForConditionalGeneration`` is a vision-language model.

    Raises:
        ConfigError: The settings name no family, or the checkpoint is of none that is known.
    """
    name = settings.family or _told_by(checkpoint, settings)
    if name is None:
        known = ", ".join(sorted(MODEL_TYPES))
        raise checkpoint.damaged(
            f"a config.json with a model_type of {known}, or settings.family",
            f"model_type {checkpoint.model_type!r}",
        )
    if name not in FAMILIES:
        raise checkpoint.problem("family", f"one of {', '.join(sorted(FAMILIES))}", name)
    module, _, kind = FAMILIES[name].partition(":")
    found: type[Family] = getattr(
        import_module(f"roadstream.workers.engines.torch.families.{module}"), kind
    )
    return found


def _told_by(checkpoint: Checkpoint, settings: TorchSettings) -> str | None:
    if settings.head is not None:
        return "backbone"
    config = checkpoint.config
    architectures = config.get("architectures") or []
    if any(str(one).endswith("ForImageClassification") for one in architectures):
        return "classifier"
    if "architecture" in config and not checkpoint.model_type:
        return "timm"
    if known := MODEL_TYPES.get(checkpoint.model_type):
        return known
    writes = any(str(one).endswith("ForConditionalGeneration") for one in architectures)
    return "vlm" if writes else None
