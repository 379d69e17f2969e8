"""The three standard streams, and the consoles that print to them.

A terminal may not speak UTF-8, a service manager may close streams, a disk behind them may be full.
None of it costs any work.
"""

import codecs
import io
import os
import select
import sys
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.text import Text

from roadstream.schemas.errors import OutputError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

STANDARD_OUTPUT, STANDARD_ERROR = 1, 2
LEGIBLE = "roadstream-legible"
NARROWEST = 80
"""Columns: a terminal breaks the lines of a table that is wider; a narrower one lacks numbers."""
# What our own messages and tables hold beyond ASCII, as a typewriter has it.
_TYPED = {"–": "-", "—": "-", "−": "-", "…": "...", "·": "|", "×": "x", "≥": ">=", "≤": "<="}
_TYPED |= {"━": "=", "─": "-", "•": "*", "’": "'", "‘": "'", "“": '"', "”": '"', "→": "->"}
# What a terminal takes for commands, spelled out; names and headers come from anyone.
_COMMANDS = {
    code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code not in b"\t\n"
}

_BREAKS = {9: "\\t", 10: "\\n"}


def on_one_line(text: str) -> str:
    """Return a text whose control characters, tabs and line breaks included, are spelled out."""
    return text.translate(_COMMANDS | _BREAKS)


def _spelled(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return _TYPED.get(character) or ascii(character)[1:-1]


def _legible(error: UnicodeError) -> tuple[str, int]:
    """Spell in ASCII what a stream's encoding cannot show."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_spelled, error.object[error.start : error.end])), error.end


class _Output(io.FileIO):
    """Standard output: says once that it cannot be written, and swallows the rest."""

    def write(self, data: "ReadableBuffer", /) -> int:
        try:
            while (written := super().write(data)) is None:
                # Whoever it is shared with has made it non-blocking, as Node.js does with pipes.
                select.select((), (self,), ())
            return written
        except OSError as error:
            # What is still buffered must not fail again when the process ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), STANDARD_OUTPUT)
            if isinstance(error, BrokenPipeError):
                raise
            raise OutputError(f"standard output: cannot be written: {error.strerror}") from error


class _Messages(io.FileIO):
    """Standard error: drops what cannot be written.

    Its reader may die before us, as a supervisor that is killed does, and a disk may be full:
    neither is a reason to drop the work as well.
    """

    def write(self, data: "ReadableBuffer", /) -> int:
        try:
            written = super().write(data)
        except OSError:
            written = None
        # None as well where a reader that is slow has made the stream non-blocking.
        return memoryview(data).nbytes if written is None else written


def open_streams() -> None:
    """Make the standard streams fit to work with; call it before any file is opened.

    A closed stream is as ``/dev/null``: else the next file that is opened would be in its place.
    ``sys.stdin`` stays ``None`` if it was closed. Characters that an encoding lacks are spelled in
    ASCII.
    """
    codecs.register_error(LEGIBLE, _legible)
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdout = _text(_Output(STANDARD_OUTPUT, "w", closefd=False), sys.stdout)
    sys.stderr = _text(_Messages(STANDARD_ERROR, "w", closefd=False), sys.stderr)


def _text(raw: io.FileIO, before: TextIO | None) -> TextIO:
    encoding = "utf-8" if before is None else before.encoding
    lines = raw.fileno() == STANDARD_ERROR or raw.isatty()
    buffer = io.BufferedWriter(raw)
    return io.TextIOWrapper(buffer, encoding, LEGIBLE, "\n", line_buffering=lines)


def check_reader() -> None:
    """See whether anybody still reads standard output, without writing to it.

    Raises:
        BrokenPipeError: Nobody does, as after ``head``.
    """
    watched = select.poll()
    watched.register(STANDARD_OUTPUT, 0)
    if any(event & (select.POLLERR | select.POLLHUP) for _, event in watched.poll(0)):
        raise BrokenPipeError


class _Console(Console):
    """A console that spells out control characters of what it is given to print."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(text.translate(_COMMANDS), **options)


def console() -> Console:
    """Return the console for what people read while a command runs: standard error.

    Neither console takes brackets, colons or numbers in names for anything but themselves.
    """
    return _Console(stderr=True, markup=False, emoji=False, highlight=False)


def screen(width: int | None = None) -> Console:
    """Return the console for what a command was asked for: standard output."""
    made = _Console(file=sys.stdout, width=width, markup=False, emoji=False, highlight=False)
    made.width = max(made.width, NARROWEST)
    return made
