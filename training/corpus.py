"""The labelled pictures: manifest, boxes, split and decoded cache, read from one data folder.

The folder holds `manifest.csv`, `boxes.csv`, `positives/` and `negatives/`; it is named by the
environment variable ROADSTREAM_DATA or by `--data`. Decoded pictures live in the cache folder
(ROADSTREAM_CACHE or `--cache`), never in the repository.
"""

import argparse
import csv
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

HERE = Path(__file__).resolve().parent
SPLIT_FILE = HERE / "split.csv"

# (width, height) each net sees; "tiles" cuts its picture into four of the size of "lite0".
INPUT_SIZES = {"tiny": (256, 160), "lite0": (512, 352), "tiles": (960, 640)}
CACHE_SIZE = INPUT_SIZES["tiles"]
CONES_SIZE = (480, 270)  # what the cone rule is given

# Families of sources that share drives or cameras; a left-out source leaves with its family.
FOLDS = {
    "cones-and-signs": ("rfcones", "rsd", "css"),
    "us-drives": ("roadwork", "dnit", "awpov", "udacity", "misc"),
    "german-drives": ("gtsdb",),
}
# Pictures of this family carry boxes of machines only, so "no box" says nothing there.
PARTLY_BOXED = ("css",)


@dataclass(frozen=True)
class Box:
    """One roadwork object; corners in [0, 1] of the picture."""

    kind: str
    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True)
class Picture:
    """One labelled picture; `label` is 1 for roadwork and 0 for an ordinary road."""

    file: str
    label: int
    group: str
    repo: str
    licence: str
    conditions: tuple[str, ...]
    split: str
    boxes: tuple[Box, ...]

    @property
    def family(self) -> str:
        """Name the source family, the part of the file name before the double underscore."""
        return Path(self.file).name.split("__")[0]

    @property
    def fully_boxed(self) -> bool:
        """Say whether a crop without any box may be taken for an ordinary road."""
        return bool(self.boxes) and self.family not in PARTLY_BOXED


def add_folder_options(parser: argparse.ArgumentParser) -> None:
    """Add `--data` and `--cache`, which default to environment variables."""
    parser.add_argument(
        "--data",
        type=Path,
        required="ROADSTREAM_DATA" not in os.environ,
        default=os.environ.get("ROADSTREAM_DATA"),
        help="folder with manifest.csv and pictures (default: $ROADSTREAM_DATA)",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=os.environ.get("ROADSTREAM_CACHE", Path.home() / ".cache/roadstream-training"),
        help="folder for decoded pictures and runs, about 2 GB (default: $ROADSTREAM_CACHE)",
    )


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read a CSV file with a header as one dictionary per row."""
    with path.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def load_pictures(data: Path, split_file: Path | None = SPLIT_FILE) -> list[Picture]:
    """Load all pictures labelled 0 or 1, sorted by file name.

    With `split_file` None the split is left empty. Raises KeyError if a picture has no split.
    """
    splits = {row["file"]: row["split"] for row in read_rows(split_file)} if split_file else {}
    boxes: dict[str, list[Box]] = {}
    for row in read_rows(data / "boxes.csv"):
        corners = [min(1.0, max(0.0, float(row[name]))) for name in ("x1", "y1", "x2", "y2")]
        boxes.setdefault(row["file"], []).append(Box(row["class"], *corners))
    pictures = []
    for row in read_rows(data / "manifest.csv"):
        if row["file"].split("/")[0] not in ("positives", "negatives"):
            continue
        pictures.append(
            Picture(
                file=row["file"],
                label=int(row["label"]),
                group=row["split_group"],
                repo=row["source_repo"],
                licence=row["licence"],
                conditions=tuple(part.strip() for part in row["conditions"].split(",")),
                split=splits[row["file"]] if split_file else "",
                boxes=tuple(boxes.get(row["file"], ())),
            )
        )
    return sorted(pictures, key=lambda picture: picture.file)


def stretch(image: Pixels, size: tuple[int, int]) -> Pixels:
    """Stretch uint8 RGB [H, W, 3] to (width, height): by area when shrinking, else linearly."""
    height, width = image.shape[:2]
    shrinks = size[0] <= width and size[1] <= height
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized: Any = cv2.resize(image, size, interpolation=method)
    return np.asarray(resized, dtype=np.uint8)


def cache_path(cache: Path, size: tuple[int, int]) -> Path:
    """Name the array that holds every picture at one size, in the order of `load_pictures`."""
    return cache / f"pictures_{size[0]}x{size[1]}.npy"


def load_cache(cache: Path, size: tuple[int, int]) -> Pixels:
    """Map the decoded pictures, uint8 RGB [count, height, width, 3], read-only."""
    array: Pixels = np.load(cache_path(cache, size), mmap_mode="r")
    return array
