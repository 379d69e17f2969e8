"""Networks of all families keep to their device: nothing waits for it, nothing was left behind."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException

from tests.kits.checkpoints import backbones, detectors, others
from tests.kits.torch_device import CUDA, outputs_on_cuda
from tests.kits.torch_kit import engine_of

HEAD = {"head": "h.safetensors"}
TEXT = {"prompts": ["road work"], "other_prompts": ["a road"]}
Write = Callable[[Path], Path]
CASES: dict[str, tuple[Write, tuple[int, int], dict[str, Any]]] = {
    "dinov3_vit": (backbones.dinov3_vit, (96, 64), {**HEAD, "layers": [1, 3]}),
    "dinov3_convnext": (backbones.dinov3_convnext, (96, 64), HEAD),
    "dinov2": (backbones.dinov2, (96, 64), HEAD),
    "classifier": (backbones.classifier, (96, 64), {"roadwork": ["cones"]}),
    "timm": (
        lambda folder: backbones.timm_model(folder, "test_convnext", backbones.CLASSES),
        (96, 64),
        {"roadwork": ["cones"]},
    ),
    "siglip2": (backbones.siglip2, (96, 64), TEXT),
    "d_fine": (detectors.d_fine, (64, 64), {}),
    "deimv2": (detectors.deimv2, (64, 64), {}),
    "rt_detr_v2": (detectors.rt_detr_v2, (64, 64), {}),
    "rf_detr": (detectors.rf_detr, (64, 64), {}),
    "yolos": (detectors.yolos, (64, 64), {}),
    "mm_grounding_dino": (detectors.mm_grounding_dino, (64, 64), TEXT),
    "owlv2": (detectors.owlv2, (64, 64), TEXT),
    "depth_anything": (others.depth_anything, others.DEPTH_SIZE, {}),
    "depth_pro": (others.depth_pro, (others.DEPTH_PRO_SIDE,) * 2, {}),
}


def first_class(folder: Path) -> dict[str, Any]:
    """Return settings that name the first class of a checkpoint."""
    names = json.loads((folder / "config.json").read_text()).get("id2label") or {}
    return {"roadwork": [next(iter(names.values()))]} if names else {}


# Detectors have autocast choose the precision of each operation, which fakes cannot show here.
HALF = ("dinov3_vit", "dinov3_convnext", "dinov2", "classifier", "timm", "siglip2", "depth_pro")


@pytest.mark.parametrize(
    ("name", "precision"),
    [*((name, "float32") for name in CASES), *((name, "bfloat16") for name in HALF)],
)
def test_a_network_on_a_cuda_device(tmp_path: Path, name: str, precision: str) -> None:
    write, size, settings = CASES[name]
    write(tmp_path / "model")
    backbones.head(
        tmp_path / "h.safetensors",
        {"linear.weight": [1, 32 * len(settings.get("layers", [0]))], "linear.bias": [1]},
    )
    given = {**first_class(tmp_path / "model"), **settings}
    engine = engine_of(tmp_path, size=size, precision=precision, channels_last=True, **given)
    engine.load()

    found = outputs_on_cuda(engine, 3)

    assert found
    for value in found.values():
        assert (value.device, len(value)) == (CUDA, 3)


class Left(nn.Module):
    """Has a tensor that does not move with it."""

    def forward(self, images: Tensor) -> Tensor:
        return images * torch.ones(3)[:, None]


class Reading(nn.Module):
    """Reads a number on the host."""

    def forward(self, images: Tensor) -> Tensor:
        return images * images.sum().item()


@pytest.mark.parametrize(
    ("bad", "error"), [(Reading, DataDependentOutputException), (Left, RuntimeError)]
)
def test_the_test_sees_what_is_wrong(
    tmp_path: Path, bad: type[nn.Module], error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbones.timm_model(tmp_path / "model", "test_convnext", backbones.CLASSES)
    engine = engine_of(tmp_path, roadwork=["cones"])
    engine.load()
    family, flawed = engine.model.family, bad()
    monkeypatch.setattr(family, "forward", lambda module, images: {"x": flawed(images.float())})
    with pytest.raises(error):
        outputs_on_cuda(engine)
