"""Writes distributions that bring plug-ins, as they lie where they are installed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from roadstream.streams.sources import schemes


def write_distribution(
    folder: Path, origin: tuple[str, str], source: str, group: str, **entry_points: str
) -> Path:
    """Write a distribution of one module; return the folder of packages that it is in.

    Args:
        folder: Where to.
        origin: Its name and version; the module has the name too.
        source: What stands in the module.
        group: That of its entry points.
        **entry_points: Names of classes in the module, by the entry points' names.
    """
    name, version = origin
    module = name.replace("-", "_")
    site = folder / f"{module}-{version}"
    metadata = site / f"{module}-{version}.dist-info"
    metadata.mkdir(parents=True)
    (site / f"{module}.py").write_text(source)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [f"{key} = {module}{value and ':'}{value}" for key, value in entry_points.items()]
    (metadata / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines]))
    return site


@contextmanager
def sources_looked_up_anew() -> Iterator[None]:
    """Forget which sources are installed, before and after a test that installs some."""
    _forget_sources()
    yield
    _forget_sources()


def _forget_sources() -> None:
    schemes._offered.cache_clear()
    schemes._reader.cache_clear()
    schemes._plug_ins._loaded.clear()
