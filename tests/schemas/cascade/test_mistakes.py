"""All that is wrong with a cascade file is told at once, and nothing that is wrong only with it."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roadstream.schemas.cascade.doubts import doubts
from roadstream.schemas.cascade.loading import examine, parse_cascade
from roadstream.schemas.cascade.model import CascadeFile
from roadstream.schemas.cascade.structure import Reader
from roadstream.schemas.errors import ConfigError
from roadstream.schemas.settings.prompts import Prompt
from roadstream.schemas.settings.torch import TorchSettings
from tests.kits.builders import by_settings
from tests.kits.examples import examples
from tests.kits.structs import near


def mistakes(folder: Path, text: str) -> list[str]:
    """Return what is wrong with a file, without the name of the file."""
    path = folder / "c.toml"
    path.write_text(text)
    found = examine(str(path))
    assert (found.cascade is None) == bool(found.mistakes)
    said = [str(one) for one in found.mistakes]
    assert all(one.startswith(f"{path}: ") for one in said)
    return [one.removeprefix(f"{path}: ").partition(": expected ")[0] for one in said]


SEVEN = """
name = "seven"
threshold = 1.5                                   # 1: out of bounds

[pool]
method = "lin"                                    # 2: no such method

[[tiers]]
name = "fast"
members = [
    { name = "a", engine = "onxx", settings = { boxes = 3 } },       # 3: no such engine
    { name = "b", engine = "noop", widht = 3 },                      # 4: no such key
]
routes = [
    { to = "slow", min_confidence = "high" },                        # 5: wrong type
    { to = "fast" },                                                 # 6: leads back
]

[[tiers]]
name = "slow"
members = [{ name = "a", engine = "noop" }]                          # 7: a name twice
"""


def test_seven_mistakes_of_many_kinds_are_seven_lines(tmp_path: Path) -> None:
    assert mistakes(tmp_path, SEVEN) == [
        "pool.method",
        "threshold",
        "tiers[0].members[0].engine",
        "tiers[0].members[1]",
        "tiers[0].routes[0].min_confidence",
        "tiers[0].routes[1].to",
        "tiers[1].members[0].name",
    ]


MEMBER = '{ name = "m", engine = "noop" }'
ONE = f'name = "one"\n[[tiers]]\nname = "t"\nmembers = [{MEMBER}]\n'
TWO = (
    'name = "two"\n[[tiers]]\nname = "a"\nmembers = [{ name = "m", engine = "noop" }]\n'
    'routes = [ROUTES]\n[[tiers]]\nNAME\nmembers = [{ name = "n", engine = "noop" }]\n'
)
AT = "tiers[0].members[0]"
ASKED = 'engine = "openai", model = "m", settings = { base_url = "http://x"'
# What stands in the place of what, in ONE; and the keys that are told.
FOLLOWED = {
    "nothing at all": (ONE, "", ["name", "tiers"]),
    "a misspelled key that is needed": ('name = "one"', 'nmae = "one"', ["top level"]),
    "tiers that are misspelled": ("[[tiers]]", "[[tier]]", ["top level"]),
    "a misspelled model": ('"noop"', '"onnx", modle = "x.onnx"', [AT]),
    "no engine": (', engine = "noop"', ', model = "x", settings = { a = 1 }', [f"{AT}.engine"]),
    "settings of no engine": ('"noop"', '"x", settings = { a = 1 }', [f"{AT}.engine"]),
    "a wrong model": ('"noop"', '"onnx", model = 5', [f"{AT}.model"]),
    "a wrong weight": ('"noop"', '"noop", weight = "0"', [f"{AT}.weight"]),
    "members that are none": (f"[{MEMBER}]", '"m"', ["tiers[0].members"]),
    "no members": (f"[{MEMBER}]", "[]", ["tiers[0].members"]),
    "members among others that are none": (
        MEMBER, f'{MEMBER}, "x", 5', [f"tiers[0].members[{i}]" for i in (1, 2)],
    ),
    "one table for tiers": ("[[tiers]]", "[tiers]", ["tiers"]),
    "every setting": (
        '"noop"',
        '"torch", model = "o/n", settings = { evidence = ["boxs", "tags"], layers = [0, 1, 0] }',
        [f"{AT}.settings.{one}" for one in ("evidence[0]", "layers[0]", "layers[2]")],
    ),
    "a needed setting": ('"noop"', '"openai", model = "m"', [f"{AT}.settings.base_url"]),
    "model and setting": ('"noop"', '"openai"', [f"{AT}.model", f"{AT}.settings.base_url"]),
    "a prompt that is not there": (
        'engine = "noop"', f'{ASKED}, prompt = "x" }}', [f"{AT}.settings"],
    ),
    "a wrong calibration": (
        '"noop"',
        '"noop", calibration = { method = "isotonic", raw = [1, 1], probability = [0, 2] }',
        [f"{AT}.calibration.probability[1]"],
    ),
    "a calibration without method": (
        '"noop"', '"noop", calibration = { slope = 1 }', [f"{AT}.calibration.method"],
    ),
    "keys of a calibration": (
        '"noop"', '"noop", calibration = { method = "platt", slop = 1, x = 1 }',
        [f"{AT}.calibration"] * 2,
    ),
    "fusion": (
        'name = "t"',
        'name = "t"\nfusion = { iou = 2, members = ["m", "x"], labels = { "a b" = 1 } }',
        ["tiers[0].fusion.iou", "tiers[0].fusion.labels.'a b'", "tiers[0].fusion.members[1]"],
    ),
    "fusion of members that are none": (
        f"members = [{MEMBER}]", 'members = 5\nfusion = { members = ["m"] }', ["tiers[0].members"],
    ),
    "fusion of shadow members": (
        '"noop" }]', '"noop", weight = 0 }]\nfusion = { members = ["m"] }', ["tiers[0].members"],
    ),
    "giving up the first tier": (
        'name = "t"', 'name = "t"\ngive_up_after = 5', ["tiers[0].give_up_after"],
    ),
    "pool and quorum": (
        "[[tiers]]", "pool = { prior = 1, quorum = -1 }\n[[tiers]]", ["pool.prior", "pool.quorum"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FOLLOWED)
def test_a_mistake_is_told_once_and_what_follows_from_it_is_not(case: str, tmp_path: Path) -> None:
    old, new, keys = FOLLOWED[case]
    assert old in ONE

    assert mistakes(tmp_path, ONE.replace(old, new, 1)) == keys


@pytest.mark.parametrize(
    ("name", "to", "keys"),
    [
        ('name = "b c"', "b c", ["tiers[1].name"]),
        ('name = "look!"', "look", ["tiers[1].name"]),
        ("", "anything", ["tiers[1].name"]),
        ("name = 5", "anything", ["tiers[1].name"]),
        ('name = "b c"', "nowhere", ["tiers[0].routes[0].to", "tiers[1].name"]),
        ('name = "b"', "a", ["tiers[0].routes[0].to"]),
        ('name = "b"', "b c", ["tiers[0].routes[0].to"]),
        ('name = "b"', "b", []),
    ],
)  # fmt: skip
def test_a_route_is_not_wrong_because_the_name_of_its_tier_is(
    name: str, to: str, keys: list[str], tmp_path: Path
) -> None:
    text = TWO.replace("NAME", name).replace("ROUTES", f'{{ to = "{to}" }}')
    assert mistakes(tmp_path, text) == keys


def test_a_route_is_not_wrong_because_its_tier_is_no_table(tmp_path: Path) -> None:
    text = 'name = "n"\ntiers = [{ name = "a", routes = [{ to = "b" }], members = [M] }, "b"]\n'
    assert mistakes(tmp_path, text.replace("M", MEMBER)) == ["tiers[1]"]


def test_a_condition_on_tiers_names_later_ones(tmp_path: Path) -> None:
    routes = '{ to = "b", tiers_down = ["b", "a", "exit", "x"], tags_any = ["a=b", "="] }'
    text = TWO.replace("NAME", 'name = "b"').replace("ROUTES", routes)

    down = [f"tiers[0].routes[0].tiers_down[{place}]" for place in (1, 2, 3)]
    assert mistakes(tmp_path, text) == ["tiers[0].routes[0].tags_any[1]", *down]


def test_what_is_without_end_is_told_in_a_line_that_has_one(tmp_path: Path) -> None:
    long = "x" * 1_000_000
    text = TWO.replace("NAME", f'name = "{long}!"').replace("ROUTES", f'{{ to = "y{long}" }}')
    (tmp_path / "c.toml").write_text(f'"{long}" = 1\n{text}')

    found = examine(str(tmp_path / "c.toml")).mistakes
    assert len(found) == 3
    assert all(len(str(one)) < 1000 for one in found)


def test_each_name_that_comes_again_is_told(tmp_path: Path) -> None:
    tier = '[[tiers]]\nname = "t"\nmembers = [{ name = "m", engine = "noop" }]\n'
    found = mistakes(tmp_path, 'name = "n"\n' + 3 * tier)

    assert found == [f"tiers[{i}].{key}" for i in (1, 2) for key in ("members[0].name", "name")]


def test_what_a_prompt_of_ones_own_says_wrong_is_told_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text('version = "1"\ntext = ""')
    (tmp_path / "c.toml").write_text(
        ONE.replace('engine = "noop"', f'{ASKED}, prompt = "p.toml" }}')
    )

    (found,) = examine(str(tmp_path / "c.toml")).mistakes
    assert str(found) == f"{tmp_path}/p.toml: text: expected `str` of length >= 1, got ''"


def test_loading_raises_the_first_of_all_mistakes() -> None:
    with pytest.raises(ConfigError, match=r"^f\.toml: pool\.method: expected .*, got 'lin'$"):
        parse_cascade(SEVEN.encode(), "f.toml")


@pytest.mark.parametrize(
    "line",
    ["x = " + "[" * 10_000, "x = " + "9" * 5000, "x = 2020-13-45"],
    ids=["nested", "digits", "date"],
)
def test_a_line_that_is_no_toml_is_one_mistake(line: str, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(f"{line}\n{ONE}")
    with pytest.raises(ConfigError, match=r"c\.toml: expected a TOML file, got "):
        examine(str(tmp_path / "c.toml"))


def test_tables_in_tables_without_end_are_an_unknown_key(tmp_path: Path) -> None:
    assert mistakes(tmp_path, f"{ONE}[{'a.' * 50_000}a]") == ["top level"]


def test_a_file_without_end_and_a_device_are_refused(tmp_path: Path) -> None:
    with (tmp_path / "c.toml").open("wb") as file:
        file.truncate(100 << 20)
    with pytest.raises(ConfigError, match="expected a cascade file of at most 4 MiB"):
        examine(str(tmp_path / "c.toml"))
    device = ONE.replace('"noop"', '"onnx", model = "/dev/zero"')
    assert mistakes(tmp_path, device) == [f"{AT}.model"]


WELL: list[tuple[Any, Any]] = [
    (
        CascadeFile,
        {
            "name": "well",
            "threshold": 0.6,
            "pool": {"method": "log", "prior": 0.3, "quorum": 1},
            "tiers": [
                {
                    "name": "a",
                    "members": [
                        {
                            "name": "m",
                            "engine": "noop",
                            "weight": 1,
                            "sizes": [[3, 4], [5, 6]],
                            "calibration": {"method": "platt", "slope": 1},
                        },
                        {
                            "name": "n",
                            "engine": "noop",
                            "gated": True,
                            "calibration": {
                                "method": "isotonic",
                                "raw": [0, 1.5],
                                "probability": [0, 1],
                            },
                        },
                    ],
                    "fusion": {"iou": 0.5, "members": ["m"], "labels": {"a b": "c"}},
                    "routes": [{"to": "exit", "tags_any": ["a=b", "c"], "min_confidence": 1}],
                }
            ],
        },
    ),
    (
        TorchSettings,
        {
            "evidence": ["boxes"],
            "buckets": [1, 2],
            "signs_for": ["a", "b"],
            "activation": "softmax",
            "template": {"a": [{"b": 1}]},
            "channels_last": True,
            "head": "h",
            "sign_odds": 3,
        },
    ),
    (Prompt, {"version": "1", "text": "t", "yes": ["a", "b"]}),
]


@pytest.mark.parametrize("place", range(len(WELL)))
def test_what_is_well_is_read_as_msgspec_reads_it(place: int) -> None:
    kind, value = WELL[place]
    reader = Reader("f", "s")

    assert reader.read(value, kind) == msgspec.convert(value, kind)
    assert reader.mistakes == []


@settings(deadline=None, max_examples=examples(200))
@given(st.sampled_from(WELL), st.data())
def test_what_msgspec_refuses_has_a_mistake_and_nothing_else_has(
    well: tuple[Any, Any], data: st.DataObject
) -> None:
    kind, value = well
    changed = near(value, data)
    reader = Reader("f", "s")
    found = reader.read(changed, kind)
    try:
        expected = msgspec.convert(changed, kind)
    except msgspec.ValidationError:
        assert reader.mistakes
    else:
        assert (found, reader.mistakes) == (expected, [])


def test_routes_and_tiers_of_no_use_are_doubted() -> None:
    tier = '[[tiers]]\nname = "{}"\nmembers = [{{ name = "{}m", engine = "noop" }}]\n'
    routes = (
        'routes = [{ to = "exit", min_confidence = 0.5, max_confidence = 0.5 },\n'
        '{ to = "c", min_confidence = 0.5 }, { to = "exit", min_confidence = 0.9 }, { to = "c" },\n'
        '{ to = "b" }]\n'
    )
    text = 'name = "n"\n' + tier.format("a", "a") + routes + tier.format("b", "b")
    found = list(doubts(parse_cascade((text + tier.format("c", "c")).encode(), "f"), by_settings))

    assert found == [
        "tiers[0].routes[0]: it never holds: no confidence is at least 0.5 and below 0.5",
        "tiers[0].routes[2]: nothing reaches it: whenever it holds, routes[1] before it does",
        "tiers[0].routes[4]: nothing reaches it: whenever it holds, routes[3] before it does",
        "tiers[1]: nothing leads to b",
    ]


def test_the_shipped_cascade_leaves_no_doubt() -> None:
    lite = examine("lite").cascade
    assert lite is not None
    assert list(doubts(lite, by_settings)) == []
