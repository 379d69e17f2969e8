"""Files of answers as text: JSON lines, and CSV."""

import csv
import io
from collections.abc import Sequence

import msgspec

from roadstream.sinks.columns import COLUMNS, AnswerRow
from roadstream.sinks.files.atomic import FileSink
from roadstream.sinks.files.text_input import marked, tags_cell


class JsonLinesSink(FileSink):
    """One JSON object per line."""

    def write(self, rows: Sequence[AnswerRow]) -> None:
        with self.file.writing() as file:
            file.write(msgspec.json.Encoder().encode_lines(rows))


class CsvSink(FileSink):
    """RFC 4180: a header line, then a record per row; lists and structs are JSON in their cell.

    An image's tags are ``name=value;name=value``, so that one is found by a text search.

    Texts that a spreadsheet could take for a formula are ``marked``.
    """

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self._write([COLUMNS])

    def write(self, rows: Sequence[AnswerRow]) -> None:
        cells = [row | {"tags": tags_cell(row["tags"])} for row in rows]
        self._write([[_cell(value) for value in row.values()] for row in cells])

    def _write(self, records: Sequence[Sequence[object]]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text).writerows(records)
        with self.file.writing() as file:
            file.write(text.getvalue().encode())


def _cell(value: object) -> object:
    if isinstance(value, str):
        return marked(value)
    return msgspec.json.encode(value).decode() if isinstance(value, list | dict) else value
