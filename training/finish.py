"""From trained necks to the shipped cascade: verdicts, int8 files, calibration."""

import json
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from roadstream.stages.decoding.decode import resize
from roadstream.stages.rules.cones import Pixels, find_cones
from training.calibrate import calibrate, write_results
from training.corpus import HERE, KINDS, Picture, seen_by_scene
from training.export import OUTPUTS, describe, quantise, run, write_float
from training.features import open_levels, whole
from training.fit import load_neck
from training.judged import Judged, unjudged
from training.measured import CROP
from training.members import SIGHTS, Looker, Sight, Watcher, evidence
from training.network import Eyes, first_scene, imagenet_trunk
from training.platt import Reals, shared, tempered
from training.sources import write_sources
from training.verdict import Verdict, cross_fitted, fit_verdict, parts_of

TEMPLATE = HERE / "lite.toml.template"
FINAL = "final"
SHOWN = 96  # pictures that tell the int8 files their ranges, and check them
TIMED = 40
LEAST_AGREEMENT = 0.97  # correlation of log-odds between an int8 file and the net it came from
MOST_OFF = 0.3  # log-odds that are forgiven: of a net that has learnt little, all are alike
KEPT_FLOAT = ("heat", "sides", "neck.scene", "logit")
DATA_NOTE = (
    "Trained on pictures from ROADWork (ODC-By 1.0), CC BY 4.0 Roboflow Universe sets and other "
    "openly licensed sources; ImageNet trunk: EfficientNet-Lite0 (Apache-2.0). See MODEL_CARD.md."
)
CONES_TIER, CONES_SIZE = "glance", (480, 270)


class Places(NamedTuple):
    """The folder of labelled pictures, that of trained necks, and that which gets the rest."""

    data: Path
    work: Path
    out: Path


def weights_of(work: Path, fold: str) -> Path:
    """Name the file of a trained neck."""
    return work / f"neck-{fold}.pt"


def out_of_fold(
    work: Path, sight: Sight, pictures: Sequence[Picture], folds: Mapping[str, Sequence[str]]
) -> Reals:
    """Return the evidence in every picture by the neck that was trained without its source.

    Returns:
        [N, kinds + 1], see ``training.members.evidence``.
    """
    kept = work / f"evidence-{sight.name}.npy"
    if not kept.exists():
        levels = open_levels([work / f"seen-{sight.name}"])
        found = np.zeros((len(pictures), len(KINDS) + 1))
        for fold, families in folds.items():
            neck = load_neck(weights_of(work, fold)).eval()
            with torch.inference_mode():
                for row, picture in enumerate(pictures):
                    if picture.family in families:
                        found[row] = evidence(neck(levels.take([row]))).numpy()[0]
        np.save(kept, found)
    return np.asarray(np.load(kept))


def export(net: nn.Module, sight: Sight, images: Sequence[Pixels], folder: Path) -> None:
    """Write one member's int8 file, and check it against torch.

    Raises:
        ValueError: The file says something else than the net.
    """
    show, target = whole(sight.width, sight.height), folder / f"{sight.name}.onnx"
    shown = [
        show(images[row])
        for row in np.linspace(0, len(images) - 1, min(SHOWN, len(images))).astype(int)
    ]
    with TemporaryDirectory() as scratch:
        outputs = OUTPUTS if sight.finds else OUTPUTS[:1]
        write_float(net, (sight.width, sight.height), outputs, Path(scratch) / "float.onnx")
        quantise(Path(scratch) / "float.onnx", target, shown[::2], KEPT_FLOAT)
    facts = {"training_data": DATA_NOTE}
    describe(target, facts | {"kinds": ",".join(KINDS)} if sight.finds else facts)
    checked = shown[1::2]
    with torch.inference_mode():
        said = [net(torch.from_numpy(each[None])) for each in checked]
    wanted = [float(each[0]) for each in said]
    got = run(target, checked)
    agreement, most = float(np.corrcoef(wanted, got)[0, 1]), float(np.abs(wanted - got).max())
    size = f"{target.stat().st_size / 1e6:.2f} MB"
    print(f"{target.name}: {size}, agrees to {agreement:.4f}, at most {most:.2f} off", flush=True)
    if agreement < LEAST_AGREEMENT and most > MOST_OFF:
        raise ValueError(f"{target}: expected {LEAST_AGREEMENT} or more, got {agreement:.4f}")


def milliseconds(spent: Sequence[float]) -> float:
    """Return the lower quartile of seconds: other work on the machine only makes runs slower."""
    return float(np.percentile(spent, 25)) * 1e3


def cone_scores(images: Sequence[Pixels], spent: list[float]) -> Reals:
    """Score pictures by the cone rule."""
    found = []
    for image in images:
        shown = resize(image, *CONES_SIZE)
        begun = time.process_time()
        found.append(find_cones(shown).score)
        spent.append(time.process_time() - begun)
    return np.array(found)


def judged_raw(pictures: Sequence[Picture], raw: dict[str, Reals]) -> list[Judged]:
    """Return the pictures that tell how well strangers are judged, with raw scores for votes.

    Left out are those that the classifier of whole pictures was trained on, and crops of signs.
    """
    known = seen_by_scene()
    return [
        replace(unjudged(one), votes={name: float(scores[row]) for name, scores in raw.items()})
        for row, one in enumerate(pictures)
        if one.file not in known and CROP not in one.conditions
    ]


def finish(
    pictures: Sequence[Picture],
    images: Sequence[Pixels],
    folds: Mapping[str, Sequence[str]],
    places: Places,
) -> None:
    """Write the cascade, its weights and the results.

    Args:
        pictures: Those with a label.
        images: Their pixels.
        folds: The families of each fold.
        places: Where to read and write.
    """
    folder = places.out / "cascades" / "lite"
    results = places.out / "training" / "results"
    for each in (folder, results):
        each.mkdir(parents=True, exist_ok=True)
    spent: list[float] = []
    raw = {"cones": cone_scores(images, spent)}
    costs = dict.fromkeys((sight.tier for sight in SIGHTS), 0.0)
    costs[CONES_TIER] += milliseconds(spent)
    for sight in SIGHTS:
        if sight.finds:
            seen = out_of_fold(places.work, sight, pictures, folds)
            raw[sight.name], verdict = weigh(seen, pictures)
            eyes = Eyes(imagenet_trunk(), load_neck(weights_of(places.work, FINAL)))
            net = Looker(eyes, sight, torch.from_numpy(verdict.weights), verdict.bias).eval()
            export(net, sight, images, folder)
        else:
            export(Watcher(first_scene(), sight).eval(), sight, images, folder)
        spent, show = [], whole(sight.width, sight.height)
        asked = images[:TIMED] if sight.finds else images
        said = run(folder / f"{sight.name}.onnx", [show(image) for image in asked], spent)
        costs[sight.tier] += milliseconds(spent)
        if not sight.finds:
            raw[sight.name] = said.astype(np.float64)
    found = calibrate(judged_raw(pictures, raw), TEMPLATE.read_text(encoding="utf-8"), costs)
    (folder.parent / "lite.toml").write_text(found.text, encoding="utf-8")
    write_results(found, results)
    write_sources(places.data, results / "sources.csv")
    (results / "versions.json").write_text(json.dumps(versions(), indent=1) + "\n")


def weigh(seen: Reals, pictures: Sequence[Picture]) -> tuple[Reals, Verdict]:
    """Return log-odds [N] of evidence, each picture's weighed without its scene; and the verdict.

    Crops of signs are weighed, but weigh nothing.
    """
    groups = [picture.group for picture in pictures]
    labels = np.array([picture.label for picture in pictures], np.float64)
    counts = np.array([CROP not in picture.conditions for picture in pictures], np.float64)
    importance = shared(tempered(groups) * counts, labels)
    scores = cross_fitted(seen, labels, importance, parts_of(groups))
    return scores, fit_verdict(seen, labels, importance)


def versions() -> dict[str, str]:
    """Return the versions that matter for the figures."""
    names = ("torch", "onnxruntime", "numpy", "opencv-python-headless", "scikit-learn")
    return {"python": platform.python_version()} | {name: version(name) for name in names}
