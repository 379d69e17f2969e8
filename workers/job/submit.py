"""Sends images to a log, each id once: what ``score`` and ``produce`` share."""

import hashlib
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import msgspec
import structlog

from roadstream.schemas import codec
from roadstream.schemas.errors import RecordRefusedError
from roadstream.schemas.records import headers
from roadstream.schemas.records.image import Image, Inline, Reference
from roadstream.schemas.topics import images, spread
from roadstream.streams.group.refused import instead
from roadstream.streams.ledgers.event_ledger import EventLedger
from roadstream.streams.ledgers.run_ledger import Count, RunLedger, SentContent
from roadstream.streams.log import Output, Producer
from roadstream.streams.sources.places import Scanned
from roadstream.streams.sources.scan import HASH_BYTES

if TYPE_CHECKING:
    from roadstream.stages.decoding.decode import Pixels

logger = structlog.get_logger()

# Ids remembered where no ledger does it: 30 MB at most.
REMEMBERED = 131_072
# Seconds after which what was scanned is sent: pictures on a slow disk need not wait for others.
SCAN_TIME = 0.25


class Submitter:
    """Publishes images and notes in a ledger what the log has acknowledged.

    A crash between the two repeats a batch at the next start; the consensus answers it once. An id
    is sent once. Another picture under it, as far as the ledger or the last ``REMEMBERED`` ids
    know, is refused, logged and counted.

    Args:
        producer: Where to.
        ledger: What was sent before, and is not sent again; ``None`` to know this run only.
        partitions: Partitions of the topics, to spread a session's images over; ``None`` to keep
            each session in the partition of its key.
        deadline: Seconds after sending in which an answer is wanted; ``None`` for no deadline.
        events: Event ledger, for ``roadstream verify``.

    Attributes:
        producer: Where to; another one may take its place after an outage.
        sent: Images sent so far.
        repeated: Images so far that had been sent before.
        vanished: Files so far that are no longer where an image was sent from.
        refused: Images refused so far.
    """

    def __init__(
        self,
        producer: Producer,
        ledger: RunLedger | None,
        partitions: int | None,
        deadline: float | None = None,
        events: EventLedger | None = None,
    ) -> None:
        self.producer, self._ledger = producer, ledger
        self._partitions, self._deadline = partitions, deadline
        self._events = events or EventLedger(None, "producer")
        self._sent: dict[str, SentContent] = {}
        self.sent = self.repeated = self.vanished = self.refused = self.too_large = 0

    async def submit_places(self, batch: Sequence[Scanned]) -> list[Count]:
        """Send the images of the places that hold something new; note what stands where.

        After an error it may be called with the same batch again; raises as ``submit`` does.

        Returns:
            By how much the counts of current images have changed; nothing without a ledger.
        """
        if self._ledger is None:
            await self.submit([scanned.image for scanned in batch if scanned.image is not None])
            return []
        placings = await self._ledger.plan(batch)
        unique = {
            p.image.head.image_id: p.image for p in placings if p.action == "send" and p.image
        }
        if unique:
            await self._publish(unique)
        changes = await self._ledger.note(placings)
        unchanged = sum(s.image is None and s.holds is None for s in batch)
        actions = Counter(placing.action for placing in placings)
        self.repeated += unchanged + actions["stand"] + actions["send"] - len(unique)
        self.vanished += actions["keep"]
        return changes

    async def submit(self, batch: Sequence[Image]) -> int:
        """Send those images of ``batch`` that were not sent before; return how many.

        After an error it may be called with the same batch again.

        Raises:
            LogUnavailableError: The log does not acknowledge.
            OutputError: The log or the ledger cannot be written.
        """
        known = await self._known([image.head.image_id for image in batch])
        unique: dict[str, Image] = {}
        refused: list[tuple[Image, SentContent]] = []
        repeated = 0
        for image in map(_hashed, batch):
            head = image.head
            first = known.get(head.image_id)
            if first is None:
                unique[head.image_id] = image
                known[head.image_id] = SentContent(head.content_hash, head.uri)
            elif _differs(first, image):
                refused.append((image, first))
            else:
                repeated += 1
        if unique:
            await self._send(unique)
        for image, first in refused:
            self._refuse(image, first)
        self.repeated += repeated
        return len(unique)

    async def _known(self, image_ids: Sequence[str]) -> dict[str, SentContent]:
        """Return what is known to have been sent under these ids."""
        known = {i: self._sent[i] for i in image_ids if i in self._sent}
        if self._ledger is not None:
            unknown = await self._ledger.unknown(image_ids)
            sent = [image_id for image_id in image_ids if image_id not in unknown]
            known |= dict.fromkeys(sent, SentContent(None, ""))
            known |= await self._ledger.contents(sent)
        return known

    async def _send(self, unique: dict[str, Image]) -> None:
        await self._publish(unique)
        if self._ledger is None:
            self._sent |= {
                image_id: SentContent(image.head.content_hash, image.head.uri)
                for image_id, image in unique.items()
            }
            if len(self._sent) > REMEMBERED:
                for image_id in list(islice(self._sent, REMEMBERED // 2)):
                    del self._sent[image_id]
            return
        contents = {
            image_id: SentContent(image.head.content_hash, image.head.uri)
            for image_id, image in unique.items()
            if image.head.content_hash is not None
        }
        noted = [(key, image.head.sequence or 0) for key, image in unique.items()]
        await self._ledger.submitted(noted, contents)

    async def _publish(self, unique: dict[str, Image]) -> None:
        now = time.time()
        outputs = [self._output(image, now) for image in unique.values()]
        try:
            await self.producer.publish(outputs)
        except RecordRefusedError as error:
            images = list(unique.values())
            for refusal in error.refused:
                # A crash before the next line's end sends all of them again, under the same ids.
                logger.error(
                    "picture_refused", uri=images[refusal.row].head.uri, reason=str(refusal)
                )
            await self.producer.publish(instead(outputs, error.refused))
            self.too_large += len(error.refused)
        self._events.acknowledged(list(unique))
        self.sent += len(unique)

    def _refuse(self, image: Image, first: SentContent) -> None:
        self.refused += 1
        logger.error(
            "duplicate_refused",
            image_id=image.head.image_id,
            uri=image.head.uri,
            sent_before=first.uri,
            reason="another picture was sent under this id",
        )

    def _output(self, image: Image, now: float) -> Output:
        deadline_at = None if self._deadline is None else now + self._deadline
        head = msgspec.structs.replace(image.head, submitted_at=now, deadline_at=deadline_at)
        partition = None if self._partitions is None else spread(head.image_id, self._partitions)
        value = codec.encode(Image(head, image.payload))
        return Output(images(head.lane), head.key, value, partition, headers.IMAGE)


def next_batch(found: Iterator[Scanned], most: int) -> list[Scanned]:
    """Return what a scan finds next (blocking): so many places, or fewer where reading is slow.

    Nothing is the end.
    """
    batch: list[Scanned] = []
    ends_at = time.monotonic() + SCAN_TIME
    for scanned in found:
        batch.append(scanned)
        if len(batch) == most or time.monotonic() > ends_at:
            break
    return batch


def _hashed(image: Image) -> Image:
    """Return the image with the hash of its content, where it is known without reading a file."""
    if image.head.content_hash is not None:
        return image
    match image.payload:
        case Inline(data):
            digest = hashlib.sha256(data).digest()
        case Reference(sha256=bytes(digest)):
            pass
        case _:
            return image
    return Image(
        msgspec.structs.replace(image.head, content_hash=digest[:HASH_BYTES]), image.payload
    )


def _differs(first: SentContent, image: Image) -> bool:
    known, got = first.content_hash, image.head.content_hash
    return known is not None and got is not None and known != got


def encoded(image: "Pixels") -> bytes:
    """Encode a video's picture as JPEG; jobs without videos do not load what does it."""
    from roadstream.stages.decoding.decode import encode_jpeg

    return encode_jpeg(image)
