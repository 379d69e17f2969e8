"""The campaign's producer: a steady rate of images, each noted once the log has acknowledged it."""

import time
from collections import deque
from collections.abc import Sequence

import anyio

from roadstream.bench.faults.chaos.pictures import Catalogue, Namer
from roadstream.schemas import codec
from roadstream.schemas.errors import RunError
from roadstream.schemas.records import headers
from roadstream.schemas.records.events import Acknowledged
from roadstream.schemas.records.image import Image
from roadstream.schemas.topics import images, spread
from roadstream.streams.ledgers.event_ledger import EventLedger
from roadstream.streams.log import Log, Output, Producer

TICK = 0.05
RETRY_AFTER = 0.2


class Load:
    """Sends ordinary pictures at a rate, and whatever the faults add.

    Args:
        log: The log, open.
        catalogue: The pictures.
        namer: Names them.
        partitions: Of the topics.
        ledger: Where acknowledgements are noted.
    """

    def __init__(
        self, log: Log, catalogue: Catalogue, namer: Namer, partitions: int, ledger: EventLedger
    ) -> None:
        self.log, self.catalogue, self._namer = log, catalogue, namer
        self._partitions = partitions
        self._ledger = ledger
        self._extra: deque[Image] = deque()
        self.rate = 0.0
        self.acknowledged: dict[str, float] = {}
        self.refusals = 0

    def add(self, found: Sequence[Image]) -> None:
        """Send these as well, in their order."""
        self._extra.extend(found)

    def add_kinds(self, kinds: Sequence[str]) -> list[str]:
        """Send one new picture of each of these classes; return their ids."""
        ids = [self._namer.name(kind) for kind in kinds]
        self.add([self.catalogue.image(image_id) for image_id in ids])
        return ids

    def add_ordinary(self, count: int) -> list[str]:
        """Send so many new ordinary pictures at once; return their ids."""
        ids = self._namer.ordinary(count)
        self.add([self.catalogue.image(image_id) for image_id in ids])
        return ids

    def name_ordinary(self, count: int) -> list[str]:
        """Return new ids of ordinary pictures, which are not sent yet."""
        return self._namer.ordinary(count)

    @property
    def waiting(self) -> int:
        """How many are still to be sent beside the steady ones."""
        return len(self._extra)

    def add_live(self, count: int, deadline: float) -> list[str]:
        """Send ordinary pictures on the live lane, wanted within ``deadline`` seconds."""
        ids = self._namer.ordinary(count)
        self.add(
            [self.catalogue.image(image_id, lane="live", deadline=deadline) for image_id in ids]
        )
        return ids

    async def run(self) -> None:
        """Send until cancelled. What the log does not acknowledge is sent again."""
        while True:
            try:
                async with self.log.producer() as producer:
                    await self._send_on(producer)
            except RunError:  # it could not be opened
                await anyio.sleep(RETRY_AFTER)

    async def _send_on(self, producer: Producer) -> None:
        due, at = 0.0, time.monotonic()
        while True:
            await anyio.sleep(TICK)
            now = time.monotonic()
            due, at = min(due + self.rate * (now - at), 2 * self.rate), now
            batch = [self.catalogue.image(i) for i in self._namer.ordinary(int(due))]
            due -= len(batch)
            while self._extra:
                batch.append(self._extra.popleft())
            if batch:
                await self._send(producer, batch)

    async def _send(self, producer: Producer, batch: Sequence[Image]) -> None:
        outputs = [self._output(image) for image in batch]
        while True:
            try:
                await producer.publish(outputs)
                break
            except RunError:
                self.refusals += 1
                await anyio.sleep(RETRY_AFTER)
        now = time.monotonic()
        ids = [image.head.image_id for image in batch]
        self._ledger.write(Acknowledged(time.time(), ids))
        self.acknowledged.update(dict.fromkeys(ids, now))

    def _output(self, image: Image) -> Output:
        head = image.head
        partition = spread(head.image_id, self._partitions)
        return Output(images(head.lane), head.key, codec.encode(image), partition, headers.IMAGE)

    def close(self) -> None:
        """End the ledger."""
        self._ledger.close()
