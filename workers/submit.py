"""Sends images to a log, each id once: what ``score`` and ``produce`` share."""

import time
from collections.abc import Sequence

import msgspec

from schemas import codec
from schemas.records import Image
from schemas.topics import images, spread
from streams.log import Output, Producer
from streams.run_ledger import RunLedger


class Submitter:
    """Publishes images and notes in a ledger what the log has acknowledged.

    A crash between the two repeats a batch at the next start; the consensus answers it once.

    Args:
        producer: Where to.
        ledger: What was sent before, and is not sent again; ``None`` to send everything.
        partitions: Partitions of the topics, to spread a session's images over; ``None`` to keep
            each session in the partition of its key.
        deadline: Seconds after sending in which an answer is wanted; ``None`` for no deadline.
    """

    def __init__(
        self,
        producer: Producer,
        ledger: RunLedger | None,
        partitions: int | None,
        deadline: float | None = None,
    ) -> None:
        self._producer, self._ledger = producer, ledger
        self._partitions, self._deadline = partitions, deadline

    async def submit(self, batch: Sequence[Image]) -> int:
        """Send those images of ``batch`` that were not sent before; return how many.

        Raises:
            LogUnavailableError: The log does not acknowledge.
            OutputError: The log or the ledger cannot be written.
        """
        unique = {image.head.image_id: image for image in batch}
        if self._ledger is not None:
            unknown = await self._ledger.unknown(list(unique))
            unique = {key: image for key, image in unique.items() if key in unknown}
        if not unique:
            return 0
        now = time.time()
        await self._producer.publish([self._output(image, now) for image in unique.values()])
        if self._ledger is not None:
            await self._ledger.submitted(
                [(key, image.head.sequence or 0) for key, image in unique.items()]
            )
        return len(unique)

    def _output(self, image: Image, now: float) -> Output:
        deadline_at = None if self._deadline is None else now + self._deadline
        head = msgspec.structs.replace(image.head, submitted_at=now, deadline_at=deadline_at)
        partition = None if self._partitions is None else spread(head.image_id, self._partitions)
        value = codec.encode(Image(head, image.payload))
        return Output(images(head.lane), head.key, value, partition)
