"""What the settings of all engines have in common."""

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

EvidenceKind = Literal["boxes", "tags", "texts", "disagreement"]

TagsGiven = Mapping[str, frozenset[str] | None]
"""Tags by name, each with the values that it may have; ``None`` where these cannot be told."""


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a member's engine, as `roadstream schema ENGINE-settings` prints them.

    Each engine has a class of its own, which forbids unknown fields.

    Attributes:
        evidence: What the member is told of earlier tiers' findings, where its engine can make use
            of it.
    """

    evidence: list[EvidenceKind] = []

    def files(self) -> list[str]:
        """Return the files that they name, relative to the cascade file, for the cascade's hash."""
        return []

    def prompt_names(self) -> list[str]:
        """Return the prompts that they name, whose files are among ``files``."""
        return []

    def concept_names(self) -> list[str]:
        """Return the lists of concepts that they name, whose files are among ``files``."""
        return []

    def mistakes(self) -> Iterable[tuple[str, str, str]]:
        """Return what is wrong between them: the key, what was expected there, and what came."""
        return ()

    def given_tags(self) -> TagsGiven | None:
        """Return the tags that a member with them may give; ``None`` if that cannot be told."""
        return None
