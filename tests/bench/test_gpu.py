"""The parts of benchmarks of models that need no GPU: counting, bounds, checkpoints, the stream."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from torch import nn

from roadstream.bench.models import engines, gpu
from roadstream.bench.models.checkpoints import (
    cascade_file,
    dinov3,
    rt_detr,
    write_dinov3,
    write_rt_detr,
    write_timm,
)
from roadstream.bench.models.gpu_roofline import busy_share, flops_per_image, roofline
from roadstream.bench.models.overhead_child import pictures
from roadstream.schemas.cascade.loading import load_cascade
from roadstream.schemas.cascade.model import Member
from roadstream.schemas.settings.torch import TorchSettings
from roadstream.stages.inference import Picture, Pictures, Score
from roadstream.workers.service.loading import load_engines

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
         "num_attention_heads": 2}  # fmt: skip
FEW = {"num_queries": 10, "encoder_layers": 1, "decoder_layers": 2}
TIMES = st.integers(0, 40).map(float)


def test_operations_are_counted_with_a_multiply_add_as_two() -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.Flatten(), nn.Linear(8 * 64, 5))

    assert flops_per_image(build, 32) == 2 * (64 * 8 * 3 * 16) + 2 * (8 * 64 * 5)


def test_the_count_of_a_vit_is_that_of_its_formula() -> None:
    width, inner, tokens, patches = 1024, 4096, 14 * 14 + 5, 14 * 14
    block = 2 * tokens * (4 * width * width + 2 * width * inner) + 4 * tokens * tokens * width

    counted = flops_per_image(lambda: dinov3("dinov3-vitl16"), 224)

    assert counted == pytest.approx(24 * block + 2 * patches * 3 * 16 * 16 * width, rel=1e-3)


def test_sizes_are_those_of_the_published_models() -> None:
    with torch.device("meta"):
        huge, detector = dinov3("dinov3-vith16plus"), rt_detr()

    assert sum(p.numel() for p in huge.parameters()) == pytest.approx(840e6, rel=0.01)
    assert sum(p.numel() for p in detector.parameters()) == pytest.approx(43e6, rel=0.05)


def test_a_roofline_is_operations_over_the_dense_rate() -> None:
    found = roofline(flops=2e9, dense=1e12, images_per_second=300.0)

    assert (found.bound, found.share) == (500.0, 0.6)


@given(
    spans=st.lists(st.tuples(TIMES, TIMES).map(sorted).map(tuple), max_size=8),
    begin=st.integers(0, 19).map(float),
    end=st.integers(20, 40).map(float),
)
def test_busy_is_what_some_interval_covers(
    spans: list[tuple[float, float]], begin: float, end: float
) -> None:
    seconds = range(int(begin), int(end))
    covered = sum(any(a <= one and one + 1 <= b for a, b in spans) for one in seconds)

    assert busy_share(spans, begin, end) == pytest.approx(covered / (end - begin))


def on_the_cpu(tier: dict[str, Any], side: int) -> dict[str, Any]:
    (one,) = tier["members"]
    kept = {key: one["settings"][key] for key in ("head", "roadwork") if key in one["settings"]}
    small = {**one, "width": side, "height": side, "settings": {**kept, "device": "cpu"}}
    return {**tier, "members": [small]}


@pytest.mark.parametrize("index", [0, -1])
def test_a_model_runs_through_the_stream(index: int, tmp_path: Path) -> None:
    model = gpu.models()[index]
    small = model._replace(
        write=(lambda f: write_dinov3(f, "dinov3-vitl16", **SMALL))
        if model.head
        else (lambda f: write_rt_detr(f, **FEW))
    )
    tier = gpu.tier(small, tmp_path, 4)
    path = cascade_file(tmp_path, "small", on_the_cpu(tier, 64))
    whole = load_cascade(str(cascade_file(tmp_path, "whole", tier)))

    with gpu.undecoded(64):
        rate = gpu.stream_rate(load_cascade(str(path)), 20, pictures(1))

    assert rate > 0
    settings = whole.tiers[0].members[0].settings
    assert isinstance(settings, TorchSettings)
    assert (settings.precision, settings.cuda_graphs) == ("bfloat16", True)


def test_a_timm_checkpoint_gives_scores_near_a_coin_toss(tmp_path: Path) -> None:
    member = Member(
        name="m",
        engine="torch",
        model=str(write_timm(tmp_path / "t", "resnet10t")),
        width=64,
        height=64,
        settings=TorchSettings(roadwork=["roadwork"], device="cpu"),
    )
    cascade = load_cascade("lite")
    tier = replace(cascade.tiers[0], members=[member])

    (engine,) = load_engines(replace(cascade, tiers=[tier]), [tier.name], 1).values()

    (score,) = engine.infer(Pictures([Picture(np.zeros((64, 64, 3), np.uint8))]))
    engine.close()
    assert isinstance(score, Score)
    assert abs(score.raw) < 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_it_says_so() -> None:
    with pytest.raises(SystemExit, match="needs a CUDA device"):
        gpu.require_cuda()


def test_each_engine_has_a_cascade_that_loads(tmp_path: Path) -> None:
    files = engines.cascades(tmp_path, 8)

    loaded = {name: load_cascade(str(path)) for name, path in files.items()}

    assert {one.tiers[0].members[0].engine for one in loaded.values()} == {"torch", "onnx"}
    assert all(one.tiers[0].max_batch == 8 for one in loaded.values())
