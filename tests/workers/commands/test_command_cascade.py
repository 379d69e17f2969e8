"""``roadstream cascade``: what users see of the cascades that ship, and of files of their own."""

import re
from pathlib import Path

import pytest

from roadstream.schemas.cascade.loading import load_cascade, shipped_cascades
from tests.kits.command import roadstream

WRONG = """
name = "wrong"
threshold = 2
"a\\nb" = 1
[[tiers]]
name = "t"
members = [{ name = "m", engine = "none" }, { name = "m", engine = "noop", weight = "1" }]
routes = [{ to = "nowhere" }]
"""

SHIPPED = ", ".join(shipped_cascades())
RICH = """
name = "rich"
description = "two\\nlines"
[pool]
method = "linear"
quorum = 0.5
[[tiers]]
name = "a"
members = [
    { name = "m", engine = "noop", licence = "AGPL-3.0", gated = true, sizes = [[3, 4]] },
    { name = "s", engine = "noop", weight = 0 },
]
routes = [
    { to = "c", tags_all = ["w=rain", "night"], tags_any = ["x", "y"], tags_none = ["z"] },
    { to = "exit", tiers_down = ["b", "c"], max_confidence = 0.5 },
]
[[tiers]]
name = "b"
give_up_after = 30
members = [{ name = "n", engine = "cones", calibration = { method = "platt", slope = 1 } }]
routes = [{ to = "exit" }, { to = "c" }]
[[tiers]]
name = "c"
members = [{ name = "o", engine = "noop" }]
"""


def test_the_cascades_that_ship_are_listed_with_where_they_lie(tmp_path: Path) -> None:
    done = roadstream("cascade", "list", folder=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    assert "glance → look → closer" in done.stdout
    assert f"files: {shipped_cascades()['lite'].parent}" in done.stdout


def test_a_good_cascade_is_shown_with_its_hash_its_members_and_its_routes_in_words(
    tmp_path: Path,
) -> None:
    done = roadstream("cascade", "check", "lite", folder=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    assert load_cascade("lite").hash in done.stdout
    assert "log, prior 0.5, effective voters 1.648, quorum 1" in done.stdout
    assert re.search(r"glance +confidence ≥ 0.862 and disagreement ≤ 1.5 +→ exit", done.stdout)
    assert re.search(r"else +→ look", done.stdout)
    assert re.search(
        r"closer +closer +onnx +lite/closer.onnx +0.1969 +1312×768 +platt", done.stdout
    )


def test_show_shows_what_check_does_and_the_file_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(RICH)

    shown = roadstream("cascade", "show", "c.toml", folder=tmp_path)
    text = roadstream("cascade", "show", "c.toml", "--toml", folder=tmp_path)

    assert roadstream("cascade", "check", "c.toml", folder=tmp_path).stdout == (
        f"{shown.stdout}\nthis machine has all that it needs\n"
    )
    assert (shown.returncode, text.stdout) == (0, RICH)


def test_every_condition_and_trait_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(RICH)

    done = roadstream("cascade", "check", "c.toml", folder=tmp_path)

    assert done.returncode == 0
    for said in (
        r"two\\nlines",
        "linear, prior 0.5, quorum 0.5",
        "512×352, 3×4 +no +AGPL-3.0, to be accepted",
        r"s +noop +– +0 \(shadow\)",
        "tag w=rain and tag night and any of the tags x, y and no tag z +→ c",
        "confidence < 0.5 and nobody works for b, nor for c +→ exit",
        "without its votes after 30 s",
        "b +always +→ exit",
    ):
        assert re.search(said, done.stdout), said
    unset = [f"tiers[0].routes[0]: nobody gives the tag {tag}" for tag in ("w", "night", *"xyz")]
    unreached = (
        "tiers[1].routes[1]: nothing reaches it: whenever it holds, routes[0] before it does"
    )
    assert done.stderr.splitlines() == [f"warning: c.toml: {why}" for why in (unreached, *unset)]


def test_all_mistakes_are_told_each_on_one_line(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(WRONG)

    done = roadstream("cascade", "check", "c.toml", folder=tmp_path)

    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert len(lines) == 6
    for line in lines:
        assert re.fullmatch(r"c\.toml: [a-z0-9.\[\] ]+: expected .+, got .+", line), line


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "none.toml",
            f"FILE: expected a cascade file or one of {SHIPPED}, got none.toml (No such f",
        ),
        (".", f"FILE: expected a cascade file or one of {SHIPPED}, got . (Is a directory)"),
        ("no.toml", "no.toml: expected a TOML file, got "),
    ],
)
def test_what_is_no_toml_file_is_one_line(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "no.toml").write_bytes(b"\xff\xfe = [")

    done = roadstream("cascade", "check", name, folder=tmp_path)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1


def test_what_is_left_out_is_said_where_a_route_leads_to_it(tmp_path: Path) -> None:
    done = roadstream("cascade", "check", "lite", "--without", "look", folder=tmp_path)

    assert done.returncode == 0
    assert re.search("left out +look *\n", done.stdout)
    assert re.search("else +→ look, left out: the next tier", done.stdout)
    assert "lite/objects.onnx" not in done.stdout
