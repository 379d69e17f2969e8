"""How scores become votes, and votes one probability, a confidence and a measure of disagreement.

Pure functions.

Votes enter as two equal-long sequences: calibrated probabilities in [0, 1] and weights ≥ 0. A
member that did not vote is simply not among them: it is neither 0 nor 0.5.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence

from roadstream.schemas.cascade.model import Calibration, Isotonic, Pool
from roadstream.schemas.records.answer import Verdict

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


# One confident error must not veto a geometric pool: log-odds are clipped (cascade rules, ±6).
MAX_LOG_ODDS = 6.0
_MIN_P = sigmoid(-MAX_LOG_ODDS)
_MAX_P = sigmoid(MAX_LOG_ODDS)

Pooled = Callable[[Sequence[float], Sequence[float]], float]


def log_odds(p: float) -> float:
    """Return ``ln(p/(1−p))`` clipped to ±6."""
    if p <= _MIN_P:
        return -MAX_LOG_ODDS
    if p >= _MAX_P:
        return MAX_LOG_ODDS
    return math.log(p / (1.0 - p))


def decision_confidence(p: float) -> float:
    """Return ``2·|p − 0.5|`` in [0, 1]: 0 is a coin toss, 1 is certain in either direction."""
    return 2.0 * abs(p - 0.5)


def pooled(pool: Pool) -> Pooled:
    """Return the function that pools votes; with no weight among them it gives the prior."""
    if pool.method == "linear":
        return lambda ps, ws: _linear(ps, ws, pool.prior)
    if pool.method == "geometric":
        return lambda ps, ws: _geometric(ps, ws, pool.prior)
    base, scale = log_odds(pool.prior), pool.effective_voters
    return lambda ps, ws: _log_pool(ps, ws, base, scale)


def verdict(pool: Pool) -> Callable[[Sequence[float], Sequence[float]], Verdict]:
    """Return the function that turns votes (probabilities, weights) into a verdict."""
    pooling, logarithmic = pooled(pool), pool.method == "log"
    base, scale = log_odds(pool.prior), pool.effective_voters

    def judge(ps: Sequence[float], ws: Sequence[float]) -> Verdict:
        # One pass for pool, disagreement and losing votes: a third of the time of three.
        mean, spread, roadwork = _summary(ps, ws, base)
        p = sigmoid(base + scale * (mean - base)) if logarithmic else pooling(ps, ws)
        losing = len(ps) - roadwork if p >= 0.5 else roadwork
        return Verdict(p, 2.0 * abs(p - 0.5), spread, losing)

    return judge


def _log_pool(ps: Sequence[float], ws: Sequence[float], base: float, scale: float) -> float:
    """``logit p = logit π + s·Σwᵢ(lᵢ − logit π)/Σwᵢ`` (Genest & Zidek 1986, scaled)."""
    total = evidence = 0.0
    for p, w in zip(ps, ws, strict=True):
        total += w
        evidence += w * log_odds(p)
    return sigmoid(base + scale * (evidence / total - base)) if total > 0 else sigmoid(base)


def _summary(ps: Sequence[float], ws: Sequence[float], prior: float) -> tuple[float, float, int]:
    """Return mean and standard deviation of the log-odds, weighted, and the votes for roadwork.

    Without any weight, the mean is ``prior``.
    """
    total = evidence = 0.0
    roadwork = 0
    odds = []
    for p, w in zip(ps, ws, strict=True):
        o = log_odds(p)
        odds.append(o)
        total += w
        evidence += w * o
        if p >= 0.5:
            roadwork += 1
    if total <= 0:
        return prior, 0.0, roadwork
    mean = evidence / total
    square = 0.0
    if len(odds) > 1:
        for o, w in zip(odds, ws, strict=True):
            off = o - mean
            square += w * off * off
    return mean, math.sqrt(square / total), roadwork


def _linear(ps: Sequence[float], ws: Sequence[float], prior: float) -> float:
    total = sum(ws)
    return sum(w * p for p, w in zip(ps, ws, strict=True)) / total if total > 0 else prior


def _geometric(ps: Sequence[float], ws: Sequence[float], prior: float) -> float:
    """``exp(Σwᵢ ln pᵢ / Σwᵢ)``: one-sided, kept selectable."""
    total = sum(ws)
    if total <= 0:
        return prior
    return math.exp(sum(w * math.log(max(p, _MIN_P)) for p, w in zip(ps, ws, strict=True)) / total)


def disagreement(ps: Sequence[float], ws: Sequence[float]) -> float:
    """Return the weighted standard deviation of the votes' log-odds; 0 for fewer than two."""
    return _summary(ps, ws, 0.0)[1]


def losing_votes(ps: Sequence[float], answer: float) -> int:
    """Return how many votes lie on the other side of 0.5 than ``answer``."""
    roadwork = 0
    for p in ps:
        if p >= 0.5:
            roadwork += 1
    return len(ps) - roadwork if answer >= 0.5 else roadwork
