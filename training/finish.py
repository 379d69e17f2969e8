"""From trained nets to the shipped cascade: verdicts, int8 files, calibration, pages."""

import json
import platform
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import nn

from stages.cones import Pixels
from training import card
from training.calibrate import calibrate, write_results
from training.corpus import FOLDS, KINDS, Picture, seen_at_start
from training.export import OUTPUTS, describe, quantise, run, write_float
from training.features import Stored, open_levels, whole
from training.fit import load_neck
from training.judged import Judged, read_truth, write_judged
from training.members import SIGHTS, Looker, Sight, Watcher, evidence
from training.network import Eyes, imagenet_trunk
from training.platt import tempered
from training.scenes import load_scene
from training.sources import write_sources
from training.verdict import Reals, Verdict, cross_fitted, fit_verdict, parts_of

HERE = Path(__file__).resolve().parent
TEMPLATE, RESULTS = HERE / "lite.toml.template", HERE / "results"
FINAL = "final"
SHOWN = 96  # pictures that tell the int8 files their ranges
TIMED = 40
LEAST_AGREEMENT = 0.97  # correlation of log-odds between an int8 file and the net it came from
KEPT_FLOAT = ("heat", "sides", "neck.scene")
DATA_NOTE = (
    "Trained on pictures from ROADWork (ODC-By 1.0), CC BY 4.0 Roboflow Universe sets and other "
    "openly licensed sources; ImageNet trunk: EfficientNet-Lite0 (Apache-2.0). See MODEL_CARD.md."
)


def weights_of(work: Path, sight: Sight, fold: str) -> Path:
    """Name the file of a trained net."""
    return work / f"{sight.net}-{fold}.pt"


def seen_by(work: Path, sight: Sight, fold: str, levels: Stored, rows: Sequence[int]) -> Reals:
    """Return what a fold's net says of pictures: [N, kinds + 1] evidence, or [N, 1] log-odds."""
    path = weights_of(work, sight, fold)
    with torch.inference_mode():
        if sight.net == "scene":
            scene = load_scene(path).eval()
            found = [scene.judge(levels.fine_of([row])).numpy() for row in rows]
        else:
            neck = load_neck(path).eval()
            found = [evidence(neck(levels.take([row]))).numpy()[0] for row in rows]
    return np.array(found, np.float64)


def out_of_fold(work: Path, sight: Sight, pictures: Sequence[Picture]) -> Reals:
    """Return what is said of every picture by the net that was trained without its source."""
    kept = work / f"out-of-fold-{sight.name}.npy"
    if not kept.exists():
        levels = open_levels([work / f"seen-{sight.name}"])
        found = np.zeros((len(pictures), 1 if sight.net == "scene" else len(KINDS) + 1))
        for fold, families in FOLDS.items():
            rows = [row for row, picture in enumerate(pictures) if picture.family in families]
            found[rows] = seen_by(work, sight, fold, levels, rows)
        np.save(kept, found)
    return np.asarray(np.load(kept))


def shipped(work: Path, sight: Sight, verdict: Verdict | None) -> nn.Module:
    """Return a member as it is exported; a verdict belongs to those that look for objects."""
    path = weights_of(work, sight, FINAL)
    if verdict is None:
        return Watcher(load_scene(path), sight).eval()
    eyes = Eyes(imagenet_trunk(), load_neck(path))
    return Looker(eyes, sight, torch.from_numpy(verdict.weights), verdict.bias).eval()


def export(net: nn.Module, sight: Sight, images: Sequence[Pixels], folder: Path) -> None:
    """Write one member's int8 file, and check it against torch.

    Raises:
        ValueError: The file says something else than the net.
    """
    show, target = whole(sight.width, sight.height), folder / f"{sight.name}.onnx"
    shown = [show(images[row]) for row in np.linspace(0, len(images) - 1, SHOWN).astype(int)]
    outputs = OUTPUTS[:1] if sight.net == "scene" else OUTPUTS
    with TemporaryDirectory() as scratch:
        write_float(net, (sight.width, sight.height), outputs, Path(scratch) / "float.onnx")
        quantise(Path(scratch) / "float.onnx", target, shown[::2], KEPT_FLOAT)
    facts = {"training_data": DATA_NOTE}
    describe(target, facts if sight.net == "scene" else facts | {"kinds": ",".join(KINDS)})
    checked = shown[1::2]
    with torch.inference_mode():
        said = [net(torch.from_numpy(each[None])) for each in checked]
    wanted = [float(each if isinstance(each, torch.Tensor) else each[0]) for each in said]
    agreement = float(np.corrcoef(wanted, run(target, checked))[0, 1])
    print(f"{target.name}: {target.stat().st_size / 1e6:.2f} MB, agrees to {agreement:.4f}")
    if agreement < LEAST_AGREEMENT:
        raise ValueError(f"{target}: expected {LEAST_AGREEMENT} or more, got {agreement:.4f}")


def milliseconds(sight: Sight, images: Sequence[Pixels], folder: Path) -> float:
    """Return the lower quartile of a member's processor time, one picture at a time."""
    show = whole(sight.width, sight.height)
    spent: list[float] = []
    run(folder / f"{sight.name}.onnx", [show(image) for image in images[:TIMED]], spent)
    return float(np.percentile(spent, 25)) * 1e3


def judged_raw(data: Path, pictures: Sequence[Picture], raw: dict[str, Reals]) -> list[Judged]:
    """Return the pictures with raw scores for votes."""
    place = {picture.file: row for row, picture in enumerate(pictures)}
    return [
        replace(one, votes={name: float(scores[place[one.file]]) for name, scores in raw.items()})
        for one in read_truth(data)
    ]


def finish(
    data: Path, pictures: Sequence[Picture], images: Sequence[Pixels], work: Path, out: Path
) -> None:
    """Write the cascade, its weights, the results and the pages.

    Args:
        data: Folder of labelled pictures.
        pictures: Those with a label.
        images: Their pixels.
        work: Folder of the trained nets.
        out: Gets lite.toml and lite/.
    """
    groups = [picture.group for picture in pictures]
    labels = np.array([picture.label for picture in pictures], np.float64)
    importance, parts = tempered(groups), parts_of(groups)
    raw, folder = {}, out / "lite"
    folder.mkdir(parents=True, exist_ok=True)
    costs: dict[str, float] = {}
    for sight in SIGHTS:
        seen = out_of_fold(work, sight, pictures)
        verdict = None
        if sight.net == "scene":
            raw[sight.name] = seen[:, 0]
        else:
            raw[sight.name] = cross_fitted(seen, labels, importance, parts)
            verdict = fit_verdict(seen, labels, importance)
        export(shipped(work, sight, verdict), sight, images, folder)
        cost = milliseconds(sight, images, folder)
        costs[sight.tier] = costs.get(sight.tier, 0.0) + cost
    seen_before = seen_at_start()
    scores = [one for one in judged_raw(data, pictures, raw) if one.file not in seen_before]
    write_judged(RESULTS / "raw.csv", scores)
    found = calibrate(scores, TEMPLATE.read_text(encoding="utf-8"), costs)
    (out / "lite.toml").write_text(found.text, encoding="utf-8")
    write_results(found)
    write_sources(data)
    (RESULTS / "versions.json").write_text(json.dumps(versions(), indent=1) + "\n")
    card.main()


def versions() -> dict[str, str]:
    """Return the versions that matter for the figures."""
    names = ("torch", "onnxruntime", "numpy", "opencv-python-headless", "scikit-learn")
    return {"python": platform.python_version()} | {name: version(name) for name in names}
