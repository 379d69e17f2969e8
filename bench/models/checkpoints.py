"""Checkpoints of random weights, written in the formats that real ones have."""

import json
from pathlib import Path
from typing import Any

import tomli_w

TIMM = {"resnet18": "resnet18", "vit-small": "vit_small_patch16_224"}


def write_timm(folder: Path, architecture: str) -> Path:
    """Write a classifier of timm with two classes, ``clear`` and ``roadwork``.

    The last layer is made small, so that scores are near 0 and no image is sure.
    """
    import timm
    import torch
    from timm.models import save_for_hf

    torch.manual_seed(0)
    module = timm.create_model(architecture, num_classes=2)
    with torch.no_grad():
        module.get_classifier().weight.mul_(0.01)
    labels = {"label_names": ["clear", "roadwork"]}
    save_for_hf(module, folder, model_config=labels, safe_serialization=True)
    return folder


def cascade_file(folder: Path, name: str, *tiers: dict[str, Any]) -> Path:
    """Write a cascade of these tiers; all images go through all of them."""
    path = folder / f"{name}.toml"
    path.write_text(tomli_w.dumps({"name": name, "tiers": tiers}))
    return path


def member(name: str, engine: str, model: Path, side: tuple[int, int], **settings: Any) -> Any:
    """Return a member as a cascade file has it."""
    width, height = side
    found = {"name": name, "engine": engine, "width": width, "height": height}
    return {**found, "model": str(model.resolve()), "settings": settings}


# Sizes as facebook/dinov3-vitl16-pretrain-lvd1689m and facebook/dinov3-vith16plus-… have them.
DINOV3: dict[str, dict[str, Any]] = {
    "dinov3-vitl16": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
    },
    "dinov3-vith16plus": {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 20,
        "use_gated_mlp": True,
        "hidden_act": "silu",
    },
}


def dinov3(name: str, **changed: Any) -> Any:
    """Return a DINOv3 ViT of that size with random weights, on the default device."""
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    return DINOv3ViTModel(DINOv3ViTConfig(num_register_tokens=4, **{**DINOV3[name], **changed}))


def rt_detr(**changed: Any) -> Any:
    """Return an RT-DETR v2 with a ResNet-50 and random weights, on the default device.

    Sizes as PekingU/rtdetr_v2_r50vd has them.
    """
    from transformers import RTDetrV2Config, RTDetrV2ForObjectDetection

    return RTDetrV2ForObjectDetection(RTDetrV2Config(**changed))


def write_dinov3(folder: Path, name: str, **changed: Any) -> Path:
    """Write a DINOv3 ViT of that size, and a linear head for it at ``folder/head.safetensors``."""
    import torch
    from safetensors.torch import save_file

    module = dinov3(name, **changed)
    _save(module, folder, {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]})
    width = module.config.hidden_size
    head = {"linear.weight": torch.randn(1, width) * 0.01, "linear.bias": torch.zeros(1)}
    save_file(head, folder / "head.safetensors")
    return folder


def write_rt_detr(folder: Path, **changed: Any) -> Path:
    """Write an RT-DETR v2 whose first class is called ``roadwork``."""
    module = rt_detr(**changed)
    module.config.id2label[0] = "roadwork"
    _save(module, folder, {"do_normalize": False})
    return folder


def _save(module: Any, folder: Path, preprocessor: dict[str, Any]) -> None:
    import torch

    torch.manual_seed(0)
    module.save_pretrained(folder, safe_serialization=True)
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
