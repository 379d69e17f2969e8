"""How well the heads for light and weather tell them: see `tagging`."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from training.tables import table

FILE, PICTURES = "tags.json", "tags.csv"
NO_TAG = "no tag"
Reals = NDArray[np.float32]


class TagFigures(msgspec.Struct, frozen=True, kw_only=True):
    """How well one tag is told, on sources that its heads have not seen.

    Attributes:
        values: Of the tag, in order.
        changed: Counts of photographs and drawn pictures under changed light and weather: a row
            per true value, a column per value that was said, and one for no tag.
        likeliest: Share of them whose likeliest value is the true one, however unsure.
        real: The same counts of real pictures.
        real_scenes: Scenes of real pictures of each true value.
    """

    values: list[str]
    changed: list[list[int]]
    likeliest: float
    real: list[list[int]]
    real_scenes: list[int]


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of all tags.

    Attributes:
        confidence: Least share with which a tag is given.
        bases: Pictures of dry days by source family, which the changed ones come from.
        changed: Number of changed pictures.
        by_eye: Real pictures whose light and weather were told by eye.
        tags: By name.
    """

    confidence: float
    bases: dict[str, int]
    changed: int
    by_eye: int
    tags: dict[str, TagFigures]


def read_figures(path: Path) -> Figures | None:
    """Read what was measured; ``None`` if nothing was."""
    return msgspec.json.decode(path.read_bytes(), type=Figures) if path.exists() else None


def counts(truth: NDArray[np.int64], shares: Reals, confidence: float) -> list[list[int]]:
    """Count what is said of pictures whose truth (a position, -1 if unclear) is known."""
    values = shares.shape[1]
    found = np.zeros((values, values + 1), np.int64)
    for true, row in zip(truth, shares, strict=True):
        if true >= 0:
            found[true, row.argmax() if row.max() >= confidence else values] += 1
    rows: list[list[int]] = found.tolist()
    return rows


def scenes(truth: NDArray[np.int64], groups: Sequence[str], values: int) -> list[int]:
    """Count the scenes of pictures of each true value."""
    return [
        len({group for true, group in zip(truth.tolist(), groups, strict=True) if true == value})
        for value in range(values)
    ]


def write_seen(
    path: Path,
    files: Sequence[str],
    told: Mapping[str, tuple[Sequence[str], NDArray[np.int64], Reals]],
    confidence: float,
) -> None:
    """Write one row per real picture: of each tag what is true, what is said, and how surely.

    Args:
        path: To write to.
        files: In the data folder.
        told: By tag: values, their true positions (-1 if unclear), and shares [N, K].
        confidence: Least share with which a tag is given.
    """
    with path.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        parts = ("truth", "said", "share")
        writer.writerow(["file", *(f"{part}:{tag}" for tag in told for part in parts)])
        for row, file in enumerate(files):
            cells: list[str] = []
            for values, truth, shares in told.values():
                share = float(shares[row].max())
                said = values[int(shares[row].argmax())] if share >= confidence else ""
                true = values[truth[row]] if truth[row] >= 0 else ""
                cells += [true, said, f"{share:.4f}"]
            writer.writerow([file, *cells])


def read_said(path: Path) -> dict[str, dict[str, str]]:
    """Return the tags that were given to real pictures, by file."""
    with path.open(newline="", encoding="utf-8") as lines:
        return {
            row["file"]: {
                name.removeprefix("said:"): cell
                for name, cell in row.items()
                if name.startswith("said:") and cell
            }
            for row in csv.DictReader(lines)
        }


def counts_table(found: TagFigures, rows: Sequence[Sequence[int]], scenes: bool = False) -> str:
    """Lay out what was said of pictures of each true value."""
    head = ["shown", *(["scenes"] if scenes else []), *found.values, NO_TAG]
    body: list[Sequence[object]] = []
    for value, count, row in zip(found.values, found.real_scenes, rows, strict=True):
        body.append([value, *([count] if scenes else []), *row])
    return table(head, body)


def part(found: Figures) -> str:
    """Say how well each tag is told."""
    bases = ", ".join(f"{count} {name}" for name, count in found.bases.items())
    head = (
        f"A tag is given where the likeliest value has a share of at least {found.confidence:g}. "
        f"{found.changed:,} changed pictures come from {sum(found.bases.values())} of dry days "
        f"({bases}). Each was judged by heads that had not seen its source. Of {found.by_eye} real "
        "pictures light and weather were told by eye, of the others they are as noted in the "
        "collection."
    )
    said = [head]
    for tag, figures in found.tags.items():
        right = f"the likeliest value is right for {100 * figures.likeliest:.0f} %, sure or not"
        said += [
            f"**`{tag}`**, changed pictures ({right}):",
            counts_table(figures, figures.changed),
            f"**`{tag}`**, real pictures:",
            counts_table(figures, figures.real, scenes=True),
        ]
    return "\n\n".join(said)
