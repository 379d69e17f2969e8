"""A real vLLM on tiny models of other architectures, as far as each differs in what is asked.

`python -m tests.kits.vlm_trial` runs all of them through `roadstream score`.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from roadstream.workers.engines.options import EngineOptions
from roadstream.workers.engines.vllm.engine import VllmEngine
from tests.kits.checkpoints import vlms
from tests.kits.checkpoints.ovis2 import write_ovis2
from tests.kits.checkpoints.qwen3_vl import write_qwen3_vl
from tests.kits.vllm_kit import Reference, asked_by, pictures, pixels, raws, vllm_member

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(300),
    # transformers copies the ids of GLM as numpy 1 did.
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
]
Write = Callable[[Path], Path]
# transformers has none of Ovis2's own format.
KNOWN: dict[str, Write] = {"glm-4.6v": vlms.glm4v, "llama-4": vlms.llama4}
COUNT = 4


@contextmanager
def asked(model: Path, **settings: Any) -> Iterator[VllmEngine]:
    # Pictures of the kit's size are multiples of 4, so that the model's own preprocessing alone
    # resizes them, as it does for transformers.
    member = vllm_member("vlm", model, multiple=4, **settings)
    engine = VllmEngine(asked_by(member), member, EngineOptions())
    engine.load()
    try:
        yield engine
    finally:
        engine.close()


@pytest.mark.parametrize("name", KNOWN)
def test_the_score_is_that_of_transformers(name: str, tmp_path: Path) -> None:
    model = KNOWN[name](tmp_path / name)

    with asked(model) as engine:
        found = raws(engine.infer(pictures(COUNT)))

    reference = Reference(model)
    assert found == pytest.approx([reference.raw(one) for one in pixels(COUNT)], abs=1e-3)
    assert max(found) - min(found) > 0.01


def test_a_template_of_text_alone_shows_the_picture_first(tmp_path: Path) -> None:
    with asked(write_ovis2(tmp_path / "ovis-2")) as engine:
        found = raws(engine.infer(pictures(COUNT)))
        alone = [raws(engine.infer(pictures(COUNT)[i : i + 1]))[0] for i in range(COUNT)]

    assert found == pytest.approx(alone, abs=1e-4)
    assert max(found) - min(found) > 0.01


def write_adapter(adapter: Path, model: Path, merged: Path) -> None:
    """Write an adapter of rank 4 for one matrix of the model, and the model with it merged in."""
    name = "model.language_model.layers.1.mlp.down_proj"
    shutil.copytree(model, merged)
    weights = load_file(merged / "model.safetensors")
    matrix = weights[f"{name}.weight"]
    generator = torch.Generator().manual_seed(0)
    into = 0.1 * torch.randn(4, matrix.shape[1], generator=generator)
    out = torch.randn(matrix.shape[0], 4, generator=generator)
    matrix += out @ into
    save_file(weights, merged / "model.safetensors", {"format": "pt"})
    adapter.mkdir()
    parts = {"lora_A": into, "lora_B": out}
    named = {f"base_model.model.{name}.{part}.weight": each for part, each in parts.items()}
    save_file(named, adapter / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 4, "target_modules": ["down_proj"]}
    (adapter / "adapter_config.json").write_text(json.dumps(config))


def test_pictures_are_asked_about_with_the_adapter_that_they_need(tmp_path: Path) -> None:
    model = write_qwen3_vl(tmp_path / "qwen")
    adapter, merged = tmp_path / "adapter", tmp_path / "merged"
    write_adapter(adapter, model, merged)
    needed = {"enable_lora": True, "max_lora_rank": 8, "default_mm_loras": {"image": str(adapter)}}

    with asked(model, engine_args=needed, max_leak=1.0) as engine:
        found = raws(engine.infer(pictures(COUNT)))

    expected, without = (
        [Reference(folder).raw(one) for one in pixels(COUNT)] for folder in (merged, model)
    )
    assert found == pytest.approx(expected, abs=1e-3)
    assert found != pytest.approx(without, abs=1e-2)
