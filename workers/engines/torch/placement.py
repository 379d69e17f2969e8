"""Where a network runs, and in which precision."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

from roadstream.schemas.errors import ConfigError
from roadstream.schemas.settings.torch import TorchSettings

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


class Placement(NamedTuple):
    """Where a network runs, and how its numbers are held.

    Attributes:
        device: With its index, if it is a CUDA device.
        dtype: Of weights and activations.
        channels_last: Whether convolutions see [N, H, W, C] in memory.
    """

    device: torch.device
    dtype: torch.dtype
    channels_last: bool

    def put(self, module: nn.Module) -> nn.Module:
        """Return the module there; it is changed in place."""
        module.to(self.device, self.dtype)
        if self.channels_last:
            # Of `to`, PyTorch's types leave out this way to call it.
            reorder: Callable[..., nn.Module] = module.to
            reorder(memory_format=torch.channels_last)
        return module


def placement(settings: TorchSettings, where: str) -> Placement:
    """Return what a member's settings ask for.

    Raises:
        ConfigError: They ask for a device that is not there, or a precision that it lacks.
    """
    device = _device(settings.device, f"{where}.device")
    if settings.cuda_graphs and device.type != "cuda":
        raise ConfigError(f"{where}.cuda_graphs", "false, as there are no graphs", f"{device}")
    dtype = _DTYPES[settings.precision]
    if device.type == "cuda" and dtype is torch.bfloat16 and not torch.cuda.is_bf16_supported():
        name = torch.cuda.get_device_name(device)
        raise ConfigError(f"{where}.precision", f"float16 or float32 on {name}", "bfloat16")
    layout = settings.channels_last
    return Placement(device, dtype, device.type == "cuda" if layout is None else layout)


def _device(name: str, where: str) -> torch.device:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not count):
        return torch.device("cpu")
    index = int(name.partition(":")[2] or 0)
    if index >= count:
        there = ", ".join(["cpu", *(f"cuda:{i}" for i in range(count))])
        raise ConfigError(where, f"a device that is here ({there})", name)
    return torch.device("cuda", index)
