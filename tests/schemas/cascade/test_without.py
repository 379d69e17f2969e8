"""A cascade without some of its members or tiers: what is left, and what it says of the rest."""

import re
from pathlib import Path

import pytest

from roadstream.schemas.cascade.loading import cascade_of, examine, load_cascade
from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.errors import ConfigError

FILE = """
name = "w"
[[tiers]]
name = "a"
fusion = { members = ["a1"] }
members = [
    { name = "a1", engine = "noop" },
    { name = "a2", engine = "noop", weight = 2, calibration = { method = "platt", slope = 1 } },
]
routes = [{ to = "b", min_confidence = 0.5 }]
[[tiers]]
name = "b"
members = [
    { name = "b1", engine = "onnx", model = "gone.onnx" },
    { name = "shadow", engine = "of-nobody", weight = 0, settings = { colour = "red" } },
]
[[tiers]]
name = "c"
members = [{ name = "c", engine = "noop" }, { name = "b2", engine = "noop" }]
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    (tmp_path / "c.toml").write_text(FILE)
    return str(tmp_path / "c.toml")


def absent(cascade: Cascade) -> dict[str, list[str]]:
    return {tier: [one.name for one in members] for tier, members in cascade.absent.items()}


def test_what_is_left_out_needs_no_engine_and_no_weights(path: str) -> None:
    assert len(examine(path).mistakes) == 2

    loaded = load_cascade(path, without=["b"])

    assert (loaded.tier_names, loaded.left_out) == (["a", "c"], ["b"])
    assert loaded.named_tiers == ["a", "b", "c"]
    assert absent(loaded) == {}


def test_a_tier_without_a_vote_is_left_out_whole(path: str) -> None:
    by_member = load_cascade(path, without=["b1"])

    assert (by_member.tier_names, by_member.left_out, absent(by_member)) == (["a", "c"], ["b"], {})


def test_the_members_that_are_left_out_of_a_tier_are_known(path: str) -> None:
    loaded = load_cascade(path, without=["b", "a1", "b2"])

    assert [one.name for one in loaded.tier("a").members] == ["a2"]
    assert absent(loaded) == {"a": ["a1"], "c": ["b2"]}
    assert loaded.tier("a").fusion is None  # of whose detectors none is left


def test_a_name_that_a_tier_and_a_member_share_is_the_members(path: str) -> None:
    loaded = load_cascade(path, without=["b", "c"])

    assert loaded.tier_names == ["a", "c"]
    assert absent(loaded) == {"c": ["c"]}


def test_another_set_of_members_is_another_cascade(path: str) -> None:
    several = [["b"], ["b1"], ["b", "a1"], ["b", "a2"], ["a1", "b"], ["b", "b", "a1"]]
    hashes = [load_cascade(path, without=one).hash for one in several]

    assert len({*hashes[:4]}) == 4
    assert hashes[2] == hashes[4] == hashes[5]
    assert load_cascade("lite", without=[]).hash == load_cascade("lite").hash
    assert load_cascade("lite", without=["look"]).hash != load_cascade("lite").hash


def test_from_a_snapshot_the_same_is_made_again(path: str) -> None:
    loaded = load_cascade(path, without=["b", "a1"])
    Path(path).unlink()

    assert loaded.snapshot.without == ["a1", "b"]
    assert cascade_of(loaded.snapshot) == loaded


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["b", "nobody"], "expected one of a1, a2, b1, shadow, c, b2, a, b, got nobody"),
        (["a"], "expected a member of the first tier, a, to be left (a1, a2), got a"),
        (["a2", "a1"], "expected a member of the first tier, a, to be left (a1, a2), got a2, a1"),
    ],
)
def test_what_cannot_be_left_out_is_said(path: str, names: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=f"^--without: {re.escape(said)}$"):
        load_cascade(path, without=names)


def test_a_tier_that_is_left_out_is_none_to_work_for(path: str) -> None:
    loaded = load_cascade(path, without=["b"])
    with pytest.raises(ConfigError, match="a tier of a, c, got b, which is left out"):
        loaded.tier("b")


OFF_PATH = """
name = "o"
[[tiers]]
name = "a"
members = [{ name = "a", engine = "noop" }]
[[tiers]]
name = "b"
members = [{ name = "b", engine = "noop" }]
[[tiers]]
name = "off"
off_path = true
members = [{ name = "seldom", engine = "noop" }]
[[tiers]]
name = "c"
members = [{ name = "c", engine = "noop" }]
"""


@pytest.mark.parametrize(
    ("without", "following"),
    [([], ["b", "c"]), (["b"], ["b", "c"]), (["off"], ["b", "c"]), (["seldom", "c"], ["b", "c"])],
)
def test_a_tier_off_the_path_follows_none_whatever_is_left_out(
    tmp_path: Path, without: list[str], following: list[str]
) -> None:
    (tmp_path / "o.toml").write_text(OFF_PATH)

    assert load_cascade(str(tmp_path / "o.toml"), without=without).following("a") == following
