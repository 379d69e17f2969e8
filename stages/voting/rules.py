"""What the cascade's rules make of votes before they are pooled. Pure.

They apply in this order, at every tier to the votes so far, and at the consensus to all of them:
``adapt`` rules change weights and log-odds by the image's tags; a tier's ensemble becomes one vote;
``conflict`` rules weigh a strong tier against those below it. A cascade without any of them is
judged by ``roadstream.stages.voting.vote`` alone.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from roadstream.schemas.cascade.model import Cascade, Member
from roadstream.schemas.cascade.rules import Adapt, Conflict
from roadstream.schemas.records.answer import CountedVotes, Verdict, VoteMath
from roadstream.schemas.records.votes import NO_TAGS
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


class _Voters(NamedTuple):
    """Votes and ensembles' votes, as columns of equal length.

    Attributes:
        places: The places of their tiers in the cascade.
        ps: Probabilities.
        ws: Weights.
    """

    places: Sequence[int]
    ps: Sequence[float]
    ws: Sequence[float]

    def only(self, keep: Callable[[int], bool]) -> "_Voters":
        """Return those of the tiers whose place is asked for and that have weight."""
        kept = [one for one in zip(*self, strict=True) if one[2] > 0 and keep(one[0])]
        return _Voters(*zip(*kept, strict=True)) if kept else _Voters((), (), ())


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
            for name in sorted(self.factors.keys() & names)
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
        self._names = cascade.tier_names
        enabled = [rule for rule in cascade.rules if rule.enabled]
        adapting = [rule for rule in enabled if isinstance(rule, Adapt) and rule.votes]
        self._adapting = [_Adapting(rule, members) for rule in adapting]
        self._conflicts = [
            (self._names.index(rule.tier), rule)
            for rule in enabled
            if isinstance(rule, Conflict) and rule.tier in self._names
        ]
        self._ensembles = {
            i: tier.ensemble for i, tier in enumerate(cascade.tiers) if tier.ensemble is not None
        }
        united = {member.name for tier in cascade.tiers for member in tier.united}
        # Per member the place of its tier, and whether it belongs to an ensemble.
        self._seats = {
            m.name: (i, m.name in united) for i, tier, gone in tiers for m in (*tier.members, *gone)
        }
        self._pool = pooled(cascade.pool)

    def verdict(self, votes: CountedVotes, tags: Mapping[str, str] = NO_TAGS) -> Verdict:
        """Return the verdict on an image.

        Args:
            votes: All votes so far that count.
            tags: The image's, by name.
        """
        effects: list[str] = []
        ws, p, given = self._judge(votes, tags, effects)
        losing = losing_votes(votes.ps, p)
        spread = disagreement(votes.ps, ws)
        return Verdict(p, decision_confidence(p), spread, losing, effects, given)

    def so_far(
        self, votes: CountedVotes, tags: Mapping[str, str]
    ) -> tuple[float, Mapping[str, str]]:
        """Return the probability and the tags of the verdict: what routes go by, and no words."""
        _, p, given = self._judge(votes, tags, None)
        return p, given

    def _judge(
        self, votes: CountedVotes, tags: Mapping[str, str], effects: list[str] | None
    ) -> tuple[Sequence[float], float, Mapping[str, str]]:
        """Return weights, probability and tags; say in ``effects`` what was done, if asked for."""
        ws, shift = self._adapted(votes, tags, effects)
        voters = self._voters(votes, ws, effects)
        given = NO_TAGS
        for place, rule in self._conflicts:
            if place in voters.places and (found := self._conflict(place, rule, voters)):
                voters, effect, said = found
                given = {**given, CONFLICT: f"{rule.tier}-{said}"}
                if effects is not None:
                    effects.append(effect)
        p = self._pool(voters.ps, voters.ws)
        return ws, sigmoid(log_odds(p) + shift) if shift else p, given

    def _adapted(
        self, votes: CountedVotes, tags: Mapping[str, str], effects: list[str] | None
    ) -> tuple[Sequence[float], float]:
        """Return the votes' weights and what is added to the log-odds, by the image's tags."""
        ws, shift = votes.ws, 0.0
        for rule in self._adapting:
            if not rule.tags.holds(tags):
                continue
            if effects is not None and (effect := rule.effect(votes.names)) is not None:
                effects.append(effect)
            shift += rule.shift
            if rule.factors:
                factors = rule.factors
                ws = [w * factors.get(name, 1.0) for name, w in zip(votes.names, ws, strict=True)]
        return ws, shift

    def _voters(
        self, votes: CountedVotes, ws: Sequence[float], effects: list[str] | None
    ) -> _Voters:
        """Return the votes, those of an ensemble as one."""
        seats = self._seats
        if not self._ensembles:
            return _Voters([seats.get(name, _ALONE)[0] for name in votes.names], votes.ps, ws)
        places: list[int] = []
        ps: list[float] = []
        kept: list[float] = []
        united: dict[int, list[tuple[float, float, float]]] = {}
        for name, p, w, before in zip(votes.names, votes.ps, ws, votes.ws, strict=True):
            place, joins = seats.get(name, _ALONE)
            if joins:
                united.setdefault(place, []).append((p, w, before))
            else:
                places.append(place)
                ps.append(p)
                kept.append(w)
        for place, found in sorted(united.items()):
            p, w = self._united(place, found, effects)
            places.append(place)
            ps.append(p)
            kept.append(w)
        return _Voters(places, ps, kept)

    def _united(
        self,
        place: int,
        found: Sequence[tuple[float, float, float]],
        effects: list[str] | None,
    ) -> tuple[float, float]:
        """Return the probability and weight of an ensemble's one vote.

        Args:
            place: The place of its tier.
            found: Per member that voted its probability, its weight, and its weight before rules.
            effects: Where to say how it came about, if that is asked for.
        """
        ensemble = self._ensembles[place]
        total = before = odds = 0.0
        yes = 0
        for p, w, was in found:
            total += w
            before += was
            odds += w * log_odds(p)
            yes += p >= 0.5
        agreed = yes >= ensemble.agreement * len(found) - _ROUNDING
        mean = odds / total if total > 0 else 0.0
        held = max(mean, 0.0) if agreed else min(mean, 0.0)
        if effects is not None:
            said = f"{yes} of {len(found)} say roadwork"
            if total <= 0:
                said = "no member's vote counts"
            elif held != mean:
                said += ", which is agreement" if agreed else ", which is no agreement"
            effects.append(f"ensemble {self._names[place]}: {said}")
        return sigmoid(held), ensemble.weight * total / before if total > 0 else 0.0

    def _conflict(
        self, place: int, rule: Conflict, voters: _Voters
    ) -> tuple[_Voters, str, str] | None:
        """Return the voters where a tier contradicts those below, what was done, what it says."""
        strong, below = voters.only(lambda one: one == place), voters.only(lambda one: one < place)
        if not strong.places or not below.places:
            return None
        p = self._pool(strong.ps, strong.ws)
        yes, theirs = p >= 0.5, self._pool(below.ps, below.ws) >= 0.5
        if yes == theirs:
            return None
        if not yes and decision_confidence(p) > rule.override:
            kept = voters.only(lambda one: one >= place)
            return kept, f"conflict: {rule.tier} says none and overrides those below it", "no"
        factor = rule.yes_factor if yes else rule.no_factor
        says = "roadwork" if yes else "none"
        pairs = zip(voters.places, voters.ws, strict=True)
        weighed = voters._replace(ws=[w * factor if one == place else w for one, w in pairs])
        effect = f"conflict: {rule.tier} says {says}, those below do not: its weight × {factor:g}"
        return weighed, effect, "yes" if yes else "no"


# A vote of somebody whom the cascade does not know.
_ALONE = (0, False)


# 7 of 10 is 0.7 · 10 in doubles, and need not be for other numbers.
_ROUNDING = 1e-9
