"""Metrics agree with their definitions, the reward with a slow transcription of its formula."""

import math
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roadstream.sinks.evaluation.metrics import (
    Confusion,
    area_under_roc,
    confusion,
    expected_calibration_error,
    score,
)
from roadstream.sinks.evaluation.reward import SILENCE, subnet_reward
from tests.kits.examples import examples

Flags = npt.NDArray[np.bool_]
# Few distinct values, so that ties are common, and all others too.
PROBABILITY = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]) | st.floats(0.0, 1.0)
JUDGED = st.lists(st.tuples(st.booleans(), st.booleans(), PROBABILITY), min_size=1, max_size=60)
CHALLENGES = st.lists(st.tuples(st.booleans(), PROBABILITY | st.just(SILENCE)), max_size=260)


@settings(deadline=None)
@given(JUDGED)
def test_scores_agree_with_their_definitions(judged: list[tuple[bool, bool, float]]) -> None:
    truth = np.array([t for t, _, _ in judged])
    called = np.array([c for _, c, _ in judged])
    probability = np.array([p for _, _, p in judged])
    hits, ahead = np.sum(truth & called), probability[truth][:, None] - probability[~truth]

    scores = score(truth, called, probability)

    assert scores.accuracy == pytest.approx(np.mean(truth == called))
    assert scores.precision == pytest.approx(hits / max(1, called.sum()))
    assert scores.recall == pytest.approx(hits / max(1, truth.sum()))
    assert scores.f1 == pytest.approx(2 * hits / max(1, called.sum() + truth.sum()))
    assert scores.brier == pytest.approx(float(np.mean((probability - truth) ** 2)))
    assert scores.mcc == pytest.approx(correlation(truth, called))
    if ahead.size:
        assert scores.auc == pytest.approx(np.mean((ahead > 0) + (ahead == 0) / 2))
    else:
        assert scores.auc is None


def correlation(truth: Sequence[int] | Flags, called: Sequence[int] | Flags) -> float:
    """Return Pearson's, which Matthews' is for two classes; 0 where one of them never comes."""
    if len(set(truth)) < 2 or len(set(called)) < 2:
        return 0.0
    return float(np.corrcoef(truth, called)[0, 1])


@given(JUDGED)
def test_calibration_error_agrees_with_its_definition(
    judged: list[tuple[bool, bool, float]],
) -> None:
    bins: dict[int, list[tuple[bool, float]]] = {}
    for truth, _, probability in judged:
        bins.setdefault(min(math.floor(probability * 15), 14), []).append((truth, probability))
    expected = sum(
        len(held)
        / len(judged)
        * abs(sum(t for t, _ in held) / len(held) - sum(p for _, p in held) / len(held))
        for held in bins.values()
    )

    error = expected_calibration_error(
        np.array([t for t, _, _ in judged]), np.array([p for _, _, p in judged])
    )

    assert error == pytest.approx(expected, abs=1e-12)


def test_calibration_error_of_perfect_and_of_perfectly_wrong_certainty() -> None:
    truth = np.array([True, False, True, False])

    assert expected_calibration_error(truth, truth.astype(np.float64)) == 0.0
    assert expected_calibration_error(truth, (~truth).astype(np.float64)) == 1.0
    assert expected_calibration_error(truth, np.full(4, 0.5)) == 0.0


def test_no_pictures_give_no_measures_rather_than_an_error() -> None:
    nothing = np.array([], dtype=np.bool_)

    scores = score(nothing, nothing, np.array([], dtype=np.float64))

    assert scores.images == 0
    assert scores.mcc == scores.f1 == scores.accuracy == 0.0
    assert scores.ece is scores.brier is scores.auc is None
    assert msgspec.json.decode(msgspec.json.encode(scores), type=type(scores)) == scores


def test_mcc_of_large_counts_does_not_overflow() -> None:
    table = Confusion(
        true_positive=10**12, false_positive=0, false_negative=0, true_negative=10**12
    )

    assert table.mcc == 1.0


def test_area_is_half_when_all_tie() -> None:
    assert area_under_roc(np.array([True, False, False]), np.full(3, 0.7)) == 0.5


def test_confusion_names_its_cells() -> None:
    truth = np.array([True, True, True, False, False, False])
    called = np.array([True, True, False, True, False, False])

    assert confusion(truth, called) == Confusion(
        true_positive=2, false_negative=1, false_positive=1, true_negative=2
    )


def slow_reward(challenges: list[tuple[bool, float]]) -> tuple[float, list[float]]:
    """Transcribe the formula word for word, over the whole history."""
    current, rewards = 0.0, []
    for last in range(1, len(challenges) + 1):
        seen = challenges[:last]
        prediction = seen[-1][1]
        reward = 0.0
        if prediction != -1:
            recent = [(t, round(p)) for t, p in seen[-100:] if p != -1]
            truth = [int(t) for t, _ in recent]
            called = [c for _, c in recent]
            both = len(set(truth)) > 1
            mcc = max(0.0, correlation(truth, called)) if both else 0.0
            newest = [(t, round(p)) for t, p in seen[-10:] if p != -1]
            accuracy = sum(t == c for t, c in newest) / len(newest)
            reward = ((0.5 * mcc + 0.5 * accuracy) * (0 <= prediction <= 1)) ** 3
        current = 0.05 * reward + 0.95 * current
        rewards.append(reward)
    return current, rewards


@settings(max_examples=examples(25), deadline=None)
@given(CHALLENGES)
def test_reward_agrees_with_the_formula(challenges: list[tuple[bool, float]]) -> None:
    score_, rewards = slow_reward(challenges)

    reward = subnet_reward(challenges)

    assert reward.challenges == len(challenges)
    assert reward.silent == sum(p == SILENCE for _, p in challenges)
    assert reward.score == pytest.approx(score_, abs=1e-12)
    assert reward.last == pytest.approx(rewards[-1] if rewards else 0.0, abs=1e-12)
    assert reward.mean == pytest.approx(np.mean(rewards) if rewards else 0.0, abs=1e-12)


def test_reward_of_perfect_answers_grows_to_one() -> None:
    reward = subnet_reward([(n % 2 == 0, float(n % 2 == 0)) for n in range(300)])

    assert reward.last == 1.0
    assert reward.score == pytest.approx(1.0, abs=1e-6)


def test_exactly_half_means_no_roadwork() -> None:
    assert subnet_reward([(False, 0.5)]).last == 0.5**3
    assert subnet_reward([(True, 0.5)]).last == 0.0


def test_silence_pays_nothing_and_takes_a_place_in_the_windows() -> None:
    good = [(n % 2 == 0, float(n % 2 == 0)) for n in range(20)]
    wrong = [(True, 0.0)] * 10

    hidden = subnet_reward([*good, *wrong, *[(True, SILENCE)] * 9, (True, 1.0)])

    assert hidden.silent == 9
    mcc = correlation([1, 0] * 10 + [1] * 11, [1, 0] * 10 + [0] * 10 + [1])
    assert hidden.last == pytest.approx((0.5 * mcc + 0.5 * 1.0) ** 3)


@pytest.mark.parametrize("prediction", [1.5, -0.5, math.nan])
def test_prediction_that_no_answer_can_hold_is_refused(prediction: float) -> None:
    with pytest.raises(ValueError, match="expected 0 to 1"):
        subnet_reward([(True, prediction)])
