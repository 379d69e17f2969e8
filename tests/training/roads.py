"""A small folder of labelled pictures: drawn objects on drawn roads, of several sources."""

import csv
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator

from roadstream.stages.rules.cones import Pixels
from training.corpus import KINDS, LOOKALIKE
from training.drawn import draw, draw_lookalike
from training.views import Window, paste

WIDTH, HEIGHT = 416, 256
WHOLE = Window(0.0, 0.0, 1.0, 1.0)
# One source of each of three folds, and one that belongs to none.
FAMILIES = ("rfcones", "roadwork", "gtsdb", "mycity")
SCENES = 2
MANIFEST = "file,label,split_group,source_repo,licence,conditions\n"
BOXES = "file,class,x1,y1,x2,y2\n"


def road(rng: Generator) -> Pixels:
    """Draw sky, ground, and a road that narrows: uint8 RGB [HEIGHT, WIDTH, 3]."""
    image = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    horizon = int(HEIGHT * rng.uniform(0.42, 0.52))
    image[:horizon] = rng.integers(150, 230, 3)
    image[horizon:] = rng.integers(60, 130, 3)
    middle = WIDTH * rng.uniform(0.4, 0.6)
    corners = [(middle - 8, horizon), (middle + 8, horizon), (WIDTH, HEIGHT), (0, HEIGHT)]
    cv2.fillPoly(image, [np.array(corners, np.int32)], [int(rng.integers(70, 110))] * 3)
    cv2.line(image, (int(middle), horizon), (WIDTH // 2, HEIGHT), (220, 220, 220), 2)
    noise = rng.integers(-12, 13, image.shape)
    return np.asarray(np.clip(image + noise, 0, 255), np.uint8)


def _objects(image: Pixels, label: int, rng: Generator) -> list[tuple[str, list[float]]]:
    """Stand three objects on the road; return their kinds and corners in [0, 1]."""
    found = []
    for _ in range(3):
        kind = str(rng.choice(KINDS)) if label else LOOKALIKE
        piece = draw(kind, rng) if label else draw_lookalike(rng)
        place = paste(image, piece, kind, WHOLE, rng, float(rng.uniform(40, 90)))
        if place is not None:
            found.append((kind, (place / [WIDTH, HEIGHT, WIDTH, HEIGHT]).round(4).tolist()))
    return found


def lay_out(data: Path) -> None:
    """Write the folder: for each source and label two scenes of one picture."""
    manifest, boxes = [], []
    for number, family in enumerate(FAMILIES):
        for label, folder in ((1, "positives"), (0, "negatives")):
            (data / folder).mkdir(parents=True, exist_ok=True)
            for scene in range(SCENES):
                rng = np.random.default_rng((number, label, scene))
                image, file = road(rng), f"{folder}/{family}__{scene}.png"
                boxes += [[file, kind, *at] for kind, at in _objects(image, label, rng)]
                cv2.imwrite(str(data / file), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
                group = f"{family}-{label}-{scene}"
                manifest.append([file, label, group, f"owner/{family}", "CC0-1.0", "day, dry"])
    write(data / "manifest.csv", MANIFEST, manifest)
    write(data / "boxes.csv", BOXES, boxes)


def write(path: Path, head: str, rows: list[list[object]]) -> None:
    """Write a CSV file."""
    with path.open("w", newline="", encoding="utf-8") as lines:
        lines.write(head)
        csv.writer(lines, lineterminator="\n").writerows(rows)
