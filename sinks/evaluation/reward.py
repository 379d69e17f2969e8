"""What subnet 72's validators would pay for a stream of predictions, challenge by challenge."""

from collections import deque
from collections.abc import Iterable

import msgspec

from roadstream.sinks.evaluation.metrics import Confusion

SILENCE = -1.0
"""The prediction of a miner that did not answer."""
MCC_WINDOW, ACCURACY_WINDOW = 100, 10
"""Challenges looked back on; a challenge without an answer keeps its place in both."""
SMOOTHING = 0.05
"""Weight of the newest reward in a miner's score."""


class Reward(msgspec.Struct, frozen=True, kw_only=True):
    """The pay for one stream of predictions.

    Attributes:
        challenges: Labelled pictures, in order.
        silent: Those without an answer.
        mean: Mean reward per challenge in [0, 1]; 0 without challenges.
        last: Reward of the last challenge in [0, 1].
        score: Moving score after the last challenge in [0, 1], from 0 at the start.
    """

    challenges: int
    silent: int
    mean: float
    last: float
    score: float


class _Window:
    """Confusion counts of the last challenges; silence takes a place but is not counted."""

    def __init__(self, size: int) -> None:
        self._recent: deque[tuple[bool, bool] | None] = deque(maxlen=size)
        self._counts = {(truth, called): 0 for truth in (True, False) for called in (True, False)}

    def add(self, challenge: tuple[bool, bool] | None) -> None:
        oldest = self._recent[0] if len(self._recent) == self._recent.maxlen else None
        self._recent.append(challenge)
        if oldest is not None:
            self._counts[oldest] -= 1
        if challenge is not None:
            self._counts[challenge] += 1

    def confusion(self) -> Confusion:
        return Confusion(
            true_positive=self._counts[True, True],
            false_positive=self._counts[False, True],
            false_negative=self._counts[True, False],
            true_negative=self._counts[False, False],
        )


def subnet_reward(challenges: Iterable[tuple[bool, float]]) -> Reward:
    """Return the reward for (label, prediction) pairs in the order of their challenges.

    Per challenge ``((0.5·MCC of the last 100 + 0.5·accuracy of the last 10))³``, 0 for silence;
    then ``score ← 0.05·reward + 0.95·score``. Predictions are rounded half to even, so that
    exactly 0.5 means "no roadwork"; the MCC is floored at 0, and is 0 while only one class was
    seen. Nothing else counts: neither latency nor calibration.

    Source: the public validator of subnet 72 (natixnetwork/streetvision-subnet,
    ``natix/validator/reward.py`` and ``miner_performance_tracker.py``; newest seen 2026-05-07).
    It would also punish predictions outside [0, 1]; answers hold none.

    Args:
        challenges: Whether the picture shows roadwork, and the prediction: a probability in
            [0, 1], or ``SILENCE``.

    Raises:
        ValueError: A prediction is neither in [0, 1] nor ``SILENCE``.
    """
    long, short = _Window(MCC_WINDOW), _Window(ACCURACY_WINDOW)
    count = silent = 0
    total = last = score = 0.0
    for truth, prediction in challenges:
        if prediction != SILENCE and not 0.0 <= prediction <= 1.0:
            raise ValueError(f"prediction: expected 0 to 1, or −1 for silence, got {prediction}")
        answered = prediction != SILENCE
        for window in (long, short):
            window.add((truth, prediction > 0.5) if answered else None)
        last = _pay(long, short) if answered else 0.0
        score = SMOOTHING * last + (1.0 - SMOOTHING) * score
        total += last
        count += 1
        silent += not answered
    mean = total / count if count else 0.0
    return Reward(challenges=count, silent=silent, mean=mean, last=last, score=score)


def _pay(long: _Window, short: _Window) -> float:
    skill = max(0.0, long.confusion().mcc)
    return float((0.5 * skill + 0.5 * short.confusion().accuracy) ** 3)
