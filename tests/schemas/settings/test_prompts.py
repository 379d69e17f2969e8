"""Prompts: those that ship, one's own, and what is wrong with a file."""

import re
from pathlib import Path

import pytest

from roadstream.schemas.cascade.loading import load_cascade
from roadstream.schemas.errors import ConfigError
from roadstream.schemas.settings.named_files import shipped_names
from roadstream.schemas.settings.prompts import load_prompt

CASCADE = """
name = "asked"
[[tiers]]
name = "look"
[[tiers.members]]
name = "remote"
engine = "openai"
model = "m"
settings = {{ base_url = "http://127.0.0.1:1/v1", prompt = "{prompt}" }}
"""


@pytest.mark.parametrize("name", shipped_names("prompts"))
def test_a_prompt_that_ships_asks_for_active_roadwork_and_one_word(name: str) -> None:
    prompt = load_prompt(name, "/nowhere", "here")

    for frames in (1, 3):
        question = prompt.question(frames)
        assert "active roadwork" in question
        assert re.search(r"one\s+word, YES or NO\.$", question)
    assert "These 3 pictures" in prompt.question(3)
    assert prompt.tag == f"{name}@1"


def test_these_prompts_ship() -> None:
    assert shipped_names("prompts") == [
        "active-roadwork",
        "active-roadwork-reasoned",
        "confirm-boxes",
        "point-out",
        "vera-questions",
    ]


def test_prompts_that_ask_for_more_than_a_word_say_what_is_wanted() -> None:
    guided = load_prompt("vera-questions", "/nowhere", "here")
    for frames, count in ((1, 7), (2, 8)):
        numbered = re.findall(r"^(\d)\. .*\?$", guided.question(frames), re.MULTILINE)
        assert numbered == [str(i + 1) for i in range(count)]
    assert "marked with boxes" in load_prompt("confirm-boxes", "/nowhere", "here").question(1)
    assert load_prompt("point-out", "/nowhere", "here").question(1).startswith("Point to")


def test_a_prompt_of_ones_own_lies_beside_the_cascade(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text('version = "7"\ntext = "Roadwork?"\nyes = ["ja"]\n')

    prompt = load_prompt("own.toml", tmp_path, "here")

    assert (prompt.tag, prompt.question(4), prompt.yes) == ("own@7", "Roadwork?", ["ja"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('text = "x"', "own.toml: version: expected a value, got nothing"),
        ('version = "1"\ntext = ""', "own.toml: text: expected `str` of length >= 1"),
        ('version = "1"\ntext = "x"\nno = ["Yes"]', "no: expected words that are not among yes"),
        ('version = "1"\ntext = "x"\nyes = ["a b"]', "own.toml: yes[0]: expected `str` matching"),
        ('version = "1"\ntext = "x"\ntone = 1', "the unknown key tone"),
        ("version =", "own.toml: expected a TOML file"),
    ],
)
def test_what_is_no_prompt_is_said(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "own.toml").write_text(text)

    with pytest.raises(ConfigError, match=re.escape(said)):
        load_prompt("own.toml", tmp_path, "here")


def test_a_prompt_that_is_not_there(tmp_path: Path) -> None:
    shipped = "active-roadwork, .*, vera-questions"
    with pytest.raises(ConfigError, match=f"a prompt file or one of {shipped}, got x"):
        load_prompt("x", tmp_path, "here")


def test_another_prompt_makes_another_cascade(tmp_path: Path) -> None:
    own, file = tmp_path / "own.toml", tmp_path / "cascade.toml"
    hashes = []
    for version in ("1", "2"):
        own.write_text(f'version = "{version}"\ntext = "Roadwork?"\n')
        file.write_text(CASCADE.format(prompt="own.toml"))
        hashes.append(load_cascade(str(file)).hash)
    file.write_text(CASCADE.format(prompt="active-roadwork"))
    hashes.append(load_cascade(str(file)).hash)

    assert len(set(hashes)) == 3
