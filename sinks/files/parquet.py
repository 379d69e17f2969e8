"""Parquet files of answers: their schema, how rows are written and how they are read back."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import NoneType
from typing import Any, cast, get_args, get_origin, get_type_hints, is_typeddict

import pyarrow as pa
import pyarrow.parquet as pq

from roadstream.schemas.errors import UsageError
from roadstream.sinks.columns import COLUMNS, AnswerRow, check_columns, defaults
from roadstream.sinks.files.atomic import FileSink

ROW_GROUP = 4096
"""Rows held back until they are written together: some MB with boxes, and scans stay fast."""


_SIMPLE: dict[Any, pa.DataType] = {
    str: pa.string(),
    float: pa.float64(),
    int: pa.int64(),
    bool: pa.bool_(),
}


def _type(hint: Any) -> pa.DataType:
    """Return the type of a column, or of a field in it, as a row declares it; all may be null."""
    if (simple := _SIMPLE.get(hint)) is not None:
        return simple
    if get_origin(hint) is dict:
        return pa.map_(*map(_type, get_args(hint)))
    if is_typeddict(hint):
        return pa.struct([(name, _type(of)) for name, of in get_type_hints(hint).items()])
    inner = next(of for of in get_args(hint) if of is not NoneType)
    return pa.list_(_type(inner)) if get_origin(hint) is list else _type(inner)


SCHEMA = pa.schema([(name, _type(of)) for name, of in get_type_hints(AnswerRow).items()])


class ParquetSink(FileSink):
    """Typed Parquet, written a row group at a time; no more than that is held in memory."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        with self.file.writing() as file:
            self._writer = pq.ParquetWriter(file, SCHEMA, compression="zstd")
        self._rows: list[AnswerRow] = []

    def write(self, rows: Sequence[AnswerRow]) -> None:
        self._rows += rows
        while len(self._rows) >= ROW_GROUP:
            self._write_group()

    def commit(self) -> None:
        if self._rows:
            self._write_group()
        with self.file.writing():
            self._writer.close()
        super().commit()

    def abort(self) -> None:
        with suppress(OSError, pa.ArrowException):
            self._writer.close()
        super().abort()

    def _write_group(self) -> None:
        group, self._rows = self._rows[:ROW_GROUP], self._rows[ROW_GROUP:]
        with self.file.writing():
            self._writer.write_table(pa.Table.from_pylist(group, schema=SCHEMA))


def read_rows(path: Path, batch: int) -> Iterator[AnswerRow]:
    """Yield the rows of a Parquet file, ``batch`` of them in memory at a time.

    Raises:
        UsageError: The file is not Parquet, lacks columns, has one twice, or of another type.
        OSError: The file cannot be read.
    """
    try:
        with pq.ParquetFile(path) as file:
            present = file.schema_arrow.names
            check_columns(str(path), present)
            if doubled := [name for name in COLUMNS if present.count(name) > 1]:
                raise UsageError(
                    f"{path}: expected one column {doubled[0]}, got {present.count(doubled[0])}"
                )
            for rows in _batches(file, [name for name in COLUMNS if name in present], batch):
                for row in _typed(path, rows).to_pylist(maps_as_pydicts="strict"):
                    yield cast("AnswerRow", defaults() | row)
    # Names and texts of a damaged file need not be UTF-8.
    except (pa.ArrowException, UnicodeDecodeError) as problem:
        raise UsageError(f"{path}: expected a Parquet file of answers, got {problem}") from problem


def _batches(file: pq.ParquetFile, columns: list[str], size: int) -> Iterator[pa.RecordBatch]:
    """Yield the rows of one row group after another: a scan over all keeps buffers of each."""
    for group in range(file.num_row_groups):
        yield from file.iter_batches(batch_size=size, row_groups=[group], columns=columns)


def _typed(path: Path, rows: pa.RecordBatch) -> pa.RecordBatch:
    target = pa.schema([SCHEMA.field(name) for name in rows.schema.names])
    if rows.schema.equals(target):
        return rows
    try:
        return rows.cast(target)
    except pa.ArrowException as problem:
        raise UsageError(
            f"{path}: expected the column types of an answers file: {problem}"
        ) from problem
