"""Parquet files of answers: their schema, how rows are written and how they are read back."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import cast

import pyarrow as pa
import pyarrow.parquet as pq

from roadstream.schemas.errors import UsageError
from roadstream.sinks.columns import COLUMNS, PROMISED, AnswerRow, defaults
from roadstream.sinks.files.atomic import FileSink

ROW_GROUP = 4096
"""Rows held back until they are written together: some MB with boxes, and scans stay fast."""


def _struct(**types: pa.DataType) -> pa.DataType:
    return pa.struct(list(types.items()))


_TEXT, _REAL, _WHOLE, _TIME = pa.string(), pa.float64(), pa.int64(), pa.float64()
_BOX = _struct(x1=_REAL, y1=_REAL, x2=_REAL, y2=_REAL, confidence=_REAL, label=_TEXT)
_FUSED = _struct(x1=_REAL, y1=_REAL, x2=_REAL, y2=_REAL, confidence=_REAL, label=_TEXT, tier=_TEXT)
_VOTE = _struct(
    tier=_TEXT,
    member=_TEXT,
    model_version=_TEXT,
    raw=_REAL,
    probability=_REAL,
    weight=_REAL,
    calibrated=pa.bool_(),
    latency=_TIME,
    batch_size=_WHOLE,
    boxes=pa.list_(_BOX),
    text=_TEXT,
)
_TIER = _struct(tier=_TEXT, queued=_TIME, decoding=_TIME, inferring=_TIME)

_TYPES: dict[str, pa.DataType] = {
    "image_id": _TEXT,
    "uri": _TEXT,
    "session_id": _TEXT,
    "frame_index": _WHOLE,
    "status": _TEXT,
    "label": _TEXT,
    "probability": _REAL,
    "confidence": _REAL,
    "exit_tier": _TEXT,
    "flags": pa.list_(_TEXT),
    "error": _TEXT,
    "latency": _struct(total=_TIME, joining=_TIME, tiers=pa.list_(_TIER)),
    "votes": pa.list_(_VOTE),
    "threshold": _REAL,
    "disagreement": _REAL,
    "missing": pa.list_(_TEXT),
    "shadow_votes": pa.list_(_VOTE),
    "captured_at": _TIME,
    "latitude": _REAL,
    "longitude": _REAL,
    "sequence": _WHOLE,
    "submitted_at": _TIME,
    "answered_at": _TIME,
    "cascade": _TEXT,
    "cascade_hash": _TEXT,
    "boxes": pa.list_(_FUSED),
}
SCHEMA = pa.schema(_TYPES)


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
            if absent := [name for name in PROMISED if name not in present]:
                raise UsageError(
                    f"{path}: expected a file of answers, but it has no column {', '.join(absent)}"
                )
            if doubled := [name for name in COLUMNS if present.count(name) > 1]:
                raise UsageError(
                    f"{path}: expected one column {doubled[0]}, got {present.count(doubled[0])}"
                )
            for rows in _batches(file, [name for name in COLUMNS if name in present], batch):
                for row in _typed(path, rows).to_pylist():
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
