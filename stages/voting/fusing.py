"""The fused boxes of a tier's images, from what its members found."""

from collections.abc import Sequence

from roadstream.schemas.cascade.model import Cascade, Tier
from roadstream.schemas.errors import EngineError
from roadstream.schemas.records.votes import Box
from roadstream.stages.inference import Finding, Score
from roadstream.stages.voting.fusion import BoxFusion, load_fusion


class TierFusion:
    """Fuses the boxes of those members of a tier that its ``fusion`` names.

    A member without a score, for whatever reason, is one that did not look; one with a score and no
    box looked and saw nothing.

    Args:
        tier: The tier, with ``fusion``.
    """

    def __init__(self, tier: Tier) -> None:
        assert tier.fusion is not None
        chosen = tier.fused
        self._seats = [seat for seat, member in enumerate(tier.members) if member in chosen]
        self._fusion = BoxFusion(tier.fusion, [member.weight for member in chosen])

    def fuse(self, columns: Sequence[Sequence[Finding | EngineError]]) -> list[list[Box] | None]:
        """Return the fused boxes per image; ``None`` where no detector looked.

        Args:
            columns: Per member of the tier its finding for each image.
        """
        seen = [
            [one.boxes if isinstance(one, Score) else None for one in columns[seat]]
            for seat in self._seats
        ]
        images = list(zip(*seen, strict=True))
        fused = self._fusion.fuse(images)
        return [
            boxes if any(part is not None for part in image) else None
            for image, boxes in zip(images, fused, strict=True)
        ]


def fusion_of(tier: Tier) -> TierFusion | None:
    """Return the fusion of a tier; ``None`` if it asks for none."""
    return None if tier.fusion is None else TierFusion(tier)


def load_fusions(cascade: Cascade, tiers: Sequence[str]) -> None:
    """Load what fuses boxes, if one of these tiers asks for it; blocks.

    Raises:
        ConfigError: It cannot be loaded.
    """
    for index, tier in enumerate(cascade.tiers):
        if tier.fusion is not None and tier.name in tiers:
            load_fusion(f"{cascade.name}: tiers[{index}].fusion")
