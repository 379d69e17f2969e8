"""Turn folders, files, globs, videos and path lists into a lazy stream of image records.

Order: arguments as given; in a folder its pictures and videos sorted by name (folders of more than
`listing.SORT_BOUND` such entries: as the file system lists them), then its subfolders likewise.
"""

# Paths stay strings as the user spelled them; Path would rewrite "./a" and "a//b", and costs more.
# ruff: noqa: PTH112, PTH116, PTH118, PTH120

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, Literal

import msgspec

from roadstream.schemas.errors import ImageError, UsageError
from roadstream.schemas.records.image import (
    Head,
    Image,
    Inline,
    Lane,
    Payload,
    Reference,
    Unreadable,
)
from roadstream.streams.sources import listing
from roadstream.streams.sources.identity import (
    bad_name,
    display,
    fault_content,
    image_id,
    owned_id,
    portable,
)
from roadstream.streams.sources.kinds import IMAGE_SUFFIXES, VIDEO, VIDEO_SUFFIXES, kind_of, suffix
from roadstream.streams.sources.left_out import LeftOut
from roadstream.streams.sources.payload import (
    file_fault,
    hash_file,
    look,
    read_file,
    too_large,
    video_content,
)
from roadstream.streams.sources.places import Known, Scanned, file_state, settled

if TYPE_CHECKING:
    from roadstream.streams.sources.video_options import VideoOptions

Knower = Callable[[str], Known | None]
# Bytes of a SHA-256 that tell two pictures apart, as ``Head.content_hash`` has them.
HASH_BYTES = 16


@dataclass(frozen=True, slots=True)
class ScanOptions:
    """How files become records.

    Attributes:
        carry: ``reference`` points to the file, ``inline`` puts its bytes into the record.
        max_inline: Largest file, in bytes, to be carried inline.
        max_bytes: Largest picture file, in bytes, to be referred to.
        lane: Lane of the records.
        run_id: Job that asks.
        first_sequence: Sequence number of the first record.
        video: How to read videos; ``None`` leaves them out.
        stdin: Where the list for ``-`` is read from; ``None`` for standard input.
        known: What an earlier scan has noted about a place; a file that is unchanged since is not
            read again.
        owned: Whether the ids are the run's own: on a shared log another run may have had the same
            picture answered, and an id has one answer.
        counted: Whether the pictures are only counted: none is read, and no id tells the content.
    """

    carry: Literal["reference", "inline"] = "reference"
    max_inline: int = 8 << 20
    max_bytes: int = 64 << 20
    lane: Lane = "archive"
    run_id: str | None = None
    first_sequence: int = 0
    video: "VideoOptions | None" = None
    stdin: BinaryIO | None = None
    known: Knower | None = None
    owned: bool = False
    counted: bool = False


@dataclass(slots=True)
class ScanStats:
    """What a scan has met so far; another thread may look at it.

    Attributes:
        images: Pictures found, video frames and unreadable ones included.
        unchanged: Those of them whose files are unchanged since an earlier scan.
        unreadable: Those of them that could not be read.
        videos: Videos opened.
        left_out: What else there was, and why it is not judged.
    """

    images: int = 0
    unchanged: int = 0
    unreadable: int = 0
    videos: int = 0
    left_out: LeftOut = field(default_factory=LeftOut)


def scan(
    paths: Iterable[str], options: ScanOptions, stats: ScanStats | None = None
) -> Iterator[Image]:
    """Yield one record per picture or sampled video frame; a bad file yields an `Unreadable`.

    Each record is made when it is asked for: a picture is read for its id then. Memory does not
    grow with the number of files.

    Args:
        paths: Folders, files, globs, or ``-`` for a list of folders and files on standard input.
        options: How files become records.
        stats: Counted in as the scan goes.

    Raises:
        UsageError: A glob matches nothing, or the list on standard input is no list.
        MachineError: The machine has no file descriptor left.
    """
    return (found.image for found in scan_places(paths, options, stats) if found.image is not None)


def scan_places(
    paths: Iterable[str], options: ScanOptions, stats: ScanStats | None = None
) -> Iterator[Scanned]:
    """Yield what ``scan`` does with the places it comes from, and places that are unchanged."""
    return _Scan(options, stats if stats is not None else ScanStats()).arguments(paths)


def scan_picture(path: str, options: ScanOptions) -> Image:
    """Return the record of one picture file; an `Unreadable` where there is none.

    Raises:
        MachineError: The machine has no file descriptor left.
    """
    (found,) = _Scan(options, ScanStats()).file(path, os.path.dirname(path) or None, 0)
    assert found.image is not None  # nothing is known of an earlier scan
    return found.image


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


@dataclass(slots=True)
class _Scan:
    options: ScanOptions
    stats: ScanStats
    cwd: str = field(default_factory=_working_folder)
    # The drive that directly given files belong to, and how many of them came in a row.
    drive: str | None = None
    drive_length: int = 0

    def arguments(self, paths: Iterable[str]) -> Iterator[Scanned]:
        for path in paths:
            if path == "-":
                for listed in listing.read_list(self.options.stdin or listing.StandardInput()):
                    yield from self.given(listed)
            elif listing.is_glob(path):
                yield from self.glob(path)
            else:
                yield from self.given(path)

    def glob(self, pattern: str) -> Iterator[Scanned]:
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

    def given(self, path: str) -> Iterator[Scanned]:
        """Scan one path that was asked for by name, whatever its suffix."""
        if os.path.isdir(path):
            yield from self.folder(path)
        elif self.is_video(path):
            yield from self.video(path)
        else:
            drive = os.path.dirname(path) or None
            self.drive_length = self.drive_length + 1 if drive == self.drive else 0
            self.drive = drive
            yield from self.file(path, drive, self.drive_length)

    def folder(self, top: str) -> Iterator[Scanned]:
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
                    self.stats.left_out.add("a link to a folder that it lies in", pending)
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

    def pictures(self, folder: str) -> Iterator[Scanned]:
        """Scan the files that lie directly in a folder."""
        session = folder.rstrip(os.sep) or folder
        position = 0
        try:
            for entry in listing.entries(folder, self.counts):
                path = os.path.join(folder, entry.name)
                if self.is_video(path) and not listing.is_folder(entry):
                    yield from self.found_video(path)
                else:
                    yield from self.file(path, session, position)
                    position += 1
        except OSError as error:
            yield self.unreadable(folder, file_fault(error), session, None)
        else:
            if self.known(folder) is not None:  # it could not be listed then
                yield Scanned(folder, None, holds="")

    def counts(self, entry: listing.Entry) -> bool:
        """Whether a folder's entry is a picture or video; note what is left out."""
        if listing.is_hidden(entry):
            self.stats.left_out.add("hidden", entry.path)
            return False
        if suffix(entry.name) in IMAGE_SUFFIXES:
            return True
        if self.options.counted or listing.is_folder(entry):
            if listing.is_run(entry):
                self.stats.left_out.add("the state of a run", entry.path)
            return False
        kind = kind_of(entry.path)
        if kind.what == "picture" or (kind.what == "video" and self.options.video is not None):
            return True
        self.stats.left_out.add(kind.said or "a video", entry.path)
        return False

    def is_video(self, path: str) -> bool:
        return self.options.video is not None and kind_of(path) == VIDEO

    def found_video(self, path: str) -> Iterator[Scanned]:
        """Scan a video in a folder; one that is called so by its bytes alone may be mere sound."""
        sure = suffix(path) in VIDEO_SUFFIXES
        for scanned in self.video(path):
            payload = scanned.image.payload if scanned.image is not None else None
            if isinstance(payload, Unreadable) and payload.fault == "unsupported" and not sure:
                self.stats.left_out.add(payload.problem, path)
            else:
                yield scanned

    def file(self, path: str, session: str | None, position: int | None) -> Iterator[Scanned]:
        """Yield a picture's record."""
        try:
            if (problem := bad_name(path)) is not None:
                raise ImageError("bad_name", problem)
            yield self.picture(path, session, position)
        except ImageError as error:
            yield self.unreadable(path, error, session, position)

    def video(self, path: str) -> Iterator[Scanned]:
        """Yield the records of a video's frames."""
        if (problem := bad_name(path)) is not None:
            yield self.unreadable(path, ImageError("bad_name", problem), None, None)
        elif self.options.video is not None:
            yield from self.frames(path, self.options.video)

    def frames(self, path: str, options: "VideoOptions") -> Iterator[Scanned]:
        # Here, as loading FFmpeg takes long.
        from roadstream.streams.sources.video.source import read_frames, unreadable_video

        self.stats.videos += 1
        try:
            content = video_content(path)
        except ImageError as error:
            if error.fault != "missing":  # else its frames are still those of the file that was
                yield Scanned(path, None, holds=image_id(path, fault_content(error.fault)))
            yield self.frame(path, unreadable_video(path, error))
            return
        yield Scanned(path, None, holds=image_id(path, content))
        note = partial(self.stats.left_out.note, path)
        for image in read_frames(path, content, options, note):
            yield self.frame(path, image)

    def frame(self, path: str, image: Image) -> Scanned:
        self.stats.unreadable += isinstance(image.payload, Unreadable)
        head = msgspec.structs.replace(
            image.head,
            image_id=self.own(image.head.image_id),
            lane=self.options.lane,
            run_id=self.options.run_id,
            sequence=self.next_sequence(),
        )
        place = path + head.uri.removeprefix(display(path))
        return Scanned(place, Image(head, image.payload))

    def picture(self, path: str, session: str | None, position: int | None) -> Scanned:
        """Look at a picture file, and read it unless it is unchanged.

        Raises:
            ImageError: It is missing, empty, too large or no file.
        """
        now_ns = time.time_ns()
        status = look(path)
        limit = self.options.max_inline if self.inline else self.options.max_bytes
        if status.st_size > limit:
            raise too_large(status.st_size, limit)
        state = file_state(status)
        known = self.known(path)
        if known is not None and known.state == state:
            self.stats.unchanged += 1
            self.next_sequence()
            return Scanned(path, None)
        payload, content = self.read(path, status.st_size, limit)
        image = self.record(path, payload, content, session, position)
        return Scanned(path, image, settled(state, now_ns))

    def read(self, path: str, size: int, limit: int) -> tuple[Payload, bytes]:
        """Return a picture's payload, and the SHA-256 of its content."""
        absolute = portable(os.path.join(self.cwd, path))
        if self.options.counted:
            return Reference(path=absolute, size=size), b""
        if self.inline:
            data = read_file(path, limit)
            return Inline(data), hashlib.sha256(data).digest()
        size, digest = hash_file(path, limit)
        return Reference(path=absolute, size=size, sha256=digest), digest

    @property
    def inline(self) -> bool:
        return self.options.carry == "inline"

    def known(self, place: str) -> Known | None:
        return None if self.options.known is None else self.options.known(place)

    def own(self, image: str) -> str:
        return owned_id(self.options.run_id or "", image) if self.options.owned else image

    def unreadable(
        self, path: str, error: ImageError, session: str | None, position: int | None
    ) -> Scanned:
        self.stats.unreadable += 1
        payload = Unreadable(error.fault, error.problem)
        image = self.record(path, payload, fault_content(error.fault), session, position)
        return Scanned(path, image)

    def record(
        self,
        path: str,
        payload: Payload,
        content: bytes,
        session: str | None,
        position: int | None,
    ) -> Image:
        unread = isinstance(payload, Unreadable) or not content
        head = Head(
            image_id=self.own(image_id(path, content)),
            uri=display(path),
            session_id=display(session) if session is not None else None,
            frame_index=position,
            lane=self.options.lane,
            run_id=self.options.run_id,
            sequence=self.next_sequence(),
            content_hash=None if unread else content[:HASH_BYTES],
        )
        return Image(head, payload)

    def next_sequence(self) -> int:
        sequence = self.options.first_sequence + self.stats.images
        self.stats.images += 1
        return sequence


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
