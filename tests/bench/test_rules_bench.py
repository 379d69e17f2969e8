"""The benchmark of decisions sends images along the ways that it says."""

import pytest

from roadstream.bench import rules


def test_harder_images_pass_more_tiers_in_about_the_planned_shares() -> None:
    ways = rules.Stand(rules.ruled()).ways(2000)

    assert ways.exits["detection"] / 2000 == pytest.approx(0.65, abs=0.05)
    assert set(ways.exits) == {"detection", "fast", "careful", "power", "precision"}
    tags = {tag for passed in ways.passed for one in passed for tag in one.votes.given or ()}
    assert tags == {"difficulty", "conflict"}


def test_without_rules_nothing_is_given_and_the_same_images_come_in() -> None:
    ways = rules.Stand(rules.plain(rules.ruled())).ways(200)

    assert not any(one.votes.given for passed in ways.passed for one in passed)
    assert len(ways.passed) == 200


def test_every_part_is_measured() -> None:
    found = rules.measure(images=20, rounds=2)

    assert set(found) == {"on", "off"}
    assert found["on"].bytecodes > found["off"].bytecodes > 100
    assert found["on"].total.median > 0
