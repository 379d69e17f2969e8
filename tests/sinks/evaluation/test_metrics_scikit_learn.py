"""Metrics agree with scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from sklearn import metrics as sk

from roadstream.sinks.evaluation.metrics import score
from tests.sinks.evaluation.test_metrics import JUDGED


@settings(deadline=None)
@given(JUDGED)
def test_scores_agree_with_scikit_learn(judged: list[tuple[bool, bool, float]]) -> None:
    truth = np.array([t for t, _, _ in judged])
    called = np.array([c for _, c, _ in judged])
    probability = np.array([p for _, _, p in judged])

    scores = score(truth, called, probability)

    assert scores.accuracy == pytest.approx(sk.accuracy_score(truth, called))
    assert scores.precision == pytest.approx(sk.precision_score(truth, called, zero_division=0))
    assert scores.recall == pytest.approx(sk.recall_score(truth, called, zero_division=0))
    assert scores.f1 == pytest.approx(sk.f1_score(truth, called, zero_division=0))
    assert scores.brier == pytest.approx(float(np.mean((probability - truth) ** 2)))
    if len(set(truth)) > 1 or len(set(called)) > 1:
        assert scores.mcc == pytest.approx(sk.matthews_corrcoef(truth, called))
    if len(set(truth)) > 1:
        assert scores.auc == pytest.approx(sk.roc_auc_score(truth, probability))
    else:
        assert scores.auc is None
