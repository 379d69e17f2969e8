"""Measures of a yes/no classifier against labels: decisions, ranking, calibration."""

import math
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Reals = NDArray[np.float64]

ECE_BINS = 15


class Confusion(msgspec.Struct, frozen=True, kw_only=True):
    """How many pictures were called what; "positive" is roadwork."""

    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int

    @property
    def total(self) -> int:
        """All pictures."""
        return self.right + self.false_positive + self.false_negative

    @property
    def right(self) -> int:
        """Pictures that were called what they are."""
        return self.true_positive + self.true_negative

    @property
    def accuracy(self) -> float:
        """Share of right calls in [0, 1]; 0 without pictures."""
        return _ratio(self.right, self.total)

    @property
    def precision(self) -> float:
        """Share of roadwork among what was called so, in [0, 1]; 0 when nothing was."""
        return _ratio(self.true_positive, self.true_positive + self.false_positive)

    @property
    def recall(self) -> float:
        """Share of the roadwork that was found, in [0, 1]; 0 when there is none."""
        return _ratio(self.true_positive, self.true_positive + self.false_negative)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall in [0, 1]; 0 without any roadwork."""
        missed = self.false_positive + self.false_negative
        return _ratio(2 * self.true_positive, 2 * self.true_positive + missed)

    @property
    def mcc(self) -> float:
        """Correlation of calls and labels in [−1, 1]; 0 when either holds one class only.

        Source: Matthews 1975, doi:10.1016/0005-2795(75)90109-9.
        """
        tp, fp = self.true_positive, self.false_positive
        fn, tn = self.false_negative, self.true_negative
        margins = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
        return (tp * tn - fp * fn) / math.sqrt(margins) if margins else 0.0


class Scores(msgspec.Struct, frozen=True, kw_only=True):
    """All measures of one set of judged pictures.

    Attributes:
        images: Pictures with a label and a judgement.
        roadwork: Those of them that show roadwork.
        confusion: Counts behind the rates.
        mcc: In [−1, 1].
        f1: In [0, 1], as are the next five.
        precision: Share of roadwork among what was called so.
        recall: Share of the roadwork that was found.
        accuracy: Share of right calls.
        ece: Expected calibration error over 15 bins; ``None`` without pictures.
        brier: Mean squared error of the probability; ``None`` without pictures.
        auc: Area under the ROC curve in [0, 1]; ``None`` unless both classes are present.
    """

    images: int
    roadwork: int
    confusion: Confusion
    mcc: float
    f1: float
    precision: float
    recall: float
    accuracy: float
    ece: float | None
    brier: float | None
    auc: float | None


def score(truth: Bools, called: Bools, probability: Reals) -> Scores:
    """Return all measures; the three arrays have one length, and probability is in [0, 1]."""
    table = confusion(truth, called)
    return Scores(
        images=table.total,
        roadwork=table.true_positive + table.false_negative,
        confusion=table,
        mcc=table.mcc,
        f1=table.f1,
        precision=table.precision,
        recall=table.recall,
        accuracy=table.accuracy,
        ece=expected_calibration_error(truth, probability) if len(truth) else None,
        brier=float(np.mean((probability - truth) ** 2)) if len(truth) else None,
        auc=area_under_roc(truth, probability),
    )


def confusion(truth: Bools, called: Bools) -> Confusion:
    """Count calls against labels."""
    return Confusion(
        true_positive=_count(truth & called),
        false_positive=_count(~truth & called),
        false_negative=_count(truth & ~called),
        true_negative=_count(~truth & ~called),
    )


def expected_calibration_error(truth: Bools, probability: Reals, bins: int = ECE_BINS) -> float:
    """Return the mean gap between stated probability and observed frequency, in [0, 1].

    Equal-width bins over the probability of roadwork (not over the confidence of the call), the
    last one closed; each bin weighs as many pictures as it holds. Source: Naeini et al. 2015,
    "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 29.
    """
    position = np.minimum((probability * bins).astype(np.int64), bins - 1)
    stated = np.bincount(position, weights=probability, minlength=bins)
    observed = np.bincount(position, weights=truth, minlength=bins)
    return float(np.abs(stated - observed).sum() / len(truth))


def area_under_roc(truth: Bools, probability: Reals) -> float | None:
    """Return the chance that a picture with roadwork ranks above one without; ties count half.

    Source: the Mann–Whitney statistic, Hanley and McNeil 1982, doi:10.1148/radiology.143.1.7063747.
    """
    positives = _count(truth)
    negatives = len(truth) - positives
    if not positives or not negatives:
        return None
    _, place, counts = np.unique(probability, return_inverse=True, return_counts=True)
    rank = np.cumsum(counts) - (counts - 1) / 2
    above = float(rank[place][truth].sum()) - positives * (positives + 1) / 2
    return above / (positives * negatives)


def _count(flags: NDArray[Any]) -> int:
    return int(np.count_nonzero(flags))


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
