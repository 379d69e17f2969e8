"""Files that settings name: by the name of one that ships, or by a path beside the cascade file."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from roadstream.cascades import FOLDER
from roadstream.schemas.errors import ConfigError

Kind = Literal["prompts", "concepts"]
"""What is in such a file, and in which folder those lie that ship."""

NONE_READ: Mapping[str, bytes] = {}
_SHIPPED = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def shipped_names(kind: Kind) -> list[str]:
    """Return the names of the files that come with Roadstream."""
    return sorted(path.stem for path in Path(FOLDER, kind).glob("*.toml"))


def named_file(kind: Kind, name: str) -> str:
    """Return where a file lies: one that ships by its name, else relative to the cascade file."""
    shipped = Path(FOLDER, kind, f"{name}.toml")
    return str(shipped) if _SHIPPED.fullmatch(name) and shipped.is_file() else name


def read_named(
    kind: Kind, name: str, folder: str | Path, where: str, files: Mapping[str, bytes] = NONE_READ
) -> tuple[bytes, Path]:
    """Return a file's bytes, and where it lies.

    Args:
        kind: What is in it.
        name: As the member's settings say.
        folder: What a path is relative to: the cascade file's folder.
        where: The setting, for errors.
        files: What was read already, by its name; it is not read again.

    Raises:
        ConfigError: It is not there.
    """
    file = named_file(kind, name)
    path = Path(folder, file)
    try:
        return (files[file] if file in files else path.read_bytes()), path
    except OSError as error:
        shipped = ", ".join(shipped_names(kind))
        expected = f"a {kind.removesuffix('s')} file or one of {shipped}"
        raise ConfigError(where, expected, f"{name} ({error.strerror})") from None
