"""At which confidence pictures may leave a tier: the cheapest exits that lose little enough."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from roadstream.schemas.records.answer import Verdict
from training.quality import Bools, Reals, mcc

CONFIDENCES: tuple[float, ...] = (*np.round(np.tanh(np.arange(1.4, 5.0, 0.2) / 2), 3).tolist(), 1.0)
"""Decision confidences at even steps of log-odds, p from 0.8 to 0.992; 1 lets nothing go."""
FIRST = 0.86
"""Least confidence at the first tier. Less would do on these pictures; in a new city the first
glance is wrong more often than what comes after it."""
DISAGREEMENTS = (0.5, 1.0, 2.0, 12.0)
"""Spreads of log-odds; nothing spreads wider than 12."""
MOST_LOSS = 0.01
MOST_COST = 0.5
MOST_BRIER = 0.002
"""Added to the Brier score: pictures may not leave early as soon as they are on the right side."""


@dataclass(frozen=True)
class Exit:
    """When a picture leaves a tier: confidence at least, disagreement at most."""

    min_confidence: float
    max_disagreement: float = DISAGREEMENTS[-1]


@dataclass(frozen=True)
class Chosen:
    """Exits of all tiers but the last, and what they do on the pictures they were chosen on.

    Attributes:
        exits: In the order of the tiers.
        cost: Share of the compute of everything on every picture, in [0, 1].
        loss: MCC lost against it, every picture the same.
        loss_by_scene: The same, every scene the same.
        brier: Added to the mean squared error of the probability.
        kept: Whether the bounds hold.
    """

    exits: tuple[Exit, ...]
    cost: float
    loss: float
    loss_by_scene: float
    brier: float
    kept: bool


@dataclass(frozen=True)
class _Tier:
    probability: Reals
    confidence: Reals
    disagreement: Reals

    def leaving(self, rule: Exit) -> Bools:
        enough = self.confidence >= rule.min_confidence
        return enough & (self.disagreement <= rule.max_disagreement)


@dataclass(frozen=True)
class Question:
    """What exits are chosen on.

    Attributes:
        standings: Per tier and picture what all votes so far make together, see ``replay``.
        truth: Whether there is roadwork, [N].
        scenes: Weights with which every scene weighs the same, [N].
        costs: Milliseconds of each tier.
        spreads: Tiers (by place) whose disagreement may be bounded.
        threshold: Probability from which a picture is called roadwork.
    """

    standings: Sequence[Sequence[Verdict]]
    truth: Bools
    scenes: Reals
    costs: Sequence[float]
    spreads: frozenset[int] = frozenset()
    threshold: float = 0.5


def choose_exits(
    question: Question, most_loss: float = MOST_LOSS, most_cost: float = MOST_COST
) -> Chosen:
    """Return the cheapest exits that lose at most ``most_loss`` MCC, plain and by scene.

    They may cost at most ``most_cost`` of everything. Where nothing keeps both bounds, the exits
    that lose least among those that are cheap enough are returned, with ``kept`` false.
    """
    found = list(_trials(question, most_loss, most_cost))
    kept = [each for each in found if each.kept]
    if kept:
        return min(kept, key=lambda each: (each.cost, max(each.loss, each.loss_by_scene)))
    cheap = [each for each in found if each.cost <= most_cost] or found
    return min(cheap, key=lambda each: (max(each.loss, each.loss_by_scene), each.cost))


def _trials(question: Question, most_loss: float, most_cost: float) -> Iterator[Chosen]:
    tiers = [_tier(part) for part in question.standings]
    offered = [
        _offered(tier, place in question.spreads, FIRST if place == 0 else 0.0)
        for place, tier in enumerate(tiers[:-1])
    ]
    top = _measures(question, tiers[-1].probability)
    for choice in itertools.product(*offered):
        leaving = [gone for _, gone in choice]
        found = _measures(question, _answers(tiers, leaving))
        loss, by_scene, brier = (float(lost) for lost in top - found)
        cost = _cost(leaving, question.costs)
        kept = max(loss, by_scene) <= most_loss and brier <= MOST_BRIER and cost <= most_cost
        yield Chosen(tuple(rule for rule, _ in choice), cost, loss, by_scene, brier, kept)


def _measures(question: Question, probability: Reals) -> Reals:
    """Return MCC, MCC by scene and the negative Brier score."""
    called, even = probability >= question.threshold, np.ones(len(probability))
    both = [mcc(question.truth, called, weights) for weights in (even, question.scenes)]
    return np.array([*both, -float(np.mean((probability - question.truth) ** 2))])


def _tier(standing: Sequence[Verdict]) -> _Tier:
    return _Tier(
        np.array([each.probability for each in standing]),
        np.array([each.confidence for each in standing]),
        np.array([each.disagreement for each in standing]),
    )


def _offered(tier: _Tier, spreads: bool, least: float) -> list[tuple[Exit, Bools]]:
    """Return exits to try and who leaves by them; of those that let the same go, the strictest."""
    confidences = [each for each in CONFIDENCES if each >= least]
    rules = itertools.product(confidences, DISAGREEMENTS if spreads else DISAGREEMENTS[-1:])
    different: dict[bytes, tuple[Exit, Bools]] = {}
    for rule in itertools.starmap(Exit, rules):
        leaving = tier.leaving(rule)
        different[leaving.tobytes()] = (rule, leaving)
    return list(different.values())


def _answers(tiers: Sequence[_Tier], leaving: Sequence[Bools]) -> Reals:
    """Return each picture's probability where it leaves."""
    found = tiers[-1].probability
    for tier, gone in zip(tiers[-2::-1], leaving[::-1], strict=True):
        found = np.where(gone, tier.probability, found)
    return found


def _cost(leaving: Sequence[Bools], costs: Sequence[float]) -> float:
    """Return the share of the compute of everything that is spent."""
    spent = costs[0]
    stays: Bools = np.array(True)
    for gone, cost in zip(leaving, costs[1:], strict=True):
        stays = stays & ~gone
        spent += cost * float(stays.mean())
    return spent / sum(costs)
