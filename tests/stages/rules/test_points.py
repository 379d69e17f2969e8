"""Places that models write: of every published form, whatever else is there, and never a fault."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import astuple

from roadstream.schemas.records.votes import MOST_BOXES, Box
from roadstream.stages.inference import Score
from roadstream.stages.rules.points import HALF_SIDE, Place, places, pointed

PERCENT, THOUSANDTHS = (100.0, 100.0), (1000.0, 1000.0)
CONE = Box(0.6, 0.3, 0.7, 0.5, 0.9, "cone")


def point(x: float, y: float, label: str = "") -> Place:
    return Place(x, y, x, y, label)


@pytest.mark.parametrize(
    ("text", "full", "expected"),
    [
        (
            'Here: <point x="61.5" y="40.4" alt="cone">cone</point> YES',
            PERCENT,
            [point(0.615, 0.404, "cone")],
        ),
        (
            '<points x1="10" y1="20.5" x2=" 30 " y2="40" x3="50">two cones</points>',
            PERCENT,
            [point(0.1, 0.205, "two cones"), point(0.3, 0.4, "two cones")],
        ),
        (
            '<points coords="1 1 453 612 2 0501 048">cones</points>',
            THOUSANDTHS,
            [point(0.453, 0.612, "cones"), point(0.501, 0.048, "cones")],
        ),
        (
            '```json [{"point_2d": [346, 328], "label": "a  cone"}, {"point_2d": [1, 2.5]}, ```',
            THOUSANDTHS,
            [point(0.346, 0.328, "a cone"), point(0.001, 0.0025)],
        ),
        (
            '{"label": "barrier", "bbox_2d": [160, 90, 80, 45]}',
            (320, 180),
            [Place(0.25, 0.25, 0.5, 0.5, "barrier")],
        ),
        ('{"bbox_2d": [1, 2, 3]} {"bbox_2d": "1, 2"} [1, 2] <point x="1">', PERCENT, []),
        ('<point x="12" y="13"/><point x="12" y="13"/>', PERCENT, [point(0.12, 0.13)]),
        ("", PERCENT, []),
    ],
)
def test_each_form_is_read(text: str, full: tuple[float, float], expected: list[Place]) -> None:
    found = places(text, full)

    assert [one.label for one in found] == [one.label for one in expected]
    assert [one[:4] for one in found] == [pytest.approx(one[:4]) for one in expected]


def test_of_several_pictures_the_last_one_counts() -> None:
    text = '<points coords="1 1 100 200 2 150 250;3 3 453 612 4 500 600">cones</points>'

    assert places(text, THOUSANDTHS, 3) == [point(0.453, 0.612, "cones"), point(0.5, 0.6, "cones")]
    assert places(text, THOUSANDTHS, 2) == []


def said(*found: Place, text: str = "so", boxes: tuple[Box, ...] = (CONE,)) -> Score:
    return pointed(Score(0.0, [], text), found, boxes)


def test_a_point_in_a_box_confirms_it() -> None:
    score = said(point(0.65, 0.4, "cone"))

    ((x1, y1, x2, y2, confidence, label),) = map(astuple, score.boxes)
    assert (x1, y1, x2, y2) == pytest.approx((0.64, 0.39, 0.66, 0.41))
    assert (confidence, label) == (0.5, "cone")
    assert (score.raw, score.text, score.tags) == (0.0, "so", {"points": "confirmed"})


@pytest.mark.parametrize(
    ("found", "boxes", "verdict"),
    [
        ([point(0.1, 0.1)], [CONE], "elsewhere"),
        ([point(0.65, 0.4)], [], "elsewhere"),
        ([], [CONE], "none"),
        ([point(1.65, 0.4)], [CONE], "none"),
        ([point(0.1, 0.1), Place(0.5, 0.3, 0.8, 0.5)], [CONE], "confirmed"),
    ],
)
def test_the_tag_says_where_it_points(found: list[Place], boxes: list[Box], verdict: str) -> None:
    assert said(*found, boxes=tuple(boxes)).tags == {"points": verdict}


def test_places_outside_of_the_picture_are_left_out_and_counted() -> None:
    score = said(point(1.0, 0.0), point(1.01, 0.5), point(-0.2, 0.5), text="two cones")

    assert score.text == "Left out as outside of the picture: 2. two cones"
    assert score.boxes == [Box(1.0 - HALF_SIDE, 0.0, 1.0, HALF_SIDE, 0.5)]


NUMBERS = st.one_of(st.integers(-2000, 2000), st.floats(-2000, 2000)).map(str)
PIECES = st.one_of(
    st.text(max_size=30),
    st.sampled_from(['<point x="', '" y="', '">', "<points", 'coords="1 1 ', "</point>", " "]),
    st.sampled_from(['{"point_2d": [', '{"bbox_2d": [', ", ", "]", '"label": "', '"}', "1 500 "]),
    NUMBERS,
)


@given(st.lists(PIECES, max_size=40).map("".join), st.integers(1, 4))
def test_whatever_is_written_only_boxes_of_the_picture_come_of_it(text: str, count: int) -> None:
    for full in (PERCENT, THOUSANDTHS, (640, 32)):
        score = pointed(Score(1.0, [], text), places(text, full, count), [CONE])

        assert len(score.boxes) <= MOST_BOXES
        assert set(score.tags) == {"points"}
        for box in score.boxes:
            assert 0.0 <= box.x1 <= box.x2 <= 1.0
            assert 0.0 <= box.y1 <= box.y2 <= 1.0


SIDES = st.floats(-200, 300).map("{:.3f}".format)


@given(SIDES, SIDES)
def test_a_point_is_in_the_vote_only_if_it_is_in_the_picture(x: str, y: str) -> None:
    (found,) = places(f'<point x="{x}" y="{y}">', PERCENT)

    assert found.inside == (0 <= found.x1 <= 1 and 0 <= found.y1 <= 1)
    assert bool(said(found).boxes) == found.inside


@pytest.mark.parametrize(
    "piece",
    ["<point ", "a", " ", "{", '"', '<point x="', '{"point_2d": [', "1 500 ", "9", "<points x1= "],
)
def test_no_text_takes_long(piece: str) -> None:
    began = time.process_time()

    places(piece * (20_000 // len(piece)), PERCENT)

    assert time.process_time() - began < 1.0
