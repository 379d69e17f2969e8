"""What was written comes back the same from every format; other files are refused clearly."""

import csv
import json
import math
import re
import tempfile
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from roadstream.schemas.errors import RunError, UsageError
from roadstream.schemas.records.answer import Answer, Flag, Latency, TierLatency, Vote
from roadstream.schemas.records.bounds import TAG_NAME
from roadstream.schemas.records.image import Head
from roadstream.schemas.records.votes import Box
from roadstream.sinks.columns import COLUMNS, PROMISED, AnswerRow, defaults, row
from roadstream.sinks.files.parquet import SCHEMA
from roadstream.sinks.files.readers import read_answers
from roadstream.sinks.files.text_input import marked, unmarked
from roadstream.sinks.sink import FORMATS, open_writer
from tests.kits.builders import answered
from tests.kits.examples import examples

TEXT = st.text(max_size=30) | st.sampled_from(
    ["<script>alert(1)</script>", 'a"b,c;d\n\r\n\t', "\x00\x1f", "=cmd()", "a\udcffb.jpg", "null"]
)
REAL = st.floats(width=64)
UNIT = st.floats(0.0, 1.0)
TIME = st.floats(0.0, 1e10)
WHOLE = st.integers(0, 2**53)
FLAGS: list[Flag] = ["partial", "degraded", "failed", "shadow"]
BOXES = st.builds(Box, UNIT, UNIT, UNIT, UNIT, UNIT, TEXT)
TAGS = st.dictionaries(
    st.from_regex(TAG_NAME, fullmatch=True), TEXT | st.text(";%=25B3\n", max_size=9), max_size=3
)
VOTES = st.lists(
    st.builds(
        Vote,
        tier=st.just("fast"),
        member=st.sampled_from(["net", "rule"]),
        model_version=st.just("1"),
        raw=REAL,
        probability=UNIT,
        weight=TIME,
        latency=TIME,
        batch_size=WHOLE,
        boxes=st.lists(BOXES, max_size=3),
        calibrated=st.booleans(),
        tags=TAGS,
    ),
    max_size=3,
)
ANSWERS = st.builds(
    answered,
    head=st.builds(
        Head,
        image_id=TEXT,
        uri=TEXT,
        session_id=st.none() | TEXT,
        frame_index=st.none() | WHOLE,
        captured_at=st.none() | REAL,
        latitude=st.none() | st.floats(-90, 90),
        sequence=st.none() | WHOLE,
    ),
    status=st.sampled_from(["answered", "partial", "failed"]),
    label=st.sampled_from(["roadwork", "none", None]),
    probability=st.none() | REAL,
    confidence=st.none() | UNIT,
    exit_tier=st.none() | st.just("fast"),
    votes=VOTES,
    shadow_votes=VOTES,
    disagreement=st.none() | REAL,
    flags=st.lists(st.sampled_from(FLAGS), max_size=3),
    missing=st.lists(st.just("net"), max_size=1),
    missing_tiers=st.lists(st.sampled_from(["power", "=precision"]), max_size=2),
    reasons=st.fixed_dictionaries({"fast": TEXT}),
    error=st.none() | TEXT,
    answered_at=TIME,
    latency=st.builds(
        Latency,
        total=TIME,
        joining=TIME,
        tiers=st.lists(st.builds(TierLatency, st.just("fast"), TIME, TIME, TIME), max_size=2),
    ),
)


def plain(image_id: str) -> Answer:
    latency = Latency(total=0.0, joining=0.0, tiers=[])
    return answered(head=Head(image_id=image_id), status="failed", latency=latency)


def written(path: Path, answers: list[Answer]) -> Path:
    with open_writer(path) as writer:
        writer.write(answers)
    return path


@settings(max_examples=examples(60), deadline=None, phases=[Phase.explicit, Phase.generate])
@given(st.lists(ANSWERS, max_size=4))
def test_round_trip_is_the_same_in_all_formats(answers: list[Answer]) -> None:
    expected = [row(answer) for answer in answers]

    with tempfile.TemporaryDirectory() as folder:
        for suffix in FORMATS:
            path = written(Path(folder) / f"answers{suffix}", answers)
            assert list(read_answers(path)) == expected


def test_rows_copy_from_one_format_to_another(tmp_path: Path) -> None:
    first = written(tmp_path / "a.csv", [plain(str(n)) for n in range(3)])

    with open_writer(tmp_path / "b.parquet") as writer:
        writer.write_rows(list(read_answers(first)))

    assert list(read_answers(tmp_path / "b.parquet")) == list(read_answers(first))


def test_not_finite_numbers_are_null() -> None:
    vote = Vote("fast", "net", "1", math.inf, math.nan, 1.0, 0.0, 1)
    answer = answered(
        head=Head(image_id="a"),
        status="answered",
        probability=math.nan,
        votes=[vote],
        latency=Latency(total=0.0, joining=0.0, tiers=[]),
    )

    flat = row(answer)

    assert flat["probability"] is None
    assert flat["votes"][0]["raw"] is None
    assert flat["votes"][0]["probability"] is None


def test_votes_longer_than_a_csv_cell_usually_may_be_are_read(tmp_path: Path) -> None:
    boxes = [Box(0.1, 0.2, 0.3, 0.4, 0.5, "cone")] * 5000
    answer = answered(
        head=Head(image_id="a"),
        status="answered",
        votes=[Vote("fast", "net", "1", 0.0, 0.5, 1.0, 0.0, 1, boxes)],
        latency=Latency(total=0.0, joining=0.0, tiers=[]),
    )

    path = written(tmp_path / "answers.csv", [answer])

    assert len(next(read_answers(path))["votes"][0]["boxes"]) == 5000


def test_file_with_only_the_promised_columns_gets_defaults(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([row(plain("a"))], schema=SCHEMA)
    pq.write_table(table.select(list(PROMISED)), tmp_path / "answers.parquet")

    assert list(read_answers(tmp_path / "answers.parquet")) == [defaults() | {"image_id": "a"}]


def test_columns_of_others_are_left_out(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([row(plain("a"))], schema=SCHEMA)
    table = table.append_column("mine", pa.array([1]))
    pq.write_table(table, tmp_path / "answers.parquet")

    assert list(read_answers(tmp_path / "answers.parquet")) == [row(plain("a"))]


@pytest.mark.parametrize("suffix", FORMATS)
def test_file_that_holds_no_answers_is_refused_with_its_missing_columns(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"prices{suffix}"
    table = pa.table({"uri": ["a"], "status": ["answered"], "price": [1.0]})
    match suffix:
        case ".parquet":
            pq.write_table(table, path)
        case ".csv":
            pacsv.write_csv(table, path)
        case _:
            path.write_text('{"uri": "a", "status": "answered", "price": 1.0}\n')

    with pytest.raises(UsageError, match=r"no column image_id, session_id, frame_index, label,"):
        list(read_answers(path))


@pytest.mark.parametrize("suffix", FORMATS)
def test_garbage_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"answers{suffix}"
    path.write_bytes(bytes(range(256)) * 10)

    with pytest.raises(UsageError, match=f"answers\\{suffix}: .*(expected|column)"):
        list(read_answers(path))


def test_wrong_value_is_refused_with_line_and_column(tmp_path: Path) -> None:
    jsonl = written(tmp_path / "answers.jsonl", [plain("a"), plain("b")])
    jsonl.write_text(jsonl.read_text().replace('"flags":[]', '"flags":7'))
    table = written(tmp_path / "answers.csv", [plain("a")])
    table.write_text(table.read_text().replace(",failed,", ",failed,,high,"))

    with pytest.raises(UsageError, match=r"line 1: column flags: Expected `array`, got `int`"):
        list(read_answers(jsonl))
    with pytest.raises(UsageError, match=r"line 2: expected 31 cells"):
        list(read_answers(table))


def test_parquet_with_another_type_is_refused_with_its_column(tmp_path: Path) -> None:
    columns = {name: pa.array(["x"]) for name in PROMISED}
    pq.write_table(pa.table(columns), tmp_path / "answers.parquet")

    with pytest.raises(UsageError, match="expected the column types of an answers file"):
        list(read_answers(tmp_path / "answers.parquet"))


def test_missing_file_folder_and_suffix_are_usage_errors(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()

    with pytest.raises(UsageError, match="found nothing there"):
        list(read_answers(tmp_path / "none.csv"))
    with pytest.raises(UsageError, match="got a folder"):
        list(read_answers(tmp_path / "folder.csv"))
    with pytest.raises(UsageError, match=r"ending in \.parquet, \.jsonl or \.csv, got \.txt"):
        list(read_answers(tmp_path / "answers.txt"))


def test_unreadable_file_is_a_run_error(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.symlink_to(path)

    with pytest.raises(RunError, match=r"cannot be read: Too many levels"):
        list(read_answers(path))


def _peak(path: Path) -> int:
    tracemalloc.start()
    count = sum(1 for _ in read_answers(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count
    return peak


@pytest.mark.parametrize("suffix", FORMATS)
def test_reading_does_not_take_memory_with_the_number_of_rows(tmp_path: Path, suffix: str) -> None:
    small = written(tmp_path / f"small{suffix}", [plain(str(n)) for n in range(600)])
    large = written(tmp_path / f"large{suffix}", [plain(str(n)) for n in range(3_000)])
    _peak(small)

    assert _peak(large) < 1.5 * _peak(small) + 100_000


def test_rows_are_rows() -> None:
    assert list(AnswerRow.__annotations__) == list(row(plain("a"))) == list(defaults())


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_from_before_votes_had_texts_is_read(suffix: str, tmp_path: Path) -> None:
    vote = Vote("fast", "net", "1", 1.0, 0.75, 1.0, 0.25, 4)
    one = row(answered(head=Head(image_id="a"), status="answered", votes=[vote]))
    del one["votes"][0]["text"]
    path = tmp_path / f"old{suffix}"
    with open_writer(path) as writer:
        writer.write_rows([one])

    (found,) = read_answers(path)

    assert found["votes"][0]["probability"] == 0.75
    assert not found["votes"][0].get("text")


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_from_before_answers_had_tags_and_their_way_is_read(
    suffix: str, tmp_path: Path
) -> None:
    """As the release before wrote it: without the last five columns, and votes without tags."""
    path = tmp_path / f"old{suffix}"
    vote = Vote("fast", "net", "1", 1.0, 0.75, 1.0, 0.25, 4, tags={"weather": "rain"})
    one = row(answered(head=Head(image_id="a"), status="answered", votes=[vote]))
    written_rows(path, one)
    _as_before(path)

    (found,) = read_answers(path)

    assert found["votes"][0]["probability"] == 0.75
    assert not found["votes"][0].get("tags")
    late = {name: found[name] for name in COLUMNS[-5:]}  # type: ignore[literal-required]
    assert late == {
        "tags": {}, "losing_members": [], "missing_tiers": [], "way": None, "effects": [],
    }  # fmt: skip


def written_rows(path: Path, one: AnswerRow) -> None:
    del one["votes"][0]["tags"]
    with open_writer(path) as writer:
        writer.write_rows([one])


def _as_before(path: Path) -> None:
    """Take the last five columns out of a file."""
    match path.suffix:
        case ".parquet":
            (one,) = pq.read_table(path).select(list(COLUMNS[:-5])).to_pylist()
            del one["votes"][0]["tags"]
            pq.write_table(pa.Table.from_pylist([one]), path)
        case ".csv":
            with path.open(newline="") as file:
                records = [record[:-5] for record in csv.reader(file)]
            with path.open("w", newline="") as file:
                csv.writer(file).writerows(records)
        case _:
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            old = [{name: one[name] for name in COLUMNS[:-5]} for one in rows]
            path.write_text("".join(f"{json.dumps(one)}\n" for one in old))


def test_an_image_s_tags_are_a_map_in_parquet_and_name_value_pairs_in_csv(tmp_path: Path) -> None:
    tags = {"weather": "rain", "light": "night", "text": "=HALT; 50% =x"}
    vote = Vote("fast", "net", "1", 1.0, 0.75, 1.0, 0.25, 4, tags=tags)
    answer = answered(head=Head(image_id="a"), status="answered", votes=[vote])

    table = pq.read_table(written(tmp_path / "a.parquet", [answer]))
    lines = json.loads(written(tmp_path / "a.jsonl", [answer]).read_text())
    with written(tmp_path / "a.csv", [answer]).open(newline="") as file:
        (record,) = csv.DictReader(file)

    assert table.schema.field("tags").type == pa.map_(pa.string(), pa.string())
    assert lines["tags"] == tags
    assert record["tags"] == "light=night;text==HALT%3B 50%25 =x;weather=rain"


def test_who_lost_which_tiers_are_missing_and_why_it_went_its_way_are_columns() -> None:
    cast = [
        Vote("one", "a", "1", 0.0, 0.9, 1.0, 0.0, 1),
        Vote("one", "b", "1", 0.0, 0.2, 1.0, 0.0, 1),
        Vote("two", "c", "1", 0.0, 0.4, 1.0, 0.0, 1),
    ]
    shadow = [Vote("two", "s", "1", 0.0, 0.1, 0.0, 0.0, 1)]
    reasons = {"one": "confidence < 0.86", "two": "=last tier"}
    said = answered(
        head=Head(image_id="a"),
        status="partial",
        probability=0.6,
        votes=cast,
        shadow_votes=shadow,
        reasons=reasons,
        missing_tiers=["power"],
    )

    flat = row(said)

    assert flat["losing_members"] == ["b", "c"]
    assert flat["missing_tiers"] == ["power"]
    assert flat["way"] == "one: confidence < 0.86 → two: =last tier"


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_answers_are_read_in_the_encodings_of_excel_and_powershell(
    tmp_path: Path, suffix: str, encoding: str
) -> None:
    path = written(tmp_path / f"answers{suffix}", [plain("é"), plain("=b")])
    expected = list(read_answers(path))
    path.write_bytes(path.read_bytes().decode().replace("\r\n", "\n").encode(encoding))

    assert list(read_answers(path)) == expected


def test_answers_that_a_spreadsheet_saved_again_are_read(tmp_path: Path) -> None:
    path = written(tmp_path / "answers.csv", [plain("a")])
    expected = list(read_answers(path))
    with path.open(newline="") as file:
        header, record = csv.reader(file)
    record = ["0,5" if cell == "0.5" else cell for cell in record]
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        rows = [[*header, "", ""], [*record, "", ""], [""] * (len(header) + 2)]
        csv.writer(file, delimiter=";").writerows(rows)

    assert list(read_answers(path)) == expected


def test_a_doubled_column_of_parquet_is_refused(tmp_path: Path) -> None:
    table = pq.read_table(written(tmp_path / "answers.parquet", [plain("a")]))
    pq.write_table(table.append_column("uri", table["uri"]), tmp_path / "doubled.parquet")

    with pytest.raises(UsageError, match="expected one column uri, got 2"):
        list(read_answers(tmp_path / "doubled.parquet"))


def test_a_doubled_column_of_answers_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "answers.csv", [plain("a")])
    path.write_text(path.read_text().replace("session_id", "uri"))

    with pytest.raises(UsageError, match="expected one column uri, got 2: columns 2 and 3"):
        list(read_answers(path))


@pytest.mark.parametrize(
    "name", ["=1+1", "+1", "-1", "@a", "\t=1", "\r=1", "＝1", "'=1", "''=1", "'a"]
)
def test_texts_that_look_like_formulas_are_marked_in_csv_and_come_back(
    tmp_path: Path, name: str
) -> None:
    path = written(tmp_path / "answers.csv", [plain(name)])

    with path.open(newline="") as file:
        cell = list(csv.reader(file))[1][0]
    assert cell[0] == "'"
    assert [row["image_id"] for row in read_answers(path)] == [name]


@given(st.text(max_size=6) | st.text("'=+-@\t\r\n＝a", max_size=6))
def test_marks_are_taken_off_exactly(text: str) -> None:
    assert unmarked(marked(text)) == text
    assert not re.match(r"[=+\-@\t\r\n＝＋－＠]", marked(text))
