"""The picture of a cascade: whole, valid, nothing on top of anything else, whatever names say."""

import itertools
from pathlib import Path
from xml.etree import ElementTree as ET

from roadstream.schemas.cascade.loading import load_cascade, parse_cascade
from roadstream.schemas.cascade.model import Cascade
from roadstream.workers.commands.cascade import words
from roadstream.workers.commands.cascade.drawing import CHARACTER, draw
from tests.kits.command import roadstream

SVG = "{http://www.w3.org/2000/svg}"
LONG = "n" * 60
HOSTILE = "</text><script>alert(1)</script>&\x1b[31m\u202e\ufffe"


def large() -> Cascade:
    """A cascade of seven tiers and ten members with long names, and of sixteen routes."""
    names = [f"t{i}-{LONG}" for i in range(7)]
    lines = [f'name = "c-{LONG}"', f"description = {HOSTILE * 60!a}".replace("'", '"')]
    lines[1] = lines[1].replace("\\x1b", "\\u001b")
    for i, name in enumerate(names):
        members = [f'{{ name = "m{i}{j}-{LONG}", engine = "noop" }}' for j in range(1 + i % 2)]
        lines += ["[[tiers]]", f'name = "{name}"', f"members = [{', '.join(members)}]"]
        lines += ["give_up_after = 1000000"] if i else []
        later = names[i + 1 :] + ["exit"] * 3
        tag = f"w={'x' * 200}"
        routes = [f'{{ to = "{to}", max_confidence = 0.5, tags_any = ["{tag}"] }}' for to in later]
        lines += [f"routes = [{', '.join(routes)}]"] if i in (0, 3) else []
    return parse_cascade("\n".join(lines).encode(), "large")


def drawn(cascade: Cascade) -> ET.Element:
    return ET.fromstring(draw(cascade))


def numbers(shape: ET.Element, *names: str) -> list[float]:
    return [float(shape.get(name, "nan")) for name in names]


def test_every_tier_member_route_and_threshold_of_lite_is_there() -> None:
    texts = [one.text for one in drawn(load_cascade("lite")).iter(f"{SVG}text")]

    assert texts.count("exit") == 3
    assert texts.count("else") == 2
    for said in (
        "glance",
        "cones: cones, weight 0.2255, 480×270",
        "confidence ≥ 0.862 and disagreement ≤ 1.5",
        "exit: all votes are pooled; roadwork from a probability of 0.5 on",
    ):
        assert said in texts


def test_names_are_text_and_nothing_of_them_is_markup() -> None:
    root = drawn(large())

    kinds = {one.tag.removeprefix(SVG) for one in root.iter()}
    assert kinds <= {
        "svg",
        "title",
        "style",
        "rect",
        "text",
        "line",
        "polyline",
        "polygon",
        "circle",
    }
    told = "".join(one.text or "" for one in root.iter(f"{SVG}text"))
    assert "<script>alert(1)</script>&" in told
    assert told.isprintable()


def test_no_box_touches_another_and_no_text_leaves_its_box() -> None:
    root = drawn(large())
    boxes = [
        numbers(one, "x", "y", "width", "height")
        for one in root.iter(f"{SVG}rect")
        if one.get("class") == "card"
    ]

    assert len(boxes) == 7
    for (_, top, _, height), (_, below, *_) in itertools.pairwise(boxes):
        assert top + height < below
    for one in root.iter(f"{SVG}text"):
        x, y = numbers(one, "x", "y")
        end = x + CHARACTER * len(one.text or "")
        assert end <= float(root.get("width", 0))
        for left, top, width, height in boxes:
            if top <= y <= top + height and x < left + width:
                assert end <= left + width
                assert top + 10 < y < top + height - 3


def test_lines_of_text_and_exits_keep_apart() -> None:
    root = drawn(large())
    lines = sorted({tuple(numbers(one, "y", "x")) for one in root.iter(f"{SVG}text")})
    column = [y for y, x in lines if x < 100]
    assert all(below - above >= 12 for above, below in itertools.pairwise(column))
    pills = [
        numbers(one, "y", "height") for one in root.iter(f"{SVG}rect") if one.get("class") == "pill"
    ]
    for (top, height), (below, _) in itertools.pairwise(pills):
        assert top + height < below


def test_ways_to_one_tier_share_a_lane_and_those_to_others_do_not() -> None:
    root = drawn(large())
    lanes = [
        [tuple(map(float, point.split(","))) for point in one.get("points", "").split()]
        for one in root.iter(f"{SVG}polyline")
        if len(one.get("points", "").split()) == 3
    ]

    assert len(lanes) == 6
    assert len({lane[0][0] for lane in lanes}) == 6
    for (x, top), (same, entry), (end, level) in lanes:
        assert x == same
        assert top < entry == level
        assert end < x


def test_a_way_to_a_tier_that_is_left_out_leads_to_the_next_that_is_there() -> None:
    texts = [one.text for one in drawn(load_cascade("lite", without=["look"])).iter(f"{SVG}text")]

    assert "without look" in texts
    assert "look" not in texts
    assert texts.count("else") == 1


def test_a_way_past_a_tier_off_the_path_has_a_lane_and_no_way_leads_there() -> None:
    tiers = "".join(
        f'[[tiers]]\nname = "{name}"\nmembers = [{{ name = "m-{name}", engine = "noop" }}]\n{more}'
        for name, more in (("first", ""), ("seldom", "off_path = true\n"), ("last", ""))
    )
    cascade = parse_cascade(f'name = "c"\n{tiers}'.encode(), "c")

    assert list(words.ways(cascade, cascade.tiers[0])) == [("always", "last")]
    root = drawn(cascade)
    # Its way out is a line of its box, as the last one's.
    texts = [one.text for one in root.iter(f"{SVG}text")]
    assert texts.index("always") < texts.index("seldom")
    lines = [one.get("class") for one in root.iter(f"{SVG}polyline")]
    assert "way g0" in lines


def test_the_command_writes_it_whole_and_only_for_a_good_file(tmp_path: Path) -> None:
    check = ("cascade", "check")
    done = roadstream(*check, "lite", "--svg", "lite.svg", folder=tmp_path)
    (tmp_path / "bad.toml").write_text("name = 1")
    bad = roadstream(*check, "bad.toml", "--svg", "bad.svg", folder=tmp_path)
    nowhere = roadstream(*check, "lite", "--svg", "no/lite.svg", folder=tmp_path)

    assert (done.returncode, bad.returncode, nowhere.returncode) == (0, 2, 2)
    assert (tmp_path / "lite.svg").read_bytes() == draw(load_cascade("lite"))
    assert sorted(one.name for one in tmp_path.iterdir()) == ["bad.toml", "lite.svg"]
    assert nowhere.stderr.startswith("roadstream: ")


def test_a_picture_needs_nothing_from_elsewhere() -> None:
    text = draw(load_cascade("lite")).decode()

    assert "url(" not in text
    assert "href" not in text
    assert "var(" not in text  # which not all that shows SVG knows
