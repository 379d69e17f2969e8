"""Tiny random checkpoints of classifiers, backbones and zero-shot models, in their real formats."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from timm.models import save_for_hf
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ConvNextConfig,
    DINOv3ConvNextModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    GemmaTokenizer,
    PreTrainedModel,
    Siglip2Config,
    Siglip2Model,
    SiglipConfig,
    SiglipModel,
    ViTConfig,
    ViTForImageClassification,
)
from transformers.models.siglip2.tokenization_siglip2 import Siglip2Tokenizer

from tests.kits.checkpoints.common import (
    HALVES,
    IMAGENET,
    piece_vocabulary,
    seeded,
    write_preprocessor,
)

CLASSES = ["clear road", "cones", "barrier"]
SIDE = 64
SPREAD = 0.2
_SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")
# As SigLIP 2 was trained; Gemma itself pads on the left.
_PADDED = {"padding_side": "right", "add_bos_token": False, "add_eos_token": True}
_VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": 16,
}


def dinov3_vit(folder: Path, *, seed: int = 0, layers: int = 3) -> Path:
    """Write a DINOv3 ViT, as ``facebook/dinov3-vit*``."""
    config = DINOv3ViTConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_register_tokens=4,
        image_size=SIDE,
    )
    return _saved(lambda: DINOv3ViTModel(config), folder, "DINOv3ViTImageProcessorFast", seed)


def dinov3_convnext(folder: Path) -> Path:
    """Write a DINOv3 ConvNeXt, as ``facebook/dinov3-convnext-*``."""
    config = DINOv3ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1])
    return _saved(lambda: DINOv3ConvNextModel(config), folder, "DINOv3ViTImageProcessorFast", 0)


def dinov2(folder: Path, *, registers: bool = False) -> Path:
    """Write a DINOv2, as ``facebook/dinov2-*`` and ``facebook/dinov2-with-registers-*``."""
    shape = {**_VISION, "mlp_ratio": 2}
    del shape["intermediate_size"]
    if registers:
        config = Dinov2WithRegistersConfig(**shape)
        return _saved(lambda: Dinov2WithRegistersModel(config), folder, "BitImageProcessor", 0)
    plain = Dinov2Config(**shape)
    return _saved(lambda: Dinov2Model(plain), folder, "BitImageProcessor", 0)


def classifier(folder: Path, names: list[str] = CLASSES, **settings: object) -> Path:
    """Write an image classifier with these classes, as any ``…ForImageClassification``."""
    config = ViTConfig(**_VISION, id2label=dict(enumerate(names)), **settings)
    return _saved(lambda: ViTForImageClassification(config), folder, "ViTImageProcessor", 0, HALVES)


def siglip2(folder: Path, *, flexible: bool = False) -> Path:
    """Write a SigLIP 2, as ``google/siglip2-*``: of fixed size, or NaFlex."""
    vocabulary = piece_vocabulary(*_SPECIAL)
    text = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": len(vocabulary),
        "max_position_embeddings": 64,
        "projection_size": 32,
    }
    if flexible:
        config = Siglip2Config(vision_config={**_VISION, "num_patches": 16}, text_config=text)
        _saved(lambda: Siglip2Model(config), folder, "Siglip2ImageProcessorFast", 0, HALVES)
        Siglip2Tokenizer(vocab=vocabulary, merges=[], **_PADDED).save_pretrained(folder)
        return folder
    fixed = SiglipConfig(vision_config=_VISION, text_config=text)
    _saved(lambda: SiglipModel(fixed), folder, "SiglipImageProcessor", 0, HALVES)
    GemmaTokenizer(vocab=vocabulary, merges=[], **_PADDED).save_pretrained(folder)
    return folder


def timm_model(
    folder: Path, architecture: str, names: list[str] | None = None, **options: object
) -> Path:
    """Write a checkpoint in timm's own format, as ``timm/*``; without names no classifier."""
    count = len(names or [])
    module = seeded(
        lambda: timm.create_model(architecture, num_classes=count, **options), 0, SPREAD
    )
    named = {"label_names": names} if names else None
    save_for_hf(
        module, folder, model_config=named, model_args=dict(options), safe_serialization=True
    )
    return folder


def head(path: Path, shapes: Mapping[str, list[int]], *, seed: int = 0) -> Path:
    """Write a trained head's file: random tensors of these shapes."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    save_file(tensors, path)
    return path


def _saved(
    build: Callable[[], Any],
    folder: Path,
    processor: str,
    seed: int,
    statistics: Mapping[str, list[float]] = IMAGENET,
) -> Path:
    module = seeded(build, seed, SPREAD)
    assert isinstance(module, PreTrainedModel)
    module.save_pretrained(folder)
    write_preprocessor(folder, processor, {"height": SIDE, "width": SIDE}, **statistics)
    return folder
