"""Boxes of an impossible size lower the votes of detectors, and are told on less sure."""

import io
import math
from collections.abc import Sequence

import numpy as np
import pytest
from msgspec.structs import replace
from PIL import Image as Pillow

from roadstream.schemas import codec
from roadstream.schemas.cascade.model import Cascade, Fusion, Member
from roadstream.schemas.cascade.rules import Size
from roadstream.schemas.records.answer import Answer
from roadstream.schemas.records.image import Inline
from roadstream.schemas.records.votes import Box, Escalation, VotesPack
from roadstream.sinks.consensus.answer import Answerer, TierVotes
from roadstream.stages.inference import Abstained, DepthMap, Engine, EngineResult, Pictures, Score
from roadstream.stages.voting.rules import vote_math
from roadstream.stages.voting.vote import log_odds
from roadstream.streams.log import TopicPartition
from roadstream.streams.memory.log import MemoryRecord
from roadstream.workers.tier.batch import TierBatch, outputs_of
from roadstream.workers.tier.judge import Judge
from roadstream.workers.tier.records import Item, RecordDecoder
from tests.kits.builders import cascade, member, tier
from tests.kits.tier_bench import judged
from tests.workers.tier.test_judge import items

CONE = Box(0.4, 0.5, 0.5, 0.8, 0.8, "traffic cone")
WORKER = Box(0.1, 0.2, 0.2, 0.8, 0.4, "worker")
OUTSIDE = Box(2.0, 0.5, 3.0, 0.8, 0.9, "cone")
ROADWORK = log_odds(0.8)
DEPTH = {"depth": "metres"}


def detector(name: str, weight: float = 1.0) -> Member:
    return replace(member(name, weight), kind="detection")


RULE = Size(depth="sight")
CASCADE = replace(
    cascade(
        tier("find", detector("a"), member("other"), detector("shadow", 0.0)),
        tier("look", member("sight"), detector("b")),
        tier("ask"),
    ),
    rules=[RULE],
)


class Sayer(Engine):
    """Says the same of every picture."""

    def __init__(self, says: EngineResult) -> None:
        self._says = says

    def load(self) -> None:
        """Nothing to load."""

    def infer(self, batch: Pictures) -> Sequence[EngineResult]:
        return [self._says] * len(batch)

    def close(self) -> None:
        """Nothing to give back."""


def photo(**exif: int) -> bytes:
    """Return a JPEG of 96 × 64 with the focal length as EXIF tells it, if it does."""
    target, block = io.BytesIO(), Pillow.Exif()
    if exif:
        block.get_ifd(0x8769)[0xA405] = exif["film"]
    Pillow.fromarray(np.full((64, 96, 3), 128, np.uint8)).save(target, "JPEG", exif=block)
    return target.getvalue()


def far(metres: float = 12.0, focal: float | None = 1.0) -> Abstained:
    return Abstained("", DEPTH, DepthMap(np.full((48, 64), metres, np.float32), focal))


def through(
    sight: EngineResult,
    b: Score = Score(0.0, []),  # noqa: B008 (nobody changes it)
    *,
    chosen: Cascade = CASCADE,
    data: bytes | None = None,
) -> tuple[list[TierBatch], list[Escalation]]:
    """Judge a picture at the first two tiers; return the batches and what is handed on."""
    says: list[dict[str, EngineResult]] = [
        {"a": Score(ROADWORK, [CONE, WORKER, OUTSIDE]), "other": Score(0.5, []),
         "shadow": Score(0.5, [CONE])},
        {"sight": sight, "b": b},
    ]  # fmt: skip
    batches: list[TierBatch] = []
    handed: list[Escalation] = []
    waiting: list[Item] = items(Inline(data or photo()))
    for name, said in zip(("find", "look"), says, strict=True):
        engines: dict[str, Engine] = {who: Sayer(what) for who, what in said.items()}
        batch = judged(Judge(chosen, name, engines), waiting)
        onward = [one for one in outputs_of(batch, "c", "h", name, 1.0) if "tier." in one.topic]
        batches.append(batch)
        handed += [codec.decode_escalation(one.value or b"") for one in onward]
        records = [MemoryRecord(0, one.key, one.value, 0) for one in onward]
        later = RecordDecoder("later", first=False)
        waiting = later.decode({TopicPartition("t", 0): records}, 0.0).items
    return batches, handed


def answered(batches: Sequence[TierBatch], chosen: Cascade = CASCADE) -> Answer:
    """Return the answer to a picture that left after these."""
    passed = []
    for one, name in zip(batches, chosen.tier_names, strict=False):
        said = replace(one.votes[0], next_tier=None)
        pack = VotesPack(tier=name, cascade="c", cascade_hash="h", sent_at=0.0,
                         runs=one.runs, images=[said])  # fmt: skip
        passed.append(TierVotes(pack, codec.decode_votes(codec.encode(pack)).images[0]))
    return Answerer(chosen, vote_math(chosen)).answer(passed, first_at=0.0, now=1.0)


def test_an_impossible_size_lowers_the_detectors_of_all_tiers_so_far() -> None:
    batches, (_, handed) = through(far(), Score(ROADWORK, [CONE]))

    said = batches[1].votes[0]

    # The surest box of tier one that is left is the worker's, of half the confidence.
    assert said.revised == pytest.approx({"a": 0.8 * 0.5, "b": 0.8 * 0.3})
    assert said.given == {"size": "impossible"}
    handed_on = {vote.member: vote.probability for vote in handed.votes}
    assert handed_on == pytest.approx({"a": 0.4, "other": 0.622, "b": 0.24}, abs=0.001)
    assert handed.evidence.tags == {"size": "impossible", "depth": "metres"}
    sure = {(box.label, round(box.confidence, 3)) for box in handed.evidence.boxes}
    assert sure == {("worker", 0.4), ("traffic cone", 0.24)}


def test_the_answer_says_what_was_measured_and_what_changed() -> None:
    batches, _ = through(far())
    untouched = answered(batches[:1])

    found = answered(batches)

    assert found.effects == [
        (
            "size: a cone 1.2 m wide, not 0.25 to 0.4: confidence × 0.3; "
            "focal length 1 of the width by the depth member"
        ),
        "probability of a: 0.8 → 0.4",
    ]
    assert found.status == "answered"
    assert (found.probability or 1) < (untouched.probability or 0)
    assert {vote.member: vote.probability for vote in found.votes}["a"] == pytest.approx(0.8)


def test_a_possible_size_changes_nothing_and_says_so() -> None:
    batches, (first, handed) = through(far(3.0))

    said = batches[1].votes[0]

    assert (said.revised, said.given) == (None, {"size": "plausible"})
    assert handed.votes[:2] == first.votes
    assert handed.evidence.boxes == first.evidence.boxes
    assert said.effects == [
        "size: 1 of a possible size; focal length 1 of the width by the depth member"
    ]


@pytest.mark.usefixtures("compiled_fusion")
def test_fused_boxes_are_told_on_less_sure_too() -> None:
    tiers = [replace(one, fusion=Fusion()) if one.name == "look" else one for one in CASCADE.tiers]

    _, (_, handed) = through(far(), Score(ROADWORK, [CONE]), chosen=replace(CASCADE, tiers=tiers))

    cones = [box.confidence for box in handed.evidence.boxes if box.label == "traffic cone"]
    assert cones == pytest.approx([0.24, 0.24])


@pytest.mark.parametrize(
    ("sight", "said"),
    [
        (
            Abstained("", DEPTH, DepthMap(np.full((4, 4), math.nan, np.float32))),
            ("size: not checked: sight: model_failed: expected a depth map with depths in it, "
            "got nothing but nan"),
        ),
        (
            Abstained("", DEPTH, DepthMap(np.zeros((4, 4, 3), np.float32))),
            ("size: not checked: sight: model_failed: expected a depth map [height, width] of 1 to "
            "1024 per side, got [4, 4, 3]"),
        ),
        (Abstained("relative", {"depth": "relative"}),
         "size: not checked: sight measured no metres"),
        (far(3.0, focal=0.0),
         "size: 1 of a possible size; soft, as no focal length is known (the depth member says 0)"),
    ],
)  # fmt: skip
def test_what_cannot_be_checked_is_told_and_nothing_is_lost(sight: Abstained, said: str) -> None:
    batches, handed = through(sight, Score(ROADWORK, []))

    votes = batches[1].votes[0]

    assert votes.effects == [said]
    assert votes.revised is None
    assert len(handed) == 2
    assert [vote.member for vote in handed[1].votes] == ["a", "other", "b"]
    assert answered(batches).status == "answered"


@pytest.mark.parametrize(
    ("data", "chosen", "says"),
    [
        (photo(film=36), CASCADE, "focal length 1 of the width by EXIF"),
        (photo(film=0), CASCADE, "soft, as no focal length is known (EXIF says 0)"),
        (photo(), CASCADE, "soft, as no focal length is known"),
        (photo(film=36), replace(CASCADE, rules=[replace(RULE, focal=0.9)]),
         "focal length 0.9 of the width by the cascade"),
    ],
)  # fmt: skip
def test_exif_says_the_focal_length_where_nobody_else_does(
    data: bytes, chosen: Cascade, says: str
) -> None:
    batches, _ = through(far(3.0, None), chosen=chosen, data=data)

    assert batches[1].votes[0].effects == [f"size: 1 of a possible size; {says}"]


@pytest.mark.parametrize("rules", [[], [replace(RULE, enabled=False)]])
def test_without_the_rule_nothing_is_checked(rules: list[Size]) -> None:
    batches, _ = through(far(), chosen=replace(CASCADE, rules=list(rules)), data=photo(film=36))

    said = batches[1].votes[0]

    assert (said.given, said.revised, said.effects) == (None, None, None)
