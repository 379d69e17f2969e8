"""In which encoding a text file was kept: Excel and PowerShell choose others than UTF-8."""

import codecs
import io
from collections.abc import Iterator


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
