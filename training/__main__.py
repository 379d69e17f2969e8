"""Make the `lite` cascade anew: from a folder of labelled pictures to ONNX, cascade and figures.

    python -m training DATA                 everything, taken up where it was interrupted
    python -m training DATA --only final    the nets that ship, without the folds that judge them
"""

import os
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Literal

import cv2
import numpy as np
import torch
from cyclopts import App, Parameter

from training.corpus import FOLDS, Decoded, Picture, decode_once, load_pictures
from training.cutouts import Cutout, cut_all, load_cutouts, save_cutouts
from training.features import Views, as_input, make_views, open_views, picture_features, whole
from training.finish import finish
from training.fit import Recipe, fit
from training.members import SIGHTS, Sight, evidence
from training.views import CLOSE, GLANCE, Frame, ViewMaker, sampling_weights

app = App(help=__doc__, help_format="plaintext")
FINAL = "final"
VIEWS_PER_PART = 1000
FRAMES = {"close": CLOSE, "glance": GLANCE}


@dataclass(frozen=True)
class Plan:
    """What is trained, from what, and where the intermediate results are kept.

    Attributes:
        data: Folder of labelled pictures.
        work: Folder of intermediate results; what is in it is not made again.
        views: Number of training views for each of the nets.
        passes: How often each view is learnt from.
        seed: Of views and of training.
    """

    data: Path
    work: Path
    views: int
    passes: float
    seed: int

    @property
    def recipe(self) -> Recipe:
        """How nets learn."""
        return Recipe(passes=self.passes, seed=self.seed)

    def pictures(self) -> list[Picture]:
        """Load what there is to know about the pictures."""
        return load_pictures(self.data)

    def decoded(self, pictures: list[Picture]) -> Decoded:
        """Open the decoded pictures."""
        return decode_once(self.data, pictures, self.work)

    def parts(self, frame: str) -> list[Path]:
        """Name the parts in which the views of a frame are kept."""
        count = max(1, round(self.views / VIEWS_PER_PART))
        return [self.work / f"views-{frame}-{self.seed}-{part:02d}" for part in range(count)]


def _quietly() -> None:
    """Use one thread per process: there are as many processes as cores."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def cut_out(plan: Plan, part: int, parts: int) -> None:
    """Cut the objects out of every picture of a part."""
    _quietly()
    path = plan.work / f"cutouts-{part}-of-{parts}.msgpack"
    if not path.exists():
        pictures = plan.pictures()
        images = plan.decoded(pictures)
        rows = range(part, len(pictures), parts)
        save_cutouts(path, cut_all([pictures[row] for row in rows], [images[row] for row in rows]))
        print(f"cutouts: part {part + 1} of {parts}", flush=True)


def make_part(plan: Plan, frame: str, part: int) -> None:
    """Make one part of the views."""
    _quietly()
    pictures = plan.pictures()
    cutouts: list[Cutout] = []
    for path in sorted(plan.work.glob("cutouts-*.msgpack")):
        cutouts += load_cutouts(path)
    maker = ViewMaker(pictures, plan.decoded(pictures), cutouts, FRAMES[frame])
    path = plan.parts(frame)[part]
    make_views(maker, sampling_weights(pictures), VIEWS_PER_PART, plan.seed + part, path)
    print(f"views: {path.name}", flush=True)


def show(plan: Plan, sight: Sight) -> None:
    """Pass every labelled picture, as one member sees it, through the frozen part."""
    _quietly()
    pictures = plan.pictures()
    images = plan.decoded(pictures)
    labelled = [images[row] for row, picture in enumerate(pictures) if picture.label >= 0]
    shown = whole(sight.width, sight.height, *sight.rows)
    picture_features(labelled, shown, plan.work / f"seen-{sight.name}.npy")
    print(f"pictures as {sight.name} sees them", flush=True)


def train(plan: Plan, frame: str, fold: str) -> None:
    """Train one net, without the sources of a fold or with all, and keep what it sees of them."""
    _quietly()
    views = open_views(plan.parts(frame))
    left_out = FOLDS.get(fold, ())
    net = fit(views, views.without(left_out), plan.recipe, plan.work / f"{frame}-{fold}.pt").eval()
    labelled = [picture for picture in plan.pictures() if picture.label >= 0]
    rows = [i for i, picture in enumerate(labelled) if picture.family in left_out]
    for sight in SIGHTS:
        if sight.frame != frame or not rows:
            continue
        seen = np.load(plan.work / f"seen-{sight.name}.npy", mmap_mode="r")
        with torch.inference_mode():
            found = [evidence(net(as_input(seen[row : row + 1]))).numpy()[0] for row in rows]
        np.save(plan.work / f"evidence-{sight.name}-{fold}.npy", np.array(found))


@app.default
def main(
    data: Path,
    /,
    *,
    work: Path = Path.home() / ".cache/roadstream-training",
    views: Annotated[int, Parameter(help="training views per net")] = 14_000,
    passes: Annotated[float, Parameter(help="how often a view is learnt from")] = 1.0,
    seed: int = 72,
    processes: int = os.cpu_count() or 1,
    only: Annotated[Literal["all", "final"], Parameter(help="final: no figures")] = "all",
    out: Path = Path("cascades"),
) -> None:
    """Train, calibrate, export and judge the cascade `lite`.

    Args:
        data: Folder with manifest.csv, boxes.csv and the pictures.
        work: Folder of intermediate results, about 8 GB; a run that was interrupted goes on there.
        processes: Processes that work at once, one thread each.
        out: Folder that gets lite.toml and lite/.
    """
    plan = Plan(data, work, views, passes, seed)
    work.mkdir(parents=True, exist_ok=True)
    plan.decoded(plan.pictures())
    folds = [FINAL] if only == "final" else [*FOLDS, FINAL]
    frames = list(dict.fromkeys(sight.frame for sight in SIGHTS))
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        _wait([pool.submit(cut_out, plan, part, processes) for part in range(processes)])
        parts = [(frame, part) for frame in frames for part in range(len(plan.parts(frame)))]
        made = [pool.submit(make_part, plan, frame, part) for frame, part in parts]
        _wait(made + [pool.submit(show, plan, sight) for sight in SIGHTS])
        _wait([pool.submit(train, plan, frame, fold) for frame in frames for fold in folds])
    finish(plan.pictures(), data, work, out)


def _wait(futures: list["Future[None]"]) -> None:
    for future in futures:
        future.result()


if __name__ == "__main__":
    app()
