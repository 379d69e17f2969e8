"""Names of pictures: the uri that people see, and the id that follows from it."""

import hashlib
import os
import unicodedata


def image_id(uri: str) -> str:
    """Derive an image id from a uri: 32 hexadecimal digits, the same on every run and machine."""
    return hashlib.blake2b(os.fsencode(uri), digest_size=16).hexdigest()


def display(path: str) -> str:
    """Spell a path as valid Unicode; bytes that are not UTF-8 become a backslash and hex digits."""
    return os.fsencode(path).decode("utf-8", errors="backslashreplace")


def bad_name(path: str) -> str | None:
    """Say what is wrong with a path as a name in lists and tables; ``None`` if nothing is."""
    if path.isascii() and path.isprintable():
        return None
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return "the name is not valid UTF-8"
    controls = [character for character in path if unicodedata.category(character) == "Cc"]
    if "\n" in controls:
        return "the name holds a line break"
    return f"the name holds a control character ({controls[0]!r})" if controls else None
