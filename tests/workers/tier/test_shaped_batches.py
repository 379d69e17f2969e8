"""A tier whose member takes several sizes: each batch holds pictures of one shape."""

import io
from pathlib import Path

import pytest
from msgspec.structs import replace
from PIL import Image as Pillow

from roadstream.schemas.cascade.model import Member
from roadstream.schemas.errors import ConfigError
from roadstream.schemas.records.image import Inline
from roadstream.schemas.settings.local import OnnxSettings
from roadstream.stages.inference import Pictures, Score
from roadstream.workers.engines.onnx import OnnxEngine
from roadstream.workers.engines.options import EngineOptions
from tests.kits.builders import cascade, tier
from tests.kits.fake_engine import GreyEngine
from tests.kits.tier_bench import Bench, image, running

SHAPED = Member(name="a", engine="noop", width=16, height=8, sizes=[(8, 16)])
SHAPES = cascade(tier("one", SHAPED, max_batch=4))


class ShapedEngine(GreyEngine):
    """Scores 1 for a picture as wide as it is told to be, and notes its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.stacks: list[tuple[int, ...]] = []

    def infer(self, batch: Pictures) -> list[Score]:
        stack = batch.stack(*batch.size_for(SHAPED))
        self.stacks.append(stack.shape)
        upright = stack.shape[1] > stack.shape[2]
        lie = [(one.pixels.shape[0] > one.pixels.shape[1]) != upright for one in batch]
        return [Score(-1.0 if wrong else 1.0, []) for wrong in lie]


def picture(width: int, height: int) -> Inline:
    target = io.BytesIO()
    Pillow.new("RGB", (width, height)).save(target, "JPEG")
    return Inline(target.getvalue())


async def test_pictures_wait_for_a_batch_of_their_shape() -> None:
    bench, engine = Bench(SHAPES), ShapedEngine()
    bench.engines["a"] = engine
    await bench.create_topics()
    sides = [(160, 90), (90, 160)] * 5
    images = [image(f"{i}", payload=picture(*side)) for i, side in enumerate(sides)]
    await bench.send("images.archive", *images)
    worker = bench.worker()
    async with running(worker):
        said = await bench.said(10)

    assert {one.raw[0] for one in said.values()} == {1.0}
    assert {shape[1:] for shape in engine.stacks} == {(8, 16, 3), (16, 8, 3)}
    assert sum(shape[0] for shape in engine.stacks) == 10
    assert await bench.lag() == 0
    assert set(worker.judge.latencies) == {((16, 8),), ((8, 16),)}


@pytest.mark.parametrize(
    "shape", [["N", 8, 16, 3], [4, "H", "W", 3], ["N", 3, "H", "W"], ["N", "H", "W"]]
)
def test_a_model_is_given_what_its_input_takes_or_refused(
    shape: list[int | str | None], tmp_path: Path
) -> None:
    (tmp_path / "one.onnx").touch()
    member = replace(SHAPED, model=str(tmp_path / "one.onnx"), settings=OnnxSettings())
    onnx = OnnxEngine(cascade(tier("one", member)), member, EngineOptions())
    onnx._check_shape(["N", "H", "W", 3])
    onnx._check_shape([None, None, None, None])
    onnx._check_shape([1, "H", "W", 3])
    with pytest.raises(ConfigError, match=r"takes \[N, \d+, \d+, 3\] with N = 1, got "):
        onnx._check_shape(shape)
