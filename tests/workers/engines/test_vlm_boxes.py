"""Boxes of earlier tiers drawn into a picture, and the points that a model writes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstream.schemas.cascade.loading import load_cascade
from roadstream.schemas.cascade.model import Member
from roadstream.schemas.errors import ConfigError
from roadstream.schemas.records.image import Head
from roadstream.schemas.records.votes import Box, Evidence
from roadstream.schemas.settings.vllm import VllmSettings
from roadstream.stages.inference import Abstained, Picture, Pictures, Pixels, Score
from roadstream.stages.rules.yes_no import Reading
from roadstream.workers.engines.vlm.asking import Asking
from roadstream.workers.engines.vlm.drawing import COLOUR, drawn, line_width
from roadstream.workers.engines.vlm.telling import HEADING
from tests.kits.builders import cascade, tier

CONE = Box(0.25, 0.5, 0.5, 0.75, 0.9, "cone")
SIGN = Box(0.6, 0.1, 0.7, 0.3, 0.5)
HEIGHT, WIDTH = 320, 480


def grey(height: int = HEIGHT, width: int = WIDTH) -> Pixels:
    return np.full((height, width, 3), 100, np.uint8)


def is_line(pixels: Pixels) -> np.ndarray[Any, np.dtype[np.bool_]]:
    found: np.ndarray[Any, np.dtype[np.bool_]] = (pixels == COLOUR).all(axis=-1)
    return found


def test_a_box_is_outlined_and_nothing_in_it_is_covered() -> None:
    pixels = grey()

    shown = drawn(pixels, [CONE])

    line, (x1, y1, x2, y2) = line_width(pixels), (120, 160, 240, 240)
    assert line == 2
    ring = np.zeros((HEIGHT, WIDTH), bool)
    ring[y1 - line : y2 + line, x1 - line : x2 + line] = True
    ring[y1:y2, x1:x2] = False
    assert is_line(shown)[ring].all()
    changed = (shown != pixels).any(axis=-1) & ~ring
    tab = changed[y1 - line - 20 : y1 - line, x1 - line : x1 + 20]
    assert changed.sum() == tab.sum() > 0  # the number, above the corner
    assert (pixels == 100).all()


def test_lines_are_wider_in_larger_pictures() -> None:
    assert [line_width(grey(side, 2 * side)) for side in (32, 480, 1080)] == [1, 3, 7]


def test_without_boxes_the_picture_is_the_same() -> None:
    pixels = grey()

    assert drawn(pixels, []) is pixels


def test_a_box_along_the_edge_is_outlined_within_the_picture() -> None:
    shown = drawn(grey(), [Box(0.0, 0.0, 1.0, 1.0, 0.9)])

    for edge in (shown[:2], shown[-2:], shown[:, :2], shown[:, -2:]):
        assert is_line(edge)[:, 40:].all()
    assert not is_line(shown[40:-2, 40:-2]).any()


@given(
    st.lists(st.lists(st.floats(0, 1), min_size=4, max_size=4), max_size=12),
    st.integers(1, 90),
    st.integers(1, 90),
)
def test_whatever_the_boxes_and_the_size_a_picture_of_that_size_comes_of_it(
    corners: list[list[float]], height: int, width: int
) -> None:
    boxes = [
        Box(min(a, c), min(b, d), max(a, c), max(b, d), 0.5, "x")
        for a, b, c, d in corners
        if a != c and b != d
    ]

    shown = drawn(grey(height, width), boxes)

    assert shown.shape == (height, width, 3)
    assert is_line(shown).any() == bool(boxes)


def asking(**settings: Any) -> Asking:
    member = Member(name="m", engine="vllm", model="x", width=WIDTH, height=HEIGHT)
    asked = Asking(cascade(tier("one", member)), member, VllmSettings(**settings))
    asked.load()
    return asked


def found(*boxes: Box, **head: Any) -> Picture:
    return Picture(grey(), None, Head(image_id="a", **head), Evidence(list(boxes)))


def test_drawn_boxes_are_told_by_their_numbers() -> None:
    asked = asking(boxes="drawn", evidence=["boxes"])

    (question,) = asked.questions(Pictures([found(CONE, SIGN)]))

    assert question.text == (
        f"{asked.prompt.question(1)}\n\n{HEADING}\n"
        "- objects, outlined and numbered in the picture (confidence): "
        '1 "cone" (0.90); 2 "object" (0.50)'
    )
    assert np.array_equal(question.pictures[0], drawn(grey(), [CONE, SIGN]))


@pytest.mark.parametrize(
    "boxes", [[], [Box(1.2, 0.1, 1.4, 0.2, 0.9)], [Box(0.1, 0.1, 0.1, 0.5, 0.9)]]
)
def test_without_boxes_in_the_picture_it_is_asked_as_without_the_setting(boxes: list[Box]) -> None:
    asked = asking(boxes="drawn", evidence=["boxes"])
    picture = found(*boxes)

    (question,) = asked.questions(Pictures([picture]))

    assert question.text == asked.prompt.question(1)
    assert question.pictures[0] is picture.pixels
    assert not question.drawn


def test_boxes_of_no_more_than_twelve_are_drawn_the_strongest() -> None:
    many = [Box(i / 20, 0.5, i / 20 + 0.04, 0.9, i / 20, "cone") for i in range(20)]

    (question,) = asking(boxes="drawn", evidence=["boxes"]).questions(Pictures([found(*many)]))

    assert np.array_equal(question.pictures[0], drawn(grey(), many[:7:-1]))
    assert '12 "cone" (0.40)' in question.text
    assert '13 "cone"' not in question.text


def test_earlier_frames_are_shown_without_boxes() -> None:
    asked = asking(boxes="drawn", evidence=["boxes"], frames=1)
    drive = [found(CONE, session_id="s", frame_index=i) for i in range(2)]

    _, question = asked.questions(Pictures(drive))

    assert [bool(is_line(one).any()) for one in question.pictures] == [False, True]


def scored(text: str, leak: float = 0.0, **settings: Any) -> Score | Abstained:
    asked = asking(evidence=["boxes"], reasoning_tokens=100, **settings)
    (question,) = asked.questions(Pictures([found(CONE)]))
    return asked.score(Reading(1.0, leak), question, text)


@pytest.mark.parametrize(
    ("points", "text"),
    [
        ("percent", '<point x="30" y="60">cone</point>'),
        ("thousandths", '<points coords="1 1 300 600">cone</points>'),
        ("pixels", '{"point_2d": [144, 192], "label": "cone"}'),
    ],
)
def test_a_point_in_a_box_of_an_earlier_tier_confirms_it(points: str, text: str) -> None:
    score = scored(text, points=points)

    assert isinstance(score, Score)
    assert (score.raw, score.text, score.tags) == (1.0, text, {"points": "confirmed"})
    ((box),) = score.boxes
    assert (box.x1, box.y1) == pytest.approx((0.29, 0.59))
    assert box.label == "cone"
    assert box.confidence == pytest.approx(0.731, abs=1e-3)


def test_points_are_found_in_more_than_what_is_kept() -> None:
    text = '<point x="30" y="60">cone</point> so there is a cone'

    score = scored(text, points="percent", reasoning_kept=4)

    assert isinstance(score, Score)
    assert (score.text, score.tags) == ("cone", {"points": "confirmed"})


def test_points_are_not_looked_for_unless_asked_for() -> None:
    assert scored('<point x="30" y="60">') == Score(1.0, [], '<point x="30" y="60">')


def test_an_abstention_stays_one() -> None:
    assert isinstance(scored('<point x="30" y="60">', leak=0.9, points="percent"), Abstained)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ('boxes = "drawn"', "evidence: expected boxes, which are to be drawn, got nothing"),
        (
            'boxes = "drawn", evidence = ["tags"]',
            "evidence: expected boxes, which are to be drawn, got tags",
        ),
        (
            'points = "percent"',
            "reasoning_tokens: expected a number above 0, as points are written first, got 0",
        ),
        ('points = "inches"', "points: expected"),
    ],
)
def test_settings_that_do_not_fit_are_said(tmp_path: Path, settings: str, said: str) -> None:
    (tmp_path / "c.toml").write_text(
        'name = "c"\n[[tiers]]\nname = "one"\n[[tiers.members]]\nname = "m"\nengine = "vllm"\n'
        f'model = "o/n"\nsettings = {{ {settings} }}\n'
    )

    with pytest.raises(ConfigError) as error:
        load_cascade(str(tmp_path / "c.toml"))

    assert f"tiers[0].members[0].settings.{said}" in str(error.value)
