"""The ONNX engine on detectors: which boxes it returns, and which models it refuses."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from msgspec.structs import replace
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from roadstream.schemas.cascade.model import Member
from roadstream.schemas.errors import ConfigError, ImageError
from roadstream.schemas.records.votes import Box
from roadstream.schemas.settings.local import OnnxSettings
from roadstream.stages.inference import Picture, Pictures, infer_isolated
from roadstream.workers.engines.onnx import OnnxEngine
from roadstream.workers.engines.options import EngineOptions
from tests.kits.builders import cascade, tier
from tests.kits.heat_model import SIZE, write_heat_model

MEMBER = Member(name="finder", engine="onnx", width=8, height=4, settings=OnnxSettings())
# x1, y1, x2, y2, score on a white picture, kind.
PLACES = (
    (0.1, 0.1, 0.3, 0.3, 0.5, 0),
    (0.1, 0.1, 0.3, 0.32, 0.75, 0),  # the same cone
    (0.1, 0.1, 0.3, 0.3, 0.625, 1),  # a worker at the same place
    (-0.5, 0.5, 0.25, 1.5, 0.875, 1),
    (0.6, 0.6, 0.7, 0.7, 0.25, 0),
    (1.5, 0.5, 1.75, 0.75, 0.9, 0),  # outside
    (0.0, 0.0, 0.0, 0.0, 0.0, -1),  # nothing
)


class Detector(msgspec.Struct, frozen=True):
    """A model that finds the same in every picture, with scores as high as that is bright."""

    places: Sequence[tuple[float, ...]] = PLACES
    kinds: str | None = "cone, worker"
    leave_out: str = ""
    kind_type: int = TensorProto.INT64

    def write(self, path: Path) -> Path:
        node, info = helper.make_node, helper.make_tensor_value_info
        real = TensorProto.FLOAT
        rows = np.array(self.places, np.float32)
        constants: dict[str, NDArray[Any]] = {
            "corners": rows[None, :, :-2],
            "strengths": rows[None, :, -2],
            "numbers": rows[None, :, -1].astype(np.int64),
            "white": np.array(255, np.float32),
            "one": np.array([1], np.int64),
            "two": np.array([1, 2], np.int64),
        }
        nodes = [
            node("Cast", ["images"], ["floats"], to=real),
            node("ReduceMean", ["floats"], ["means"], axes=[1, 2, 3], keepdims=0),
            node("Div", ["means", "white"], ["logit"]),
            node("Unsqueeze", ["logit", "one"], ["column"]),
            node("Sub", ["column", "column"], ["zero"]),
            node("Unsqueeze", ["zero", "one"], ["zeros"]),
            node("Add", ["corners", "zeros"], ["boxes"]),
            node("Mul", ["strengths", "column"], ["scores"]),
            node("Cast", ["zero"], ["whole"], to=TensorProto.INT64),
            node("Add", ["numbers", "whole"], ["found"]),
            node("Cast", ["found"], ["kinds"], to=self.kind_type),
        ]
        outputs = [
            info("logit", real, ["n"]),
            info("boxes", real, ["n", *constants["corners"].shape[1:]]),
            info("scores", real, ["n", len(rows)]),
            info("kinds", self.kind_type, ["n", len(rows)]),
        ]
        graph = helper.make_graph(
            nodes,
            "detector",
            [info("images", TensorProto.UINT8, ["n", MEMBER.height, MEMBER.width, 3])],
            [output for output in outputs if output.name != self.leave_out],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        if self.kinds is not None:
            helper.set_model_props(model, {"kinds": self.kinds})
        onnx.save(model, path)
        return path


def opened(path: Path, **settings: Any) -> OnnxEngine:
    return loaded(replace(MEMBER, settings=OnnxSettings(**settings)), path)


def loaded(member: Member, path: Path) -> OnnxEngine:
    member = replace(member, model=str(path))
    engine = OnnxEngine(cascade(tier("one", member)), member, EngineOptions())
    engine.load()
    return engine


def grey(level: int = 255) -> Picture:
    return Picture(np.full((4, 8, 3), level, np.uint8))


def found(engine: OnnxEngine, *pictures: Picture) -> list[list[Box]]:
    return [score.boxes for score in engine.infer(Pictures(pictures))]


def test_boxes_come_strongest_first_inside_the_picture_and_each_thing_once(tmp_path: Path) -> None:
    engine = opened(Detector().write(tmp_path / "finder.onnx"))
    (boxes,) = found(engine, grey())
    assert [(box.label, box.confidence) for box in boxes] == [
        ("worker", 0.875),
        ("cone", 0.75),
        ("worker", 0.625),
    ]
    assert boxes[0] == Box(0.0, 0.5, 0.25, 1.0, 0.875, "worker")

    crowd = [(i / 20, 0.5, i / 20 + 0.04, 0.6, 0.5 + i / 50, 0) for i in range(12)]
    engine = opened(Detector(crowd).write(tmp_path / "crowd.onnx"))
    (boxes,) = found(engine, grey())
    assert [round(box.x1 * 20) for box in boxes] == [11, 10, 9, 8, 7, 6, 5, 4]


def test_the_threshold_is_the_members_and_boxes_can_be_left_out(tmp_path: Path) -> None:
    path = Detector().write(tmp_path / "finder.onnx")
    assert [b.confidence for b in found(opened(path, box_threshold=0.75), grey())[0]] == [
        0.875,
        0.75,
    ]
    assert len(found(opened(path, box_threshold=0.1), grey())[0]) == 4
    assert found(opened(path, boxes=False), grey()) == [[]]


def test_evidence_becomes_boxes_of_the_places_that_have_most_of_it(tmp_path: Path) -> None:
    member = replace(MEMBER, width=SIZE[0], height=SIZE[1])
    engine = loaded(member, write_heat_model(tmp_path / "heat.onnx"))
    pixels = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    pixels[:, 1:3], pixels[:2, 6:8], pixels[0, 4] = 255, 255, 180  # 13 is less than half of 32

    (score,) = engine.infer(Pictures([Picture(pixels)]))

    assert [box[:4] for box in map(msgspec.structs.astuple, score.boxes)] == [
        (0.125, 0.0, 0.375, 1.0),
        (0.75, 0.0, 1.0, 0.5),
    ]
    assert score.boxes[0].confidence > score.boxes[1].confidence > 0.5
    assert {box.label for box in score.boxes} == {"evidence"}
    assert found(engine, Picture(np.zeros_like(pixels))) == [[]]


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (Detector(leave_out="scores"), r"expected outputs boxes float32 \[N, K, 4\], .* got boxes"),
        (Detector(kind_type=TensorProto.FLOAT), r"kinds int64 .*kinds tensor\(float\)"),
        (Detector([(0.1, 0.1, 0.1, 0.3, 0.3, 0.5, 0.0)]), r"got boxes .*'n', 1, 5\]"),
        (Detector(kinds=None), "expected a metadata property kinds with a name for each kind.*got"),
        (Detector(kinds="cone,,worker"), "a name for each kind.*got 'cone,,worker'"),
    ],
)  # fmt: skip
def test_a_detector_with_other_outputs_is_refused(
    tmp_path: Path, model: Detector, told: str
) -> None:
    path = model.write(tmp_path / "finder.onnx")
    with pytest.raises(ConfigError, match=told):
        opened(path)
    assert found(opened(path, boxes=False), grey()) == [[]]


def test_a_kind_without_a_name_fails_its_picture_and_no_neighbour(tmp_path: Path) -> None:
    places = [(0.1, 0.1, 0.3, 0.3, 1.0, 0), (0.5, 0.5, 0.7, 0.7, 0.5, 7)]
    engine = opened(Detector(places).write(tmp_path / "finder.onnx"))
    pictures = [grey(level) for level in (100, 150, 255, 120)]

    findings = infer_isolated(engine, Pictures(pictures)).found

    bad = findings.pop(2)
    assert isinstance(bad, ImageError)
    assert "expected kinds from 0 to 1, got [0 7]" in str(bad)
    alone = [engine.infer(Pictures([pictures[i]]))[0] for i in (0, 1, 3)]
    assert findings == alone
    assert [len(score.boxes) for score in alone] == [1, 1, 1]
