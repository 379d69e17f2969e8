"""What rules by tags change: only pictures with the tag, by the product's own pool and routes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from roadstream.schemas.cascade.loading import parse_cascade
from roadstream.schemas.cascade.model import Cascade
from roadstream.stages.voting.vote import sigmoid
from tests.training.synthetic import TEMPLATE, pictures
from training.rules import Rule, Tried, answers, read_rules, rules_table, tried

FIXED = {"voters": 1, "quick_weight": 1, "slow_weight": 1, "first_confidence": 0.9}
JUDGED = [
    replace(one, votes={"quick": one.votes["quick"], "slow": one.votes["slow"] / 3})
    for one in pictures(60)
]
TAGS = {one.file: {"light": "night" if row < 20 else "day"} for row, one in enumerate(JUDGED)}
NIGHT = Rule("light", "night", shift=-2.0)


@pytest.fixture
def cascade() -> Cascade:
    text = TEMPLATE
    for name in ("quick", "slow"):
        text = text.replace(f"${{{name}_slope}}", "1").replace(f"${{{name}_intercept}}", "0")
    for name, value in FIXED.items():
        text = text.replace(f"${{{name}}}", str(value))
    return parse_cascade(text.encode(), "small.toml")


def test_a_rule_changes_pictures_with_its_tag_alone(cascade: Cascade) -> None:
    off, on = (answers(cascade, JUDGED, TAGS, rule) for rule in (None, NIGHT))

    assert np.array_equal(off[20:], on[20:])
    assert (on[:20] != off[:20]).all()  # who stays for another tier can also rise


def test_shift_and_weights_act_before_the_routes_decide(cascade: Cascade) -> None:
    one = replace(JUDGED[0], votes={"quick": 3.2, "slow": 1.0})  # 3.2 is a confidence of 0.92
    tags = {one.file: {"light": "night"}}

    def said(rule: Rule | None) -> float:
        return float(answers(cascade, [one], tags, rule)[0])

    assert said(None) == pytest.approx(sigmoid(3.2))
    assert said(Rule("light", "night", shift=-1.0)) == pytest.approx(sigmoid(2.1 - 1.0))
    heavy = Rule("light", "night", -1.0, {"quick": 3.0})
    assert said(heavy) == pytest.approx(sigmoid((3 * 3.2 + 1.0) / 4 - 1.0))
    assert said(Rule("light", "dusk", shift=-1.0)) == said(None)


def test_what_a_rule_does_is_told_of_its_pictures_and_of_all(cascade: Cascade) -> None:
    found = tried(cascade, JUDGED, TAGS, NIGHT)

    assert found.tagged is not None
    assert (found.tagged.pictures, found.everywhere.pictures) == (20, 60)
    assert found.tagged.flipped == found.everywhere.flipped
    low, high = found.tagged.brier_change
    assert low <= found.tagged.brier[1] - found.tagged.brier[0] <= high
    assert "| `light=night`: log-odds −2 | with the tag | 20 |" in rules_table([found])


def test_a_rule_whose_tag_no_picture_has_does_nothing(cascade: Cascade, tmp_path: Path) -> None:
    found: Tried = tried(cascade, JUDGED, TAGS, Rule("weather", "rain", 0.0, {"quick": 1.15}))

    assert found.tagged is None
    assert found.everywhere.brier[0] == found.everywhere.brier[1]
    assert "| with the tag | 0 |" in rules_table([found])
    assert read_rules(tmp_path / "none.json") == []
