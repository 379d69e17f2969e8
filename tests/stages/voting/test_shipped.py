"""The routes of the shipped cascades, as their files say them: who is asked, and when."""

import math
from collections.abc import Sequence

import pytest

from roadstream.schemas.cascade.loading import load_cascade
from roadstream.schemas.cascade.rules import KIND_WEIGHTS, Conflict
from roadstream.schemas.records.votes import Box
from roadstream.stages.voting.route import Facts, Router
from roadstream.stages.voting.rules import Votes, vote_math

CONE = Box(0.1, 0.1, 0.2, 0.2, 0.9, "cone")
SIGN = Box(0.3, 0.1, 0.4, 0.2, 0.9, "sign")
FULL = load_cascade("full")
DUAL = load_cascade("dual-h100")
SINGLE = load_cascade("single-gpu")
FAST = [
    "fast-qwen-4b", "fast-molmo-4b", "fast-molmo-8b", "fast-phi-4", "fast-qwen-8b-thinking",
    "fast-qwen-32b",
]  # fmt: skip


def facts(confidence: float, *, boxes: Sequence[Box] = (CONE,), **said: object) -> Facts:
    given = {"probability": 0.5 + confidence / 2, **said}
    return Facts(confidence, boxes=boxes, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("confidence", "asked"),
    [
        (1.0, None), (0.95, None), (0.949, FAST[0]), (0.85, FAST[0]), (0.849, FAST[1]),
        (0.7, FAST[1]), (0.699, FAST[2]), (0.55, FAST[2]), (0.549, FAST[3]), (0.4, FAST[3]),
        (0.399, FAST[4]), (0.25, FAST[4]), (0.249, FAST[5]), (0.0, FAST[5]),
    ],
)  # fmt: skip
def test_the_less_sure_a_picture_is_the_stronger_the_fast_model(
    confidence: float, asked: str | None
) -> None:
    assert Router(FULL, "open-set").decide(facts(confidence)).next_tier == asked


def test_a_picture_that_is_flagged_without_a_box_is_shown_to_all_fast_models() -> None:
    router = Router(FULL, "open-set")
    flagged = router.decide(facts(0.99, boxes=()))
    assert (flagged.next_tier, dict(flagged.gives)) == (FAST[0], {"ask": "all"})
    # One that is called none without a box is not flagged.
    assert router.decide(facts(0.99, boxes=(), probability=0.005)).next_tier is None

    marked = facts(0.99, boxes=(), tags=dict(flagged.gives))
    asked = [Router(FULL, one).decide(marked).next_tier for one in FAST]
    assert asked == [*FAST[1:], None]


@pytest.mark.parametrize(
    ("tier", "exits_from"),
    [("foundation", 0.98), ("detection", 0.95), ("open-set", 0.8), ("fast-qwen", 0.6),
     ("fast-molmo", 0.6), ("power", 0.4)],
)  # fmt: skip
def test_exits_fall_level_by_level(tier: str, exits_from: float) -> None:
    router = Router(DUAL, tier)

    assert router.decide(facts(exits_from)).next_tier is None
    assert router.decide(facts(exits_from - 0.001)).next_tier is not None


@pytest.mark.parametrize(
    ("p", "to"), [(0.149, None), (0.15, "signs"), (0.5, "signs"), (0.849, "signs"), (0.85, None)]
)
def test_one_card_decides_below_015_and_from_085_on_at_once(p: float, to: str | None) -> None:
    confidence = 2 * abs(p - 0.5)
    assert Router(SINGLE, "gate").decide(facts(confidence, probability=p)).next_tier == to


def test_one_card_reads_signs_then_asks_then_reasons() -> None:
    sign = {"text": "ROAD WORK", "zone": "begins"}
    assert Router(SINGLE, "signs").decide(facts(0.8, tags=sign)).next_tier is None
    assert Router(SINGLE, "signs").decide(facts(0.8)).next_tier == "fast"
    assert Router(SINGLE, "fast").decide(facts(0.7)).next_tier is None
    assert Router(SINGLE, "fast").decide(facts(0.6)).next_tier == "reason"
    assert Router(SINGLE, "fast").decide(facts(0.6, session=True)).next_tier == "sequence"
    assert Router(SINGLE, "sequence").decide(facts(0.1)).next_tier is None


@pytest.mark.parametrize(
    ("asked", "to"),
    [
        ({"confidence": 0.4}, None),
        ({"confidence": 0.3}, "precision-qwen"),
        ({"confidence": 0.3, "boxes": (CONE, SIGN)}, "precision-internvl"),
        ({"confidence": 0.3, "disagreement": 2.1}, "precision-internvl"),
        ({"confidence": 0.3, "tags": {"difficulty": "5"}}, "precision-internvl"),
        ({"confidence": 0.9, "tags": {"conflict": "power-yes"}}, "precision-qwen"),
        ({"confidence": 0.9, "tags": {"conflict": "power-no"}}, None),
    ],
)
def test_the_scene_picks_the_precise_model(asked: dict[str, object], to: str | None) -> None:
    assert Router(FULL, "power").decide(facts(**asked)).next_tier == to  # type: ignore[arg-type]


@pytest.mark.parametrize("tier", ["precision-qwen", "precision-internvl"])
def test_the_model_off_the_path_sees_under_a_thousandth(tier: str) -> None:
    router = Router(FULL, tier)

    went = [router.decide(facts(0.05)).next_tier for _ in range(10_000)]

    assert went.count("off-path") == 10
    assert went.count(None) == 9_990
    assert router.decide(facts(0.5)).next_tier is None


def test_levels_that_nobody_works_for_are_gone_around() -> None:
    assert Router(FULL, "foundation").decide(facts(0.1), frozenset({"detection"}))[:3] == (
        "open-set", "nobody works for detection", ["detection"],
    )  # fmt: skip
    for fast in FAST:
        assert Router(FULL, fast).decide(facts(0.1), frozenset({"power"})).next_tier is None
    both = frozenset({"precision-qwen", "precision-internvl"})
    assert Router(FULL, "power").decide(facts(0.1), both).next_tier is None


def test_members_weigh_what_their_kind_does() -> None:
    plain = {one.name: one for tier in FULL.tiers for one in tier.members}
    assert plain["qwen3-vl-4b"].weight == KIND_WEIGHTS["fast-vlm"] == 1.2
    assert plain["internvl3-78b"].weight == KIND_WEIGHTS["precision-vlm"] == 2.0
    assert (plain["d-fine"].weight, plain["grounding-dino"].weight) == (1.4, 1.5)


def test_ten_detectors_are_one_voter_of_full() -> None:
    detection = FULL.tier("detection")
    assert len(detection.members) == 10
    names = [one.name for one in detection.united]
    votes = Votes(names, [0.9] * len(names), [one.weight for one in detection.united])
    alone = vote_math(FULL)(votes, {})

    assert alone.probability == pytest.approx(0.9)
    assert alone.effects == [f"ensemble detection: {len(names)} of {len(names)} say roadwork"]


def test_a_sign_that_ends_a_zone_lowers_the_scene() -> None:
    votes = Votes(["siglip"], [0.7], [0.8])

    before, after = vote_math(FULL)(votes, {}), vote_math(FULL)(votes, {"zone": "ends"})

    assert before.probability == pytest.approx(0.7)
    lowered = math.log(after.probability / (1 - after.probability))
    assert lowered == pytest.approx(math.log(0.7 / 0.3) - 1.5)
    assert after.effects == ["the zone ends: log-odds -1.5"]


def test_the_conflict_rule_has_the_plans_numbers() -> None:
    [conflict] = [rule for rule in FULL.rules if isinstance(rule, Conflict)]
    assert (conflict.yes_factor, conflict.no_factor, conflict.override) == (0.7, 1.3, 0.85)
