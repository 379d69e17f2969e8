"""Make the `lite` cascade anew: from a folder of labelled pictures to weights, cascade and figures.

A run that was interrupted goes on where it stopped; what is in the work folder is not made again.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import cv2
import torch
from cyclopts import App

from roadstream.schemas.errors import ConfigError
from roadstream.stages.rules.cones import Pixels
from training.card import write_pages
from training.corpus import (
    MORE_BOXES,
    Decoded,
    Picture,
    decode_once,
    folds_of,
    load_pictures,
)
from training.cutouts import Cutout, cut_all, load_cutouts, save_cutouts
from training.features import keep_pictures, make_views, open_views, whole
from training.finish import FINAL, Places, finish, weights_of
from training.fit import Recipe, fit
from training.measured import CROP
from training.members import SIGHTS
from training.rules import write_rules
from training.sources import collect_sources
from training.tagging import add_tags
from training.views import ViewMaker, sampling_weights

app = App(help=__doc__, help_format="plaintext")
WORK = Path.home() / ".cache/roadstream-training"
ROOT = Path(__file__).resolve().parent.parent
VIEWS_PER_PART = 1000
CUTOUT_PARTS = 2  # the same on every machine: views depend on the order of cut-outs


@dataclass(frozen=True)
class Plan:
    """What is trained, from what, and where the intermediate results are kept."""

    data: Path
    work: Path
    views: int
    seed: int

    def decoded(self) -> tuple[list[Picture], Decoded]:
        """Open the pictures."""
        pictures = load_pictures(self.data)
        return pictures, decode_once(self.data, pictures, self.work)

    def labelled(self) -> tuple[list[Picture], list[int], Decoded]:
        """Open the pictures with a label; the numbers are their rows among the decoded."""
        pictures, images = self.decoded()
        rows = [row for row, picture in enumerate(pictures) if picture.label >= 0]
        return [pictures[row] for row in rows], rows, images

    def whole(self) -> tuple[list[Picture], list[Pixels]]:
        """Open the pictures that show what a camera sees: no crops."""
        pictures, images = self.decoded()
        rows = [row for row, one in enumerate(pictures) if CROP not in one.conditions]
        return [pictures[row] for row in rows], [images[row] for row in rows]

    def parts(self) -> list[Path]:
        """Name the parts in which the views are kept."""
        count = max(1, round(self.views / VIEWS_PER_PART))
        return [self.work / f"views-{self.seed}-{part:02d}" for part in range(count)]

    def cutouts(self, part: int) -> Path:
        """Name the file of a part of the cut-outs."""
        return self.work / f"cutouts-{part:02d}-of-{CUTOUT_PARTS:02d}.msgpack"

    def claim(self) -> None:
        """Note what the work folder is made of.

        Raises:
            ConfigError: It was made of something else.
        """
        digest = hashlib.sha256()
        for path in (self.data / "manifest.csv", self.data / "boxes.csv", MORE_BOXES):
            digest.update(path.read_bytes())
        made_of = f"{digest.hexdigest()} {self.views} views, seed {self.seed}\n"
        note = self.work / "made_of.txt"
        if note.exists() and note.read_text() != made_of:
            expected = "a folder made of these pictures, boxes, --views and --seed"
            raise ConfigError(str(self.work), f"{expected}; delete it or name another", "another")
        self.work.mkdir(parents=True, exist_ok=True)
        note.write_text(made_of)


def cut_out(plan: Plan, part: int) -> None:
    """Cut the objects out of every picture of a part."""
    path = plan.cutouts(part)
    if not path.exists():
        pictures, images = plan.decoded()
        rows = range(part, len(pictures), CUTOUT_PARTS)
        save_cutouts(path, cut_all([pictures[row] for row in rows], [images[row] for row in rows]))
    print(f"cut-outs: part {part + 1} of {CUTOUT_PARTS}", flush=True)


def make_part(plan: Plan, part: int) -> None:
    """Make one part of the views."""
    pictures, images = plan.decoded()
    cutouts: list[Cutout] = []
    for one in range(CUTOUT_PARTS):
        cutouts += load_cutouts(plan.cutouts(one))
    maker = ViewMaker(pictures, images, cutouts)
    path, count = plan.parts()[part], min(VIEWS_PER_PART, plan.views)
    make_views(maker, sampling_weights(pictures), count, plan.seed + part, path)
    print(f"views: part {part + 1} of {len(plan.parts())}", flush=True)


def show(plan: Plan, name: str) -> None:
    """Keep what the trunk makes of every labelled picture, as one member sees it."""
    sight = next(each for each in SIGHTS if each.name == name)
    _, rows, images = plan.labelled()
    shown = whole(sight.width, sight.height, *sight.rows)
    keep_pictures([images[row] for row in rows], shown, plan.work / f"seen-{name}")
    print(f"pictures as {name} sees them", flush=True)


def train(plan: Plan, fold: str, families: Sequence[str]) -> None:
    """Train one neck, without the source families of a fold."""
    views = open_views(plan.parts())
    rows = views.without(families)
    fit(views, rows, Recipe(seed=plan.seed), weights_of(plan.work, fold))
    print(f"trained: {fold}", flush=True)


@app.default
def main(
    data: Path,
    /,
    *,
    work: Path = WORK,
    views: int = 14_000,
    seed: int = 72,
    processes: int = os.cpu_count() or 1,
    out: Path = ROOT,
) -> None:
    """Train, calibrate, export and judge the cascade `lite`.

    Parameters
    ----------
    data
        Folder with manifest.csv, boxes.csv, positives/, negatives/ and ambiguous/.
    work
        Folder of intermediate results, about 8 GB.
    views
        Training views.
    seed
        Of views and training.
    processes
        Processes that work at once, each on one thread and with 3 GB of memory.
    out
        Folder laid out like the repository: gets cascades/lite.toml and cascades/lite/, the figures
        in training/results/, and the pages docs/quality.md and training/MODEL_CARD.md.
    """
    plan = Plan(data, work, views, seed)
    folds = folds_of(load_pictures(data))
    collect_sources(data)  # says who is not named yet before hours have passed, not after
    train_all(plan, folds, processes)
    pictures, rows, images = plan.labelled()
    places = Places(data, work, out)
    finish(pictures, [images[row] for row in rows], folds, places)
    add_tags(*plan.whole(), folds, places, seed)
    write_rules(out)
    write_pages(out)


@app.command
def tags(data: Path, /, *, work: Path = WORK, seed: int = 72, out: Path = ROOT) -> None:
    """Fit the heads for light and weather anew, and put them into the first tier's net as it is.

    Parameters
    ----------
    data
        See above.
    work
        See above; of its files those of decoded pictures and of tags are used.
    seed
        Of changed pictures and fitting.
    out
        Folder laid out like the repository, with cascades/lite.toml and its files.
    """
    torch.set_num_threads(1)
    folds = folds_of(load_pictures(data))
    add_tags(*Plan(data, work, 0, seed).whole(), folds, Places(data, work, out), seed)
    write_rules(out)
    write_pages(out)


def train_all(plan: Plan, folds: Mapping[str, Sequence[str]], processes: int) -> None:
    """Make what is not there yet: cut-outs, views, and a neck without each fold and with all."""
    plan.claim()
    plan.decoded()
    with ProcessPoolExecutor(processes, get_context("spawn"), _one_thread) as pool:
        _wait([pool.submit(cut_out, plan, part) for part in range(CUTOUT_PARTS)])
        parts = range(len(plan.parts()))
        made = [pool.submit(make_part, plan, part) for part in parts]
        _wait(made + [pool.submit(show, plan, sight.name) for sight in SIGHTS if sight.finds])
        _wait([pool.submit(train, plan, *run) for run in (*folds.items(), (FINAL, ()))])


def _one_thread() -> None:
    """There are as many processes as cores."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def _wait(futures: Sequence[Future[None]]) -> None:
    for future in futures:
        future.result()
