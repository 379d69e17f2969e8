"""A tier's votes where rules, tags, boxes, exploration or deadlines have a say."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import pytest

from roadstream.schemas.cascade.model import Cascade, Fusion, Tier
from roadstream.schemas.cascade.routes import Route
from roadstream.schemas.cascade.rules import Adapt, Conflict, Exploration
from roadstream.schemas.records.image import Head
from roadstream.schemas.records.votes import NO_EVIDENCE, Box, Evidence, ImageVotes, PriorVote
from roadstream.stages.inference import Abstained, Finding, Score
from roadstream.stages.voting.picture_rules import Seen
from roadstream.stages.voting.tier_votes import TierVoting, Timing
from tests.kits import builders
from tests.kits.builders import head, member, tier

CONE = Box(0.1, 0.1, 0.3, 0.3, 0.9, "cone")
SIGN = Box(0.6, 0.1, 0.7, 0.2, 0.8, "sign")


class Image(NamedTuple):
    head: Head
    prior: Sequence[PriorVote] = ()
    evidence: Evidence = NO_EVIDENCE


def ruled(*tiers: Tier, **said: Any) -> Cascade:
    return msgspec.structs.replace(builders.cascade(*tiers), **said)


def voted(
    of: Cascade, name: str, image: Image, *found: Finding, seen: Seen | None = None, now: float = 0
) -> ImageVotes:
    voting = TierVoting(of, name)
    fused = next(voting.fused([[one] for one in found], [image]))
    return voting.vote(image, found, Timing(0, 0, 0), fused, seen or Seen(), now)


def test_a_route_goes_by_boxes_of_this_tier_and_of_earlier_ones() -> None:
    routes = [Route(to="three", min_kinds=2), Route(to="exit", min_boxes=1)]
    of = ruled(tier("one"), tier("two", routes=routes), tier("three"))
    earlier = Image(head("a"), evidence=Evidence(boxes=[CONE]))

    assert voted(of, "two", earlier, Score(1.0, [SIGN])).next_tier == "three"
    assert voted(of, "two", earlier, Score(1.0, [CONE])).next_tier is None
    assert voted(of, "two", Image(head("a")), Score(1.0, [])).next_tier == "three"


def test_boxes_of_shadow_members_are_not_counted() -> None:
    shadow, routes = member("s", 0.0), [Route(to="exit", max_boxes=0)]
    of = ruled(tier("one", member("m"), shadow, routes=routes), tier("two"))

    found = voted(of, "one", Image(head("a")), Score(1.0, []), Score(1.0, [CONE]))

    assert found.next_tier is None


def test_a_route_gives_tags_that_later_routes_go_by() -> None:
    first = [Route(to="two", max_boxes=0, min_probability=0.5, gives=["ask=all"])]
    of = ruled(
        tier("one", routes=first),
        tier("two", routes=[Route(to="three", tags_all=["ask=all"]), Route(to="exit")]),
        tier("three"),
    )
    flagged = voted(of, "one", Image(head("a")), Score(2.0, []))

    assert (flagged.next_tier, flagged.given) == ("two", {"ask": "all"})
    later = Image(head("a"), evidence=Evidence(tags=flagged.given or {}))
    assert voted(of, "two", later, Score(2.0, [])).next_tier == "three"
    assert voted(of, "two", Image(head("a")), Score(2.0, [])).next_tier is None


def test_a_conflict_is_a_tag_for_this_tiers_routes() -> None:
    routes = [Route(to="three", tags_all=["conflict=two-yes"]), Route(to="exit")]
    of = ruled(tier("one"), tier("two", routes=routes), tier("three"), rules=[Conflict(tier="two")])

    def after(p: float) -> ImageVotes:
        return voted(of, "two", Image(head("a"), [PriorVote("one-member", 1, p)]), Score(3.0, []))

    assert (after(0.1).next_tier, after(0.1).given) == ("three", {"conflict": "two-yes"})
    assert (after(0.9).next_tier, after(0.9).given) == (None, None)


def test_tags_of_this_tier_and_of_earlier_ones_change_the_votes() -> None:
    zone = Adapt(tags_all=["zone=ends"], shift=-4.0)
    of = ruled(
        tier("one", routes=[Route(to="exit", max_probability=0.5)]), tier("two"), rules=[zone]
    )
    ends = {"zone": "ends"}

    assert voted(of, "one", Image(head("a")), Score(2.0, [])).next_tier == "two"
    assert voted(of, "one", Image(head("a")), Score(2.0, [], tags=ends)).next_tier is None
    earlier = Image(head("a"), evidence=Evidence(tags=ends))
    assert voted(of, "one", earlier, Score(2.0, [])).next_tier is None


def test_factors_of_a_rule_revise_votes_of_this_tier_and_of_earlier_ones() -> None:
    of = ruled(tier("one"), tier("two", routes=[Route(to="exit", max_probability=0.5)]))
    image = Image(head("a"), [PriorVote("one-member", 1.0, 0.8)])
    seen = Seen({"size": "impossible"}, {"one-member": 0.25, "two-member": 0.5, "absent": 0.1})

    found = voted(of, "two", image, Score(0.0, []), seen=seen)

    revised = {"one-member": 0.2, "two-member": 0.25}
    assert dict(found.revised or {}) == pytest.approx(revised)
    assert found.probability == [0.5]
    assert found.given == {"size": "impossible"}
    assert found.next_tier is None


def test_an_explored_image_passes_all_tiers_and_says_so() -> None:
    sure = [Route(to="exit")]
    of = ruled(
        tier("one", routes=sure), tier("two", routes=sure), exploration=Exploration(share=0.5)
    )
    ways: dict[str | None, set[str]] = {}
    for i in range(100):
        found = voted(of, "one", Image(head(f"i{i}")), Score(3.0, []))
        assert (found.given == {"explored": "yes"}) == (found.next_tier == "two")
        ways.setdefault(found.next_tier, set()).add(found.reason)

    assert ways == {"two": {"explored: all tiers"}, None: {"always"}}
    live = head("i0", deadline_at=9.0)
    assert voted(of, "one", Image(live), Score(3.0, [])).given is None


def test_what_a_later_tier_takes_is_held_against_the_deadline() -> None:
    of = ruled(tier("one"), tier("two"))
    voting = TierVoting(of, "one")

    def went(deadline_at: float | None, needed: Mapping[str, float]) -> ImageVotes:
        voting.needed = needed
        image = Image(head("a", deadline_at=deadline_at))
        return voting.vote(image, [Score(0.1, [])], Timing(0, 0, 0), now=100.0)

    assert went(100.2, {}).next_tier == "two"
    assert went(None, {"two": 9.0}).next_tier == "two"
    assert went(101.0, {"two": 0.5}).next_tier == "two"
    late = went(100.2, {"two": 0.5})
    assert (late.next_tier, late.skipped) == (None, ["two"])
    assert late.reason == "no time: two takes 0.5 s, 0.2 s left"


def test_boxes_are_fused_as_the_pictures_tags_say() -> None:
    fog = Adapt(tags_all=["weather=fog"], box_confidence=0.5, box_margin=0.1)
    one = msgspec.structs.replace(
        tier("one", member("a"), member("b"), member("w", 0.0)), fusion=Fusion(skip=0.2)
    )
    of = ruled(one, rules=[fog])
    faint = msgspec.structs.replace(CONE, confidence=0.15)
    voting = TierVoting(of, "one")
    images = [Image(head("x")), Image(head("y"), evidence=Evidence(tags={"weather": "fog"}))]
    images.append(Image(head("z")))
    columns: list[list[Finding]] = [
        [Score(1.0, [faint])] * 3,
        [Score(1.0, [faint]), Score(1.0, [faint]), Score(1.0, [faint], tags={"weather": "fog"})],
        [Abstained(tags={"weather": "fog"})] * 3,
    ]

    clear, earlier, same = list(voting.fused(columns, images))

    assert clear == []
    assert earlier == same
    assert earlier is not None
    assert earlier[0].x1 == pytest.approx(0.09)
    assert earlier[0].x2 == pytest.approx(0.31)
