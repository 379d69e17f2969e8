"""The simulated world: one log, processes of the real product on it, a producer, and a checker."""

import functools
import hashlib
import random
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NoReturn

import anyio
import anyio.abc
import msgspec

from roadstream.bench.simulation.cascade import (
    ALL_LEVELS,
    LEVELS,
    RARE_LEVELS,
    Troubles,
    cascade,
    engines,
    picture,
)
from roadstream.bench.simulation.checks import Checker, Expected
from roadstream.bench.simulation.process import Part, SimulatedProcess
from roadstream.bench.simulation.virtual_loop import VirtualLoop, in_process
from roadstream.bench.simulation.virtual_time import InlineThreads, VirtualClock
from roadstream.schemas.records.image import Head, Image, Inline
from roadstream.schemas.topics import (
    ANSWERS,
    CARRIED,
    CONSENSUS_GROUP,
    VOTES,
    all_topics,
    tier_group,
    tier_inputs,
)
from roadstream.sinks.consensus.join import Join, JoinLimits
from roadstream.sinks.consensus.versions import KnownVersions
from roadstream.sinks.consensus.worker import Consensus
from roadstream.stages.voting.rules import vote_math
from roadstream.streams.group.member import GroupMember, GroupMemberOptions
from roadstream.streams.log import Log, Producer, TopicPartition
from roadstream.streams.memory.log import MemoryLog
from roadstream.streams.memory.store import Operation
from roadstream.workers.job.submit import Submitter
from roadstream.workers.tier.judge import Judge, JudgeOptions
from roadstream.workers.tier.worker import ProcessParts, TierWorker

# Per partition: answers, more than the consensus reads back; and records below what is committed,
# for votes to be sent again.
KEPT_ANSWERS, KEPT_RECORDS = 20_000, 200
# One image in so many may be sent again with other bytes.
CONFLICTING = 997


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is simulated.

    Attributes:
        seed: Where every chance comes from.
        images: Images submitted.
        partitions: Partitions of every topic.
        workers: Workers per tier.
        consensus: Consensus members.
        max_batch: Largest batch of a tier.
        atomic: Whether the log commits outputs and offsets together, or behaves as Kafka.
        session_timeout: Seconds of silence after which a member is put out.
        live: Share of images with a deadline.
        again: Share of submissions that are sent a second time.
        backlog: Images under way beyond which the producer waits.
        patience: Virtual seconds without any progress after which an image counts as lost.
        window: Answers that a consensus member reads back when it takes over; see ``JoinLimits``.
    """

    seed: int
    images: int = 1500
    partitions: int = 8
    workers: int = 3
    consensus: int = 3
    max_batch: int = 32
    atomic: bool = True
    session_timeout: float = 10.0
    live: float = 0.1
    again: float = 0.02
    backlog: int = 3000
    patience: float = 600.0
    window: int = 1024


class World:
    """Everything there is, made from a plan; use it on a virtual loop only.

    Args:
        plan: What is simulated.
        loop: The virtual loop.
        clock: Its wall clock.
        expected: What an undisturbed run says per grey level. ``None`` makes this the undisturbed
            run: one image of each level.

    Attributes:
        log: The log.
        clock: The wall clock.
        threads: Runs what blocks.
        troubles: What ails the engines.
        checker: Watches the log.
        processes: Every process, by name.
        clocks: Where the product's own reading of the time was replaced.
        watch: Looks at the world now and then.
        gone: Processes that have left.
        members: Group members of the present and the past.
    """

    def __init__(
        self,
        plan: Plan,
        loop: VirtualLoop,
        clock: VirtualClock,
        expected: Mapping[int, Expected] | None = None,
    ) -> None:
        self.plan, self.loop, self.clock = plan, loop, clock
        self.random = random.Random(plan.seed)
        self.cascade = cascade(plan.max_batch)
        self.troubles = Troubles()
        self.log = MemoryLog(
            clock,
            session_timeout=plan.session_timeout,
            atomic=plan.atomic,
            latency=self._latency,
        )
        self.checker = Checker(
            plan.images,
            self.cascade.tier_names,
            expected,
            self.levels,
            lambda: (loop.time(), loop.steps),
        )
        self.log.store.watcher = self.checker
        self.processes: dict[str, SimulatedProcess] = {}
        self.clocks: list[str] = []
        self.watch: Callable[[World], None] = lambda _: None
        self.gone: list[SimulatedProcess] = []
        self.members: list[GroupMember] = []
        self.threads = InlineThreads(self.service_time)
        window = plan.window
        self._limits = JoinLimits(window=window, carry_after=window // 4, at_once=window // 4)
        self.submitted = 0
        self._script = ALL_LEVELS if expected is None else _script(plan)
        self._engines = engines(self.troubles)

    def _latency(self, operation: Operation) -> float:
        return self.random.uniform(0.0, 0.004)

    def service_time(self) -> float:
        """Return how long the next batch takes at the engines."""
        return self.random.uniform(0.002, 0.05)

    def downtime(self) -> float:
        """Return how long the next process that died stays away."""
        return self.random.choice((0.0, 0.5, 2.0, 15.0))

    def level(self, number: int) -> int:
        """Return the grey level of an image."""
        return self._script[number]

    def levels(self, number: int) -> list[int]:
        """Return every grey level that an image may have been sent with."""
        first = self.level(number)
        return [first, 250 if first < 128 else 6] if number % CONFLICTING == 0 else [first]

    def image(self, number: int, level: int, *, live: bool = False) -> Image:
        """Return an image of a grey level."""
        data = picture(level)
        head = Head(
            image_id=f"i{number}",
            uri=f"{number}.jpg",
            lane="live" if live else "archive",
            sequence=number,
            content_hash=content_hash(data),
        )
        return Image(head, Inline(data))

    async def prepare(self) -> None:
        """Create the topics."""
        topics = all_topics(self.cascade.tier_names)
        await self.log.create_topics(topics, self.plan.partitions)

    def populate(self, tasks: anyio.abc.TaskGroup) -> None:
        """Start every process of the plan but the producer; every second has a lasting name."""
        for index in range(self.plan.workers):
            for tier in self.cascade.tier_names:
                name = f"{tier}-{index}"
                fixed = name if index % 2 else None
                self.start(tasks, name, partial(self.work, tier, fixed))
        for index in range(self.plan.consensus):
            name = f"consensus-{index}"
            self.start(tasks, name, partial(self.join, name if index % 2 else None))

    def start(self, tasks: anyio.abc.TaskGroup, name: str, part: Part) -> SimulatedProcess:
        """Start a process."""
        made = SimulatedProcess(name, self.loop, self.log, part, self.downtime)
        self.processes[name] = made
        with in_process(made.process):
            tasks.start_soon(made.run)
        return made

    def retire(self, name: str) -> None:
        """Let a process leave in order, for good."""
        process = self.processes.pop(name)
        process.stop()
        self.gone.append(process)

    async def work(self, tier: str, member_id: str | None, log: Log, stopping: anyio.Event) -> None:
        """Be a tier worker."""
        options = JudgeOptions(
            max_bytes=1 << 20, clock=self.clock, timer=self.loop.time, pause=_never
        )
        judge = Judge(self.cascade, tier, self._engines, options=options)
        worker = TierWorker(
            log,
            judge,
            options=GroupMemberOptions(member_id=member_id),
            process=ProcessParts(clock=self.clock, run_blocking=self.threads),
        )
        self.members.append(worker.member)
        await worker.run(stopping)

    async def join(self, member_id: str | None, log: Log, stopping: anyio.Event) -> None:
        """Be a consensus member."""
        sink = Consensus(
            log,
            self.new_join(),
            clock=self.clock,
            steady=self.loop.time,
            options=GroupMemberOptions(member_id=member_id),
        )
        self.members.append(sink.member)
        await sink.run(stopping)

    def new_join(self) -> Join:
        """Return the join of a consensus member that starts."""
        return Join(KnownVersions(self.cascade, vote_math), self._limits)

    async def produce(self, log: Log, stopping: anyio.Event) -> None:
        """Submit every image once; killed before it has noted a batch, submit that again."""
        plan, chance = self.plan, self.random
        async with log.producer() as producer:
            while self.submitted < plan.images and not stopping.is_set():
                if self.submitted - self.answered >= plan.backlog:
                    await anyio.sleep(0.05)
                    continue
                live = chance.random() < plan.live
                deadline = chance.choice((0.05, 0.5, 5.0, 60.0)) if live else None
                await self.submit(producer, chance.randint(1, 4 * plan.max_batch), deadline)
                if chance.random() < plan.again:
                    await self.submit_again(producer, chance.randint(1, 5), deadline)
        await stopping.wait()

    async def submit(self, producer: Producer, count: int, deadline: float | None) -> None:
        """Submit the next images; they count as submitted once the log has acknowledged them."""
        end = min(self.plan.images, self.submitted + count)
        numbers = range(self.submitted, end)
        batch = [self.image(n, self.level(n), live=deadline is not None) for n in numbers]
        await Submitter(producer, None, self.plan.partitions, deadline).submit(batch)
        self.submitted = end

    async def submit_again(self, producer: Producer, count: int, deadline: float | None) -> None:
        """Send some old images once more; some of the conflicting ones with other bytes.

        They are no older than what the consensus remembers: beyond, an id counts as new.
        """
        submitter = Submitter(producer, None, self.plan.partitions, deadline)
        for _ in range(count if self.submitted else 0):
            oldest = max(0, self.submitted - self.plan.window)
            number = self.random.randrange(oldest, self.submitted)
            if self.random.random() < 0.3:
                number = max(oldest, number - number % CONFLICTING)
            level, live = self.levels(number)[-1], deadline is not None
            await submitter.submit([self.image(number, level, live=live)])

    @property
    def answered(self) -> int:
        """Number of images that have an answer."""
        return self.plan.images - self.checker.answers.count(0)

    def readers(self) -> list[tuple[str, list[str]]]:
        """Return every group with the topics it reads."""
        found = [(CONSENSUS_GROUP, [CARRIED, VOTES])]
        for index, name in enumerate(self.cascade.tier_names):
            found.append((tier_group(name), list(tier_inputs(name, first=index == 0))))
        return found

    def lag(self) -> int:
        """Return how many records are not committed by those who read them."""
        return sum(end - at for _, at, end in self._behind())

    def _behind(self) -> Iterator[tuple[TopicPartition, int, int]]:
        for name, topics in self.readers():
            offsets = self.log.broker.group(name).offsets
            for topic in topics:
                for number, part in enumerate(self.log.topics[topic]):
                    tp = TopicPartition(topic, number)
                    if (at := max(offsets.get(tp, 0), part.first)) < part.end:
                        yield tp, at, part.end

    def tidy(self) -> None:
        """Drop what every group has committed past, and answers too old to matter."""
        for group in self.log.groups.values():
            for tp, offset in group.offsets.items():
                self.log.truncate(*tp, offset - KEPT_RECORDS)
        for number, part in enumerate(self.log.topics[ANSWERS]):
            self.log.truncate(ANSWERS, number, part.end - KEPT_ANSWERS)


def _other(level: int) -> int:
    return 250 if level < 128 else 6


def _script(plan: Plan) -> Sequence[int]:
    """Draw the grey level of every image; one in a hundred breaks something."""
    drawn = random.Random(~plan.seed)
    levels = array("h", drawn.choices(LEVELS, k=plan.images))
    for number in drawn.sample(range(plan.images), plan.images // 100):
        levels[number] = drawn.choice(RARE_LEVELS)
    return levels


def _never(seconds: float) -> NoReturn:
    """Refuse to wait: no picture of the simulation lies in a storage that is slow."""
    raise AssertionError(f"asked to block for {seconds} s")


@functools.cache
def content_hash(data: bytes) -> bytes:
    """Return what ``Head.content_hash`` says of a picture's bytes."""
    return hashlib.sha256(data).digest()[:16]
