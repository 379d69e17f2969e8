"""Detectors give the scores and boxes that their own library gives for the same pixels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from transformers import AutoImageProcessor, AutoModelForObjectDetection

from roadstream.schemas.errors import ConfigError
from roadstream.schemas.records.votes import Box
from roadstream.stages.inference import Picture, Pictures, Score
from roadstream.workers.engines.torch.engine import TorchEngine
from tests.kits.checkpoints import detectors
from tests.kits.checkpoints.detectors import SIDE
from tests.kits.torch_kit import engine_of, pictures, raws

ROADWORK = ["barrier", "traffic cone", "machinery vehicle"]
LEAST = 0.01
CLOSED = {
    "d_fine": (96, 64),
    "deimv2": (96, 64),
    "rf_detr": (SIDE, SIDE),
    "rt_detr": (96, 64),
    "rt_detr_v2": (96, 64),
    "yolos": (64, 96),
}
"""Detectors of classes, and a size for each, of another shape than its training's if it may be."""


def at_size(size: tuple[int, int], count: int = 3) -> Pictures:
    """Return pictures that have the member's size already, so that nothing is resized."""
    return Pictures([Picture(one.at(*size)) for one in pictures(count)])


def loaded(folder: Path, name: str, size: tuple[int, int], **settings: Any) -> TorchEngine:
    """Return an engine of a detector of classes that is written for it."""
    getattr(detectors, name)(folder / "model")
    engine = engine_of(
        folder, size=size, **{"roadwork": ROADWORK, "min_confidence": LEAST, **settings}
    )
    engine.load()
    return engine


def numbers(box: Box) -> list[float]:
    return [box.x1, box.y1, box.x2, box.y2, box.confidence]


def has_area(corners: list[float]) -> bool:
    """Tell a box in the picture from one that lies outside of it."""
    return corners[0] < corners[2] and corners[1] < corners[3]


@torch.inference_mode()
def told_by_library(folder: Path, batch: Pictures) -> list[list[tuple[str, list[float]]]]:
    """Return label, corners as shares and score of what the library finds of roadwork."""
    processor: Any = AutoImageProcessor.from_pretrained(folder)
    model: Any = AutoModelForObjectDetection.from_pretrained(folder).eval()
    pixels = processor(
        images=[one.pixels for one in batch], do_resize=False, return_tensors="pt"
    ).pixel_values
    found = processor.post_process_object_detection(model(pixel_values=pixels), threshold=LEAST)
    return [_of_roadwork(one, model.config.id2label) for one in found]


def _of_roadwork(found: dict[str, Any], names: dict[int, str]) -> list[tuple[str, list[float]]]:
    told = [
        (names[int(label)], [*box.clamp(0, 1).tolist(), float(score)])
        for label, box, score in zip(found["labels"], found["boxes"], found["scores"], strict=True)
        if names[int(label)] in ROADWORK
    ]
    return sorted(told, key=lambda one: -one[1][4])


@pytest.mark.parametrize("name", CLOSED)
def test_scores_and_boxes_are_those_of_the_library(tmp_path: Path, name: str) -> None:
    size = CLOSED[name]
    engine = loaded(tmp_path, name, size, max_boxes=100)
    batch = at_size(size)

    found = engine.infer(batch)

    for mine, theirs in zip(found, told_by_library(tmp_path / "model", batch), strict=True):
        assert isinstance(mine, Score)
        best = theirs[0][1][4]
        inside = [one for one in theirs if has_area(one[1])]
        assert mine.raw == pytest.approx(np.log(best / (1 - best)), abs=1e-4)
        # The library's boxes end where it has told as many as the network has queries.
        assert len(inside) >= 2
        for box, (label, expected) in zip(mine.boxes, inside, strict=False):
            assert box.label == label
            assert numbers(box) == pytest.approx(expected, abs=1e-4)
    scores = raws(engine, batch)
    assert max(scores) - min(scores) > 0.1


@pytest.mark.parametrize("name", CLOSED)
def test_a_picture_scores_alone_as_it_does_in_a_batch(tmp_path: Path, name: str) -> None:
    size = CLOSED[name]
    engine = loaded(tmp_path, name, size)
    batch = at_size(size)

    together = engine.infer(batch)

    for i, one in enumerate(together):
        (alone,) = engine.infer(batch[i : i + 1])
        assert isinstance(one, Score)
        assert isinstance(alone, Score)
        assert alone.raw == pytest.approx(one.raw, abs=1e-4)
        assert [box.label for box in alone.boxes] == [box.label for box in one.boxes]
        for mine, other in zip(alone.boxes, one.boxes, strict=True):
            assert numbers(mine) == pytest.approx(numbers(other), abs=1e-3)


# Rounding also changes the order of places, which RF-DETR's queries depend on.
NEAR = {"rf_detr": 1.0}


@pytest.mark.parametrize("name", CLOSED)
def test_half_precision_stays_near_full_and_keeps_coordinates_exact(
    tmp_path: Path, name: str
) -> None:
    # As many places as queries: with fewer, rounding picks others in a random network.
    size = (SIDE, SIDE)
    full = loaded(tmp_path, name, size)
    half = loaded(tmp_path, name, size, precision="bfloat16")

    assert raws(half, at_size(size)) == pytest.approx(
        raws(full, at_size(size)), abs=NEAR.get(name, 0.3)
    )
    weights = {one.dtype for one in half.model.backbone.module.parameters()}
    assert weights == {torch.float32}
    if name != "yolos":  # whose boxes are the last layer's output, not sums of steps
        (found,) = half.infer(at_size(size, 1))
        assert isinstance(found, Score)
        corners = torch.tensor([one.x1 for one in found.boxes if 0 < one.x1 < 1])
        assert (corners.bfloat16().float() != corners).any()


def test_members_with_other_classes_share_the_network(tmp_path: Path) -> None:
    detectors.d_fine(tmp_path / "model")
    shared: dict[Any, Any] = {}
    cones, machines = (
        engine_of(tmp_path, shared=shared, roadwork=[one], min_confidence=LEAST)
        for one in ("traffic cone", "machinery vehicle")
    )
    cones.load()
    machines.load()
    batch = at_size((96, 64))

    found = [raws(cones, batch), raws(machines, batch)]

    assert cones.model.backbone is machines.model.backbone
    both = loaded(tmp_path, "d_fine", (96, 64), roadwork=["traffic cone", "machinery vehicle"])
    best = [max(pair) for pair in zip(*found, strict=True)]
    assert raws(both, batch) == pytest.approx(best, abs=1e-5)
    assert found[0] != found[1]


def test_boxes_are_bounded_in_number_and_likely_enough(tmp_path: Path) -> None:
    every = loaded(tmp_path, "d_fine", (96, 64), max_boxes=300)
    few = loaded(tmp_path, "d_fine", (96, 64), max_boxes=3, min_confidence=0.4)
    batch = at_size((96, 64), 1)

    (most,), (least,) = every.infer(batch), few.infer(batch)

    assert isinstance(most, Score)
    assert isinstance(least, Score)
    assert len(most.boxes) > 3
    assert [numbers(box) for box in least.boxes] == [
        numbers(box) for box in most.boxes[:3] if box.confidence > 0.4
    ]
    assert least.raw == most.raw


def test_a_class_may_be_told_by_its_number(tmp_path: Path) -> None:
    by_name = loaded(tmp_path, "yolos", (64, 64), roadwork=["Traffic Cone"])
    by_number = loaded(tmp_path, "yolos", (64, 64), roadwork=["1"])
    batch = at_size((64, 64))

    assert raws(by_name, batch) == raws(by_number, batch)


@pytest.mark.parametrize(
    ("roadwork", "problem"),
    [
        (["cone"], r"roadwork: expected names among traffic cone, .*, got 'cone'$"),
        (["9"], r"roadwork: expected names among .*, got '9'$"),
        ([], r"roadwork: expected some of barrier, traffic cone, car, .*, got nothing$"),
    ],
)
def test_classes_that_are_not_there_are_refused(
    tmp_path: Path, roadwork: list[str], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        loaded(tmp_path, "yolos", (64, 64), roadwork=roadwork)


@pytest.mark.parametrize(
    ("name", "size", "problem"),
    [
        ("d_fine", (100, 64), "multiples of 32, got 100 × 64"),
        ("rt_detr_v2", (96, 70), "multiples of 32, got 96 × 70"),
        ("yolos", (64, 72), "multiples of 16, got 64 × 72"),
        ("rf_detr", (72, 64), "multiples of 16, got 72 × 64"),
        ("rf_detr", (96, 64), "a square, which its windows ask for, got 96 × 64"),
        ("d_fine", (32, 32), "a network that takes pictures of 32 × 32, got .*"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(
    tmp_path: Path, name: str, size: tuple[int, int], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        loaded(tmp_path, name, size)


def test_weights_of_another_kind_of_network_are_refused(tmp_path: Path) -> None:
    detectors.yolos(tmp_path / "model")
    engine = engine_of(tmp_path, family="grounding", prompts=["traffic cone"])

    with pytest.raises(ConfigError, match=r"a model_type of grounding-dino, .*, got yolos"):
        engine.load()


class Constants(TorchFunctionMode):
    """Notes what is made on the host for the device, which a run would have to wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.tensor, torch.as_tensor, torch.from_numpy):
            self.made.append(func.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "name", sorted({*CLOSED, "grounding_dino", "mm_grounding_dino"} - {"rf_detr"})
)
def test_a_run_does_not_wait_for_the_device(tmp_path: Path, name: str) -> None:
    getattr(detectors, name)(tmp_path / "model")
    told: dict[str, Any]
    told = {"roadwork": ROADWORK} if name in CLOSED else {"prompts": ["traffic cone"]}
    engine = engine_of(tmp_path, size=(SIDE, SIDE), **told)
    engine.load()
    backbone = engine.model.backbone
    # Tensors without data: whatever wants to know a number of one on the host raises.
    pixels = torch.empty(2, 3, SIDE, SIDE, device="meta")
    module: Any = backbone.module.to("meta")

    with torch.inference_mode(), Constants() as constants:
        module(pixels)

    assert constants.made == []
