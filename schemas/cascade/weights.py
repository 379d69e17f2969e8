"""What tells one file or folder of weights from another."""

import errno
import hashlib
import io
import stat
from pathlib import Path
from typing import BinaryIO

MIB = 1 << 20
# Larger files are told by their size and so many MiB of them, evenly spread: weights that were
# trained on differ everywhere, and 60 GB would take a minute to read.
WHOLE = 64 * MIB
SAMPLES = 64


def digest_of(path: Path, *, folders: bool = True) -> bytes:
    """Return a SHA-256 of a file, or, where ``folders`` allows one, of its files and their names.

    Raises:
        OSError: It is not there, or cannot be read.
    """
    if not (folders and path.is_dir()):
        return _of_file(path)
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        if file.is_file():
            digest.update(file.relative_to(path).as_posix().encode() + b"\0" + _of_file(file))
    return digest.digest()


def digest_of_bytes(data: bytes) -> bytes:
    """Return what ``digest_of`` gives for a file with these bytes."""
    if len(data) <= WHOLE:
        return hashlib.sha256(data).digest()
    return _of_samples(io.BytesIO(data), len(data))


def read_file(path: Path) -> bytes:
    """Return the bytes of a file; one without an end, such as a device, is none.

    Raises:
        OSError: It is not there, is no file, or cannot be read.
    """
    _size(path)
    return path.read_bytes()


def _size(path: Path) -> int:
    try:
        found = path.stat()
    except ValueError:  # a name with a null character
        raise FileNotFoundError(errno.ENOENT, "no such file", str(path)) from None
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return found.st_size


def _of_file(path: Path) -> bytes:
    size = _size(path)
    if size <= WHOLE:
        return hashlib.sha256(path.read_bytes()).digest()
    with path.open("rb") as file:
        return _of_samples(file, size)


def _of_samples(file: BinaryIO, size: int) -> bytes:
    digest = hashlib.sha256(str(size).encode())
    for sample in range(SAMPLES):
        file.seek(sample * (size - MIB) // (SAMPLES - 1))
        digest.update(file.read(MIB))
    return digest.digest()
