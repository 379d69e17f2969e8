"""The labelled pictures: manifest, boxes, folds and decoded pixels, read from one data folder.

The folder holds `manifest.csv`, `boxes.csv`, `positives/`, `negatives/` and `ambiguous/`. Boxes
drawn later are in `training/boxes.csv`: coordinates only, no picture is part of the repository.
"""

import csv
import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from roadstream.schemas.errors import ConfigError
from roadstream.stages.rules.cones import Pixels

HERE = Path(__file__).resolve().parent
MORE_BOXES = HERE / "boxes.csv"
KINDS = ("cone", "drum", "barrier", "post", "work_sign", "worker", "machine")
LOOKALIKE = "lookalike"
# Wider pictures are kept at this width: no member looks at more.
MOST_WIDTH = 1344
OTHER = "other"  # something is there that is neither taught nor denied
LABELS = {"positives": 1, "negatives": 0, "ambiguous": -1}
MANIFEST = ("file", "label", "split_group", "source_repo", "licence", "conditions")
CORNERS = ("x1", "y1", "x2", "y2")

# Families of sources that share drives, cameras or collectors; a left-out one leaves as a whole.
FOLDS = {
    "cones-and-signs": ("rfcones", "rsd", "css", "css28"),
    "us-drives": ("roadwork", "dnit", "awpov", "udacity", "misc"),
    "german-drives": ("gtsdb", "vegb"),
    "towns-and-crops": ("melb", "oiv", "ruroad", "ksign"),
}
MORE_FOLDS = 4  # at most, for families that are in none of those: each costs a training
LEAST_SCENES = 5  # of each label, outside of any fold: calibration is cross-fitted over five parts


@dataclass(frozen=True)
class Box:
    """One object; corners in [0, 1] of the picture."""

    kind: str
    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True)
class Picture:
    """One picture; `label` is 1 for roadwork, 0 for an ordinary road, -1 where it is ambiguous."""

    file: str
    label: int
    group: str
    repo: str
    licence: str
    conditions: tuple[str, ...]
    boxes: tuple[Box, ...]

    @property
    def family(self) -> str:
        """Name the source family: the part of the file name before the double underscore."""
        return family_of(self.file)


def family_of(file: str) -> str:
    """Return the source family of a picture: its name up to the double underscore."""
    return Path(file).name.split("__")[0]


def read_rows(path: Path, *columns: str) -> list[tuple[str, dict[str, str]]]:
    """Read a CSV file with a header: of each row where it stands (file:line), and its cells.

    Raises:
        ConfigError: There is no such file, a column is missing, or a row lacks cells.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            rows = csv.DictReader(lines)
            found = [(f"{path}:{rows.line_num}", row) for row in rows]
            missing = [name for name in columns if name not in (rows.fieldnames or ())]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), "a CSV file in UTF-8", _problem(error)) from None
    if missing:
        raise ConfigError(f"{path}:1", f"columns {', '.join(columns)}", f"none of {missing}")
    for where, row in found:
        if any(row[name] is None for name in columns):
            raise ConfigError(where, f"cells for {', '.join(columns)}", "fewer")
    return found


def _problem(error: OSError | UnicodeDecodeError) -> str:
    return str(error.strerror if isinstance(error, OSError) else error)


def _box(where: str, row: dict[str, str]) -> Box:
    kinds = (*KINDS, LOOKALIKE, OTHER)
    if row["class"] not in kinds:
        raise ConfigError(f"{where}: class", f"one of {', '.join(kinds)}", repr(row["class"]))
    told = ",".join(row[name] for name in CORNERS)
    try:
        x1, y1, x2, y2 = (float(row[name]) for name in CORNERS)
    except ValueError:
        raise ConfigError(where, f"numbers for {', '.join(CORNERS)}", told) from None
    if not (0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1):
        raise ConfigError(where, "0 ≤ x1 < x2 ≤ 1 and 0 ≤ y1 < y2 ≤ 1, shares of the picture", told)
    return Box(row["class"], x1, y1, x2, y2)


def load_boxes(data: Path, files: Set[str]) -> dict[str, list[Box]]:
    """Read the boxes that came with the pictures and those drawn since, by file.

    Raises:
        ConfigError: A box cannot be understood, or one of the data folder is of none of the files.
    """
    boxes: dict[str, list[Box]] = {}
    for path in (data / "boxes.csv", MORE_BOXES):
        for where, row in read_rows(path, "file", "class", *CORNERS):
            if row["file"] not in files and path != MORE_BOXES:
                raise ConfigError(f"{where}: file", "a file of manifest.csv", repr(row["file"]))
            boxes.setdefault(row["file"], []).append(_box(where, row))
    return boxes


def load_pictures(data: Path) -> list[Picture]:
    """Load every picture with a label or with boxes, sorted by file name.

    Rows of the manifest that are about other folders are passed over.

    Raises:
        ConfigError: The manifest or a box cannot be understood, or a picture is not there.
    """
    rows = read_rows(data / "manifest.csv", *MANIFEST)
    boxes = load_boxes(data, {row["file"] for _, row in rows})
    pictures: dict[str, Picture] = {}
    for where, row in rows:
        file = row["file"]
        folder = file.split("/")[0]
        if folder not in LABELS or (folder == "ambiguous" and file not in boxes):
            continue
        if file in pictures:
            raise ConfigError(f"{where}: file", "every file once", repr(file))
        _check(data, where, row)
        pictures[file] = Picture(
            file=file,
            label=LABELS[folder],
            group=row["split_group"],
            repo=row["source_repo"],
            licence=row["licence"],
            conditions=tuple(part.strip() for part in row["conditions"].split(",")),
            boxes=tuple(boxes.get(file, ())),
        )
    return [pictures[file] for file in sorted(pictures)]


def _check(data: Path, where: str, row: dict[str, str]) -> None:
    file = row["file"]
    label = str(LABELS[file.split("/")[0]])
    if row["label"] != label:
        raise ConfigError(f"{where}: label", f"{label}, as {file} says", repr(row["label"]))
    if not row["split_group"]:
        raise ConfigError(f"{where}: split_group", "a name for the scene", "none")
    if "__" not in Path(file).name:
        raise ConfigError(f"{where}: file", "a name like SOURCE__NAME.jpg", repr(file))
    if not (data / file).is_file():
        raise ConfigError(f"{where}: file", f"a picture in {data}", f"none at {file}")


def folds_of(pictures: Sequence[Picture]) -> dict[str, tuple[str, ...]]:
    """Return the folds of these pictures: the families of each.

    Families that `FOLDS` does not know are dealt to folds of their own, the largest first.

    Raises:
        ConfigError: What remains without a fold is too little to train on.
    """
    sizes = Counter(picture.family for picture in pictures if picture.label >= 0)
    known = {name: families for name, families in FOLDS.items() if sizes.keys() & set(families)}
    others = sizes.keys() - {family for families in FOLDS.values() for family in families}
    dealt: list[list[str]] = [[] for _ in range(min(MORE_FOLDS, len(others)))]
    for family in sorted(others, key=lambda name: (-sizes[name], name)):
        min(dealt, key=lambda fold: sum(sizes[name] for name in fold)).append(family)
    folds = known | {f"others-{n}": tuple(fold) for n, fold in enumerate(dealt, 1)}
    for name, families in folds.items():
        _check_rest(name, [one for one in pictures if one.family not in families])
    return folds


def _check_rest(fold: str, rest: Sequence[Picture]) -> None:
    for label, name in ((1, "positives"), (0, "negatives")):
        scenes = len({picture.group for picture in rest if picture.label == label})
        if scenes < LEAST_SCENES:
            raise ConfigError(
                "manifest.csv",
                f"{LEAST_SCENES} or more scenes (split_group) in {name}/ without the source "
                f"families of each fold; add pictures of other sources",
                f"{scenes} without {fold}",
            )


def decode(path: Path) -> Pixels:
    """Decode one picture to uint8 RGB [H, W, 3], at most `MOST_WIDTH` wide.

    Raises:
        ConfigError: It cannot be read.
    """
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise ConfigError(str(path), "a picture that OpenCV can decode", "something else")
    if (width := image.shape[1]) > MOST_WIDTH:
        size = (MOST_WIDTH, round(image.shape[0] * MOST_WIDTH / width))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def seen_by_scene() -> set[str]:
    """Return the files that the classifier of whole pictures was trained on."""
    return {row["file"] for _, row in read_rows(HERE / "scene.csv", "file")}


class Decoded(Sequence[Pixels]):
    """Pictures decoded once into one file, read as they are needed: uint8 RGB [H, W, 3] each."""

    def __init__(self, flat: NDArray[np.uint8], shapes: NDArray[np.int64]) -> None:
        self._flat, self._shapes = flat, shapes
        self._ends = np.cumsum(shapes.prod(1) * 3)

    def __len__(self) -> int:
        """Count the pictures."""
        return len(self._shapes)

    def __getitem__(self, index: int) -> Pixels:  # type: ignore[override]
        """Return one picture, read-only."""
        height, width = self._shapes[index]
        end = self._ends[index]
        return self._flat[end - height * width * 3 : end].reshape(height, width, 3)

    def __iter__(self) -> Iterator[Pixels]:
        """Go through them in order."""
        return (self[index] for index in range(len(self)))


def decode_once(data: Path, pictures: Sequence[Picture], work: Path) -> Decoded:
    """Decode all pictures into the work folder, or open what an earlier run has decoded.

    Raises:
        ConfigError: A picture cannot be read.
    """
    names = "\n".join(picture.file for picture in pictures)
    stem = work / f"decoded-{hashlib.sha256(names.encode()).hexdigest()[:12]}"
    pixels, shapes = stem.with_suffix(".bin"), stem.with_suffix(".npy")
    if not shapes.exists():
        work.mkdir(parents=True, exist_ok=True)
        partial, found = stem.with_suffix(f".{os.getpid()}"), []
        with partial.open("wb") as out:
            for picture in pictures:
                image = decode(data / picture.file)
                found.append(image.shape[:2])
                out.write(image.tobytes())
        partial.rename(pixels)  # whole, or not at all
        with partial.open("wb") as out:
            np.save(out, np.array(found, np.int64))
        partial.rename(shapes)
    return Decoded(np.memmap(pixels, np.uint8, "r"), np.load(shapes))
