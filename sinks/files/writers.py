"""Files of answers, written beside their target and put in place whole when they are complete."""

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol, Self

import msgspec

from roadstream.schemas.errors import UsageError
from roadstream.schemas.records.answer import Answer
from roadstream.sinks.columns import COLUMNS, AnswerRow, row
from roadstream.sinks.files.atomic import AtomicFile
from roadstream.sinks.files.csv_table import marked

FORMATS = (".parquet", ".jsonl", ".csv")


class _Format(Protocol):
    """Turns rows to the bytes of one format, into an open binary file."""

    def add(self, rows: Sequence[AnswerRow]) -> None:
        """Write rows, or hold back a bounded number of them."""

    def finish(self) -> None:
        """Write what is held; the file stays open."""

    def abandon(self) -> None:
        """Let go of the file; never raises."""


class _JsonLines:
    """One JSON object per line."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._encoder = msgspec.json.Encoder()

    def add(self, rows: Sequence[AnswerRow]) -> None:
        self._file.write(self._encoder.encode_lines(rows))

    def finish(self) -> None: ...

    def abandon(self) -> None: ...


class _Csv:
    """RFC 4180: a header line, then a record per row; lists and structs are JSON in their cell.

    Texts that a spreadsheet could take for a formula are ``marked``.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._encoder = msgspec.json.Encoder()
        self._write([COLUMNS])

    def add(self, rows: Sequence[AnswerRow]) -> None:
        self._write([[self._cell(value) for value in row.values()] for row in rows])

    def finish(self) -> None: ...

    def abandon(self) -> None: ...

    def _write(self, records: Sequence[Sequence[object]]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text).writerows(records)
        self._file.write(text.getvalue().encode())

    def _cell(self, value: object) -> object:
        if isinstance(value, str):
            return marked(value)
        return self._encoder.encode(value).decode() if isinstance(value, list | dict) else value


class AnswerWriter:
    """An open file of answers; made by ``open_writer``.

    Rows go to a temporary file beside the target, and ``close`` puts it in place in one step.
    Until then, and whatever happens, the target is what it was before. A ``with`` block closes at
    its end, or aborts on an exception. Memory does not grow with the number of rows.

    Attributes:
        path: The target, with links resolved.
        rows: Rows taken so far.
    """

    def __init__(self, file: AtomicFile, form: _Format) -> None:
        self.path = file.path
        self.rows = 0
        self._file = file
        self._format = form
        self._open = True

    def write(self, answers: Sequence[Answer]) -> None:
        """Append answers in the order given.

        Raises:
            OutputError: The disk is full or the file can no longer be written; the temporary
                file is gone then.
        """
        self.write_rows([row(answer) for answer in answers])

    def write_rows(self, rows: Sequence[AnswerRow]) -> None:
        """Append rows as ``read_answers`` yields them; raises as ``write`` does."""
        if not self._open:
            raise ValueError(f"{self.path}: already closed")
        try:
            self._format.add(rows)
        except OSError as problem:
            self.abort()
            raise self._file.failure(problem) from problem
        self.rows += len(rows)

    def close(self) -> None:
        """Complete the file and put it in place; closing again does nothing.

        Raises:
            OutputError: The disk is full or the target cannot be replaced; the target is what it
                was before.
        """
        if not self._open:
            return
        try:
            self._format.finish()
        except OSError as problem:
            self.abort()
            raise self._file.failure(problem) from problem
        self._open = False
        self._file.commit()

    def abort(self) -> None:
        """Drop what was written and leave the target alone; never raises."""
        if self._open:
            self._open = False
            self._format.abandon()
            self._file.discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abort()


def open_writer(path: Path) -> AnswerWriter:
    """Open a file of answers for writing; its suffix says the format.

    Raises:
        UsageError: The suffix is none of ``FORMATS``, the path is a folder, or its folder does
            not exist.
        OutputError: The folder cannot be written to.
    """
    form = _format_of(path)
    file = AtomicFile(path)
    try:
        return AnswerWriter(file, form(file.file))
    except OSError as problem:
        file.discard()
        raise file.failure(problem) from problem


def check_output(path: Path) -> None:
    """Raise what ``open_writer`` would raise, before any work is done; leaves nothing behind."""
    open_writer(path).abort()


def _format_of(path: Path) -> Callable[[IO[bytes]], _Format]:
    match path.suffix.lower():
        case ".jsonl":
            return _JsonLines
        case ".csv":
            return _Csv
        case ".parquet":
            from roadstream.sinks.files.parquet import RowGroups

            return RowGroups
    raise UsageError(
        f"{path}: expected a name ending in {', '.join(FORMATS)}, got {path.suffix or 'no suffix'}"
    )
