"""Make the `lite` cascade anew: from a folder of labelled pictures to weights, cascade and figures.

A run that was interrupted goes on where it stopped; what is in the work folder is not made again.
"""

import os
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import cv2
import torch
from cyclopts import App

from training.corpus import FOLDS, Decoded, Picture, decode_once, load_pictures
from training.cutouts import Cutout, cut_all, load_cutouts, save_cutouts
from training.features import keep_pictures, make_views, open_views, whole
from training.finish import FINAL, finish, weights_of
from training.fit import Recipe, fit
from training.members import SIGHTS
from training.views import ViewMaker, sampling_weights

app = App(help=__doc__, help_format="plaintext")
WORK = Path.home() / ".cache/roadstream-training"
VIEWS_PER_PART = 1000


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

    def parts(self) -> list[Path]:
        """Name the parts in which the views are kept."""
        count = max(1, round(self.views / VIEWS_PER_PART))
        return [self.work / f"views-{self.seed}-{part:02d}" for part in range(count)]


def cut_out(plan: Plan, part: int, parts: int) -> None:
    """Cut the objects out of every picture of a part."""
    path = plan.work / f"cutouts-{part:02d}-of-{parts:02d}.msgpack"
    if not path.exists():
        pictures, images = plan.decoded()
        rows = range(part, len(pictures), parts)
        save_cutouts(path, cut_all([pictures[row] for row in rows], [images[row] for row in rows]))
    print(f"cut-outs: part {part + 1} of {parts}", flush=True)


def make_part(plan: Plan, part: int, parts: int) -> None:
    """Make one part of the views."""
    pictures, images = plan.decoded()
    cutouts: list[Cutout] = []
    for path in sorted(plan.work.glob(f"cutouts-*-of-{parts:02d}.msgpack")):
        cutouts += load_cutouts(path)
    maker = ViewMaker(pictures, images, cutouts)
    path = plan.parts()[part]
    make_views(maker, sampling_weights(pictures), VIEWS_PER_PART, plan.seed + part, path)
    print(f"views: part {part + 1} of {len(plan.parts())}", flush=True)


def show(plan: Plan, name: str) -> None:
    """Keep what the trunk makes of every labelled picture, as one member sees it."""
    sight = next(each for each in SIGHTS if each.name == name)
    _, rows, images = plan.labelled()
    shown = whole(sight.width, sight.height, *sight.rows)
    keep_pictures([images[row] for row in rows], shown, plan.work / f"seen-{name}")
    print(f"pictures as {name} sees them", flush=True)


def train(plan: Plan, fold: str) -> None:
    """Train one neck, without the sources of a fold or with all."""
    views = open_views(plan.parts())
    rows = views.without(FOLDS.get(fold, ()))
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
    out: Path = Path("cascades"),
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
        Folder that gets lite.toml and lite/.
    """
    plan = Plan(data, work, views, seed)
    work.mkdir(parents=True, exist_ok=True)
    pictures, rows, images = plan.labelled()
    with ProcessPoolExecutor(processes, get_context("spawn"), _one_thread) as pool:
        _wait([pool.submit(cut_out, plan, part, processes) for part in range(processes)])
        parts = range(len(plan.parts()))
        made = [pool.submit(make_part, plan, part, processes) for part in parts]
        _wait(made + [pool.submit(show, plan, sight.name) for sight in SIGHTS if sight.finds])
        _wait([pool.submit(train, plan, fold) for fold in (*FOLDS, FINAL)])
    finish(data, pictures, [images[row] for row in rows], work, out)


def _one_thread() -> None:
    """There are as many processes as cores."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def _wait(futures: Sequence["Future[None]"]) -> None:
    for future in futures:
        future.result()


if __name__ == "__main__":
    app()
