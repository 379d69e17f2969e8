"""The ports that pictures come through: a ``Source`` finds them, a ``PayloadReader`` reads them.

A source of your own is one class in a distribution of yours, under an entry point of the group
``roadstream.sources`` that is named as its scheme in small letters::

    [project.entry-points."roadstream.sources"]
    sea = "my_package:SeaSource"

Then ``roadstream score sea://buoy-7`` takes pictures from it, and so do ``produce`` and
``roadstream.score``. ``examples/own_source`` is one.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, NamedTuple

import msgspec

from roadstream.schemas.errors import ImageError, UsageError
from roadstream.schemas.records.bounds import Count, Latitude, Longitude, Time, Uri
from roadstream.schemas.records.image import Payload, Unreadable
from roadstream.streams.sources.identity import display
from roadstream.streams.sources.places import FileState

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_MOST_NOTES = 50


@dataclass(frozen=True, slots=True)
class VideoOptions:
    """How videos are sampled.

    Attributes:
        encode: Turns RGB uint8 [H, W, 3] into a picture file's bytes; called once per picture.
        fps: Pictures per second of video; ``None`` takes the keyframes, and one picture in 10 s
            where they are farther apart.
        stream: The video stream to be taken, by its number in the file; ``None`` for the largest.
    """

    encode: "Callable[[npt.NDArray[np.uint8]], bytes]"
    fps: float | None = None
    stream: int | Literal["all"] | None = None

    def __post_init__(self) -> None:
        """Refuse what is no rate.

        Raises:
            UsageError: ``fps`` is not above 0.
        """
        if self.fps is not None and not self.fps > 0:
            raise UsageError(f"pictures per second of video: expected more than 0, got {self.fps}")


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """What a source may know of a run.

    Attributes:
        carry: ``reference`` points to pictures that can be referred to, ``inline`` puts their bytes
            into the records.
        max_inline: Largest picture, in bytes, to be carried inline.
        max_bytes: Largest picture, in bytes, to be referred to.
        video: How videos are sampled; ``None`` leaves them out.
    """

    carry: Literal["reference", "inline"] = "reference"
    max_inline: int = 8 << 20
    max_bytes: int = 64 << 20
    video: VideoOptions | None = None

    @property
    def limit(self) -> int:
        """Bytes of the largest picture that is not refused as ``too_large``."""
        return self.max_inline if self.carry == "inline" else self.max_bytes


@dataclass(slots=True)
class LeftOut:
    """What a scan comes by and does not give to be judged: by reason, and remarks on videos.

    Attributes:
        files: Per reason, how many there are and the first path of them.
        notes: What is missing of videos, each with its path; of very many, the first ones.
        more_notes: How many there are beyond them.
    """

    files: dict[str, tuple[int, str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    more_notes: int = 0

    def add(self, reason: str, path: str) -> None:
        """Count a file or folder that is left out."""
        number, first = self.files.get(reason, (0, path))
        self.files[reason] = (number + 1, min(first, path))

    def note(self, path: str, remark: str) -> None:
        """Keep a remark on a video."""
        if len(self.notes) < _MOST_NOTES:
            self.notes.append(f"{display(path)}: {remark}")
        else:
            self.more_notes += 1

    def lines(self) -> list[str]:
        """Say all of it for a person."""
        lines = list(self.notes)
        if self.more_notes:
            lines.append(f"… and {self.more_notes:,} more remarks on videos")
        for reason, (number, path) in sorted(self.files.items()):
            example = display(path) if number == 1 else f"e.g. {display(path)}"
            lines.append(f"{number:,} left out: {reason} ({example})")
        return lines


class Item(msgspec.Struct, frozen=True, gc=False):
    """A picture that a scan comes by, not read yet.

    Its id follows from its place and its content, so that the same picture has the same id in every
    run, and another picture at the same place has another one.

    Attributes:
        place: Where it is; the ``uri`` of its answer. One of another distribution begins with
            ``SCHEME://``. The same in every run, and of no two pictures of one run.
        load: Returns its bytes, an encoded picture; or its payload, where the source sees to how it
            is carried. Called once, before the next item is asked for, and only if the picture is
            to be sent. An ``ImageError`` is its answer; an ``OSError`` that may pass (``EIO``,
            ``ESTALE``, …) is tried again.
        state: What changes whenever the picture does, see ``state_of``: one that is unchanged since
            an earlier run is not loaded. ``None`` loads it each time.
        content: What tells its content from any other, 1 to 32 bytes, where not all of it is to be
            read for that; the SHA-256 of its bytes otherwise.
        reference: What the scheme's ``PayloadReader`` finds it by, on any machine; ``None`` if its
            bytes must be carried inline.
        session_id: The drive or folder it belongs to, if any.
        frame_index: Position in that, counted from 0.
        captured_at: Seconds into a video, or epoch seconds.
        latitude: Degrees, −90 to 90.
        longitude: Degrees, −180 to 180.
    """

    place: str
    load: Callable[[], bytes | Payload]
    state: FileState | None = None
    content: Annotated[bytes, msgspec.Meta(min_length=1, max_length=32)] | None = None
    reference: Uri | None = None
    session_id: Uri | None = None
    frame_index: Count | None = None
    captured_at: Time | None = None
    latitude: Latitude | None = None
    longitude: Longitude | None = None


class Container(NamedTuple):
    """What is no picture and has stood for some: a video, or a folder that could not be listed.

    Attributes:
        place: Where it is.
        content: The id of a video's content. When it changes, the answers of its former frames, at
            ``place#t=SECONDS``, are no longer those of this run. Empty for a folder.
    """

    place: str
    content: str = ""


class PayloadReader(ABC):
    """Reads pictures that records refer to by one scheme. A process makes one, without arguments.

    What it is asked to read was written by anyone who may write to the log: it must trust nothing.
    """

    @abstractmethod
    def read(self, path: str, roots: Sequence[Path] | None, max_bytes: int) -> bytes:
        """Return an encoded picture. Several threads may call it at a time.

        That its size and SHA-256 are those of the record is checked by who calls it.

        Args:
            path: As in the record: what ``Item.reference`` was.
            roots: Folders of this machine that may be read from, symlinks resolved; ``None`` for
                any. ``open_file`` of ``roadstream.streams.sources.payload`` keeps to them.
            max_bytes: Largest picture to be read.

        Raises:
            ImageError: It cannot be read, or must not be; see ``ImageFault`` for the kinds.
            OSError: Likewise. One that may pass is tried again.
        """


class Source(ABC):
    """Finds pictures: those of a word ``SCHEME://…``.

    Its constructor opens nothing. It may raise ``UsageError`` for what is no word of its scheme.

    A run that was interrupted begins the scan again. What makes that cheap, and each answer unique,
    are the items: the same ``place`` in every run, and a ``state`` by which what was sent before is
    not loaded again.

    Attributes:
        reader: Reads what its records refer to; ``None`` if they carry their pictures.
        word: The word, as it was typed.
        options: What it may know of the run.
    """

    reader: ClassVar[type[PayloadReader] | None] = None

    def __init__(self, word: str, options: SourceOptions) -> None:
        self.word, self.options = word, options

    @abstractmethod
    def scan(self, left_out: LeftOut) -> Iterator[Item | Container]:
        """Yield the pictures, in order, each when it is asked for: memory must not grow with them.

        A source opens what it needs here, in a ``with`` around its ``yield``: whoever stops early
        closes the iterator. A picture that is known to be there and cannot be read is an item whose
        ``load`` raises. A thread of its own runs it.

        Args:
            left_out: Told what is there and is no picture: ``left_out.add(reason, place)``.

        Raises:
            RoadstreamError: It cannot go on. So does any other error, under its name; the run ends
                and can be resumed.
        """

    def count(self) -> Iterator[int]:
        """Yield how many pictures there are, in steps, without reading them: for the time left.

        It is called on an object of its own, while another one scans. Nothing: nobody knows. An
        error is logged, and the run goes on.
        """
        return iter(())


def state_of(version: str | bytes) -> FileState:
    """Return the state of what has a version: an ETag, a checksum, a time of change."""
    data = version.encode() if isinstance(version, str) else version
    digest = hashlib.blake2b(data, digest_size=24).digest()
    return FileState(*(int.from_bytes(digest[i : i + 8], signed=True) for i in (0, 8, 16)))


def unreadable(
    place: str, error: ImageError, session: str | None = None, position: int | None = None
) -> Item:
    """Return the item of what cannot be read."""
    load = partial(Unreadable, error.fault, error.problem)
    return Item(place, load, session_id=session, frame_index=position)
