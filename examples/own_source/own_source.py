"""A source of your own: the pictures in a ZIP archive, as ``zip://PATH``."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from zipfile import BadZipFile, ZipFile, ZipInfo

from roadstream.schemas.errors import ImageError, RunError, UsageError
from roadstream.streams.sources.payload import open_file
from roadstream.streams.sources.source import (
    Item,
    LeftOut,
    PayloadReader,
    Source,
    SourceOptions,
    state_of,
)

SCHEME, SUFFIXES = "zip://", (".jpg", ".jpeg", ".png", ".webp")


class ZipReader(PayloadReader):
    """Reads a picture that a record refers to, as ``zip:///folder/archive.zip#name``."""

    def read(self, path: str, roots: Sequence[Path] | None, max_bytes: int) -> bytes:
        """Return the picture; ``open_file`` keeps to the folders that may be read from."""
        stem, _, name = path.removeprefix(SCHEME).partition(".zip#")
        archive = f"{stem}.zip"
        try:
            with open_file(archive, roots) as file, ZipFile(file) as opened:
                return read_member(opened, opened.getinfo(name), max_bytes)
        except KeyError:
            raise ImageError("missing", f"{archive} holds no {name}") from None
        except BadZipFile as error:
            raise ImageError("unreadable", f"{archive}: {error}") from None


class ZipSource(Source):
    """Finds the pictures in a ZIP archive, in its own order."""

    reader = ZipReader

    def __init__(self, word: str, options: SourceOptions) -> None:
        super().__init__(word, options)
        self._path = Path(word.removeprefix(SCHEME))
        if self._path.suffix != ".zip":
            raise UsageError(f"{word}: expected the path of a .zip file after {SCHEME}")

    def scan(self, left_out: LeftOut) -> Iterator[Item]:
        """Yield a picture per member; the archive is open as long as they are asked for."""
        if not self._path.is_file():
            raise RunError(f"{self.word}: expected an archive, found none")
        with ZipFile(self._path) as opened:
            for index, member in enumerate(opened.infolist()):
                place = f"{self.word}#{member.filename}"
                if member.filename.lower().endswith(SUFFIXES):
                    yield Item(
                        place,
                        partial(read_member, opened, member, self.options.max_bytes),
                        state_of(f"{member.file_size} {member.CRC}"),
                        reference=f"{SCHEME}{self._path.absolute()}#{member.filename}",
                        session_id=self.word,
                        frame_index=index,
                    )
                elif not member.is_dir():
                    left_out.add("no picture by its name", place)

    def count(self) -> Iterator[int]:
        """Yield how many there are."""
        with ZipFile(self._path) as opened:
            yield sum(name.lower().endswith(SUFFIXES) for name in opened.namelist())


def read_member(opened: ZipFile, member: ZipInfo, max_bytes: int) -> bytes:
    """Return a member's bytes.

    Raises:
        ImageError: It is too large, or damaged.
    """
    if member.file_size > max_bytes:
        raise ImageError("too_large", f"{member.file_size:,} bytes; at most {max_bytes:,}")
    try:
        return opened.read(member)
    except (BadZipFile, NotImplementedError, RuntimeError) as error:  # RuntimeError: encrypted
        raise ImageError("unreadable", str(error)) from None
