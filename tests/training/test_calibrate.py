"""Calibration, weights and exits on made-up votes of which the right answer is known."""

from dataclasses import replace

import numpy as np
import pytest

from roadstream.schemas.cascade.model import Platt
from roadstream.schemas.records.answer import Verdict
from roadstream.stages.voting.vote import sigmoid
from tests.training.synthetic import TEMPLATE, pictures
from training.cascade_fit import cross_fit, family_folds, fit
from training.exits import Exit, Question, choose_exits
from training.judged import Judged
from training.platt import (
    cross_calibrate,
    fit_calibrators,
    fit_platt,
    fit_weights,
    folds,
    log_odds_of,
    scored,
    tempered,
)
from training.quality import ece, figures, scene_weights
from training.replay import everything, judged, replay, standings

COSTS = (1.0, 9.0)


def calibrated_votes(count: int = 6000, seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Return log-odds and labels that occur as often as they say."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(-0.5, 2.0, count)
    return odds, (rng.random(count) < 1 / (1 + np.exp(-odds))).astype(np.int64)


def test_platt_finds_the_scale_that_was_lost() -> None:
    odds, labels = calibrated_votes()

    fitted = fit_platt(3 * odds + 2, labels, np.ones(len(odds)))

    assert fitted.slope == pytest.approx(1 / 3, rel=0.1)
    assert fitted.intercept == pytest.approx(-2 / 3, abs=0.1)


def test_a_member_that_says_the_opposite_is_never_turned_around() -> None:
    odds, labels = calibrated_votes()

    fitted = fit_platt(-odds, labels, np.ones(len(odds)))

    assert fitted.slope == 0
    assert sigmoid(fitted.intercept) == pytest.approx(labels.mean(), abs=0.01)


def test_a_miscalibrated_member_is_mended_on_pictures_it_was_not_fitted_on() -> None:
    votes = scored(pictures(3000))
    fold = folds(votes)

    mended = cross_calibrate(votes, fold)["slow"]

    def error(odds: np.ndarray) -> float:
        return ece(votes.labels == 1, 1 / (1 + np.exp(-odds)), np.ones(len(odds)))

    assert error(mended) < 0.02
    assert error(votes.raw["slow"] / 20) > 0.1


def test_a_picture_is_calibrated_without_its_own_fold() -> None:
    votes = scored(pictures(90))
    fold = folds(votes)
    rows = np.flatnonzero(fold == 0)

    found = cross_calibrate(votes, fold)

    without = fit_calibrators(votes.take(np.flatnonzero(fold != 0)))
    expected = log_odds_of(votes.take(rows).raw, without)
    assert found["slow"][rows] == pytest.approx(expected["slow"])


def test_scenes_stay_whole_and_families_are_spread_over_folds() -> None:
    votes = scored(pictures(900))

    fold = folds(votes)

    for scene in set(votes.groups):
        assert len({f for f, g in zip(fold, votes.groups, strict=True) if g == scene}) == 1
    for part in range(5):
        held = [f for f, k in zip(votes.families, fold, strict=True) if k == part]
        assert min(held.count(name) for name in set(votes.families)) > 0.7 * len(held) / 3


def test_fewer_scenes_than_folds_are_refused() -> None:
    votes = scored(pictures(9))

    with pytest.raises(ValueError, match="expected at least 5 scenes to fold, got 3"):
        folds(votes)


def test_tempered_weights_lie_between_pictures_and_scenes() -> None:
    groups = ["a"] * 4 + ["b"]

    assert tempered(groups).tolist() == [0.5] * 4 + [1.0]
    assert tempered(groups, 0).tolist() == [1.0] * 5
    assert tempered(groups, 1).tolist() == [0.25] * 4 + [1.0]


def test_stacking_trusts_the_member_that_knows_and_keeps_every_member_a_voter() -> None:
    rng = np.random.default_rng(2)
    votes = scored(pictures(3000))
    noise = rng.normal(0, 1, len(votes.labels))
    votes = replace(votes, raw={"slow": votes.raw["slow"], "noise": noise})

    weights = fit_weights(cross_calibrate(votes, folds(votes)), votes)

    assert weights["slow"] > 1.5 * weights["noise"] > 0
    assert sum(weights.values()) == pytest.approx(1.0)


def test_members_that_say_the_same_share_the_weight() -> None:
    votes = scored(pictures(3000))
    votes = replace(votes, raw={"a": votes.raw["slow"], "b": votes.raw["slow"].copy()})

    weights = fit_weights(cross_calibrate(votes, folds(votes)), votes)

    assert weights["a"] == pytest.approx(0.5, abs=0.01)


def test_a_vote_that_is_missing_is_left_out() -> None:
    made = pictures(300)
    made[0] = replace(made[0], votes={"quick": made[0].votes["quick"]})
    votes = scored(made)

    fitted = fit(TEMPLATE, votes, COSTS)
    found = replay(fitted.numbers.cascade(TEMPLATE), votes.raw)

    assert "slow" not in found[0].votes
    assert 0 < found[0].probability < 1


def test_two_copies_of_a_member_are_one_effective_voter() -> None:
    odds, labels = calibrated_votes(3000)
    made = [
        Judged(f"f__{i}.jpg", int(label), f"scene{i}", "o/r", votes={"quick": o, "slow": o})
        for i, (o, label) in enumerate(zip(odds, labels, strict=True))
    ]

    fitted = fit(TEMPLATE, scored(made), COSTS)

    assert fitted.numbers.voters == pytest.approx(1.0, abs=0.06)


def test_exits_keep_their_bounds_and_save_compute() -> None:
    made = pictures(1800)
    fitted = fit(TEMPLATE, scored(made), COSTS)

    assert fitted.chosen.kept
    assert fitted.chosen.cost <= 0.5
    assert max(fitted.chosen.loss, fitted.chosen.loss_by_scene) <= 0.01
    cascade = fitted.numbers.cascade(TEMPLATE)
    answers, whole = (
        judged(made, replay(each, scored(made).raw)) for each in (cascade, everything(cascade))
    )
    left = sum(each.tier == "first" for each in answers) / len(answers)
    assert (1.0 + 9.0 * (1 - left)) / 10 == pytest.approx(fitted.chosen.cost, abs=0.02)
    assert mcc_of(answers) > mcc_of(whole) - 0.015
    assert {each.tier for each in whole} == {"second"}


def mcc_of(answers: list[Judged], by_scene: bool = False) -> float:
    found = figures(answers, scene_weights(answers) if by_scene else None).mcc
    assert found is not None
    return found


def test_exits_that_cannot_keep_the_bounds_say_so() -> None:
    made = pictures(900, hard=1.0)
    votes = scored(made)
    cascade = fit(TEMPLATE, votes, COSTS).numbers.cascade(TEMPLATE)
    standing = standings(cascade, votes.raw)
    scenes = tempered(votes.groups, 1.0)

    chosen = choose_exits(Question(standing, votes.labels == 1, scenes, COSTS))

    assert not chosen.kept


def test_a_first_tier_that_is_surely_wrong_lets_go_only_where_its_members_agree() -> None:
    right = [Verdict(0.965, 0.93, 0.2, 0)] * 40 + [Verdict(0.035, 0.93, 0.2, 0)] * 40
    fooled = [Verdict(0.03, 0.94, 3.0, 1)] * 10 + [Verdict(0.97, 0.94, 3.0, 1)] * 10
    last = [Verdict(0.99, 0.98, 0.1, 0), Verdict(0.01, 0.98, 0.1, 0)]
    standing = [right + fooled, [last[0]] * 40 + [last[1]] * 40 + [last[0]] * 10 + [last[1]] * 10]
    truth = np.array([True] * 40 + [False] * 40 + [True] * 10 + [False] * 10)

    by_confidence, by_both = (
        choose_exits(Question(standing, truth, np.ones(100), COSTS, spreads))
        for spreads in (frozenset[int](), frozenset({0}))
    )

    assert not by_confidence.kept
    assert by_both.kept
    assert by_both.exits[0].max_disagreement < 3.0
    assert by_both.cost == pytest.approx((1 + 9 * 0.2) / 10)


def test_cross_fitted_answers_cover_every_picture_in_order() -> None:
    made = pictures(900)

    answers = cross_fit(TEMPLATE, made, COSTS).judged()
    families = family_folds([one.family for one in made])
    by_family = cross_fit(TEMPLATE, made, COSTS, families).judged()

    assert [one.file for one in answers] == [one.file for one in made]
    assert mcc_of(answers) > 0.9
    assert figures(answers).ece < 0.05
    assert mcc_of(by_family) > 0.9


def test_a_template_that_asks_for_an_unknown_member_is_refused() -> None:
    made = [replace(one, votes={"quick": one.votes["quick"]}) for one in pictures(90)]

    with pytest.raises(KeyError, match=r"got none of \['slow'\]"):
        fit(TEMPLATE, scored(made), COSTS)


def test_the_filled_file_says_what_was_fitted() -> None:
    numbers = fit(TEMPLATE, scored(pictures(900)), COSTS).numbers

    cascade = numbers.cascade(TEMPLATE)

    slow = cascade.tier("second").members[0].calibration
    assert isinstance(slow, Platt)
    assert slow.slope == pytest.approx(numbers.calibrators["slow"].slope, rel=1e-5)
    assert cascade.tier("first").routes[0].min_confidence == numbers.exits["first"].min_confidence
    assert numbers.exits == {"first": Exit(numbers.exits["first"].min_confidence)}
