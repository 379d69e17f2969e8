"""Tell pictures, videos and other files apart: by their names, else by their first bytes."""

# Paths stay strings as the user spelled them.
# ruff: noqa: PTH116, PTH122, PTH123

import os
from typing import Literal, NamedTuple

from roadstream.streams.database import opened_here
from roadstream.streams.sources.beneath import READING
from roadstream.streams.sources.payload import absent, file_fault, irregular, ready
from roadstream.streams.sources.sniff import DECODABLE, describe, sniff

# fmt: off
IMAGE_SUFFIXES = frozenset([
    ".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".j2k", ".mpo", ".png", ".apng", ".webp", ".gif",
    ".bmp", ".dib", ".tif", ".tiff", ".avif", ".heic", ".heif", ".jxl", ".ppm", ".pgm", ".pnm",
])
VIDEO_SUFFIXES = frozenset([
    ".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts",
    ".3gp", ".wmv", ".flv", ".ogv", ".insv", ".360", ".lrv", ".h264", ".264", ".h265", ".265",
    ".hevc",
])
# Many begin as TIFF does, with a small picture in front; most lie beside a JPEG of the same scene.
_RAW_SUFFIXES = frozenset([
    ".dng", ".cr2", ".cr3", ".nef", ".nrw", ".arw", ".sr2", ".srf", ".orf", ".rw2", ".pef", ".raf",
    ".srw", ".3fr", ".fff", ".iiq", ".erf", ".kdc", ".dcr", ".mrw", ".x3f", ".raw", ".gpr",
])
# fmt: on
_TYPESCRIPT = frozenset({".ts", ".mts"})  # as TypeScript files are named too
_DATABASE_ENDS = ("-wal", "-shm", "-journal")  # beside a database; their locks are gone once closed
_TEXTS = frozenset({"text", "xml", "html", "json"})
_UNDECODED = frozenset({"heic", "jpegxl"})  # pictures that are to be seen, if by their failure
_HEAD = 4096


class Kind(NamedTuple):
    """What a file is.

    Attributes:
        what: How it is to be taken.
        said: For a person, where it is neither picture nor video.
    """

    what: Literal["picture", "video", "other"]
    said: str = ""


PICTURE, VIDEO = Kind("picture"), Kind("video")


def suffix(path: str) -> str:
    """Return a path's suffix in small letters, with its dot."""
    return os.path.splitext(path)[1].lower()


def kind_of(path: str) -> Kind:
    """Say what a file is; only one whose name does not tell is opened."""
    named = suffix(path)
    if named in IMAGE_SUFFIXES:
        return PICTURE
    if named in _RAW_SUFFIXES:
        return Kind("other", describe("raw"))
    if named in VIDEO_SUFFIXES and named not in _TYPESCRIPT:
        return VIDEO
    try:
        head = _head(path)
    except (OSError, ValueError) as error:
        return VIDEO if named in VIDEO_SUFFIXES else Kind("other", _problem(path, error))
    found = sniff(head)
    if named in VIDEO_SUFFIXES and found not in _TEXTS:
        return VIDEO
    return _kind(found) if head else Kind("other", "an empty file")


def _kind(found: str) -> Kind:
    if found in DECODABLE or found in _UNDECODED:
        return PICTURE
    return VIDEO if found == "video" else Kind("other", describe(found))


def _head(path: str) -> bytes:
    """Return a regular file's first bytes.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no regular file, or not to be opened; the words say so.
    """
    if path.endswith(_DATABASE_ENDS):
        raise ValueError(describe("database"))
    status = os.stat(path)
    if opened_here(status):
        raise ValueError("a file of this very run")
    _check_regular(status)  # before it is opened, which does something to some devices
    with open(os.open(path, READING), "rb") as file:
        _check_regular(os.fstat(file.fileno()))
        return ready(file.read(_HEAD))


def _check_regular(status: os.stat_result) -> None:
    if (what := irregular(status)) is not None:
        raise ValueError(what)


def _problem(path: str, error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return absent(path)
    return file_fault(error).problem if isinstance(error, OSError) else str(error)
