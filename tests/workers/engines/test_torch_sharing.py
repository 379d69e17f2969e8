"""Members of one worker that look through the same backbone share it, and each of its runs."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from roadstream.stages.inference import Pictures
from roadstream.workers.engines.torch.engine import TorchEngine
from tests.kits.checkpoints import backbones
from tests.kits.checkpoints.backbones import CLASSES
from tests.kits.torch_kit import engine_of, pictures, raws

WIDTH = 32


class Counted:
    """Counts how often networks run."""

    def __init__(self, *engines: TorchEngine) -> None:
        self.runs = 0
        self.modules = {id(one.model.backbone.module): one.model.backbone.module for one in engines}
        for module in self.modules.values():
            module.register_forward_hook(self._count)

    def _count(self, module: nn.Module, inputs: object, output: object) -> None:
        self.runs += 1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with two backbones and heads of several widths."""
    backbones.dinov3_vit(tmp_path / "model")
    backbones.dinov3_vit(tmp_path / "other", seed=1)
    for name, factor in (("a", 1), ("b", 1), ("wide", 2)):
        shapes = {"linear.weight": [1, factor * WIDTH], "linear.bias": [1]}
        backbones.head(tmp_path / f"{name}.safetensors", shapes, seed=ord(name[0]))
    return tmp_path


def loaded(
    folder: Path, shared: dict[Hashable, Any], model: str = "model", **given: Any
) -> TorchEngine:
    engine = engine_of(folder, model, shared=shared, **given)
    engine.load()
    return engine


def infer(batch: Pictures, *engines: TorchEngine) -> list[list[float]]:
    """Let several members see one batch, as a tier does."""
    for engine in engines:
        engine.prepare(batch)
    return [raws(engine, batch) for engine in engines]


def test_one_run_serves_all_heads_whatever_layers_they_want(folder: Path) -> None:
    alone = [
        loaded(folder, {}, head="a.safetensors"),
        loaded(folder, {}, head="b.safetensors", pooling="mean"),
        loaded(folder, {}, head="wide.safetensors", layers=[1, 3]),
    ]
    expected = [infer(pictures(3), engine)[0] for engine in alone]
    shared: dict[Hashable, Any] = {}
    together = [
        loaded(folder, shared, head="a.safetensors"),
        loaded(folder, shared, head="b.safetensors", pooling="mean"),
        loaded(folder, shared, head="wide.safetensors", layers=[1, 3]),
    ]
    for engine in together:
        engine.warm_up(3)
    counted = Counted(*together)

    found = infer(pictures(3), *together)

    assert len(counted.modules) == 1
    assert counted.runs == 1
    assert found == expected
    infer(pictures(3), *together)
    assert counted.runs == 2


@pytest.mark.parametrize(
    "other",
    [
        {"model": "other"},
        {"precision": "bfloat16"},
        {"size": (64, 64)},
        {"buckets": [4]},
    ],
    ids=["another checkpoint", "another precision", "another size", "other batch sizes"],
)
def test_what_differs_is_not_shared(folder: Path, other: dict[str, Any]) -> None:
    shared: dict[Hashable, Any] = {}
    one = loaded(folder, shared, head="a.safetensors")
    two = loaded(folder, shared, head="b.safetensors", **other)
    counted = Counted(one, two)

    infer(pictures(3), one, two)

    assert len(counted.modules) == 2
    assert counted.runs == 2


def test_a_network_leaves_memory_with_its_last_member(folder: Path) -> None:
    shared: dict[Hashable, Any] = {}
    one = loaded(folder, shared, head="a.safetensors")
    two = loaded(folder, shared, head="b.safetensors")
    backbone = two.model.backbone

    one.close()
    assert backbone in shared.values()
    assert len(infer(pictures(2), two)[0]) == 2
    two.close()
    two.close()

    assert backbone not in shared.values()


def test_texts_share_the_image_tower(tmp_path: Path) -> None:
    backbones.siglip2(tmp_path / "model")
    shared: dict[Hashable, Any] = {}
    one = loaded(tmp_path, shared, prompts=["road work"])
    two = loaded(tmp_path, shared, prompts=["a traffic cone", "a barrier"])
    counted = Counted(one, two)

    first, second = infer(pictures(3), one, two)

    assert counted.runs == 1
    assert first != second


def test_classes_share_a_classifier(tmp_path: Path) -> None:
    backbones.classifier(tmp_path / "model")
    shared: dict[Hashable, Any] = {}
    one = loaded(tmp_path, shared, roadwork=[CLASSES[1]])
    two = loaded(tmp_path, shared, roadwork=[CLASSES[2]])
    counted = Counted(one, two)

    first, second = infer(pictures(3), one, two)

    assert counted.runs == 1
    assert first != second


def test_a_part_of_a_batch_is_run_anew(folder: Path) -> None:
    shared: dict[Hashable, Any] = {}
    one = loaded(folder, shared, head="a.safetensors")
    two = loaded(folder, shared, head="b.safetensors")
    counted = Counted(one, two)
    batch = pictures(4)

    infer(batch, one, two)
    infer(batch[:2], one, two)

    assert counted.runs == 2


def tensors(engine: TorchEngine, size: tuple[int, int]) -> dict[str, int]:
    """Return where the tensors of the network for a size lie in memory, by name."""
    module = engine.model_for(size).backbone.module
    named = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {name: tensor.data_ptr() for name, tensor in named.items()}


@pytest.mark.parametrize("kind", ["tokens", "positions"])
def test_networks_for_other_sizes_share_what_is_equal(folder: Path, kind: str) -> None:
    upright, lying = (64, 96), (96, 64)
    if kind == "tokens":
        given: dict[str, Any] = {"head": "a.safetensors"}
    else:
        small = {"img_size": 64, "depth": 2, "embed_dim": 32, "num_heads": 2}
        backbones.timm_model(folder / "model", "vit_tiny_patch16_224", CLASSES, **small)
        given = {"roadwork": ["cones"]}
    alone = {size: loaded(folder, {}, size=size, **given) for size in (upright, lying)}
    engine = engine_of(folder, size=lying, sizes=[upright], **given)
    engine.load()
    engine.warm_up(2)

    for size, other in alone.items():
        batch = Pictures(list(pictures(3)), {"m": size})
        assert infer(batch, engine) == infer(pictures(3), other)
    first, second = tensors(engine, lying), tensors(engine, upright)
    apart = {name for name in first if first[name] != second[name]}
    # As many places either way, but not in the same rows.
    assert apart == ({"pos_embed"} if kind == "positions" else set())
