"""Depth members tell what their own processors tell, and give no vote."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from transformers import (
    AutoImageProcessor,
    DepthAnythingForDepthEstimation,
    DepthProForDepthEstimation,
)

from roadstream.schemas.cascade.rules import Size
from roadstream.schemas.errors import ConfigError
from roadstream.stages.inference import (
    Abstained,
    DepthMap,
    Finding,
    Picture,
    Pictures,
    infer_isolated,
)
from roadstream.workers.engines.options import EngineOptions
from roadstream.workers.engines.torch.engine import TorchEngine
from tests.kits.checkpoints import others
from tests.kits.torch_kit import engine_of, pictures, torch_cascade, torch_member

PRO_SIZE = (others.DEPTH_PRO_SIDE, others.DEPTH_PRO_SIDE)
_NUMBER = re.compile(r"(?<![\w.%])\d+(?:\.\d+)?(?:e[+-]\d+)?(?![\w.%]*%)")


def at_size(size: tuple[int, int]) -> Pictures:
    return Pictures([Picture(one.at(*size)) for one in pictures(3)])


def measuring(folder: Path, size: tuple[int, int], *, enabled: bool = True) -> TorchEngine:
    """Return a loaded engine whose cascade checks sizes."""
    member = torch_member("m", "model", {"device": "cpu"}, size)
    chosen = replace(torch_cascade(folder, member), rules=[Size(depth="m", enabled=enabled)])
    engine = TorchEngine(chosen, member, EngineOptions(threads=1, shared={}))
    engine.load()
    return engine


def maps(found: Sequence[Finding]) -> list[DepthMap]:
    return [one.depth for one in found if isinstance(one, Abstained) and one.depth is not None]


def said(found: Any) -> list[str]:
    return [one.reason for one in found if isinstance(one, Abstained)]


def told(reason: str) -> list[float]:
    """Return the numbers of a reason, shares aside: three depths, and the focal length if told."""
    return [float(number) for number in _NUMBER.findall(reason.partition("below")[2])]


@torch.inference_mode()
def processed(kind: Any, folder: Path, batch: Pictures) -> list[dict[str, Any]]:
    model: Any = kind.from_pretrained(folder).eval()
    processor: Any = AutoImageProcessor.from_pretrained(folder)
    inputs = processor(images=[one.pixels for one in batch], do_resize=False, return_tensors="pt")
    found = model(**inputs)
    sizes = None if kind is DepthAnythingForDepthEstimation else [_shape(found)] * len(batch)
    done: list[dict[str, Any]] = processor.post_process_depth_estimation(found, sizes)
    return done


def _shape(found: Any) -> tuple[int, int]:
    height, width = found.predicted_depth.shape[1:]
    return height, width


def quantiles(depth: torch.Tensor) -> list[float]:
    ordered = np.sort(depth.numpy(), axis=None)
    return [float(ordered[round(share * (ordered.size - 1))]) for share in (0.05, 0.5, 0.95)]


def test_depth_anything_in_metres(tmp_path: Path) -> None:
    others.depth_anything(tmp_path / "model")
    engine = engine_of(tmp_path, size=others.DEPTH_SIZE)
    engine.load()
    batch = at_size(others.DEPTH_SIZE)

    reasons = said(engine.infer(batch))

    expected = processed(DepthAnythingForDepthEstimation, tmp_path / "model", batch)
    assert len(reasons) == len(batch)
    for reason, one in zip(reasons, expected, strict=True):
        assert reason.endswith(" m")
        assert told(reason) == pytest.approx(quantiles(one["predicted_depth"]), rel=0.01)


def test_relative_depth_has_no_unit(tmp_path: Path) -> None:
    others.depth_anything(tmp_path / "model", metric=False)
    engine = engine_of(tmp_path, size=others.DEPTH_SIZE)
    engine.load()

    reasons = said(engine.infer(at_size(others.DEPTH_SIZE)))

    assert all(reason.endswith("(inverse depth, no unit)") for reason in reasons)


def test_depth_pro_tells_metres_and_the_focal_length(tmp_path: Path) -> None:
    others.depth_pro(tmp_path / "model")
    engine = engine_of(tmp_path, size=PRO_SIZE)
    engine.load()
    batch = at_size(PRO_SIZE)

    reasons = said(engine.infer(batch))

    expected = processed(DepthProForDepthEstimation, tmp_path / "model", batch)
    for reason, one in zip(reasons, expected, strict=True):
        width = one["predicted_depth"].shape[1]
        focal = float(one["focal_length"]) / width
        assert told(reason) == pytest.approx(
            [*quantiles(one["predicted_depth"]), focal], rel=0.01, abs=1e-4
        )


def test_depth_anything_hands_its_metres_on_where_sizes_are_checked(tmp_path: Path) -> None:
    others.depth_anything(tmp_path / "model")
    batch = at_size(others.DEPTH_SIZE)

    found = infer_isolated(measuring(tmp_path, others.DEPTH_SIZE), batch).found

    expected = processed(DepthAnythingForDepthEstimation, tmp_path / "model", batch)
    for one, whole in zip(maps(found), expected, strict=True):
        assert one.focal is None
        assert one.metres.dtype == np.float32
        np.testing.assert_allclose(one.metres, whole["predicted_depth"], rtol=0.01)
    assert [one.tags for one in found if isinstance(one, Abstained)] == [{"depth": "metres"}] * 3


def test_depth_pro_hands_on_metres_and_the_focal_length(tmp_path: Path) -> None:
    others.depth_pro(tmp_path / "model")
    batch = at_size(PRO_SIZE)

    found = infer_isolated(measuring(tmp_path, PRO_SIZE), batch).found

    expected = processed(DepthProForDepthEstimation, tmp_path / "model", batch)
    for one, whole in zip(maps(found), expected, strict=True):
        height, width = whole["predicted_depth"].shape
        down, across = -(-height // 256), -(-width // 256)
        np.testing.assert_allclose(
            one.metres, whole["predicted_depth"][::down, ::across], rtol=0.02, atol=1e-4
        )
        assert one.focal == pytest.approx(float(whole["focal_length"]) / width, rel=0.01)


def test_relative_depth_hands_no_map_on_and_says_so_in_a_tag(tmp_path: Path) -> None:
    others.depth_anything(tmp_path / "model", metric=False)
    engine = measuring(tmp_path, others.DEPTH_SIZE)

    found = infer_isolated(engine, at_size(others.DEPTH_SIZE)).found

    assert maps(found) == []
    assert [one.tags for one in found if isinstance(one, Abstained)] == [{"depth": "relative"}] * 3


def test_no_map_is_made_where_no_rule_wants_it(tmp_path: Path) -> None:
    others.depth_anything(tmp_path / "model")
    engine = measuring(tmp_path, others.DEPTH_SIZE, enabled=False)

    found = infer_isolated(engine, at_size(others.DEPTH_SIZE)).found

    assert maps(found) == []
    assert not any(one.tags for one in found if isinstance(one, Abstained))


def test_a_network_that_gives_no_number_is_at_fault(tmp_path: Path) -> None:
    others.depth_anything(tmp_path / "model")
    engine = measuring(tmp_path, others.DEPTH_SIZE)
    with torch.no_grad():
        for weights in engine.model.backbone.module.parameters():
            weights.fill_(float("nan"))

    found = infer_isolated(engine, at_size(others.DEPTH_SIZE)).found

    assert {str(one) for one in found} == {
        "model_failed: expected a depth map with depths in it, got nothing but nan"
    }


@pytest.mark.parametrize(
    ("write", "size", "expected"),
    [
        (others.depth_anything, (80, 56), "width and height in steps of 14, got 80 × 56"),
        (others.depth_pro, (160, 128), "width and height to be equal, got 160 × 128"),
    ],
)
def test_sizes_that_a_network_does_not_take(
    tmp_path: Path, write: Any, size: tuple[int, int], expected: str
) -> None:
    write(tmp_path / "model")

    with pytest.raises(ConfigError) as error:
        engine_of(tmp_path, size=size).load()

    assert expected in str(error.value)
