"""An ONNX model that knows evidence per place: bright pixels are roadwork."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = (8, 4)


def write_heat_model(path: Path) -> Path:
    """Write it: a pixel's evidence is (level − 128) / 4, the log-odds are the mean of all."""
    node, info, real = helper.make_node, helper.make_tensor_value_info, TensorProto.FLOAT
    width, height = SIZE
    middle, scale = np.array(128, np.float32), np.array(4, np.float32)
    nodes = [
        node("Cast", ["images"], ["floats"], to=real),
        node("ReduceMean", ["floats"], ["grey"], axes=[3], keepdims=0),
        node("Sub", ["grey", "middle"], ["above"]),
        node("Div", ["above", "scale"], ["heat"]),
        node("ReduceMean", ["heat"], ["logit"], axes=[1, 2], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "heat",
        [info("images", TensorProto.UINT8, ["n", height, width, 3])],
        [info("logit", real, ["n"]), info("heat", real, ["n", height, width])],
        [numpy_helper.from_array(middle, "middle"), numpy_helper.from_array(scale, "scale")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )
    return path
