"""Decides what becomes of a place that a scan came by, from what the run's ledger knows of it."""

import hashlib
from collections.abc import Callable
from typing import Literal, NamedTuple

import msgspec

from roadstream.schemas.errors import ImageFault
from roadstream.schemas.records.image import Image, Inline, Payload, Reference, Unreadable
from roadstream.streams.sources.identity import next_id
from roadstream.streams.sources.places import SETTLING_NS, Scanned

# Faults of reading a file where it lies: another try may find it well, with the same content.
UNREAD: frozenset[ImageFault] = frozenset({"missing", "unreadable", "changed"})
Sent = Callable[[str], bool | None]
"""Says of an image id whether its answer is that it could not be read; ``None`` if unknown."""


class PathOnly(NamedTuple):
    """The image of a place in a ledger of version 1, whose ids tell the path and no content.

    Attributes:
        image_id: Its id.
        failed: Whether its answer is a failure.
        content: First bytes of the SHA-256 of what was sent, where that was noted.
        submitted_at: When it was sent, in seconds since the epoch, if its answer tells.
    """

    image_id: str
    failed: bool
    content: bytes | None
    submitted_at: float | None


class Placing(NamedTuple):
    """What is to be done about a place.

    Attributes:
        action: ``send`` its image; let one that was sent ``stand`` there; ``keep`` what stands
            there, as the file is gone; ``enter`` what holds images.
        scanned: What was found.
        image: The image that belongs there from now on, under its id.
    """

    action: Literal["send", "stand", "keep", "enter"]
    scanned: Scanned
    image: Image | None = None


def decide(
    scanned: Scanned, stands: Callable[[], bool], old: Callable[[], PathOnly | None], sent: Sent
) -> Placing | None:
    """Return what is to be done about a place, or ``None`` for nothing.

    Args:
        scanned: What was found.
        stands: Whether an image stands there, or did in a video there.
        old: The place's image of version 1, if nothing newer stands there.
        sent: What is known about ids.
    """
    image = scanned.image
    if image is None:
        return Placing("enter", scanned) if scanned.holds is not None else None
    payload = image.payload
    unread = isinstance(payload, Unreadable)
    if isinstance(payload, Unreadable) and payload.fault == "missing" and stands():
        return Placing("keep", scanned)
    image_id, known = image.head.image_id, sent(image.head.image_id)
    while known and not unread:
        image_id = next_id(image_id)
        known = sent(image_id)
    if known is None and (before := old()) is not None and _same(before, scanned, payload):
        image_id, known = before.image_id, False
    head = msgspec.structs.replace(image.head, image_id=image_id)
    return Placing("send" if known is None else "stand", scanned, Image(head, payload))


def _same(old: PathOnly, scanned: Scanned, payload: Payload) -> bool:
    """Whether what an id of the path alone was given to is, for certain, what stands there now."""
    match payload:
        case Inline(data):
            digest = hashlib.sha256(data).digest()
        case Reference(sha256=bytes(digest)):
            pass
        case _:
            return False
    if old.failed:
        return False
    if old.content is not None:
        return digest.startswith(old.content)
    if old.submitted_at is None or scanned.state is None:
        return False
    changed_ns = max(scanned.state.mtime_ns, scanned.state.ctime_ns)
    return changed_ns < old.submitted_at * 1e9 - SETTLING_NS
