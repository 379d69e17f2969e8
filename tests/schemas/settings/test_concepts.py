"""Lists of concepts: those that ship, one's own, and what is wrong with a file."""

import re
from pathlib import Path

import pytest

from roadstream.schemas.cascade.loading import examine, load_cascade
from roadstream.schemas.errors import ConfigError
from roadstream.schemas.settings.concepts import load_concepts, texts_of
from roadstream.schemas.settings.named_files import shipped_names

CASCADE = """
name = "seen"
[[tiers]]
name = "look"
[[tiers.members]]
name = "siglip"
engine = "torch"
model = "google/siglip2-base-patch16-224"
settings = {{ concepts = "{concepts}", tags = {tags} }}
"""


def test_the_lists_that_ship_say_what_their_readers_need() -> None:
    scenes, things, weather = (
        load_concepts(name, "/nowhere", "here")
        for name in ("roadwork-concepts", "roadwork-objects", "weather")
    )

    assert shipped_names("concepts") == [scenes.name, things.name, weather.name]
    assert len(texts_of(scenes.roadwork)) >= 50
    assert len(texts_of(scenes.other)) >= 20
    # Grounding DINO reads 256 tokens, marks included; a word is seldom more than two.
    words = " ".join([*texts_of(things.roadwork), *texts_of(things.other)]).split()
    assert 2 * len(words) + 31 < 256
    assert {tag: list(values) for tag, values in weather.tags.items()} == {
        "weather": ["dry", "rain", "fog", "snow"],
        "light": ["day", "dusk", "night"],
    }
    assert scenes.tag == "roadwork-concepts@1"


@pytest.mark.parametrize("name", shipped_names("concepts"))
def test_texts_that_ship_are_short_enough_for_every_model(name: str) -> None:
    concepts = load_concepts(name, "/nowhere", "here")
    groups = [concepts.roadwork, concepts.other, *concepts.tags.values()]

    texts = [text for group in groups for text in texts_of(group)]

    # OWLv2 reads 16 tokens, two of them its own.
    assert [text for text in texts if len(text.split()) > 12] == []
    assert [text for text in texts if "." in text or "?" in text] == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ": expected texts in roadwork, other or tags, got none"),
        ("[other]\na = ['x']", ": other: expected texts in roadwork too, got none"),
        ("[roadwork]\na = []", ": roadwork.a: expected `array` of length >= 1"),
        ("[roadwork]\na = ['']", ": roadwork.a[0]: expected `str` of length >= 1"),
        ("[roadwork]\n'a b' = ['x']", ": roadwork.'a b': expected `str` matching regex"),
        ("[roadwork]\na = ['x', 'y']\n[other]\nb = ['X ']",
         ": roadwork, other: expected each text once, got 'x' 2 times"),
        ("[tags.light]\nday = ['x']",
         ": tags.light: expected several values, of which the likeliest is told, got day"),
        ("[tags.light]\nday = ['x']\nnight = ['x']",
         ": tags.light: expected each text once, got 'x' 2 times"),
        ("[roadwork]\na = ['  ']", ": roadwork.a[0]: expected `str` matching regex"),
        (f"[roadwork]\na = {[f't{i}' for i in range(1001)]}",
         ": expected at most 1000 texts, got 1001"),
        ("[tags.light]\n'day ' = ['x']\nnight = ['y']",
         ": tags.light.'day ': expected `str` matching regex"),
        ('[tags.light]\n"day\\n" = ["x"]\nnight = ["y"]',
         ": tags.light.'day\\n': expected `str` matching regex"),
        ("[tags]\nlight = 'x'", ": tags.light: expected `object`"),
        ("[tags.'a b']\nday = ['x']\nnight = ['y']", ": tags.'a b': expected `str` matching"),
        ("[road]\na = ['x']", ": top level: expected a known key (see `roadstream schema"),
        ("a =", ": expected a TOML file"),
    ],
)  # fmt: skip
def test_what_is_no_list_is_said(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "own.toml").write_text(f'version = "1"\n{text}')

    with pytest.raises(ConfigError, match=re.escape(f"own.toml{said}")):
        load_concepts("own.toml", tmp_path, "here")


def test_all_mistakes_of_a_list_and_of_a_members_tags_are_told_with_the_cascade(
    tmp_path: Path,
) -> None:
    (tmp_path / "own.toml").write_text("version = ''\n[roadwork]\na = ['', 'x']\nb = 5\n")
    file = tmp_path / "cascade.toml"
    file.write_text(CASCADE.format(concepts="own.toml", tags="{ light = { day = ['x'] } }"))
    of_list = [str(one).partition(": expected")[0] for one in examine(str(file)).mistakes]

    file.write_text(CASCADE.format(concepts="none", tags="{ 'a b' = { x = [5] }, light = {} }"))
    of_member = [str(one).partition(": expected")[0] for one in examine(str(file)).mistakes]

    at = f"{file}: tiers[0].members[0].settings"
    assert of_list == [
        f"{tmp_path}/own.toml: {key}" for key in ("roadwork.a[0]", "roadwork.b", "version")
    ]
    assert of_member == [f"{at}.tags.'a b'", f"{at}.tags.'a b'.x[0]", f"{at}.tags.light"]


def test_a_list_that_is_not_there_is_told_with_those_that_ship(tmp_path: Path) -> None:
    file = tmp_path / "cascade.toml"
    file.write_text(CASCADE.format(concepts="wether", tags="{}"))

    (found,) = examine(str(file)).mistakes

    assert str(found).endswith(
        "settings: expected a file, or one of roadwork-concepts, roadwork-objects, weather, "
        f"got {tmp_path}/wether, which does not exist"
    )


def test_another_list_makes_another_cascade_and_is_read_once(tmp_path: Path) -> None:
    own, file = tmp_path / "own.toml", tmp_path / "cascade.toml"
    file.write_text(CASCADE.format(concepts="own.toml", tags="{}"))
    hashes = []
    for text in ("a cone", "a drum"):
        own.write_text(f"version = '1'\n[roadwork]\na = ['{text}']\n")
        cascade = load_cascade(str(file))
        hashes.append(cascade.hash)
    own.unlink()

    found = load_concepts("own.toml", tmp_path, "here", cascade.snapshot.files)

    assert len(set(hashes)) == 2
    assert texts_of(found.roadwork) == ["a drum"]
