"""The sink of ``examples/own_sink``, installed, takes answers like one of ours."""

import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest

import roadstream as library
from tests.kits.command import CONES_CASCADE, roadstream, write_pictures
from tests.kits.installed import installed
from tests.workers.commands.test_command_answers import prepare

EXAMPLE = Path(__file__).parents[1] / "examples" / "own_sink"
COMMAND = ("score", "in", "--cascade", "cones.toml", "--workers", "1", "--out", "sqlite://all.db")
TABLE = """
CREATE TABLE answers(image_id, uri, status, label, probability, votes, PRIMARY KEY (image_id))
"""
FULL = """
CREATE TRIGGER full BEFORE INSERT ON answers WHEN (SELECT count(*) FROM answers) > 2
BEGIN SELECT RAISE(ABORT, 'the table is full'); END
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed("own_sink", tmp_path_factory.mktemp("installed"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a cascade and five pictures."""
    (tmp_path / "cones.toml").write_text(CONES_CASCADE)
    write_pictures(tmp_path / "in", 5)
    return tmp_path


def rows(folder: Path) -> list[str]:
    """Return the file names of all answers that are there, without what they end in."""
    with closing(sqlite3.connect(folder / "all.db")) as database:
        found = database.execute("SELECT uri FROM answers ORDER BY rowid").fetchall()
    return [Path(uri).stem for (uri,) in found]


def execute(folder: Path, statement: str) -> None:
    with closing(sqlite3.connect(folder / "all.db")) as database:
        database.execute(statement)
        database.commit()


def run(*arguments: str, folder: Path, site: Path) -> "subprocess.CompletedProcess[str]":
    return roadstream(*arguments, folder=folder, environment={"PYTHONPATH": str(site)})


@pytest.mark.parametrize("name", ["pyproject.toml", "own_sink.py"])
def test_the_page_about_sinks_shows_it(name: str) -> None:
    page = EXAMPLE.parents[1] / "docs" / "extend" / "sink.md"
    shown = (EXAMPLE / name).read_text().split("[project]")[-1]
    assert shown in page.read_text()


def test_a_run_puts_its_answers_there_and_one_that_goes_on_has_each_once(
    folder: Path, site: Path
) -> None:
    done = run(*COMMAND, "--sort", folder=folder, site=site)
    assert (done.returncode, done.stderr) == (0, "")
    assert "answers: sqlite://all.db\n" in done.stdout
    assert rows(folder) == [f"{n:05}" for n in range(5)]

    write_pictures(folder / "in", 7)
    again = run(*COMMAND, folder=folder, site=site)
    assert "going on: 5 images were answered before" in again.stdout + again.stderr
    assert sorted(rows(folder)) == [f"{n:05}" for n in range(7)]


def test_a_sink_that_fails_in_the_middle_loses_nothing(folder: Path, site: Path) -> None:
    execute(folder, TABLE)
    execute(folder, FULL)

    failed = run(*COMMAND, folder=folder, site=site)
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1] == (
        "roadstream: sqlite://all.db: expected the sink of own-sink 1.0 to take answers, "
        "got IntegrityError: the table is full"
    )
    assert rows(folder) == []

    execute(folder, "DROP TRIGGER full")
    assert run(*COMMAND, folder=folder, site=site).returncode == 0
    assert sorted(rows(folder)) == [f"{n:05}" for n in range(5)]


def test_mistakes_are_told_before_any_work(folder: Path, site: Path) -> None:
    for arguments, said in (
        ([*COMMAND[:-1], "sqlite://none/all.db"], "expected an existing folder none, found none"),
        ([*COMMAND[:-1], "sqlight://all.db"], ".csv, or sqlite://…, got sqlight://…"),
        ([*COMMAND, "--report"], "--report: expected an --out that can be read again (.parquet"),
    ):
        done = run(*arguments, folder=folder, site=site)
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr
    assert not list(folder.glob("*.roadstream"))


def test_answers_on_a_log_go_there_too(folder: Path, site: Path) -> None:
    anyio.run(prepare, folder / "log.db")
    log = ("--log", "embedded:log.db", "--from", "beginning")
    done = run("answers", *log, "--out", "sqlite://all.db", folder=folder, site=site)
    assert "5 answers: sqlite://all.db" in done.stderr
    assert rows(folder) == ["0", "1", "2", "3", "4"]


def test_the_library_takes_it_too(
    folder: Path, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(site)
    options: Any = {"cascade": "cones.toml", "workers": 1}
    assert len(list(library.score("in", out="sqlite://all.db", **options))) == 5
    assert sorted(rows(folder)) == [f"{n:05}" for n in range(5)]
