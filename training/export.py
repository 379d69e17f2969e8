"""From a trained net to an ONNX file with int8 weights and activations, checked against torch."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import onnxruntime
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import nn

from roadstream.stages.rules.cones import Pixels

OPSET = 18
OUTPUTS = ["logit", "boxes", "scores", "kinds"]
# These stay as they are: what comes after the last convolutions is cheap, and exact.
QUANTISED = ["Conv", "Clip", "Add"]


class Shown(CalibrationDataReader):
    """Shows pictures to the calibration, uint8 RGB [H, W, 3] each."""

    def __init__(self, pictures: Sequence[Pixels]) -> None:
        self._rest: Iterator[Pixels] = iter(pictures)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """Return the next picture as the model's input; None after the last."""
        picture = next(self._rest, None)
        return None if picture is None else {"images": np.ascontiguousarray(picture[None])}


def write_float(net: nn.Module, size: tuple[int, int], outputs: list[str], path: Path) -> None:
    """Write a net that takes uint8 [N, height, width, 3] as float32 ONNX; `size`: width, height."""
    width, height = size
    example = torch.zeros((1, height, width, 3), dtype=torch.uint8)
    torch.onnx.export(
        net.eval().to(memory_format=torch.contiguous_format),  # type: ignore[call-overload, unused-ignore]
        (example,),
        str(path),
        input_names=["images"],
        output_names=outputs,
        opset_version=OPSET,
        dynamic_axes={name: {0: "N"} for name in ("images", *outputs)},
        dynamo=False,
    )


def last_convolutions(model: onnx.ModelProto, names: Sequence[str]) -> list[str]:
    """Name the convolutions whose weights are called so: they say something, and stay float."""
    return [
        node.name
        for node in model.graph.node
        if node.op_type == "Conv" and any(f"{name}.weight" in node.input[1] for name in names)
    ]


def fold_pads(model: onnx.ModelProto) -> None:
    """Let convolutions pad by themselves: a node of its own could not run in int8."""
    known = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    pads = {node.output[0]: node for node in model.graph.node if node.op_type == "Pad"}
    for node in model.graph.node:
        if node.op_type != "Conv" or node.input[0] not in pads:
            continue
        pad = pads[node.input[0]]
        _, _, top, left, _, _, bottom, right = known[pad.input[1]].tolist()
        kept = [one for one in node.attribute if one.name not in ("pads", "auto_pad")]
        del node.attribute[:]
        sides = onnx.helper.make_attribute("pads", [top, left, bottom, right])
        node.attribute.extend([*kept, sides])
        node.input[0] = pad.input[0]
    rest = [node for node in model.graph.node if node.op_type != "Pad"]
    del model.graph.node[:]
    model.graph.node.extend(rest)


def quantise(source: Path, target: Path, shown: Sequence[Pixels], kept: Sequence[str]) -> None:
    """Quantise to uint8 activations and int8 weights, per channel, by the range of `shown`.

    Args:
        source: A float32 model.
        target: Where the int8 model goes.
        shown: Pictures of the model's size.
        kept: Names of weights whose convolutions stay float.
    """
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.onnx"
        quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)
        model = onnx.load(ready)
        fold_pads(model)
        for index, node in enumerate(model.graph.node):
            node.name = node.name or f"{node.op_type}_{index}"
        onnx.save(model, ready)
        quantize_static(
            str(ready),
            str(target),
            Shown(shown),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=QUANTISED,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=last_convolutions(model, kept),
            calibrate_method=CalibrationMethod.MinMax,
        )


def describe(path: Path, facts: dict[str, str]) -> None:
    """Write metadata into a model: kinds of its boxes, version, training data."""
    model = onnx.load(path)
    onnx.helper.set_model_props(model, facts)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def run(
    path: Path, pictures: Sequence[Pixels], spent: list[float] | None = None
) -> NDArray[np.float32]:
    """Run a model on pictures, one by one, on one thread: log-odds [N].

    Processor time of each run, in seconds, is added to `spent`.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    found = []
    for picture in pictures:
        begun = time.process_time()
        found.append(session.run(["logit"], {"images": picture[None]})[0][0])
        if spent is not None:
            spent.append(time.process_time() - begun)
    return np.array(found, np.float32)
