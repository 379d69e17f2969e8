"""Vote math: its invariants, and agreement with a plain transcription of the formulas."""

import math
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roadstream.schemas.cascade.model import Pool
from roadstream.stages.voting.vote import (
    MAX_LOG_ODDS,
    decision_confidence,
    disagreement,
    log_odds,
    losing_votes,
    pooled,
    sigmoid,
    verdict,
)
from tests.kits.examples import examples

P = st.floats(0.0, 1.0)
INNER = st.floats(0.01, 0.99)
WEIGHT = st.floats(0.01, 10.0)
VOTES = st.lists(st.tuples(P, WEIGHT), min_size=1, max_size=12)
POOLS = st.builds(
    Pool,
    method=st.sampled_from(["log", "geometric", "linear"]),
    prior=st.floats(0.001, 0.999),
    effective_voters=st.floats(0.1, 5.0),
)
LOG_POOLS = st.builds(Pool, prior=st.floats(0.001, 0.999), effective_voters=st.floats(0.1, 5.0))
Votes = list[tuple[float, float]]

close = pytest.approx


def pool_of(pool: Pool, votes: Votes) -> float:
    return pooled(pool)([p for p, _ in votes], [w for _, w in votes])


def transcribed_log_pool(pool: Pool, votes: Votes) -> float:
    """``logit(p) = logit(π) + s·Σ wᵢ·(lᵢ − logit(π)) / Σ wᵢ``, lᵢ clipped to ±6."""
    p, w = np.array(votes).T
    with np.errstate(divide="ignore"):
        odds = np.clip(np.log(p) - np.log1p(-p), -6, 6)
    base = np.clip(np.log(pool.prior / (1 - pool.prior)), -6, 6)
    logit = base + pool.effective_voters * np.sum(w * (odds - base)) / np.sum(w)
    return float(1 / (1 + np.exp(-logit)))


@settings(deadline=None, max_examples=examples(200))
@given(LOG_POOLS, VOTES)
def test_the_log_pool_agrees_with_its_formula(pool: Pool, votes: Votes) -> None:
    assert pool_of(pool, votes) == close(transcribed_log_pool(pool, votes), rel=1e-9, abs=1e-12)


@settings(deadline=None)
@given(VOTES)
def test_the_linear_and_geometric_pools_agree_with_their_formulas(votes: Votes) -> None:
    p, w = np.array(votes).T
    floor = 1 / (1 + np.exp(6))
    geometric = np.exp(np.sum(w * np.log(np.maximum(p, floor))) / np.sum(w))

    assert pool_of(Pool(method="linear"), votes) == close(np.average(p, weights=w))
    assert pool_of(Pool(method="geometric"), votes) == close(geometric)


@settings(deadline=None, max_examples=examples(200))
@given(POOLS, VOTES, st.randoms())
def test_the_order_of_votes_does_not_matter(pool: Pool, votes: Votes, random: Random) -> None:
    mixed = list(votes)
    random.shuffle(mixed)
    ours, theirs = (
        verdict(pool)([p for p, _ in given_votes], [w for _, w in given_votes])
        for given_votes in (votes, mixed)
    )
    assert ours.probability == close(theirs.probability)
    assert ours.confidence == close(theirs.confidence, abs=1e-9)
    assert ours.disagreement == close(theirs.disagreement, abs=1e-6)


@settings(deadline=None, max_examples=examples(200))
@given(POOLS, VOTES)
def test_the_pooled_probability_is_a_probability(pool: Pool, votes: Votes) -> None:
    assert 0.0 <= pool_of(pool, votes) <= 1.0 + 1e-12


@given(POOLS)
def test_no_votes_give_the_prior(pool: Pool) -> None:
    expected = sigmoid(log_odds(pool.prior)) if pool.method == "log" else pool.prior
    assert pool_of(pool, []) == close(expected)
    assert pool_of(pool, [(0.9, 0.0), (0.1, 0.0)]) == close(expected)


@settings(deadline=None, max_examples=examples(200))
@given(POOLS, VOTES, P)
def test_a_vote_of_weight_zero_never_matters(pool: Pool, votes: Votes, shadow: float) -> None:
    ps, ws = [p for p, _ in votes], [w for _, w in votes]

    assert pooled(pool)([*ps, shadow], [*ws, 0.0]) == close(pooled(pool)(ps, ws))
    assert disagreement([*ps, shadow], [*ws, 0.0]) == close(disagreement(ps, ws), abs=1e-6)


@settings(deadline=None, max_examples=examples(200))
@given(POOLS, P, WEIGHT, st.integers(1, 9))
def test_voters_who_agree_pool_to_what_one_of_them_says(
    pool: Pool, p: float, weight: float, count: int
) -> None:
    # So a missing member counts as neither 0 nor 0.5: the others' weights are renormalised.
    assert pool_of(pool, [(p, weight)] * count) == close(pool_of(pool, [(p, 1.0)]))


@settings(deadline=None)
@given(VOTES, st.floats(0.001, 0.999))
def test_doubling_every_voter_changes_nothing(votes: Votes, prior: float) -> None:
    pool = Pool(prior=prior)
    assert pool_of(pool, votes + votes) == close(pool_of(pool, votes))


@settings(deadline=None)
@given(POOLS, VOTES, st.floats(0.1, 100))
def test_only_the_ratios_of_weights_matter(pool: Pool, votes: Votes, factor: float) -> None:
    scaled = [(p, w * factor) for p, w in votes]
    assert pool_of(pool, scaled) == close(pool_of(pool, votes))


@settings(deadline=None, max_examples=examples(200))
@given(POOLS, VOTES, st.data())
def test_a_higher_vote_never_lowers_the_pool(pool: Pool, votes: Votes, data: st.DataObject) -> None:
    i = data.draw(st.integers(0, len(votes) - 1))
    p, weight = votes[i]
    higher = data.draw(st.floats(p, 1.0))
    raised = [*votes[:i], (higher, weight), *votes[i + 1 :]]

    assert pool_of(pool, raised) >= pool_of(pool, votes) - 1e-12


@settings(deadline=None)
@given(VOTES)
def test_the_log_pool_lies_between_its_votes(votes: Votes) -> None:
    inside = [sigmoid(log_odds(p)) for p, _ in votes]
    assert min(inside) - 1e-9 <= pool_of(Pool(), votes) <= max(inside) + 1e-9


@given(INNER, st.floats(0.05, 0.95), st.floats(1.0, 4.0))
def test_more_independent_voters_go_further_from_the_prior(
    p: float, prior: float, scale: float
) -> None:
    one = pool_of(Pool(prior=prior), [(p, 1.0)])
    many = pool_of(Pool(prior=prior, effective_voters=scale), [(p, 1.0)])

    assert abs(many - prior) >= abs(one - prior) - 1e-9
    assert one == close(p)


def test_one_certain_error_cannot_outvote_everybody() -> None:
    votes = [(0.0, 1.0)] + [(0.99, 1.0)] * 9
    assert pool_of(Pool(), votes) > 0.95


@given(P)
def test_log_odds_are_clipped_and_mirrored(p: float) -> None:
    odds = log_odds(p)
    assert -MAX_LOG_ODDS <= odds <= MAX_LOG_ODDS
    if MAX_LOG_ODDS > abs(odds) > 1e-9:
        assert odds == close(math.log(p / (1 - p)))
        assert log_odds(1 - p) == close(-odds, rel=1e-9, abs=1e-9)


def test_certain_votes_are_clipped_to_six() -> None:
    assert (log_odds(0.0), log_odds(1.0), log_odds(0.5)) == (-6.0, 6.0, 0.0)


@given(P)
def test_confidence_is_the_same_in_either_direction(p: float) -> None:
    assert 0.0 <= decision_confidence(p) <= 1.0
    assert decision_confidence(p) == close(decision_confidence(1 - p), abs=1e-12)


def test_an_empty_road_is_a_confident_no() -> None:
    assert decision_confidence(0.02) == close(0.96)
    assert decision_confidence(0.5) == 0.0


@settings(deadline=None)
@given(VOTES)
def test_disagreement_is_the_weighted_spread_of_log_odds(votes: Votes) -> None:
    ps, ws = [p for p, _ in votes], [w for _, w in votes]
    odds = np.array([log_odds(p) for p in ps])
    mean = np.average(odds, weights=ws)
    expected = math.sqrt(np.average((odds - mean) ** 2, weights=ws)) if len(ps) > 1 else 0.0

    assert disagreement(ps, ws) == close(expected, abs=1e-6)


def test_nobody_disagrees_with_himself() -> None:
    assert disagreement([], []) == disagreement([0.9], [1.0]) == 0.0
    assert disagreement([0.9, 0.1], [0.0, 0.0]) == 0.0
    # Not even by the last digit, as the mean of one may differ from it.
    for number in range(1, 100):
        assert disagreement([number / 100], [number / 7]) == 0.0
    assert disagreement([0.3, 0.3, 0.3], [1, 2, 3]) == close(0.0, abs=1e-9)


def test_losing_votes_are_those_on_the_other_side() -> None:
    assert losing_votes([0.9, 0.6, 0.4, 0.1], 0.8) == 2
    assert losing_votes([0.9, 0.6, 0.4, 0.1], 0.2) == 2
    assert losing_votes([0.5, 0.9], 0.9) == 0
    assert losing_votes([], 0.9) == 0


@settings(deadline=None)
@given(POOLS, VOTES)
def test_a_verdict_is_made_of_its_parts(pool: Pool, votes: Votes) -> None:
    ps, ws = [p for p, _ in votes], [w for _, w in votes]
    said = verdict(pool)(ps, ws)

    assert said.probability == pooled(pool)(ps, ws)
    assert said.confidence == close(decision_confidence(said.probability))
    assert said.disagreement == disagreement(ps, ws)
    assert said.losing == losing_votes(ps, said.probability)


@pytest.mark.parametrize("method", ["log", "geometric", "linear"])
def test_without_any_weight_the_pool_says_the_prior(method: Any) -> None:
    pool = Pool(method=method, prior=0.3)
    for ps, ws in (([], []), ([0.9, 0.8], [0.0, 0.0])):
        said = verdict(pool)(ps, ws)
        assert pooled(pool)(ps, ws) == close(0.3)
        assert said.probability == close(0.3)
        assert (said.disagreement, said.losing) == (0.0, len(ps))


@pytest.mark.parametrize("method", ["log", "geometric", "linear"])
def test_each_vote_has_a_weight(method: Any) -> None:
    pool = Pool(method=method)
    for ps, ws in (([0.9, 0.8], [1.0]), ([0.9], [1.0, 2.0])):
        for math_of in (pooled(pool), verdict(pool), disagreement):
            with pytest.raises(ValueError, match="zip"):
                math_of(ps, ws)


def test_half_and_half_is_a_vote_for_roadwork() -> None:
    assert losing_votes([0.5, 0.4, 0.3], 0.5) == 2
    assert losing_votes([0.5, 0.4, 0.3], 0.4) == 1
    said = verdict(Pool(method="linear"))([0.5], [1.0])
    assert (said.probability, said.confidence, said.losing) == (0.5, 0.0, 0)
    said = verdict(Pool(method="linear"))([0.5, 0.4, 0.3], [1.0, 1.0, 1.0])
    assert said.losing == 1
    assert said.probability == close(0.4)
