"""What was measured: the files in ``results/`` that the pages on quality are made of."""

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from roadstream.schemas.cascade.loading import load_cascade
from roadstream.schemas.cascade.model import Cascade
from training import rules
from training.judged import Judged, read_judged
from training.rules import Tried, read_rules
from training.sources import Source, read_sources
from training.tag_figures import FILE, Figures, read_figures

# Cut around one sign, which fills much of the picture: no camera sees that, so they count apart.
CROP = "dashcam crop 256x256"

# Files of judged pictures and what they show; the first one there is what the page is about.
RUNS = {
    "lite": "`lite`, trained and calibrated without the scene, and mostly without the source",
    "everything": "the same, all members on every picture",
    "strangers": "the same cascade, calibrated without the source too",
    "scenes": "trained with the source, without the scene",
    "before_sources": "revision 0be7d15, on sources it was not trained on",
    "before_scenes": "revision 0be7d15, on scenes of sources it was trained on",
}


@dataclass(frozen=True)
class Results:
    """What the pages are made of; see ``load_results``."""

    cascade: Cascade
    runs: dict[str, list[Judged]]
    sources: list[Source]
    calibration: dict[str, Any] = field(default_factory=dict)
    ablations: list[dict[str, str]] = field(default_factory=list)
    learning: list[dict[str, str]] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    tags: Figures | None = None
    rules: list[Tried] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The run that the page is about."""
        return next(name for name in RUNS if name in self.runs)

    @property
    def main(self) -> list[Judged]:
        """The pictures that the page is about."""
        return self.pictures(self.name)

    def pictures(self, name: str) -> list[Judged]:
        """The pictures of a run, without crops."""
        return [one for one in self.runs[name] if CROP not in one.conditions]

    def crops(self, name: str) -> list[Judged]:
        """The crops of a run."""
        return [one for one in self.runs[name] if CROP in one.conditions]


def load_results(folder: Path, cascade: str) -> Results:
    """Read a folder of results: all but ``sources.csv`` and one run may be missing.

    Args:
        folder: Holds a file of judged pictures for each of ``RUNS``, ``calibration.json`` (see
            ``calibrate``), ``ablations.csv`` (any columns), ``learning_curve.csv`` (scenes, mcc,
            mcc_by_scene, auc), ``versions.json`` (name to version), ``tags.json`` and
            ``rules.json``.
        cascade: The cascade file that was judged, or the name of a shipped one.

    Raises:
        ValueError: No run is there, or a file cannot be understood.
    """
    there = [name for name in RUNS if (folder / f"{name}.csv").exists()]
    if not there:
        raise ValueError(f"{folder}: expected one of {', '.join(f'{n}.csv' for n in RUNS)}")
    return Results(
        cascade=load_cascade(cascade),
        runs={name: read_judged(folder / f"{name}.csv") for name in there},
        sources=read_sources(folder / "sources.csv"),
        calibration=_json(folder / "calibration.json"),
        ablations=_rows(folder / "ablations.csv"),
        learning=_rows(folder / "learning_curve.csv"),
        versions=_json(folder / "versions.json"),
        tags=read_figures(folder / FILE),
        rules=read_rules(folder / rules.FILE),
    )


def _json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))
