"""How votes become one probability, a confidence and a measure of disagreement. Pure functions.

Votes enter as two equal-long sequences: calibrated probabilities in [0, 1] and weights ≥ 0. A
member that did not vote is simply not among them: it is neither 0 nor 0.5.
"""

import math
from collections.abc import Callable, Sequence

from schemas.cascade import Pool
from schemas.records import Verdict
from stages.calibration import sigmoid

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
    pooling = pooled(pool)

    def judge(ps: Sequence[float], ws: Sequence[float]) -> Verdict:
        p = pooling(ps, ws)
        return Verdict(p, 2.0 * abs(p - 0.5), disagreement(ps, ws), losing_votes(ps, p))

    return judge


def _log_pool(ps: Sequence[float], ws: Sequence[float], base: float, scale: float) -> float:
    """``logit p = logit π + s·Σwᵢ(lᵢ − logit π)/Σwᵢ`` (Genest & Zidek 1986, scaled)."""
    total = sum(ws)
    if total <= 0:
        return sigmoid(base)
    evidence = sum(w * log_odds(p) for p, w in zip(ps, ws, strict=True))
    return sigmoid(base + scale * (evidence / total - base))


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
    total = sum(ws)
    if total <= 0 or len(ps) < 2:
        return 0.0
    odds = [log_odds(p) for p in ps]
    mean = sum(w * o for o, w in zip(odds, ws, strict=True)) / total
    return math.sqrt(sum(w * (o - mean) ** 2 for o, w in zip(odds, ws, strict=True)) / total)


def losing_votes(ps: Sequence[float], answer: float) -> int:
    """Return how many votes lie on the other side of 0.5 than ``answer``."""
    side = answer >= 0.5
    return sum((p >= 0.5) is not side for p in ps)
