"""What was judged: one row per picture with its truth, its scene, and every member's vote."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from training.corpus import KINDS, Picture, family_of, load_pictures

_VOTE = "vote:"
_COLUMNS = ("file", "label", "group", "source_repo", "conditions", "kinds", "probability", "tier")
_BETWEEN = "; "


@dataclass(frozen=True)
class Judged:
    """One judged picture.

    Attributes:
        file: Name of the picture in its data folder.
        label: 1 for roadwork, 0 for an ordinary road.
        group: Its scene; pictures of one scene are never on both sides of a split.
        repo: Where it was taken from, ``owner/name``.
        conditions: Light, weather, camera and country, as noted in the collection.
        kinds: Classes of the boxes in it; empty where nothing is boxed.
        probability: Of roadwork, in [0, 1].
        tier: Where it left.
        votes: Calibrated log-odds per member; who did not vote is not among them.
    """

    file: str
    label: int
    group: str
    repo: str
    conditions: tuple[str, ...] = ()
    kinds: frozenset[str] = frozenset()
    probability: float = 0.5
    tier: str = ""
    votes: dict[str, float] = field(default_factory=dict)

    @property
    def family(self) -> str:
        """Source family: the part of the file name before the double underscore."""
        return family_of(self.file)


def unjudged(picture: Picture) -> Judged:
    """Return a labelled picture, not judged yet; its kinds are those of roadwork."""
    return Judged(
        file=picture.file,
        label=picture.label,
        group=picture.group,
        repo=picture.repo,
        conditions=picture.conditions,
        kinds=frozenset(box.kind for box in picture.boxes) & frozenset(KINDS),
    )


def read_truth(data: Path) -> list[Judged]:
    """Return the pictures labelled 0 or 1 of a data folder, sorted by name, not judged yet.

    Raises:
        ConfigError: See ``load_pictures``.
    """
    return [unjudged(picture) for picture in load_pictures(data) if picture.label >= 0]


def write_judged(path: Path, judged: Sequence[Judged]) -> None:
    """Write one row per picture; members in the order in which they first occur."""
    members = list(dict.fromkeys(name for one in judged for name in one.votes))
    with path.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow([*_COLUMNS, *(_VOTE + name for name in members)])
        writer.writerows(_cells(one, members) for one in judged)


def _cells(one: Judged, members: Iterable[str]) -> list[object]:
    votes = [f"{one.votes[name]:.4f}" if name in one.votes else "" for name in members]
    kinds = _BETWEEN.join(sorted(one.kinds))
    truth = [one.file, one.label, one.group, one.repo, _BETWEEN.join(one.conditions), kinds]
    return [*truth, f"{one.probability:.6f}", one.tier, *votes]


def read_judged(path: Path) -> list[Judged]:
    """Read what ``write_judged`` wrote.

    Raises:
        ValueError: A column is missing or a number is none; says file, line and column.
    """
    with path.open(newline="", encoding="utf-8") as lines:
        rows = csv.DictReader(lines)
        missing = [name for name in _COLUMNS if name not in (rows.fieldnames or ())]
        if missing:
            raise ValueError(f"{path}: expected columns {', '.join(_COLUMNS)}, lacks {missing}")
        return [_judged(row, f"{path}:{line}") for line, row in enumerate(rows, 2)]


def _judged(row: dict[str, str], where: str) -> Judged:
    try:
        return Judged(
            file=row["file"],
            label=int(row["label"]),
            group=row["group"],
            repo=row["source_repo"],
            conditions=_words(row["conditions"]),
            kinds=frozenset(_words(row["kinds"])),
            probability=float(row["probability"]),
            tier=row["tier"],
            votes={
                name.removeprefix(_VOTE): float(cell)
                for name, cell in row.items()
                if name and name.startswith(_VOTE) and cell
            },
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: expected a judged picture, got {error}") from None


def _words(cell: str) -> tuple[str, ...]:
    return tuple(cell.split(_BETWEEN)) if cell else ()
