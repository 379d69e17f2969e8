"""List folders, expand globs and read path lists lazily: memory stays flat for any archive."""

# Paths stay strings as the user spelled them; Path would rewrite "./a" and "a//b", and costs more.
# ruff: noqa: PTH110, PTH118, PTH206

import codecs
import fnmatch
import hashlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import BinaryIO, Protocol

from roadstream.schemas.errors import UsageError

# Entries of one folder that are held at once, to be sorted; a larger folder comes in its own order.
SORT_BOUND = 10_000
_MAX_LISTED_PATH = 1 << 20  # bytes; a longer “line” means that the list is no list
_CHUNK = 1 << 16
_MAGIC = re.compile(r"[*?[]")

Entry = os.DirEntry[str]


def entries(folder: str, wanted: Callable[[Entry], bool]) -> Iterator[Entry]:
    """Yield the entries of a folder that are ``wanted``.

    They come sorted by name if there are at most `SORT_BOUND` of them, otherwise in directory
    order.

    Raises:
        OSError: As ``os.scandir``, before the first entry or between two.
    """
    with os.scandir(folder or os.curdir) as found:
        chosen: Iterator[Entry] = (entry for entry in found if wanted(entry))
        first = list(islice(chosen, SORT_BOUND + 1))
        if len(first) <= SORT_BOUND:
            first.sort(key=lambda entry: entry.name)
            chosen = iter(())
        yield from chain(first, chosen)


def is_hidden(entry: Entry) -> bool:
    """Whether an entry is hidden by its name, as on Unix."""
    return entry.name.startswith(".")


def is_run(entry: Entry) -> bool:
    """Whether an entry is the folder in which ``score`` keeps the state of a run."""
    return entry.name.endswith(".roadstream") and os.path.exists(f"{entry.path}/ledger.db")


def is_folder(entry: Entry) -> bool:
    """Whether an entry is a folder or a symbolic link to one."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_glob(path: str) -> bool:
    """Whether a path argument is a pattern; a file of that very name comes first."""
    return _MAGIC.search(path) is not None and not os.path.lexists(path)


def expand(pattern: str) -> Iterator[str]:
    """Yield the paths that a glob matches, spelled as the pattern begins.

    ``*``, ``?`` and ``[…]`` match within a name, ``**`` any folders; hidden names are not matched
    and ``**`` follows no symbolic link. What cannot be listed matches nothing, as in a shell.
    """
    start = os.sep if pattern.startswith(os.sep) else ""
    parts = [part for part in pattern.split(os.sep) if part]
    return _expand(start, parts)


def _expand(base: str, parts: list[str]) -> Iterator[str]:
    if not parts:
        yield base
        return
    part, rest = parts[0], parts[1:]
    if part == "**":
        yield from _expand_deep(base, rest)
    elif _MAGIC.search(part) is None:
        path = os.path.join(base, part)
        if os.path.lexists(path):
            yield from _expand(path, rest)
    else:
        matches = re.compile(fnmatch.translate(part)).match
        for entry in _listable(
            base, lambda entry: bool(matches(entry.name)) and (not rest or is_folder(entry))
        ):
            yield from _expand(os.path.join(base, entry.name), rest)


def _expand_deep(base: str, rest: list[str]) -> Iterator[str]:
    """Match ``**``: the rest here, then in every folder below; bare ``**`` takes all files."""
    yield from _expand(base, rest or ["*"])
    for entry in _listable(base, lambda entry: entry.is_dir(follow_symlinks=False)):
        yield from _expand_deep(os.path.join(base, entry.name), rest)


def _listable(folder: str, wanted: Callable[[Entry], bool]) -> Iterator[Entry]:
    try:
        yield from entries(folder, lambda entry: not is_hidden(entry) and wanted(entry))
    except OSError:
        return


class Readable(Protocol):
    """What a list is read from."""

    def read(self, size: int, /) -> bytes:
        """Return at most so many bytes; none at the end."""


class StandardInput:
    """Standard input without a byte order mark; UTF-16, as PowerShell keeps lists, becomes UTF-8.

    Reading raises ``UsageError`` where it is closed or cannot be read.
    """

    def __init__(self) -> None:
        self._begun = False
        self._decoder: codecs.IncrementalDecoder | None = None

    def read(self, size: int, /) -> bytes:
        """Return at most about so many bytes; none at the end."""
        if sys.stdin is None:
            raise UsageError("-: expected a list on standard input, which is closed")
        try:
            data = sys.stdin.buffer.read(size)
            if not self._begun:
                data = self._begin(data)
            if self._decoder is None:
                return data
            return self._decoder.decode(data, final=not data).encode()
        except (OSError, UnicodeError) as error:
            reason = (isinstance(error, OSError) and error.strerror) or error
            raise UsageError(f"-: expected a list on standard input: {reason}") from error

    def _begin(self, data: bytes) -> bytes:
        self._begun = True
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            self._decoder = codecs.getincrementaldecoder("utf-16")()
        return data.removeprefix(codecs.BOM_UTF8)


def read_list(stream: Readable) -> Iterator[str]:
    """Yield the paths of a list: one per line, or NUL-separated if a NUL comes in its beginning.

    Empty lines are left out.

    Raises:
        UsageError: The list is no list of paths.
    """
    pending = stream.read(_CHUNK)
    separator = b"\0" if b"\0" in pending else b"\n"
    while True:
        *complete, pending = pending.split(separator)
        for line in complete:
            yield from _listed(line, separator)
        chunk = stream.read(_CHUNK)
        if not chunk:
            yield from _listed(pending, separator)
            return
        pending += chunk
        if len(pending) > _MAX_LISTED_PATH:
            raise UsageError(
                "list on standard input: expected one path per line, got a line "
                f"of more than {_MAX_LISTED_PATH:,} bytes"
            )


class _Copying:
    """A stream whose bytes are kept in a file as they are read."""

    def __init__(self, stream: Readable, file: BinaryIO) -> None:
        self._stream, self._file = stream, file

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._file.write(data)
        return data


def keep_list(stream: Readable, file: BinaryIO) -> str:
    """Copy a list of paths to a file, and go back to its beginning; return what tells the list.

    That is the SHA-256 of its paths, however they are separated.

    Raises:
        UsageError: The list is no list of paths.
        OSError: The file cannot be written.
    """
    found = hashlib.sha256()
    for path in read_list(_Copying(stream, file)):
        found.update(os.fsencode(path) + b"\0")
    file.seek(0)
    return found.hexdigest()


def _listed(line: bytes, separator: bytes) -> Iterator[str]:
    if separator == b"\n":
        line = line.removesuffix(b"\r").replace(b"\0", b"")
    if line:
        yield os.fsdecode(line)
