"""The cone rule judges drawn pictures by colour and shape, and survives any picture at all."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from roadstream.stages.rules.cones import MOST_SCORE, NO_BLOB_SCORE, Pixels, find_cones
from tests.kits.examples import examples

ORANGE = (240, 110, 25)
WHITE = (235, 235, 235)
ASPHALT = (105, 105, 108)
SKY_BLUE = (110, 165, 230)
CAR_RED = (190, 20, 30)


def draw_road(width: int = 640, height: int = 400) -> Pixels:
    """A blue sky above grey asphalt with a white lane line."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2] = SKY_BLUE
    image[height // 2 :] = ASPHALT
    ends = ((width // 2, height // 2), (width // 3, height))
    cv2.line(image, *ends, WHITE, 4)
    return image


def draw_cone(image: Pixels, x: int, base: int, height: int, width: int) -> Pixels:
    """A striped cone with its foot at (x, base)."""
    half = width // 2
    body = [(x - half // 5, base - height), (x + half // 5, base - height)]
    body += [(x + half * 3 // 4, base), (x - half * 3 // 4, base)]
    cv2.fillPoly(image, [np.array(body, np.int32)], ORANGE)
    stripe = slice(base - height * 6 // 10, base - height * 4 // 10)
    orange = (image[stripe] == ORANGE).all(-1)
    image[stripe][orange] = WHITE
    cv2.rectangle(image, (x - half, base - height // 12), (x + half, base), ORANGE, -1)
    return image


def test_a_cone_on_the_road_raises_the_score() -> None:
    empty = find_cones(draw_road())

    with_cone = find_cones(draw_cone(draw_road(), x=420, base=300, height=80, width=48))

    assert with_cone.score > empty.score + 3
    assert with_cone.boxes


def test_the_best_box_frames_the_cone() -> None:
    image = draw_cone(draw_road(), x=420, base=300, height=80, width=48)

    best = find_cones(image).boxes[0]

    assert best[:4] == pytest.approx((396 / 640, 220 / 400, 444 / 640, 300 / 400), abs=0.02)
    assert 0.3 <= best.confidence <= 1


def test_more_cones_never_score_less() -> None:
    one = draw_cone(draw_road(), x=200, base=300, height=60, width=36)
    score_of_one = find_cones(one).score

    three = draw_cone(draw_cone(one, 400, 320, 70, 42), 520, 340, 80, 48)

    assert find_cones(three).score >= score_of_one


def test_an_empty_road_under_blue_sky_has_no_boxes() -> None:
    finding = find_cones(draw_road())

    assert finding.score == NO_BLOB_SCORE
    assert finding.boxes == []


def test_a_red_car_scores_less_than_a_cone() -> None:
    car = draw_road()
    cv2.rectangle(car, (220, 210), (420, 290), CAR_RED, -1)
    cone = draw_cone(draw_road(), x=420, base=300, height=80, width=48)

    assert find_cones(car).score < find_cones(cone).score - 2


def test_orange_sky_scores_less_than_a_cone() -> None:
    dusk = draw_road()
    dusk[:200] = ORANGE
    cone = draw_cone(draw_road(), x=420, base=300, height=80, width=48)

    assert find_cones(dusk).score < find_cones(cone).score - 2


@pytest.mark.parametrize("scale", [0.5, 2.0, 3.0])
def test_the_score_hardly_depends_on_resolution(scale: float) -> None:
    image = draw_cone(draw_road(), x=420, base=300, height=80, width=48)
    size = (int(640 * scale), int(400 * scale))
    scaled = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)

    assert find_cones(scaled).score == pytest.approx(find_cones(image).score, abs=1.5)


@pytest.mark.parametrize("level", [0, 128, 255])
@pytest.mark.parametrize("shape", [(1, 1), (1, 4000), (4000, 1), (3, 7), (480, 640)])
def test_flat_pictures_of_any_size_have_no_cones(level: int, shape: tuple[int, int]) -> None:
    finding = find_cones(np.full((*shape, 3), level, np.uint8))

    assert finding.score == NO_BLOB_SCORE
    assert finding.boxes == []


def test_a_picture_all_orange_gives_a_bounded_score() -> None:
    finding = find_cones(np.full((90, 160, 3), ORANGE, np.uint8))

    assert NO_BLOB_SCORE <= finding.score <= MOST_SCORE


def test_the_same_picture_always_gives_the_same_finding() -> None:
    image = draw_cone(draw_road(), x=100, base=350, height=90, width=50)
    before = image.copy()

    assert find_cones(image) == find_cones(image)
    assert (image == before).all()


def test_a_view_that_is_not_contiguous_is_read_as_it_looks() -> None:
    image = draw_cone(draw_road(), x=420, base=300, height=80, width=48)
    turned = image[:, ::-1]

    assert find_cones(turned) == find_cones(np.ascontiguousarray(turned))


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.float32),
    ],
)
def test_what_is_no_rgb_picture_is_refused(image: Pixels) -> None:
    with pytest.raises(ValueError, match=r"image: expected uint8 \[H, W, 3\]"):
        find_cones(image)


@settings(max_examples=examples(60), deadline=None)
@given(
    arrays.arrays(
        np.uint8,
        st.tuples(st.integers(1, 24), st.integers(1, 24), st.just(3)),
        elements=st.integers(0, 255),
    )
)
def test_any_small_picture_gives_a_finite_score_and_boxes_inside(image: Pixels) -> None:
    finding = find_cones(image)

    assert NO_BLOB_SCORE <= finding.score <= MOST_SCORE
    for box in finding.boxes:
        assert 0 <= box.x1 < box.x2 <= 1
        assert 0 <= box.y1 < box.y2 <= 1
        assert 0 <= box.confidence <= 1
