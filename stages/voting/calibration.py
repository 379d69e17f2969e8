"""Calibrators: from a member's raw score to a probability of roadwork."""

import math
from bisect import bisect_right
from collections.abc import Callable

from roadstream.schemas.cascade.model import Calibration, Isotonic

Calibrator = Callable[[float], float]


def sigmoid(x: float) -> float:
    """Return ``1/(1+e^−x)`` in [0, 1] without overflow."""
    if x >= 0:
        return 1.0 / (1.0 + math.exp(-x))
    e = math.exp(x)
    return e / (1.0 + e)


def calibrator(fitted: Calibration | None) -> Calibrator:
    """Return the function from raw score to probability in [0, 1].

    A member without a fitted calibrator is taken to give log-odds.
    """
    if fitted is None:
        return sigmoid
    if isinstance(fitted, Isotonic):
        return lambda raw: _interpolate(raw, fitted)
    slope, intercept = fitted.slope, fitted.intercept
    return lambda raw: sigmoid(slope * raw + intercept)


def _interpolate(raw: float, fitted: Isotonic) -> float:
    xs, ys = fitted.raw, fitted.probability
    i = bisect_right(xs, raw)
    if i == 0:
        return ys[0]
    if i == len(xs):
        return ys[-1]
    share = (raw - xs[i - 1]) / (xs[i] - xs[i - 1])
    return ys[i - 1] + share * (ys[i] - ys[i - 1])
