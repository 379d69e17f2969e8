"""Text files as people keep them: their encoding, CSV, and cells that are no formula."""

import codecs
import csv
import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from roadstream.schemas.errors import UsageError

LONGEST_CELL = 1 << 27
"""Bytes: the votes of an image stand in one CSV cell, where the csv module allows 128 KiB."""
_DELIMITERS = ",;\t"  # of which Excel chooses by the country, and for “Unicode text”
_SEPARATOR_LINE = re.compile(r"sep=(.)\s*", re.IGNORECASE)
_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
"""What may be a formula to a spreadsheet, behind any marks:
https://owasp.org/www-community/attacks/CSV_Injection."""


def marked(text: str) -> str:
    """Return a text with an apostrophe before it if a spreadsheet could take it for a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def unmarked(text: str) -> str:
    """Return the text that ``marked`` made a cell of."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def tags_cell(tags: Mapping[str, str]) -> str:
    """Return tags as a cell, ``name=value;name=value``; in values ``%`` is %25 and ``;`` is %3B."""
    pairs = ((name, value.replace("%", "%25").replace(";", "%3B")) for name, value in tags.items())
    return ";".join(f"{name}={value}" for name, value in pairs)


def tags_of(cell: str) -> dict[str, str]:
    """Return the tags that ``tags_cell`` made a cell of."""
    pairs = [pair.partition("=") for pair in cell.split(";") if pair]
    return {name: value.replace("%3B", ";").replace("%25", "%") for name, _, value in pairs}


def decimal(text: str) -> str:
    """Return a number as JSON has it, if a spreadsheet has written it with a decimal comma."""
    return text.replace(",", ".") if "." not in text and text.count(",") == 1 else text


class Table:
    """An open CSV file: its header was read.

    Attributes:
        path: The file.
        header: Names of the columns, without what surrounds them; those at the end that have no
            name are left out.
    """

    def __init__(self, path: Path, file: io.TextIOBase) -> None:
        self.path = path
        head, self._before = file.readline(), 0
        if separator := _SEPARATOR_LINE.fullmatch(head):
            head, self._before = file.readline(), 1
        delimiter = separator[1] if separator else _delimiter(head)
        self._records = csv.reader(_from(head, file), delimiter=delimiter, strict=True)
        self.header = [name.strip("\ufeff \t\xa0") for name in next(self._records, [])]
        while self.header and not self.header[-1]:
            self.header.pop()

    @property
    def line(self) -> int:
        """Number of the line that was read last."""
        return self._before + self._records.line_num

    def __iter__(self) -> Iterator[list[str]]:
        """Yield the cells of each record that has any, without empty ones beyond the header."""
        width = len(self.header)
        for record in self._records:
            if any(map(str.strip, record)):
                yield record if any(record[width:]) else record[:width]

    def column(self, name: str) -> int | None:
        """Return the place of a column, whatever its case; ``None`` if there is none.

        Raises:
            UsageError: There are several.
        """
        found = [place for place, each in enumerate(self.header) if each == name] or [
            place for place, each in enumerate(self.header) if each.lower() == name.lower()
        ]
        if len(found) > 1:
            places = " and ".join(str(place + 1) for place in found)
            raise UsageError(
                f"{self.path}: expected one column {name}, got {len(found)}: columns {places}"
            )
        return found[0] if found else None


@contextmanager
def open_table(path: Path) -> Iterator[Table]:
    """Open a CSV file in UTF-8 or UTF-16, its cells ended by comma, semicolon or tab.

    Raises:
        UsageError: It is no CSV file; also from within the block, while records are read.
        OSError: It cannot be read.
    """
    csv.field_size_limit(LONGEST_CELL)
    table = None
    with path.open("rb") as file:
        try:
            with io.TextIOWrapper(file, encoding_of(file), newline="") as text:
                table = Table(path, text)
                yield table
        except (csv.Error, UnicodeError) as problem:
            where = f"{path}: line {table.line}" if table else str(path)
            raise UsageError(f"{where}: expected CSV in UTF-8 or UTF-16: {problem}") from problem


def _from(line: str, rest: io.TextIOBase) -> Iterator[str]:
    yield line
    yield from rest


def _delimiter(header: str) -> str:
    """Return what ends the cells of a header: it gives more of them than anything else would."""
    return max(_DELIMITERS, key=lambda one: len(next(csv.reader([header], delimiter=one), [])))


def encoding_of(file: io.BufferedReader) -> str:
    """Return the encoding of a file that nothing was read from yet; a pipe is fine.

    UTF-16 is recognised by its byte order mark, or by the zero in its first character.
    """
    start = file.peek(2)[:2]
    if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return "utf-16"
    if len(start) == 2 and 0 in start and any(start):
        return "utf-16-be" if start[0] == 0 else "utf-16-le"
    return "utf-8-sig"  # with a mark or without


def utf8_lines(file: io.BufferedReader) -> Iterator[bytes]:
    """Yield the lines of a file in UTF-8, whatever it is in.

    Raises:
        UnicodeError: UTF-16 that is none; UTF-8 is not checked.
    """
    encoding = encoding_of(file)
    if encoding == "utf-8-sig":
        yield file.readline().removeprefix(codecs.BOM_UTF8)
        yield from file
        return
    with io.TextIOWrapper(file, encoding, newline="\n") as text:
        for line in text:
            yield line.encode()
