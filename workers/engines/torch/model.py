"""One torch member at work: pixels up, network, head, results down, scores."""

from collections.abc import Hashable, Sequence
from typing import Any

from torch import nn

from roadstream.schemas.cascade.model import Cascade, Member
from roadstream.schemas.errors import ConfigError, DeviceMemoryError
from roadstream.schemas.settings.base import EvidenceKind
from roadstream.schemas.settings.concepts import Concepts
from roadstream.schemas.settings.torch import TorchSettings
from roadstream.stages.inference import EngineResult, Pictures
from roadstream.workers.engines.torch.checkpoint import Checkpoint, open_checkpoint
from roadstream.workers.engines.torch.concepts import with_concepts
from roadstream.workers.engines.torch.device_link import Upload, link_for
from roadstream.workers.engines.torch.families.registry import family_of
from roadstream.workers.engines.torch.family import Family
from roadstream.workers.engines.torch.memory import memory_told
from roadstream.workers.engines.torch.network import Network, Tensors
from roadstream.workers.engines.torch.placement import Placement, placement
from roadstream.workers.engines.torch.shared_backbone import backbone_for, leave


class Model:
    """A member's network and head on their device.

    Args:
        family: Reads the checkpoint.
        threads: PyTorch's threads per call on the CPU.
        shared: What the engines of this process share.

    Attributes:
        device: Name of the device.
        family: As given.
        head: What this member has on top of the network, if anything.
        backbone: The network, which other members may look through too.
    """

    def __init__(self, family: Family, threads: int, shared: dict[Hashable, Any]) -> None:
        checkpoint, settings = family.checkpoint, family.settings
        place = placement(settings, f"{checkpoint.where}: settings")
        self.device = str(place.device)
        self.family, self._shared = family, shared
        self._link = link_for(place.device, threads, shared)
        self.backbone = backbone_for(family, place, self._link, shared)
        self._upload_key = ("torch-upload", place.device, family.size)
        self._finish: Network | None = None
        try:
            self.head = self._loaded_head(place)
            self._link.settle()
            self._try_out(checkpoint)
        except BaseException:
            self.close()
            raise

    def _loaded_head(self, place: Placement) -> nn.Module | None:
        family = self.family
        if (head := family.load_head()) is None:
            return None
        head = head.to(place.device).eval().requires_grad_(False)
        self._finish = Network(
            lambda given: family.finish(head, given), family.settings, self._link
        )
        return head

    def _try_out(self, checkpoint: Checkpoint) -> None:
        """Run a black picture: what does not fit together is said now, not of every picture.

        Raises:
            ConfigError: The network or the head does not take what it is given.
            DeviceMemoryError: Not even one picture fits.
        """
        width, height = self.family.size
        try:
            with self._link.turn(), memory_told():
                self.family.scores(self._link.download(self._finished(self.backbone.features(1))))
        except (ConfigError, DeviceMemoryError):
            raise
        except Exception as error:  # whatever a network raises on a shape that it does not take
            raise checkpoint.damaged(
                f"a network that takes pictures of {width} × {height}", error
            ) from error

    def _finished(self, features: Tensors) -> Tensors:
        return features if self._finish is None else self._finish.run(features)

    def warm_up(self, largest: int) -> None:
        """Get ready for batches of up to ``largest``.

        Raises:
            DeviceMemoryError: Not even one picture fits.
        """
        with self._link.turn():
            self.backbone.warm_up(largest)
            if self._finish is not None:
                self._finish.warm_up(self.backbone.features, largest)

    def prepare(self, batch: Pictures) -> Upload:
        """Return the batch's pixels on their way to the device; every member gets the same."""
        stack = batch.stack(*self.family.size)
        return batch.share(self._upload_key, lambda: self._link.upload(stack))

    def infer(self, batch: Pictures) -> Sequence[EngineResult]:
        """Return a finding per picture.

        Raises:
            DeviceMemoryError: The batch does not fit.
        """
        with memory_told():
            upload = self.prepare(batch)
            with self._link.turn(upload):
                outputs = self._finished(self.backbone.run(batch, upload))
                arrays = self._link.download(outputs)
        return self.family.scores(arrays)

    def close(self) -> None:
        """Let go of the network; the last member takes it out of memory."""
        leave(self.backbone, self._shared)


def open_family(
    cascade: Cascade, member: Member, size: tuple[int, int], concepts: Concepts | None
) -> Family:
    """Return what reads a member's checkpoint, for pictures of one size.

    Raises:
        ConfigError: Its settings or its checkpoint are not what they should be.
    """
    settings = member.settings
    assert isinstance(settings, TorchSettings)
    where = f"{cascade.name}: member {member.name}"
    checkpoint = open_checkpoint(cascade.model_source(member), settings, where, cascade)
    kind = family_of(checkpoint, settings)
    _check_evidence(kind, checkpoint, settings.evidence)
    return kind(checkpoint, with_concepts(kind, checkpoint, settings, concepts), size)


def _check_evidence(
    kind: type[Family], checkpoint: Checkpoint, asked: Sequence[EvidenceKind]
) -> None:
    """Refuse evidence that a family can make no use of.

    Raises:
        ConfigError: The settings ask for such.
    """
    useless = [one for one in asked if one not in kind.takes_evidence]
    if useless:
        usable = " and ".join(kind.takes_evidence) or "none"
        expected = f"{usable} for this checkpoint, as its family can make no use of more"
        raise checkpoint.problem("evidence", expected, ", ".join(useless))
