"""Whether boxes are as wide, in metres, as what they show can be."""

import math
from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstream.schemas.cascade.rules import Size
from roadstream.schemas.records.votes import Box
from roadstream.stages.inference import DepthMap
from roadstream.stages.rules.size import NOTHING_TO_CHECK, SizeCheck, Sizes, ratio

RULE = Size(depth="sight")
CONE = Box(0.4, 0.5, 0.5, 0.8, 0.9, "traffic cone")
# A tenth of the picture's width is 0.3 m in 3 m, by a focal length of one width.
NEAR, FAR = 3.0, 12.0


def at(metres: float, focal: float | None = 1.0) -> DepthMap:
    return DepthMap(np.full((48, 64), metres, np.float32), focal)


def checked(
    depth: DepthMap | str,
    boxes: Sequence[Box] = (CONE,),
    told: float | None = None,
    rule: Size = RULE,
) -> Sizes:
    return SizeCheck(rule).check(boxes, depth, told)


def confidences(sizes: Sizes) -> list[float]:
    return [box.confidence for box in sizes.lowered.values()]


def test_a_box_of_a_possible_size_keeps_its_confidence() -> None:
    said = "size: 1 of a possible size; focal length 1 of the width by the depth member"

    assert checked(at(NEAR)) == Sizes("plausible", said, {})


@pytest.mark.parametrize(("metres", "wide"), [(FAR, "1.2"), (0.5, "0.05")])
def test_a_cone_that_is_too_wide_or_too_narrow_is_lowered(metres: float, wide: str) -> None:
    sizes = checked(at(metres))

    assert sizes.tag == "impossible"
    assert sizes.lowered == {CONE: Box(0.4, 0.5, 0.5, 0.8, 0.9 * 0.3, "traffic cone")}
    assert sizes.said == (
        f"size: a cone {wide} m wide, not 0.25 to 0.4: confidence × 0.3; "
        "focal length 1 of the width by the depth member"
    )


def test_the_focal_length_is_the_files_else_the_members_else_exifs() -> None:
    fixed = Size(depth="sight", focal=4.0)

    assert checked(at(FAR, 1.0), told=1.0, rule=fixed).tag == "plausible"
    assert checked(at(FAR, 4.0), told=1.0).tag == "plausible"
    assert checked(at(FAR, None), told=4.0).said.endswith("by EXIF")


def test_without_a_focal_length_only_what_none_makes_possible_is_lowered_and_less() -> None:
    assert checked(at(NEAR, None)).tag == "plausible"
    assert checked(at(4.0, None)).tag == "plausible"  # 0.29 m at the longest focal length

    sizes = checked(at(FAR, None))

    assert confidences(sizes) == pytest.approx([0.9 * 0.6])
    assert sizes.said == (
        "size: a cone 0.86 to 3.4 m wide, not 0.25 to 0.4: confidence × 0.6; "
        "soft, as no focal length is known"
    )


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf, 1e-9])
def test_a_focal_length_that_no_camera_has_is_passed_over_and_told(wrong: float) -> None:
    assert f"soft, as no focal length is known (EXIF says {wrong:g})" in (
        checked(at(FAR, None), told=wrong).said
    )
    assert checked(at(NEAR, wrong), told=1.0).said.endswith("1 of the width by EXIF")


def test_what_holes_in_the_map_hide_is_not_checked() -> None:
    depth = np.full((48, 64), np.nan, np.float32)
    depth[:10] = FAR  # the sky

    sizes = checked(DepthMap(depth, 1.0))

    assert (sizes.tag, sizes.lowered) == ("unknown", {})
    assert sizes.said.startswith("size: 1 whose depth is not known")


def test_without_a_map_the_reason_is_told() -> None:
    assert checked("sight measured no metres") == Sizes(
        "unknown", "size: not checked: sight measured no metres"
    )


@pytest.mark.parametrize(
    "box",
    [
        Box(-1e6, -1e6, -1.0, -1.0, 0.9, "cone"),
        Box(1.2, 0.2, 1.5, 0.4, 0.9, "cone"),
        Box(0.5, 0.5, 0.5, 0.8, 0.9, "cone"),
        Box(0.5, 0.9, 0.6, 0.9, 0.9, "cone"),
        Box(0.4, 0.5, 0.5, 0.8, 0.9, "worker"),
        Box(0.4, 0.5, 0.5, 0.8, 0.9, ""),
    ],
)
def test_boxes_outside_the_picture_without_area_or_of_other_kinds_are_passed_over(box: Box) -> None:
    assert checked(at(FAR), [box]) == NOTHING_TO_CHECK
    assert checked("no map", [box]) == NOTHING_TO_CHECK


def test_a_box_that_the_picture_cuts_may_be_too_narrow_and_not_too_wide() -> None:
    left, right = Box(-0.5, 0.5, 0.1, 0.8, 0.9, "cone"), Box(0.9, 0.5, 1.0, 0.8, 0.9, "cone")

    assert checked(at(0.5), [left, right]).tag == "plausible"
    assert checked(at(FAR), [left, right]).tag == "impossible"


def test_a_box_of_hardly_a_pixel_of_the_map_is_not_judged() -> None:
    assert checked(at(FAR), [Box(0.4, 0.5, 0.43, 0.8, 0.9, "cone")]).tag == "unknown"


@pytest.mark.parametrize(
    ("label", "fits"),
    [
        ("barrier", True),
        ("Barriers", True),
        ("road_barrier", True),
        ("barrier/barricade", True),
        ("cone", False),
        ("cone or barrier", True),
        ("excavator", False),
        ("Cônes", False),
    ],
)
def test_the_words_of_a_label_say_how_wide_it_can_be(label: str, *, fits: bool) -> None:
    box = Box(0.4, 0.5, 0.5, 0.8, 0.9, label)  # 1.2 m

    assert (checked(at(FAR), [box]).tag == "plausible") is fits


def test_a_kind_of_several_words_asks_for_all_of_them() -> None:
    rule = Size(depth="sight", metres={"jersey-barrier": (2.0, 6.0)})
    jersey, other = (Box(0.4, 0.5, 0.5, 0.8, 0.9, label) for label in ("Jersey barrier", "barrier"))

    assert checked(at(FAR), [jersey], rule=rule).tag == "impossible"
    assert checked(at(FAR), [other], rule=rule) == NOTHING_TO_CHECK


def test_the_background_beside_a_cone_does_not_count() -> None:
    depth = np.full((48, 64), 80.0, np.float32)
    for row in range(24, 39):  # a cone before a far background: narrow above, wide below
        half = 1 + (row - 24) // 5
        depth[row, 29 - half : 29 + half] = NEAR

    assert checked(DepthMap(depth, 1.0)).tag == "plausible"


def test_one_box_of_a_possible_size_makes_the_picture_plausible() -> None:
    wide = Box(0.1, 0.5, 0.5, 0.8, 0.5, "cone")

    sizes = checked(at(NEAR), [wide, CONE])

    assert sizes.tag == "plausible"
    assert list(sizes.lowered) == [wide]


def test_at_most_three_boxes_are_told_one_by_one() -> None:
    boxes = [Box(0.1, 0.5, 0.5 + i / 100, 0.8, 0.5, "cone") for i in range(9)]

    assert checked(at(NEAR), boxes).said.count(" m wide") == 3
    assert "6 more of an impossible size" in checked(at(NEAR), boxes).said


def test_the_ratio_is_that_of_the_surest_box_before_and_after() -> None:
    other = Box(0.1, 0.5, 0.5, 0.8, 0.45, "worker")
    lowered = checked(at(FAR)).lowered

    assert ratio([CONE], lowered) == pytest.approx(0.3)
    assert ratio([CONE, other], lowered) == pytest.approx(0.5)
    assert ratio([other], lowered) == ratio([], lowered) == 1
    assert ratio([Box(0.4, 0.5, 0.5, 0.8, 0.0, "cone")], lowered) == 1


shares = st.floats(-1.5, 2.5) | st.sampled_from([0.0, 0.5, 1.0, -1e6, 1e6])
labels = st.sampled_from(["cone", "traffic cone", "barrier", "excavator", "worker", ""])
boxes = st.builds(Box, shares, shares, shares, shares, st.floats(0, 1), labels)
depths = st.floats(0.01, 1e4) | st.sampled_from([math.nan, math.inf, -1.0, 0.0])
maps = st.lists(depths, min_size=12, max_size=12).map(
    lambda values: np.array(values, np.float32).reshape(3, 4).repeat(8, 0).repeat(8, 1)
)
focals = st.none() | st.floats(allow_nan=True) | st.floats(0.1, 5)


@given(st.lists(boxes, max_size=6), maps, focals, focals, st.randoms())
def test_whatever_comes_order_makes_no_difference_and_confidences_only_fall(
    found: list[Box], metres: np.ndarray, focal: float | None, told: float | None, random: Random
) -> None:
    depth = DepthMap(metres, focal)
    shuffled = list(found)
    random.shuffle(shuffled)

    sizes = checked(depth, found, told)

    assert checked(depth, shuffled, told) == sizes
    assert sizes.tag in {"", "plausible", "impossible", "unknown"}
    assert len(sizes.said) < 600
    assert 0 <= ratio(found, sizes.lowered) <= 1
    for before, after in sizes.lowered.items():
        assert before in found
        assert after.confidence <= before.confidence
        assert (after.x1, after.y1, after.x2, after.y2, after.label) == (
            before.x1, before.y1, before.x2, before.y2, before.label
        )  # fmt: skip


@given(st.floats(0.1, 100), st.floats(1.0, 50), st.floats(0.2, 5))
def test_what_is_too_wide_is_so_from_farther_away_and_by_a_shorter_focal_length(
    metres: float, more: float, focal: float
) -> None:
    wide = Size(depth="sight", metres={"cone": (1e-9, 0.4)})
    if checked(at(metres, focal), rule=wide).tag == "impossible":
        assert checked(at(metres * more, focal), rule=wide).tag == "impossible"
        assert checked(at(metres, max(focal / more, 0.1)), rule=wide).tag == "impossible"


@given(st.floats(0.1, 100), st.floats(0.35, 1.4))
def test_what_no_focal_length_makes_possible_none_of_them_does(metres: float, focal: float) -> None:
    if checked(at(metres, None)).tag == "impossible":
        assert checked(at(metres, focal)).tag == "impossible"
