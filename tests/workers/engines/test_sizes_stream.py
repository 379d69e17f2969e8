"""The size check at work, from picture files to answer files: a detector, then a depth member."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from roadstream.stages.decoding.decode import encode_jpeg
from tests.kits.checkpoints import others
from tests.kits.command import roadstream

PRO_SIZE = (others.DEPTH_PRO_SIDE, others.DEPTH_PRO_SIDE)

CASCADE = """
name = "sizes"
threshold = 0.5
[[tiers]]
name = "find"
[[tiers.members]]
name = "finder"
engine = "cones"
kind = "detection"
[[tiers]]
name = "look"
[[tiers.members]]
name = "sight"
engine = "torch"
model = "{model}"
width = {width}
height = {height}
settings = {{ device = "cpu" }}
[[rules]]
rule = "size"
depth = "sight"
metres = {{ cone = {metres} }}
{focal}
"""
COUNT = 3
SMALL, ANY = "[1e-6, 1e-5]", "[1e-6, 1e9]"


def cone(shift: int) -> bytes:
    """Return a picture of an orange cone with a white stripe."""
    pixels = np.full((360, 640, 3), 120, np.uint8)
    middle = 320 + shift
    sides = [[middle, 170], [middle - 25, 260], [middle + 25, 260]]
    cv2.fillPoly(pixels, [np.array(sides)], (240, 110, 20))
    cv2.rectangle(pixels, (middle - 11, 215), (middle + 11, 225), (240, 240, 240), -1)
    return encode_jpeg(pixels)


def answers(folder: Path, model: str, metres: str, focal: str = "") -> list[dict[str, Any]]:
    """Score pictures of cones; return the answers' rows."""
    size = PRO_SIZE if model == "depth-pro" else others.DEPTH_SIZE
    if model == "depth-pro":
        others.depth_pro(folder / model)
    else:
        others.depth_anything(folder / model, metric=model == "depth-anything")
    (folder / "drive").mkdir()
    for i in range(COUNT):
        (folder / "drive" / f"{i}.jpg").write_bytes(cone(40 * i))
    given = {"model": model, "width": size[0], "height": size[1], "metres": metres, "focal": focal}
    (folder / "sizes.toml").write_text(CASCADE.format(**given))

    done = roadstream("score", "drive", "--cascade", "sizes.toml", "--out", "out.jsonl",
                      folder=folder)  # fmt: skip

    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert len(rows) == COUNT
    assert {row["status"] for row in rows} == {"answered"}
    assert {row["exit_tier"] for row in rows} == {"look"}
    return rows


@pytest.mark.parametrize(
    ("model", "focal", "factor", "said"),
    [
        ("depth-anything", "", 0.6, "soft, as no focal length is known"),
        ("depth-anything", "focal = 0.9", 0.3, "focal length 0.9 of the width by the cascade"),
        # Random weights see a field of view of a tenth of a degree.
        ("depth-pro", "", 0.6, "soft, as no focal length is known (the depth member says 6"),
    ],
)
def test_answers_say_what_impossible_sizes_changed(
    tmp_path: Path, model: str, focal: str, factor: float, said: str
) -> None:
    for row in answers(tmp_path, model, SMALL, focal):
        measured, changed = row["effects"]
        assert measured.startswith("size: a cone ")
        assert f" not 1e-06 to 1e-05: confidence × {factor}; {said}" in measured
        assert changed.startswith("probability of finder: ")
        before, after = map(float, changed.removeprefix("probability of finder: ").split(" → "))
        assert after == pytest.approx(before * factor, rel=0.01)
        assert row["probability"] == pytest.approx(after, rel=0.01)
        assert row["tags"] == {"size": "impossible", "depth": "metres"}


def test_possible_sizes_change_nothing(tmp_path: Path) -> None:
    for row in answers(tmp_path, "depth-anything", ANY):
        assert row["effects"] == ["size: 1 of a possible size; soft, as no focal length is known"]
        assert row["tags"] == {"size": "plausible", "depth": "metres"}


def test_depth_without_a_unit_checks_nothing_and_says_so(tmp_path: Path) -> None:
    for row in answers(tmp_path, "relative", SMALL):
        assert row["effects"] == ["size: not checked: sight measured no metres"]
        assert row["tags"] == {"size": "unknown", "depth": "relative"}
