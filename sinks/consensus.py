"""The consensus sink: reads votes, joins them, writes one answer per image, then commits."""

import time
from collections.abc import Collection, Iterable, Iterator, Mapping

import anyio
import structlog

from schemas import codec
from schemas.errors import RecordError
from schemas.records import DeadLetter, VotesPack
from schemas.topics import ANSWERS, CONSENSUS_GROUP, DEAD_LETTERS, VOTES
from sinks.join import ANSWERED_WINDOW, Join, Resolved
from streams.clock import Clock, SystemClock
from streams.log import Log, Output, Polled, Record, TopicPartition
from streams.member import GroupMember, MemberOptions

logger = structlog.get_logger()

POLL_RECORDS = 64
POLL_TIMEOUT = 0.25
# Answers published in one go, about: bounds their memory, and how long one transaction keeps the
# embedded log's lock from the workers.
ANSWERS_AT_ONCE = 4096
# A log that is slow to give its first records must not make us forget what was answered.
RESTORE_PATIENCE = 5.0


class Consensus:
    """One member of the consensus group: run as many as there are partitions.

    Args:
        log: The log, open.
        join: The join, whose answers decide.
        clock: Wall clock for deadlines and timings.
        options: How it takes part in the group.
    """

    def __init__(
        self,
        log: Log,
        join: Join,
        *,
        clock: Clock | None = None,
        options: MemberOptions | None = None,
    ) -> None:
        self._log, self._join = log, join
        self._clock: Clock = clock or SystemClock()
        self.member = GroupMember(
            self, "consensus", CONSENSUS_GROUP, [VOTES], options or MemberOptions()
        )
        self.answered = 0

    async def run(self, stopping: anyio.Event) -> None:
        """Consume until ``stopping`` is set; then answer what is complete and leave.

        Raises:
            LogUnavailableError: The log does not answer; it may be run again.
        """
        async with self.member.joined(self._log):
            logger.info("consensus_started")
            while not stopping.is_set():
                await self._step(
                    await self.member.poll(max_records=POLL_RECORDS, timeout=self._patience())
                )
            await self.member.flush()
        logger.info("consensus_stopped", answered=self.answered, open=self._join.open_images)

    def _patience(self) -> float:
        due = self._join.next_deadline_at
        if due is None:
            return POLL_TIMEOUT
        return min(POLL_TIMEOUT, max(0.0, due - self._clock.now()))

    async def _step(self, polled: Polled) -> None:
        now, member = self._clock.now(), self.member
        outputs: list[Output] = []
        done: dict[TopicPartition, list[int]] = {}
        for tp, records in polled.items():
            for record in records:
                self._take(self._read(tp, record, now, outputs, done), outputs, done)
                if len(outputs) >= ANSWERS_AT_ONCE:
                    await member.finish(outputs, done, member.epoch)
                    outputs, done = [], {}
        self._take(self._join.expire(now), outputs, done)
        if outputs or done:
            await member.finish(outputs, done, member.epoch)
        elif not polled:
            await member.flush()

    def _read(
        self,
        tp: TopicPartition,
        record: Record,
        now: float,
        outputs: list[Output],
        done: dict[TopicPartition, list[int]],
    ) -> Resolved:
        try:
            pack = codec.decode(codec.decode_votes, record.value, *tp, record.offset)
            _check(pack, tp, record.offset)
        except RecordError as error:
            logger.error("dead_letter", error=str(error))
            letter = dead_letter(tp, record, error, CONSENSUS_GROUP, now)
            outputs.append(Output(DEAD_LETTERS, record.key, letter, tp.partition))
            return Resolved([], {tp: [record.offset]})
        return self._join.add(pack, (tp, record.offset), now)

    def _take(
        self, resolved: Resolved, outputs: list[Output], done: dict[TopicPartition, list[int]]
    ) -> None:
        encode = codec.encode
        for partition, answer in resolved.answers:
            outputs.append(Output(ANSWERS, answer.head.key, encode(answer), partition))
        self.answered += len(resolved.answers)
        for tp, offsets in resolved.done.items():
            done.setdefault(tp, []).extend(offsets)

    async def take_over(self, partitions: Collection[TopicPartition]) -> None:
        """Learn which images were answered already from the tail of each answers partition."""
        numbers = {tp.partition for tp in partitions}
        started = time.monotonic()
        answered = await answered_tail(self._log, numbers)
        self._join.assign(answered)
        logger.info(
            "assigned",
            partitions=sorted(numbers),
            restored=sum(map(len, answered.values())),
            seconds=round(time.monotonic() - started, 3),
        )

    async def give_up(self, partitions: Collection[TopicPartition]) -> None:
        """Give up the open joins: their votes were never committed, so the next owner has them."""
        logger.info("revoked", partitions=sorted(tp.partition for tp in partitions))


async def answered_tail(log: Log, partitions: Iterable[int]) -> dict[int, list[str]]:
    """Return the ids of the last answers of each partition, oldest first."""
    found: dict[int, list[str]] = {partition: [] for partition in partitions}
    async with log.reader(ANSWERS, "beginning") as reader:
        ends = await reader.ends()
    start: Mapping[int, int] = {
        partition: max(0, end - ANSWERED_WINDOW) if partition in found else end
        for partition, end in ends.items()
    }
    async with log.reader(ANSWERS, start) as reader:
        while any(reader.positions[p] < ends[p] for p in found):
            polled = await reader.poll(max_records=2048, timeout=RESTORE_PATIENCE)
            if not polled:
                break  # the rest was trimmed or is no data record
            for tp, records in polled.items():
                if tp.partition in found:
                    found[tp.partition] += _answered_ids(tp, records)
    return found


def _answered_ids(tp: TopicPartition, records: Iterable[Record]) -> Iterator[str]:
    for record in records:
        try:
            answer = codec.decode(codec.decode_answer, record.value, *tp, record.offset)
        except RecordError as error:  # a stranger's: it must not keep us from starting
            logger.error("unreadable_answer", error=str(error))
            continue
        yield answer.head.image_id


def _check(pack: VotesPack, tp: TopicPartition, offset: int) -> None:
    """Refuse a pack whose votes do not match its member runs."""
    runs = len(pack.runs)
    for votes in pack.images:
        if len(votes.raw) != runs or len(votes.probability) != runs:
            problem = f"expected {runs} votes for {votes.head.image_id}, got {len(votes.raw)}"
            raise RecordError(*tp, offset, problem)


def dead_letter(
    tp: TopicPartition, record: Record, error: Exception, group: str, now: float
) -> bytes:
    """Encode the dead letter of a record that could not be read."""
    return codec.encode(
        DeadLetter(
            topic=tp.topic,
            partition=tp.partition,
            offset=record.offset,
            key=record.key,
            value=record.value or b"",
            error=str(error),
            group=group,
            failed_at=now,
        )
    )
