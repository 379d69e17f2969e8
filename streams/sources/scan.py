"""Make records of what sources find: their ids, their order, and what is unchanged and not read."""

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import BinaryIO

from roadstream.schemas.errors import ImageError
from roadstream.schemas.records.image import (
    Head,
    Image,
    Inline,
    Lane,
    Payload,
    Reference,
    Unreadable,
)
from roadstream.streams.sources.files import FileSource, picture_item
from roadstream.streams.sources.identity import display, fault_content, image_id, owned_id
from roadstream.streams.sources.payload import Patience, patiently, too_large
from roadstream.streams.sources.places import Known, Scanned
from roadstream.streams.sources.schemes import open_source, scheme_of
from roadstream.streams.sources.source import Item, LeftOut, Source, SourceOptions

# Bytes of a SHA-256 that tell two pictures apart, as ``Head.content_hash`` has them.
HASH_BYTES = 16


@dataclass(frozen=True, slots=True)
class ScanOptions(SourceOptions):
    """How pictures become records.

    Attributes:
        lane: Lane of the records.
        run_id: Job that asks.
        first_sequence: Sequence number of the first record.
        stdin: Where the list for ``-`` is read from; ``None`` for standard input.
        known: What an earlier scan has noted about a place; what is unchanged since is not loaded
            again.
        owned: Whether the ids are the run's own: on a shared log another run may have had the same
            picture answered, and an id has one answer.
    """

    lane: Lane = "archive"
    run_id: str | None = None
    first_sequence: int = 0
    stdin: BinaryIO | None = None
    known: Callable[[str], Known | None] | None = None
    owned: bool = False


@dataclass(slots=True)
class ScanStats:
    """What a scan has met so far; another thread may look at it.

    Attributes:
        images: Pictures found, video frames, unchanged and unreadable ones included.
        left_out: What else there was, and why it is not judged.
    """

    images: int = 0
    left_out: LeftOut = field(default_factory=LeftOut)


def scan_places(
    words: Iterable[str], options: ScanOptions, stats: ScanStats | None = None
) -> Generator[Scanned, None, None]:
    """Yield a record per picture or sampled video frame, with its place; and what is unchanged.

    Each record is made when it is asked for: a picture is read for its id then, and a bad one is an
    `Unreadable`. Memory does not grow with the number of pictures. Closed early, it lets go of what
    its sources have opened.

    Args:
        words: Folders, files, globs, videos, ``-`` for a list of folders and files on standard
            input, and words of installed sources, ``SCHEME://…``.
        options: How pictures become records.
        stats: Counted in as the scan goes.

    Raises:
        UsageError: A glob matches nothing, or the list on standard input is no list.
        RunError: A source cannot go on, or the machine has no file descriptor left.
    """
    records = Records(options, stats if stats is not None else ScanStats())
    for source in _sources(words, options):
        yield from records.of(source)


def count_ahead(words: Iterable[str]) -> Iterator[int]:
    """Yield how many pictures a scan will find, step by step, as far as its sources can tell.

    Raises:
        UsageError: As ``scan_places`` does.
        RunError: As ``scan_places`` does.
    """
    for source in _sources(words, ScanOptions()):
        yield from source.count()


def scan_picture(path: str) -> Image:
    """Return the record of one picture file; an `Unreadable` where there is none.

    Raises:
        MachineError: The machine has no file descriptor left.
    """
    options = ScanOptions()
    scanned = Records(options, ScanStats()).record(picture_item(path, options))
    assert scanned.image is not None  # nothing is known of an earlier scan
    return scanned.image


def _sources(words: Iterable[str], options: ScanOptions) -> Iterator[Source]:
    """Yield the sources of words: one for all paths in a row, one for each word of a scheme."""
    for scheme, row in groupby(words, scheme_of):
        if scheme is None:
            yield FileSource(list(row), options, options.stdin)
        else:
            yield from (open_source(word, options) for word in row)


class Records:
    """Makes records of items, numbered through over all sources of a run.

    Args:
        options: How pictures become records.
        stats: Counted in.
    """

    def __init__(self, options: ScanOptions, stats: ScanStats) -> None:
        self._options, self._stats = options, stats

    def of(self, source: Source) -> Iterator[Scanned]:
        """Yield what a source finds."""
        for found in source.scan(self._stats.left_out):
            if isinstance(found, Item):
                yield self.record(found)
            elif found.content or self._known(found.place) is not None:
                yield Scanned(found.place, None, holds=found.content)

    def record(self, item: Item) -> Scanned:
        """Load a picture, unless it is unchanged, and return its record.

        Raises:
            MachineError: The machine has no file descriptor left.
        """
        sequence = self._options.first_sequence + self._stats.images
        self._stats.images += 1
        if item.state is not None:
            known = self._known(item.place)
            if known is not None and known.state == item.state:
                return Scanned(item.place, None)
        payload = self._payload(item)
        head = self._head(item, payload, sequence)
        state = None if isinstance(payload, Unreadable) else item.state
        return Scanned(item.place, Image(head, payload), state)

    def _known(self, place: str) -> Known | None:
        return None if self._options.known is None else self._options.known(place)

    def _payload(self, item: Item) -> Payload:
        try:
            loaded = patiently(item.load, Patience())
            return self._carried(item, loaded) if isinstance(loaded, bytes) else loaded
        except ImageError as error:
            return Unreadable(error.fault, error.problem)

    def _carried(self, item: Item, data: bytes) -> Payload:
        options = self._options
        inline = options.carry == "inline" or item.reference is None
        limit = options.max_inline if inline else options.max_bytes
        if len(data) > limit:
            raise too_large(len(data), limit)
        if inline or item.reference is None:
            return Inline(data)
        digest = hashlib.sha256(data).digest()
        return Reference(path=item.reference, size=len(data), sha256=digest)

    def _head(self, item: Item, payload: Payload, sequence: int) -> Head:
        options, content = self._options, _content(item, payload)
        identity = image_id(item.place, content)
        if item.content is not None:
            # Not of the JPEG: another version of the encoder makes another one of the same frame.
            content_hash: bytes | None = bytes.fromhex(identity)
        else:
            content_hash = None if isinstance(payload, Unreadable) else content[:HASH_BYTES]
        return Head(
            image_id=owned_id(options.run_id or "", identity) if options.owned else identity,
            uri=display(item.place),
            session_id=None if item.session_id is None else display(item.session_id),
            frame_index=item.frame_index,
            captured_at=item.captured_at,
            latitude=item.latitude,
            longitude=item.longitude,
            lane=options.lane,
            run_id=options.run_id,
            sequence=sequence,
            content_hash=content_hash,
        )


def _content(item: Item, payload: Payload) -> bytes:
    """Return what tells a picture's content, or what kept it from being read."""
    match payload:
        case Unreadable(fault):
            return fault_content(fault, item.content or b"")
        case _ if item.content is not None:
            return item.content
        case Inline(data):
            return hashlib.sha256(data).digest()
        case Reference(sha256=digest):
            return digest or b""
