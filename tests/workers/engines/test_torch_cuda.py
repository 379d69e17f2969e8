"""The torch engine on a CUDA device: the ring, the streams, the graphs."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from roadstream.schemas.errors import DeviceMemoryError
from roadstream.workers.engines.torch.device_link import RING, CudaLink
from roadstream.workers.engines.torch.engine import TorchEngine
from tests.kits.checkpoints import backbones
from tests.kits.torch_kit import engine_of, pictures, raws

pytestmark = pytest.mark.gpu
DEVICE = "cuda:0"
HEAD = {"linear.weight": [1, 32], "linear.bias": [1]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    backbones.dinov3_vit(tmp_path / "model")
    backbones.dinov3_convnext(tmp_path / "convnext")
    backbones.head(tmp_path / "h.safetensors", HEAD)
    return tmp_path


def loaded(folder: Path, model: str = "model", **settings: Any) -> TorchEngine:
    given = {"device": DEVICE, "head": "h.safetensors", **settings}
    engine = engine_of(folder, model, **given)
    engine.load()
    engine.warm_up(8)
    return engine


def test_what_goes_up_through_the_ring_stays_apart() -> None:
    link = CudaLink(torch.device(DEVICE))
    shape = (4, 512, 512, 3)
    sent = [np.full(shape, level, np.uint8) for level in range(3 * RING)]

    with ThreadPoolExecutor(4) as threads:
        uploads = list(threads.map(link.upload, sent))

    for level, upload in enumerate(uploads):
        with link.turn(upload):
            found = link.download({"level": upload.images})["level"]
        assert (found == level).all()


@pytest.mark.parametrize(
    ("settings", "tolerance"),
    [
        ({}, 1e-3),
        ({"cuda_graphs": True}, 1e-3),
        ({"cuda_graphs": True, "compile": True}, 1e-3),
        ({"cuda_graphs": True, "precision": "bfloat16"}, 0.2),
        ({"precision": "float16", "channels_last": False}, 0.05),
    ],
)
@pytest.mark.parametrize("model", ["model", "convnext"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scores_are_those_of_the_cpu(
    folder: Path, model: str, settings: dict[str, Any], tolerance: float
) -> None:
    expected = raws(loaded(folder, model, device="cpu"), pictures(5))
    engine = loaded(folder, model, **settings)
    batch = pictures(5)
    engine.prepare(batch)

    assert raws(engine, batch) == pytest.approx(expected, abs=tolerance)
    assert raws(engine, pictures(5)[:2]) == pytest.approx(expected[:2], abs=tolerance)
    assert raws(engine, pictures(5)) == raws(engine, pictures(5))


@pytest.fixture
def no_waiting() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


def test_nothing_waits_for_the_device_but_the_results(folder: Path, no_waiting: None) -> None:
    torch.cuda.set_sync_debug_mode("default")
    engine = loaded(folder)
    torch.cuda.set_sync_debug_mode("error")

    # Waiting for an event, as the results do, is not what this mode forbids.
    assert len(raws(engine, pictures(4))) == 4


def test_a_batch_that_does_not_fit_is_told(folder: Path) -> None:
    engine = loaded(folder)
    torch.cuda.set_per_process_memory_fraction(0.001)
    try:
        with pytest.raises(DeviceMemoryError):
            engine.infer(pictures(8192))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert len(raws(engine, pictures(4))) == 4
