"""What an answer says: status, label, flags, votes and shadows apart, and where its time went."""

import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roadstream.schemas import codec
from roadstream.schemas.cascade.model import Pool
from roadstream.schemas.records.answer import Answer
from roadstream.schemas.records.bounds import MOST_TEXT
from roadstream.schemas.records.image import Head
from roadstream.schemas.records.votes import Box, ImageVotes, VotesPack
from roadstream.sinks.consensus.answer import COMPLETE, Answerer, Ending, TierVotes
from roadstream.stages.voting.rules import vote_math
from tests.kits.builders import CASCADE_HASH, cascade, head, pack, votes

NOW = 1_000.0
SUBMITTED = head("a", submitted_at=NOW - 8)


def answerer(threshold: float = 0.5, pool: Pool | None = None) -> Answerer:
    chosen = cascade(threshold=threshold, pool=pool)
    return Answerer(chosen, vote_math(chosen))


def passed(*packs: VotesPack) -> list[TierVotes]:
    return [TierVotes(one, one.images[0]) for one in packs]


def answer(
    *packs: VotesPack, now: float = NOW, ending: Ending = COMPLETE, threshold: float = 0.5
) -> Answer:
    return answerer(threshold).answer(passed(*packs), first_at=NOW - 3, now=now, ending=ending)


def test_a_complete_image_is_answered_with_its_votes_in_order() -> None:
    said = answer(
        pack("one", votes(SUBMITTED, 0.6, 0.8, next_tier="two"), weights=[1.0, 2.0]),
        pack("two", votes(SUBMITTED, 0.9)),
    )

    assert said.head == SUBMITTED
    assert (said.status, said.label, said.flags, said.missing) == ("answered", "roadwork", [], [])
    assert [(v.tier, v.member, v.raw, v.probability, v.weight) for v in said.votes] == [
        ("one", "one-0", 6.0, 0.6, 1.0),
        ("one", "one-1", 8.0, 0.8, 2.0),
        ("two", "two-0", 9.0, 0.9, 1.0),
    ]
    assert all(v.latency == 0.125 and v.batch_size == 1 and v.calibrated for v in said.votes)
    odds = [math.log(p / (1 - p)) for p in (0.6, 0.8, 0.8, 0.9)]
    pooled = 1 / (1 + math.exp(-sum(odds) / 4))
    assert said.probability == pytest.approx(pooled)
    assert said.confidence == pytest.approx(2 * pooled - 1)
    assert (said.exit_tier, said.cascade, said.cascade_hash) == ("two", "test", CASCADE_HASH)
    assert said.error is None


def test_a_deadline_between_tiers_is_partial_with_a_vote_and_expired_without_one() -> None:
    live = head("a", deadline_at=NOW - 1, submitted_at=NOW - 8)
    too_late = pack("two", votes(live, None, error="expired: the deadline passed in the queue"))
    voted = answer(pack("one", votes(live, 0.9, next_tier="two")), too_late)
    unvoted = answer(
        pack("one", votes(live, None, next_tier="two", error="model_abstained: no")), too_late
    )
    assert (voted.status, voted.label) == ("partial", "roadwork")
    assert (unvoted.status, unvoted.label) == ("failed", None)
    assert voted.error == unvoted.error == "expired: the deadline passed in the queue"


def test_a_bad_picture_that_is_told_of_too_late_is_a_bad_picture() -> None:
    live = head("a", deadline_at=NOW - 1, submitted_at=NOW - 8)
    said = answer(pack("one", votes(live, None, error="truncated: ends early")))
    assert (said.status, said.error) == ("failed", "truncated: ends early")


@pytest.mark.parametrize(
    ("p", "threshold", "label"),
    [(0.5, 0.5, "roadwork"), (0.49, 0.5, "none"), (0.6, 0.65, "none"), (0.66, 0.65, "roadwork")],
)
def test_the_label_is_roadwork_from_the_threshold_on(
    p: float, threshold: float, label: str
) -> None:
    said = answer(pack("one", votes("a", p)), threshold=threshold)
    assert (said.label, said.threshold) == (label, threshold)


def test_an_image_whose_path_is_not_complete_is_partial() -> None:
    said = answer(pack("one", votes("a", 0.9, next_tier="two")), ending=Ending("orphan", "two"))

    assert (said.status, said.flags, said.label) == ("partial", ["partial"], "roadwork")
    assert said.exit_tier == "one"


@pytest.mark.parametrize(("late_by", "status"), [(0.0, "answered"), (0.01, "partial")])
def test_an_answer_after_the_deadline_is_partial(late_by: float, status: str) -> None:
    live = head("a", deadline_at=NOW)
    said = answer(pack("one", votes(live, 0.9)), now=NOW + late_by)

    assert said.status == status


def test_an_image_that_expired_at_a_later_tier_is_partial_with_the_votes_so_far() -> None:
    said = answer(
        pack("one", votes("a", 0.9, next_tier="two")),
        pack("two", votes("a", None, error="expired: the deadline passed in the queue")),
    )

    assert (said.status, said.flags) == ("partial", ["partial", "degraded"])
    assert [vote.member for vote in said.votes] == ["one-0"]
    assert said.missing == ["two-0"]
    assert said.error == "expired: the deadline passed in the queue"


def test_an_image_that_nobody_could_judge_has_failed_and_says_why() -> None:
    said = answer(pack("one", votes("a", None, None, error="truncated: ends early")))

    assert (said.status, said.flags, said.error) == ("failed", ["failed"], "truncated: ends early")
    assert (said.label, said.probability, said.confidence) == (None, None, None)
    assert said.missing == ["one-0", "one-1"]
    assert said.votes == []


def test_a_failure_without_a_reason_is_a_models() -> None:
    assert answer(pack("one", votes("a", None))).error == "model_failed: no member voted"


def test_shadow_votes_alone_make_no_answer() -> None:
    said = answer(pack("one", votes("a", None, 0.9), weights=[1.0, 0.0]))

    assert said.status == "failed"
    assert [vote.member for vote in said.shadow_votes] == ["one-1"]


def test_a_missing_member_is_left_out_named_and_flagged() -> None:
    whole = answer(pack("one", votes("a", 0.9, 0.9)))
    said = answer(pack("one", votes("a", 0.9, None)))

    assert (said.status, said.flags, said.missing) == ("answered", ["degraded"], ["one-1"])
    assert said.probability == pytest.approx(whole.probability)


def test_an_error_of_an_earlier_tier_stays_visible() -> None:
    said = answer(
        pack("one", votes("a", None, next_tier="two", error="model_failed: RuntimeError: x")),
        pack("two", votes("a", 0.9)),
    )

    assert (said.status, said.flags) == ("answered", ["degraded"])
    assert said.error == "model_failed: RuntimeError: x"


@settings(deadline=None)
@given(st.floats(0, 1), st.none() | st.floats(0, 1))
def test_a_shadow_member_never_changes_an_answer(p: float, shadow: float | None) -> None:
    without = answer(pack("one", votes("a", p)))
    said = answer(pack("one", votes("a", p, shadow), weights=[1.0, 0.0]))

    assert [vote.probability for vote in said.shadow_votes] == ([] if shadow is None else [shadow])
    assert said.flags == ([] if shadow is None else ["shadow"])
    assert msgspec.structs.replace(said, tiers=without.tiers, flags=[]) == without
    assert said.votes == without.votes


def test_boxes_stay_with_the_member_that_found_them() -> None:
    box = Box(0.1, 0.2, 0.3, 0.4, 0.9, "cone")
    said = votes("a", 0.9, 0.8)
    with_boxes = ImageVotes(said.head, said.raw, said.probability, boxes=[[], [box]])

    assert [vote.boxes for vote in answer(pack("one", with_boxes)).votes] == [[], [box]]


@pytest.mark.parametrize(
    ("image", "total"),
    [(SUBMITTED, 8.0), (head("a"), 0.0), (head("a", submitted_at=NOW + 5), 0.0)],
    ids=["submitted", "unknown", "clock stepped back"],
)
def test_an_answer_says_where_its_time_went(image: Head, total: float) -> None:
    said = answer(
        pack("one", votes(image, 0.9, next_tier="two")), pack("two", votes(image, 0.9))
    ).latency

    assert (said.total, said.joining) == (total, 3.0)
    assert [(t.tier, t.queued, t.decoding, t.inferring) for t in said.tiers] == [
        ("one", 0.25, 0.5, 0.75),
        ("two", 0.25, 0.5, 0.75),
    ]


@pytest.mark.parametrize(
    ("quorum", "weights", "flags"),
    [
        (1.0, [3.0, 1.0], ["degraded"]),
        (1.0, [1e9, 1e-9], ["degraded"]),
        (0.75, [3.0, 1.0], []),
        (0.76, [3.0, 1.0], ["degraded"]),
        (0.9, [9.0, 1.0], []),
        (0.1, [0.3, 2.7], []),
        (0.0, [1e-9, 1e9], []),
    ],
)
def test_an_answer_is_degraded_when_less_of_the_weight_has_voted_than_the_quorum(
    quorum: float, weights: list[float], flags: list[str]
) -> None:
    said = answerer(pool=Pool(quorum=quorum)).answer(
        passed(pack("one", votes("a", 0.9, None), weights=weights)), first_at=NOW, now=NOW
    )
    assert (said.status, said.flags, said.missing) == ("answered", flags, ["one-1"])


def test_the_quorum_counts_over_all_tiers_passed() -> None:
    packs = pack("one", votes("a", 0.9, None)), pack("two", votes("a", 0.8, 0.8))
    for quorum, flags in ((0.75, []), (0.8, ["degraded"])):
        made = answerer(pool=Pool(quorum=quorum))
        assert made.answer(passed(*packs), first_at=NOW, now=NOW).flags == flags


def test_a_member_that_gave_tags_and_no_score_is_not_missed() -> None:
    tagged = msgspec.structs.replace(votes("a", 0.9, None, None), tags=[{}, {"light": "night"}, {}])
    said = answer(pack("one", tagged, weights=[0.1, 0.2, 0.0]))
    assert (said.status, said.flags, said.missing) == ("answered", [], ["one-2"])
    assert said.tiers[0].tags == tagged.tags


def test_why_an_image_left_each_tier_stands_in_its_answer() -> None:
    said = answer(pack("one", votes("a", 0.9, next_tier="two")), pack("two", votes("a", 0.9)))
    assert [one.reason for one in said.tiers] == ["because", "because"]


def test_tiers_that_were_down_are_named_once_and_in_their_order() -> None:
    first = msgspec.structs.replace(votes("a", 0.9), down=["three", "two", "left-out"])
    second = msgspec.structs.replace(votes("a", 0.9), down=["three"])
    said = answer(pack("one", first), pack("two", second))
    assert (said.status, said.flags) == ("answered", ["degraded"])
    assert said.missing_tiers == ["two", "three", "left-out"]
    assert said.error is None


@pytest.mark.parametrize("fault", ["expired: too late", "version_unavailable: no weights"])
def test_a_tier_that_did_not_look_is_named(fault: str) -> None:
    said = answer(
        pack("one", votes("a", 0.9, next_tier="two")), pack("two", votes("a", None, error=fault))
    )
    assert (said.status, said.missing_tiers, said.error) == ("partial", ["two"], fault)


def test_errors_that_are_put_together_fit_into_an_answer() -> None:
    said = answer(
        pack("one", votes("a", 0.9, next_tier="two", error="x" * MOST_TEXT)),
        ending=Ending("given up", "two", 60.0),
    )
    assert codec.decode_answer(codec.encode(said)) == said
    assert (said.error or "").startswith("tier_unavailable: no votes of tier two within 60 s; xxx")


@given(st.lists(st.none() | st.floats(0, 1), min_size=1, max_size=4), st.floats(0, 1))
def test_who_voted_otherwise_are_as_many_as_the_answer_counts(
    ps: list[float | None], later: float
) -> None:
    first = pack("one", votes("a", *ps, next_tier="two"), weights=[1.0, 0.0, 2.0, 0.5][: len(ps)])

    said = answer(first, pack("two", votes("a", later)))

    assert len(said.losing_members) == said.losing
    assert set(said.losing_members) <= {vote.member for vote in said.votes}
    assert said.way == "one: because → two: because"
