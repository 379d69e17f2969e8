"""The source of ``examples/own_source``, installed, gives pictures to the commands."""

import signal
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

import roadstream as library
from roadstream.schemas.errors import ImageError
from roadstream.schemas.records.image import Reference
from roadstream.stages.decoding.decode import encode_jpeg
from roadstream.streams.sources.payload import read_payload
from tests.kits.command import CONES_CASCADE, roadstream, started, write_cascade
from tests.kits.installed import EXAMPLES, installed
from tests.kits.plug_in_kit import sources_looked_up_anew
from tests.kits.video_kit import picture
from tests.workers.commands.test_command_score import (
    SCORE,
    answered_so_far,
    answers,
    wait_for_answers,
)

EXAMPLE = EXAMPLES / "own_source"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed("own_source", tmp_path_factory.mktemp("installed"))


@pytest.fixture
def found(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let this process find it."""
    monkeypatch.syspath_prepend(site)
    with sources_looked_up_anew():
        yield


def write_cones(folder: Path) -> str:
    """Write a cascade that looks at pictures; return its file name."""
    (folder / "cones.toml").write_text(CONES_CASCADE)
    return "cones.toml"


@cache
def jpeg(index: int) -> bytes:
    return encode_jpeg(picture(index))


def zipped(path: Path, members: Mapping[str, bytes], broken: str = "") -> None:
    """Write an archive; the bytes of one member are not those that its checksum is of."""
    with ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    if broken:
        path.write_bytes(path.read_bytes().replace(members[broken], bytes(len(members[broken]))))


def score(folder: Path, site: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = ("score", *arguments, "--workers", "1", "--out", "a.jsonl", "--sort")
    return roadstream(*command, folder=folder, environment={"PYTHONPATH": str(site)})


def statuses(folder: Path) -> dict[str, str]:
    """Return the status of each answer, or what is wrong with its picture, by its uri."""
    rows = answers(folder / "a.jsonl")
    return {row["uri"]: row["error"] or row["status"] for row in rows}


@pytest.mark.parametrize("name", ["pyproject.toml", "own_source.py"])
def test_the_page_about_sources_shows_it(name: str) -> None:
    shown = (EXAMPLE / name).read_text().split("[project]")[-1]
    assert shown in (EXAMPLES.parent / "docs" / "extend" / "source.md").read_text()


def test_the_command_takes_pictures_from_it_and_from_paths(site: Path, tmp_path: Path) -> None:
    members = {"a.jpg": jpeg(1), "bad.jpg": jpeg(2), "notes.txt": b"notes", "c.JPG": jpeg(3)}
    zipped(tmp_path / "d.zip", members | {"void.png": b""}, broken="bad.jpg")
    (tmp_path / "e.jpg").write_bytes(jpeg(4))

    done = score(tmp_path, site, "e.jpg", "zip://d.zip", "--cascade", write_cones(tmp_path))

    assert done.returncode == 1, done.stderr
    assert "1 left out: no picture by its name (zip://d.zip#notes.txt)" in done.stdout
    assert list(statuses(tmp_path).items()) == [
        ("e.jpg", "answered"),
        ("zip://d.zip#a.jpg", "answered"),
        ("zip://d.zip#bad.jpg", "unreadable: Bad CRC-32 for file 'bad.jpg'"),
        ("zip://d.zip#c.JPG", "answered"),
        ("zip://d.zip#void.png", "empty: the file has no bytes"),
    ]


def test_a_run_that_was_stopped_goes_on_and_scores_nothing_twice(
    site: Path, tmp_path: Path
) -> None:
    members = {f"{index:04}.jpg": jpeg(index % 100) for index in range(4000)}
    zipped(tmp_path / "d.zip", members)
    found = {"PYTHONPATH": str(site)}
    command = (*SCORE, "zip://d.zip", "--cascade", write_cascade(tmp_path), "--out", "a.jsonl")
    process = started(*command, folder=tmp_path, environment=found)
    wait_for_answers(process, tmp_path / "a.jsonl", 50)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert 50 <= answered_so_far(tmp_path / "a.jsonl") < 4000

    done = roadstream(*command, folder=tmp_path, environment=found)

    assert done.returncode == 0, done.stderr
    assert "going on: " in done.stderr
    assert sorted(statuses(tmp_path)) == [f"zip://d.zip#{name}" for name in members]
    assert len({row["image_id"] for row in answers(tmp_path / "a.jsonl")}) == 4000


def test_only_what_has_changed_is_read_again(site: Path, tmp_path: Path) -> None:
    command = ("zip://d.zip", "--cascade", write_cascade(tmp_path))
    members = {"a.jpg": jpeg(1), "b.jpg": jpeg(2)}
    zipped(tmp_path / "d.zip", members)
    assert score(tmp_path, site, *command).returncode == 0
    before = {row["uri"]: row["image_id"] for row in answers(tmp_path / "a.jsonl")}

    zipped(tmp_path / "d.zip", members | {"b.jpg": jpeg(3)}, broken="a.jpg")  # it goes unnoticed
    assert score(tmp_path, site, *command).returncode == 0

    after = {row["uri"]: row["image_id"] for row in answers(tmp_path / "a.jsonl")}
    assert after["zip://d.zip#a.jpg"] == before["zip://d.zip#a.jpg"]
    assert after["zip://d.zip#b.jpg"] != before["zip://d.zip#b.jpg"]


def test_what_it_does_not_take_or_find_is_told(site: Path, tmp_path: Path) -> None:
    refused = score(tmp_path, site, "zip://d.tar")
    assert (refused.returncode, refused.stderr) == (
        2,
        "roadstream: zip://d.tar: expected the path of a .zip file after zip://\n",
    )
    gone = score(tmp_path, site, "zip://d.zip", "--cascade", write_cascade(tmp_path))
    assert gone.returncode == 1
    assert "roadstream: zip://d.zip: expected an archive, found none" in gone.stderr


def test_without_it_such_a_word_is_a_path(tmp_path: Path) -> None:
    done = score(tmp_path, tmp_path, "zip://d.zip", "--cascade", write_cones(tmp_path))
    assert done.returncode == 1
    missing = "missing: there is no such file (or it has vanished since)"
    assert statuses(tmp_path) == {"zip://d.zip": missing}


@pytest.mark.usefixtures("found")
def test_the_library_takes_it_too(
    tmp_path: Path, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(site))  # for the workers
    zipped(tmp_path / "d.zip", {"a.jpg": jpeg(1)})
    options: Any = {"cascade": write_cascade(tmp_path), "workers": 1}
    assert [answer.head.uri for answer in library.score("zip://d.zip", **options)] == [
        "zip://d.zip#a.jpg"
    ]


@pytest.mark.usefixtures("found")
def test_references_are_read_in_the_folders_that_may_be_read_from(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    zipped(tmp_path / "open" / "d.zip", {"a.jpg": jpeg(1)})
    reference = Reference(
        path=f"zip://{tmp_path}/open/d.zip#a.jpg",
        size=len(jpeg(1)),
        sha256=sha256(jpeg(1)).digest(),
    )
    assert read_payload(reference, None, 1 << 20) == jpeg(1)
    assert read_payload(reference, [tmp_path / "open"], 1 << 20) == jpeg(1)
    for roots in ([], [tmp_path / "other"]):
        with pytest.raises(ImageError, match=r"refused: .* is not inside an allowed folder"):
            read_payload(reference, roots, 1 << 20)
    (tmp_path / "open" / "d.zip").unlink()
    with pytest.raises(ImageError, match="missing: there is no such file"):
        read_payload(reference, None, 1 << 20)
