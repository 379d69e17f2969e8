"""Fit the numbers of a cascade file on out-of-fold raw scores.

A template is a cascade file with ``${NAME_slope}``, ``${NAME_intercept}`` and ``${NAME_weight}``
for members, ``${TIER_confidence}`` and perhaps ``${TIER_disagreement}`` for the exits of tiers, and
``${voters}``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from string import Template

import numpy as np
from scipy.optimize import minimize_scalar

from roadstream.schemas.cascade.loading import parse_cascade
from roadstream.schemas.cascade.model import Cascade, Platt
from training.exits import Chosen, Exit, Question, choose_exits
from training.judged import Judged
from training.platt import (
    Ints,
    Reals,
    Scored,
    cross_calibrate,
    fit_calibrators,
    fit_weights,
    folds,
    importance,
    scored,
    tempered,
)
from training.replay import judged, replay, standings

VOTERS = (0.5, 4.0)


@dataclass(frozen=True)
class Numbers:
    """What a template asks for; ``exits`` per tier but the last."""

    calibrators: dict[str, Platt]
    weights: dict[str, float]
    voters: float
    exits: dict[str, Exit]

    def fill(self, template: str) -> str:
        """Return the cascade file.

        Raises:
            KeyError: The template asks for a number that was not fitted.
        """
        named: dict[str, float] = {"voters": self.voters}
        for name, fitted in self.calibrators.items():
            named |= {f"{name}_slope": fitted.slope, f"{name}_intercept": fitted.intercept}
        named |= {f"{name}_weight": weight for name, weight in self.weights.items()}
        for name, each in self.exits.items():
            named[f"{name}_confidence"] = each.min_confidence
            named[f"{name}_disagreement"] = each.max_disagreement
        return Template(template).substitute({k: f"{v:.6g}" for k, v in named.items()})

    def cascade(self, template: str) -> Cascade:
        """Return the filled cascade, read as the product reads it."""
        return parse_cascade(self.fill(template).encode(), "template")


@dataclass(frozen=True)
class Fitted:
    """Numbers, and what the exits do on the pictures they were chosen on."""

    numbers: Numbers
    chosen: Chosen


def fit(template: str, votes: Scored, costs: Sequence[float], threshold: float = 0.5) -> Fitted:
    """Fit everything that a template asks for.

    Args:
        template: See the module.
        votes: Out-of-fold raw scores of all members.
        costs: Milliseconds of each tier, in order.
        threshold: Probability from which a picture is called roadwork.

    Raises:
        KeyError: The template names a member without scores, or a number that is not fitted.
        ValueError: There are too few scenes.
    """
    tiers = tier_names(template, votes)
    odds = cross_calibrate(votes, folds(votes))
    numbers = Numbers(
        calibrators=fit_calibrators(votes),
        weights=fit_weights(odds, votes),
        voters=1.0,
        exits={name: Exit(1.0) for name in tiers[:-1]},
    )
    # Out-of-fold log-odds stand for raw scores from here on: their calibrators are the identity.
    plain = replace(numbers, calibrators=dict.fromkeys(odds, Platt(1.0, 0.0)))
    voters = fit_voters(plain, template, odds, votes)
    plain = replace(plain, voters=voters)
    asked = Template(template).get_identifiers()
    question = Question(
        standings(plain.cascade(template), odds),
        votes.labels == 1,
        tempered(votes.groups, 1.0),
        costs,
        frozenset(i for i, name in enumerate(tiers) if f"{name}_disagreement" in asked),
        threshold,
    )
    chosen = choose_exits(question)
    exits = dict(zip(tiers[:-1], chosen.exits, strict=True))
    return Fitted(replace(numbers, voters=voters, exits=exits), chosen)


def fit_voters(numbers: Numbers, template: str, odds: Mapping[str, Reals], votes: Scored) -> float:
    """Return the effective voters with the least log-loss of the pools after every tier.

    Every tier counts the same: a factor that suits all votes together would make the few votes of
    the first tier over-confident, and most pictures leave there.
    """
    weights = importance(votes)
    sign = np.where(votes.labels == 1, 1.0, -1.0)

    def loss(voters: float) -> float:
        found = standings(replace(numbers, voters=voters).cascade(template), odds)
        return float(
            np.mean([_log_loss([v.probability for v in part], sign, weights) for part in found])
        )

    return round(float(minimize_scalar(loss, bounds=VOTERS, method="bounded").x), 3)


def _log_loss(probability: Sequence[float], sign: Reals, weights: Reals) -> float:
    p = np.array(probability)
    return float(weights @ -np.log(np.where(sign > 0, p, 1 - p)) / weights.sum())


def tier_names(template: str, votes: Scored) -> list[str]:
    """Return the template's tiers, read with placeholders at zero."""
    empty = dict.fromkeys(Template(template).get_identifiers(), "1")
    cascade = parse_cascade(Template(template).substitute(empty).encode(), "template")
    missing = {m.name for tier in cascade.tiers for m in tier.members} - set(votes.raw)
    if missing:
        raise KeyError(f"expected scores of every member, got none of {sorted(missing)}")
    return cascade.tier_names


@dataclass(frozen=True)
class CrossFitted:
    """Cascades, each fitted without one fold, and the pictures that they are to judge.

    Attributes:
        pictures: With raw scores for votes.
        fold: Fold per picture, [N].
        cascades: The cascade that was fitted without each fold.
    """

    pictures: Sequence[Judged]
    fold: Ints
    cascades: dict[int, Cascade]

    def judged(
        self, through: Callable[[Cascade], Cascade] = lambda cascade: cascade
    ) -> list[Judged]:
        """Judge every picture by the cascade that was fitted without it.

        Args:
            through: Changes each cascade; ``everything`` takes the exits away.
        """
        votes = scored(self.pictures)
        found: dict[int, Judged] = {}
        for each, cascade in self.cascades.items():
            rows = np.flatnonzero(self.fold == each)
            part = [self.pictures[row] for row in rows]
            outcomes = replay(through(cascade), votes.take(rows).raw)
            found |= zip(rows.tolist(), judged(part, outcomes), strict=True)
        return [found[row] for row in range(len(self.pictures))]


def cross_fit(
    template: str, pictures: Sequence[Judged], costs: Sequence[float], fold: Ints | None = None
) -> CrossFitted:
    """Fit a cascade without each fold.

    Args:
        template: See the module.
        pictures: With raw scores for votes.
        costs: Milliseconds of each tier.
        fold: Fold per picture; by scene if ``None``. By family, nothing of its source was seen.
    """
    votes = scored(pictures)
    if fold is None:
        fold = folds(votes)
    return CrossFitted(
        pictures,
        fold,
        {
            int(each): fit(
                template, votes.take(np.flatnonzero(fold != each)), costs
            ).numbers.cascade(template)
            for each in np.unique(fold)
        },
    )


def family_folds(families: Sequence[str]) -> Ints:
    """Return a fold per source family, [N]."""
    found: Ints = np.unique(families, return_inverse=True)[1]
    return found
