"""Fit calibrators, pool weights, exits and the decision threshold on the validation pictures.

Writes the settings to results/settings.json; evaluate.py measures them on the test pictures.
"""

import argparse
import itertools
import json
from dataclasses import asdict, replace

import numpy as np
from corpus import FOLDS, HERE, Picture, add_folder_options, load_pictures
from numpy.typing import NDArray
from pooling import (
    MEMBERS,
    TIERS,
    Floats,
    Settings,
    fit_platt,
    log_loss,
    pool,
    prefixes,
    recalibrate,
    run_cascade,
    tier_costs,
)
from sklearn.metrics import matthews_corrcoef
from votes import member_scores, milliseconds, unseen_scores

Labels = NDArray[np.int64]
Part = tuple[dict[str, Floats], Labels]  # scores per member, and the truth
SETTINGS_FILE = HERE / "results" / "settings.json"

WEIGHT_STEPS = (0.5, 1.0, 1.5, 2.0, 3.0)  # for each net, relative to the cone rule's weight of 1
VOTER_STEPS = (1.0, 1.25, 1.5, 1.75, 2.0, 2.5)
EXIT_STEPS: tuple[float, ...] = tuple(np.round(np.arange(0.3, 0.985, 0.02), 2).tolist())
WEIGHT_PENALTY = 0.004  # log-loss that a weight twice or half its neighbour's must earn
MOST_COST = 0.5  # share of "everything runs" the cascade may spend on validation pictures
THRESHOLD_PENALTY = 0.1  # MCC per unit of distance: 0.2 away must earn 0.02
THRESHOLDS: tuple[float, ...] = tuple(np.round(np.arange(0.3, 0.71, 0.05), 2).tolist())


def unevenness(weights: tuple[float, ...]) -> float:
    """Measure how far weights are from being equal: the spread of their log2."""
    return float(np.std(np.log2(np.array(weights))))


def pool_loss(settings: Settings, parts: list[Part]) -> float:
    """Mean log-loss over parts, of the pools after every tier that a part has scores for."""
    losses = []
    for scores, labels in parts:
        known = [members for members in prefixes() if all(name in scores for name in members)]
        pooled = [log_loss(pool(settings, scores, members), labels) for members in known]
        losses.append(float(np.mean(pooled)))
    return float(np.mean(losses))


def unseen_parts(
    options: argparse.Namespace, pictures: list[Picture], settings: Settings
) -> list[Part]:
    """Collect left-out sources, a part per fold, without the pictures of the test split.

    The nets of these runs are other nets on other scales, so each member is calibrated anew over
    all left-out sources, and its scores are moved to where the shipped calibrator expects them.
    """
    kept = np.array([p.split != "test" for p in pictures])
    labels = np.array([p.label for p in pictures])
    scores = recalibrate(settings, unseen_scores(options, pictures), labels, kept)
    parts = []
    for families in FOLDS.values():
        rows = [i for i, p in enumerate(pictures) if p.family in families and p.split != "test"]
        part = {name: values[rows] for name, values in scores.items()}
        complete = {name: values for name, values in part.items() if not np.isnan(values).any()}
        parts.append((complete, np.array([pictures[i].label for i in rows])))
    return [part for part in parts if len(part[0]) == len(scores)]


def fit_pool(settings: Settings, seen: Part, unseen: list[Part]) -> Settings:
    """Choose weights and voters by log-loss, half on seen and half on left-out sources.

    Weights fitted on seen sources alone would trust the nets more than a new city warrants.
    """
    best, least = settings, float("inf")
    for nets in itertools.product(WEIGHT_STEPS, repeat=len(MEMBERS) - 1):
        weights = dict(zip([m for m in MEMBERS if m != "cones"], nets, strict=True))
        weights = {member: weights.get(member, 1.0) for member in MEMBERS}
        for voters in VOTER_STEPS:
            trial = replace(settings, weights=weights, voters=voters)
            loss = pool_loss(trial, [seen]) + (pool_loss(trial, unseen) if unseen else 0.0)
            loss += WEIGHT_PENALTY * unevenness(tuple(weights.values()))
            if loss < least - 1e-9:
                best, least = trial, loss
    return best


def fit_exits(
    settings: Settings, scores: dict[str, Floats], labels: Labels, costs: list[float]
) -> Settings:
    """Choose exits with the least log-loss among those that cost at most MOST_COST.

    Exits that answer fewer pictures correctly than "everything runs" are passed over, and each
    later tier asks for no more confidence than the one before it.
    """
    everything = pool(settings, scores, prefixes()[-1])
    correct = int(((everything >= 0.5) == labels).sum())
    best, least = settings, (True, float("inf"))
    for exits in itertools.product(EXIT_STEPS, repeat=len(TIERS) - 1):
        trial = replace(settings, exits=exits)
        if any(later > earlier for earlier, later in itertools.pairwise(exits)):
            continue
        outcome = run_cascade(trial, scores)
        if float(np.take(costs, outcome.tier).mean()) > MOST_COST * costs[-1]:
            continue
        worse = int(((outcome.probability >= 0.5) == labels).sum()) < correct
        rank = (worse, log_loss(outcome.probability, labels))
        if rank < least:
            best, least = trial, rank
    return best


def fit_threshold(answers: list[tuple[Floats, Labels]]) -> float:
    """Choose the threshold whose neighbourhood has the best MCC, averaged over `answers`.

    Leaving one half must earn it. `answers` are probabilities and the truth.
    """

    def merit(threshold: float) -> float:
        """Mean MCC within 0.05 of a threshold, less a little for its distance from one half."""
        around = [
            matthews_corrcoef(labels, probability >= threshold + step)
            for probability, labels in answers
            for step in (-0.05, 0, 0.05)
        ]
        return float(np.mean(around)) - THRESHOLD_PENALTY * abs(threshold - 0.5)

    return max(THRESHOLDS, key=merit)


def main() -> None:
    """Fit everything in order, print it, and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_folder_options(parser)
    options = parser.parse_args()
    pictures = load_pictures(options.data)
    rows = [i for i, p in enumerate(pictures) if p.split == "val"]
    labels = np.array([pictures[i].label for i in rows])
    scores = member_scores(options, pictures, rows)
    cost = milliseconds(options, pictures)
    settings = Settings(
        platt={member: fit_platt(scores[member], labels) for member in MEMBERS},
        weights=dict.fromkeys(MEMBERS, 1.0),
        voters=1.0,
        exits=(1.0,) * (len(TIERS) - 1),
        threshold=0.5,
    )
    unseen = unseen_parts(options, pictures, settings)
    settings = fit_pool(settings, (scores, labels), unseen)
    settings = fit_exits(settings, scores, labels, tier_costs(cost))
    answers = [(run_cascade(settings, scores).probability, labels)]
    if unseen:
        pooled = [pool(settings, part, prefixes()[1]) for part, _ in unseen]
        answers.append((np.concatenate(pooled), np.concatenate([truth for _, truth in unseen])))
    settings = replace(settings, threshold=fit_threshold(answers))
    SETTINGS_FILE.parent.mkdir(exist_ok=True)
    found = {"settings": asdict(settings), "milliseconds": cost}
    SETTINGS_FILE.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
