"""What is wrong or doubtful with rules, ensembles and routes of a cascade file."""

import pytest

from roadstream.schemas.cascade.doubts import doubts
from roadstream.schemas.cascade.loading import parse_cascade
from roadstream.schemas.errors import ConfigError
from tests.kits.builders import by_settings

FILE = """
name = "c"
{top}
[[tiers]]
name = "a"
{first}
[[tiers.members]]
name = "x"
engine = "noop"
kind = "{kind}"
[[tiers.members]]
name = "y"
engine = "noop"
kind = "zero-shot"
{member}
[[tiers]]
name = "b"
{second}
[[tiers.members]]
name = "z"
{sight}
kind = "power-vlm"
"""


def text(**parts: str) -> bytes:
    rules = parts.pop("rules", "")
    named = {"top": "", "first": "", "kind": "detection", "member": "", "second": ""}
    named |= {"sight": 'engine = "noop"'} | parts
    return (FILE.format(**named) + rules).encode()


def test_a_kind_gives_the_weight_where_the_file_gives_none() -> None:
    cascade = parse_cascade(text(member="weight = 0.25"), "c.toml")

    weights = [one.weight for tier in cascade.tiers for one in tier.members]
    assert weights == [1.0, 0.25, 1.5]


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (
            {"rules": '[[rules]]\nrule = "conflict"\ntier = "a"'},
            "c.toml: rules[0].tier: expected a tier behind the first (b), got a",
        ),
        (
            {"rules": '[[rules]]\nrule = "size"\ndepth = "w"'},
            "c.toml: rules[0].depth: expected a member of weight above 0 (x, y, z), got w",
        ),
        (
            {"member": "weight = 0", "rules": '[[rules]]\nrule = "size"\ndepth = "y"'},
            "c.toml: rules[0].depth: expected a member of weight above 0 (x, z), got y",
        ),
        (
            {"rules": '[[rules]]\nrule = "size"\ndepth = "x"\nfocal = 0'},
            "c.toml: rules[0].focal: expected `float` > 0.0, got 0",
        ),
        (
            {"rules": '[[rules]]\nrule = "size"\ndepth = "x"\nmetres = { cone = [0.4, 0.25] }'},
            ("c.toml: rules[0].metres.cone: expected the least first, then the greatest, "
            "got [0.4, 0.25]"),
        ),
        (
            {"rules": '[[rules]]\nrule = "difficulty"\nbounds = [0.1, 0.3, 0.2, 0.5]'},
            "c.toml: rules[0].bounds: expected four numbers that rise, got [0.1, 0.3, 0.2, 0.5]",
        ),
        (
            {"rules": '[[rules]]\nrule = "difficulty"\nweights = { edgs = 2 }'},
            ("c.toml: rules[0].weights: expected a feature (variance, objects, weather, exposure, "
            "edges, past), got edgs"),
        ),
        (
            {"rules": '[[rules]]\nrule = "difficulty"\nweights = { variance = 0, objects = 0, '
             'weather = 0, exposure = 0, edges = 0, past = 0 }'},
            "c.toml: rules[0].weights: expected a feature of weight above 0, got only 0",
        ),
        (
            {"rules": '[[rules]]\nrule = "adapt"\nweights = { w = 2 }'},
            ("c.toml: rules[0].weights: expected a kind (detection, segmentation, zero-shot, "
            "fast-vlm, power-vlm, precision-vlm) or a member (x, y, z), got w"),
        ),
        (
            {"rules": '[[rules]]\nrule = "conflict"\ntier = "b"\n' * 2},
            ("c.toml: rules[1]: expected nothing that contradicts rules[0], "
            "got another conflict rule of the tier b"),
        ),
        (
            {"rules": '[[rules]]\nrule = "adapt"\ntags_any = ["w"]\nshift = 1\n'
             '[[rules]]\nrule = "adapt"\ntags_any = ["w"]\nshift = -1'},
            ("c.toml: rules[1]: expected nothing that contradicts rules[0], "
            "got a shift of -1 under the same conditions"),
        ),
        (
            {"first": "off_path = true"},
            ("c.toml: tiers[0].off_path: expected false for the first tier, where all begin, "
            "got true"),
        ),
        (
            {"first": 'ensemble = { members = ["z"] }'},
            ("c.toml: tiers[0].ensemble.members[0]: expected a member of this tier of weight "
            "above 0 (x, y), got z"),
        ),
        (
            {"second": "ensemble = {}"},
            ("c.toml: tiers[1].ensemble.members: expected names, as no member of the tier is of "
            "kind detection, got nothing"),
        ),
        (
            {"top": "exploration = { share = 0.9 }"},
            "c.toml: exploration.share: expected `float` <= 0.5, got 0.9",
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(parts: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_cascade(text(**parts), "c.toml")

    assert str(raised.value) == said


def test_rules_that_are_off_contradict_nobody() -> None:
    rule = '[[rules]]\nrule = "conflict"\ntier = "b"\n'
    parse_cascade(text(rules=rule + rule + "enabled = false"), "c.toml")


def route(conditions: str) -> str:
    return f'routes = [{{ to = "exit", {conditions} }}]'


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (
            {"first": route("min_probability = 0.6, max_probability = 0.6")},
            "tiers[0].routes[0]: it never holds: no probability is at least 0.6 and below 0.6",
        ),
        (
            {"kind": "zero-shot", "sight": 'engine = "torch"\nmodel = "a/b"',
             "rules": '[[rules]]\nrule = "size"\ndepth = "z"'},
            "rules[0]: no vote changes by it: nobody so far is of kind detection",
        ),
        (
            {"first": route("min_boxes = 3, max_boxes = 2")},
            "tiers[0].routes[0]: it never holds: no number of boxes is at least 3 and at most 2",
        ),
        (
            {"first": route("min_disagreement = 1, max_disagreement = 1")},
            "tiers[0].routes[0]: it never holds: no disagreement is above 1 and at most 1",
        ),
        (
            {"first": route("min_kinds = 5, max_boxes = 4")},
            "tiers[0].routes[0]: it never holds: at most 4 boxes are of less than 5 kinds",
        ),
        (
            {"first": route("max_confidence = 0")},
            "tiers[0].routes[0]: it never holds: no confidence or probability is below 0",
        ),
        (
            {"rules": '[[rules]]\nrule = "size"\ndepth = "z"'},
            "rules[0]: z, of the engine noop, measures no depth",
        ),
        (
            {"first": route('min_boxes = 1, gives = ["ask=all", "ask=one", "other=1"]')},
            "tiers[0].routes[0]: of the tag ask only the last value counts",
        ),
        ({"first": route("max_share = 0")}, "tiers[0].routes[0]: it never holds: its share is 0"),
        (
            {"first": route('tags_all = ["difficulty=1", "difficulty=2"]'),
             "rules": '[[rules]]\nrule = "difficulty"'},
            "tiers[0].routes[0]: it never holds: no tag difficulty is both 1 and 2",
        ),
        (
            {"first": route('tags_all = ["difficulty=1"], tags_none = ["difficulty"]'),
             "rules": '[[rules]]\nrule = "difficulty"'},
            "tiers[0].routes[0]: it never holds: it wants the tag difficulty=1, and wants it not",
        ),
        (
            {"first": route('tags_all = ["weather=rain"], tags_any = ["weather=rain", "weather"]'),
             "rules": '[[rules]]\nrule = "adapt"\ntags_all = ["light"]\nenabled = false'},
            "tiers[0].routes[0]: nobody gives the tag weather",
        ),
        (
            {"first": route('tags_all = ["weather=rain"]')},
            "tiers[0].routes[0]: nobody gives the tag weather",
        ),
        (
            {"first": route('tags_any = ["conflict=b-no", "conflict=b"]'),
             "rules": '[[rules]]\nrule = "conflict"\ntier = "b"'},
            "tiers[0].routes[0]: the tag conflict is never b: b-no, b-yes",
        ),
        (
            {"first": "routes = [{ to = 'exit', max_boxes = 3 }, "
             "{ to = 'b', max_boxes = 2, session = true }]"},
            "tiers[0].routes[1]: nothing reaches it: whenever it holds, routes[0] before it does",
        ),
        ({"second": "off_path = true"}, "tiers[1]: nothing leads to b"),
        (
            {"rules": '[[rules]]\nrule = "adapt"\ntags_none = ["conflict"]\nshift = 1\n'
             "weights = { power-vlm = 0 }\n"
             '[[rules]]\nrule = "conflict"\ntier = "b"'},
            "rules[0]: while it holds, no vote of tiers[1] counts",
        ),
        ({"rules": '[[rules]]\nrule = "adapt"'}, "rules[0]: it changes nothing"),
    ],
)  # fmt: skip
def test_what_is_of_no_use_is_doubted(parts: dict[str, str], said: str) -> None:
    assert list(doubts(parse_cascade(text(**parts), "c.toml"), by_settings)) == [said]


def test_a_route_for_a_share_keeps_nobody_from_the_next() -> None:
    both = "routes = [{ to = 'b', max_share = 0.1 }, { to = 'exit' }]"
    assert list(doubts(parse_cascade(text(first=both), "c.toml"), by_settings)) == []


def test_a_tier_that_only_explored_images_come_to_is_reached() -> None:
    leaving = {"first": "routes = [{ to = 'exit' }]"}
    for top, said in (("", ["tiers[1]: nothing leads to b"]), ("exploration.share = 0.01", [])):
        assert list(doubts(parse_cascade(text(top=top, **leaving), "c"), by_settings)) == said
