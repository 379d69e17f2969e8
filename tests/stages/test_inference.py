"""Isolation: a picture that breaks the engine fails alone, and its neighbours never notice."""

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import ImageError
from stages.inference import Engine, Picture, Score, infer_isolated


class Touchy(Engine):
    """Scores a picture by its grey level; breaks, or gives nonsense, at some levels."""

    def __init__(
        self, breaks_at: Collection[int] = (), scores: Mapping[int, float] | None = None
    ) -> None:
        self.breaks_at, self.scores = set(breaks_at), dict(scores or {})
        self.batches: list[int] = []

    def load(self) -> None:
        self.batches.clear()

    def infer(self, batch: Sequence[Picture]) -> list[Score]:
        self.batches.append(len(batch))
        levels = [int(picture.pixels[0, 0, 0]) for picture in batch]
        if bad := self.breaks_at.intersection(levels):
            raise RuntimeError(f"cannot stand level {min(bad)}")
        return [Score(self.scores.get(level, level / 8), []) for level in levels]

    def close(self) -> None:
        self.batches.clear()


class Miscounting(Touchy):
    """Gives one score too few whenever it is given several pictures."""

    def infer(self, batch: Sequence[Picture]) -> list[Score]:
        return super().infer(batch)[: max(1, len(batch) - 1)]


def pictures(count: int) -> list[Picture]:
    return [Picture(np.full((2, 2, 3), level, np.uint8)) for level in range(count)]


def fault(found: Score | ImageError) -> str | None:
    return str(found) if isinstance(found, ImageError) else None


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 64).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)))))
def test_exactly_the_culprits_fail_after_a_bounded_number_of_runs(
    case: tuple[int, set[int]],
) -> None:
    count, culprits = case
    engine = Touchy(culprits)

    found = infer_isolated(engine, pictures(count))

    clean = infer_isolated(Touchy(), pictures(count))
    for level in range(count):
        if level in culprits:
            expected = f"model_failed: RuntimeError: cannot stand level {level}"
            assert fault(found[level]) == expected
        else:
            assert found[level] == clean[level]
    bound = 1 + 2 * math.ceil(math.log2(count)) * len(culprits)
    assert len(engine.batches) <= min(bound, 2 * count - 1)


def test_a_clean_batch_runs_once() -> None:
    engine = Touchy()
    assert len(infer_isolated(engine, pictures(16))) == 16
    assert engine.batches == [16]


def test_an_empty_batch_does_not_run() -> None:
    engine = Touchy()
    assert infer_isolated(engine, []) == []
    assert engine.batches == []


@pytest.mark.parametrize("nonsense", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_fails_its_own_picture_only(nonsense: float) -> None:
    engine = Touchy(scores={2: nonsense})

    found = infer_isolated(engine, pictures(4))

    assert [fault(f) for f in found] == [
        None,
        None,
        f"model_failed: expected a finite score, got {nonsense}",
        None,
    ]
    assert engine.batches == [4]


def test_scores_that_cannot_be_told_apart_are_asked_for_again() -> None:
    engine = Miscounting()

    found = infer_isolated(engine, pictures(4))

    assert found == infer_isolated(Touchy(), pictures(4))


def test_warming_up_runs_one_blank_picture() -> None:
    engine = Touchy()
    engine.warm_up()
    assert engine.batches == [1]


def test_a_picture_is_resized_once_per_size() -> None:
    picture = Picture(np.zeros((40, 60, 3), np.uint8))

    assert picture.at(30, 20).shape == (20, 30, 3)
    assert picture.at(30, 20) is picture.at(30, 20)
    assert picture.at(20, 30).shape == (30, 20, 3)
