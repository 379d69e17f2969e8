"""What a cascade answers on raw scores, by the product's own calibration, pool and routes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from roadstream.schemas.cascade.model import Cascade, Member
from roadstream.schemas.records.answer import Verdict
from roadstream.stages.voting.route import Facts, Router
from roadstream.stages.voting.vote import calibrator, log_odds, verdict
from training.judged import Judged

Reals = NDArray[np.float64]
Raw = Mapping[str, Reals]
"""Raw scores per member [pictures]; NaN where a member did not vote."""


class Outcome(NamedTuple):
    """What became of a picture; ``votes`` holds calibrated log-odds of those who were asked."""

    probability: float
    tier: str
    votes: dict[str, float]


def replay(cascade: Cascade, raw: Raw) -> list[Outcome]:
    """Send every picture through the cascade.

    Raises:
        KeyError: A member of the cascade has no scores.
    """
    routers = {tier.name: Router(cascade, tier.name) for tier in cascade.tiers}
    votes, judge = calibrated(cascade, raw), verdict(cascade.pool)

    def send(picture: int) -> Outcome:
        tier: str | None = cascade.tiers[0].name
        asked: list[tuple[Member, float]] = []
        while True:
            assert tier is not None
            asked += _asked(cascade.tier(tier).members, votes, picture)
            found = judge([p for _, p in asked], [member.weight for member, _ in asked])
            following = routers[tier].decide(Facts(found.confidence, found.disagreement)).next_tier
            if following is None:
                named = {member.name: log_odds(p) for member, p in asked}
                return Outcome(found.probability, tier, named)
            tier = following

    return [send(picture) for picture in range(_count(raw))]


def everything(cascade: Cascade) -> Cascade:
    """Return the cascade without routes: every picture goes through all tiers."""
    tiers = [msgspec.structs.replace(tier, routes=[]) for tier in cascade.tiers]
    return msgspec.structs.replace(cascade, tiers=tiers)


def standings(cascade: Cascade, raw: Raw) -> list[list[Verdict]]:
    """Return per tier and picture what all votes up to that tier make together."""
    votes, judge = calibrated(cascade, raw), verdict(cascade.pool)
    members: list[Member] = []
    found = []
    for tier in cascade.tiers:
        members += tier.members
        asked = [_asked(members, votes, picture) for picture in range(_count(raw))]
        found.append([judge([p for _, p in part], [m.weight for m, _ in part]) for part in asked])
    return found


def calibrated(cascade: Cascade, raw: Raw) -> dict[str, list[float]]:
    """Return every member's probabilities of roadwork; NaN where it did not vote."""
    return {
        member.name: [
            math.nan if math.isnan(score) else convert(score) for score in raw[member.name].tolist()
        ]
        for tier in cascade.tiers
        for member in tier.members
        for convert in (calibrator(member.calibration),)
    }


def judged(pictures: Sequence[Judged], outcomes: Sequence[Outcome]) -> list[Judged]:
    """Return the pictures with what became of them; both in one order."""
    return [
        replace(one, **outcome._asdict()) for one, outcome in zip(pictures, outcomes, strict=True)
    ]


def _asked(
    members: Sequence[Member], votes: Mapping[str, Sequence[float]], picture: int
) -> list[tuple[Member, float]]:
    """Return who voted; a shadow member never changes an answer."""
    asked = [(member, votes[member.name][picture]) for member in members if member.weight > 0]
    return [(member, p) for member, p in asked if not math.isnan(p)]


def _count(raw: Raw) -> int:
    return len(next(iter(raw.values())))
