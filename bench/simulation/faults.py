"""Chance: which fault comes next, and when. Drawn by steps, faults hit any await."""

from collections import Counter
from collections.abc import Callable, Mapping

import anyio
from anyio.abc import TaskGroup

from roadstream.bench.simulation.process import SimulatedProcess
from roadstream.bench.simulation.world import World
from roadstream.schemas.errors import LogUnavailableError
from roadstream.schemas.topics import ANSWERS, CARRIED, DEAD_LETTERS, VOTES
from roadstream.streams.log import Log, Output, TopicPartition
from roadstream.streams.memory.log import Fault

GONE = LogUnavailableError("the log is gone")

KINDS: dict[str, int] = {
    "kill": 12,
    "freeze": 6,
    "publish": 12,
    "poll": 8,
    "commit": 4,
    "lag": 2,
    "votes_again": 6,
    "unreadable": 3,
    "storm": 2,
    "clock": 3,
    "memory": 3,
    "sick": 3,
    "retention": 1,
}
"""Kinds of faults, and how often each comes in proportion to the others."""


class Chaos:
    """Lets faults happen to a world until it is stopped.

    Args:
        world: The world.
        tasks: Where members that come with a storm live.
        kinds: Kinds to draw from, with their weights.
        interval: Steps between two faults, on average.

    Attributes:
        counts: Faults so far, by kind.
    """

    def __init__(
        self, world: World, tasks: TaskGroup, kinds: Mapping[str, int], interval: float
    ) -> None:
        self._world, self._tasks, self._interval = world, tasks, interval
        self._random, self._loop = world.random, world.loop
        self._kinds, self._weights = list(kinds), list(kinds.values())
        self._stopped = False
        self._strangers = 0
        self.counts: Counter[str] = Counter()

    def start(self) -> None:
        """Draw the first fault."""
        self._draw()

    def stop(self) -> None:
        """Let nothing more happen, and heal what can be healed."""
        self._stopped = True
        world = self._world
        world.log.faults.clear()
        world.troubles.sick.clear()
        world.troubles.fits = None
        for process in [*world.processes.values(), *world.gone]:
            process.thaw()

    def _draw(self) -> None:
        steps = 1 + int(self._random.expovariate(1 / self._interval))
        self._loop.at_step(self._loop.steps + steps, self._strike)

    def _strike(self) -> None:
        if self._stopped or not self._kinds:
            return
        kind = self._random.choices(self._kinds, self._weights)[0]
        self.strike(kind)
        self._draw()

    def strike(self, kind: str) -> None:
        """Let a fault of a kind happen now."""
        self.counts[kind] += 1
        action: Callable[[], None] = getattr(self, f"_{kind}")
        action()

    def _later(self, seconds: float, action: Callable[[], object]) -> None:
        self._loop.call_later(seconds, action)

    def _some_process(self) -> SimulatedProcess:
        return self._random.choice(list(self._world.processes.values()))

    def _kill(self) -> None:
        self._some_process().kill()

    def _freeze(self) -> None:
        """Freeze a process, often for longer than its session lasts."""
        process = self._some_process()
        process.freeze()
        longest = 3 * self._world.plan.session_timeout
        self._later(self._random.uniform(0.1, longest), process.thaw)

    def _publish(self) -> None:
        chance, atomic = self._random, self._world.plan.atomic
        share = 1.0 if atomic else chance.random()
        # Without transactions a publish must have come or be given up before its sender's session
        # can end, as Kafka's delivery timeout sees to; and a failed one may land a little later.
        longest, after = (20.0, 5.0) if atomic else (0.7 * self._world.plan.session_timeout, 0.2)
        fault = chance.choice(
            [
                Fault("publish", GONE),
                Fault("publish", GONE, after=True),
                Fault("publish", GONE, after=True, share=share),
                Fault("publish", delay=chance.uniform(0.0, longest)),
                Fault("publish", GONE, after=True, delay=chance.uniform(0.0, after)),
            ]
        )
        self._world.log.faults.append(fault)

    def _poll(self) -> None:
        chance = self._random
        fault = chance.choice(
            [
                Fault("poll", GONE),
                Fault("poll", GONE, after=True),
                Fault("poll", delay=chance.uniform(0.0, 15.0)),
            ]
        )
        self._world.log.faults.append(fault)

    def _commit(self) -> None:
        """Lose commits, or only what the log says of them; only Kafka has any apart."""
        if not self._world.plan.atomic:
            after = self._random.random() < 0.5
            self._world.log.faults.append(Fault("commit", GONE, after=after))

    def _lag(self) -> None:
        self._world.log.faults.append(Fault("lag", GONE))

    def _votes_again(self) -> None:
        """Append old votes once more, in another order and some time later."""
        log, chance = self._world.log, self._random
        number = chance.randrange(self._world.plan.partitions)
        part = log.topics[VOTES][number]
        if not part:
            return
        chosen = chance.sample(part, min(len(part), chance.randint(1, 4)))
        outputs = [Output(VOTES, None, record.value or b"", number) for record in chosen]
        self._later(chance.uniform(0.0, 30.0), lambda: log.append(outputs))

    def _unreadable(self) -> None:
        """Append bytes that are no record to a topic that is read."""
        log, chance = self._world.log, self._random
        topics = [name for name in log.topics if name not in (ANSWERS, DEAD_LETTERS)]
        number = chance.randrange(self._world.plan.partitions)
        log.append([Output(chance.choice(topics), b"?", b"\xc1 no record", number)])

    def _storm(self) -> None:
        """Let members join and leave, one a second or so."""
        chance = self._random
        for second in range(chance.randint(3, 10)):
            self._later(second + chance.random(), lambda: self._stranger(chance.uniform(0.1, 4)))

    def _stranger(self, seconds: float) -> None:
        """Let another member join for some seconds, and leave in order."""
        if self._stopped:
            return
        world = self._world
        self._strangers += 1
        tier = self._random.choice([*world.cascade.tier_names, None])
        name = f"stranger-{self._strangers}"

        async def part(log: Log, stopping: anyio.Event) -> None:
            if tier is None:
                await world.join(None, log, stopping)
            else:
                await world.work(tier, None, log, stopping)

        world.start(self._tasks, name, part)
        self._later(seconds, lambda: world.retire(name))

    def _clock(self) -> None:
        """Let the wall clock step, back or forth."""
        self._world.clock.offset += self._random.choice((-1, 1)) * self._random.uniform(0.1, 120.0)

    def _memory(self) -> None:
        """Let only small batches fit for a while."""
        troubles = self._world.troubles
        troubles.fits = self._random.choice((1, 2, 5))
        self._later(self._random.uniform(0.1, 10.0), lambda: setattr(troubles, "fits", None))

    def _sick(self) -> None:
        """Let a member fail on everything for a while."""
        sick = self._world.troubles.sick
        name = self._random.choice(["first", "second", "third", "shade"])
        sick.add(name)
        self._later(self._random.uniform(0.05, 5.0), lambda: sick.discard(name))

    def _retention(self) -> None:
        """Let retention take records that a group has not come to, though it has begun."""
        world, chance = self._world, self._random
        group, topics = chance.choice(world.readers())
        topic, number = chance.choice(topics), chance.randrange(world.plan.partitions)
        part, tp = world.log.topics[topic][number], TopicPartition(topic, number)
        stands = world.log.broker.group(group).offsets.get(tp)
        if stands is not None and (committed := max(part.first, stands)) < part.end:
            most = 2 if topic in (VOTES, CARRIED) else 20
            before = chance.randint(committed + 1, min(part.end, committed + most))
            world.checker.excuse(tp, committed, before)
            world.log.truncate(topic, number, before)
