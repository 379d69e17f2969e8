"""Versions of the campaign's cascade: what each changes, and files of it that are new each time."""

from pathlib import Path
from typing import NamedTuple

from roadstream.bench.faults.chaos.pictures import CASCADE
from roadstream.schemas.cascade.loading import load_cascade, parse_cascade
from roadstream.schemas.cascade.model import Cascade

BASE = "base"
# The version with one tier more, for which nobody works unless it is seen to, and the one with one
# tier less: its workers have nothing to do, and so do not show that they are well.
LONGER, SHORTER = "longer", "shorter"
THIRD = "third"
_THIRD = """
[[tiers.routes]]
min_confidence = 0.99
to = "exit"
[[tiers]]
name = "third"
max_batch = 8
[[tiers.members]]
name = "closer"
engine = "cones"
width = 64
height = 48
"""
_LOST = """[[tiers.members]]
name = "lost"
engine = "onnx"
model = "lost.onnx"
[[tiers.routes]]
min_confidence = 0.9"""
_FIRST_ROUTE = "[[tiers.routes]]\nmin_confidence = 0.9"
# What stands in the file, and what takes its place.
_CHANGES = {
    "threshold": ("threshold = 0.5", "threshold = 0.7"),
    "weights": ("weight = 0.5", "weight = 2.0"),
    "routes": ("min_confidence = 0.9", "min_confidence = 0.75"),
    "calibration": (
        'name = "last"',
        'name = "last"\ncalibration = { method = "platt", slope = 0.5, intercept = 0.25 }',
    ),
    "settings": (
        'name = "right"\nengine = "cones"\nwidth = 64',
        'name = "right"\nengine = "cones"\nwidth = 96',
    ),
    "member": ('name = "last"', 'name = "other"'),
    SHORTER: (CASCADE[CASCADE.index('[[tiers]]\nname = "second"') :], ""),
    LONGER: (CASCADE, CASCADE + _THIRD),
}
# Versions of the same tiers that workers judge by.
SOUND = (*(name for name in _CHANGES if name not in {LONGER, SHORTER}), BASE)
# Versions that cannot be loaded: weights that are none, and weights that went.
UNSOUND = ("damaged", "absent")


class Version(NamedTuple):
    """A version of the cascade.

    Attributes:
        file: Its file.
        cascade: The cascade, as it was loaded from there.
    """

    file: Path
    cascade: Cascade


def variants() -> dict[str, Cascade]:
    """Return the variants that workers judge by, by name, for what each must answer."""
    return {name: parse_cascade(text_of(name).encode(), name) for name in (BASE, *_CHANGES)}


def text_of(name: str) -> str:
    """Return the text of a variant, as a cascade file has it."""
    if name == BASE:
        return CASCADE
    if name in UNSOUND:
        return CASCADE.replace(_FIRST_ROUTE, _LOST, 1)
    before, after = _CHANGES[name]
    return CASCADE.replace(before, after, 1)


def new_version(name: str, number: int, folder: Path) -> Version:
    """Write a file of a variant that nobody has seen before, and load it.

    Args:
        name: The variant.
        number: Of the version; two of one variant differ by it alone.
        folder: Where the file goes, in a folder of its own.
    """
    home = folder / f"version-{number}"
    home.mkdir()
    weights = home / "lost.onnx"
    if name in UNSOUND:
        weights.write_bytes(b"no model")
    file = home / "chaos.toml"
    file.write_text(f"{text_of(name)}\n# version {number}\n")
    cascade = load_cascade(str(file))
    if name == "absent":
        weights.unlink()
    return Version(file, cascade)
