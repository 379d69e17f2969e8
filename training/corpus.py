"""The labelled pictures: manifest, boxes, folds and decoded pixels, read from one data folder.

The folder holds `manifest.csv`, `boxes.csv`, `positives/`, `negatives/` and `ambiguous/`. Boxes
drawn later are in `training/boxes.csv`: coordinates only, no picture is part of the repository.
"""

import csv
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from stages.cones import Pixels

HERE = Path(__file__).resolve().parent
MORE_BOXES = HERE / "boxes.csv"
KINDS = ("cone", "drum", "barrier", "post", "work_sign", "worker", "machine")
LOOKALIKE = "lookalike"
# Wider pictures are kept at this width: no member looks at more.
MOST_WIDTH = 1344

# Families of sources that share drives, cameras or collectors; a left-out one leaves as a whole.
FOLDS = {
    "cones-and-signs": ("rfcones", "rsd", "css", "css28"),
    "us-drives": ("roadwork", "dnit", "awpov", "udacity", "misc"),
    "german-drives": ("gtsdb", "vegb"),
    "towns-and-crops": ("melb", "oiv", "ruroad", "ksign"),
}


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
        return Path(self.file).name.split("__")[0]

    @property
    def fold(self) -> str:
        """Name the fold that its family belongs to; the empty name if to none."""
        return next((name for name, families in FOLDS.items() if self.family in families), "")


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read a CSV file with a header as one dictionary per row."""
    with path.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def load_boxes(data: Path) -> dict[str, list[Box]]:
    """Read the boxes that came with the pictures and those drawn since, by file."""
    boxes: dict[str, list[Box]] = {}
    for path in (data / "boxes.csv", MORE_BOXES):
        for row in read_rows(path) if path.exists() else ():
            corners = [min(1.0, max(0.0, float(row[name]))) for name in ("x1", "y1", "x2", "y2")]
            boxes.setdefault(row["file"], []).append(Box(row["class"], *corners))
    return boxes


def load_pictures(data: Path) -> list[Picture]:
    """Load every picture with a label or with boxes, sorted by file name."""
    boxes = load_boxes(data)
    pictures = [
        Picture(
            file=row["file"],
            label=int(row["label"]),
            group=row["split_group"],
            repo=row["source_repo"],
            licence=row["licence"],
            conditions=tuple(part.strip() for part in row["conditions"].split(",")),
            boxes=tuple(boxes.get(row["file"], ())),
        )
        for row in read_rows(data / "manifest.csv")
        if row["file"].startswith(("positives/", "negatives/"))
        or (row["file"].startswith("ambiguous/") and row["file"] in boxes)
    ]
    return sorted(pictures, key=lambda picture: picture.file)


def decode(path: Path) -> Pixels:
    """Decode one picture to uint8 RGB [H, W, 3], at most `MOST_WIDTH` wide.

    Raises:
        ValueError: It cannot be read.
    """
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f"{path}: expected a picture that OpenCV can decode")
    if (width := image.shape[1]) > MOST_WIDTH:
        size = (MOST_WIDTH, round(image.shape[0] * MOST_WIDTH / width))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def seen_by_scene() -> set[str]:
    """Return the files that the classifier of whole pictures was trained on."""
    return {row["file"] for row in read_rows(HERE / "scene.csv")}


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
        ValueError: A picture cannot be read.
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
        np.save(shapes, np.array(found, np.int64))
    return Decoded(np.memmap(pixels, np.uint8, "r"), np.load(shapes))
