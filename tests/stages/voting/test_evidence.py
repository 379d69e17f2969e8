"""Evidence: what earlier tiers found, gathered in bounds whatever members and records say."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roadstream.schemas import codec
from roadstream.schemas.records.image import Head, Inline
from roadstream.schemas.records.votes import (
    LONGEST_TEXT,
    MOST_BOXES,
    MOST_TEXTS,
    NO_EVIDENCE,
    Box,
    Escalation,
    Evidence,
    ImageVotes,
    MemberRun,
    PriorVote,
)
from roadstream.stages.voting.evidence import checked, evidence_after
from roadstream.stages.voting.vote import disagreement
from tests.kits.examples import examples
from tests.kits.structs import values_of

HEAD = Head(image_id="a")
CONE = Box(0.1, 0.2, 0.3, 0.4, 0.9, "cone")
BEYOND = Box(-1e6, 0.5, 0.5, 1e6, 0.8, "sign")


def run(member: str, weight: float = 1.0) -> MemberRun:
    return MemberRun(member, "1", weight, calibrated=True, latency=0.1, batch_size=1)


def votes(count: int, **said: Any) -> ImageVotes:
    return ImageVotes(HEAD, [1.0] * count, [0.7] * count, "two", **said)


def inside(box: Box) -> bool:
    return 0 <= box.x1 < box.x2 <= 1 and 0 <= box.y1 < box.y2 <= 1


def within_bounds(evidence: Evidence) -> bool:
    return (
        len(evidence.boxes) <= MOST_BOXES
        and all(map(inside, evidence.boxes))
        and len(evidence.texts) <= MOST_TEXTS
        and all(len(text) <= LONGEST_TEXT for text in evidence.texts.values())
    )


def test_of_a_tier_that_says_nothing_more_than_scores_there_is_none() -> None:
    prior = [PriorVote("a", 1.0, 0.98), PriorVote("b", 1.0, 0.98)]

    assert evidence_after(NO_EVIDENCE, votes(1), [run("b")], prior) is NO_EVIDENCE


def test_it_holds_boxes_texts_tags_and_the_disagreement_so_far() -> None:
    said = votes(2, boxes=[[CONE], []], texts=["", "ROAD WORK"], tags=[{}, {"text": "ROAD WORK"}])
    prior = [PriorVote("a", 1.0, 0.9), PriorVote("b", 2.0, 0.2)]

    found = evidence_after(NO_EVIDENCE, said, [run("a"), run("b")], prior)

    assert (found.boxes, found.texts) == ([CONE], {"b": "ROAD WORK"})
    assert found.tags == {"text": "ROAD WORK"}
    assert found.disagreement == disagreement([0.9, 0.2], [1.0, 2.0]) > 0


def test_fused_boxes_stand_for_those_of_the_members() -> None:
    fused = [msgspec.structs.replace(CONE, confidence=0.5)]

    found = evidence_after(NO_EVIDENCE, votes(1, boxes=[[CONE]], fused=fused), [run("a")], [])

    assert found.boxes == fused


def test_nothing_that_shadow_members_say_is_evidence() -> None:
    said = votes(1, boxes=[[CONE]], texts=["x"], tags=[{"a": "b"}])

    assert evidence_after(NO_EVIDENCE, said, [run("s", 0.0)], []) == NO_EVIDENCE


def test_a_later_tier_adds_to_it_and_its_tags_and_texts_hold() -> None:
    earlier = Evidence([CONE], {"weather": "dry", "light": "day"}, {"a": "old"}, 1.0)
    surer = msgspec.structs.replace(CONE, confidence=0.95)
    said = votes(1, boxes=[[surer]], texts=["new"], tags=[{"weather": "rain"}])

    found = evidence_after(earlier, said, [run("b")], [])

    assert found.boxes == [surer, CONE]
    assert found.tags == {"weather": "rain", "light": "day"}
    assert found.texts == {"b": "new", "a": "old"}


def test_the_most_confident_boxes_are_kept() -> None:
    boxes = [msgspec.structs.replace(CONE, confidence=i / 100) for i in range(60)]

    found = evidence_after(NO_EVIDENCE, votes(2, boxes=[boxes, [CONE]]), [run("a"), run("b")], [])

    assert [box.confidence for box in found.boxes] == [0.9, *(i / 100 for i in range(59, 40, -1))]


@pytest.mark.parametrize(
    ("box", "kept"),
    [
        (BEYOND, [Box(0.0, 0.5, 0.5, 1.0, 0.8, "sign")]),
        (Box(0.3, 0.4, 0.1, 0.2, 0.9), [Box(0.1, 0.2, 0.3, 0.4, 0.9)]),
        (Box(1.5, 0.0, 2.0, 1.0, 0.9), []),
        (Box(0.5, 0.5, 0.5, 0.5, 0.9), []),
    ],
    ids=["partly outside", "swapped corners", "outside", "no area"],
)
def test_boxes_are_cut_to_the_picture_and_those_outside_are_left_out(
    box: Box, kept: list[Box]
) -> None:
    assert evidence_after(NO_EVIDENCE, votes(1, boxes=[[box]]), [run("a")], []).boxes == kept
    assert checked(Evidence([box])).boxes == kept


@settings(deadline=None, max_examples=examples(200))
@given(values_of(Evidence), st.integers(1, 3))
def test_evidence_of_any_record_is_in_bounds_and_so_is_what_follows_from_it(
    given_evidence: Evidence, times: int
) -> None:
    boxes = given_evidence.boxes * 9 * times
    texts = {
        name + str(i): text * 400 for name, text in given_evidence.texts.items() for i in range(9)
    }
    crowded = msgspec.structs.replace(given_evidence, boxes=boxes, texts=texts)

    found = checked(crowded)
    after = evidence_after(found, votes(1, boxes=[boxes], texts=["x" * 4000]), [run("a")], [])

    assert within_bounds(found)
    assert within_bounds(after)
    assert checked(found) is found
    record = Escalation(HEAD, Inline(b""), [], evidence=after)
    assert codec.decode_escalation(codec.encode(record)).evidence == after


def test_a_member_is_told_what_it_asks_for() -> None:
    evidence = Evidence([CONE], {"a": "b"}, {"m": "text"}, 1.5)

    assert evidence.only([]) == NO_EVIDENCE
    assert evidence.only(["boxes", "disagreement"]) == Evidence([CONE], disagreement=1.5)
    assert evidence.only(["tags", "texts"]) == Evidence([], {"a": "b"}, {"m": "text"})


def test_what_a_member_does_with_what_it_is_told_changes_nothing_for_others() -> None:
    for evidence in (NO_EVIDENCE, Evidence([CONE], {"a": "b"}, {"m": "text"})):
        before = msgspec.msgpack.encode(evidence)
        told = evidence.only(["boxes", "tags", "texts"])
        told.boxes.append(BEYOND)
        told.tags["x"] = told.texts["x"] = "y"

        assert msgspec.msgpack.encode(evidence) == before


def test_an_escalation_of_an_older_release_has_none() -> None:
    old = msgspec.msgpack.encode(
        {"schema": "escalation.v1", "head": HEAD, "payload": Inline(b"x"), "votes": []}
    )

    assert codec.decode_escalation(old).evidence is NO_EVIDENCE
