"""Write trained weights as ONNX files that take uint8 pictures and store float16 weights.

Contract of every file: input `images` uint8 [N, H, W, 3] RGB; outputs `logit` float32 [N], the
uncalibrated log-odds of roadwork, and `heat` float32 [N, h, w], the local log-odds whose mean is
the logit (for `tiles`: of each tile). Batch statistics are folded into the convolutions.
"""

import argparse
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime
import torch
from corpus import CACHE_SIZE, HERE, INPUT_SIZES, add_folder_options, load_cache
from network import Block, Lite0
from onnx import TensorProto, helper, numpy_helper
from tiling import CORNERS, TILE_HEIGHT, TILE_WIDTH, tiles_logits
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

OPSET = 17
STRIDE = 32  # pixels per cell of `heat`
LARGEST_DIFFERENCE = 0.05  # allowed between torch and ONNX Runtime, in log-odds
DATA_NOTE = (
    "Trained on pictures from ROADWork (ODC-By 1.0), CC BY 4.0 Roboflow Universe sets and other "
    "openly licensed sources; ImageNet start: EfficientNet-Lite0 (Apache-2.0). See MODEL_CARD.md."
)


class Graph:
    """Collects nodes and weights of one ONNX graph; methods return the name of what they add."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def constant(self, values: np.ndarray) -> str:
        """Store an array as it is."""
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def half(self, values: np.ndarray) -> str:
        """Store an array as float16 and cast it to float32, which runtimes fold when loading."""
        return self.add("Cast", self.constant(values.astype(np.float16)), to=TensorProto.FLOAT)

    def ints(self, *values: int) -> str:
        """Store int64 values, as axes, shapes and slice bounds need."""
        return self.constant(np.array(values, np.int64))

    def add(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add one node with one output."""
        name = output or f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def slice(self, data: str, axis: int, start: int, stop: int) -> str:
        """Cut `start`..`stop` out of one axis."""
        return self.add("Slice", data, *(self.ints(v) for v in (start, stop, axis)))


def add_conv(graph: Graph, data: str, conv: nn.Conv2d, bn: nn.BatchNorm2d, clip: bool) -> str:
    """Add a convolution with its batch normalisation folded in, and ReLU6 if `clip`."""
    fused = fuse_conv_bn_eval(conv, bn)
    total = conv.kernel_size[0] - conv.stride[0] if conv.stride[0] > 1 else conv.kernel_size[0] - 1
    before, after = total // 2, total - total // 2
    result = graph.add(
        "Conv",
        data,
        graph.half(fused.weight.detach().numpy()),
        graph.constant(cast(Tensor, fused.bias).detach().numpy()),
        kernel_shape=list(conv.kernel_size),
        strides=list(conv.stride),
        pads=[before, before, after, after],
        group=conv.groups,
    )
    if not clip:
        return result
    bounds = (graph.constant(np.array(0, np.float32)), graph.constant(np.array(6, np.float32)))
    return graph.add("Clip", result, *bounds)


def add_block(graph: Graph, data: str, block: Block) -> str:
    """Add one inverted residual block."""
    result = data
    if block.expands:
        result = add_conv(graph, result, block._expand_conv, block._bn0, clip=True)
    result = add_conv(graph, result, block._depthwise_conv, block._bn1, clip=True)
    result = add_conv(graph, result, block._project_conv, block._bn2, clip=False)
    return graph.add("Add", result, data) if block.skips else result


def add_heat(graph: Graph, pictures: str, net: Lite0, output: str | None = None) -> str:
    """Add the whole net: uint8 [N, H, W, 3] to local log-odds [N, H/32, W/32]."""
    data = graph.add("Cast", pictures, to=TensorProto.FLOAT)
    data = graph.add("Transpose", data, perm=[0, 3, 1, 2])
    data = graph.add("Sub", data, graph.constant(np.array(127, np.float32)))
    data = graph.add("Mul", data, graph.constant(np.array(1 / 128, np.float32)))
    data = add_conv(graph, data, net._conv_stem, net._bn0, clip=True)
    for block in net._blocks:
        data = add_block(graph, data, cast(Block, block))
    data = add_conv(graph, data, net._conv_head, net._bn1, clip=True)
    weight = graph.constant(net.classifier.weight.detach().numpy()[:, :, None, None])
    bias = graph.constant(net.classifier.bias.detach().numpy())
    data = graph.add("Conv", data, weight, bias, kernel_shape=[1, 1])
    return graph.add("Squeeze", data, graph.ints(1), output=output)


def add_tiles(graph: Graph, net: Lite0) -> None:
    """Cut `images` in four tiles, score them as one batch, pool the logits and stitch the heat."""
    cut = []
    for x, y in CORNERS:
        rows = graph.slice("images", 1, y, y + TILE_HEIGHT)
        cut.append(graph.slice(rows, 2, x, x + TILE_WIDTH))
    heat = add_heat(graph, graph.add("Concat", *cut, axis=0), net)
    high, wide = TILE_HEIGHT // STRIDE, TILE_WIDTH // STRIDE
    heat = graph.add("Reshape", heat, graph.ints(len(CORNERS), -1, high, wide))
    logits = graph.add("ReduceMean", heat, axes=[2, 3], keepdims=0)
    joined = graph.add("ReduceLogSumExp", logits, axes=[0], keepdims=0)
    share = graph.constant(np.array(np.log(len(CORNERS)), np.float32))
    graph.add("Sub", joined, share, output="logit")
    halves = []
    for row in (0, 1):  # neighbours overlap by two cells: each gives up its outer one
        left, right = (graph.slice(heat, 0, 2 * row + side, 2 * row + side + 1) for side in (0, 1))
        left, right = graph.slice(left, 3, 0, wide - 1), graph.slice(right, 3, 1, wide)
        whole = graph.add("Concat", left, right, axis=3)
        halves.append(graph.slice(whole, 2, row, high - 1 + row))
    stitched = graph.add("Concat", *halves, axis=2)
    graph.add("Squeeze", stitched, graph.ints(0), output="heat")


def make_model(name: str, net: Lite0, version: str) -> onnx.ModelProto:
    """Build the ONNX model of one net and check it against the standard."""
    graph = Graph()
    width, height = INPUT_SIZES[name]
    if name == "tiles":
        add_tiles(graph, net)
    else:
        add_heat(graph, "images", net, output="heat")
        graph.add("ReduceMean", "heat", output="logit", axes=[1, 2], keepdims=0)
    cells = [height // STRIDE, width // STRIDE]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            name,
            [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", height, width, 3])],
            [
                helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["N"]),
                helper.make_tensor_value_info("heat", TensorProto.FLOAT, ["N", *cells]),
            ],
            graph.weights,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=8,
        producer_name="roadstream",
    )
    facts = {"name": name, "version": version, "input_width": str(width)}
    facts |= {"input_height": str(height), "training_data": DATA_NOTE}
    helper.set_model_props(model, facts)
    onnx.checker.check_model(model, full_check=True)
    return model


def largest_difference(path: Path, name: str, net: Lite0, pictures: np.ndarray) -> float:
    """Compare logits of ONNX Runtime and torch on pictures uint8 [N, H, W, 3]."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found, heat = session.run(["logit", "heat"], {"images": pictures})
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        wanted = tiles_logits(net, images) if name == "tiles" else net(images)
    if name != "tiles":
        np.testing.assert_allclose(heat.mean((1, 2)), found, atol=1e-3)
    return float(np.abs(found - wanted.numpy()).max())


def main() -> None:
    """Export the chosen nets and check each against torch on real pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_folder_options(parser)
    parser.add_argument("--nets", nargs="+", choices=sorted(INPUT_SIZES), default=list(INPUT_SIZES))
    parser.add_argument("--weights", type=Path, help="weights file instead of CACHE/runs/NET.pt")
    parser.add_argument("--out", type=Path, default=HERE.parent / "cascades" / "lite")
    parser.add_argument("--version", default="1", help="version written into the files")
    options = parser.parse_args()
    for name in options.nets:
        net = Lite0()
        path = options.weights or options.cache / "runs" / f"{name}.pt"
        net.load_state_dict(torch.load(path, weights_only=True))
        net.eval()
        target = options.out / f"{name}.onnx"
        onnx.save(make_model(name, net, options.version), target)
        size = INPUT_SIZES[name]
        pictures = np.array(load_cache(options.cache, size)[:: 221 if size == CACHE_SIZE else 73])
        difference = largest_difference(target, name, net, pictures)
        print(f"{target.name}: {target.stat().st_size / 1e6:.2f} MB, differs by {difference:.4f}")
        if difference > LARGEST_DIFFERENCE:
            raise SystemExit(f"{target.name}: expected at most {LARGEST_DIFFERENCE} log-odds")


if __name__ == "__main__":
    main()
