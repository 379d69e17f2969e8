"""What the settings of all engines have in common."""

import msgspec


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of an engine; each engine has a class of its own."""

    def files(self) -> list[str]:
        """Return the files that they name, relative to the cascade file, for the cascade's hash."""
        return []
