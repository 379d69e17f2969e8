"""The rule and the engine of ``examples``, installed, run in a cascade like ours."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from roadstream.schemas.cascade.loading import load_cascade
from roadstream.sinks.files.readers import read_answers
from roadstream.workers.demo.render import write_drive
from tests.kits.command import roadstream
from tests.kits.installed import EXAMPLES, installed

EXAMPLE = EXAMPLES / "own_rule"
SCORE = ("score", "--workers=1")  # starts sooner than one for each CPU
HASH = (
    "from roadstream.schemas.cascade.loading import load_cascade; "
    "print(load_cascade({name!r}).hash)"
)


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("drive")
    write_drive(folder, 6, width=640, height=360)
    return str(folder)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed("own_rule", tmp_path_factory.mktemp("installed"))


def later(site: Path, folder: Path) -> Path:
    """Return a folder with the same engine in a later version."""
    shutil.copytree(site, folder / "later")
    for metadata in (folder / "later").glob("*.dist-info/METADATA"):
        metadata.write_text(metadata.read_text().replace("Version: 1.0", "Version: 1.1"))
    return folder / "later"


def hash_of(cascade: str | Path, site: Path | None) -> str:
    """Return a cascade's hash in a Python that has the distribution in ``site``."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", HASH.format(name=str(cascade))],
        env={**os.environ, "PYTHONPATH": str(site or "")},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_command_scores_pictures_by_it(site: Path, drive: str, tmp_path: Path) -> None:
    arguments = ("--cascade", str(EXAMPLE / "cascade.toml"), "--out", "a.jsonl")

    done = roadstream(
        *SCORE, drive, *arguments, folder=tmp_path, environment={"PYTHONPATH": str(site)}
    )

    assert done.returncode == 0, done.stderr
    answers = list(read_answers(tmp_path / "a.jsonl"))
    assert [answer["status"] for answer in answers] == ["answered"] * 6
    votes = [{vote["member"]: vote["raw"] for vote in answer["votes"]} for answer in answers]
    assert [set(cast) for cast in votes] == [{"orange", "cones"}] * 6
    assert len({cast["orange"] for cast in votes}) > 1, "it judges all pictures alike"
    hashes = {answer["cascade_hash"] for answer in answers}
    assert hashes == {hash_of(EXAMPLE / "cascade.toml", site)}


def test_its_version_counts_in_the_hash_of_cascades_that_use_it_and_of_no_other(
    site: Path, tmp_path: Path
) -> None:
    other = later(site, tmp_path)
    own = [hash_of(EXAMPLE / "cascade.toml", folder) for folder in (site, site, other)]
    assert own[0] == own[1] != own[2]
    assert hash_of("lite", other) == load_cascade("lite").hash


def test_its_settings_are_described_and_checked_like_ours(site: Path, tmp_path: Path) -> None:
    found = {"PYTHONPATH": str(site)}
    described = roadstream("schema", "orange-settings", folder=tmp_path, environment=found)
    assert '"exclusiveMinimum": 0' in described.stdout, described.stderr
    cascade = roadstream("schema", "cascade", folder=tmp_path, environment=found)
    assert '"orange"' in cascade.stdout

    text = (EXAMPLE / "cascade.toml").read_text()
    (tmp_path / "c.toml").write_text(text.replace("0.0005", "3"))
    (tmp_path / "drive").mkdir()
    done = roadstream("score", "drive", "--cascade", "c.toml", folder=tmp_path, environment=found)
    assert done.returncode == 2
    assert done.stderr == (
        "roadstream: c.toml: tiers[0].members[0].settings.even_odds: expected `float` < 1.0, "
        "got 3\n"
    )


def test_without_it_the_cascade_is_refused_with_the_engines_that_there_are(tmp_path: Path) -> None:
    shutil.copy(EXAMPLE / "cascade.toml", tmp_path)
    (tmp_path / "drive").mkdir()
    done = roadstream("score", "drive", "--cascade", "cascade.toml", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "roadstream: cascade.toml: tiers[0].members[0].engine: expected one of onnx, torch, vllm, "
        "openai, triton, cones, noop, got 'orange'\n"
    )


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the example with weights; return the folder of packages that it is in."""
    return installed("own_engine", tmp_path_factory.mktemp("linear"))


def test_an_engine_with_weights_scores_pictures_by_them(
    linear: Path, drive: str, tmp_path: Path
) -> None:
    cascade = str(EXAMPLES / "own_engine" / "cascade.toml")
    arguments = ("--cascade", cascade, "--out", "a.jsonl")

    done = roadstream(
        *SCORE, drive, *arguments, folder=tmp_path, environment={"PYTHONPATH": str(linear)}
    )

    assert done.returncode == 0, done.stderr
    raws = {answer["votes"][0]["raw"] for answer in read_answers(tmp_path / "a.jsonl")}
    assert len(raws) == 6


@pytest.mark.parametrize(
    ("text", "got"),
    [("1\n2\n", "an array of (2,)"), ("one\n", "could not convert string 'one'")],
)
def test_weights_that_do_not_fit_are_an_error_that_says_what_was_expected(
    linear: Path, drive: str, tmp_path: Path, text: str, got: str
) -> None:
    shutil.copy(EXAMPLES / "own_engine" / "cascade.toml", tmp_path)
    (tmp_path / "weights.txt").write_text(text)
    arguments = ("--cascade", "cascade.toml")

    done = roadstream(
        *SCORE, drive, *arguments, folder=tmp_path, environment={"PYTHONPATH": str(linear)}
    )

    assert done.returncode == 1
    assert f"weights.txt: expected 97 numbers, one a line, got {got}" in done.stderr
