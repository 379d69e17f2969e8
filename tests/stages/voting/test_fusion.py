"""Box fusion: the same as ensemble-boxes where that is right, and what is promised beyond it."""

import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from ensemble_boxes import weighted_boxes_fusion
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from numpy.typing import NDArray

from roadstream.schemas.cascade.model import Fusion, Tier
from roadstream.schemas.errors import ConfigError, EngineError
from roadstream.schemas.records.votes import Box
from roadstream.stages.inference import Abstained, Finding, Score
from roadstream.stages.voting import fusion
from roadstream.stages.voting.fusion import CONFIDENCES, BoxFusion, TierFusion
from roadstream.stages.voting.fusion_arrays import Adaptation, Detections
from tests.kits.builders import member
from tests.kits.examples import examples

pytestmark = pytest.mark.usefixtures("compiled_fusion")
Found = list[list[Box] | None]
LABELS = ("cone", "barrier", "sign")
# A coarse grid, so that equal boxes, equal confidences and equal overlaps happen.
SIDE = st.integers(0, 8).map(lambda eighths: eighths / 8)
SCORE = st.integers(1, 8).map(lambda eighths: eighths / 8)
BOXES = st.lists(
    st.builds(Box, SIDE, SIDE, SIDE, SIDE, SCORE, st.sampled_from(LABELS[:2])), max_size=6
)
DETECTORS = st.lists(BOXES | st.none(), min_size=1, max_size=4)
WEIGHTS = st.integers(1, 12).map(lambda quarters: quarters / 4)
RULES = st.builds(
    Fusion,
    iou=st.sampled_from([0.3, 0.55, 0.8]),
    skip=st.sampled_from([0.0, 0.3]),
    confidence=st.sampled_from(CONFIDENCES),
    own_duplicates=st.sampled_from(["keep", "merge"]),
)
PACKAGES = tuple(one for one in CONFIDENCES if one != "geometric")  # those that it knows
ANY = st.floats(width=64) | st.floats(-0.5, 1.5)
settled = settings(max_examples=examples(100), deadline=None)


def fused(
    found: Found, weights: list[float] | None = None, rules: Fusion | None = None
) -> list[Box]:
    return BoxFusion(rules or Fusion(skip=0.0), weights or [1.0] * len(found)).fuse([found])[0]


def weights_for(found: Found, data: st.DataObject) -> list[float]:
    return data.draw(st.lists(WEIGHTS, min_size=len(found), max_size=len(found)))


def box(sides: Sequence[float], score: float, label: str) -> Box:
    x1, y1, x2, y2 = sides
    return Box(x1, y1, x2, y2, float(score), label)


def seen(rng: np.random.Generator, detectors: int, objects: int) -> Found:
    """Return what detectors see of the same objects, each a little beside them, some not at all."""
    middle, size = rng.uniform(0.1, 0.9, (objects, 2)), rng.uniform(0.05, 0.3, (objects, 2))
    labels = rng.choice(LABELS, objects)
    found: Found = []
    for _ in range(detectors):
        shifted = middle + rng.normal(0, 0.1, (objects, 2)) * size
        half = size * np.exp(rng.normal(0, 0.1, (objects, 2))) / 2
        sides = np.hstack([shifted - half, shifted + half]).clip(0, 1)
        scores = rng.uniform(0.01, 1.0, objects)
        found.append(
            [
                box(side, score, str(label))
                for side, score, label in zip(sides.tolist(), scores.tolist(), labels, strict=True)
                if rng.uniform() < 0.8
            ]
        )
    return found


def peer(found: list[list[Box]], weights: list[float], rules: Fusion) -> list[Box]:
    """Return what ensemble-boxes makes of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of every box that it puts right
        boxes, scores, labels = weighted_boxes_fusion(
            [[[box.x1, box.y1, box.x2, box.y2] for box in part] for part in found],
            [[box.confidence for box in part] for part in found],
            [[LABELS.index(box.label) for box in part] for part in found],
            weights,
            rules.iou,
            rules.skip,
            rules.confidence,
        )
    return [
        box(side, score, LABELS[int(label)])
        for side, score, label in zip(boxes.tolist(), scores, labels, strict=True)
    ]


def place(box: Box) -> tuple[Any, ...]:
    return (box.x1, box.y1, box.x2, box.y2, box.label, box.confidence)


def each(change: Callable[[Box], Box], found: Found) -> Found:
    return [None if part is None else [change(box) for box in part] for part in found]


def numbers(boxes: list[Box]) -> NDArray[np.float64]:
    rows = [[box.x1, box.y1, box.x2, box.y2, box.confidence] for box in boxes]
    return np.array(rows, np.float64).reshape(-1, 5)


def assert_same(ours: list[Box], theirs: list[Box], tolerance: float = 1e-6) -> None:
    assert [box.label for box in ours] == [box.label for box in theirs]
    np.testing.assert_allclose(numbers(ours), numbers(theirs), rtol=0, atol=tolerance)


@pytest.mark.parametrize("confidence", PACKAGES)
@pytest.mark.parametrize(("detectors", "objects"), [(10, 20), (3, 40), (1, 30)])
def test_where_all_detectors_answer_it_is_ensemble_boxes(
    confidence: Any, detectors: int, objects: int
) -> None:
    rng = np.random.default_rng(detectors)
    for _ in range(40):
        found = seen(rng, detectors, objects)
        weights = rng.uniform(0.5, 2.0, detectors).tolist()
        rules = Fusion(iou=rng.uniform(0.3, 0.8), skip=0.05, confidence=confidence)
        whole = [boxes or [] for boxes in found]

        theirs = [
            replace(box, confidence=min(1.0, box.confidence)) for box in peer(whole, weights, rules)
        ]
        assert_same(fused(found, weights, rules), theirs)


def test_bad_boxes_are_put_right_as_ensemble_boxes_does() -> None:
    found = [
        [
            Box(0.6, 0.9, 0.2, 0.5, 0.9, "cone"),
            Box(-0.5, 0.1, 0.3, 1.7, 0.8, "sign"),
            Box(0.4, 0.4, 0.4, 0.9, 0.7, "cone"),
            Box(1.2, 0.1, 1.5, 0.3, 0.6, "cone"),
        ]
    ]
    ours = fused([*found])

    assert_same(ours, peer(found, [1.0], Fusion(skip=0.0)))
    np.testing.assert_allclose(
        numbers(ours), [[0.2, 0.5, 0.6, 0.9, 0.9], [0.0, 0.1, 0.3, 1.0, 0.8]]
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("field", range(5))
def test_a_box_with_a_number_that_is_none_is_left_out(bad: float, field: int) -> None:
    values = [0.1, 0.1, 0.5, 0.5, 0.9]
    values[field] = bad
    good = Box(0.2, 0.2, 0.6, 0.6, 0.5, "cone")

    bad_box = box(values[:4], values[4], "cone")

    assert fused([[bad_box, good]]) == [good]


@given(found=st.lists(st.lists(st.builds(Box, ANY, ANY, ANY, ANY, ANY), max_size=6), max_size=3),
       rules=RULES)  # fmt: skip
@settled
def test_whatever_comes_in_boxes_and_confidences_stay_in_bounds(
    found: list[list[Box]], rules: Fusion
) -> None:
    for box in fused([[], *found], None, rules):
        assert 0 <= box.x1 <= box.x2 <= 1
        assert 0 <= box.y1 <= box.y2 <= 1
        assert 0 < box.confidence <= 1


@given(found=DETECTORS, rules=RULES, data=st.data())
@settled
def test_the_order_of_detectors_changes_nothing(
    found: Found, rules: Fusion, data: st.DataObject
) -> None:
    weights = weights_for(found, data)
    expected = fused(found, weights, rules)

    for order in permutations(range(len(found))):
        swapped = [found[seat] for seat in order]
        assert fused(swapped, [weights[seat] for seat in order], rules) == expected


@given(found=DETECTORS, rules=RULES, data=st.data())
@settled
def test_a_detector_that_did_not_answer_is_as_if_it_were_not_there(
    found: Found, rules: Fusion, data: st.DataObject
) -> None:
    weights = weights_for(found, data)
    there = [seat for seat, boxes in enumerate(found) if boxes is not None]

    alone: list[Box] = []
    if there:
        alone = fused([found[seat] for seat in there], [weights[seat] for seat in there], rules)
    assert fused(found, weights, rules) == alone


def test_a_detector_that_saw_nothing_counts_and_one_that_is_away_does_not() -> None:
    box = Box(0.125, 0.125, 0.5, 0.5, 0.75, "cone")

    assert fused([[box], [box], None]) == [box]
    looked = fused([[box], [box], []])
    assert looked[0].confidence == pytest.approx(0.5)
    # The package cannot tell one from the other.
    assert_same(looked, peer([[box], [box], []], [1.0] * 3, Fusion(skip=0.0)))


@given(boxes=BOXES, weight=WEIGHTS, confidence=st.sampled_from(CONFIDENCES))
@settled
def test_one_detector_alone_is_itself(boxes: list[Box], weight: float, confidence: Any) -> None:
    rules = Fusion(iou=1.0, skip=0.0, confidence=confidence)

    def upright(box: Box) -> Box:
        (x1, x2), (y1, y2) = sorted([box.x1, box.x2]), sorted([box.y1, box.y2])
        return replace(box, x1=x1, y1=y1, x2=x2, y2=y2)

    def order(box: Box) -> tuple[object, ...]:
        return (-box.confidence, box.x1, box.y1, box.x2, box.y2, box.label)

    ours = fused([boxes], [weight], rules)

    theirs = sorted([upright(b) for b in boxes if b.x1 != b.x2 and b.y1 != b.y2], key=order)
    assert [box.label for box in ours] == [box.label for box in theirs]
    np.testing.assert_allclose(numbers(ours), numbers(theirs), rtol=1e-12)


@given(found=DETECTORS, rules=RULES, data=st.data())
@settled
def test_weights_count_by_their_ratios(found: Found, rules: Fusion, data: st.DataObject) -> None:
    weights = weights_for(found, data)

    assert fused(found, [4 * weight for weight in weights], rules) == fused(found, weights, rules)


@given(found=DETECTORS, rules=RULES)
@settled
def test_half_the_confidence_in_is_half_the_confidence_out(found: Found, rules: Fusion) -> None:
    rules = replace(rules, skip=0.0)

    def half(box: Box) -> Box:
        return replace(box, confidence=box.confidence / 2)

    halved = fused(each(half, found), rules=rules)
    theirs = list(map(half, fused(found, rules=rules)))
    if rules.confidence == "geometric":  # sums of logarithms: what was equal is so but for rounding
        assert_same(sorted(halved, key=place), sorted(theirs, key=place), 1e-12)
    else:
        assert halved == theirs


@given(found=DETECTORS, rules=RULES)
@settled
def test_a_picture_half_as_large_has_boxes_half_as_large(found: Found, rules: Fusion) -> None:
    def half(box: Box) -> Box:
        return replace(box, x1=box.x1 / 2, y1=box.y1 / 2, x2=box.x2 / 2, y2=box.y2 / 2)

    assert fused(each(half, found), rules=rules) == list(map(half, fused(found, rules=rules)))


def test_labels_are_kept_apart_unless_the_settings_call_them_the_same() -> None:
    cone = Box(0.125, 0.125, 0.5, 0.5, 0.75, "cone")
    traffic_cone = Box(0.125, 0.125, 0.5, 0.5, 0.75, "traffic cone")

    apart = fused([[cone], [traffic_cone]])
    together = fused([[cone], [traffic_cone]], None, Fusion(labels={"traffic cone": "cone"}))

    assert [(box.label, box.confidence) for box in apart] == [
        ("cone", 0.375),
        ("traffic cone", 0.375),
    ]
    assert together == [cone]


def test_each_image_of_a_batch_is_fused_as_if_it_were_alone() -> None:
    rng = np.random.default_rng(7)
    images = [seen(rng, 4, objects) for objects in (5, 0, 12, 1)] + [[None, [], None, None]]
    together = BoxFusion(Fusion(), [1.0, 0.5, 2.0, 1.0])

    assert together.fuse(images) == [together.fuse([image])[0] for image in images]
    assert together.fuse([]) == []


@pytest.mark.parametrize(
    "weights", [[], [1.0, 0.0], [-1.0], [float("nan")], [float("inf")], [1e300]]
)
def test_weights_that_are_none_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="expected weights above 0"):
        BoxFusion(Fusion(), weights)


TEXT = st.text(max_size=3) | st.text(max_size=400) | st.sampled_from(["a" * 255, "é" * 35_000])
# What code may put into a box in place of a float: it is taken as what float() makes of it.
ODD = st.integers(-3, 300) | st.booleans() | st.just(2**70) | st.builds(np.float32, SIDE)
NUMBER: st.SearchStrategy[Any] = ANY | SCORE | ODD
SAME_TAIL = st.sampled_from(["traffic cone", "a traffic cone", "b traffic cone", "", "e", "cone"])


@given(
    found=st.lists(
        st.lists(
            st.none()
            | st.lists(st.builds(Box, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, TEXT | SAME_TAIL)),
            min_size=2,
            max_size=2,
        ),
        max_size=3,
    ),
    rules=RULES,
    plain=st.booleans(),
)
@settled
def test_from_records_it_is_what_it_is_from_arrays(
    found: list[Found], rules: Fusion, plain: bool
) -> None:
    if plain:
        found = [each(floats, image) for image in found]
    fuses = BoxFusion(rules, [1.0, 2.0])
    parts = [part or [] for image in found for part in image]
    boxes = [box for part in parts for box in part]
    names = sorted({box.label for box in boxes})

    theirs = fuses.fuse_arrays(
        Detections(
            np.array([[float(n) for n in (b.x1, b.y1, b.x2, b.y2)] for b in boxes]).reshape(-1, 4),
            np.array([float(b.confidence) for b in boxes]),
            np.array([names.index(b.label) for b in boxes], np.int64),
            np.array([seat % 2 for seat, part in enumerate(parts) for _ in part], np.int64),
            np.append(0, np.cumsum([sum(map(len, filter(None, image))) for image in found])),
            np.array([[part is not None for part in image] for image in found], np.bool_).reshape(
                -1, 2
            ),
        )
    )

    expected = [
        box(sides, score, names[label])
        for sides, score, label in zip(
            theirs.boxes.tolist(), theirs.scores.tolist(), theirs.labels.tolist(), strict=True
        )
    ]
    ours = fuses.fuse(found)
    assert [len(boxes) for boxes in ours] == np.diff(theirs.offsets).tolist()
    # As text, in which no bit of a float is lost.
    assert repr([box for boxes in ours for box in boxes]) == repr(expected)


def floats(box: Box) -> Box:
    sides = (float(box.x1), float(box.y1), float(box.x2), float(box.y2))
    return Box(*sides, float(box.confidence), box.label)


def test_hundreds_of_labels_stay_apart() -> None:
    labels = [f"label {number:03}" for number in range(700)] + ["x" * size for size in range(1, 99)]
    found = [Box(0.25, 0.25, 0.5, 0.5, 0.5, label) for label in labels]

    assert fused([found, found]) == sorted(found, key=lambda box: box.label)


@pytest.mark.parametrize("count", [15, 16, 300, 65_535, 65_536])
def test_lists_of_any_length_are_read(count: int) -> None:
    good = Box(0.25, 0.25, 0.5, 0.5, 0.5, "cone")
    many = [Box(0.0, 0.0, 0.0, 0.0, 0.5, "none")] * (count - 1) + [good]

    assert fused([many]) == [good]
    assert BoxFusion(Fusion(), [1.0]).fuse([[[]]] * (count - 1) + [[[good]]])[-1] == [good]


@pytest.mark.parametrize("detectors", [0, 1, 3])
def test_an_image_of_more_or_fewer_detectors_is_refused(detectors: int) -> None:
    box = Box(0.25, 0.25, 0.5, 0.5, 0.5, "cone")

    with pytest.raises(
        ValueError, match=f"expected boxes of 2 detectors, got those of {detectors}"
    ):
        BoxFusion(Fusion(), [1.0, 1.0]).fuse([[[box], None], [[box]] * detectors])


def test_what_is_no_number_is_refused_and_harms_nothing() -> None:
    two = BoxFusion(Fusion(), [1.0, 1.0])
    good = Box(0.25, 0.25, 0.5, 0.5, 0.5, "cone")

    with pytest.raises(TypeError, match="float"):
        two.fuse([[[good], [replace(good, x2=None)]]])
    assert two.fuse([[[good], [good]]]) == [[good]]


def test_geometric_is_the_geometric_mean_lowered_by_the_detectors_that_did_not_see_it() -> None:
    at = (0.125, 0.125, 0.5, 0.5)
    found: Found = [[Box(*at, 0.9, "cone")], [Box(*at, 0.4, "cone")], [], None]
    rules = Fusion(confidence="geometric")

    (both,) = fused(found[:2], [3.0, 1.0], rules)
    (of_three,) = fused(found, [3.0, 1.0, 2.0, 50.0], rules)

    assert both.confidence == pytest.approx((0.9**3 * 0.4) ** 0.25)
    assert of_three.confidence == pytest.approx((0.9**3 * 0.4) ** 0.25 * 4 / 6)


@given(found=DETECTORS, rules=RULES, data=st.data())
@settled
def test_geometric_is_never_above_the_weighted_mean(
    found: Found, rules: Fusion, data: st.DataObject
) -> None:
    weights = weights_for(found, data)
    mean = fused(found, weights, replace(rules, confidence="box_and_model_avg"))
    geometric = fused(found, weights, replace(rules, confidence="geometric"))

    # Boxes of one place and label come by confidence either way.
    both = zip(sorted(geometric, key=place), sorted(mean, key=place), strict=True)
    for ours, theirs in both:
        assert place(ours)[:5] == place(theirs)[:5]
        assert ours.confidence <= theirs.confidence + 1e-12


def test_own_duplicates_count_as_agreement_unless_they_are_merged() -> None:
    best, less = (
        Box(0.125, 0.125, 0.5, 0.5, 0.75, "cone"),
        Box(0.125, 0.125, 0.5, 0.49, 0.5, "cone"),
    )
    merge = Fusion(skip=0.0, own_duplicates="merge")

    assert fused([[best, less], []])[0].confidence == pytest.approx(0.625)
    assert_same(fused([[best, less], []]), peer([[best, less], []], [1.0] * 2, Fusion(skip=0.0)))
    assert fused([[less, best], []], rules=merge) == [replace(best, confidence=0.375)]
    assert fused([[less, best], [best]], rules=merge) == [best]


@given(found=DETECTORS, rules=RULES, data=st.data())
@settled
def test_a_box_that_a_detector_gives_twice_is_one_where_duplicates_are_merged(
    found: Found, rules: Fusion, data: st.DataObject
) -> None:
    rules, weights = replace(rules, own_duplicates="merge"), weights_for(found, data)
    twice: Found = [None if part is None else [*part, *part] for part in found]

    assert fused(twice, weights, rules) == fused(found, weights, rules)


@given(
    images=st.lists(st.lists(BOXES | st.none(), min_size=2, max_size=2), max_size=3), rules=RULES
)
@settled
def test_an_adaptation_that_changes_nothing_changes_no_bit(
    images: list[Found], rules: Fusion
) -> None:
    fuses = BoxFusion(rules, [1.0, 0.5])

    assert repr(fuses.fuse(images, [Adaptation()] * len(images))) == repr(fuses.fuse(images))


def test_an_image_is_adapted_and_its_neighbours_are_not() -> None:
    sure, unsure = Box(0.25, 0.5, 0.75, 1.0, 0.5, "cone"), Box(0.0, 0.0, 0.1, 0.1, 0.045, "cone")
    one = BoxFusion(Fusion(skip=0.05), [1.0])
    images = [[[sure, unsure]]] * 3
    fog = Adaptation(skip_factor=0.85, margin=0.1)

    plain, in_fog, surer = one.fuse(images, [Adaptation(), fog, Adaptation(skip_factor=20.0)])

    assert plain == [sure]
    np.testing.assert_allclose(
        numbers(in_fog), [[0.225, 0.475, 0.775, 1.0, 0.5], [0.0, 0.0, 0.105, 0.105, 0.045]]
    )
    assert surer == []


def test_a_tier_adapts_each_image_of_its_batch() -> None:
    tier = Tier(name="one", members=[member("a", 1.0), member("b", 1.0)], fusion=Fusion())
    seen = Score(1.0, [Box(0.25, 0.25, 0.5, 0.5, 0.5, "cone")])
    columns: list[list[Finding | EngineError]] = [[seen, seen, Abstained()]] * 2

    plain, grown, away = TierFusion(tier).fuse(
        columns, [Adaptation(), Adaptation(margin=0.5), Adaptation()]
    )

    assert plain == seen.boxes
    assert grown == [Box(0.1875, 0.1875, 0.5625, 0.5625, 0.5, "cone")]
    assert away is None


@pytest.mark.parametrize(
    "adapt",
    [[], [Adaptation()] * 2, [Adaptation(margin=-0.1)], [Adaptation(skip_factor=float("nan"))]],
)
def test_adaptations_that_are_none_are_refused(adapt: list[Adaptation]) -> None:
    with pytest.raises(ValueError, match="expected 1 adaptations by finite numbers from 0"):
        BoxFusion(Fusion(), [1.0]).fuse([[[]]], adapt)


def arrays(**changed: Any) -> Detections:
    found = Detections(
        np.array([[0.1, 0.1, 0.5, 0.5]] * 3),
        np.array([0.9, 0.8, 0.7]),
        np.zeros(3, np.int64),
        np.array([0, 1, 0]),
        np.array([0, 2, 3]),
        np.ones((2, 2), np.bool_),
    )
    return found._replace(**changed)


def test_arrays_of_any_layout_are_taken() -> None:
    two = BoxFusion(Fusion(), [1.0, 1.0])
    plain = two.fuse_arrays(arrays())

    other = two.fuse_arrays(
        arrays(boxes=np.asfortranarray(arrays().boxes), labels=np.zeros(3, np.int32))
    )

    np.testing.assert_array_equal(plain.boxes, other.boxes)
    np.testing.assert_allclose(plain.scores, [0.85, 0.35])
    assert plain.offsets.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"scores": np.ones(4)}, "expected arrays of 4 boxes and 2 images"),
        ({"looked": np.ones((2, 3), np.bool_)}, "expected arrays of 3 boxes and 2 images"),
        ({"offsets": np.array([0, 5, 3])}, "expected offsets that rise from 0 to 3"),
        ({"offsets": np.array([0, 2, 9])}, "expected offsets that rise from 0 to 3"),
        ({"detectors": np.array([0, 1, 2])}, "expected detectors from 0 to 1"),
        ({"detectors": np.array([0, -1, 0])}, "expected detectors from 0 to 1"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(changed: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        BoxFusion(Fusion(), [1.0, 1.0]).fuse_arrays(arrays(**changed))


def test_without_numba_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    for module in ("fusion_kernel", "fusion_reader", "machine_code"):
        monkeypatch.delitem(sys.modules, f"roadstream.stages.voting.{module}", raising=False)
        monkeypatch.delattr(f"roadstream.stages.voting.{module}", raising=False)
    fusion._compiled.cache_clear()

    with pytest.raises(
        ConfigError, match=r"made\.toml: tiers\[0\]\.fusion: .*roadstream\[fusion\]"
    ):
        fusion.load_fusion("made.toml: tiers[0].fusion")
    fusion._compiled.cache_clear()


def test_kept_machine_code_that_does_not_load_is_compiled_anew_and_kept() -> None:
    """As after an update that renamed the modules which it names; no other start waits for it."""
    code = (
        "from roadstream.stages.voting.fusion import load_fusion; load_fusion('x');"
        "from roadstream.stages.voting.fusion_kernel import fuse;"
        "print(sum(fuse.stats.cache_hits.values()), sum(fuse.stats.cache_misses.values()))"
    )

    fusion.load_fusion("x")  # where no other test has kept anything yet
    for _ in range(3):  # tests of other processes may have done away with what was kept
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        if done.stdout.split() == ["1", "0"]:
            break

    assert done.stdout.split() == ["1", "0"]
