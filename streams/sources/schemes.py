"""Sources and payload readers of other distributions, by scheme; what they give is checked here."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import get_args

import msgspec
import structlog

from roadstream.schemas.errors import ImageError, ImageFault, RoadstreamError, RunError
from roadstream.schemas.plugins import PlugIn, PlugIns, unlike
from roadstream.schemas.records.image import Inline, Payload, Reference, Unreadable
from roadstream.streams.sources.identity import bad_name, native
from roadstream.streams.sources.source import (
    Container,
    Item,
    LeftOut,
    PayloadReader,
    Source,
    SourceOptions,
)

logger = structlog.get_logger()

OURS = "file"
_OTHERS = Reference | Unreadable
_MOST_TOLD = 1000  # characters
_WORD = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def scheme_of(word: str) -> str | None:
    """Return a word's scheme if an installed distribution has named it, else ``None``: a path."""
    found = _WORD.match(word)
    return found[1].lower() if found and found[1].lower() in _offered() else None


def open_source(word: str, options: SourceOptions) -> Source:
    """Return the source of a word whose scheme another distribution has named.

    Raises:
        ConfigError: The distribution's cannot be used, or there are several.
        UsageError: It does not take the word.
    """
    return _Checked(word, options)


def open_reader(path: str) -> PayloadReader | None:
    """Return what reads a reference by its scheme, or ``None`` if nobody has brought that.

    Raises:
        ConfigError: The distribution's cannot be used, or there are several.
    """
    scheme = scheme_of(path)
    return None if scheme in {None, OURS} else _reader(str(scheme))


@cache
def _offered() -> frozenset[str]:
    return frozenset(found.name for found in _plug_ins.offered())


@cache
def _reader(scheme: str) -> PayloadReader | None:
    found = _plug_ins.named(scheme, f"{scheme}://")
    return None if found.made.reader is None else _CheckedReader(found)


def _accept(found: PlugIn) -> PlugIn:
    if found.name == OURS:
        raise found.refused("to have another scheme", f"{OURS}, which is ours")
    if (got := unlike(found.made, Source)) is not None:
        raise found.refused(f"to be a {Source.__module__}.Source", got)
    reader = found.made.reader
    if reader is not None and (got := unlike(reader, PayloadReader)) is not None:
        raise found.refused(f"to have a {Source.__module__}.PayloadReader as reader", got)
    return found


_plug_ins = PlugIns[PlugIn]("roadstream.sources", "source", {}, _accept)


class _Checked(Source):
    """A source of another distribution: what it yields is checked, and its errors name it."""

    def __init__(self, word: str, options: SourceOptions) -> None:
        super().__init__(word, options)
        self._plug_in = _plug_ins.named(str(scheme_of(word)), word)
        try:
            self._source: Source = self._plug_in.made(word, options)
        except Exception as error:
            if isinstance(error, RoadstreamError):
                raise
            raise self._plug_in.refused("to be made of it", _told(error)) from error

    def scan(self, left_out: LeftOut) -> Iterator[Item | Container]:
        with self._named():
            for found in self._source.scan(left_out):
                yield self._item(found)

    def count(self) -> Iterator[int]:
        try:
            yield from map(int, self._source.count())
        except Exception as error:  # it is for the time left only: a scan will say what is wrong
            logger.warning("count_failed", source=self.word, error=_told(error))

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Turn whatever it raises into the end of the run."""
        try:
            yield
        except RunError:
            raise
        except RoadstreamError as error:
            raise RunError(str(error)) from error
        except Exception as error:
            raise RunError(f"{self.word}: {self._plug_in.told} failed: {_told(error)}") from error

    def _item(self, found: Item | Container) -> Item | Container:
        """Return what it has yielded, with what ``load`` returns checked too."""
        if not isinstance(found, Item | Container):
            raise self._refused("to yield items and containers", repr(found))
        place = native(found.place) if isinstance(found.place, str) else repr(found.place)
        if scheme_of(place) != self._plug_in.name:
            raise self._refused(f"to yield places in {self._plug_in.name}://", place)
        try:
            if isinstance(found, Container):
                return msgspec.convert(tuple(found), Container)._replace(place=place)
            item = msgspec.convert(msgspec.structs.asdict(found), Item)
        except msgspec.ValidationError as error:
            raise self._refused(f"to yield what records can hold, at {place}", str(error)) from None
        return msgspec.structs.replace(item, place=place, load=partial(self._load, item))

    def _load(self, item: Item) -> bytes | Payload:
        if (problem := bad_name(item.place)) is not None:
            raise ImageError("bad_name", problem)
        with _as_fault():
            loaded = item.load()
        if isinstance(loaded, bytes | Inline):
            return loaded
        try:
            plain = msgspec.to_builtins(loaded, builtin_types=(bytes,))
            payload: Payload = msgspec.convert(plain, _OTHERS)
        except (msgspec.ValidationError, TypeError) as error:
            expected = f"to load bytes or a payload, at {item.place}"
            raise self._refused(expected, f"{type(loaded).__name__}: {error}") from None
        if isinstance(payload, Reference) and not (payload.sha256 or item.content):
            expected = f"to tell the content or the SHA-256 of the reference, at {item.place}"
            raise self._refused(expected, "neither")
        return payload

    def _refused(self, expected: str, got: str) -> RunError:
        return RunError(str(self._plug_in.refused(expected, got)))


class _CheckedReader(PayloadReader):
    """A reader of another distribution: whatever it raises is the picture's fault."""

    def __init__(self, plug_in: PlugIn) -> None:
        self._plug_in = plug_in
        try:
            self._reader: PayloadReader = plug_in.made.reader()
        except Exception as error:
            raise plug_in.refused("to have a reader that can be made", _told(error)) from error

    def read(self, path: str, roots: Sequence[Path] | None, max_bytes: int) -> bytes:
        with _as_fault():
            data = self._reader.read(path, roots, max_bytes)
        if not isinstance(data, bytes):
            raise ImageError(
                "unreadable", f"{self._plug_in.told}: expected bytes, got {type(data).__name__}"
            )
        return data


@contextlib.contextmanager
def _as_fault() -> Iterator[None]:
    """Turn whatever is raised into the fault of a picture, as a record can hold it."""
    try:
        yield
    except ImageError as error:
        fault = error.fault if error.fault in get_args(ImageFault) else "unreadable"
        raise ImageError(fault, str(error.problem)[:_MOST_TOLD]) from error
    except (RoadstreamError, OSError, MemoryError):
        raise
    except Exception as error:
        raise ImageError("unreadable", _told(error)) from error


def _told(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:_MOST_TOLD]
