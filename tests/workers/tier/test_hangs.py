"""Calls that never return end their process, which then finds out what they ran on."""

import json
import threading
from pathlib import Path

import anyio
import numpy as np
import onnx
from onnx import TensorProto, helper
from PIL import Image as Pillow

from roadstream.workers.tier.hangs import HUNG, Calls, watched
from tests.kits.command import roadstream

CASCADE = """name = "hangs"
[[tiers]]
name = "one"
max_batch = 4
[[tiers.members]]
name = "model"
engine = "onnx"
model = "hangs.onnx"
width = 16
height = 16
"""
BRIGHT = 240


def write_model(path: Path) -> None:
    """Write a model whose log-odds are the picture's mean − 100, and which loops on bright ones."""
    node, tensor, info = helper.make_node, helper.make_tensor, helper.make_tensor_value_info
    real, whole, truth = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
    body = helper.make_graph(
        [node("Identity", ["on"], ["on_"]), node("Identity", ["sum"], ["sum_"])],
        "body",
        [info("i", whole, []), info("on", truth, []), info("sum", real, [1])],
        [info("on_", truth, []), info("sum_", real, [1])],
    )
    graph = helper.make_graph(
        [
            node("Cast", ["images"], ["floats"], to=real),
            node("ReduceMean", ["floats"], ["means"], axes=[1, 2, 3], keepdims=0),
            node("ReduceMax", ["means"], ["brightest"], keepdims=0),
            node("Greater", ["brightest", "limit"], ["bright"]),
            node("Where", ["bright", "forever", "once"], ["trips"]),
            node("Loop", ["trips", "true", "offset"], ["looped"], body=body),
            node("Add", ["means", "looped"], ["logit"]),
        ],
        "hangs",
        [info("images", TensorProto.UINT8, ["n", 16, 16, 3])],
        [info("logit", real, ["n"])],
        [
            tensor("limit", real, [], [BRIGHT - 5.0]),
            tensor("forever", whole, [], [10**15]),
            tensor("once", whole, [], [1]),
            tensor("true", truth, [], [True]),
            tensor("offset", real, [1], [-100.0]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)


def test_a_picture_on_which_a_model_hangs_is_failed_and_its_neighbours_are_answered(
    tmp_path: Path,
) -> None:
    write_model(tmp_path / "hangs.onnx")
    (tmp_path / "hangs.toml").write_text(CASCADE)
    for i, level in enumerate([20, 60, BRIGHT, 120, 160, 200]):
        pixels = np.full((16, 16, 3), level, np.uint8)
        Pillow.fromarray(pixels).save(tmp_path / f"{i}.png")

    ended = roadstream(
        "score", "*.png", "--cascade", "hangs.toml", "--out", "out.jsonl", "--workers", "1",
        "--hang-timeout", "0.5", folder=tmp_path,
    )  # fmt: skip

    assert ended.returncode == 1, ended.stderr
    answers = {
        a["uri"]: a for a in map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    }
    assert [answers[f"{i}.png"]["status"] for i in range(6)] == (
        ["answered", "answered", "failed", "answered", "answered", "answered"]
    )
    assert answers["2.png"]["error"].startswith("process_killed: ")
    assert '"call": "member model, 1 pictures"' in ended.stderr
    assert "onnx.py" in ended.stderr


async def test_a_call_is_over_its_time_only_while_it_runs_and_each_anew() -> None:
    now, ended, over = [0.0], list[int](), anyio.Event()
    calls = Calls(lambda: now[0])

    def end(status: int) -> None:
        ended.append(status)
        over.set()

    with calls.running("first") as restarted:
        now[0] = 9.0
        restarted()
        now[0] = 12.0
        assert calls.over(5.0) is None
        now[0] = 15.0
        assert (call := calls.over(5.0)) is not None
        assert (call.what, call.thread) == ("first", threading.get_ident())
    assert calls.over(5.0) is None

    with calls.running("second"):
        now[0] = 30.0
        async with watched(calls, 0.004, end):
            with anyio.fail_after(10):
                await over.wait()
    assert ended == [HUNG]


async def test_without_a_timeout_a_call_may_take_for_ever() -> None:
    now, ended = [0.0], list[int]()
    calls = Calls(lambda: now[0])
    with calls.running("long"):
        now[0] = 1e6
        async with watched(calls, 0, ended.append):
            await anyio.sleep(0.01)
    assert not ended
