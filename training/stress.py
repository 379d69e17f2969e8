"""Two harder looks: sources that were never trained on, and pictures that were escalated."""

import argparse
import json
from typing import Any

import numpy as np
from corpus import FOLDS, Picture
from numpy.typing import NDArray
from pooling import (
    TIERS,
    Floats,
    Settings,
    ece,
    fit_platt,
    log_odds,
    metrics,
    pool,
    prefixes,
    recalibrate,
    run_cascade,
    sigmoid,
)
from votes import unseen_scores

Labels = NDArray[np.int64]
LEAST_TO_FIT = 10  # pictures of each label below which no calibrator is fitted


def escalated(
    settings: Settings, scores: dict[str, Floats], labels: Labels
) -> dict[str, dict[str, Any]]:
    """Measure each later member and the pool on the pictures that reach its tier.

    `bias` is mean probability minus share of roadwork; `refit` is what Platt would give on these
    pictures alone, for comparison with the shipped a and b.
    """
    tier = run_cascade(settings, scores).tier
    result: dict[str, dict[str, Any]] = {}
    for index, (name, members) in enumerate(TIERS):
        reached = tier >= index
        if index == 0 or not reached.any():
            continue
        truth = labels[reached]
        facts: dict[str, Any] = {"pictures": len(truth), "roadwork": int(truth.sum())}
        answers = {m: sigmoid(log_odds(settings, scores, m))[reached] for m in members}
        answers["pool"] = pool(settings, scores, prefixes()[index])[reached]
        for answer, probability in answers.items():
            bias = float(probability.mean() - truth.mean())
            facts[answer] = {"ece": round(ece(probability, truth), 4), "bias": round(bias, 4)}
        if min(truth.sum(), (1 - truth).sum()) >= LEAST_TO_FIT:
            for member in members:
                pair = fit_platt(scores[member][reached], truth)
                facts[member]["refit"] = [round(value, 4) for value in pair]
        result[name] = facts
    return result


def left_out(
    options: argparse.Namespace, pictures: list[Picture], settings: Settings
) -> dict[str, Any]:
    """Measure nets on the sources they were trained without, where such runs exist.

    `tiny` and `lite0` are taken at a log-odds of 0; `glance_and_look` pools both with the cone
    rule by the shipped settings, which were fitted with all sources; `..._recalibrated` fits
    these nets' own calibrators over all left-out sources, without the pictures of the test split.
    """
    labels = np.array([p.label for p in pictures])
    scores = unseen_scores(options, pictures)
    result: dict[str, Any] = {"schedules": {}}
    for name in ("tiny", "lite0"):
        for run in sorted(options.cache.glob(f"runs/{name}-without-*.json")):
            used = json.loads(run.read_text())["options"]
            result["schedules"][name] = f"{used['stages']} x {used['samples']} views"
    answers = {name: sigmoid(scores[name]) for name in ("tiny", "lite0")}
    answers |= {
        "cones": sigmoid(log_odds(settings, scores, "cones")),
        "glance": pool(settings, scores, ("tiny", "cones")),
        "glance_and_look": pool(settings, scores, ("tiny", "cones", "lite0")),
    }
    kept = np.array([p.split != "test" for p in pictures])
    moved = recalibrate(settings, scores, labels, kept)
    answers["glance_and_look_recalibrated"] = pool(settings, moved, ("tiny", "cones", "lite0"))
    for name, probability in answers.items():
        table: dict[str, Any] = {}
        done = ~np.isnan(probability)
        groups = {"all": done}
        groups |= {fold: done & [p.family in fs for p in pictures] for fold, fs in FOLDS.items()}
        repos = {p.repo for p in pictures}
        groups |= {repo: done & [p.repo == repo for p in pictures] for repo in repos}
        for part, mask in sorted(groups.items()):
            if mask.any():
                table[part] = metrics(probability[mask], labels[mask], 0.5)
        result[name] = table
    return result
