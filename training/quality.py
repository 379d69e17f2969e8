"""How good judged pictures are: measures with weights, and their intervals over scenes.

Every measure takes a weight per picture. With ``scene_weights`` every scene weighs the same,
however many pictures of it there are: half of the roadwork comes from a few drives, and a picture
says little that its neighbours have not said.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from training.judged import Judged

Reals = NDArray[np.float64]
Bools = NDArray[np.bool_]

ECE_BINS = 15
DRAWS = 1000


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Measures of one set of judged pictures; ``None`` where a set of one label has none.

    Attributes:
        pictures: How many.
        scenes: Of how many scenes.
        roadwork: How many of the pictures show roadwork.
        accuracy: Share of right calls in [0, 1].
        recall: Share of the roadwork that was called so.
        specificity: Share of ordinary pictures that were called so.
        mcc: Correlation of calls and labels in [−1, 1] (Matthews 1975).
        f1: Of roadwork, in [0, 1].
        auc: Area under the ROC curve.
        ece: Mean gap between stated probability and frequency, 15 equal bins (Naeini et al. 2015).
        brier: Mean squared error of the probability.
    """

    pictures: int
    scenes: int
    roadwork: int
    accuracy: float
    recall: float | None
    specificity: float | None
    mcc: float | None
    f1: float | None
    auc: float | None
    ece: float
    brier: float


class Bin(msgspec.Struct, frozen=True):
    """Pictures of one bin of stated probability: means in [0, 1], and share of all weight."""

    stated: float
    observed: float
    share: float
    pictures: int


def scene_weights(judged: Sequence[Judged]) -> Reals:
    """Return a weight per picture, 1 / size of its scene: every scene sums to 1."""
    sizes = Counter(one.group for one in judged)
    return np.array([1 / sizes[one.group] for one in judged])


def truth_of(judged: Sequence[Judged]) -> Bools:
    """Return which pictures show roadwork."""
    return np.array([one.label == 1 for one in judged], np.bool_)


def probability_of(judged: Sequence[Judged]) -> Reals:
    """Return the stated probabilities of roadwork."""
    return np.array([one.probability for one in judged], np.float64)


def figures(
    judged: Sequence[Judged], weights: Reals | None = None, threshold: float = 0.5
) -> Figures:
    """Measure judged pictures; from ``threshold`` on they count as called roadwork.

    Raises:
        ValueError: There is no picture.
    """
    if not judged:
        raise ValueError("expected judged pictures, got none")
    truth, probability = truth_of(judged), probability_of(judged)
    used = np.ones(len(judged)) if weights is None else weights
    called, both = probability >= threshold, 0 < truth.sum() < len(truth)
    return Figures(
        pictures=len(judged),
        scenes=len({one.group for one in judged}),
        roadwork=int(truth.sum()),
        accuracy=float(np.average(called == truth, weights=used)),
        recall=_share(called, truth, used),
        specificity=_share(~called, ~truth, used),
        mcc=mcc(truth, called, used) if both else None,
        f1=f1(truth, called, used) if both else None,
        auc=auc(truth, probability, used) if both else None,
        ece=ece(truth, probability, used),
        brier=float(np.average((probability - truth) ** 2, weights=used)),
    )


def mcc(truth: Bools, called: Bools, weights: Reals) -> float:
    """Return the weighted MCC in [−1, 1]; 0 where either side holds one class only.

    scikit-learn has the same measures, at ten to a hundred times the time, which counts in
    searches and bootstraps; the tests compare them.
    """
    total, both = float(weights.sum()), float(weights @ (truth & called))
    true, yes = float(weights @ truth), float(weights @ called)
    margins = true * (total - true) * yes * (total - yes)
    return (both * total - true * yes) / math.sqrt(margins) if margins > 0 else 0.0


def f1(truth: Bools, called: Bools, weights: Reals) -> float:
    """Return the weighted F1 of roadwork in [0, 1]; 0 where none is called or shown."""
    shown = float(weights @ truth) + float(weights @ called)
    return 2 * float(weights @ (truth & called)) / shown if shown > 0 else 0.0


def auc(truth: Bools, probability: Reals, weights: Reals) -> float:
    """Return the weighted area under the ROC curve; both classes must be there, ties count half."""
    _, place = np.unique(probability, return_inverse=True)
    yes, no = np.bincount(place, weights * truth), np.bincount(place, weights * ~truth)
    below = np.cumsum(no) - no / 2
    return float(yes @ below / (yes.sum() * no.sum()))


def ece(truth: Bools, probability: Reals, weights: Reals) -> float:
    """Return the expected calibration error of P(roadwork) over 15 equal bins, weighted."""
    found = _bins(truth, probability, weights)
    return sum(each.share * abs(each.stated - each.observed) for each in found)


def _share(right: Bools, among: Bools, weights: Reals) -> float | None:
    return float(np.average(right[among], weights=weights[among])) if among.any() else None


def reliability(judged: Sequence[Judged], weights: Reals | None = None) -> list[Bin]:
    """Return stated probability against observed frequency, for each bin that holds pictures."""
    used = np.ones(len(judged)) if weights is None else weights
    return _bins(truth_of(judged), probability_of(judged), used)


def _bins(truth: Bools, probability: Reals, weights: Reals) -> list[Bin]:
    place = np.minimum((probability * ECE_BINS).astype(np.int64), ECE_BINS - 1)
    held, stated, observed = (
        np.bincount(place, weights=weights * values, minlength=ECE_BINS)
        for values in (np.ones(len(truth)), probability, truth)
    )
    counts = np.bincount(place, minlength=ECE_BINS)
    return [
        Bin(
            float(stated[i] / held[i]),
            float(observed[i] / held[i]),
            float(held[i] / weights.sum()),
            int(counts[i]),
        )
        for i in np.flatnonzero(held)
    ]


def intervals(
    judged: Sequence[Judged], threshold: float = 0.5, draws: int = DRAWS, seed: int = 72
) -> dict[str, tuple[float, float]]:
    """Return 95 % intervals by bootstrap over scenes, of plain measures and by scene.

    Scenes are drawn with all of their pictures. Keys: ``mcc``, ``auc``, ``ece``, and the same with
    ``_by_scene``. Draws in which a class is missing are left out.
    """
    truth, probability = truth_of(judged), probability_of(judged)
    _, scene = np.unique([one.group for one in judged], return_inverse=True)
    count = int(scene.max()) + 1
    rng, kept = np.random.default_rng(seed), defaultdict[str, list[float]](list)
    sizes = {"": np.ones(len(judged)), "_by_scene": scene_weights(judged)}
    for _ in range(draws):
        times = np.bincount(rng.integers(count, size=count), minlength=count)[scene]
        chosen = times > 0
        t, p = truth[chosen], probability[chosen]
        if t.all() or not t.any():
            continue
        for name, weights in sizes.items():
            w = (weights * times)[chosen]
            kept["mcc" + name].append(mcc(t, p >= threshold, w))
            kept["auc" + name].append(auc(t, p, w))
            kept["ece" + name].append(ece(t, p, w))
    return {name: _middle(values) for name, values in kept.items()}


def _middle(values: Sequence[float]) -> tuple[float, float]:
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)
