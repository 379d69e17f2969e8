"""Each family of the torch engine gives what its own library gives for the same pixels."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoTokenizer,
)

from roadstream.stages.inference import Picture, Pictures
from tests.kits.checkpoints import backbones
from tests.kits.checkpoints.backbones import CLASSES
from tests.kits.torch_kit import SIZE, engine_of, pictures, raws

PROMPTS = ["Road work ahead", "traffic cones on the road"]
OTHERS = ["a clear road"]
# Float32 rounding over a few layers; a picture alone goes through other kernels than a batch.
CLOSE = pytest.approx


def at_size(size: tuple[int, int] = SIZE) -> Pictures:
    """Return pictures that have the member's size already, so that nothing is resized."""
    return Pictures([Picture(one.at(*size)) for one in pictures(4)])


def processed(folder: Path, batch: Pictures) -> Tensor:
    """Return pixels as the checkpoint's own image processor prepares them."""
    processor = AutoImageProcessor.from_pretrained(folder)
    found: Tensor = processor(
        images=[one.pixels for one in batch],
        do_resize=False,
        do_center_crop=False,
        return_tensors="pt",
    ).pixel_values
    return found


def one_of(logits: Tensor, columns: list[int]) -> list[float]:
    p = logits.softmax(1)[:, columns].sum(1)
    found: list[float] = torch.logit(p).tolist()
    return found


@torch.inference_mode()
def expected_of_classifier(folder: Path, batch: Pictures) -> list[float]:
    model = AutoModelForImageClassification.from_pretrained(folder).eval()
    pixels = processed(folder, batch)
    return one_of(model(pixel_values=pixels, interpolate_pos_encoding=True).logits, [1, 2])


def test_a_classifier_of_transformers(tmp_path: Path) -> None:
    backbones.classifier(tmp_path / "model")
    engine = engine_of(tmp_path, roadwork=["Cones", "barrier"])
    engine.load()

    found = raws(engine, at_size())

    assert found == CLOSE(expected_of_classifier(tmp_path / "model", at_size()), abs=1e-4)
    assert max(found) - min(found) > 0.1


def test_classes_that_do_not_exclude_each_other_are_each_a_sigmoid(tmp_path: Path) -> None:
    backbones.classifier(tmp_path / "model", problem_type="multi_label_classification")
    engine = engine_of(tmp_path, roadwork=["cones", "barrier"])
    engine.load()
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "model").eval()
    with torch.inference_mode():
        pixels = processed(tmp_path / "model", at_size())
        logits = model(pixel_values=pixels, interpolate_pos_encoding=True).logits

    assert raws(engine, at_size()) == CLOSE(logits[:, 1:].max(1).values.tolist(), abs=1e-4)


def test_a_single_output_is_the_log_odds(tmp_path: Path) -> None:
    backbones.classifier(tmp_path / "model", ["roadwork"])
    engine = engine_of(tmp_path)
    engine.load()
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "model").eval()
    with torch.inference_mode():
        pixels = processed(tmp_path / "model", at_size())
        logits = model(pixel_values=pixels, interpolate_pos_encoding=True).logits

    assert raws(engine, at_size()) == CLOSE(logits[:, 0].tolist(), abs=1e-4)


@torch.inference_mode()
def test_dinov3_vit_under_a_linear_head(tmp_path: Path) -> None:
    folder = backbones.dinov3_vit(tmp_path / "model")
    file = backbones.head(
        tmp_path / "h.safetensors", {"linear.weight": [1, 64], "linear.bias": [1]}
    )
    engine = engine_of(tmp_path, head="h.safetensors", pooling="cls+mean")
    engine.load()
    found = AutoModel.from_pretrained(folder).eval()(pixel_values=processed(folder, at_size()))
    features = torch.cat([found.pooler_output, found.last_hidden_state[:, 5:].mean(1)], 1)
    head = load_file(file)

    expected = features @ head["linear.weight"].T + head["linear.bias"]
    assert raws(engine, at_size()) == CLOSE(expected[:, 0].tolist(), abs=1e-4)


@pytest.mark.parametrize("registers", [False, True])
@torch.inference_mode()
def test_dinov2_under_a_linear_head(tmp_path: Path, registers: bool) -> None:
    folder = backbones.dinov2(tmp_path / "model", registers=registers)
    shapes = {"linear.weight": [1, 64], "linear.bias": [1]}
    head = load_file(backbones.head(tmp_path / "h.safetensors", shapes))
    engine = engine_of(tmp_path, head="h.safetensors", pooling="cls+mean")
    engine.load()
    found = AutoModel.from_pretrained(folder).eval()(pixel_values=processed(folder, at_size()))
    patches = found.last_hidden_state[:, -24:]
    features = torch.cat([found.last_hidden_state[:, 0], patches.mean(1)], 1)

    expected = (features @ head["linear.weight"].T + head["linear.bias"])[:, 0].clip(-16, 16)
    assert raws(engine, at_size()) == CLOSE(expected.tolist(), abs=1e-3)


def adapted(layers: list[int], width: int) -> dict[str, list[int]]:
    """Return the shapes of a head with adapters, normalisation and two layers."""
    joined = width * len(layers)
    shapes = {
        "norm.weight": [joined],
        "norm.bias": [joined],
        "hidden.weight": [8, joined],
        "hidden.bias": [8],
        "linear.weight": [3, 8],
        "linear.bias": [3],
    }
    for layer in layers:
        key = f"adapters.{layer}"
        shapes |= {f"{key}.down.weight": [4, width], f"{key}.down.bias": [4]}
        shapes |= {f"{key}.up.weight": [width, 4], f"{key}.up.bias": [width]}
    return shapes


@torch.inference_mode()
def test_dinov3_vit_under_adapters_at_several_blocks(tmp_path: Path) -> None:
    folder = backbones.dinov3_vit(tmp_path / "model")
    file = backbones.head(tmp_path / "h.safetensors", adapted([1, 3], 32))
    engine = engine_of(
        tmp_path, head="h.safetensors", layers=[1, 3], classes=CLASSES, roadwork=["barrier"]
    )
    engine.load()
    model = AutoModel.from_pretrained(folder).eval()
    hidden = model(
        pixel_values=processed(folder, at_size()), output_hidden_states=True
    ).hidden_states
    weights = load_file(file)

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    parts = []
    for layer in (1, 3):
        x = model.norm(hidden[layer])[:, 0]
        down = torch.nn.functional.gelu(linear(x, f"adapters.{layer}.down"))
        parts.append(x + linear(down, f"adapters.{layer}.up"))
    x = torch.cat(parts, 1)
    x = torch.nn.functional.layer_norm(x, (64,), weights["norm.weight"], weights["norm.bias"])
    logits = linear(torch.nn.functional.gelu(linear(x, "hidden")), "linear")

    expected = np.clip(one_of(logits.double(), [2]), -16, 16)
    assert raws(engine, at_size()) == CLOSE(expected.tolist(), abs=1e-3)


@pytest.mark.parametrize("layers", [[], [2, 4]])
@torch.inference_mode()
def test_dinov3_convnext_under_a_linear_head(tmp_path: Path, layers: list[int]) -> None:
    folder = backbones.dinov3_convnext(tmp_path / "model")
    width = 16 + 32 if layers else 32
    shapes = {"linear.weight": [1, width], "linear.bias": [1]}
    head = load_file(backbones.head(tmp_path / "h.safetensors", shapes))
    engine = engine_of(tmp_path, head="h.safetensors", layers=layers, pooling="mean")
    engine.load()
    found = AutoModel.from_pretrained(folder).eval()(
        pixel_values=processed(folder, at_size()), output_hidden_states=True
    )
    features = found.last_hidden_state[:, 1:].mean(1)
    if layers:
        features = torch.cat([found.hidden_states[i].mean((2, 3)) for i in layers], 1)

    expected = (features @ head["linear.weight"].T + head["linear.bias"])[:, 0]
    assert raws(engine, at_size()) == CLOSE(expected.clip(-16, 16).tolist(), abs=1e-3)


def flexible_inputs(folder: Path, batch: Pictures) -> dict[str, Any]:
    """Return what SigLIP 2 NaFlex's own processor makes of pictures, without resizing them."""
    processor = AutoImageProcessor.from_pretrained(folder)
    return dict(
        processor(
            images=[one.pixels for one in batch],
            do_resize=False,
            max_num_patches=24,
            return_tensors="pt",
        )
    )


@pytest.mark.parametrize("flexible", [False, True])
@torch.inference_mode()
def test_siglip_2_holds_pictures_against_texts(tmp_path: Path, flexible: bool) -> None:
    folder = backbones.siglip2(tmp_path / "model", flexible=flexible)
    engine = engine_of(tmp_path, prompts=PROMPTS, other_prompts=OTHERS)
    engine.load()
    texts = [text.lower() for text in (*PROMPTS, *OTHERS)]
    ids = AutoTokenizer.from_pretrained(folder)(
        texts, padding="max_length", max_length=64, return_tensors="pt"
    ).input_ids
    seen = (
        flexible_inputs(folder, at_size())
        if flexible
        else {"pixel_values": processed(folder, at_size()), "interpolate_pos_encoding": True}
    )
    logits = AutoModel.from_pretrained(folder).eval()(input_ids=ids, **seen).logits_per_image

    meant, other = logits[:, :2].exp().mean(1).log(), logits[:, 2:].exp().mean(1).log()
    found = raws(engine, at_size())
    assert found == CLOSE((meant - other).tolist(), abs=1e-4)
    assert max(found) - min(found) > 0.01


def timm_pixels(model: Any, batch: Pictures) -> Tensor:
    """Return pixels normalised as timm's own transforms for this model would."""
    from torchvision.transforms.v2 import functional

    stacked = torch.from_numpy(batch.stack(*SIZE)).permute(0, 3, 1, 2).float() / 255
    config = timm.data.resolve_model_data_config(model)
    found: Tensor = functional.normalize(stacked, list(config["mean"]), list(config["std"]))
    return found


@pytest.mark.parametrize("architecture", ["test_vit", "test_convnext", "test_efficientnet"])
@torch.inference_mode()
def test_a_classifier_of_timm(tmp_path: Path, architecture: str) -> None:
    backbones.timm_model(tmp_path / "model", architecture, CLASSES)
    engine = engine_of(tmp_path, roadwork=["cones"])
    engine.load()
    sized = {"img_size": SIZE[::-1]} if architecture == "test_vit" else {}
    model = timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True, **sized).eval()

    expected = np.clip(one_of(model(timm_pixels(model, at_size())).double(), [1]), -16, 16)
    assert raws(engine, at_size()) == CLOSE(expected.tolist(), abs=1e-3)


TIMM_HEADS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "test_vit": lambda model, x: torch.cat(
        [model.forward_features(x)[:, 0], model.forward_features(x)[:, 1:].mean(1)], 1
    ),
    "test_convnext": lambda model, x: torch.cat(
        [
            model.forward_head(model.forward_features(x), pre_logits=True),
            model.forward_features(x).mean((2, 3)),
        ],
        1,
    ),
}


@pytest.mark.parametrize("architecture", TIMM_HEADS)
@torch.inference_mode()
def test_a_backbone_of_timm_under_a_head(tmp_path: Path, architecture: str) -> None:
    backbones.timm_model(tmp_path / "model", architecture)
    sized = {"img_size": SIZE[::-1]} if architecture == "test_vit" else {}
    model = timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True, **sized).eval()
    shapes = {"linear.weight": [1, 2 * model.num_features], "linear.bias": [1]}
    head = load_file(backbones.head(tmp_path / "h.safetensors", shapes))
    engine = engine_of(tmp_path, head="h.safetensors", pooling="cls+mean")
    engine.load()

    features = TIMM_HEADS[architecture](model, timm_pixels(model, at_size()))
    expected = (features @ head["linear.weight"].T + head["linear.bias"])[:, 0].clip(-16, 16)
    assert raws(engine, at_size()) == CLOSE(expected.tolist(), abs=1e-3)


@torch.inference_mode()
def test_blocks_of_a_transformer_of_timm_under_a_head(tmp_path: Path) -> None:
    backbones.timm_model(tmp_path / "model", "test_vit")
    model = timm.create_model(
        f"local-dir:{tmp_path / 'model'}", pretrained=True, img_size=SIZE[::-1]
    ).eval()
    shapes = {"linear.weight": [1, 2 * model.num_features], "linear.bias": [1]}
    head = load_file(backbones.head(tmp_path / "h.safetensors", shapes))
    engine = engine_of(tmp_path, head="h.safetensors", layers=[2, 4])
    engine.load()

    found = model.forward_intermediates(
        timm_pixels(model, at_size()),
        indices=[1, 3],
        return_prefix_tokens=True,
        norm=True,
        intermediates_only=True,
    )
    features = torch.cat([first[:, 0] for _, first in found], 1)
    expected = (features @ head["linear.weight"].T + head["linear.bias"])[:, 0].clip(-16, 16)
    assert raws(engine, at_size()) == CLOSE(expected.tolist(), abs=1e-3)
