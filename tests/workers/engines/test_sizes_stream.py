"""The size check at work, from picture files to answers: a detector, then a depth member."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from roadstream.schemas.cascade.loading import load_cascade
from roadstream.schemas.records.answer import Answer
from roadstream.stages.decoding.decode import encode_jpeg
from tests.kits.checkpoints import others
from tests.kits.command import roadstream
from tests.kits.stream_kit import answers_of

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
model = "model"
width = {size[0]}
height = {size[1]}
settings = {{ device = "cpu" }}
[[rules]]
rule = "size"
depth = "sight"
metres = {{ cone = {metres} }}
{focal}
"""
COUNT = 3
SMALL, ANY = "[1e-6, 1e-5]", "[1e-6, 1e9]"
SOFT = "soft, as no focal length is known"


def cone(shift: int) -> bytes:
    """Return a picture of an orange cone with a white stripe."""
    pixels = np.full((360, 640, 3), 120, np.uint8)
    middle = 320 + shift
    sides = [[middle, 170], [middle - 25, 260], [middle + 25, 260]]
    cv2.fillPoly(pixels, [np.array(sides)], (240, 110, 20))
    cv2.rectangle(pixels, (middle - 11, 215), (middle + 11, 225), (240, 240, 240), -1)
    return encode_jpeg(pixels)


def written(folder: Path, kind: str, metres: str, focal: str = "") -> str:
    """Write a cascade with a depth model of a kind; return its path."""
    if kind == "pro":
        others.depth_pro(folder / "model")
    else:
        others.depth_anything(folder / "model", metric=kind == "metric")
    size = PRO_SIZE if kind == "pro" else others.DEPTH_SIZE
    path = folder / "sizes.toml"
    path.write_text(CASCADE.format(size=size, metres=metres, focal=focal))
    return str(path)


async def answered(path: str) -> list[Answer]:
    answers = await answers_of(load_cascade(path), {f"{i}": cone(40 * i) for i in range(COUNT)})
    assert {(one.status, one.exit_tier) for one in answers.values()} == {("answered", "look")}
    return list(answers.values())


def tags(answer: Answer) -> dict[str, str]:
    return {
        name: value
        for one in answer.tiers
        for given in [*(one.tags or ()), one.given or {}]
        for name, value in given.items()
    }


def check_lowered(effects: list[str], factor: float, said: str, probability: float | None) -> None:
    """Check what an answer says of a cone that is too wide for what cones are here."""
    measured, changed = effects
    assert measured.startswith("size: a cone ")
    assert f" m wide, not 1e-06 to 1e-05: confidence × {factor}; {said}" in measured
    assert changed.startswith("probability of finder: ")
    before, after = map(float, changed.removeprefix("probability of finder: ").split(" → "))
    assert after == pytest.approx(before * factor, rel=0.01)
    assert probability == pytest.approx(after, rel=0.01)


@pytest.mark.parametrize(
    ("kind", "focal", "factor", "said"),
    [
        ("metric", "focal = 0.9", 0.3, "focal length 0.9 of the width by the cascade"),
        # Random weights see a field of view of a tenth of a degree, which no camera has.
        ("pro", "", 0.6, f"{SOFT} (the depth member says "),
    ],
)
async def test_impossible_sizes_lower_the_probability(
    tmp_path: Path, kind: str, focal: str, factor: float, said: str
) -> None:
    for answer in await answered(written(tmp_path, kind, SMALL, focal)):
        check_lowered(answer.effects, factor, said, answer.probability)
        assert tags(answer) == {"size": "impossible", "depth": "metres"}


async def test_possible_sizes_change_nothing(tmp_path: Path) -> None:
    for answer in await answered(written(tmp_path, "metric", ANY)):
        assert answer.effects == [f"size: 1 of a possible size; {SOFT}"]
        assert tags(answer) == {"size": "plausible", "depth": "metres"}


async def test_depth_without_a_unit_checks_nothing_and_says_so(tmp_path: Path) -> None:
    for answer in await answered(written(tmp_path, "relative", SMALL)):
        assert answer.effects == ["size: not checked: sight measured no metres"]
        assert tags(answer) == {"size": "unknown", "depth": "relative"}


def test_the_files_of_a_run_say_what_was_measured_and_what_changed(tmp_path: Path) -> None:
    (tmp_path / "drive").mkdir()
    for i in range(COUNT):
        (tmp_path / "drive" / f"{i}.jpg").write_bytes(cone(40 * i))
    path = written(tmp_path, "metric", SMALL)

    done = roadstream("score", "drive", "--cascade", path, "--out", "out.jsonl", folder=tmp_path)

    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert len(rows) == COUNT
    for row in rows:
        assert row["status"] == "answered"
        check_lowered(row["effects"], 0.6, SOFT, row["probability"])
        assert row["tags"] == {"size": "impossible", "depth": "metres"}
