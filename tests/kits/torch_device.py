"""What a network would do on a CUDA device, found out without one.

PyTorch's fake tensors carry a device, a type and a shape, and no numbers: whatever reads a number
on the host, or meets a tensor that was left on the CPU, raises.
"""

import copy

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from roadstream.workers.engines.torch.engine import TorchEngine
from roadstream.workers.engines.torch.family import Family

CUDA = torch.device("cuda:0")
# One for all, as networks may keep tensors for the next call.
_FAKE = FakeTensorMode(allow_non_fake_inputs=False)


def outputs_on_cuda(engine: TorchEngine, count: int = 2) -> dict[str, Tensor]:
    """Return fakes of what a network would give on a CUDA device for so many pictures.

    Raises:
        Exception: It would wait for the device, or mix devices or types.
    """
    # The engine's own stays as it is.
    family: Family = copy.copy(engine.model.family)
    place = family.place._replace(device=CUDA)
    module, head = copy.deepcopy((engine.model.backbone.module, engine.model.head))
    with _FAKE, torch.no_grad():
        _move(module)
        family.settle(place)
        width, height = family.size
        images = torch.zeros(count, height, width, 3, dtype=torch.uint8, device=CUDA)
        found = family.forward(module, images)
        if head is not None:
            _move(head)
            found = family.finish(head, found)
    return found


def _move(module: nn.Module) -> None:
    """Put fakes in place of all tensors, of their types, on the device."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(_fake(parameter), requires_grad=False)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = _fake(buffer)


def _fake(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device=CUDA)
