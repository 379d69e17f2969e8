"""What is published instead of a record that is too large for its topic."""

import pytest
from msgspec.structs import replace

from roadstream.schemas import codec
from roadstream.schemas.errors import ForbiddenError, Refusal
from roadstream.schemas.records.answer import Answer, AnswerTier
from roadstream.schemas.records.dead_letters import DeadLetter
from roadstream.schemas.records.image import Head, Image, Inline, Unreadable
from roadstream.schemas.records.votes import (
    NO_EVIDENCE,
    Box,
    Escalation,
    Evidence,
    ImageVotes,
    MemberRun,
    PriorVote,
    VotesPack,
)
from roadstream.schemas.topics import ANSWERS, DEAD_LETTERS, VOTES
from roadstream.streams.group.refused import instead
from roadstream.streams.log import Output

RUN = MemberRun("m", "1", 1.0, True, 0.1, 2)
BOXES = [[Box(0.0, 0.0, 1.0, 1.0, 0.9, "cone")] * 50]


def pack(*images: ImageVotes) -> Output:
    made = VotesPack(
        tier="one", cascade="c", cascade_hash="h", sent_at=1.0, runs=[RUN], images=list(images)
    )
    return Output(VOTES, None, codec.encode(made), 3)


def votes(name: str, next_tier: str | None = None) -> ImageVotes:
    return ImageVotes(
        Head(image_id=name), [1.0], [0.7], next_tier, boxes=BOXES, tags=[{"weather": "rain"}]
    )


def refused(outputs: list[Output], row: int, limit: int = 10) -> list[Output]:
    output = outputs[row]
    size = len(output.value) + len(output.key or b"")
    return instead(outputs, [Refusal(row, output.topic, size, limit)])


def test_a_picture_becomes_one_that_could_not_be_read() -> None:
    head = Head(image_id="a", uri="a.jpg")
    output = Output("images.live", b"a", codec.encode(Image(head, Inline(bytes(5000)))), 2)

    (sent,) = refused([output], 0, 1000)

    image = codec.decode_image(sent.value)
    assert (sent.topic, sent.key, sent.partition, image.head) == ("images.live", b"a", 2, head)
    assert isinstance(image.payload, Unreadable)
    assert image.payload.fault == "too_large"
    assert image.payload.problem.startswith("images.live refuses a record of 5,0")
    assert image.payload.problem.endswith("bytes: expected at most 1,000")


def test_an_image_that_cannot_go_on_leaves_with_the_votes_it_has() -> None:
    escalated = Escalation(Head(image_id="b"), Inline(bytes(9000)), [PriorVote("m", 1.0, 0.7)])
    outputs = [
        pack(votes("a"), votes("b", "two"), votes("c", "two")),
        Output("tier.two.archive", b"b", codec.encode(escalated), 3),
    ]

    (sent,) = refused(outputs, 1)

    left = codec.decode_votes(sent.value)
    assert (sent.topic, sent.partition) == (VOTES, 3)
    assert [said.head.image_id for said in left.images] == ["b"]
    said = left.images[0]
    assert (said.next_tier, said.probability, left.runs) == (None, [0.7], [RUN])
    assert (said.error or "").startswith("too_large: tier.two.archive refuses a record of 9,0")


def test_an_image_goes_on_without_what_was_found_in_it_if_that_makes_it_fit() -> None:
    found = Evidence(texts={"m": "x" * 9000}, tags={"weather": "rain"})
    prior = [PriorVote("m", 1.0, 0.7)]
    escalated = Escalation(Head(image_id="b"), Inline(bytes(900)), prior, "why", "hash", found)
    outputs = [
        pack(votes("b", "two")),
        Output("tier.two.archive", b"b", codec.encode(escalated), 3),
    ]

    (sent,) = refused(outputs, 1, limit=4000)
    (left,) = refused(outputs, 1, limit=1000)

    assert (sent.topic, sent.key, sent.partition) == ("tier.two.archive", b"b", 3)
    assert codec.decode_escalation(sent.value) == replace(escalated, evidence=NO_EVIDENCE)
    assert codec.decode_votes(left.value).images[0].next_tier is None


def test_an_image_leaves_in_the_halves_of_a_pack_that_is_refused_with_its_escalation() -> None:
    escalated = Escalation(Head(image_id="b"), Inline(bytes(9000)), [PriorVote("m", 1.0, 0.7)])
    outputs = [
        pack(votes("a", "two"), votes("b", "two")),
        Output("tier.two.archive", b"b", codec.encode(escalated), 3),
    ]
    sizes = [len(o.value) + len(o.key or b"") for o in outputs]

    sent = instead(outputs, [Refusal(i, o.topic, sizes[i], 10) for i, o in enumerate(outputs)])

    said = [v for one in sent for v in codec.decode_votes(one.value).images]
    assert [(v.head.image_id, v.next_tier) for v in said] == [("a", "two"), ("b", None)]
    assert (said[1].error or "").startswith("too_large: tier.two.archive refuses")


def test_a_refusal_may_name_its_topic_with_a_namespace() -> None:
    escalated = Escalation(Head(image_id="b"), Inline(bytes(9000)), [])
    output = Output("tier.two.live", b"b", codec.encode(escalated), 3)
    (sent,) = instead([pack(votes("b", "two")), output], [Refusal(1, "a.tier.two.live", 9100, 10)])
    said = codec.decode_votes(sent.value).images[0]
    assert said.next_tier is None
    assert (said.error or "").startswith("too_large: a.tier.two.live refuses")


def test_an_exit_may_be_larger_than_the_escalation_whose_place_it_takes() -> None:
    escalated = Escalation(Head(image_id="b"), Inline(bytes(20)), [])
    outputs = [
        pack(votes("b", "two")),
        Output("tier.two.archive", b"b", codec.encode(escalated), 3),
    ]
    (sent,) = refused(outputs, 1)
    assert len(sent.value) > len(outputs[1].value)
    assert codec.decode_votes(sent.value).images[0].next_tier is None


def test_an_escalation_whose_votes_are_not_there_is_for_a_person_to_mend() -> None:
    escalated = Escalation(Head(image_id="b"), Inline(bytes(9000)), [])
    output = Output("tier.two.archive", b"b", codec.encode(escalated), 3)
    with pytest.raises(ForbiddenError, match=r"tier\.two\.archive refuses .* raise max.message"):
        refused([output], 0)


def test_votes_go_in_smaller_packs_and_then_without_boxes() -> None:
    many = pack(votes("a"), votes("b"), votes("c"))
    halves = refused([many], 0)
    assert [[v.head.image_id for v in codec.decode_votes(h.value).images] for h in halves] == [
        ["a"], ["b", "c"]
    ]  # fmt: skip
    (bare,) = refused([halves[0]], 0)
    said = codec.decode_votes(bare.value).images[0]
    assert (said.boxes, said.tags, said.probability) == (None, None, [0.7])
    with pytest.raises(ForbiddenError, match=r"votes refuses .* raise max.message.bytes"):
        refused([bare], 0)


def test_an_answer_loses_its_boxes_and_then_its_tiers() -> None:
    tier = AnswerTier("one", [RUN], [1.0], [0.7], boxes=BOXES)
    answer = Answer(Head(image_id="a"), "answered", "roadwork", 0.7, 0.4, tiers=[tier])
    (bare,) = refused([Output(ANSWERS, b"a", codec.encode(answer), 0)], 0)
    first = codec.decode_answer(bare.value)
    assert (first.probability, first.tiers[0].boxes, len(first.votes)) == (0.7, None, 1)
    assert (first.error or "").startswith("too_large: answers refuses a record of")
    assert (first.error or "").endswith("; what does not fit is left out")
    (barest,) = refused([bare], 0)
    last = codec.decode_answer(barest.value)
    assert (last.tiers, last.error) == ([], first.error)


def test_a_dead_letter_tells_the_hash_of_what_it_cannot_carry() -> None:
    letter = DeadLetter(
        topic="images.archive", partition=1, offset=5, key=b"k", value=bytes(9000), error="bad",
        group="g", failed_at=1.0,
    )  # fmt: skip
    (short,) = refused([Output(DEAD_LETTERS, b"k", codec.encode(letter), 1)], 0)
    found = codec.decode_dead_letter(short.value)
    assert (found.value, found.offset) == (b"", 5)
    assert found.error.startswith("bad (9,000 bytes, SHA-256 ")
    assert (short.key, found.key) == (None, b"k")
    (shortest,) = refused([short], 0)
    last = codec.decode_dead_letter(shortest.value)
    assert (last.key, last.error) == (None, found.error)
    with pytest.raises(ForbiddenError, match="dead-letters refuses"):
        refused([shortest], 0)


def test_a_dead_letter_whose_headers_are_too_large_goes_without_them() -> None:
    letter = DeadLetter(
        topic="images.archive", partition=1, offset=5, key=None, value=b"", error="bad",
        group="g", failed_at=1.0, headers=[("note", bytes(9000))],
    )  # fmt: skip
    (short,) = refused([Output(DEAD_LETTERS, None, codec.encode(letter), 1)], 0)
    assert not codec.decode_dead_letter(short.value).headers
