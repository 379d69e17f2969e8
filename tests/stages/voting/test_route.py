"""Routes: the first rule that holds decides, and no image ever goes back."""

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roadstream.schemas.cascade.model import Cascade, Tier
from roadstream.schemas.cascade.routes import Route
from roadstream.schemas.cascade.rules import Exploration
from roadstream.schemas.cascade.without import leave_out
from roadstream.schemas.records.votes import Box
from roadstream.stages.voting.route import MOST_REASON, Decision, Facts, Router, describe
from tests.kits.builders import cascade, head, tier
from tests.kits.examples import examples

NAMES = ["one", "two", "three"]
LEVELS = st.sampled_from([0.0, 0.25, 0.5, 0.75, 0.95, 1.0])
CONFIDENCE = LEVELS | st.floats(0, 1)
SPREAD = st.sampled_from([0.0, 1.0, 2.0]) | st.floats(0, 6)
DOWN = st.frozensets(st.sampled_from(["two", "three"]))


CONDITIONS = st.sampled_from(["weather=rain", "weather", "light=night", "light=", "text=A=B"])
CONDITION_LISTS = st.lists(CONDITIONS, max_size=2)
TAGS = st.dictionaries(
    st.sampled_from(["weather", "light", "text"]), st.sampled_from(["rain", "night", "", "A=B"])
)


def routes_to(*targets: str) -> st.SearchStrategy[list[Route]]:
    return st.lists(
        st.builds(
            Route,
            to=st.sampled_from(targets),
            min_confidence=st.none() | LEVELS,
            max_confidence=st.none() | LEVELS,
            max_disagreement=st.none() | SPREAD,
            tags_all=CONDITION_LISTS,
            tags_any=CONDITION_LISTS,
            tags_none=CONDITION_LISTS,
            tiers_down=st.lists(st.sampled_from(["two", "three"]), unique=True),
        ),
        max_size=5,
    )


def has(tags: dict[str, str], condition: str) -> bool:
    return condition in tags or condition in [f"{name}={value}" for name, value in tags.items()]


def holds(
    route: Route, confidence: float, spread: float, tags: dict[str, str], down: frozenset[str]
) -> bool:
    if any(name not in down for name in route.tiers_down):
        return False
    tagged = [has(tags, one) for one in route.tags_any]
    if not all(has(tags, one) for one in route.tags_all) or (tagged and not any(tagged)):
        return False
    if any(has(tags, one) for one in route.tags_none):
        return False
    if route.min_confidence is not None and confidence < route.min_confidence:
        return False
    if route.max_confidence is not None and confidence >= route.max_confidence:
        return False
    return route.max_disagreement is None or spread <= route.max_disagreement


@settings(deadline=None, max_examples=examples(200))
@given(routes_to("exit", "two", "three"), CONFIDENCE, SPREAD, TAGS, DOWN)
def test_the_first_route_that_holds_decides(
    routes: list[Route],
    confidence: float,
    spread: float,
    tags: dict[str, str],
    down: frozenset[str],
) -> None:
    router = Router(cascade(tier("one", routes=routes), tier("two"), tier("three")), "one")
    held = (r for r in routes if holds(r, confidence, spread, tags, down))
    first = next(held, Route(to="two"))

    decision = router.decide(Facts(confidence, spread, tags), down)
    assert decision.next_tier == (None if first.to == "exit" else first.to)
    assert (decision.down or []) == first.tiers_down
    if not router.needs_more:
        assert router.decide(Facts(confidence, spread), down) == decision


@settings(deadline=None)
@given(routes_to("exit", "three"), CONFIDENCE, SPREAD)
def test_an_image_never_goes_back_or_stays(
    routes: list[Route], confidence: float, spread: float
) -> None:
    chain = cascade(tier("one"), tier("two", routes=routes), tier("three"))
    for index, name in enumerate(NAMES):
        decision = Router(chain, name).decide(Facts(confidence, spread))
        assert decision.next_tier in (None, *NAMES[index + 1 :])
        assert decision.next_tier is None or decision.next_tier in Router(chain, name).targets


def test_without_a_route_an_image_goes_on_and_leaves_after_the_last_tier() -> None:
    chain = cascade()
    assert Router(chain, "one").decide(Facts(1.0, 0.0)) == Decision(
        "two", "no route held: next tier"
    )
    assert Router(chain, "two").decide(Facts(1.0, 0.0)) == Decision(
        "three", "no route held: next tier"
    )
    assert Router(chain, "three").decide(Facts(0.0, 9.0)) == Decision(None, "last tier")


def test_a_lower_bound_holds_at_itself_and_an_upper_one_does_not() -> None:
    routes = [
        Route(to="exit", min_confidence=0.9),
        Route(to="three", min_confidence=0.5, max_confidence=0.9),
    ]
    router = Router(cascade(tier("one", routes=routes), tier("two"), tier("three")), "one")

    assert router.decide(Facts(0.9, 0.0)).next_tier is None
    assert router.decide(Facts(0.5, 0.0)).next_tier == "three"
    assert router.decide(Facts(0.4999, 0.0)).next_tier == "two"


@pytest.mark.parametrize(
    ("route", "reason"),
    [
        (Route(to="exit"), "always"),
        (Route(to="exit", min_confidence=0.9), "confidence ≥ 0.9"),
        (
            Route(to="exit", min_confidence=0.5, max_confidence=0.9, max_disagreement=2),
            "confidence ≥ 0.5 and confidence < 0.9 and disagreement ≤ 2",
        ),
        (
            Route(to="exit", tags_all=["weather=rain", "text"], max_confidence=0.9),
            "confidence < 0.9 and tag weather=rain and tag text",
        ),
        (
            Route(to="exit", tags_any=["text=ROAD WORK"], tags_none=["light=night"]),
            "tag text=ROAD WORK and no tag light=night",
        ),
        (
            Route(to="exit", tags_any=["text=STOP", "weather"], tags_none=["light", "fog"]),
            "any of the tags text=STOP, weather and none of the tags light, fog",
        ),
        (Route(to="exit", tiers_down=["two"]), "nobody works for two"),
        (
            Route(to="exit", min_confidence=0.7, tiers_down=["two", "three"]),
            "confidence ≥ 0.7 and nobody works for two, nor for three",
        ),
        (Route(to="exit", reason="sure enough"), "sure enough"),
    ],
)
def test_a_decision_says_which_route_held(route: Route, reason: str) -> None:
    router = Router(cascade(tier("one", routes=[route])), "one")

    tags, down = {"weather": "rain", "text": "ROAD WORK"}, frozenset({"two", "three"})
    decision = router.decide(Facts(0.8 if route.max_confidence else 1.0, 0.0, tags), down)
    assert decision == Decision(None, reason, route.tiers_down or None)
    if not route.reason:
        assert describe(route) == reason


def test_disagreement_is_only_asked_for_where_a_route_needs_it() -> None:
    spread = [Route(to="exit", max_disagreement=1.0)]
    assert Router(cascade(tier("one", routes=spread)), "one").needs_disagreement
    assert not Router(cascade(), "one").needs_disagreement
    sure = [Route(to="exit", min_confidence=0.9)]
    assert not Router(cascade(tier("one", routes=sure)), "one").needs_disagreement


def test_targets_are_every_tier_that_an_image_can_be_sent_to() -> None:
    chain = cascade(
        tier("one", routes=[Route(to="three"), Route(to="exit")]), *map(tier, NAMES[1:])
    )
    assert Router(chain, "one").targets == {"two", "three"}
    assert Router(chain, "three").targets == set()
    assert Router(cascade(), "one").targets == {"two"}


def test_a_reason_made_of_many_tags_is_bounded() -> None:
    route = Route(to="exit", tags_none=[f"t{i}={'x' * 250}" for i in range(300)])
    router = Router(cascade(tier("one", routes=[route])), "one")

    assert router.decide(Facts(1.0, 0.0)).reason.startswith("none of the tags t0=xxx")
    assert len(router.decide(Facts(1.0, 0.0)).reason) == MOST_REASON


def test_a_route_for_tiers_that_are_down_holds_while_all_of_them_are() -> None:
    around = [
        Route(to="exit", max_confidence=0.5, tiers_down=["two", "three"]),
        Route(to="three", tiers_down=["two"]),
    ]
    router = Router(cascade(tier("one", routes=around), tier("two"), tier("three")), "one")

    assert router.watched == {"two", "three"}
    assert router.decide(Facts(0.2, 0.0)).next_tier == "two"
    assert router.decide(Facts(0.2, 0.0), down=frozenset({"three"})).next_tier == "two"
    assert router.decide(Facts(0.2, 0.0), down=frozenset({"two"}))[:3:2] == ("three", ["two"])
    assert router.decide(Facts(0.2, 0.0), down=frozenset({"two", "three"}))[:3:2] == (
        None,
        ["two", "three"],
    )
    assert router.decide(Facts(0.9, 0.0), down=frozenset({"two", "three"}))[:3:2] == (
        "three",
        ["two"],
    )


def without(names: list[str], *tiers: Tier) -> Cascade:
    return leave_out(cascade(*(tiers or map(tier, ["one", "two", "three", "four"]))), names)


def test_an_image_goes_past_tiers_that_are_left_out_and_its_votes_name_them() -> None:
    one = tier("one", routes=[Route(to="three", min_confidence=0.9)])
    chain = [one, *map(tier, ["two", "three", "four"])]

    router = Router(without(["two", "three"], *chain), "one")
    always = "confidence ≥ 0.9; left out: three"
    assert router.decide(Facts(1.0, 0.0)) == Decision("four", always, ["three"])
    default = "no route held: next tier; left out: two, three"
    assert router.decide(Facts(0.0, 0.0)) == Decision("four", default, ["two", "three"])
    assert router.targets == {"four"}

    last = Router(without(["three", "four"], *chain), "two").decide(Facts(1.0, 0.0))
    assert (last.next_tier, last.down) == (None, ["three", "four"])
    assert Router(without(["three"], *chain), "four").decide(Facts(1.0, 0.0)) == Decision(
        None, "last tier"
    )


def test_nobody_works_for_a_tier_that_is_left_out() -> None:
    around = Route(to="four", tiers_down=["two", "three"])
    chain = [tier("one", routes=[around]), *map(tier, ["two", "three", "four"])]
    router = Router(without(["two"], *chain), "one")

    assert router.watched == {"three"}
    assert router.decide(Facts(0.0, 0.0)).next_tier == "three"
    found = router.decide(Facts(0.0, 0.0), down=frozenset({"three"}))
    assert (found.next_tier, found.down) == ("four", ["two", "three"])


BOX = Box(0.1, 0.1, 0.2, 0.2, 0.9, "cone")
SIGN = Box(0.5, 0.1, 0.6, 0.2, 0.9, "sign")


@pytest.mark.parametrize(
    ("asked", "held", "not_held"),
    [
        ({"min_probability": 0.5}, [{"probability": 0.5}], [{"probability": 0.49}]),
        ({"max_probability": 0.5}, [{"probability": 0.49}], [{"probability": 0.5}]),
        ({"min_disagreement": 1.0}, [{"disagreement": 1.1}], [{"disagreement": 1.0}]),
        ({"min_losing": 2}, [{"losing": 2}], [{"losing": 1}]),
        ({"max_losing": 2}, [{"losing": 2}], [{"losing": 3}]),
        ({"min_boxes": 1}, [{"boxes": [BOX]}], [{}]),
        ({"max_boxes": 0}, [{}], [{"boxes": [BOX]}]),
        ({"min_kinds": 2}, [{"boxes": [BOX, SIGN]}], [{"boxes": [BOX, BOX]}]),
        ({"session": True}, [{"session": True}], [{"session": False}]),
        ({"session": False}, [{"session": False}], [{"session": True}]),
        ({"min_budget": 0.5}, [{"left": 0.5}, {}], [{"left": 0.4}]),
        ({"max_budget": 0.5}, [{"left": 0.4}], [{"left": 0.5}, {}]),
    ],
)
def test_a_route_may_ask_for_all_that_is_known(
    asked: dict[str, Any], held: list[dict[str, Any]], not_held: list[dict[str, Any]]
) -> None:
    router = Router(cascade(tier("one", routes=[Route(to="exit", **asked)]), tier("two")), "one")

    assert router.needs_more or "min_disagreement" in asked
    assert router.needs_boxes == any("boxes" in one or "kinds" in one for one in asked)
    assert router.needs_losing == any("losing" in one for one in asked)
    for facts in held:
        assert router.decide(Facts(0.5, **facts)).next_tier is None
    for facts in not_held:
        assert router.decide(Facts(0.5, **facts)).next_tier == "two"


def test_at_most_a_share_of_what_comes_by_takes_a_route() -> None:
    routes = [Route(to="two", min_confidence=0.5, max_share=0.1), Route(to="exit")]
    router = Router(cascade(tier("one", routes=routes), tier("two")), "one")

    taken = [router.decide(Facts(0.9)).next_tier == "two" for _ in range(1000)]
    assert [sum(taken[:n]) for n in (9, 10, 19, 20, 1000)] == [0, 1, 1, 2, 100]
    # Images for which the route does not hold count as seen.
    assert not any(router.decide(Facts(0.1)).next_tier for _ in range(100))
    assert [router.decide(Facts(0.9)).next_tier for _ in range(10)] == ["two"] * 10


def test_a_tier_off_the_path_is_nobodys_next_and_is_not_explored() -> None:
    off = msgspec.structs.replace(tier("two"), off_path=True)
    chain = msgspec.structs.replace(
        cascade(tier("one", routes=[Route(to="two", max_confidence=0.1)]), off, tier("three")),
        exploration=Exploration(share=0.5),
    )
    router = Router(chain, "one")

    assert router.decide(Facts(0.5)).next_tier == "three"
    assert router.decide(Facts(0.0)).next_tier == "two"
    assert router.explore().next_tier == "three"
    assert Router(chain, "three").explore() == Decision(None, "explored: last tier")


def test_what_is_left_out_leads_past_tiers_off_the_path_and_to_none_that_is() -> None:
    off = msgspec.structs.replace(tier("off"), off_path=True)
    routes = [Route(to="off", max_confidence=0.1)]
    whole = cascade(tier("one", routes=routes), tier("two"), off, tier("three"))

    def went(confidence: float, *without: str) -> Decision:
        return Router(leave_out(whole, without), "one").decide(Facts(confidence))

    assert (went(0.5, "two").next_tier, went(0.5, "two").down) == ("three", ["two"])
    assert (went(0.5, "two", "three").next_tier, went(0.0, "two").next_tier) == (None, "off")
    assert went(0.5, "off") == Decision("two", "no route held: next tier")
    assert (went(0.0, "off").next_tier, went(0.0, "off").down) == ("three", ["off"])
    last = msgspec.structs.replace(whole, tiers=whole.tiers[:3])
    assert Router(leave_out(last, ["off"]), "two").decide(Facts(0.5)) == Decision(None, "last tier")


def test_the_explored_are_a_share_of_the_archive_and_the_same_in_every_tier() -> None:
    chain = msgspec.structs.replace(cascade(), exploration=Exploration(share=0.01))
    heads = [head(f"image-{i}") for i in range(20_000)]

    chosen = [{h.image_id for h in heads if Router(chain, name).explored(h)} for name in NAMES]

    assert chosen[0] == chosen[1] == chosen[2]
    assert 140 < len(chosen[0]) < 260
    live = [msgspec.structs.replace(h, lane="live") for h in heads]
    assert not any(Router(chain, "one").explored(h) for h in live)
    assert not any(Router(cascade(), "one").explored(h) for h in heads)


def test_a_tier_that_cannot_be_in_time_is_passed_by() -> None:
    routes = [Route(to="three", max_confidence=0.5), Route(to="exit", min_confidence=0.9)]
    router = Router(cascade(tier("one", routes=routes), tier("two"), tier("three")), "one")
    needed = {"two": 0.2, "three": 2.0}

    def went(confidence: float, left: float) -> str | None:
        return router.decide(Facts(confidence, left=left), needed=needed).next_tier

    assert [went(0.1, 3.0), went(0.1, 1.0), went(0.6, 1.0)] == ["three", "two", "two"]
    assert router.decide(Facts(0.1, left=0.1), needed=needed) == Decision(
        None, "no time: three takes 2 s, two takes 0.2 s, 0.1 s left", None, ["three", "two"]
    )
    assert router.decide(Facts(0.95, left=0.1), needed=needed).skipped is None
    assert went(0.1, math.inf) == "three"


def test_an_image_that_is_late_goes_on_to_a_tier_of_which_nobody_knows_what_it_takes() -> None:
    router = Router(cascade(), "one")

    for needed in ({}, {"three": 1.0}):
        assert router.decide(Facts(0.5, left=-1.0), needed=needed).next_tier == "two"
