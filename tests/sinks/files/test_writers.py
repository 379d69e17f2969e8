"""Files of answers appear whole or not at all, with the promised columns in every format."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from roadstream.schemas.errors import OutputError, UsageError
from roadstream.schemas.records.answer import Answer, Latency, TierLatency, Vote
from roadstream.schemas.records.image import Head
from roadstream.schemas.records.votes import Box
from roadstream.sinks.columns import COLUMNS, PROMISED
from roadstream.sinks.files.parquet import ROW_GROUP, SCHEMA
from roadstream.sinks.files.readers import read_answers
from roadstream.sinks.sink import FORMATS, check_output, open_writer
from tests.kits.builders import answered


def answer(number: int = 0, uri: str = "drive/a.jpg") -> Answer:
    return answered(
        head=Head(image_id=f"image-{number}", uri=uri, session_id="drive", frame_index=number),
        status="answered",
        label="roadwork",
        probability=0.75,
        confidence=0.5,
        exit_tier="fast",
        votes=[
            Vote(
                tier="fast",
                member="cone-rule",
                model_version="1",
                raw=1.25,
                probability=0.75,
                weight=1.0,
                latency=0.004,
                batch_size=8,
                boxes=[Box(0.1, 0.2, 0.3, 0.4, 0.9, "cone")],
            )
        ],
        latency=Latency(total=0.5, joining=0.125, tiers=[TierLatency("fast", 0.1, 0.2, 0.075)]),
    )


def write(path: Path, answers: Sequence[Answer]) -> None:
    with open_writer(path) as writer:
        writer.write(answers)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def interrupted(path: Path) -> None:
    with open_writer(path) as writer:
        writer.write([answer()])
        raise KeyboardInterrupt


def test_promised_columns_are_those_of_the_issue_in_its_order() -> None:
    assert ", ".join(PROMISED) == (
        "image_id, uri, session_id, frame_index, status, label, probability, confidence, "
        "exit_tier, flags, error, latency, votes"
    )


def test_every_format_has_the_same_columns_in_the_same_order(tmp_path: Path) -> None:
    for suffix in FORMATS:
        write(tmp_path / f"answers{suffix}", [answer()])

    parquet = pq.read_schema(tmp_path / "answers.parquet").names
    jsonl = list(json.loads((tmp_path / "answers.jsonl").read_text()))
    with (tmp_path / "answers.csv").open(newline="") as file:
        header = next(csv.reader(file))

    assert parquet == jsonl == header == list(COLUMNS)


def test_parquet_is_typed_and_written_in_row_groups(tmp_path: Path) -> None:
    path = tmp_path / "answers.parquet"

    with open_writer(path) as writer:
        for start in range(0, ROW_GROUP + 10, 700):
            writer.write([answer(n) for n in range(start, min(start + 700, ROW_GROUP + 10))])

    with pq.ParquetFile(path) as file:
        assert file.schema_arrow.equals(SCHEMA)
        groups = [file.metadata.row_group(n) for n in range(file.num_row_groups)]
    assert [group.num_rows for group in groups] == [ROW_GROUP, 10]
    assert groups[0].column(0).compression == "ZSTD"


def test_csv_holds_lists_and_structs_as_json(tmp_path: Path) -> None:
    write(tmp_path / "answers.csv", [answer()])

    with (tmp_path / "answers.csv").open(newline="") as file:
        record = next(csv.DictReader(file))

    assert json.loads(record["flags"]) == []
    assert json.loads(record["latency"])["tiers"][0]["decoding"] == 0.2
    assert json.loads(record["votes"])[0]["boxes"][0]["label"] == "cone"


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_empty_run_leaves_a_readable_file_without_rows(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"answers{suffix}"

    write(path, [])

    assert list(read_answers(path)) == []


@pytest.mark.parametrize("suffix", FORMATS)
def test_target_appears_only_on_close(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"answers{suffix}"
    path.write_text("before")

    with open_writer(path) as writer:
        writer.write([answer(n) for n in range(10)])
        during = path.read_text()

    assert during == "before"
    assert writer.rows == len(list(read_answers(path))) == 10
    assert names(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", FORMATS)
def test_exception_keeps_the_previous_file_and_no_rubbish(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"answers{suffix}"
    path.write_text("before")

    with pytest.raises(KeyboardInterrupt):
        interrupted(path)

    assert path.read_text() == "before"
    assert names(tmp_path) == [path.name]


def test_target_behind_a_link_is_replaced_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "latest.jsonl"
    link.symlink_to("real/answers.jsonl")

    write(link, [answer()])

    assert link.is_symlink()
    assert len(list(read_answers(tmp_path / "real" / "answers.jsonl"))) == 1


def test_temporary_file_of_a_killed_process_is_removed(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    (tmp_path / f".answers.csv.{process.pid}.part").write_text("left over")
    (tmp_path / f".answers.csv.{os.getppid()}.part").write_text("somebody writes this now")
    (tmp_path / ".answers.csv.mine.part").write_text("not ours")

    write(tmp_path / "answers.csv", [answer()])

    assert names(tmp_path) == [
        f".answers.csv.{os.getppid()}.part",
        ".answers.csv.mine.part",
        "answers.csv",
    ]


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from roadstream.schemas.errors import OutputError
from roadstream.schemas.records.answer import Answer
from roadstream.schemas.records.image import Head
from roadstream.sinks.sink import open_writer

path = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
answers = [
    Answer(head=Head(image_id=f"{n * 7919:x}" * 40), status="failed", error=f"missing: {n}")
    for n in range(1000)
]
try:
    with open_writer(path) as writer:
        for _ in range(20):
            writer.write(answers)
except OutputError as error:
    print(error)
"""


@pytest.mark.parametrize("suffix", FORMATS)
def test_full_disk_is_one_line_and_keeps_the_previous_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"answers{suffix}"
    path.write_text("before")

    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", FULL_DISK, path],
        capture_output=True,
        text=True,
        check=True,
    )

    assert result.stdout == f"{path}: expected a file that can be written: File too large\n"
    assert result.stderr == ""
    assert path.read_text() == "before"
    assert names(tmp_path) == [path.name]


def test_folder_that_vanishes_while_writing_is_an_output_error(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    writer = open_writer(folder / "answers.jsonl")
    writer.write([answer()])
    folder.rename(tmp_path / "elsewhere")

    with pytest.raises(OutputError, match=r"out/answers\.jsonl: .*No such file"):
        writer.close()


def test_missing_folder_unknown_suffix_and_a_folder_as_target_are_usage_errors(
    tmp_path: Path,
) -> None:
    (tmp_path / "folder.csv").mkdir()

    with pytest.raises(UsageError, match=r"expected an existing folder .*/none"):
        open_writer(tmp_path / "none" / "answers.csv")
    with pytest.raises(UsageError, match=r"ending in \.parquet, \.jsonl, \.csv, got \.xlsx"):
        open_writer(tmp_path / "answers.xlsx")
    with pytest.raises(UsageError, match="got no suffix"):
        open_writer(tmp_path / "answers")
    with pytest.raises(UsageError, match="got a folder"):
        open_writer(tmp_path / "folder.csv")


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "link.csv").symlink_to("pipe.csv")

    for name in ("pipe.csv", "link.csv"):
        with pytest.raises(UsageError, match="got a device, pipe or socket"):
            open_writer(tmp_path / name)
    assert (tmp_path / "pipe.csv").is_fifo()


def test_folder_that_takes_no_files_is_an_output_error() -> None:
    with pytest.raises(OutputError, match="expected a file that can be written"):
        open_writer(Path("/proc/answers.csv"))  # not even root can make a file there


def test_name_that_is_too_long_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="File name too long"):
        open_writer(tmp_path / f"{'a' * 300}.csv")


def test_check_output_leaves_nothing_behind(tmp_path: Path) -> None:
    check_output(tmp_path / "answers.parquet")

    assert names(tmp_path) == []


def test_writing_after_close_is_refused(tmp_path: Path) -> None:
    writer = open_writer(tmp_path / "answers.csv")
    writer.close()
    writer.close()
    writer.abort()

    with pytest.raises(ValueError, match="already closed"):
        writer.write([answer()])
    assert (tmp_path / "answers.csv").exists()
