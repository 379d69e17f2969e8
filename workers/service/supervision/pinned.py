"""Hands a loaded cascade to child processes: one that starts hours later judges by the same."""

import contextlib
import os
import tempfile
from collections.abc import Collection, Iterator
from typing import BinaryIO, NamedTuple

import msgspec

from roadstream.schemas.cascade.loading import cascade_of, load_cascade
from roadstream.schemas.cascade.model import Cascade, Snapshot
from roadstream.schemas.errors import ConfigError

# Names the file descriptor to a child.
PINNED = "ROADSTREAM_PINNED"
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Snapshot).decode


class Inherited(NamedTuple):
    """What a child must be given to find the cascade."""

    environment: dict[str, str]
    descriptors: tuple[int, ...]


@contextlib.contextmanager
def pinned(cascade: Cascade | None) -> Iterator[Inherited]:
    """Hold a cascade as it was loaded in a file without a name, for children to inherit.

    So nobody can change or delete it, whatever becomes of the cascade's own files, of temporary
    folders and of disks, and it goes with the last of its processes. Weights are not in it, but
    their digests; see ``Cascade.check_weights``.

    Args:
        cascade: As ``load_cascade`` returned it; ``None`` hands nothing on.
    """
    if cascade is None:
        yield Inherited({}, ())
        return
    with _nameless() as file:
        file.write(_encode(cascade.snapshot))
        file.flush()
        yield Inherited({PINNED: str(file.fileno())}, (file.fileno(),))


def _nameless() -> BinaryIO:
    if hasattr(os, "memfd_create"):  # on Linux, where it takes no disk
        return os.fdopen(os.memfd_create("roadstream-cascade"), "w+b")
    return tempfile.TemporaryFile()


def given_cascade(name_or_path: str, without: Collection[str] = ()) -> Cascade:
    """Return the cascade that a supervisor handed to this process; without one, load it.

    Args:
        name_or_path: As of ``load_cascade``.
        without: Likewise; what a supervisor hands on is without it already.

    Raises:
        ConfigError: See ``load_cascade``; or nothing is where the environment says that it was
            handed over, as in a copy of a child's environment.
    """
    descriptor = os.environ.pop(PINNED, None)  # not for the children of this one
    if descriptor is None:
        return load_cascade(name_or_path, without=without)
    try:
        with os.fdopen(int(descriptor), "rb") as file:
            # By position: all who inherit it share one offset.
            snapshot = _decode(os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0))
    except (ValueError, OSError, msgspec.DecodeError):
        expected = "the descriptor of a cascade, which only a supervisor sets (unset it)"
        raise ConfigError(PINNED, expected, descriptor) from None
    return cascade_of(snapshot)
