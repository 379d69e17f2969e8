"""From a network's numbers to log-odds of roadwork. Plain arithmetic on the host."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32] | NDArray[np.float64]
# σ(16) differs from 1 by 1e-7, the resolution of float32 there.
LIMIT = 16.0


def log_odds(probability: Floats) -> list[float]:
    """Return the log-odds of probabilities [N], clipped to ±``LIMIT``."""
    p = np.asarray(probability, np.float64)
    with np.errstate(divide="ignore"):
        return clipped(np.log(p) - np.log1p(-p))


def clipped(values: Floats) -> list[float]:
    """Return values [N] clipped to ±``LIMIT``; what is no number stays none."""
    found: list[float] = np.clip(np.asarray(values, np.float64), -LIMIT, LIMIT).tolist()
    return found


def one_of(logits: Floats, chosen: Sequence[int]) -> list[float]:
    """Return the log-odds that one of the chosen classes is the one (softmax).

    Args:
        logits: [N, classes].
        chosen: Columns; not all of them.
    """
    rest = [column for column in range(logits.shape[1]) if column not in set(chosen)]
    exact = np.asarray(logits, np.float64)
    return clipped(_total(exact[:, list(chosen)]) - _total(exact[:, rest]))


def any_of(logits: Floats, chosen: Sequence[int]) -> list[float]:
    """Return the log-odds of the likeliest of the chosen classes (each its own sigmoid).

    Args:
        logits: [N, classes].
        chosen: Columns.
    """
    return clipped(logits[:, list(chosen)].max(axis=1))


def mean_odds(logits: Floats) -> Floats:
    """Return the logarithm of the mean odds [N] over log-odds [N, several]."""
    exact = np.asarray(logits, np.float64)
    mean: NDArray[np.float64] = _total(exact) - np.log(exact.shape[1])
    return mean


def shares(logits: Floats, groups: Sequence[Sequence[int]]) -> Floats:
    """Return how likely it is that one of a group of classes is the one [N, groups] (softmax).

    Args:
        logits: [N, classes].
        groups: Columns of each.
    """
    exact = np.asarray(logits, np.float64)
    with np.errstate(invalid="ignore"):  # what is no number stays none
        parts = [_total(exact[:, list(group)]) - _total(exact) for group in groups]
    found: NDArray[np.float64] = np.exp(np.stack(parts, 1))
    return found


def likelihoods(logits: Floats, groups: Sequence[Sequence[int]]) -> Floats:
    """Return how likely the likeliest class of a group is [N, groups] (each its own sigmoid).

    Args:
        logits: [N, classes].
        groups: Columns of each.
    """
    exact = np.asarray(logits, np.float64)
    best = np.stack([exact[:, list(group)].max(axis=1) for group in groups], 1)
    with np.errstate(invalid="ignore"):
        # σ(x) = exp(−log(1 + exp(−x))), which overflows nowhere.
        found: NDArray[np.float64] = np.exp(-np.logaddexp(0.0, -best))
    return found


def _total(exact: NDArray[np.float64]) -> NDArray[np.float64]:
    total: NDArray[np.float64] = np.logaddexp.reduce(exact, axis=1)
    return total
