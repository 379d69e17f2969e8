"""What the cascade's rules make of votes before they are pooled. Pure.

They apply in this order, at every tier to the votes so far, and at the consensus to all of them:
``adapt`` rules change weights and log-odds by the image's tags; a tier's ensemble becomes one vote;
``conflict`` rules weigh a strong tier against those below it. A cascade without any of them is
judged by ``roadstream.stages.voting.vote`` alone.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from roadstream.schemas.cascade.model import Cascade, Member
from roadstream.schemas.cascade.rules import Adapt, Conflict, Ensemble
from roadstream.schemas.records.answer import CountedVotes, Verdict, VoteMath
from roadstream.schemas.records.votes import NO_TAGS
from roadstream.stages.voting.fusion_arrays import Adaptation
from roadstream.stages.voting.route import TagRule, asked_of_tags
from roadstream.stages.voting.vote import (
    decision_confidence,
    disagreement,
    log_odds,
    losing_votes,
    pooled,
    sigmoid,
    verdict,
)

CONFLICT = "conflict"


class Votes(NamedTuple):
    """See ``CountedVotes``."""

    names: Sequence[str]
    ps: Sequence[float]
    ws: Sequence[float]


def vote_math(cascade: Cascade) -> VoteMath:
    """Return how a cascade's votes become a verdict; order never matters."""
    if not cascade.ruled:
        plain = verdict(cascade.pool)
        return lambda votes, tags: plain(votes.ps, votes.ws)
    return VoteRules(cascade).verdict


class _Voter(NamedTuple):
    """A vote, or an ensemble's, with the place of its tier in the cascade."""

    tier: int
    p: float
    w: float


class _Adapting:
    """An ``adapt`` rule, ready to be asked."""

    def __init__(self, rule: Adapt, members: Mapping[str, Member]) -> None:
        self.tags, self.shift = TagRule(rule), rule.shift
        self.factors = {
            name: rule.weights.get(name, rule.weights.get(member.kind or "", 1.0))
            for name, member in members.items()
            if name in rule.weights or member.kind in rule.weights
        }
        self.name = rule.name or " and ".join(asked_of_tags(rule)) or "always"

    def effect(self, names: Sequence[str]) -> str | None:
        """Return what it does to the votes of these members, in words; ``None`` for nothing."""
        said = [
            f"weight of {name} × {self.factors[name]:g}"
            for name in sorted({*names} & self.factors.keys())
            if self.factors[name] != 1
        ]
        if self.shift:
            said.insert(0, f"log-odds {self.shift:+g}")
        return f"{self.name}: {', '.join(said)}" if said else None


class VoteRules:
    """The rules of a cascade that change how votes are pooled.

    Args:
        cascade: The cascade.
    """

    def __init__(self, cascade: Cascade) -> None:
        tiers = [
            (i, tier, cascade.absent.get(tier.name, [])) for i, tier in enumerate(cascade.tiers)
        ]
        members = {one.name: one for _, tier, gone in tiers for one in (*tier.members, *gone)}
        self._tier = {m.name: i for i, tier, gone in tiers for m in (*tier.members, *gone)}
        self._names = cascade.tier_names
        enabled = [rule for rule in cascade.rules if rule.enabled]
        adapting = [rule for rule in enabled if isinstance(rule, Adapt) and rule.votes]
        self._adapting = [_Adapting(rule, members) for rule in adapting]
        self._conflicts = [
            (self._names.index(rule.tier), rule)
            for rule in enabled
            if isinstance(rule, Conflict) and rule.tier in self._names
        ]
        self._ensembles: dict[int, Ensemble] = {}
        self._united: set[str] = set()
        for i, tier in enumerate(cascade.tiers):
            if tier.ensemble is not None:
                self._ensembles[i] = tier.ensemble
                self._united |= {member.name for member in tier.united}
        self._pool = pooled(cascade.pool)

    def verdict(self, votes: CountedVotes, tags: Mapping[str, str] = NO_TAGS) -> Verdict:
        """Return the verdict on an image.

        Args:
            votes: All votes so far that count.
            tags: The image's, by name.
        """
        effects: list[str] = []
        ws, shift = self._adapted(votes, tags, effects)
        voters = self._voters(votes, ws, effects)
        given = NO_TAGS
        for place, rule in self._conflicts:
            if (found := self._conflict(place, rule, voters)) is not None:
                voters, effect, said = found
                effects.append(effect)
                given = {**given, CONFLICT: f"{rule.tier}-{said}"}
        p = self._pool_of(voters)
        if shift:
            p = sigmoid(log_odds(p) + shift)
        losing = losing_votes(votes.ps, p)
        spread = disagreement(votes.ps, ws)
        return Verdict(p, decision_confidence(p), spread, losing, effects, given)

    def _adapted(
        self, votes: CountedVotes, tags: Mapping[str, str], effects: list[str]
    ) -> tuple[Sequence[float], float]:
        """Return the votes' weights and what is added to the log-odds, by the image's tags."""
        ws, shift = votes.ws, 0.0
        for rule in self._adapting:
            if not rule.tags.holds(tags):
                continue
            if (effect := rule.effect(votes.names)) is not None:
                effects.append(effect)
            shift += rule.shift
            if rule.factors:
                factors = rule.factors
                ws = [w * factors.get(name, 1.0) for name, w in zip(votes.names, ws, strict=True)]
        return ws, shift

    def _voters(self, votes: CountedVotes, ws: Sequence[float], effects: list[str]) -> list[_Voter]:
        """Return the votes, those of an ensemble as one."""
        voters: list[_Voter] = []
        united: dict[int, list[tuple[float, float, float]]] = {}
        for name, p, w, before in zip(votes.names, votes.ps, ws, votes.ws, strict=True):
            tier = self._tier.get(name, 0)
            if name in self._united:
                united.setdefault(tier, []).append((p, w, before))
            else:
                voters.append(_Voter(tier, p, w))
        for tier, found in sorted(united.items()):
            voter, effect = _united(self._ensembles[tier], tier, found)
            effects.append(f"ensemble {self._names[tier]}: {effect}")
            voters.append(voter)
        return voters

    def _conflict(
        self, place: int, rule: Conflict, voters: list[_Voter]
    ) -> tuple[list[_Voter], str, str] | None:
        """Return the voters where a tier contradicts those below, what was done, what it says."""
        strong = [one for one in voters if one.tier == place and one.w > 0]
        below = [one for one in voters if one.tier < place and one.w > 0]
        if not strong or not below:
            return None
        p = self._pool_of(strong)
        yes, theirs = p >= 0.5, self._pool_of(below) >= 0.5
        if yes == theirs:
            return None
        if not yes and decision_confidence(p) > rule.override:
            kept = [one for one in voters if one.tier >= place]
            return kept, f"conflict: {rule.tier} says none and overrides those below it", "no"
        factor = rule.yes_factor if yes else rule.no_factor
        says = "roadwork" if yes else "none"
        weighed = [one._replace(w=one.w * factor) if one.tier == place else one for one in voters]
        effect = f"conflict: {rule.tier} says {says}, those below do not: its weight × {factor:g}"
        return weighed, effect, "yes" if yes else "no"

    def _pool_of(self, voters: Sequence[_Voter]) -> float:
        return self._pool([one.p for one in voters], [one.w for one in voters])


class BoxRules:
    """The rules of a cascade that change how boxes are fused.

    Args:
        cascade: The cascade.
    """

    def __init__(self, cascade: Cascade) -> None:
        enabled = [rule for rule in cascade.rules if isinstance(rule, Adapt) and rule.enabled]
        self._rules = [(TagRule(rule), rule) for rule in enabled if rule.boxes]

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self._rules)

    def adaptation(self, tags: Mapping[str, str]) -> Adaptation:
        """Return what is otherwise where an image has these tags: factors multiply."""
        factor, margin = 1.0, 1.0
        for asked, rule in self._rules:
            if asked.holds(tags):
                factor *= rule.box_confidence
                margin *= 1.0 + rule.box_margin
        return Adaptation(factor, margin - 1.0)


def _united(
    ensemble: Ensemble, tier: int, found: Sequence[tuple[float, float, float]]
) -> tuple[_Voter, str]:
    """Return an ensemble's one vote, and how it came about.

    Args:
        ensemble: Its settings.
        tier: The tier's place.
        found: Per member that voted its probability, its weight, and its weight before rules.
    """
    total, before = sum(w for _, w, _ in found), sum(w for _, _, w in found)
    yes = sum(p >= 0.5 for p, _, _ in found)
    agreed = yes >= ensemble.agreement * len(found) - _ROUNDING
    if total <= 0:
        return _Voter(tier, 0.5, 0.0), "no member's vote counts"
    mean = sum(w * log_odds(p) for p, w, _ in found) / total
    held = max(mean, 0.0) if agreed else min(mean, 0.0)
    said = f"{yes} of {len(found)} say roadwork"
    if held != mean:
        said += ", which is agreement" if agreed else ", which is no agreement"
    return _Voter(tier, sigmoid(held), ensemble.weight * total / before), said


# 7 of 10 is 0.7 · 10 in doubles, and need not be for other numbers.
_ROUNDING = 1e-9
