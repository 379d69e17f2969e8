"""The source of whatever is no word of a scheme: folders, files, globs, videos and path lists.

Order: arguments as given; in a folder its pictures and videos sorted by name (folders of more than
`listing.SORT_BOUND` such entries: as the file system lists them), then its subfolders likewise.
"""

# Paths stay strings as the user spelled them; Path would rewrite "./a" and "a//b", and costs more.
# ruff: noqa: PTH112, PTH116, PTH118, PTH120

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

from roadstream.schemas.errors import ImageError, UsageError
from roadstream.schemas.records.image import Payload, Reference
from roadstream.streams.sources import listing
from roadstream.streams.sources.identity import bad_name, display, portable
from roadstream.streams.sources.kinds import IMAGE_SUFFIXES, VIDEO, VIDEO_SUFFIXES, kind_of, suffix
from roadstream.streams.sources.payload import file_fault, hash_file, look, read_file, too_large
from roadstream.streams.sources.places import file_state, settled
from roadstream.streams.sources.source import (
    Container,
    Item,
    LeftOut,
    Source,
    SourceOptions,
    unreadable,
)


def picture_item(path: str, options: SourceOptions) -> Item:
    """Return a picture file that was asked for by name."""
    return FileSource([path], options).file(path, os.path.dirname(path) or None, 0)


@dataclass(slots=True)
class _Folder:
    """A folder on the way from an argument down to the files being scanned.

    ``inode`` tells it from its ancestors; ``subfolders`` are those still to come.
    """

    path: str
    inode: tuple[int, int]
    subfolders: Iterator[listing.Entry]


def _working_folder() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 (a string)
    except FileNotFoundError:  # then a relative path is that of no file; others need none
        return ""


class FileSource(Source):
    """Finds the pictures and videos of paths.

    Args:
        paths: Folders, files, globs, or ``-`` for a list of folders and files.
        options: How they are carried, and their limits.
        stdin: Where the list is read from; ``None`` for standard input.
        counted: Whether they are only counted: no file is looked at, and videos are left out.
    """

    def __init__(
        self,
        paths: Sequence[str],
        options: SourceOptions,
        stdin: BinaryIO | None = None,
        *,
        counted: bool = False,
    ) -> None:
        self._paths, self._options, self._stdin = paths, options, stdin
        self._counted, self._cwd = counted, _working_folder()
        self._left_out = LeftOut()
        # The drive that directly given files belong to, and how many of them came in a row.
        self._drive: str | None = None
        self._drive_length = 0

    def count(self) -> Iterator[int]:
        if "-" not in self._paths:  # a list on standard input can be read once only
            counted = FileSource(self._paths, SourceOptions(), counted=True)
            yield from (1 for found in counted.scan(LeftOut()) if isinstance(found, Item))

    def scan(self, left_out: LeftOut) -> Iterator[Item | Container]:
        """Yield them in the order of the paths.

        Raises:
            UsageError: A glob matches nothing, or the list on standard input is no list.
            MachineError: The machine has no file descriptor left.
        """
        self._left_out = left_out
        for path in self._paths:
            if path == "-":
                for listed in listing.read_list(self._stdin or listing.StandardInput()):
                    yield from self.given(listed)
            elif listing.is_glob(path):
                yield from self.glob(path)
            else:
                yield from self.given(path)

    def glob(self, pattern: str) -> Iterator[Item | Container]:
        """Scan what a glob matches. After ``**`` the folders are left to the glob itself."""
        matched = False
        deep = pattern.rstrip(os.sep).endswith("**")
        for path in listing.expand(pattern):
            matched = True
            if deep and os.path.isdir(path):
                continue
            yield from self.given(path)
        if not matched:
            raise UsageError(f"{display(pattern)} matches no file")

    def given(self, path: str) -> Iterator[Item | Container]:
        """Scan one path that was asked for by name, whatever its suffix."""
        if os.path.isdir(path):
            yield from self.folder(path)
        elif self.is_video(path):
            yield from self.video(path)
        else:
            drive = os.path.dirname(path) or None
            self._drive_length = self._drive_length + 1 if drive == self._drive else 0
            self._drive = drive
            yield self.file(path, drive, self._drive_length)

    def folder(self, top: str) -> Iterator[Item | Container]:
        """Scan a folder and all below it; a stack, not recursion, so that depth costs nothing."""
        stack: list[_Folder] = []
        pending: str | None = top
        while pending is not None or stack:
            if pending is not None:
                inode = _inode(pending)
                if inode is None or all(inode != above.inode for above in stack):
                    yield from self.pictures(pending)
                    subfolders = self.subfolders(pending)
                    stack.append(_Folder(pending, inode or (0, 0), subfolders))
                else:
                    self._left_out.add("a link to a folder that it lies in", pending)
            pending = self.next_subfolder(stack)

    def next_subfolder(self, stack: list[_Folder]) -> str | None:
        """Take the next subfolder of the deepest folder, or leave that folder."""
        entry = next(stack[-1].subfolders, None)
        if entry is not None:
            return os.path.join(stack[-1].path, entry.name)
        stack.pop()
        return None

    def subfolders(self, folder: str) -> Iterator[listing.Entry]:
        try:
            yield from listing.entries(folder, _is_subfolder)
        except OSError:  # its pictures could not be listed either, and that has been told
            return

    def pictures(self, folder: str) -> Iterator[Item | Container]:
        """Scan the files that lie directly in a folder."""
        session = folder.rstrip(os.sep) or folder
        position = 0
        try:
            for entry in listing.entries(folder, self.counts):
                path = os.path.join(folder, entry.name)
                if self.is_video(path) and not listing.is_folder(entry):
                    yield from self.video(path, sure=suffix(path) in VIDEO_SUFFIXES)
                else:
                    yield self.file(path, session, position)
                    position += 1
        except OSError as error:
            yield unreadable(folder, file_fault(error), session)
        else:
            yield Container(folder)  # an earlier scan may not have been able to list it

    def counts(self, entry: listing.Entry) -> bool:
        """Whether a folder's entry is a picture or video; note what is left out."""
        if listing.is_hidden(entry):
            self._left_out.add("hidden", entry.path)
            return False
        if suffix(entry.name) in IMAGE_SUFFIXES:
            return True
        if self._counted or listing.is_folder(entry):
            if listing.is_run(entry):
                self._left_out.add("the state of a run", entry.path)
            return False
        kind = kind_of(entry.path)
        if kind.what == "picture" or (kind.what == "video" and self._options.video is not None):
            return True
        self._left_out.add(kind.said or "a video", entry.path)
        return False

    def is_video(self, path: str) -> bool:
        return self._options.video is not None and kind_of(path) == VIDEO

    def video(self, path: str, *, sure: bool = True) -> Iterator[Item | Container]:
        """Scan a video; one that is called so by its bytes alone may be mere sound."""
        if (problem := bad_name(path)) is not None:
            yield unreadable(path, ImageError("bad_name", problem))
        elif self._options.video is not None:
            # Here, as loading FFmpeg takes long.
            from roadstream.streams.sources.video.source import VideoSource

            yield from VideoSource(path, self._options.video, sure=sure).scan(self._left_out)

    def file(self, path: str, session: str | None, position: int | None) -> Item:
        """Look at a picture file; return it as an item."""
        state = None
        if not self._counted:
            try:
                if (problem := bad_name(path)) is not None:
                    raise ImageError("bad_name", problem)
                now_ns = time.time_ns()
                status = look(path)
                if status.st_size > self._options.limit:
                    raise too_large(status.st_size, self._options.limit)
                state = settled(file_state(status), now_ns)
            except ImageError as error:
                return unreadable(path, error, session, position)
        load = partial(self._load, path)
        return Item(path, load, state, session_id=session, frame_index=position)

    def _load(self, path: str) -> bytes | Payload:
        if self._options.carry == "inline":
            return read_file(path, self._options.limit)
        size, digest = hash_file(path, self._options.limit)
        absolute = portable(os.path.join(self._cwd, path))
        return Reference(path=absolute, size=size, sha256=digest)


def _is_subfolder(entry: listing.Entry) -> bool:
    if listing.is_hidden(entry) or listing.is_run(entry):
        return False
    return suffix(entry.name) not in IMAGE_SUFFIXES and listing.is_folder(entry)


def _inode(folder: str) -> tuple[int, int] | None:
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return status.st_dev, status.st_ino
