"""Rules, ensembles and conflicts: what they make of votes, in any order, and of what is absent."""

from collections.abc import Mapping

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roadstream.schemas.cascade.model import Cascade, Member, Pool
from roadstream.schemas.cascade.rules import Adapt, Conflict, Ensemble, Kind, Rule
from roadstream.schemas.records.answer import Verdict
from roadstream.stages.voting.rules import VoteRules, Votes, vote_math
from roadstream.stages.voting.vote import decision_confidence, verdict
from tests.kits.builders import cascade, member, tier
from tests.kits.examples import examples

P = st.floats(0, 1)
DETECTORS = [f"d{i}" for i in range(10)]
POWER = ["p0", "p1"]
NAMES = [*DETECTORS, "z", *POWER, "last"]
NIGHT = {"light": "night"}


def of_kind(name: str, kind: Kind, weight: float = 1.0) -> Member:
    return msgspec.structs.replace(member(name, weight), kind=kind)


def ruled(*rules: Rule, ensemble: Ensemble | None = None, pool: Pool | None = None) -> Cascade:
    detectors = tier(
        "detect", *[of_kind(name, "detection", 1 + i / 9) for i, name in enumerate(DETECTORS)]
    )
    made = cascade(
        msgspec.structs.replace(detectors, ensemble=ensemble),
        tier("zero", of_kind("z", "zero-shot", 0.8)),
        tier("power", *[of_kind(name, "power-vlm", 1.5) for name in POWER]),
        tier("precision", of_kind("last", "precision-vlm", 2.0)),
        pool=pool,
    )  # fmt: skip
    return msgspec.structs.replace(made, rules=list(rules))


def votes(cast: Mapping[str, float], of: Cascade) -> Votes:
    weights = {one.name: one.weight for tier in of.tiers for one in tier.members}
    return Votes([*cast], [*cast.values()], [weights[name] for name in cast])


def judged(of: Cascade, cast: Mapping[str, float], tags: Mapping[str, str] = NIGHT) -> Verdict:
    return vote_math(of)(votes(cast, of), tags)


RULES: list[Rule] = [
    Adapt(tags_any=["light=night"], shift=0.7, weights={"detection": 0.5, "z": 2.0}),
    Conflict(tier="power"),
    Conflict(tier="precision", override=1.0),
]
CAST = st.dictionaries(st.sampled_from(NAMES), P)
CASCADES = [
    ruled(*RULES, ensemble=Ensemble()),
    ruled(*RULES, ensemble=Ensemble(), pool=Pool(method="linear", prior=0.3)),
    ruled(*RULES, pool=Pool(method="geometric")),
    ruled(ensemble=Ensemble(agreement=0.5, weight=3.0)),
]
ANY = st.sampled_from(CASCADES)


@settings(deadline=None, max_examples=examples(200))
@given(ANY, CAST, st.randoms(use_true_random=False))
def test_the_order_of_votes_never_matters(
    of: Cascade, cast: dict[str, float], random: object
) -> None:
    shuffled = list(cast.items())
    getattr(random, "shuffle")(shuffled)  # noqa: B009

    one, other = judged(of, cast), judged(of, dict(shuffled))

    assert one.probability == pytest.approx(other.probability, abs=1e-12)
    assert sorted(one.effects) == sorted(other.effects)
    assert (one.tags, one.losing) == (other.tags, other.losing)


@settings(deadline=None, max_examples=examples(200))
@given(ANY, CAST)
def test_a_verdict_is_a_probability_with_its_confidence(
    of: Cascade, cast: dict[str, float]
) -> None:
    found = judged(of, cast)

    assert 0.0 <= found.probability <= 1.0
    assert found.confidence == decision_confidence(found.probability)
    assert 0 <= found.losing <= len(cast)


@settings(deadline=None)
@given(ANY)
def test_without_voters_the_prior_holds(of: Cascade) -> None:
    found = judged(of, {}, {})

    assert found.probability == pytest.approx(of.pool.prior)
    assert (found.effects, dict(found.tags)) == ([], {})


@settings(deadline=None, max_examples=examples(100))
@given(CAST)
def test_who_is_absent_is_neutral(cast: dict[str, float]) -> None:
    """Members that did not vote are as if the cascade had never had them."""
    whole = CASCADES[0]
    tiers = [
        msgspec.structs.replace(one, members=[m for m in one.members if m.name in cast])
        for one in whole.tiers
    ]
    rest = msgspec.structs.replace(whole, tiers=tiers)

    assert judged(rest, cast) == judged(whole, cast)


@settings(deadline=None, max_examples=examples(100))
@given(P, st.floats(0.1, 5), st.floats(0.1, 5), st.dictionaries(st.sampled_from(["z", *POWER]), P))
def test_a_fully_correlated_twin_changes_nothing(
    p: float, weight: float, twins: float, others: dict[str, float]
) -> None:
    """Twins are put into an ensemble: together they are the one voter that each is alone."""
    others = {"z": 0.3, **others}

    def with_members(*weights: float, ensemble: Ensemble | None) -> Verdict:
        members = [of_kind(f"d{i}", "detection", w) for i, w in enumerate(weights)]
        first = msgspec.structs.replace(tier("detect", *members), ensemble=ensemble)
        of = cascade(first, *ruled().tiers[1:])
        return judged(of, {**{one.name: p for one in members}, **others})

    alone = with_members(weight, ensemble=None)
    both = with_members(weight, twins, ensemble=Ensemble(weight=weight))

    assert both.probability == pytest.approx(alone.probability, abs=1e-12)


@settings(deadline=None, max_examples=examples(100))
@given(CAST, st.sampled_from(["log", "linear", "geometric"]))
def test_rules_that_are_off_leave_the_plain_verdict(cast: dict[str, float], method: str) -> None:
    pool = Pool(method=method)  # type: ignore[arg-type]
    off: list[Rule] = [msgspec.structs.replace(rule, enabled=False) for rule in RULES]
    of = ruled(*off, pool=pool)
    plain = votes(cast, of)

    assert not of.ruled
    assert judged(of, cast) == verdict(pool)(plain.ps, plain.ws)


@pytest.mark.parametrize(
    ("yes", "alive", "side"),
    [(7, 10, 1), (6, 10, -1), (3, 4, 1), (2, 4, -1), (1, 1, 1), (0, 3, -1), (10, 10, 1)],
)
def test_seven_of_ten_of_those_alive_agree(yes: int, alive: int, side: int) -> None:
    of = ruled(ensemble=Ensemble())
    # Those that say yes hardly do, the others strongly say no: the mean alone says no.
    cast = {name: 0.51 if i < yes else 0.02 for i, name in enumerate(DETECTORS[:alive])}

    found = judged(of, cast, {})

    assert (found.probability >= 0.5) == (side > 0)
    assert f"{yes} of {alive} say roadwork" in found.effects[0]


def test_an_ensemble_is_one_voter_of_its_own_weight() -> None:
    of = ruled(ensemble=Ensemble(weight=1.0))
    strong = dict.fromkeys(DETECTORS, 0.9) | {"z": 0.1}
    # Ten detectors weigh 1 together, the other 0.8: 0.9 and 0.1 nearly cancel out.
    assert judged(of, strong, {}).probability == pytest.approx(0.5604, abs=1e-3)
    assert judged(ruled(), strong, {}).probability > 0.85


@pytest.mark.parametrize(
    ("power", "below", "factor", "tag"),
    [(0.8, 0.2, 0.7, "power-yes"), (0.3, 0.8, 1.3, "power-no")],
)
def test_a_strong_tier_against_all_below_it_is_weighed_anew(
    power: float, below: float, factor: float, tag: str
) -> None:
    of = ruled(Conflict(tier="power"))

    found = judged(of, {"d0": below, "z": below, "p0": power}, {})
    plain = verdict(of.pool)([below, below, power], [1.0, 0.8, 1.5 * factor])

    assert found.probability == pytest.approx(plain.probability)
    assert dict(found.tags) == {"conflict": tag}
    assert len(found.effects) == 1
    assert found.effects[0].endswith(f"× {factor:g}")


def test_a_sure_no_of_a_strong_tier_overrides_what_is_below_and_not_what_follows() -> None:
    of = ruled(Conflict(tier="power"))
    cast = {"d0": 0.99, "z": 0.99, "p0": 0.05}

    assert judged(of, cast).probability == pytest.approx(0.05)
    assert judged(of, {**cast, "last": 0.99}).probability > 0.5
    # A sure yes never overrides, and who agrees is in no conflict.
    assert judged(of, {"d0": 0.01, "z": 0.01, "p0": 0.99}).probability < 0.5
    assert judged(of, {"d0": 0.9, "p0": 0.9}).effects == []


def test_an_adapt_rule_holds_by_tags_alone_and_says_what_it_did() -> None:
    rule = Adapt(name="zone ends", tags_any=["zone=ends"], shift=-2.0, weights={"z": 2.0})
    of = ruled(rule)
    cast = {"d0": 0.7, "z": 0.6}

    plain, ended = judged(of, cast, {}), judged(of, cast, {"zone": "ends"})

    assert plain == verdict(of.pool)([0.7, 0.6], [1.0, 0.8])
    assert ended.probability < 0.3
    assert ended.effects == ["zone ends: log-odds -2, weight of z × 2"]


def test_factors_that_leave_no_weight_leave_the_prior() -> None:
    of = ruled(Adapt(weights={"detection": 0.0, "z": 0.0}), pool=Pool(prior=0.2))
    found = judged(of, {"d0": 0.9, "z": 0.9})

    assert found.probability == pytest.approx(0.2)
    of = ruled(Adapt(weights={"detection": 0.0}), ensemble=Ensemble(), pool=Pool(prior=0.2))
    assert judged(of, {"d0": 0.9}).probability == pytest.approx(0.2)


def test_members_that_the_cascade_does_not_know_vote_all_the_same() -> None:
    """A record of another client may name anybody."""
    of = CASCADES[0]
    stranger = Votes(["nobody"], [0.9], [1.0])

    assert 0.5 < VoteRules(of).verdict(stranger).probability < 1.0
