"""A detector of the usual nano size, with random weights: for its time, not for what it finds.

Convolutions with SiLU in cross-stage partial blocks, three strides, a feature pyramid up and down:
as the smallest YOLO of 2024 has them, without its attention. It counts its own weights and
multiply-adds.
"""

from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 640
KINDS = 80
# Bins of the distribution that each side of a box is read from.
BINS = 16
HEAD, KINDS_HEAD = 64, 80
OPSET = 17


class Features(NamedTuple):
    """A tensor float32 [N, channels, side, side] of the graph."""

    name: str
    channels: int
    side: int


class Detector:
    """Grows the ONNX graph.

    Attributes:
        weights: Number of its weights.
        multiply_adds: Multiply-adds of its convolutions, per picture.
    """

    def __init__(self) -> None:
        self._random = np.random.default_rng(0)
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self.weights = self.multiply_adds = 0

    def model(self) -> bytes:
        """Build it: ``images`` uint8 [1, 640, 640, 3] to ``found`` float32 [1, 144, 8400]."""
        levels = self._pyramid(self._backbone())
        rows = [self._reshaped(self._head(level)) for level in levels]
        self._add("Concat", *rows, output="found", axis=2)
        shape = [1, 4 * BINS + KINDS, sum(level.side**2 for level in levels)]
        graph = helper.make_graph(
            self._nodes,
            "nano",
            [helper.make_tensor_value_info("images", TensorProto.UINT8, [1, SIDE, SIDE, 3])],
            [helper.make_tensor_value_info("found", TensorProto.FLOAT, shape)],
            self._constants,
        )
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=8)
        encoded: bytes = model.SerializeToString()
        return encoded

    def _backbone(self) -> list[Features]:
        """Return the features of strides 8, 16 and 32."""
        pixels = self._add("Cast", "images", to=TensorProto.FLOAT)
        pixels = self._add("Transpose", pixels, perm=[0, 3, 1, 2])
        pixels = self._add("Div", pixels, self._constant(np.array(255, np.float32)))
        x = self._conv(Features(pixels, 3, SIDE), 16, kernel=3, stride=2)
        x = self._block(self._conv(x, 32, kernel=3, stride=2), 64, 16)
        third = x = self._block(self._conv(x, 64, kernel=3, stride=2), 128, 32)
        fourth = x = self._block(self._conv(x, 128, kernel=3, stride=2), 128, 64)
        x = self._block(self._conv(x, 256, kernel=3, stride=2), 256, 128)
        return [third, fourth, self._pooled(x)]

    def _pyramid(self, levels: list[Features]) -> list[Features]:
        """Hand features down to finer strides, and up again."""
        third, fourth, fifth = levels
        middle = self._block(self._joined(self._doubled(fifth), fourth), 128, 32)
        fine = self._block(self._joined(self._doubled(middle), third), 64, 16)
        smaller = self._conv(fine, 64, kernel=3, stride=2)
        middle = self._block(self._joined(smaller, middle), 128, 32)
        smaller = self._conv(middle, 128, kernel=3, stride=2)
        return [fine, middle, self._block(self._joined(smaller, fifth), 256, 128)]

    def _head(self, x: Features) -> Features:
        """Return distributions of a box's four sides, and log-odds per kind."""
        sides = self._conv(self._conv(x, HEAD, kernel=3), HEAD, kernel=3)
        kinds = self._separable(self._separable(x, KINDS_HEAD), KINDS_HEAD)
        return self._joined(
            self._conv(sides, 4 * BINS, active=False), self._conv(kinds, KINDS, active=False)
        )

    def _block(self, x: Features, channels: int, hidden: int) -> Features:
        """Cross-stage partial block: half of the channels go through a residual of two."""
        both = self._conv(x, 2 * hidden)
        names = [f"{both.name}a", f"{both.name}b"]
        self._nodes.append(helper.make_node("Split", [both.name], names, axis=1))
        kept, part = (Features(name, hidden, both.side) for name in names)
        through = self._conv(self._conv(part, hidden, kernel=3), hidden, kernel=3)
        summed = through._replace(name=self._add("Add", through.name, part.name))
        return self._conv(self._joined(kept, part, summed), channels)

    def _pooled(self, x: Features) -> Features:
        """Spatial pyramid pooling, the fast way: one maximum after the other."""
        pools = [self._conv(x, x.channels // 2)]
        for _ in range(3):
            name = self._add("MaxPool", pools[-1].name, kernel_shape=[5, 5], pads=[2] * 4)
            pools.append(pools[-1]._replace(name=name))
        return self._conv(self._joined(*pools), x.channels)

    def _separable(self, x: Features, channels: int) -> Features:
        return self._conv(self._conv(x, x.channels, kernel=3, groups=x.channels), channels)

    def _conv(
        self,
        x: Features,
        channels: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        active: bool = True,
    ) -> Features:
        shape = (channels, x.channels // groups, kernel, kernel)
        scale = (2 / np.prod(shape[1:])) ** 0.5
        side = x.side // stride
        self.weights += int(np.prod(shape)) + channels
        self.multiply_adds += int(np.prod(shape)) * side * side
        weights = self._random.normal(0, scale, shape).astype(np.float32)
        name = self._add(
            "Conv",
            x.name,
            self._constant(weights),
            self._constant(np.zeros(channels, np.float32)),
            pads=[kernel // 2] * 4,
            strides=[stride, stride],
            group=groups,
        )
        if active:
            name = self._add("Mul", name, self._add("Sigmoid", name))
        return Features(name, channels, side)

    def _doubled(self, x: Features) -> Features:
        scales = self._constant(np.array([1, 1, 2, 2], np.float32))
        return Features(self._add("Resize", x.name, "", scales), x.channels, 2 * x.side)

    def _joined(self, *parts: Features) -> Features:
        name = self._add("Concat", *[part.name for part in parts], axis=1)
        return Features(name, sum(part.channels for part in parts), parts[0].side)

    def _reshaped(self, x: Features) -> str:
        shape = self._constant(np.array([1, x.channels, -1], np.int64))
        return self._add("Reshape", x.name, shape)

    def _add(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        name = output or f"n{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def _constant(self, values: np.ndarray[Any, Any]) -> str:
        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(values, name))
        return name
