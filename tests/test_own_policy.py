"""A batching policy of another distribution, such as ``examples/own_policy``, in real workers."""

import shutil
from pathlib import Path

import pytest

from roadstream.sinks.files.readers import read_answers
from tests.kits.command import CONES_CASCADE, roadstream, write_pictures

EXAMPLE = Path(__file__).parents[1] / "examples" / "own_policy" / "own_policy.py"
BAD = """
from roadstream.stages.batching.policy import BatchPolicy

class Nothing(BatchPolicy):
    def take(self, queue, moment):
        return None
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_pictures(tmp_path / "drive", 18)
    (tmp_path / "rule.toml").write_text(CONES_CASCADE)
    shutil.copy(EXAMPLE, tmp_path)
    return tmp_path


def score(folder: Path, *more: str) -> tuple[int, str]:
    """Score the pictures with modules of that folder; return exit status and standard error."""
    arguments = ("score", "drive", "--cascade", "rule.toml", "--out", "a.jsonl", "--workers", "1")
    done = roadstream(*arguments, *more, folder=folder, environment={"PYTHONPATH": str(folder)})
    return done.returncode, done.stderr


def test_its_page_shows_the_module_that_is_tried() -> None:
    page = Path(__file__).parents[1] / "docs" / "extend" / "policy.md"
    assert f"```python\n{EXAMPLE.read_text()}```\n" in page.read_text()


def test_the_command_batches_by_it(folder: Path) -> None:
    status, told = score(folder, "--batch-policy", "own_policy:FourOrLate")

    assert status == 0, told
    answers = list(read_answers(folder / "a.jsonl"))
    assert [answer["status"] for answer in answers] == ["answered"] * 18
    sizes = [answer["votes"][0]["batch_size"] for answer in answers]
    assert max(sizes) == 4
    assert sizes.count(4) >= 12


def test_what_is_no_policy_is_refused_before_anything_begins(folder: Path) -> None:
    status, told = score(folder, "--batch-policy", "own_policy:Fuor")

    assert status == 2
    expected = "roadstream: --batch-policy: expected own_policy:Fuor to be importable, got Attri"
    assert told.startswith(expected)
    assert not list(folder.glob("a.jsonl*"))


def test_one_that_fails_ends_the_run_with_its_reason_and_loses_nothing(folder: Path) -> None:
    (folder / "bad.py").write_text(BAD)
    status, told = score(folder, "--batch-policy", "bad:Nothing")
    assert status == 1
    assert "bad:Nothing.take: expected a Take of numbers from 0 on, got None" in told

    status, told = score(folder)
    assert status == 0, told
    assert len(list(read_answers(folder / "a.jsonl"))) == 18
