"""The rules the cascade lives by, in pure NumPy: calibration, pooling, exits and scores."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix, f1_score, matthews_corrcoef, roc_auc_score

Floats = NDArray[np.float64]

TIERS = (("glance", ("tiny", "cones")), ("look", ("lite0",)), ("tiles", ("tiles",)))
MEMBERS = tuple(member for _, members in TIERS for member in members)
MOST_LOG_ODDS = 6.0
ECE_BINS = 15


@dataclass(frozen=True)
class Settings:
    """Everything fitted on the validation pictures.

    `platt` maps a member to (a, b): log-odds = a * score + b. `exits` holds the least decision
    confidence with which a picture leaves each tier; the last tier always lets go.
    """

    platt: dict[str, tuple[float, float]]
    weights: dict[str, float]
    voters: float
    exits: tuple[float, ...]
    threshold: float
    prior: float = 0.5


@dataclass(frozen=True)
class Outcome:
    """What the cascade did: probability and tier left, per picture."""

    probability: Floats
    tier: NDArray[np.int64]


def sigmoid(values: Floats) -> Floats:
    """Turn log-odds into probabilities."""
    return 1 / (1 + np.exp(-values))


def fit_platt(
    score: Floats, labels: NDArray[np.int64], penalty: float = 0.05
) -> tuple[float, float]:
    """Fit log-odds = a * score + b on even classes; `penalty` keeps a small collection modest."""
    centre, spread = score.mean(), score.std()
    model = LogisticRegression(C=1 / (penalty * len(score) / 10), class_weight="balanced")
    model.fit(((score - centre) / spread)[:, None], labels)
    slope = float(model.coef_[0, 0] / spread)
    return slope, float(model.intercept_[0] - slope * centre)


def log_odds(settings: Settings, scores: dict[str, Floats], member: str) -> Floats:
    """Calibrate one member's scores and clip them to -6..6."""
    a, b = settings.platt[member]
    return np.clip(a * scores[member] + b, -MOST_LOG_ODDS, MOST_LOG_ODDS)


def recalibrate(
    settings: Settings,
    scores: dict[str, Floats],
    labels: NDArray[np.int64],
    kept: NDArray[np.bool_],
) -> dict[str, Floats]:
    """Calibrate other nets' scores anew, moved to where the shipped calibrators expect them.

    `kept` marks the pictures to fit on; NaN scores are passed over and stay NaN.
    """
    moved = {}
    for member, values in scores.items():
        fitted = kept & ~np.isnan(values)
        slope, offset = fit_platt(values[fitted], labels[fitted]) if fitted.any() else (1.0, 0.0)
        a, b = settings.platt[member]
        moved[member] = (slope * values + offset - b) / a
    return moved


def pool(settings: Settings, scores: dict[str, Floats], members: tuple[str, ...]) -> Floats:
    """Pool members as in Settings: prior + voters * weighted mean of log-odds; probabilities."""
    prior = np.log(settings.prior / (1 - settings.prior))
    votes = np.stack([log_odds(settings, scores, member) - prior for member in members])
    weights = np.array([settings.weights[member] for member in members])
    mean = weights @ votes / weights.sum()
    return sigmoid(prior + settings.voters * mean)


def prefixes() -> list[tuple[str, ...]]:
    """List the members that have voted after each tier."""
    return [
        tuple(member for _, members in TIERS[: index + 1] for member in members)
        for index in range(len(TIERS))
    ]


def run_cascade(settings: Settings, scores: dict[str, Floats]) -> Outcome:
    """Let every picture leave at the first tier whose pooled answer is confident enough."""
    pooled = [pool(settings, scores, members) for members in prefixes()]
    probability, tier = pooled[-1].copy(), np.full(len(pooled[-1]), len(TIERS) - 1)
    for index in reversed(range(len(TIERS) - 1)):
        leaves = 2 * np.abs(pooled[index] - 0.5) >= settings.exits[index]
        probability[leaves], tier[leaves] = pooled[index][leaves], index
    return Outcome(probability, tier)


def tier_costs(milliseconds: dict[str, float]) -> list[float]:
    """Sum the cost of all members up to each tier."""
    return [sum(milliseconds[member] for member in members) for members in prefixes()]


def ece(probability: Floats, labels: NDArray[np.int64]) -> float:
    """Expected calibration error of the probability of roadwork over 15 equal bins."""
    bins = np.minimum((probability * ECE_BINS).astype(int), ECE_BINS - 1)
    error = 0.0
    for index in np.unique(bins):
        inside = bins == index
        gap = abs(float(probability[inside].mean() - labels[inside].mean()))
        error += gap * float(inside.mean())
    return error


def log_loss(probability: Floats, labels: NDArray[np.int64]) -> float:
    """Mean negative log-likelihood, with both labels weighing the same."""
    sure = np.clip(probability, 1e-6, 1 - 1e-6)
    losses = -np.where(labels == 1, np.log(sure), np.log(1 - sure))
    return float(np.mean([losses[labels == label].mean() for label in (0, 1)]))


def metrics(probability: Floats, labels: NDArray[np.int64], threshold: float) -> dict[str, object]:
    """Score probabilities: with one label only, recall or specificity instead of MCC and AUC."""
    guesses = (probability >= threshold).astype(int)
    result: dict[str, object] = {
        "pictures": len(labels),
        "roadwork": int(labels.sum()),
        "accuracy": round(float((guesses == labels).mean()), 4),
    }
    if 0 < labels.sum() < len(labels):
        table = confusion_matrix(labels, guesses)
        result |= {
            "mcc": round(float(matthews_corrcoef(labels, guesses)), 4),
            "f1": round(float(f1_score(labels, guesses)), 4),
            "auc": round(float(roc_auc_score(labels, probability)), 4),
            "ece": round(ece(probability, labels), 4),
            "confusion": {
                "true_negative": int(table[0, 0]),
                "false_positive": int(table[0, 1]),
                "false_negative": int(table[1, 0]),
                "true_positive": int(table[1, 1]),
            },
        }
    else:
        result["recall" if labels.sum() else "specificity"] = result["accuracy"]
    return result
