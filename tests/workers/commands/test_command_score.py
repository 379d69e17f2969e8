"""``roadstream score`` from a user's side: answers, resumption, bad input, honest errors."""

import json
import os
import resource
import shutil
import signal
import sqlite3
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from roadstream.sinks.files.readers import read_answers
from roadstream.workers.cli import run
from roadstream.workers.demo.render import write_drive
from tests.kits.command import (
    CONES_CASCADE,
    ROADSTREAM,
    here,
    roadstream,
    started,
    write_cascade,
    write_pictures,
)
from tests.kits.video_kit import film, tenths

COLUMNS = [
    "image_id", "uri", "session_id", "frame_index", "status", "label", "probability",
    "confidence", "exit_tier", "flags", "error", "latency", "votes",
]  # fmt: skip
SCORE = ("score", "--workers=1")  # starts sooner than one for each CPU


def answers(path: Path) -> list[dict[str, Any]]:
    return [dict(row) for row in read_answers(path)]


def answered_so_far(out: Path) -> int:
    """Count the answers in a run's ledger from outside; 0 while there is none."""
    ledger = out.with_name(out.name + ".roadstream") / "ledger.db"
    if not ledger.exists():
        return 0
    connection = sqlite3.connect(f"file:{ledger}?mode=ro", uri=True, timeout=10)
    try:
        row = connection.execute("SELECT COUNT(*) FROM images WHERE answer IS NOT NULL").fetchone()
        return int(row[0])
    except sqlite3.OperationalError:
        return 0  # the table is not there yet
    finally:
        connection.close()


def wait_for_answers(process: "subprocess.Popen[str]", out: Path, at_least: int) -> None:
    while answered_so_far(out) < at_least:
        try:
            process.wait(timeout=0.05)
        except subprocess.TimeoutExpired:
            continue
        raise AssertionError(f"ended early: {process.communicate()}")


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drive")
    write_drive(folder, 6, width=640, height=360)
    return folder


def test_lite_cascade_answers_every_picture_of_a_folder(drive: Path, tmp_path: Path) -> None:
    done = roadstream("score", str(drive), "--out", "a.parquet", "--sort", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.schema.names[: len(COLUMNS)] == COLUMNS
    rows = answers(tmp_path / "a.parquet")
    assert [row["uri"] for row in rows] == [f"{drive}/frame_{i:03}.jpg" for i in range(6)]
    for row in rows:
        assert row["status"] == "answered"
        assert row["label"] in {"roadwork", "none"}
        assert 0 <= row["probability"] <= 1
        assert row["session_id"] == str(drive)
        assert {vote["member"] for vote in row["votes"]} >= {"glance", "cones"}
        assert row["latency"]["total"] > 0


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_other_formats_hold_the_same_columns(name: str, tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", 3)
    cascade = write_cascade(tmp_path)
    done = here(*SCORE, "in", "--cascade", cascade, "--out", name, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    first = (tmp_path / name).read_text().splitlines()[0]
    found = list(json.loads(first)) if name.endswith("jsonl") else first.split(",")
    assert found[: len(COLUMNS)] == COLUMNS
    assert {row["uri"] for row in answers(tmp_path / name)} == {f"in/0000{i}.jpg" for i in range(3)}


def test_paths_come_from_standard_input(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", 3)
    cascade = write_cascade(tmp_path)
    done = roadstream(
        *SCORE, "-", "--cascade", cascade, "--out", "a.jsonl",
        folder=tmp_path, stdin="in/00000.jpg\nin/00002.jpg\n",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = answers(tmp_path / "a.jsonl")
    assert sorted(row["uri"] for row in rows) == ["in/00000.jpg", "in/00002.jpg"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_stopped_run_goes_on_and_scores_nothing_twice(how: signal.Signals, tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", 4000)
    command = (*SCORE, "in", "--cascade", write_cascade(tmp_path), "--out", "a.jsonl")
    process = started(*command, folder=tmp_path)
    wait_for_answers(process, tmp_path / "a.jsonl", 100)
    process.send_signal(how)
    process.communicate(timeout=60)
    assert process.returncode == (-9 if how is signal.SIGKILL else 130)
    before = answered_so_far(tmp_path / "a.jsonl")
    assert 100 <= before < 4000

    done = roadstream(*command, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "going on: " in done.stderr
    rows = answers(tmp_path / "a.jsonl")
    assert len(rows) == 4000
    assert len({row["image_id"] for row in rows}) == 4000

    again = here(*command, folder=tmp_path)
    assert again.returncode == 0
    assert len(answers(tmp_path / "a.jsonl")) == 4000


def png_bomb() -> bytes:
    """Return a PNG that says it has 50,000 × 50,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


def test_bad_files_fail_with_a_reason_and_harm_no_neighbour(tmp_path: Path) -> None:
    clean, mixed = tmp_path / "clean", tmp_path / "mixed"
    write_drive(clean, 4, width=640, height=360)
    shutil.copytree(clean, mixed)
    good = (mixed / "frame_000.jpg").read_bytes()
    (mixed / "bomb.png").write_bytes(png_bomb())
    (mixed / "broken_link.jpg").symlink_to("nowhere.jpg")
    (mixed / "empty.jpg").touch()
    (mixed / "folder.jpg").mkdir()
    (mixed / "garbage.jpg").write_bytes(bytes(range(256)) * 20)
    (mixed / "new\nline.jpg").write_bytes(good)
    (mixed / "text.png").write_text("no picture")
    (mixed / "truncated.jpg").write_bytes(good[: len(good) // 2])
    (mixed / "video.mp4").write_bytes(b"\x00\x00\x00\x18ftypmp42" + bytes(500))
    Path(os.fsdecode(os.fsencode(mixed) + b"/bad\xff.jpg")).write_bytes(good)
    (tmp_path / "cones.toml").write_text(CONES_CASCADE)
    command = (*SCORE, "--out", "a.jsonl", "--cascade", "cones.toml")
    assert here(*command, "clean", folder=tmp_path).returncode == 0
    alone = {Path(row["uri"]).name: row for row in answers(tmp_path / "a.jsonl")}

    done = here(*command, "mixed", "--restart", folder=tmp_path)

    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    rows = {Path(row["uri"]).name: row for row in answers(tmp_path / "a.jsonl")}
    failed = {name: row["error"] for name, row in rows.items() if row["status"] == "failed"}
    faults = {name.split("#")[0]: error.split(":")[0] for name, error in failed.items()}
    assert faults == {
        "bomb.png": "too_many_pixels",
        "broken_link.jpg": "missing",
        "empty.jpg": "empty",
        "folder.jpg": "unreadable",
        "garbage.jpg": "not_an_image",
        "new\nline.jpg": "bad_name",
        "text.png": "not_an_image",
        "truncated.jpg": "truncated",
        "video.mp4": "damaged_video",
        "bad\\xff.jpg": "bad_name",
    }
    assert f" failed {len(failed)} " in " ".join(done.stdout.split())
    for name, row in alone.items():
        assert rows[name]["probability"] == row["probability"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["score", "in", "--cascade", "no.toml"], "--cascade: expected a cascade file"),
        (["score", "in", "--cascade", "typo.toml"], "typo.toml: tiers[0].members[0]"),
        (["score", "in", "--cascade", "weightless.toml"], "missing.onnx, which does not exist"),
        (["score", "in", "--out", "a.xlsx"], "a.xlsx"),
        (["score", "in", "--out", "nowhere/a.csv"], "nowhere"),
        (["score", "in", "--fps", "0"], "--fps: expected"),
        (["score", "in", "--workers", "0"], "--workers: expected"),
        (["score", "in", "--log", "redis://x"], "--log: expected"),
        (["score", "none/*.jpg"], "matches no file"),
        (["work", "--tier", "nope", "--log", "embedded:x.db"], "a tier of glance"),
        (["no-such-command"], "no-such-command"),
    ],
)
def test_wrong_usage_is_one_clear_line_and_status_2(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "in", 1)
    good = Path(write_cascade(tmp_path))
    text = (tmp_path / good).read_text()
    (tmp_path / "typo.toml").write_text(text.replace('engine = "noop"', 'engin = "noop"', 1))
    (tmp_path / "weightless.toml").write_text(
        text.replace('engine = "noop"', 'engine = "onnx"\nmodel = "missing.onnx"', 1)
    )
    assert run(arguments) == 2
    said = capsys.readouterr().err
    assert words in " ".join(said.split())
    assert "Traceback" not in said


def test_what_is_wrong_is_said_by_the_process_too(tmp_path: Path) -> None:
    done = roadstream("score", folder=tmp_path)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert "at least one PATH" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_absent_broker_is_one_line_and_status_1(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", 1)
    done = roadstream("score", "in", "--log", "kafka://127.0.0.1:1", folder=tmp_path)
    assert done.returncode == 1
    assert "127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr


def test_full_disk_is_one_line_and_keeps_what_was_answered(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", 2000)
    command = [*SCORE, "in", "--cascade", write_cascade(tmp_path), "--out", "a.jsonl"]
    limit = 2_000_000  # bytes a file may grow to: stands for a disk that fills up

    done = subprocess.run(
        [ROADSTREAM, *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )

    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "the same command goes on from there" in done.stderr
    kept = answered_so_far(tmp_path / "a.jsonl")
    after = here(*command, folder=tmp_path)
    assert after.returncode == 0, after.stderr
    assert len(answers(tmp_path / "a.jsonl")) == 2000
    assert kept <= 2000


def test_other_inputs_for_the_same_output_are_refused(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", 2)
    write_pictures(tmp_path / "other", 2)
    cascade = write_cascade(tmp_path)
    command = (*SCORE, "--cascade", cascade, "--out", "a.jsonl")
    assert here(*command, "in", folder=tmp_path).returncode == 0
    refused = here(*command, "other", folder=tmp_path)
    assert refused.returncode == 2
    assert "--restart" in refused.stderr
    assert here(*command, "other", "--restart", folder=tmp_path).returncode == 0
    assert {row["uri"] for row in answers(tmp_path / "a.jsonl")} == {
        "other/00000.jpg",
        "other/00001.jpg",
    }


def test_each_place_has_the_answer_of_what_stands_there_now(drive: Path, tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "sd", 0)
    (tmp_path / "cones.toml").write_text(CONES_CASCADE)
    command = (*SCORE, "sd", "sd/named.jpg", "--out", "a.jsonl", "--cascade", "cones.toml")

    def put(name: str, frame: int) -> None:
        shutil.copy(drive / f"frame_{frame:03}.jpg", folder / name)

    def run() -> dict[str, tuple[str, float | None]]:
        done = here(*command, folder=tmp_path)
        rows = answers(tmp_path / "a.jsonl")
        found = {row["uri"]: (row["error"] or "", row["probability"]) for row in rows}
        assert len(found) == len(rows)
        assert done.returncode == (1 if any(error for error, _ in found.values()) else 0)
        assert ("no longer there" in done.stdout) == (not (folder / "named.jpg").exists())
        return found

    for name, frame in [("changed.jpg", 0), ("spoilt.jpg", 1), ("named.jpg", 2)]:
        put(name, frame)
    first = run()
    assert {error for error, _ in first.values()} == {""}

    put("changed.jpg", 3)
    (folder / "spoilt.jpg").write_text("no picture")
    (folder / "late.jpg").touch()
    (folder / "named.jpg").unlink()
    second = run()
    assert second["sd/named.jpg"] == first["sd/named.jpg"]
    assert second["sd/changed.jpg"][1] not in (None, first["sd/changed.jpg"][1])
    assert second["sd/spoilt.jpg"][0].startswith("not_an_image: ")
    assert second["sd/late.jpg"][0].startswith("empty: ")

    put("spoilt.jpg", 1)
    put("late.jpg", 1)
    third = run()
    assert third["sd/spoilt.jpg"] == first["sd/spoilt.jpg"]
    assert third["sd/late.jpg"] == ("", first["sd/spoilt.jpg"][1])
    assert {uri: third[uri] for uri in ("sd/named.jpg", "sd/changed.jpg")} == {
        uri: second[uri] for uri in ("sd/named.jpg", "sd/changed.jpg")
    }
    assert len(third) == 4


def test_another_list_for_the_same_output_is_refused(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", 3)
    command = (*SCORE, "-", "--cascade", write_cascade(tmp_path), "--out", "a.jsonl")
    first = "in/00000.jpg\nin/00001.jpg\n"
    assert here(*command, folder=tmp_path, stdin=first).returncode == 0
    before = (tmp_path / "a.jsonl").read_bytes()

    for other in ("in/00002.jpg\n", first + "in/00002.jpg\n", ""):
        refused = here(*command, folder=tmp_path, stdin=other)
        assert refused.returncode == 2
        assert "a run over another list on standard input; give another --out, or" in refused.stderr
        assert (tmp_path / "a.jsonl").read_bytes() == before

    again = here(*command, folder=tmp_path, stdin=first.replace("\n", "\0"))
    assert again.returncode == 0, again.stderr
    assert "going on: 2 images" in again.stderr
    anew = here(*command, "--restart", folder=tmp_path, stdin="in/00002.jpg\n")
    assert anew.returncode == 0
    assert [row["uri"] for row in answers(tmp_path / "a.jsonl")] == ["in/00002.jpg"]


def test_report_and_evaluation_follow_a_run(drive: Path, tmp_path: Path) -> None:
    (tmp_path / "cones.toml").write_text(CONES_CASCADE)
    options = ("--cascade", "cones.toml", "--out", "a.jsonl", "--report")
    scored = here(*SCORE, str(drive), *options, folder=tmp_path)
    assert scored.returncode == 0, scored.stderr
    assert "<html" in (tmp_path / "a.html").read_text()
    done = roadstream("evaluate", "a.jsonl", str(drive / "labels.csv"), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "MCC" in done.stdout
    as_json = here("evaluate", "a.jsonl", str(drive / "labels.csv"), "--json", folder=tmp_path)
    assert json.loads(as_json.stdout)["counts"]["answers"] == 6


def test_a_run_without_a_picture_fails_and_says_what_there_was(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/notes.txt").write_text("no picture")
    cascade = write_cascade(tmp_path)
    score = ["score", "in", "--cascade", cascade, "--workers", "1", "--out", "a.csv"]

    done = here(*score, folder=tmp_path)

    assert done.returncode == 1
    assert "1 left out: text (in/notes.txt)" in done.stdout
    assert "nothing to score: there is no picture and no video" in done.stderr
    write_pictures(tmp_path / "in", 1)
    assert here(*score, folder=tmp_path).returncode == 0
    assert here(*score, folder=tmp_path).returncode == 0  # nothing is new, and all is well
    assert here(*score[:1], "-", *score[2:-1], "b.csv", folder=tmp_path).returncode == 1


def test_streams_of_a_video_are_taken_as_asked_and_named_if_not(tmp_path: Path) -> None:
    film(tmp_path / "v.mp4", tenths(12), codecs=[("libx264", (160, 96)), ("libx264", (320, 192))])
    cascade = write_cascade(tmp_path)
    score = ["score", "v.mp4", "--cascade", cascade, "--workers", "1"]

    done = here(*score, "--out", "a.csv", folder=tmp_path)

    assert done.returncode == 0, done.stderr
    assert "v.mp4: stream 0 (160×96 h264) left out (--stream all judges it too)" in done.stdout
    assert len(answers(tmp_path / "a.csv")) == 2
    done = here(*score, "--out", "b.csv", "--stream", "all", folder=tmp_path)
    assert (done.returncode, "left out" in done.stdout) == (0, False)
    assert len(answers(tmp_path / "b.csv")) == 4
    assert here(*score, "--stream", "x", folder=tmp_path).returncode == 2
    other = here(*score, "--out", "b.csv", "--stream", "0", folder=tmp_path)
    assert "a run with stream 'all', not 0" in other.stderr


def test_a_run_without_a_member_is_another_run_and_its_answers_name_it(tmp_path: Path) -> None:
    write_drive(tmp_path / "drive", 3, width=320, height=180)
    arguments = ("score", "drive", "--cascade", "lite", "--out", "a.jsonl", "--workers", "1")

    done = here(*arguments, "--without", "cones", "--without", "look", folder=tmp_path)
    other = here(*arguments, folder=tmp_path)

    assert done.returncode == 0, done.stderr
    answers = list(read_answers(tmp_path / "a.jsonl"))
    assert [answer["missing"] for answer in answers] == [["cones"]] * 3
    assert {vote["tier"] for answer in answers for vote in answer["votes"]} <= {"glance", "closer"}
    assert all("degraded" in answer["flags"] for answer in answers)
    assert other.returncode == 2
    assert "cascade" in other.stderr
