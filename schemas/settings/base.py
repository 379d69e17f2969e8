"""What the settings of all engines have in common."""

import msgspec


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a member's engine, as `roadstream schema ENGINE-settings` prints them.

    Each engine has a class of its own, which forbids unknown fields.
    """

    def files(self) -> list[str]:
        """Return the files that they name, relative to the cascade file, for the cascade's hash."""
        return []
