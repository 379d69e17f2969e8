"""Standard streams that are closed, full or not UTF-8, and folders with anything in them."""

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table

from roadstream.workers.observe.terminal import console, screen
from tests.kits.command import (
    ROADSTREAM,
    TIMEOUT,
    here,
    roadstream,
    write_cascade,
    write_pictures,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_cascade(tmp_path)
    write_pictures(tmp_path / "one", 2)
    return tmp_path


def in_shell(words: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``roadstream`` with what a shell makes of its streams."""
    return subprocess.run(
        ["/bin/sh", "-c", f"exec {ROADSTREAM} {words}"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env={**os.environ, **environment},
        check=False,
    )


SCORE = "score one --cascade noop.toml --workers 1"


@pytest.mark.parametrize(
    ("streams", "status"),
    [("<&- >&- 2>&-", 0), ("2>&-", 0), ("2>/dev/full", 0), (">/dev/full", 1)],
)
def test_streams_that_are_closed_or_full_cost_no_work(
    folder: Path, streams: str, status: int
) -> None:
    done = in_shell(f"{SCORE} --out a.csv --report {streams}", folder)

    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert (folder / "a.csv").read_text().count("\n") == 3
    assert (folder / "a.html").exists()


def test_a_full_standard_output_is_said_in_one_line(folder: Path) -> None:
    done = in_shell("schema image >/dev/full", folder)

    assert (done.returncode, done.stderr) == (
        1,
        "roadstream: standard output: cannot be written: No space left on device\n",
    )


def test_a_reader_that_has_gone_is_no_news(folder: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as gone:
        done = subprocess.run(
            [ROADSTREAM, "schema", "image"],
            stdout=gone,
            stderr=subprocess.PIPE,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )

    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize(
    ("stdin", "why"), [("<&-", "closed"), ("0>/dev/null", "Bad file descriptor")]
)
def test_a_list_that_cannot_be_read_is_said_so(folder: Path, stdin: str, why: str) -> None:
    done = in_shell(f"score - --cascade noop.toml --workers 1 --out a.csv {stdin}", folder)

    assert done.returncode == 2
    assert done.stderr.startswith("roadstream: -: expected a list on standard input")
    assert done.stderr.endswith(f"{why}\n")


def test_a_terminal_that_is_not_utf_8_gets_what_it_can_show(folder: Path) -> None:
    done = in_shell(f"{SCORE} --out café.csv", folder, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "answers: caf\\xe9.csv")

    done = in_shell("answers --help", folder, PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert "kafka://host:port[,host:port...]" in done.stdout


def test_control_characters_reach_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("a\x1b[2J")
    table.add_row("b\x9b2J\x07")
    console().print("c\r\x7f", style="yellow")
    screen(80).print(table)

    shown, said = capsys.readouterr()
    assert said == "c\\x0d\\x7f\n"
    assert "a\\x1b[2J" in shown
    assert "b\\x9b2J\\x07" in shown


@pytest.mark.parametrize("name", ["runs [old]", "r[/b]", ":car:"])
def test_paths_are_shown_as_they_are(folder: Path, name: str) -> None:
    (folder / name).mkdir(parents=True)

    done = here(*SCORE.split(), "--report", "--out", f"{name}/a.csv", folder=folder)

    assert done.returncode == 0, done.stderr
    assert f"answers: {name}/a.csv\n" in done.stdout
    assert f"report: {name}/a.html\n" in done.stderr


def test_modules_in_the_users_folder_are_not_imported(folder: Path) -> None:
    for name in ("schemas", "queue", "signal", "numpy", "workers"):
        (folder / f"{name}.py").write_text("raise SystemExit('the wrong module')\n")

    done = roadstream(*SCORE.split(), "--out", "a.csv", folder=folder)

    assert done.returncode == 0, done.stderr


def test_an_empty_part_of_pythonpath_brings_none_of_them_in(folder: Path) -> None:
    for name in ("schemas", "queue", "numpy"):
        (folder / f"{name}.py").write_text("raise SystemExit('the wrong module')\n")

    done = in_shell(f"{SCORE} --out a.csv", folder, PYTHONPATH=f"{os.pathsep}/more")

    assert done.returncode == 0, done.stderr


def test_a_standard_output_that_does_not_block_is_waited_for(folder: Path) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    while select.select((), (writer,), (), 0)[1]:
        os.write(writer, bytes(1 << 12))
    with subprocess.Popen(
        [ROADSTREAM, "schema", "cascade"], stdout=writer, stderr=subprocess.PIPE, text=True
    ) as done:
        os.close(writer)
        with os.fdopen(reader, "rb") as output:
            said = output.read().lstrip(b"\0")
        _, messages = done.communicate(timeout=TIMEOUT)

    assert (done.returncode, messages) == (0, "")
    assert said.startswith(b"{")
    assert said.endswith(b"}\n")


def test_a_narrow_terminal_takes_no_number_away(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "3")

    done = here(*SCORE.split(), "--out", "a.csv", folder=folder)

    assert done.stdout.split()[:4] == ["images", "2", "answered", "2"]


def test_a_folder_that_cannot_be_made_is_said_in_one_line(folder: Path) -> None:
    done = here("render", "noop.toml/drive", folder=folder)

    assert (done.returncode, done.stderr) == (1, "roadstream: noop.toml/drive: Not a directory\n")


def test_a_disk_that_is_full_is_said_in_one_line(folder: Path) -> None:
    (folder / "drive").mkdir()
    (folder / "drive" / "labels.csv").symlink_to("/dev/full")

    done = here("render", "drive", "--frames", "1", folder=folder)

    assert (done.returncode, done.stderr) == (1, "roadstream: No space left on device\n")


def test_a_glob_that_matches_nothing_is_refused_before_any_work(folder: Path) -> None:
    done = here(*SCORE.split(), "nothing*.jpg", "--out", "a.csv", folder=folder)

    assert done.returncode == 2
    assert done.stderr == "roadstream: score: nothing*.jpg matches no file\n"
    assert not (folder / "a.csv.roadstream").exists()


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems know UTF-8 only")
def test_a_working_folder_that_is_not_utf_8_is_one_like_any_other(folder: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(folder) + b"/stra\xdfe"))
    odd.mkdir()
    (folder / "one").rename(odd / "one")
    write_cascade(odd)
    out = os.fsdecode(b"\xdf.csv")

    done = roadstream(*SCORE.split(), "--report", "--ledger", "led", "--out", out, folder=odd)

    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("answers: \\xdf.csv\n")
    assert (odd / out).read_text().count("one/0000") == 2


def test_a_working_folder_that_has_gone_is_said(folder: Path) -> None:
    done = subprocess.run(
        [
            "/bin/sh",
            "-c",
            f"mkdir gone && cd gone && rmdir ../gone && exec {ROADSTREAM} schema image",
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )

    assert done.returncode == 2
    assert done.stderr.startswith("roadstream: the working folder is not there any more")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_list_may_have_been_kept_by_powershell_or_an_editor(folder: Path, encoding: str) -> None:
    (folder / "one" / "00000.jpg").rename(folder / "one" / "é.jpg")
    (folder / "list.txt").write_bytes("one/é.jpg\r\none/00001.jpg\r\n".encode(encoding))

    done = in_shell("score - --cascade noop.toml --workers 1 --sort --out a.csv < list.txt", folder)

    assert done.returncode == 0, done.stderr
    rows = (folder / "a.csv").read_text().splitlines()[1:]
    assert [row.split(",")[1] for row in rows] == ["one/é.jpg", "one/00001.jpg"]
