"""Dead letters as people deal with them: which wait, what they hold, how to send one. Pure."""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar, cast

import msgspec

from roadstream.schemas import codec
from roadstream.schemas.errors import RecordError, UsageError
from roadstream.schemas.records import headers
from roadstream.schemas.records.bounds import MOST_ID
from roadstream.schemas.records.dead_letters import DeadLetter, DeadLetterReason, DeadLetterSettled
from roadstream.schemas.records.image import Head, Image, Inline, Payload, Reference
from roadstream.schemas.records.votes import VotesPack
from roadstream.schemas.topics import CARRIED, DEAD_LETTERS, VOTES, images
from roadstream.streams.log import Output

T = TypeVar("T")
_PLACE = re.compile(r"(?:dead-letters)?\[?([0-9]{1,9})\]?@([0-9]{1,18})")
_REPLAY = re.compile(r"~replay-\d+$")


class LetterPosition(NamedTuple):
    """Where a dead letter stands; written ``dead-letters[3]@17``."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{DEAD_LETTERS}[{self.partition}]@{self.offset}"


def parse_position(text: str) -> LetterPosition:
    """Return the place that a person wrote; ``3@17`` will do.

    Raises:
        UsageError: It is none.
    """
    match = _PLACE.fullmatch(text)
    if match is None:
        raise UsageError(f"expected a place such as {DEAD_LETTERS}[3]@17 or 3@17, got {text!r}")
    return LetterPosition(int(match[1]), int(match[2]))


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter in a list, without its bytes.

    Attributes:
        place: Where it stands.
        letter: The letter, its value left out.
        size: Bytes of the value.
        settled: What was done about it, if anything.
        content: Hash of the second picture, of a refused duplicate.
    """

    place: LetterPosition
    letter: DeadLetter
    size: int
    settled: DeadLetterSettled | None = None
    content: bytes | None = None


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Which letters are meant; ``None`` for any."""

    reason: DeadLetterReason | None = None
    tier: str | None = None
    image_id: str | None = None

    def takes(self, letter: DeadLetter) -> bool:
        """Return whether a letter is meant."""
        return (
            self.reason in {None, letter.reason}
            and self.tier in {None, letter.tier}
            and self.image_id in {None, letter.image_id}
        )


class Letters:
    """The dead letters of a log, fed record by record in the order of their partitions.

    A letter that a crash made be written twice counts once, at its first place.
    """

    def __init__(self) -> None:
        self._found: dict[LetterPosition, Listed] = {}
        self._firsts: dict[tuple[object, ...], LetterPosition] = {}
        self._same: dict[LetterPosition, LetterPosition] = {}
        self.unreadable: list[LetterPosition] = []

    def add(self, place: LetterPosition, value: bytes | None) -> None:
        """Take in a record of the topic."""
        try:
            record = codec.decode(codec.decode_dead_letter_or_settled, value, DEAD_LETTERS, *place)
        except RecordError:
            self.unreadable.append(place)
            return
        if isinstance(record, DeadLetterSettled):
            self._settle(LetterPosition(place.partition, record.offset), record)
            return
        source = (record.topic, record.partition, record.offset, record.image_id, record.reason)
        first = self._firsts.setdefault(source, place)
        self._same[place] = first
        if first == place:
            without = msgspec.structs.replace(record, value=b"")
            size, content = len(record.value), _content(record)
            self._found[place] = Listed(place=place, letter=without, size=size, content=content)

    def _settle(self, place: LetterPosition, settled: DeadLetterSettled) -> None:
        place = self._same.get(place, place)
        if place in self._found and self._found[place].settled is None:
            self._found[place] = msgspec.structs.replace(self._found[place], settled=settled)

    def all(self) -> Iterator[Listed]:
        """Yield every letter, by place."""
        for place in sorted(self._found):
            yield self._found[place]

    def waiting(self, choice: Choice) -> list[Listed]:
        """Return the letters that nobody has settled yet, as far as they are meant."""
        return [one for one in self.all() if one.settled is None and choice.takes(one.letter)]

    def at(self, place: LetterPosition) -> Listed:
        """Return the letter at a place, or the one that it repeats.

        Raises:
            UsageError: There is none.
        """
        found = self._found.get(self._same.get(place, place))
        if found is None:
            raise UsageError(f"{place}: there is no dead letter (see roadstream dead-letters list)")
        return found

    def unsettled(self, places: Iterable[LetterPosition]) -> list[Listed]:
        """Return the letters at these places, each once.

        Raises:
            UsageError: There is none, or it is settled already.
        """
        chosen = {one.place: one for one in map(self.at, places)}
        for one in chosen.values():
            if one.settled is not None:
                raise UsageError(f"{one.place}: was {one.settled.action} already")
        return list(chosen.values())

    def with_companions(self, chosen: Iterable[Listed]) -> list[Listed]:
        """Return the letters and all others that hold votes for the same refused picture."""
        wanted = list(chosen)
        pictures = {key for one in wanted if (key := _picture(one)) is not None}
        rest = [one for one in self.waiting(Choice()) if _picture(one) in pictures]
        return sorted({one.place: one for one in [*wanted, *rest]}.values(), key=_by_place)

    def together(self, chosen: Iterable[Listed]) -> list[list[Listed]]:
        """Return letters in groups: those of one refused picture, and each other one alone."""
        groups: dict[object, list[Listed]] = {}
        for one in chosen:
            groups.setdefault(_picture(one) or one.place, []).append(one)
        return list(groups.values())

    def number(self, one: Listed) -> int:
        """Return the number under which a letter's image is sent again: an offset of its own.

        It is the same each time, so that sending twice, as after a crash, is sending once; and
        votes of several tiers for one refused picture share it.
        """
        key = _picture(one)
        if key is None:
            return one.place.offset
        return min(other.place.offset for other in self.all() if _picture(other) == key)


def _by_place(one: Listed) -> LetterPosition:
    return one.place


def _picture(one: Listed) -> tuple[str | None, bytes] | None:
    return None if one.content is None else (one.letter.image_id, one.content)


def _content(letter: DeadLetter) -> bytes | None:
    if letter.reason != "duplicate":
        return None
    try:
        pack = _decode_strictly(codec.decode_votes, letter)
    except RecordError:
        return None
    return pack.images[0].head.content_hash if pack.images else None


def is_whole(packs: Iterable[VotesPack]) -> bool:
    """Return whether these votes for one picture lead to an exit, so that an answer can come."""
    said = {pack.tier: votes.next_tier for pack in packs for votes in pack.images}
    return None in said.values() and all(tier is None or tier in said for tier in said.values())


class Replay(NamedTuple):
    """A dead letter as it is sent again.

    Attributes:
        output: The record.
        image_id: The new id of its image; ``None`` where the record goes out as it was.
    """

    output: Output
    image_id: str | None


def replay(letter: DeadLetter, number: int, now: float) -> Replay:
    """Return what is to be published so that a letter's record is worked on again.

    An unreadable record goes out as it was: nobody has answered it. Any other image has its answer,
    or will, so it begins again at the first tier under an id of its own, ``ID~replay-NUMBER``, in
    the partition in which it was, and without its deadline, which is past.

    Raises:
        RecordError: The letter's value is not what its topic promises.
    """
    had = tuple(letter.headers or ())
    if letter.reason == "unreadable_record":
        as_it_was = Output(letter.topic, letter.key, letter.value, letter.partition, had)
        return Replay(as_it_was, None)
    if letter.topic in {VOTES, CARRIED}:
        pack = _decode_strictly(codec.decode_votes, letter)
        renamed = [
            msgspec.structs.replace(votes, head=_renamed(votes.head, number, now))
            for votes in pack.images
        ]
        value = codec.encode(msgspec.structs.replace(pack, images=renamed))
        image_id = renamed[0].head.image_id if renamed else None
        told = headers.replaced(had, headers.VOTES)
        return Replay(Output(VOTES, letter.key, value, letter.partition, told), image_id)
    head, payload = _image(letter)
    head = _renamed(head, number, now)
    value = codec.encode(Image(head, payload))
    told = headers.replaced(had, headers.IMAGE)
    output = Output(images(head.lane), letter.key, value, letter.partition, told)
    return Replay(output, head.image_id)


def _renamed(head: Head, number: int, now: float) -> Head:
    mark = f"~replay-{number}"
    image_id = _REPLAY.sub("", head.image_id)[: MOST_ID - len(mark)] + mark
    return msgspec.structs.replace(
        head, image_id=image_id, submitted_at=now, deadline_at=None, run_id=None, sequence=None
    )


def _image(letter: DeadLetter) -> tuple[Head, Payload]:
    if letter.topic.startswith("images."):
        image = _decode_strictly(codec.decode_image, letter)
        return image.head, image.payload
    escalation = _decode_strictly(codec.decode_escalation, letter)
    return escalation.head, escalation.payload


def picture(letter: DeadLetter) -> bytes:
    """Return the encoded picture that a dead letter holds.

    Raises:
        UsageError: It holds none.
        RecordError: It cannot be read.
    """
    if letter.topic in {VOTES, CARRIED}:
        raise UsageError("--save: the letter holds votes, no picture")
    _, payload = _image(letter)
    match payload:
        case Inline(data):
            return data
        case Reference(path=path):
            raise UsageError(f"--save: the letter holds no picture, only its path: {path}")
        case _:
            raise UsageError("--save: the letter holds no picture: it could not be read")


def contents(letter: DeadLetter) -> dict[str, Any] | None:
    """Return what a dead letter holds, for a person, without a picture's bytes.

    ``None`` where it cannot be read.
    """
    try:
        if letter.topic in {VOTES, CARRIED}:
            return _builtins(votes_of(letter))
        head, payload = _image(letter)
    except RecordError:
        return None
    held = _builtins(payload)
    if isinstance(payload, Inline):
        held["data"] = f"{len(payload.data)} bytes"
    return {"head": _builtins(head), "payload": held}


def _builtins(record: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", msgspec.to_builtins(record))


def votes_of(letter: DeadLetter) -> VotesPack:
    """Return the votes that a dead letter holds.

    Raises:
        RecordError: It holds none.
    """
    return _decode_strictly(codec.decode_votes, letter)


def _decode_strictly(decoder: Callable[[bytes], T], letter: DeadLetter) -> T:
    return codec.decode(decoder, letter.value, letter.topic, letter.partition, letter.offset)
