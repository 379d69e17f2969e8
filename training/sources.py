"""Where the pictures of training came from: repositories, licences, and whom to thank.

python -m training.sources DATA    # writes results/sources.csv, without any picture
"""

import argparse
import csv
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from roadstream.schemas.errors import ConfigError
from training.corpus import read_rows

RESULTS = Path(__file__).parent / "results"
FILE = RESULTS / "sources.csv"

# Licences that ask for attribution, by how they begin in the manifest.
ATTRIBUTED = ("CC-BY", "ODC-By")
ATTRIBUTION = {
    "Mi3-Lab/workzone": "ROADWork: A. Ghosh and others, Carnegie Mellon University, ODC-By 1.0",
    "FatimaRana50/YOLOv8-to-Detect-Traffic-Cones": (
        "Roboflow Universe `traffic-cones-y4m5x`, by fatimas-workspace, CC BY 4.0"
    ),
    "mmcquade11/stable-diffusion-img2img": (
        "Roboflow Universe `construction-site-safety` v1, by its authors as named there, CC BY 4.0"
    ),
    "runtueee/PPE_detection": (
        "Roboflow Universe `construction-site-safety` v28, by its authors as named there, CC BY 4.0"
    ),
    "zxu235/ai-mrp-spring-2026-Ziru-Xu": (
        "Roboflow Universe `self-driving-cars-lfjou`, by selfdriving-car-qtywx, CC BY 4.0"
    ),
    "bertugilk/YOLOv6_Vehicle_Detection": (
        "Roboflow `Vehicles-OpenImages` by J. Solawetz, CC BY 4.0; the pictures are from Open "
        "Images, CC BY 2.0, each by the author of the id that follows `oiv__` in a file's name"
    ),
    "Latzi/object-centric-low-data-datasets": (
        "traffic signs of `object-centric-low-data-datasets`, doi:10.5281/zenodo.20340519, "
        "CC BY 4.0"
    ),
    "MakrooOwais/UNET_Road_Segmentation": (
        "Roboflow Universe `road_segmentationv1.1`, by instance-segmentation, CC BY 4.0"
    ),
    "Tracer1337/praxisprojekt-fom": (
        "GTSDB: German Traffic Sign Detection Benchmark, Institut für Neuroinformatik, "
        "Ruhr-Universität Bochum"
    ),
}


class Source(NamedTuple):
    """A repository under one licence, and how many pictures of each label were used."""

    repo: str
    licence: str
    roadwork: int
    ordinary: int


def read_sources(path: Path = FILE) -> list[Source]:
    """Read what ``main`` wrote."""
    with path.open(newline="", encoding="utf-8") as lines:
        return [
            Source(row["repo"], row["licence"], int(row["roadwork"]), int(row["ordinary"]))
            for row in csv.DictReader(lines)
        ]


def collect_sources(data: Path) -> list[Source]:
    """Count the pictures of each repository and licence in a data folder's manifest.

    Raises:
        ConfigError: The manifest cannot be read, or a licence asks for attribution that
            ``ATTRIBUTION`` does not hold.
    """
    counts: Counter[tuple[str, str, str]] = Counter()
    columns = ("file", "label", "source_repo", "licence")
    for _, row in read_rows(data / "manifest.csv", *columns):
        if row["file"].startswith(("positives/", "negatives/")):
            counts[row["source_repo"], row["licence"], row["label"]] += 1
    found = [
        Source(repo, licence, counts[repo, licence, "1"], counts[repo, licence, "0"])
        for repo, licence in sorted({(repo, licence) for repo, licence, _ in counts})
    ]
    unthanked(found)
    return found


def unthanked(sources: list[Source]) -> None:
    """Check that everybody who asks for it is named.

    Raises:
        ConfigError: Somebody is not; says who.
    """
    for source in sources:
        if source.licence.startswith(ATTRIBUTED) and source.repo not in ATTRIBUTION:
            where = f"{source.repo} ({source.licence})"
            raise ConfigError(where, "its attribution in training/sources.py", "none")


def attribution(sources: list[Source]) -> str:
    """Return whom to thank for these sources, one line each."""
    unthanked(sources)
    repos = {source.repo for source in sources}
    named = sorted(text for repo, text in ATTRIBUTION.items() if repo in repos)
    return "\n".join(f"- {text[0].upper()}{text[1:]}." for text in named)


def write_sources(data: Path, path: Path = FILE) -> None:
    """Write the sources of a data folder."""
    with path.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(Source._fields)
        writer.writerows(collect_sources(data))


def main() -> None:
    """Write the sources of a data folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with manifest.csv")
    write_sources(parser.parse_args().data)


if __name__ == "__main__":
    main()
