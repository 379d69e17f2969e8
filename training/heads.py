"""Heads on a net of ours, as ONNX: outputs ``tag_NAME``, see `workers/engines/onnx`.

The net is not changed: a head takes how strongly the channels of a few early blocks answer in five
bands of the picture, from top to bottom. Late blocks know what stands in a picture, and hardly in
what light: of changed pictures its last features tell light to 62 %, these to 97 %.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import nn
from torch.nn import functional

from roadstream.stages.rules.cones import Pixels
from training.weather import LIGHT, WEATHER

Reals = NDArray[np.float32]
Ints = NDArray[np.int64]
TAGS: Mapping[str, tuple[str, ...]] = {"light": LIGHT, "weather": WEATHER}
PREFIX = "tag_"
FEATURES = f"{PREFIX}features"
# After ReLU6: how strongly a channel answers, which a mean over signed numbers would hide.
TAPS = ("Clip_output_0", "_blocks.1/Clip_1_output_0", "_blocks.3/Clip_1_output_0",
        "_blocks.5/Clip_1_output_0")  # fmt: skip
BANDS = 5  # every level's height divides by it
HIDDEN, DROPOUT, DECAY = 24, 0.2, 0.02
RATE, STEPS, BATCH = 0.003, 240, 512


class Told(NamedTuple):
    """Pictures by what the net makes of them.

    Attributes:
        features: float32 [N, F].
        labels: By tag: positions among its values, -1 where nobody can say, int64 [N].
        folds: Position of the fold that each is judged in, int64 [N].
    """

    features: Reals
    labels: dict[str, Ints]
    folds: Ints

    def take(self, rows: NDArray[np.bool_]) -> "Told":
        """Return some of them."""
        labels = {tag: found[rows] for tag, found in self.labels.items()}
        return Told(self.features[rows], labels, self.folds[rows])


def without_heads(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a model without what `with_features` and `with_heads` added."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    for part in (bare.graph.node, bare.graph.output, bare.graph.initializer):
        kept = [one for one in part if not one.name.startswith(PREFIX)]
        del part[:]
        part.extend(kept)
    facts = [one for one in bare.metadata_props if not one.key.startswith(PREFIX)]
    del bare.metadata_props[:]
    bare.metadata_props.extend(facts)
    return bare


def with_features(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a bare model that also computes `FEATURES`: float32 [N, F]."""
    grown = onnx.shape_inference.infer_shapes(without_heads(model))
    shapes = {
        info.name: [side.dim_value for side in info.type.tensor_type.shape.dim]
        for info in grown.graph.value_info
    }
    model = without_heads(model)
    ends = [
        next(name for name in shapes if name.endswith(f"/{tap}_DequantizeLinear_Output"))
        for tap in TAPS
    ]
    flat = []
    for place, end in enumerate(ends):
        height, width = shapes[end][2:]
        flat.append(f"{PREFIX}flat_{place}")
        pooled, sides = f"{PREFIX}pooled_{place}", [height // BANDS, width]
        _add(model, "AveragePool", [end], pooled, kernel_shape=sides, strides=sides)
        _add(model, "Flatten", [pooled], flat[-1])
    _add(model, "Concat", flat, FEATURES, axis=1)
    return model


def _add(
    model: onnx.ModelProto, operation: str, inputs: Sequence[str], output: str, **told: object
) -> None:
    model.graph.node.append(helper.make_node(operation, inputs, [output], name=output, **told))


def features(model: onnx.ModelProto, images: Iterator[Pixels]) -> Reals:
    """Return what the net makes of pictures of its size: float32 [N, F]."""
    telling = with_features(model)
    telling.graph.output.append(
        helper.make_tensor_value_info(FEATURES, onnx.TensorProto.FLOAT, ["N", None])
    )
    session = opened(telling)
    return np.concatenate([session.run([FEATURES], {"images": one[None]})[0] for one in images])


def opened(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Open a model on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


class Head(nn.Module):
    """One hidden layer on standardised features: log-odds of the values of a tag."""

    def __init__(self, told: Reals, count: int) -> None:
        super().__init__()
        self.mean = torch.from_numpy(told.mean(0))
        self.scale = torch.from_numpy(1 / (told.std(0) + 0.02))
        self.hidden, self.last = nn.Linear(told.shape[1], HIDDEN), nn.Linear(HIDDEN, count)
        self.temperature = 1.0

    def forward(self, told: torch.Tensor, dropout: float = 0.0) -> torch.Tensor:
        """Map features float32 [N, F] to log-odds [N, K]."""
        x = functional.dropout((told - self.mean) * self.scale, dropout)
        logits: torch.Tensor = self.last(functional.relu(self.hidden(x)))
        return logits / self.temperature

    def folded(self) -> list[Reals]:
        """Return weights and biases of two plain layers that say the same."""
        weight = self.hidden.weight * self.scale
        bias = self.hidden.bias - weight @ self.mean
        last = (self.last.weight / self.temperature, self.last.bias / self.temperature)
        return [part.detach().numpy() for part in (weight, bias, *last)]


def fit_head(told: Told, tag: str, seed: int) -> Head:
    """Fit the head of a tag, every value weighing the same."""
    torch.manual_seed(seed)
    values = len(TAGS[tag])
    head = Head(told.features, values)
    x, y = torch.from_numpy(told.features), torch.from_numpy(told.labels[tag])
    weights = len(y) / (values * torch.bincount(y, minlength=values).clamp(min=1)).float()
    optimiser = torch.optim.AdamW(head.parameters(), RATE, weight_decay=DECAY)
    for _ in range(STEPS):
        rows = torch.randint(len(y), (BATCH,))
        optimiser.zero_grad()
        loss = functional.cross_entropy(head(x[rows], DROPOUT), y[rows], weights)
        loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
        optimiser.step()
    return head


def shares(head: Head, told: Told) -> Reals:
    """Return the share of each value, float32 [N, K]."""
    with torch.inference_mode():
        return np.asarray(torch.softmax(head(torch.from_numpy(told.features)), 1).numpy())


def with_heads(model: onnx.ModelProto, heads: Mapping[str, Head]) -> onnx.ModelProto:
    """Return a copy of a model that also has an output `tag_NAME` for each head."""
    model = with_features(model)
    for tag, head in heads.items():
        name, values = PREFIX + tag, TAGS[tag]
        parts = [f"{name}_{part}" for part in ("weight", "bias", "last_weight", "last_bias")]
        for part, numbers in zip(parts, head.folded(), strict=True):
            model.graph.initializer.append(numpy_helper.from_array(numbers, part))
        _add(model, "Gemm", [FEATURES, *parts[:2]], f"{name}_sum", transB=1)
        _add(model, "Relu", [f"{name}_sum"], f"{name}_hidden")
        _add(model, "Gemm", [f"{name}_hidden", *parts[2:]], name, transB=1)
        model.graph.output.append(
            helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", len(values)])
        )
        model.metadata_props.add(key=name, value=",".join(values))
    onnx.checker.check_model(model, full_check=True)
    return model


def check_votes(before: onnx.ModelProto, after: onnx.ModelProto, images: Sequence[Pixels]) -> None:
    """Check that a model votes to the bit as it did.

    Raises:
        ValueError: It does not.
    """
    one, other = (opened(model) for model in (before, after))
    for image in images:
        told = {"images": image[None]}
        was, became = (each.run(["logit"], told)[0] for each in (one, other))
        if not np.array_equal(was, became):
            raise ValueError(f"the model with heads: expected a logit of {was}, got {became}")
