"""The consensus sink: reads votes, joins them, writes one answer per image, then commits.

Votes are read from ``votes`` and, before it, from ``votes.carried``, where the consensus itself
puts the votes of images that have waited long; see ``roadstream.sinks.consensus.join``. Deadlines
hold by the wall clock and by a clock that never steps, whichever is first; see
``roadstream.sinks.consensus.deadlines``.
"""

import time
from collections import deque
from collections.abc import Callable, Collection

import anyio
import msgspec
import structlog

from roadstream.schemas import codec
from roadstream.schemas.errors import ConfigError, OutputError, RecordError
from roadstream.schemas.records import headers
from roadstream.schemas.records.headers import with_headers
from roadstream.schemas.records.votes import VotesPack
from roadstream.schemas.topics import ANSWERS, CARRIED, CONSENSUS_GROUP, VOTES
from roadstream.sinks.consensus.answer import AnswerStats
from roadstream.sinks.consensus.horizon import Horizon
from roadstream.sinks.consensus.join import Join, JoinStats, Resolved
from roadstream.sinks.consensus.refusal import Buried, check, duplicate, without_exit
from roadstream.sinks.consensus.restore import RESTORE_PATIENCE, Unacknowledged, answered_tail
from roadstream.sinks.consensus.versions import VersionSource
from roadstream.streams.clock import Clock, SystemClock
from roadstream.streams.group.member import (
    GroupMember,
    GroupMemberOptions,
    OffsetsDone,
    repeat_until,
)
from roadstream.streams.log import Log, Offsets, Output, Record, TopicPartition

logger = structlog.get_logger()

POLL_RECORDS = 64
POLL_TIMEOUT = 0.25
# Versions that nobody told of which are named once in the log, and only counted then.
CASCADES_NAMED = 64


class ConsensusStats(msgspec.Struct):
    """Counters of a consensus member since its process began, and gauges of its last step.

    Attributes:
        answers: Counters of the answers given.
        dead_letters: Dead letters written.
        foreign_packs: Packs of a version of the cascade that nobody told of.
        held_back: Times that it waited for its offsets to be acknowledged.
        restores: Times that partitions were taken over.
        restore_seconds: Seconds that the last of these took.
        open_images: Images waiting for votes.
        oldest_open_seconds: Seconds that the first of them has waited.
        join: Counters of the join.
    """

    answers: AnswerStats = msgspec.field(default_factory=AnswerStats)
    dead_letters: int = 0
    foreign_packs: int = 0
    held_back: int = 0
    restores: int = 0
    restore_seconds: float = 0.0
    open_images: int = 0
    oldest_open_seconds: float = 0.0
    join: JoinStats = msgspec.field(default_factory=JoinStats)


class _Step:
    """What one step is going to publish, and the offsets that are done with it."""

    __slots__ = ("done", "outputs")

    def __init__(self) -> None:
        self.outputs: list[Output] = []
        self.done: OffsetsDone = {}


class _Member(GroupMember):
    """A group member whose owner hears of acknowledged offsets, and may ask where it stood."""

    heard: Callable[[Offsets], None]

    def committed(self, offsets: Offsets) -> None:
        super().committed(offsets)
        self.heard(offsets)

    async def stood(self) -> Offsets:
        """Return the committed offsets of the partitions owned now."""
        return await self._consumer.committed()


class Consensus:
    """One member of the consensus group: run as many as there are partitions.

    It may be run again after an error: nothing but its counters outlives a run.

    Args:
        log: The log, open.
        join: The join, whose answers decide.
        versions: Where versions of the cascade are looked up that the join does not know; without
            it, votes of all others are joined by its own.
        clock: Wall clock for deadlines and timings.
        steady: Clock that never steps, in seconds.
        options: How it takes part in the group.
    """

    def __init__(
        self,
        log: Log,
        join: Join,
        *,
        versions: VersionSource | None = None,
        clock: Clock | None = None,
        steady: Callable[[], float] = time.monotonic,
        options: GroupMemberOptions | None = None,
    ) -> None:
        self._log, self._join, self._versions = log, join, versions
        self._clock: Clock = clock or SystemClock()
        self._steady = steady
        self.member = _Member(
            self, "consensus", CONSENSUS_GROUP, [CARRIED, VOTES], options or GroupMemberOptions()
        )
        self.member.heard = self._acknowledged
        # Polled and not worked off.
        self._backlog: deque[tuple[TopicPartition, Record]] = deque()
        self._heard = anyio.Event()
        self._copies_patience = 0.0
        self._unknown: set[str] = set()
        self.stats = ConsensusStats(join=join.stats)
        self._start_over()

    @property
    def answered(self) -> int:
        """Number of answers given, of whatever status."""
        return self.stats.answers.total

    async def run(self, stopping: anyio.Event) -> None:
        """Consume until ``stopping`` is set; then answer what is complete and leave.

        Raises:
            LogUnavailableError: The log does not answer; it may be run again.
        """
        self._start_over()
        await self._make_carried()
        async with self.member.joined(self._log):
            logger.info("consensus_started")
            await repeat_until(stopping, self._turn)
            await self.member.flush()
        logger.info("consensus_stopped", answered=self.answered, open=self._join.open_images)

    def _start_over(self) -> None:
        self._join.assign({})
        self._backlog.clear()
        # The version of the first record of the backlog, if the join does not know it.
        self._wanted: str | None = None
        # And the ends of ``votes.carried`` that must have been read before ``votes`` is.
        self._unacknowledged, self._copies_until = Unacknowledged(), dict[int, int]()
        self._horizon = Horizon({})

    async def _make_carried(self) -> None:
        """Make the topic for carried votes where an older version made the others."""
        counts = await self._log.partition_counts([VOTES, CARRIED])
        if CARRIED not in counts and VOTES in counts:
            await self._log.create_topics([CARRIED], counts[VOTES])

    async def _turn(self) -> None:
        await self._poll()
        await self._learn()
        await self._look_ahead()
        await self._step()

    async def _look_ahead(self) -> None:
        """Ask where votes end, if an image has waited for a tier for so long as to be given up."""
        now = self._steady()
        if self._horizon.wants(self._join.next_give_up_at, now):
            async with self._log.reader(VOTES, "end") as reader:
                self._horizon.mark(await reader.ends(), now)

    async def _learn(self) -> None:
        """Look up the version of the first record of the backlog, where the join needs it."""
        if (version := self._wanted) is None:
            return
        cascade, unread = None, ""
        if self._versions is not None:
            try:
                cascade = await self._versions.cascade(version)
            except (ConfigError, OutputError) as error:
                unread = f"cascade version {version} cannot be read here: {error}"
        self._join.versions.learn(version, cascade, unread)
        self._wanted = None

    async def _poll(self) -> None:
        """Fill the backlog, unless something of it is left or offsets must be acknowledged."""
        poll, backlog = self.member.poll, self._backlog
        if self._unacknowledged.must_wait(self._join):
            self.stats.held_back += 1
            self._heard = anyio.Event()
            with anyio.move_on_after(POLL_TIMEOUT):  # whatever is due meanwhile waits too
                await self._heard.wait()
            await poll(max_records=0, timeout=0)
        elif self._copies_first():
            polled = await poll(
                max_records=POLL_RECORDS, timeout=self._patience(), topics=[CARRIED]
            )
            backlog.extendleft((tp, r) for tp, some in polled.items() for r in reversed(some))
        elif backlog:
            await poll(max_records=0, timeout=0)
        else:
            polled = await poll(max_records=POLL_RECORDS, timeout=self._patience())
            backlog.extend((tp, record) for tp, some in polled.items() for record in some)
            if not polled:
                self._horizon.reached_end()

    def _copies_first(self) -> bool:
        """Return whether copies must be read before any more of ``votes``."""
        return self._join.copies_overdue or self._copies_ahead()

    def _copies_ahead(self) -> bool:
        """Return whether copies from before the takeover are still to be read."""
        if self._copies_until and self._steady() > self._copies_patience:
            logger.warning("carried_votes_missing", partitions=sorted(self._copies_until))
            self._copies_until = {}
        return bool(self._copies_until)

    def _patience(self) -> float:
        due = self._join.next_deadline_at
        if due is None:
            return POLL_TIMEOUT
        return min(POLL_TIMEOUT, max(0.0, due - self._clock.now()))

    async def _step(self) -> None:
        """Work off the backlog as far as one publish reaches, and answer what is due."""
        now, step = self._clock.now(), _Step()
        self._join.tick(now, self._steady())
        if not self._unacknowledged.must_wait(self._join):
            self._work_off(now, step)
            room = max(1, self._join.limits.at_once - len(step.outputs))
            self._take(self._join.expire(now, room, self._horizon.until), now, step)
        if step.outputs or step.done:
            await self.member.finish(step.outputs, step.done, self.member.epoch)
        self.stats.open_images = self._join.open_images
        oldest_at = self._join.oldest_at
        self.stats.oldest_open_seconds = 0.0 if oldest_at is None else max(0.0, now - oldest_at)

    def _work_off(self, now: float, step: _Step) -> None:
        copies_first, backlog = self._copies_first(), self._backlog
        while backlog and len(step.outputs) < self._join.limits.at_once:
            tp, record = backlog[0]
            if copies_first and tp.topic != CARRIED:
                return
            resolved = self._read(tp, record, now, step)
            if resolved is None:
                return
            backlog.popleft()
            self._take(resolved, now, step)

    def _delivered(self, tp: TopicPartition, offset: int) -> None:
        self._unacknowledged.delivered(tp, offset, self._join.count(tp.partition))
        if tp.topic == VOTES:
            self._horizon.read(tp.partition, offset)
        if tp.topic == CARRIED and tp.partition in self._copies_until:
            self._copies_patience = self._steady() + RESTORE_PATIENCE
            if offset + 1 >= self._copies_until[tp.partition]:
                del self._copies_until[tp.partition]

    def _acknowledged(self, offsets: Offsets) -> None:
        self._unacknowledged.acknowledged(offsets)
        self._heard.set()

    def _read(self, tp: TopicPartition, record: Record, now: float, step: _Step) -> Resolved | None:
        """Join what a record holds; return ``None`` if its version must be looked up before."""
        source = tp, record.offset
        versions = self._join.versions
        try:
            pack = codec.decode(codec.decode_votes, record.value, *tp, record.offset)
            if pack.cascade_hash not in versions:
                self._wanted = pack.cascade_hash
                return None
            rules = versions.rules(pack.cascade_hash)
            lost = check(pack, rules.order, source)
        except RecordError as error:
            self._delivered(tp, record.offset)
            said = with_headers(error, record.headers)
            buried = Buried(source, record.key, record.value, said, headers=record.headers)
            self._bury(buried, now, step)
            return Resolved([], {tp: [record.offset]}, [], [])
        self._delivered(tp, record.offset)
        if rules.answerer.note is not None:
            self._note_cascade(pack, rules.answerer.note)
        if lost:
            for votes in lost:
                self._bury(without_exit(pack, votes, source), now, step)
            kept = [votes for votes in pack.images if votes not in lost]
            pack = msgspec.structs.replace(pack, images=kept)
        return self._join.add(pack, source, now)

    def _bury(self, buried: Buried, now: float, step: _Step) -> None:
        self.stats.dead_letters += 1
        logger.error("dead_letter", reason=buried.cause.reason, error=buried.error)
        step.outputs.append(buried.output(now))

    def _note_cascade(self, pack: VotesPack, note: str) -> None:
        """Count a pack that is judged by other rules than its own, and name its version once."""
        self.stats.foreign_packs += 1
        if pack.cascade_hash not in self._unknown and len(self._unknown) < CASCADES_NAMED:
            self._unknown.add(pack.cascade_hash)
            logger.warning(
                "foreign_cascade",
                cascade=pack.cascade,
                expected=self._join.versions.own.version,
                got=pack.cascade_hash,
                tier=pack.tier,
                error=note,
            )

    def _take(self, resolved: Resolved, now: float, step: _Step) -> None:
        encode, outputs, count = codec.encode, step.outputs, self.stats.answers.count
        for partition, answer in resolved.answers:
            outputs.append(
                Output(ANSWERS, answer.head.key, encode(answer), partition, headers.ANSWER)
            )
            count(answer)
        for partition, pack in resolved.carried:
            outputs.append(Output(CARRIED, None, encode(pack), partition, headers.VOTES))
        for refused in resolved.refused:
            self._bury(duplicate(refused), now, step)
        for tp, offsets in resolved.done.items():
            step.done.setdefault(tp, []).extend(offsets)

    async def take_over(self, partitions: Collection[TopicPartition]) -> None:
        """Learn which images were answered already, and which carried votes must come first."""
        numbers = {tp.partition for tp in partitions}
        started = time.monotonic()
        self._start_over()
        answered = await answered_tail(self._log, numbers, self._join.limits.window)
        stood = await self.member.stood()
        self._horizon = Horizon({p: stood.get(TopicPartition(VOTES, p), 0) for p in numbers})
        self._copies_until = await self._unread_copies(stood, numbers)
        self._copies_patience = self._steady() + RESTORE_PATIENCE
        self._join.assign(answered, self._clock.now())
        self.stats.restores += 1
        self.stats.restore_seconds = time.monotonic() - started
        logger.info(
            "assigned",
            partitions=sorted(numbers),
            restored=sum(map(len, answered.values())),
            seconds=round(self.stats.restore_seconds, 3),
        )

    async def _unread_copies(self, stood: Offsets, numbers: set[int]) -> dict[int, int]:
        async with self._log.reader(CARRIED, "end") as reader:
            ends = await reader.ends()
        return {p: ends[p] for p in numbers if ends[p] > stood.get(TopicPartition(CARRIED, p), 0)}

    async def give_up(self, partitions: Collection[TopicPartition]) -> None:
        """Give up the open joins: their votes were never committed, so the next owner has them."""
        self._start_over()
        logger.info("revoked", partitions=sorted(tp.partition for tp in partitions))
