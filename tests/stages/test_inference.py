"""Isolation: a picture that breaks the engine fails alone, and its neighbours never notice."""

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roadstream.schemas.errors import DeviceMemoryError, EngineDownError, ImageError
from roadstream.schemas.records.votes import NO_TAGS, Box
from roadstream.stages.inference import (
    MAX_TEXT,
    Abstained,
    DepthMap,
    Engine,
    EngineResult,
    Finding,
    Picture,
    Pictures,
    Score,
    infer_isolated,
    is_out_of_memory,
)
from tests.kits.examples import examples


class Touchy(Engine):
    """Scores a picture by its grey level; breaks, or gives nonsense, at some levels."""

    def __init__(
        self, breaks_at: Collection[int] = (), scores: Mapping[int, float] | None = None
    ) -> None:
        self.breaks_at, self.scores = set(breaks_at), dict(scores or {})
        self.batches: list[int] = []

    def load(self) -> None:
        self.batches.clear()

    def infer(self, batch: Pictures) -> list[Score]:
        self.batches.append(len(batch))
        levels = [int(picture.pixels[0, 0, 0]) for picture in batch]
        if bad := self.breaks_at.intersection(levels):
            raise RuntimeError(f"cannot stand level {min(bad)}")
        return [Score(self.scores.get(level, level / 8), []) for level in levels]

    def close(self) -> None:
        self.batches.clear()


class Miscounting(Touchy):
    """Gives one score too few whenever it is given several pictures."""

    def infer(self, batch: Pictures) -> list[Score]:
        return super().infer(batch)[: max(1, len(batch) - 1)]


def pictures(count: int) -> Pictures:
    return Pictures([Picture(np.full((2, 2, 3), level, np.uint8)) for level in range(count)])


def infer(engine: Engine, batch: Pictures) -> list[Finding]:
    return infer_isolated(engine, batch).found


def fault(found: Finding) -> str | None:
    return None if isinstance(found, Score) else str(found)


@settings(deadline=None, max_examples=examples(200))
@given(st.integers(1, 64).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)))))
def test_exactly_the_culprits_fail_after_a_bounded_number_of_runs(
    case: tuple[int, set[int]],
) -> None:
    count, culprits = case
    engine = Touchy(culprits)

    found = infer(engine, pictures(count))

    clean = infer(Touchy(), pictures(count))
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
    assert len(infer(engine, pictures(16))) == 16
    assert engine.batches == [16]


def test_an_empty_batch_does_not_run() -> None:
    engine = Touchy()
    assert infer(engine, pictures(0)) == []
    assert engine.batches == []


@pytest.mark.parametrize("nonsense", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_fails_its_own_picture_only(nonsense: float) -> None:
    engine = Touchy(scores={2: nonsense})

    found = infer(engine, pictures(4))

    assert [fault(f) for f in found] == [
        None,
        None,
        f"model_failed: expected a finite score, got {nonsense}",
        None,
    ]
    assert engine.batches == [4]


def test_scores_that_cannot_be_told_apart_are_asked_for_again() -> None:
    engine = Miscounting()

    found = infer(engine, pictures(4))

    assert found == infer(Touchy(), pictures(4))


class Odd(Engine):
    """Gives whatever it is told, without looking."""

    def __init__(self, gives: object) -> None:
        self.gives = gives

    def load(self) -> None:
        pass

    def infer(self, batch: Pictures) -> list[Score]:
        if isinstance(self.gives, BaseException):
            raise self.gives
        return self.gives  # type: ignore[return-value]  # that is the point

    def close(self) -> None:
        pass


SCORE = Score(1.0, [])


@pytest.mark.parametrize(
    ("gives", "said"),
    [
        (None, "expected a list of 1 scores, got NoneType"),
        ((SCORE,), "expected a list of 1 scores, got tuple"),
        ([], "expected 1 scores, got 0"),
        ([SCORE, SCORE], "expected 1 scores, got 2"),
        ([None], "expected a Score, got NoneType"),
        ([1.0], "expected a Score, got float"),
        ([Score("high", [])], "ValueError: could not convert string to float: 'high'"),  # type: ignore[arg-type]
        ([Score(math.inf, [])], "expected a finite score, got inf"),
        ([Score(1.0, ["box"])], "expected a Box, got str"),  # type: ignore[list-item]
        ([Score(1.0, (1, 2))], "expected a list of boxes, got tuple"),  # type: ignore[arg-type]
        (
            [Score(1.0, [Box(0.0, 0.0, math.nan, 1.0, 0.5)])],
            "expected a box of finite numbers, got [0.0, 0.0, nan, 1.0, 0.5]",
        ),
        (RuntimeError("two\n  lines and a \udcff byte"), "RuntimeError: two lines and a ? byte"),
    ],
)
def test_what_is_no_score_is_told(gives: object, said: str) -> None:
    (found,) = infer(Odd(gives), pictures(1))
    assert fault(found) == f"model_failed: {said}"


def test_scores_of_numpy_become_numbers_that_a_record_can_carry() -> None:
    box = Box(np.float32(0.5), 0.0, 1.0, 1.0, np.float32(0.25), "cone")  # type: ignore[arg-type]
    (found,) = infer(Odd([Score(np.float32(0.5), [box])]), pictures(1))  # type: ignore[arg-type]
    assert found == Score(0.5, [Box(0.5, 0.0, 1.0, 1.0, 0.25, "cone")])
    assert isinstance(found, Score)
    assert {type(n) for n in (found.raw, found.boxes[0].x1, found.boxes[0].confidence)} == {float}


class Cramped(Touchy):
    """Has memory for batches up to a size, and for some pictures not even then."""

    def __init__(self, fits: int, giants: Collection[int] = (), **touchy: object) -> None:
        super().__init__(**touchy)  # type: ignore[arg-type]
        self.fits, self.giants = fits, set(giants)

    def infer(self, batch: Pictures) -> list[Score]:
        levels = {int(picture.pixels[0, 0, 0]) for picture in batch}
        if len(batch) > self.fits or levels & self.giants:
            self.batches.append(len(batch))
            raise MemoryError("no room")
        return super().infer(batch)


def test_a_batch_that_does_not_fit_is_halved_until_it_does() -> None:
    engine = Cramped(5)

    findings = infer_isolated(engine, pictures(16))

    assert findings.found == infer(Touchy(), pictures(16))
    assert findings.fits == 4
    assert engine.batches == [16, 8, 4, 4, 8, 4, 4]


def test_a_picture_that_does_not_fit_alone_is_no_poison() -> None:
    findings = infer_isolated(Cramped(64, giants={3}), pictures(8))

    assert [type(one) for one in findings.found].count(DeviceMemoryError) == 1
    assert fault(findings.found[3]) == (
        "model_failed: not even one picture fits into memory: no room"
    )
    assert findings.fits == 4


def test_enough_memory_says_nothing_of_sizes() -> None:
    assert infer_isolated(Touchy({2}), pictures(8)).fits is None
    assert infer_isolated(Cramped(0), pictures(1)).fits is None


def test_memory_errors_of_other_libraries_are_told_by_name() -> None:
    kind = type("OutOfMemoryError", (RuntimeError,), {"__module__": "torch"})
    assert is_out_of_memory(kind())
    assert is_out_of_memory(type("Ours", (kind,), {})())
    assert is_out_of_memory(np._core._exceptions._ArrayMemoryError((1,), np.dtype(float)))  # type: ignore[attr-defined]
    assert not is_out_of_memory(RuntimeError("out of memory"))


@settings(deadline=None, max_examples=examples(150))
@given(
    count=st.integers(1, 48),
    fits=st.integers(1, 48),
    poison=st.sets(st.integers(0, 47), max_size=6),
    nonsense=st.sets(st.integers(0, 47), max_size=6),
    giants=st.sets(st.integers(0, 47), max_size=3),
)
def test_whatever_is_mixed_neighbours_are_as_in_a_clean_run_after_a_bounded_number_of_runs(
    count: int, fits: int, poison: set[int], nonsense: set[int], giants: set[int]
) -> None:
    engine = Cramped(fits, giants, breaks_at=poison, scores=dict.fromkeys(nonsense, math.nan))

    findings = infer_isolated(engine, pictures(count))

    clean = infer(Touchy(), pictures(count))
    assert len(findings.found) == count
    for level, found in enumerate(findings.found):
        if level in giants:
            assert isinstance(found, DeviceMemoryError)
        elif level in poison | nonsense:
            assert isinstance(found, ImageError)
        else:
            assert found == clean[level]
    assert len(engine.batches) == findings.runs <= 2 * count - 1
    if findings.fits is not None:
        assert 1 <= findings.fits <= max(1, min(fits, count - 1))
    for row, tries in findings.tries.items():
        assert not isinstance(findings.found[row], Score)
        assert 1 <= tries <= 1 + math.ceil(math.log2(count))


class Miscounted(Touchy):
    """Gives a wrong number of scores for some batch sizes."""

    def __init__(self, extra: Mapping[int, int]) -> None:
        super().__init__()
        self.extra = extra

    def infer(self, batch: Pictures) -> list[Score]:
        scores, extra = super().infer(batch), self.extra.get(len(batch), 0)
        return scores[:extra] if extra < 0 else scores + scores[:1] * extra


@settings(deadline=None, max_examples=examples(150))
@given(st.integers(1, 32), st.dictionaries(st.integers(2, 32), st.integers(-3, 3)))
def test_a_wrong_number_of_scores_costs_no_picture_its_own(
    count: int, extra: dict[int, int]
) -> None:
    engine = Miscounted(extra)

    assert infer(engine, pictures(count)) == infer(Touchy(), pictures(count))
    assert len(engine.batches) <= 2 * count - 1


def test_warming_up_runs_one_blank_picture() -> None:
    engine = Touchy()
    engine.warm_up()
    assert engine.batches == [1]


def test_a_picture_is_resized_once_per_size() -> None:
    picture = Picture(np.zeros((40, 60, 3), np.uint8))

    assert picture.at(30, 20).shape == (20, 30, 3)
    assert picture.at(30, 20) is picture.at(30, 20)
    assert picture.at(20, 30).shape == (30, 20, 3)


def test_the_smallest_that_was_made_of_a_picture_is_at_hand_and_nothing_of_one_without() -> None:
    picture = Picture(np.zeros((40, 60, 3), np.uint8))
    assert picture.smallest() is picture.pixels

    picture.keep_only([(20, 10), (30, 20)])

    assert picture.smallest().shape == (10, 20, 3)
    assert Picture().smallest().size == 0


def test_a_batch_is_resized_and_stacked_once_per_size_and_its_parts_share_nothing() -> None:
    batch = pictures(3)

    stacked = batch.stack(4, 6)

    assert stacked.shape == (3, 6, 4, 3)
    assert stacked.dtype == np.uint8
    assert [int(one[0, 0, 0]) for one in stacked] == [0, 1, 2]
    assert batch.stack(4, 6) is stacked
    assert batch[1:].stack(4, 6).tolist() == stacked[1:].tolist()
    assert batch[1:].share("features", lambda: 1) == 1
    assert batch.share("features", lambda: 2) == 2
    assert batch.share("features", lambda: 3) == 2


class Away(Touchy):
    """Goes away when it sees a level."""

    def infer(self, batch: Pictures) -> list[Score]:
        scores = super().infer(batch)
        if any(score.raw == 2.0 for score in scores):
            raise EngineDownError("the process\ndied")
        return scores


def test_an_engine_that_goes_away_is_not_asked_again() -> None:
    engine = Away(breaks_at={3})

    findings = infer_isolated(engine, pictures(32))

    # Level 3 breaks it, so it is told apart first; level 16 takes it away.
    assert [type(found) for found in findings.found[:16]] == [Score] * 3 + [ImageError] + (
        [Score] * 12
    )
    assert {str(found) for found in findings.found[16:]} == {"model_failed: the process died"}
    assert all(isinstance(found, EngineDownError) for found in findings.found[16:])
    assert findings.runs == len(engine.batches)
    assert engine.batches[-1] == 16


class Reader(Touchy):
    """Answers for each picture in its own way."""

    def __init__(self, says: list[EngineResult]) -> None:
        super().__init__()
        self.says = says

    def infer(self, batch: Pictures) -> list[EngineResult]:  # type: ignore[override]
        return [self.says[int(picture.pixels[0, 0, 0])] for picture in batch]


def test_a_member_may_say_why_it_gives_no_score_and_what_it_read() -> None:
    late = ImageError("expired", "too late")
    says: list[EngineResult] = [Score(1.0, [], "ROAD WORK"), Abstained("nothing\n to read"), late]

    assert infer(Reader(says), pictures(3)) == [says[0], Abstained("nothing to read"), late]


def test_what_a_model_writes_is_bounded_and_utf_8() -> None:
    (found,) = infer(Reader([Score(0.0, [], "\ud800" + "x" * 2 * MAX_TEXT)]), pictures(1))

    assert isinstance(found, Score)
    assert found.text == "?" + "x" * (MAX_TEXT - 1)


def test_tags_go_with_a_score_or_instead_of_one() -> None:
    rain = {"weather": "rain", "text": "ROAD\n WORK \ud800"}
    says: list[EngineResult] = [Score(1.0, [], "", rain), Abstained(tags=rain), Score(2.0, [])]

    tagged, instead, plain = infer(Reader(says), pictures(3))

    clean = {"weather": "rain", "text": "ROAD WORK ?"}
    assert (tagged, instead) == (Score(1.0, [], "", clean), Abstained("", clean))
    assert plain == Score(2.0, [])


@pytest.mark.parametrize(
    ("tags", "problem"),
    [
        ({"text": "x" * (1 << 20)}, "expected at most 256 characters as tag text, got 1048576"),
        ({f"t{i}": "" for i in range(33)}, "expected at most 32 tags, got 33"),
        ({"x" * (1 << 20): ""}, "letters, digits, - and _, got 1048576 characters"),
        ({"the weather": "rain"}, "letters, digits, - and _, got 'the weather'"),
        ({"weather\n": "rain"}, r"letters, digits, - and _, got 'weather\n'"),
        ({3: "rain"}, "letters, digits, - and _, got int"),
        ({"difficulty": 3}, "expected a text as tag difficulty, got int"),
        (["weather=rain"], "expected tags by name, got list"),
        (None, "expected tags by name, got NoneType"),
    ],
)
def test_tags_that_are_none_fail_their_own_picture(tags: Any, problem: str) -> None:
    says: list[EngineResult] = [Score(0.0, []), Score(1.0, [], "", tags), Abstained("", tags)]

    neighbour, *culprits = infer(Reader(says), pictures(3))

    assert neighbour == Score(0.0, [])
    for culprit in culprits:
        assert str(culprit).startswith("model_failed: expected ")
        assert str(culprit).endswith(problem)
        assert len(str(culprit)) < 200


def test_a_depth_map_goes_on_as_it_is_with_its_holes() -> None:
    metres = np.array([[math.nan, 2.0], [-1.0, math.inf]], np.float32)
    says: list[EngineResult] = [Abstained("", NO_TAGS, DepthMap(metres, 0.5)), Score(0.0, [])]

    found, neighbour = infer(Reader(says), pictures(2))

    assert isinstance(found, Abstained)
    assert found.depth is not None
    assert found.depth.metres is metres
    assert found.depth.focal == 0.5
    assert neighbour == Score(0.0, [])


@pytest.mark.parametrize(
    ("depth", "problem"),
    [
        (np.ones((2, 2), np.float32), "expected a DepthMap, got ndarray"),
        (DepthMap([[1.0]]), "expected a depth map of floats, got list"),  # type: ignore[arg-type]
        (DepthMap(np.ones((2, 2), np.int64)), "expected a depth map of floats, got int64"),
        (DepthMap(np.ones(4, np.float32)), "of 1 to 1024 per side, got [4]"),
        (DepthMap(np.ones((0, 4), np.float32)), "of 1 to 1024 per side, got [0, 4]"),
        (DepthMap(np.ones((1025, 2), np.float32)), "of 1 to 1024 per side, got [1025, 2]"),
        (DepthMap(np.full((9, 9), math.nan)), "with depths in it, got nothing but nan"),
        (DepthMap(np.array([[0.0, -1.0], [math.inf, -1.0]])), "got nothing but -1, 0, inf"),
        (DepthMap(np.ones((2, 2)), "wide"), "could not convert string to float: 'wide'"),  # type: ignore[arg-type]
    ],
)
def test_a_depth_map_that_is_none_fails_its_own_picture(depth: Any, problem: str) -> None:
    says: list[EngineResult] = [Score(0.0, []), Abstained("", NO_TAGS, depth)]

    neighbour, culprit = infer(Reader(says), pictures(2))

    assert neighbour == Score(0.0, [])
    assert str(culprit).startswith("model_failed: ")
    assert str(culprit).endswith(problem)
