"""How hard an image is: features, score and bin."""

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstream.schemas.cascade.rules import DIFFICULTY_WEIGHTS, Difficulty
from roadstream.stages.rules.difficulty import Bins, Features, Surface, features, surface

shares = st.floats(0, 1)
votes = st.lists(shares, max_size=12)
surfaces = st.builds(Surface, shares, st.floats(0, 0.5), shares)
weathers = st.none() | st.sampled_from(["dry", "rain", "fog", "snow", "hail"])
counts = st.none() | st.integers(0, 10_000)
known = st.builds(features, votes, counts, weathers, st.none() | surfaces)
weights = st.dictionaries(st.sampled_from(list(DIFFICULTY_WEIGHTS)), st.floats(0.01, 100))

BINS = Bins(Difficulty())


def test_every_feature_has_a_weight_and_every_weight_a_feature() -> None:
    assert tuple(DIFFICULTY_WEIGHTS) == Features._fields


@given(known, weights)
def test_features_and_score_are_shares(found: Features, chosen: dict[str, float]) -> None:
    score = Bins(Difficulty(weights=chosen)).score(found)

    assert all(value is None or 0 <= value <= 1 for value in found)
    assert score is None or 0 <= score <= 1


@given(known, st.sampled_from(Features._fields), shares, shares)
def test_more_of_a_feature_never_makes_an_image_easier(
    found: Features, name: str, one: float, other: float
) -> None:
    less, more = (found._replace(**{name: value}) for value in sorted((one, other)))
    low, high = BINS.score(less), BINS.score(more)

    assert low is not None
    assert high is not None
    assert low <= high + 1e-12


@given(votes, st.randoms(use_true_random=False), counts, weathers, surfaces)
def test_the_order_of_members_never_matters(
    ps: list[float], random: Random, boxes: int | None, weather: str | None, seen: Surface
) -> None:
    shuffled = list(ps)
    random.shuffle(shuffled)

    assert features(ps, boxes, weather, seen) == features(shuffled, boxes, weather, seen)


@given(known, st.sampled_from(Features._fields))
def test_what_is_as_hard_as_the_rest_changes_nothing(found: Features, name: str) -> None:
    without = found._replace(**{name: None})
    if (score := BINS.score(without)) is not None:
        assert BINS.score(without._replace(**{name: score})) == pytest.approx(score)


def test_an_absent_voter_is_neither_easy_nor_hard() -> None:
    assert features([0.2, 0.6]) == features([0.6, 0.2])
    assert features([0.4]).variance is None
    assert BINS.score(features([0.4])) is None
    assert BINS.level(features([])) is None


@pytest.mark.parametrize(
    ("easy", "hard"),
    [
        (features([0.1, 0.1]), features([0.1, 0.9])),
        (features([], 0), features([], 9)),
        (features([], weather="dry"), features([], weather="rain")),
        (features([], weather="rain"), features([], weather="fog")),
        (features([], surface=Surface(0.4, 0.3, 0)), features([], surface=Surface(0.1, 0.3, 0))),
        (features([], surface=Surface(0.4, 0.3, 0)), features([], surface=Surface(0.4, 0.1, 0))),
        (features([], surface=Surface(0.4, 0.3, 0)), features([], surface=Surface(0.4, 0.3, 0.3))),
    ],
)
def test_what_makes_an_image_harder(easy: Features, hard: Features) -> None:
    low, high = BINS.score(easy), BINS.score(hard)

    assert low is not None
    assert high is not None
    assert low < high


def test_a_weather_that_nobody_knows_says_nothing() -> None:
    assert features([], weather="hail").weather is None


@pytest.mark.parametrize(
    ("edges", "level"), [(0.0, "1"), (0.1, "2"), (0.2, "3"), (0.35, "4"), (0.4, "5"), (1.0, "5")]
)
def test_a_bin_begins_at_its_bound(edges: float, level: str) -> None:
    bins = Bins(Difficulty(bounds=(0.1, 0.2, 0.3, 0.4)))

    assert bins.level(Features(edges=edges)) == level


def test_a_feature_counts_by_its_weight() -> None:
    bins = Bins(Difficulty(weights={"edges": 3, "objects": 0}))

    assert bins.score(Features(variance=0.0, objects=1.0, edges=1.0)) == 0.75


def test_a_plain_picture_has_its_brightness_and_no_edges() -> None:
    assert surface(np.full((30, 40, 3), 51, np.uint8)) == Surface(0.2, 0.0, 0.0)


def test_stripes_are_edges_across_them_only() -> None:
    stripes = np.zeros((48, 80, 3), np.uint8)
    stripes[:, ::2] = 255

    found = surface(stripes)

    assert found is not None
    assert found.edges == pytest.approx(79 * 48 / (79 * 48 + 80 * 47))
    assert found.contrast == pytest.approx(0.5)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_pictures_of_any_size_are_measured(height: int, width: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)

    found = surface(pixels)

    assert found is not None
    assert 0 <= found.brightness <= 1
    assert 0 <= found.contrast <= 0.5
    assert 0 <= found.edges <= 1


def test_a_picture_that_nobody_looked_at_has_no_surface() -> None:
    assert surface(np.zeros((0, 0, 3), np.uint8)) is None
