"""Tags of an image: whose word holds, and how many there can be."""

from hypothesis import given
from hypothesis import strategies as st

from roadstream.schemas.records.answer import Answer, AnswerTier
from roadstream.schemas.records.bounds import MOST_TAGS
from roadstream.schemas.records.image import Head
from roadstream.schemas.records.votes import MemberRun, merged_tags

TAGS = st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from("123"))


def run(member: str, weight: float = 1.0) -> MemberRun:
    return MemberRun(member, "1", weight, calibrated=True, latency=0.1, batch_size=1)


def test_a_later_tier_s_word_holds_and_within_a_tier_the_first_member_s() -> None:
    earlier = {"weather": "dry", "light": "day"}

    merged = merged_tags(earlier, [{"weather": "rain"}, {"weather": "fog", "sign": "stop"}])

    assert merged == {"weather": "rain", "sign": "stop", "light": "day"}


@given(TAGS, st.lists(TAGS, max_size=4))
def test_every_tag_that_was_given_is_there(
    earlier: dict[str, str], given: list[dict[str, str]]
) -> None:
    merged = merged_tags(earlier, given)

    assert set(merged) == set(earlier).union(*given)
    for name, value in merged.items():
        assert value == next(tags[name] for tags in [*given, earlier] if name in tags)


def test_of_too_many_the_latest_are_kept() -> None:
    earlier = {f"old{i}": "" for i in range(MOST_TAGS)}

    merged = merged_tags(earlier, [{f"a{i}": "" for i in range(30)}, {"b0": "", "b1": ""}])

    assert len(merged) == MOST_TAGS
    assert not set(merged) & set(earlier)


def test_an_answer_has_the_tags_of_all_tiers_but_not_those_of_shadow_members() -> None:
    said = [{"weather": "dry", "light": "day"}, {"shadow": "yes"}]
    runs = [run("w"), run("s", 0.0)]
    one = AnswerTier("one", runs, [None, 1.0], [None, 0.7], tags=said)
    two = AnswerTier("two", [run("x")], [1.0], [0.7], tags=[{"weather": "rain"}])
    answer = Answer(Head(image_id="a"), "answered", tiers=[one, two])

    assert answer.tags == {"weather": "rain", "light": "day"}
    assert [vote.tags for vote in answer.votes] == [{"weather": "rain"}]
    assert [vote.tags for vote in answer.shadow_votes] == [{"shadow": "yes"}]


def test_a_member_that_gave_tags_instead_of_a_vote_is_not_missing() -> None:
    runs = [run("tagger"), run("away"), run("voter")]
    tier = AnswerTier("one", runs, [None, None, 1.0], [None, None, 0.7], tags=[{"a": "1"}, {}, {}])
    old = AnswerTier("two", runs, [None, None, 1.0], [None, None, 0.7])

    assert Answer(Head(image_id="a"), "answered", tiers=[tier]).missing == ["away"]
    assert Answer(Head(image_id="a"), "answered", tiers=[old]).missing == ["tagger", "away"]
