"""The backbone that members share: loaded once, and run once per batch whoever asks."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from roadstream.stages.inference import Picture, Pictures
from roadstream.workers.engines.torch.device_link import DeviceLink, Upload
from roadstream.workers.engines.torch.family import Family
from roadstream.workers.engines.torch.network import Network, Tensors
from roadstream.workers.engines.torch.placement import Placement


class SharedBackbone:
    """A network on its device, as the families of its members run it.

    Args:
        family: Of the member that comes first; it runs the network for all.
        place: Where.
        link: To that device.
        key: Tells it from other networks of this process.

    Attributes:
        module: The network.
        users: Number of members that look through it.
    """

    def __init__(self, family: Family, place: Placement, link: DeviceLink, key: Hashable) -> None:
        self.key, self.users = key, 0
        self._family, self._place = family, place
        self.module: nn.Module = family.put(family.load(), place)
        self.module.requires_grad_(False)
        family.settle(place)
        self._network = Network(self.forward, family.settings, link)
        width, height = family.size
        self._shape = (height, width, 3)

    def join(self, family: Family) -> None:
        """Take a member in."""
        self.users += 1
        if family is not self._family:
            self._family.absorb(family)
            self._network.reset()

    def forward(self, inputs: Tensors) -> Tensors:
        """Return what the family makes of its inputs, as it is: neither cut nor recorded."""
        return self._family.forward(self.module, **inputs)

    def blank(self, size: int) -> Tensors:
        """Return black pictures, of which nothing is known. Within a turn."""
        shape = (size, *self._shape)
        images = torch.zeros(shape, dtype=torch.uint8, device=self._place.device)
        return self._inputs(images, Pictures([Picture()] * size))

    def warm_up(self, largest: int) -> None:
        """Get ready for batches of up to ``largest``. Within a turn.

        Raises:
            DeviceMemoryError: Not even one picture fits.
        """
        self._network.warm_up(self.blank, largest)

    def features(self, size: int) -> Tensors:
        """Return what it makes of black pictures. Within a turn."""
        return self._network.run(self.blank(size))

    def run(self, batch: Pictures, upload: Upload) -> dict[str, Tensor]:
        """Return the outputs for a batch. Within a turn."""
        if self.users == 1:
            return self._network.run(self._inputs(upload.images, batch))
        return batch.share(self.key, lambda: self._network.run(self._inputs(upload.images, batch)))

    def _inputs(self, images: Tensor, batch: Pictures) -> Tensors:
        more = self._family.inputs(batch).items()
        device = self._place.device
        return {"images": images} | {
            name: torch.from_numpy(value).to(device) for name, value in more
        }


def backbone_for(
    family: Family,
    place: Placement,
    link: DeviceLink,
    shared: dict[Hashable, Any],
) -> SharedBackbone:
    """Return the network that a member looks through, loaded if nobody has it yet.

    Networks that differ in nothing but the size of their pictures share their weights.

    Raises:
        ConfigError: Its weights are not there, or are not what they should be.
    """
    key = _key(family, place)
    backbone: SharedBackbone | None = shared.get(key)
    if backbone is None:
        backbone = SharedBackbone(family, place, link, key)
        for other, kin in shared.items():
            if isinstance(other, _Key) and other._replace(size=key.size) == key:
                tie(backbone.module, kin.module)
        shared[key] = backbone
    backbone.join(family)
    return backbone


def leave(backbone: SharedBackbone, shared: dict[Hashable, Any]) -> None:
    """Let go of a network; the last member takes it out of memory."""
    backbone.users -= 1
    if not backbone.users:
        shared.pop(backbone.key, None)


def tie(module: nn.Module, other: nn.Module) -> None:
    """Let a module use the tensors of another wherever they are equal; nobody writes to them."""
    theirs = {**dict(other.named_parameters()), **dict(other.named_buffers())}
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        held = theirs.get(name)
        if held is not None and held.dtype == tensor.dtype and torch.equal(held, tensor):
            tensor.data = held.data


class _Key(NamedTuple):
    """What tells a network from another."""

    family: type[Family]
    source: Path
    size: tuple[int, int]
    place: Placement
    how: tuple[int, ...]
    identity: Hashable


def _key(family: Family, place: Placement) -> _Key:
    settings = family.settings
    how = (settings.compile, settings.cuda_graphs, *settings.buckets)
    source = family.checkpoint.source.resolve()
    return _Key(type(family), source, family.size, place, how, family.identity())
