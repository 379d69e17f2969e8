"""Measure the calibrated cascade on the test pictures and write results/lite.json.

Beside the cascade stand "everything runs" (all members on all pictures), each member alone, the
share of pictures leaving each tier, conditions, sources, and nets trained without a source.
"""

import argparse
import json
import platform
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import torch
from calibrate import SETTINGS_FILE
from corpus import CONES_SIZE, HERE, INPUT_SIZES, Picture, add_folder_options, load_pictures
from numpy.typing import NDArray
from pooling import (
    MEMBERS,
    TIERS,
    Floats,
    Outcome,
    Settings,
    log_odds,
    metrics,
    pool,
    prefixes,
    run_cascade,
    sigmoid,
    tier_costs,
)
from sklearn.metrics import matthews_corrcoef
from stress import escalated, left_out
from votes import digest, member_scores

Labels = NDArray[np.int64]
RESULT_FILE = HERE / "results" / "lite.json"
LEAST_PICTURES = 5  # smaller conditions are left out of the table
RESAMPLES = 1000


def load_settings() -> tuple[Settings, dict[str, float]]:
    """Read what calibrate.py fitted, and the members' milliseconds."""
    found = json.loads(SETTINGS_FILE.read_text())
    raw = found["settings"]
    raw["platt"] = {member: tuple(pair) for member, pair in raw["platt"].items()}
    raw["exits"] = tuple(raw["exits"])
    return Settings(**raw), found["milliseconds"]


def interval(
    pictures: list[Picture], probability: Floats, labels: Labels, threshold: float
) -> list[float]:
    """Bootstrap the MCC over scenes, not pictures: 2.5 % and 97.5 % quantiles."""
    rng = np.random.default_rng(72)
    names = sorted({p.group for p in pictures})
    members = [np.flatnonzero([p.group == name for p in pictures]) for name in names]
    values = []
    for _ in range(RESAMPLES):
        rows = np.concatenate([members[i] for i in rng.integers(len(names), size=len(names))])
        values.append(matthews_corrcoef(labels[rows], probability[rows] >= threshold))
    return [round(float(v), 4) for v in np.quantile(values, (0.025, 0.975))]


def measure_cascade(
    settings: Settings, scores: dict[str, Floats], labels: Labels, milliseconds: dict[str, float]
) -> dict[str, Any]:
    """Measure cascade and "everything runs" on one split."""
    outcome = run_cascade(settings, scores)
    everything = pool(settings, scores, MEMBERS)
    costs = tier_costs(milliseconds)
    spent = float(np.take(costs, outcome.tier).mean())
    result: dict[str, object] = {
        "milliseconds": round(spent, 2),
        "everything_milliseconds": round(costs[-1], 2),
        "compute_saved": round(1 - spent / costs[-1], 4),
        "tiers": {
            name: measure_tier(outcome, index, labels, settings.threshold)
            for index, (name, _) in enumerate(TIERS)
        },
    }
    for name, probability in (("cascade", outcome.probability), ("everything", everything)):
        for threshold in sorted({0.5, settings.threshold}):
            result[f"{name}_at_{threshold:.2f}"] = metrics(probability, labels, threshold)
    for member in MEMBERS:
        alone = sigmoid(log_odds(settings, scores, member))
        result[f"only_{member}"] = metrics(alone, labels, 0.5)
    for (name, _), members in zip(TIERS, prefixes(), strict=True):
        result[f"up_to_{name}"] = metrics(pool(settings, scores, members), labels, 0.5)
    return result


def measure_tier(
    outcome: Outcome, index: int, labels: Labels, threshold: float
) -> dict[str, object]:
    """Say what share of pictures leaves at a tier and how often it is right then."""
    left = outcome.tier == index
    right = (outcome.probability >= threshold) == labels
    return {
        "share_leaving": round(float(left.mean()), 4),
        "accuracy_of_leaving": round(float(right[left].mean()), 4) if left.any() else None,
    }


def measure_parts(
    pictures: list[Picture], probability: Floats, labels: Labels, threshold: float
) -> dict[str, dict[str, object]]:
    """Measure the cascade per condition and per source."""
    parts: dict[str, dict[str, object]] = {"conditions": {}, "sources": {}}
    conditions = Counter(c for p in pictures for c in p.conditions)
    for name in sorted(conditions):
        mask = np.array([name in p.conditions for p in pictures])
        if mask.sum() >= LEAST_PICTURES:
            parts["conditions"][name] = metrics(probability[mask], labels[mask], threshold)
    for name in sorted({p.repo for p in pictures}):
        mask = np.array([p.repo == name for p in pictures])
        parts["sources"][name] = metrics(probability[mask], labels[mask], threshold)
    return parts


def describe_members(
    settings: Settings, milliseconds: dict[str, float]
) -> dict[str, dict[str, object]]:
    """Describe each member: file, digest, size, calibration, weight and cost."""
    members: dict[str, dict[str, object]] = {}
    for tier, names in TIERS:
        for name in names:
            a, b = settings.platt[name]
            facts: dict[str, object] = {"tier": tier, "a": round(a, 5), "b": round(b, 5)}
            facts |= {"weight": settings.weights[name], "milliseconds": milliseconds[name]}
            if name not in INPUT_SIZES:
                facts |= {"input_width": CONES_SIZE[0], "input_height": CONES_SIZE[1]}
            else:
                width, height = INPUT_SIZES[name]
                facts |= {"file": f"{name}.onnx", "sha256": digest(name)}
                facts |= {"input_width": width, "input_height": height}
            members[name] = facts
    return members


def processor() -> str:
    """Name the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), "unknown")


def main() -> None:
    """Measure and write everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_folder_options(parser)
    options = parser.parse_args()
    everything = load_pictures(options.data)
    settings, milliseconds = load_settings()
    report: dict[str, Any] = {
        "members": describe_members(settings, milliseconds),
        "pool": {"voters": settings.voters, "prior": settings.prior, "clip": 6.0},
        "exits": dict(zip([name for name, _ in TIERS], [*settings.exits, 0.0], strict=True)),
        "threshold": settings.threshold,
        "splits": {
            f"{split}_{label}": sum(p.split == split and p.label == label for p in everything)
            for split in ("train", "val", "test")
            for label in (0, 1)
        },
    }
    for split in ("val", "test"):
        rows = [i for i, p in enumerate(everything) if p.split == split]
        pictures = [everything[i] for i in rows]
        labels = np.array([p.label for p in pictures])
        scores = member_scores(options, everything, rows)
        report[split] = measure_cascade(settings, scores, labels, milliseconds)
        report[split] |= {"escalated": escalated(settings, scores, labels)}
        if split == "test":
            probability = run_cascade(settings, scores).probability
            report |= measure_parts(pictures, probability, labels, settings.threshold)
            report["mcc_interval"] = interval(pictures, probability, labels, settings.threshold)
    report["left_out"] = left_out(options, everything, settings)
    report["versions"] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "processor": processor(),
        "note": "milliseconds: one thread, lower quartile, on a machine shared with other work",
    }
    RESULT_FILE.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps({key: report[key] for key in ("val", "test", "mcc_interval")}, indent=1))


if __name__ == "__main__":
    main()
