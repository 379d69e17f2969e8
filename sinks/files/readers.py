"""Reads files of answers back, row by row, whatever their format."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast, get_type_hints

import msgspec

from roadstream.schemas.errors import RunError, UsageError
from roadstream.sinks.columns import COLUMNS, AnswerRow, check_columns, defaults
from roadstream.sinks.files.text_input import decimal, open_table, tags_of, unmarked, utf8_lines

BATCH = 512
"""Rows of a Parquet file held in memory at a time."""

_TYPES = get_type_hints(AnswerRow)


def read_answers(path: Path) -> Iterator[AnswerRow]:
    """Yield the rows of a file of answers in order; memory does not grow with their number.

    Columns that an older file lacks get their defaults; columns of other tools are left out.

    Raises:
        UsageError: No such file, a suffix that is none of the formats, or a file that does not
            hold answers; the message names the missing columns or the line that is wrong.
        RunError: The file cannot be read.
    """
    read = _reader_of(path)
    try:
        if path.is_dir():
            raise UsageError(f"{path}: expected a file of answers, got a folder")
        yield from read(path)
    except FileNotFoundError as problem:
        raise UsageError(f"{path}: expected a file of answers, found nothing there") from problem
    except OSError as problem:
        raise RunError(f"{path}: cannot be read: {problem.strerror or problem}") from problem


def _reader_of(path: Path) -> Callable[[Path], Iterator[AnswerRow]]:
    match path.suffix.lower():
        case ".jsonl":
            return _read_json_lines
        case ".csv":
            return _read_csv
        case ".parquet":
            return _read_parquet
    raise UsageError(
        f"{path}: expected a file of answers ending in .parquet, .jsonl or .csv, "
        f"got {path.suffix or 'no suffix'}"
    )


def _read_parquet(path: Path) -> Iterator[AnswerRow]:
    from roadstream.sinks.files.parquet import read_rows

    return read_rows(path, BATCH)


def _read_json_lines(path: Path) -> Iterator[AnswerRow]:
    decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
    where = str(path)
    with path.open("rb") as file:
        try:
            for number, line in enumerate(utf8_lines(file), start=1):
                if not line.strip():
                    continue
                where = f"{path}: line {number}"
                cells = decoder.decode(line)
                check_columns(where, list(cells))
                yield _row(where, {name: bytes(cells[name]) for name in COLUMNS if name in cells})
        except (msgspec.DecodeError, UnicodeError, RecursionError) as problem:
            raise UsageError(f"{where}: expected an answer as JSON: {problem}") from problem


def _read_csv(path: Path) -> Iterator[AnswerRow]:
    with open_table(path) as table:
        found = {name: table.column(name) for name in COLUMNS}
        places = {name: place for name, place in found.items() if place is not None}
        check_columns(str(path), list(places))
        for record in table:
            where = f"{path}: line {table.line}"
            if len(record) != len(table.header):
                raise UsageError(f"{where}: expected {len(table.header)} cells, got {len(record)}")
            cells = {name: _json(name, record[place]) for name, place in places.items()}
            yield _row(where, cells)


def _json(name: str, text: str) -> bytes:
    """Return a CSV cell as the JSON of its value: texts are quoted, and empty ones are null."""
    kind = _TYPES[name]
    if kind is str:
        return msgspec.json.encode(unmarked(text))
    if kind == dict[str, str]:
        return msgspec.json.encode(tags_of(unmarked(text)))
    if kind == (str | None):
        return msgspec.json.encode(unmarked(text) or None)
    if kind in (float, float | None):
        text = decimal(text)
    return text.encode() or b"null"


_DECODERS = {name: msgspec.json.Decoder(kind) for name, kind in _TYPES.items()}


def _row(where: str, cells: dict[str, bytes]) -> AnswerRow:
    row = cast("dict[str, object]", defaults())
    for name, text in cells.items():
        try:
            row[name] = _DECODERS[name].decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError) as problem:
            raise UsageError(f"{where}: column {name}: {problem}") from problem
    return cast("AnswerRow", row)
