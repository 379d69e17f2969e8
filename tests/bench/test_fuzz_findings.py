"""What the fuzzer found once: inputs that came out as something else than a documented error."""

from pathlib import Path

import pytest

from roadstream.bench.fuzz import seeds
from roadstream.schemas.cascade.loading import parse_cascade
from roadstream.schemas.errors import ConfigError, RunError, UsageError
from roadstream.sinks.files.readers import read_answers
from roadstream.streams.kafka.settings import load_kafka_settings
from roadstream.streams.ledgers.run_ledger import LedgerRow, RunLedger
from roadstream.workers.service.access.connect import open_log

NESTED = b"x = " + b"[" * 2000


def test_a_cascade_of_deeply_nested_arrays_is_no_toml_file() -> None:
    with pytest.raises(ConfigError, match=r"deep\.toml: expected a TOML file"):
        parse_cascade(NESTED, "deep.toml")


def test_kafka_settings_of_deeply_nested_arrays_are_no_toml_file(tmp_path: Path) -> None:
    path = tmp_path / "kafka.toml"
    path.write_bytes(NESTED)
    with pytest.raises(ConfigError, match="expected a TOML file"):
        load_kafka_settings(path)


@pytest.mark.parametrize(
    "url",
    ["kafka://[::1", "kafka://host:²", "kafka://host:٣", f"kafka://host:{'9' * 5000}"],
    ids=["half an address", "superscript", "other digits", "too many digits"],
)
def test_a_url_that_only_looks_like_one_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="--log: expected embedded:FILE or kafka://"):
        open_log(url)


def test_an_answer_with_bytes_that_are_no_text_names_its_line(tmp_path: Path) -> None:
    line = seeds.answer_file(tmp_path, ".jsonl").splitlines()[0]
    path = tmp_path / "answers.jsonl"
    path.write_bytes(line.replace(b'"lite"', b'"l\xffte"') + b"\n")
    with pytest.raises(UsageError, match=r"answers\.jsonl: line 1: column cascade: "):
        list(read_answers(path))


def test_a_parquet_file_with_a_column_whose_name_is_no_text_is_refused(tmp_path: Path) -> None:
    data = seeds.answer_file(tmp_path, ".parquet")
    path = tmp_path / "answers.parquet"
    path.write_bytes(data.replace(b"threshold", b"thres\xffold"))
    with pytest.raises(UsageError, match="expected a Parquet file of answers"):
        list(read_answers(path))


async def test_a_run_ledger_that_is_damaged_while_it_is_read_says_so(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    async with RunLedger(path) as ledger:
        rows = [LedgerRow(f"{i}", i, "answered", None, None, bytes(9000)) for i in range(40)]
        await ledger.record(rows, {})
    data = bytearray(path.read_bytes())
    data[5 * 16_384 :] = b"\xa5" * (len(data) - 5 * 16_384)
    path.write_bytes(data)
    with pytest.raises(RunError, match=r"ledger\.db: is damaged"):
        async with RunLedger(path) as ledger:
            list(ledger.answers(in_order=False))
