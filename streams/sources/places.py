"""Where pictures are found, and in which state: what tells an unchanged file without reading it."""

import os
from typing import NamedTuple

from roadstream.schemas.records.bounds import Whole
from roadstream.schemas.records.image import Image

# A file that was written so shortly before it was looked at may be written again without a trace:
# file systems stamp in ticks, the coarsest (FAT) of 2 s. Git calls such an entry racily clean.
SETTLING_NS = 2_000_000_000


class FileState(NamedTuple):
    """What changes with a file: bytes, and nanoseconds since the epoch."""

    size: Whole
    mtime_ns: Whole
    ctime_ns: Whole


def file_state(status: os.stat_result) -> FileState:
    """Return the state that a status shows."""
    return FileState(status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def settled(state: FileState, now_ns: int) -> FileState | None:
    """Return a state that can be trusted later; ``None`` where the file is too young for that.

    Args:
        state: What was seen.
        now_ns: Nanoseconds since the epoch, taken before it was seen.
    """
    old_enough = max(state.mtime_ns, state.ctime_ns) < now_ns - SETTLING_NS
    return state if old_enough else None


class Known(NamedTuple):
    """What stands at a place, as far as an earlier look has noted it.

    Attributes:
        image_id: The image of that place.
        state: That of its file then; ``None`` where it must be read again.
    """

    image_id: str
    state: FileState | None


class Scanned(NamedTuple):
    """One place that a scan came by.

    Attributes:
        place: The path as given; for a frame with its time, as in its uri.
        image: Its image; ``None`` for a file that is unchanged, and for what holds images.
        state: That of its file, if it can be trusted later.
        holds: For what holds images: the id of a video's content, or nothing for a folder.
    """

    place: str
    image: Image | None
    state: FileState | None = None
    holds: str | None = None
