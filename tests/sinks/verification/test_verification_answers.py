"""Whether two answers to one image are the same: every field counts that is no timing."""

import math
from typing import Any

import msgspec
import pytest

from roadstream.schemas.records.answer import Answer, AnswerTier
from roadstream.schemas.records.image import Head
from roadstream.schemas.records.votes import Box, MemberRun
from roadstream.sinks.verification.answers import TIMINGS, compare

RUN = MemberRun("m", "1", 1.0, True, 0.1, 4)
TIER = AnswerTier("one", [RUN], [2.0], [0.9], 0.1, 0.2, 0.3)
ANSWER = Answer(
    Head(image_id="a", submitted_at=1.0),
    "answered",
    "roadwork",
    0.9,
    0.8,
    0.5,
    "one",
    [TIER],
    cascade="c",
    cascade_hash="0123",
    answered_at=9.0,
    took=8.0,
    joining=0.1,
)
OTHER: dict[str, dict[str, Any]] = {
    "Answer": {
        "head": Head(image_id="a", uri="elsewhere"),
        "status": "partial",
        "label": "none",
        "probability": math.nextafter(0.9, 1.0),
        "confidence": 0.7,
        "threshold": 0.6,
        "exit_tier": "two",
        "tiers": [TIER, TIER],
        "disagreement": 0.1,
        "losing": 1,
        "flags": ["degraded"],
        "error": "model_failed: m",
        "cascade": "d",
        "cascade_hash": "4567",
        "missing_tiers": ["power"],
        "effects": ["the zone ends: log-odds -1.5"],
    },
    "Head": {
        "image_id": "b",
        "uri": "elsewhere",
        "session_id": "s",
        "frame_index": 1,
        "captured_at": 1.0,
        "latitude": 1.0,
        "longitude": 1.0,
        "lane": "live",
        "deadline_at": 99.0,
        "run_id": "r",
        "sequence": 1,
        "content_hash": b"h",
    },
    "AnswerTier": {
        "tier": "uno",
        "runs": [],
        "raw": [2.5],
        "probability": [None],
        "boxes": [[Box(0.0, 0.0, 1.0, 1.0, 0.5)]],
        "texts": ["yes"],
        "fused": [],
        "tags": [{"light": "night"}],
        "reason": "always",
        "given": {"difficulty": "5"},
        "revised": {"m": 0.5},
    },
    "MemberRun": {
        "member": "n",
        "model_version": "2",
        "weight": 0.5,
        "calibrated": False,
    },
}
CASES = [(owner, name) for owner, fields in OTHER.items() for name in fields]


def changed(owner: str, **fields: Any) -> Answer:
    """Return the answer with other fields in one of its structs."""
    replace = msgspec.structs.replace
    match owner:
        case "Answer":
            return replace(ANSWER, **fields)
        case "Head":
            return replace(ANSWER, head=replace(ANSWER.head, **fields))
        case "AnswerTier":
            return replace(ANSWER, tiers=[replace(TIER, **fields)])
        case _:
            return replace(ANSWER, tiers=[replace(TIER, runs=[replace(RUN, **fields)])])


def test_every_field_is_a_timing_or_is_compared() -> None:
    for owner in (Answer, Head, AnswerTier, MemberRun):
        assert {*OTHER[owner.__name__]} | TIMINGS[owner] == {*owner.__struct_fields__}


@pytest.mark.parametrize(("owner", "name"), CASES)
def test_answers_that_differ_in_a_field_are_not_the_same(owner: str, name: str) -> None:
    later = changed(owner, **{name: OTHER[owner][name]})

    kind, said = compare(ANSWER, later)

    assert kind == "divergent"
    if "but their" in said:
        assert name in said


@pytest.mark.parametrize(
    ("owner", "name"),
    [(owner.__name__, name) for owner in TIMINGS for name in sorted(TIMINGS[owner])],
)
def test_answers_that_differ_in_a_timing_are_the_same(owner: str, name: str) -> None:
    assert compare(ANSWER, changed(owner, **{name: 77}))[0] == "doubled"


def test_what_differs_is_named_with_both_values() -> None:
    assert compare(ANSWER, changed("Answer", confidence=0.7))[1] == (
        "both answered roadwork 0.9, but their confidence differ: 0.8, then 0.7"
    )
    assert compare(ANSWER, changed("MemberRun", weight=0.5))[1].endswith(
        "but their tiers[0].runs[0].weight differ: 1.0, then 0.5"
    )


def test_no_number_is_the_same_as_no_number_and_zero_is_not_minus_zero() -> None:
    nothing = changed("Answer", confidence=math.nan)

    assert compare(nothing, changed("Answer", confidence=math.nan))[0] == "doubled"
    assert (
        compare(changed("Answer", confidence=0.0), changed("Answer", confidence=-0.0))[0]
        == "divergent"
    )
