"""From what a net sees to the log-odds of roadwork: few weights, all of them positive."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.platt import Reals, Ridge, fit_logistic

DECAY = 0.02  # pulls every weight to its usual value, in units of one picture's loss
USUAL = 0.6
LEAST = 0.1  # nothing that is looked for counts for nothing
PARTS = 5


class Verdict(NamedTuple):
    """How evidence is weighed: log-odds = weights · evidence + bias."""

    weights: Reals
    bias: float

    def __call__(self, evidence: Reals) -> Reals:
        """Return log-odds [N] for evidence [N, parts]."""
        return np.asarray(evidence @ self.weights + self.bias)


def fit_verdict(evidence: Reals, labels: Reals, importance: Reals) -> Verdict:
    """Fit weights ≥ `LEAST` by regularised logistic regression.

    Args:
        evidence: [N, parts], see `training.members.evidence`.
        labels: 0 or 1, [N].
        importance: Weight of each picture, [N]; they are scaled to a mean of 1.
    """
    weights = importance / importance.mean()
    ridge = Ridge(2 * DECAY * len(labels), USUAL, LEAST)
    return Verdict(*fit_logistic(evidence, labels, weights, ridge))


def parts_of(groups: Sequence[str], count: int = PARTS, seed: int = 72) -> NDArray[np.int64]:
    """Deal scenes to parts, so that none is in two: the part of each picture."""
    names = sorted(set(groups))
    order = np.random.default_rng(seed).permutation(len(names))
    part = {name: int(place) % count for name, place in zip(names, order, strict=True)}
    return np.array([part[group] for group in groups])


def cross_fitted(
    evidence: Reals, labels: Reals, importance: Reals, parts: NDArray[np.int64]
) -> Reals:
    """Return log-odds [N], each by weights that were fitted without the picture's part."""
    scores = np.zeros(len(labels))
    for part in np.unique(parts):
        rest = parts != part
        verdict = fit_verdict(evidence[rest], labels[rest], importance[rest])
        scores[~rest] = verdict(evidence[~rest])
    return scores
