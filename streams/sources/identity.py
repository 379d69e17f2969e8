"""Names of pictures: the uri that people see, and the id that follows from it and the content."""

import hashlib
import os
import unicodedata
from urllib.parse import quote_from_bytes, unquote_to_bytes

from roadstream.schemas.records.bounds import MOST_URI

# Of a path, in characters: the time of a frame must still fit behind it.
MOST_SHOWN = MOST_URI - 64
# Without a host, see RFC 8089.
_FILE_URI = "file://"


def image_id(uri: str, content: bytes) -> str:
    """Derive an image id: 32 hexadecimal digits, the same on every run and machine.

    Args:
        uri: Where the picture is, as given; two places of one content are two images.
        content: What tells the content from any other, at most 64 bytes: the SHA-256 of a picture,
            what ``video_content`` returns for a video's frame, or what ``fault_content`` does.
    """
    return hashlib.blake2b(os.fsencode(uri), key=content, digest_size=16).hexdigest()


def fault_content(fault: str, content: bytes = b"") -> bytes:
    """Return what stands for the content of what cannot be read: the kind of its fault.

    Args:
        fault: One of ``ImageFault``.
        content: Content of the video of which a part cannot be decoded.
    """
    return content + fault.encode()


def owned_id(owner: str, image: str) -> str:
    """Derive the id that a picture has in one run, where other runs share the log."""
    return path_id(f"{owner}/{image}")


def next_id(image: str) -> str:
    """Derive the id under which a picture is sent again: what has its answer gets no second one."""
    return path_id(f"again/{image}")


def path_id(path: str) -> str:
    """Derive an id from a path alone, as ledgers of the first version have them."""
    return hashlib.blake2b(os.fsencode(path), digest_size=16).hexdigest()


def frame_place(path: str, at: float | None, stream: int | None = None) -> str:
    """Return where a frame of a video stands, as its uri has it; without a time, the video.

    Args:
        path: The video.
        at: Seconds into it.
        stream: Number of the frame's stream, unless it is the main one.
    """
    if at is None:
        return path
    return f"{path}#t={at:.3f}" + ("" if stream is None else f"&stream={stream}")


def native(path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> str:
    """Return a path as the system has it; a text that can be the name of no file becomes bytes.

    Such is one with half of a surrogate pair, as JSON can hold it.
    """
    name = os.fsdecode(path)
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return os.fsdecode(name.encode("utf-8", "surrogatepass"))
    return name


def portable(path: str) -> str:
    """Return an absolute path as a record can carry it: one that is not UTF-8 as a file URI."""
    if path.isascii():
        return path
    raw = os.fsencode(path)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return _FILE_URI + quote_from_bytes(raw)


def local(path: str) -> str:
    """Return the path that ``portable`` made a text of."""
    if path.startswith(f"{_FILE_URI}/"):
        return os.fsdecode(unquote_to_bytes(path.removeprefix(_FILE_URI)))
    return path if path.isascii() else os.fsdecode(path.encode())


def display(path: str) -> str:
    """Spell a path as valid Unicode; bytes that are not UTF-8 become a backslash and hex digits.

    What is longer than any path that there can be is cut, so that a record can carry it.
    """
    text = os.fsencode(path).decode("utf-8", errors="backslashreplace")
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"


def bad_name(path: str) -> str | None:
    """Say what is wrong with a path as a name in lists and tables; ``None`` if nothing is."""
    if path.isascii() and path.isprintable():
        return None
    try:
        name = os.fsencode(path).decode("utf-8")
    except UnicodeError:
        return "the name is not valid UTF-8"
    controls = [character for character in name if unicodedata.category(character) == "Cc"]
    if "\n" in controls:
        return "the name holds a line break"
    return f"the name holds a control character ({controls[0]!r})" if controls else None
