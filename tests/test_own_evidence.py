"""The engines of ``examples/own_evidence``, installed: tags, and boxes told to a later tier."""

from pathlib import Path

import pytest

from roadstream.sinks.files.readers import read_answers
from roadstream.workers.demo.render import write_drive
from tests.kits.command import roadstream
from tests.kits.installed import EXAMPLES, installed

EXAMPLE = EXAMPLES / "own_evidence"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed("own_evidence", tmp_path_factory.mktemp("installed"))


def test_a_later_tier_looks_at_the_boxes_of_an_earlier_one(site: Path, tmp_path: Path) -> None:
    write_drive(tmp_path / "drive", 8, width=640, height=360)
    arguments = ("score", "drive", "--cascade", str(EXAMPLE / "cascade.toml"), "--out", "a.jsonl")

    done = roadstream(*arguments, folder=tmp_path, environment={"PYTHONPATH": str(site)})

    assert done.returncode == 0, done.stderr
    answers = list(read_answers(tmp_path / "a.jsonl"))
    assert [(one["status"], one["flags"], one["missing"]) for one in answers] == [
        ("answered", [], [])
    ] * 8
    assert {one["tags"]["light"] for one in answers} == {"day"}
    second = [one for one in answers if one["exit_tier"] == "second"]
    looked = [one for one in second if one["tags"]["boxes"] == "looked"]
    assert looked, "no picture of the drive has a box"
    for one in looked:
        (vote,) = [vote for vote in one["votes"] if vote["member"] == "box"]
        first = [box for vote in one["votes"] if vote["tier"] == "first" for box in vote["boxes"]]
        assert vote["boxes"][0]["confidence"] == max(box["confidence"] for box in first)
        assert vote["tags"] == {"boxes": "looked"}
    assert all("first: " in (one["way"] or "") for one in answers)


def test_evidence_for_an_engine_that_cannot_use_it_is_refused(site: Path, tmp_path: Path) -> None:
    text = (EXAMPLE / "cascade.toml").read_text()
    (tmp_path / "c.toml").write_text(text.replace('"orange-box"', '"light"'))
    (tmp_path / "drive").mkdir()
    arguments = ("score", "drive", "--cascade", "c.toml")

    done = roadstream(*arguments, folder=tmp_path, environment={"PYTHONPATH": str(site)})

    assert done.returncode == 2
    assert done.stderr == (
        "roadstream: c.toml: tiers[1].members[0].settings.evidence: expected none for the engine "
        "light, which can make no use of it, got boxes\n"
    )
