"""Tags that the ONNX engine makes of a model's heads, and the heads that it refuses."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from roadstream.schemas.cascade.loading import load_cascade
from roadstream.schemas.cascade.model import Member
from roadstream.schemas.errors import ConfigError, ImageError
from roadstream.schemas.settings.local import OnnxSettings
from roadstream.stages.inference import Picture, Pictures, Score, infer_isolated
from roadstream.workers.demo.render import render_drive
from roadstream.workers.engines.onnx import OnnxEngine
from roadstream.workers.engines.options import EngineOptions
from tests.kits.builders import cascade, tier
from tests.kits.heat_model import SIZE, write_heat_model

LIGHT = {"tag_light": "day, night"}


class Heads(msgspec.Struct, frozen=True):
    """The model of ``write_heat_model`` with heads: a value's log-odds are its factor · logit.

    The logit is 31.75 for a white picture, 0 for a grey one and −32 for a black one.
    """

    factors: Mapping[str, Sequence[float]]
    properties: Mapping[str, str]
    type: int = TensorProto.FLOAT

    def write(self, path: Path) -> Path:
        model = onnx.load(write_heat_model(path))
        graph = model.graph
        graph.initializer.append(numpy_helper.from_array(np.array([1]), "one"))
        graph.node.append(helper.make_node("Unsqueeze", ["logit", "one"], ["column"]))
        for name, factors in self.factors.items():
            graph.initializer.append(
                numpy_helper.from_array(np.array([factors], np.float32), f"{name} factors")
            )
            graph.node.append(helper.make_node("Mul", ["column", f"{name} factors"], [f"{name} r"]))
            graph.node.append(helper.make_node("Cast", [f"{name} r"], [name], to=self.type))
            told = helper.make_tensor_value_info(name, self.type, ["n", len(factors)])
            graph.output.append(told)
        helper.set_model_props(model, dict(self.properties))
        onnx.save(model, path)
        return path


def opened(path: Path, **settings: Any) -> OnnxEngine:
    width, height = SIZE
    given = OnnxSettings(**settings)
    member = Member(
        name="m", engine="onnx", model=str(path), width=width, height=height, settings=given
    )
    engine = OnnxEngine(cascade(tier("one", member)), member, EngineOptions())
    engine.load()
    return engine


def pictures(*levels: int) -> Pictures:
    return Pictures([Picture(np.full((SIZE[1], SIZE[0], 3), level, np.uint8)) for level in levels])


def tags(engine: OnnxEngine, *levels: int) -> list[dict[str, str]]:
    return [dict(score.tags) for score in engine.infer(pictures(*levels))]


def test_the_likeliest_value_of_each_head_is_a_tag(tmp_path: Path) -> None:
    factors = {"tag_light": (1.0, -1.0), "tag_weather": (0.0, -0.5, -1.0)}
    names = LIGHT | {"tag_weather": "dry,rain,very heavy snow"}
    engine = opened(Heads(factors, names).write(tmp_path / "heads.onnx"))

    assert tags(engine, 255, 0) == [
        {"light": "day", "weather": "dry"},
        {"light": "night", "weather": "very heavy snow"},
    ]


def test_votes_and_boxes_are_the_same_with_tags_and_without(tmp_path: Path) -> None:
    path = Heads({"tag_light": (1.0, -1.0)}, LIGHT).write(tmp_path / "heads.onnx")
    with_tags, without = (opened(path, tags=on).infer(pictures(255, 60)) for on in (True, False))

    assert [score.tags for score in without] == [{}, {}]
    assert [Score(raw, boxes) for raw, boxes, *_ in with_tags] == without
    assert without[0].boxes
    boxless = opened(path, boxes=False).infer(pictures(255))
    assert [(score.boxes, score.tags) for score in boxless] == [([], {"light": "day"})]


def test_only_the_tags_that_the_settings_name_are_given(tmp_path: Path) -> None:
    factors = {"tag_light": (1.0, -1.0), "tag_weather": (1.0, -1.0)}
    path = Heads(factors, LIGHT | {"tag_weather": "dry,rain"}).write(tmp_path / "heads.onnx")

    assert tags(opened(path, tags=["weather"]), 255) == [{"weather": "dry"}]
    with pytest.raises(ConfigError, match=r"member m: expected settings\.tags among light, w"):
        opened(path, tags=["light", "mood"])


@pytest.mark.parametrize("place", [0, 4, 8])
def test_lite_says_day_by_day_and_night_by_night(place: int) -> None:
    lite = load_cascade("lite")
    engine = OnnxEngine(lite, lite.tiers[0].members[0], EngineOptions())
    engine.load()
    day = list(render_drive(9, 480, 270, seed=3))[place].image  # so short, by sun alone
    night = (day.astype(float) ** 1.5 / 160).astype(np.uint8)
    night[:130] //= 8

    said = engine.infer(Pictures([Picture(day), Picture(night)]))

    assert [dict(score.tags) for score in said] == [{"light": "day"}, {"light": "night"}]


def test_below_the_confidence_there_is_no_tag(tmp_path: Path) -> None:
    path = Heads({"tag_light": (0.5, -0.5)}, LIGHT).write(tmp_path / "heads.onnx")
    # A level of 132 is a logit of 1: σ(1) = 0.731.
    assert tags(opened(path, tag_confidence=0.73), 132, 128) == [{"light": "day"}, {}]
    assert tags(opened(path, tag_confidence=0.74), 132, 0) == [{}, {"light": "night"}]


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (Heads({"tag_": (1, 2)}, {"tag_": "a,b"}), r"output tag_: expected a tag's name.*got ''"),
        (Heads({"tag_a b": (1, 2)}, {"tag_a b": "a,b"}), "a tag's name .*got 'a b'"),
        (Heads({"tag_light": (1, 2)}, {}), "output tag_light: .*a metadata property.*got None"),
        (Heads({"tag_light": (1, 2)}, {"tag_light": ""}), "a metadata property.*got ''"),
        (Heads({"tag_light": (1, 2)}, {"tag_light": "day,"}), "two or more .*got 'day,'"),
        (Heads({"tag_light": (1, 2)}, {"tag_light": "day,day"}), "different.*got 'day,day'"),
        (Heads({"tag_light": (1,)}, {"tag_light": "day"}), "two or more.*got 'day'"),
        (Heads({"tag_light": (1, 2)}, {"tag_light": "a," + 257 * "b"}), "of 1 to 256 characters"),
        (Heads({"tag_light": (1, 2, 3)}, LIGHT), r"\[N, 2\], .*day, night, got .*\['n', 3\]"),
        (Heads({"tag_light": (1,)}, LIGHT), r"\[N, 2\], .*got tensor\(float\) \['n', 1\]"),
        (Heads({"tag_light": (1, 2)}, LIGHT, TensorProto.DOUBLE), r"got tensor\(double\)"),
        (Heads({f"tag_{i}": (1, 2) for i in range(33)}, {}), "at most 32 outputs tag_NAME, got 33"),
    ],
)
def test_heads_that_name_no_tags_are_refused_unless_tags_are_off(
    tmp_path: Path, model: Heads, told: str
) -> None:
    path = model.write(tmp_path / "heads.onnx")
    with pytest.raises(ConfigError, match=told):
        opened(path)
    assert tags(opened(path, tags=False), 255) == [{}]


def test_a_number_that_is_none_fails_its_picture_and_no_neighbour(tmp_path: Path) -> None:
    path = Heads({"tag_light": (3e38, -1.0)}, LIGHT).write(tmp_path / "heads.onnx")

    white, grey = infer_isolated(opened(path), pictures(255, 128)).found

    assert isinstance(white, ImageError)
    assert "expected 2 finite numbers in tag_light, got [inf, -31.75]" in str(white)
    assert isinstance(grey, Score)
    assert grey.tags == {"light": "day"}  # 0 and 0: a half each
