"""What is wrong with a torch member is said on loading: which member, which key, what came."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from roadstream.schemas.cascade.loading import load_cascade
from roadstream.schemas.errors import ConfigError
from tests.kits.checkpoints import backbones
from tests.kits.checkpoints.common import write_json
from tests.kits.torch_kit import engine_of, pictures, raws

ALWAYS = "so that the answer is always yes"
NO_BIAS = "norm.bias: expected a tensor of 1 dimensions, got nothing"
LINEAR = {"linear.weight": [1, 32], "linear.bias": [1]}
WIDE = {"linear.weight": [1, 48], "linear.bias": [1]}


def problem(folder: Path, model: str = "model", **settings: Any) -> str:
    """Return what is said on loading, without the folder's name."""
    engine = engine_of(folder, model, **settings)
    with pytest.raises(ConfigError) as caught:
        engine.load()
    engine.close()
    return str(caught.value).replace(str(folder), "")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a classifier."""
    backbones.classifier(tmp_path / "model")
    return tmp_path


def test_no_such_folder(tmp_path: Path) -> None:
    assert problem(tmp_path, "nowhere") == (
        "test: member m: model: expected a folder of weights, or the id of a model on the hub "
        "(org/name), got /nowhere, which does not exist"
    )


def test_a_hub_id_that_is_not_here_while_offline(tmp_path: Path) -> None:
    said = problem(tmp_path, "nobody/nothing", revision="v2")
    assert said.startswith(
        "test: member m: model: expected a model that is on the hub or in its local cache, got "
        "nobody/nothing at v2: "
    )


def test_pickles_are_not_read(folder: Path) -> None:
    weights = folder / "model" / "model.safetensors"
    torch.save(load_file(weights), folder / "model" / "pytorch_model.bin")
    weights.unlink()

    assert problem(folder, roadwork=["cones"]) == (
        "test: member m: model: /model: expected weights as *.safetensors (pickles are not read), "
        "got pytorch_model.bin"
    )


def test_timm_does_not_read_a_pickle_beside_other_safetensors(tmp_path: Path) -> None:
    backbones.timm_model(tmp_path / "model", "test_vit", ["a", "b"])
    weights = tmp_path / "model" / "model.safetensors"
    torch.save(load_file(weights), tmp_path / "model" / "pytorch_model.bin")
    weights.rename(tmp_path / "model" / "head.safetensors")

    said = problem(tmp_path, roadwork=["a"])
    assert said == "test: member m: model: /model: expected model.safetensors, got other files"


def test_a_config_that_is_no_json(folder: Path) -> None:
    (folder / "model" / "config.json").write_text("{")
    assert problem(folder, roadwork=["cones"]).startswith(
        "test: member m: model: /model/config.json: expected a JSON object, got "
    )


def test_weights_that_are_cut_off(folder: Path) -> None:
    weights = folder / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert problem(folder, roadwork=["cones"]).startswith(
        "test: member m: model: /model: expected a checkpoint of AutoModelForImageClassification, "
        "got "
    )


def test_weights_that_are_missing_are_not_drawn_at_random(folder: Path) -> None:
    weights = folder / "model" / "model.safetensors"
    held = load_file(weights)
    del held["classifier.weight"], held["classifier.bias"]
    save_file(held, weights, {"format": "pt"})

    assert problem(folder, roadwork=["cones"]) == (
        "test: member m: model: /model: expected a checkpoint of AutoModelForImageClassification, "
        "got a file that lacks classifier.bias, classifier.weight, 2 in all"
    )


def test_weights_of_another_shape(folder: Path) -> None:
    config = folder / "model" / "config.json"
    found = json.loads(config.read_text())
    write_json(config, {**found, "intermediate_size": 128})
    assert "expected a checkpoint of AutoModelForImageClassification" in problem(
        folder, roadwork=["cones"]
    )


def test_an_architecture_of_no_known_family(folder: Path) -> None:
    write_json(folder / "model" / "config.json", {"model_type": "bert"})
    said = problem(folder)
    assert said.startswith(
        "test: member m: model: /model: expected a config.json with a model_type"
    )
    assert said.endswith("or settings.family, got model_type 'bert'")


def test_a_family_that_is_none(folder: Path) -> None:
    said = problem(folder, family="cnn")
    assert said.startswith("test: member m: settings.family: expected one of backbone, classifier,")
    assert said.endswith("got cnn")


@pytest.mark.parametrize(
    ("roadwork", "got"),
    [
        ([], "expected some of clear road, cones, barrier, got nothing"),
        (["cone"], "expected names among cones, clear road, barrier, got 'cone'"),
        (
            ["cones", "barrier", "clear road"],
            f"expected some of clear road, cones, barrier, got all of them, {ALWAYS}",
        ),
    ],
)
def test_classes_that_are_not_there(folder: Path, roadwork: list[str], got: str) -> None:
    assert problem(folder, roadwork=roadwork) == f"test: member m: settings.roadwork: {got}"


def test_a_wrong_number_of_class_names(folder: Path) -> None:
    assert problem(folder, classes=["a", "b"], roadwork=["a"]) == (
        "test: member m: settings.classes: expected 3 names, got 2"
    )


def test_a_size_that_the_network_does_not_take(folder: Path) -> None:
    backbones.siglip2(folder / "flexible", flexible=True)
    assert problem(folder, "flexible", size=(100, 64), prompts=["road work"]) == (
        "test: member m: model: /flexible: expected width and height in steps of 16, got 100 × 64"
    )
    backbones.timm_model(folder / "small", "test_convnext", ["a", "b"])
    assert problem(folder, "small", size=(2, 2), roadwork=["a"]).startswith(
        "test: member m: model: /small: expected a network that takes pictures of 2 × 2, got "
    )


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        (WIDE, "linear.weight: expected shape [1, 32], got [1, 48]"),
        ({"linear.bias": [1]}, "linear.weight: expected a tensor of 2 dimensions, got nothing"),
        ({**LINEAR, "norm.weight": [32]}, NO_BIAS),
        ({**LINEAR, "bias": [1]}, "bias: expected only tensors of a head, got this one"),
        ({"linear.bias": [1, 1]}, "linear.bias: expected 1 dimensions, got [1, 1]"),
    ],
)  # fmt: skip
def test_a_head_that_does_not_fit(tmp_path: Path, shapes: dict[str, list[int]], said: str) -> None:
    backbones.dinov3_vit(tmp_path / "model")
    backbones.head(tmp_path / "h.safetensors", shapes)
    assert problem(tmp_path, head="h.safetensors") == (
        f"test: member m: settings.head: /h.safetensors: {said}"
    )


def test_a_head_of_the_wrong_dtype(tmp_path: Path) -> None:
    backbones.dinov3_vit(tmp_path / "model")
    tensors = {name: torch.zeros(shape, dtype=torch.int64) for name, shape in LINEAR.items()}
    save_file(tensors, tmp_path / "h.safetensors")
    assert problem(tmp_path, head="h.safetensors").endswith(
        "expected a floating dtype, got torch.int64"
    )


def test_a_head_that_is_no_safetensors_file(tmp_path: Path) -> None:
    backbones.dinov3_vit(tmp_path / "model")
    (tmp_path / "h.safetensors").write_text("pickle")
    said = "test: member m: settings.head: expected a safetensors file, got /h.safetensors: "
    assert problem(tmp_path, head="h.safetensors").startswith(said)
    assert problem(tmp_path, head="none.safetensors").startswith(said.replace("/h.", "/none."))


def test_layers_that_the_backbone_lacks(tmp_path: Path) -> None:
    backbones.dinov3_vit(tmp_path / "model")
    backbones.head(tmp_path / "h.safetensors", LINEAR)
    assert problem(tmp_path, head="h.safetensors", layers=[4]) == (
        "test: member m: settings.layers: expected 1 to 3, got 4"
    )


def test_a_head_on_what_is_no_backbone(folder: Path) -> None:
    backbones.head(folder / "h.safetensors", LINEAR)
    assert problem(folder, head="h.safetensors").endswith("or one of timm, got model_type 'vit'")


def test_texts_that_are_missing_or_too_long(tmp_path: Path) -> None:
    backbones.siglip2(tmp_path / "model")
    assert problem(tmp_path) == (
        "test: member m: settings.prompts: expected texts that mean roadwork, got nothing"
    )
    said = problem(tmp_path, prompts=["cones " * 20])
    assert "expected at most 64 tokens each, got 1" in said
    (tmp_path / "model" / "tokenizer.json").unlink()
    assert "expected a folder with a tokenizer, got " in problem(tmp_path, prompts=["cones"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_a_cuda_device_that_is_not_here(folder: Path) -> None:
    said = "test: member m: settings.device: expected a device that is here (cpu), got cuda:1"
    assert problem(folder, roadwork=["cones"], device="cuda:1") == said


def test_cuda_graphs_on_the_cpu(folder: Path) -> None:
    assert problem(folder, roadwork=["cones"], cuda_graphs=True) == (
        "test: member m: settings.cuda_graphs: expected false, as there are no graphs, got cpu"
    )


def test_settings_are_checked_with_the_cascade_file(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "c.toml").write_text(
        'name = "c"\n[[tiers]]\nname = "t"\n[[tiers.members]]\nname = "m"\nengine = "torch"\n'
        'model = "model"\nsettings = { precision = "int8" }\n'
    )
    with pytest.raises(ConfigError, match=r"members\[0\]\.settings\.precision: .*got 'int8'"):
        load_cascade(str(tmp_path / "c.toml"))


def test_a_model_from_the_hub_s_local_cache(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    cache = tmp_path / "hub"
    kept = cache / "models--someone--roadwork"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "v2").write_text(commit)
    shutil.copytree(folder / "model", kept / "snapshots" / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    local = engine_of(folder, roadwork=["cones"])
    cached = engine_of(tmp_path, "someone/roadwork", revision="v2", roadwork=["cones"])
    local.load()

    cached.load()

    assert raws(cached, pictures(2)) == raws(local, pictures(2))
