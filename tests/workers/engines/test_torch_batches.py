"""A picture's score alone and among others, and in lower precision."""

from pathlib import Path
from typing import Any

import pytest
import torch

from roadstream.workers.engines.torch.engine import TorchEngine
from tests.kits.checkpoints import backbones
from tests.kits.torch_kit import engine_of, pictures, raws

# Log-odds in float32. Libraries choose kernels by the batch size, and these add up in different
# orders: nothing is bit-identical across batch sizes, and need not be among rows of one batch.
TOLERANCE = 1e-4
# The mantissa of bfloat16 has 8 bits, that of float16 11.
LOOSE = {"float32": TOLERANCE, "bfloat16": 0.15, "float16": 0.02}


def loaded(folder: Path, **settings: Any) -> TorchEngine:
    engine = engine_of(folder, **settings)
    engine.load()
    return engine


@pytest.fixture(params=["classifier", "dinov3_vit", "dinov3_convnext", "siglip2", "timm"])
def family(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """Return a folder with a checkpoint, and settings for it."""
    model = tmp_path / "model"
    match request.param:
        case "classifier":
            backbones.classifier(model)
            return tmp_path, {"roadwork": ["cones"]}
        case "siglip2":
            backbones.siglip2(model)
            return tmp_path, {"prompts": ["road work"]}
        case "timm":
            backbones.timm_model(model, "test_convnext", ["road", "cones"])
            return tmp_path, {"roadwork": ["cones"]}
        case name:
            getattr(backbones, name)(model)
            shapes = {"linear.weight": [1, 32], "linear.bias": [1]}
            backbones.head(tmp_path / "h.safetensors", shapes)
            return tmp_path, {"head": "h.safetensors"}


def test_alone_and_in_a_batch(family: tuple[Path, dict[str, Any]]) -> None:
    folder, settings = family
    engine = loaded(folder, **settings)
    batch = pictures(7)

    together = raws(engine, batch)

    alone = [raws(engine, batch[i : i + 1])[0] for i in range(len(batch))]
    assert alone == pytest.approx(together, abs=TOLERANCE)
    assert raws(engine, batch) == together
    assert max(together) - min(together) > 100 * TOLERANCE


def test_filled_up_to_one_size_a_neighbour_changes_nothing(
    family: tuple[Path, dict[str, Any]],
) -> None:
    folder, settings = family
    engine = loaded(folder, buckets=[4], **settings)
    first, second = pictures(4), pictures(4, seed=1)
    # The same place in the batch, other neighbours.
    mixed = type(first)([first[0], *second[1:]])

    assert raws(engine, mixed)[0] == raws(engine, first)[0]
    assert raws(engine, first[:1])[0] == raws(engine, first)[0]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precision_stays_close(family: tuple[Path, dict[str, Any]], precision: str) -> None:
    folder, settings = family
    exact = raws(loaded(folder, **settings), pictures(4))
    engine = loaded(folder, precision=precision, channels_last=True, **settings)

    found = raws(engine, pictures(4))

    assert found == pytest.approx(exact, abs=LOOSE[precision])
    assert found != exact
    held = {one.dtype for one in engine.model.backbone.module.parameters()}
    assert held == {getattr(torch, precision)}
