"""What a consensus member must know before it takes a partition over, and while it owns it."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping

import structlog

from roadstream.schemas import codec
from roadstream.schemas.errors import LogUnavailableError, RecordError
from roadstream.schemas.records.partial import decode_partial_answer
from roadstream.schemas.topics import ANSWERS
from roadstream.sinks.consensus.answered import ANSWERED_WINDOW, Content
from roadstream.sinks.consensus.join import Join
from roadstream.streams.log import Log, Offsets, Record, TopicPartition

logger = structlog.get_logger()

# A log that is slow to give its records must not make us forget what was answered.
RESTORE_PATIENCE = 30.0
READ_RECORDS = 2048


async def answered_tail(
    log: Log, partitions: Iterable[int], window: int = ANSWERED_WINDOW
) -> dict[int, dict[str, Content]]:
    """Return the images of the last ``window`` answers of each partition, oldest first.

    The values are the hashes of their content, where known.

    Raises:
        LogUnavailableError: The log does not answer.
    """
    found: dict[int, dict[str, Content]] = {partition: {} for partition in partitions}
    async with log.reader(ANSWERS, "end") as reader:
        ends = await reader.ends()
    start: Mapping[int, int] = {
        partition: max(0, end - window) if partition in found else end
        for partition, end in ends.items()
    }
    async with log.reader(ANSWERS, start) as reader:
        while any(reader.positions[p] < ends[p] for p in found):
            polled = await reader.poll(max_records=READ_RECORDS, timeout=RESTORE_PATIENCE)
            if not polled:
                raise LogUnavailableError(
                    f"{ANSWERS}: expected its last records within {RESTORE_PATIENCE:.0f} s, "
                    "got none: what was answered before must be known first"
                )
            for tp, records in polled.items():
                if tp.partition in found:
                    found[tp.partition].update(_images(tp, records))
    return found


def _images(tp: TopicPartition, records: Iterable[Record]) -> Iterator[tuple[str, Content]]:
    for record in records:
        try:
            answer = codec.decode(decode_partial_answer, record.value, *tp, record.offset)
        except RecordError as error:  # a stranger's: it must not keep us from starting
            logger.error("unreadable_answer", error=str(error))
            continue
        yield answer.head.image_id, answer.head.content_hash


class Unacknowledged:
    """Packs delivered whose offsets the log has not acknowledged yet, by age in answers.

    On Kafka offsets follow their outputs after a while. Whoever goes on answering meanwhile could
    outrun the window that a successor reads back.
    """

    def __init__(self) -> None:
        self._delivered: dict[TopicPartition, deque[tuple[int, int]]] = {}

    def delivered(self, tp: TopicPartition, last: int, count: int) -> None:
        """Note that records up to ``last`` were delivered after ``count`` answers."""
        self._delivered.setdefault(tp, deque()).append((last, count))

    def acknowledged(self, offsets: Offsets) -> None:
        """Note what the log has acknowledged."""
        for tp, offset in offsets.items():
            waiting = self._delivered.get(tp)
            while waiting and waiting[0][0] < offset:
                waiting.popleft()

    def must_wait(self, join: Join) -> bool:
        """Return whether more answers now could be more than a successor reads back."""
        return any(
            join.count(tp.partition) - waiting[0][1] > join.limits.wait_after
            for tp, waiting in self._delivered.items()
            if waiting
        )
