"""What tests of the consensus share: a member, votes sent to it, and its answers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel

from roadstream.schemas import codec
from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.errors import ConfigError, LogUnavailableError
from roadstream.schemas.records.answer import Answer
from roadstream.schemas.records.votes import VotesPack
from roadstream.schemas.topics import ANSWERS, CARRIED, CONSENSUS_GROUP, DEAD_LETTERS, VOTES
from roadstream.sinks.consensus.join import Join, JoinLimits
from roadstream.sinks.consensus.versions import KnownVersions, VersionSource
from roadstream.sinks.consensus.worker import Consensus
from roadstream.stages.voting.rules import vote_math
from roadstream.streams.clock import ManualClock
from roadstream.streams.log import Output
from roadstream.streams.memory.log import MemoryLog
from tests.kits.builders import cascade

DEADLINE = 20.0
GONE = LogUnavailableError("gone")


class Told:
    """Versions of the cascade that somebody told of; a test may look at what was asked for.

    Attributes:
        asked: Hashes that were looked up, in order.
        broken: Hashes of those that cannot be read here.
    """

    def __init__(self, *cascades: Cascade) -> None:
        self._cascades = {one.hash: one for one in cascades}
        self.asked: list[str] = []
        self.broken: set[str] = set()

    async def cascade(self, version: str) -> Cascade | None:
        self.asked.append(version)
        await anyio.lowlevel.checkpoint()
        if version in self.broken:
            raise ConfigError(f"{version}.toml: engine", "noop", "a plug-in")
        return self._cascades.get(version)


def consensus(
    log: MemoryLog,
    clock: ManualClock | None = None,
    limits: JoinLimits | None = None,
    versions: VersionSource | None = None,
) -> Consensus:
    join = Join(KnownVersions(cascade(), vote_math), limits)
    return Consensus(log, join, versions=versions, clock=clock or ManualClock())


async def prepared(partitions: int = 1, clock: ManualClock | None = None) -> MemoryLog:
    log = MemoryLog(clock or ManualClock())
    await log.create_topics([VOTES, CARRIED, ANSWERS, DEAD_LETTERS], partitions)
    return log


async def send(log: MemoryLog, *values: VotesPack | bytes, partition: int = 0) -> None:
    encoded = [v if isinstance(v, bytes) else codec.encode(v) for v in values]
    async with log.producer() as producer:
        await producer.publish([Output(VOTES, b"k", value, partition) for value in encoded])


async def receive(log: MemoryLog, topic: str, count: int) -> list[bytes]:
    """Wait for ``count`` records and return all that are there then."""
    found: list[bytes] = []
    async with log.reader(topic, "beginning") as reader:
        with anyio.fail_after(DEADLINE):
            while len(found) < count:
                polled = await reader.poll(max_records=1000, timeout=1)
                found += [r.value or b"" for records in polled.values() for r in records]
    return found


async def answers(log: MemoryLog, count: int) -> list[Answer]:
    return [codec.decode_answer(value) for value in await receive(log, ANSWERS, count)]


async def image_ids(log: MemoryLog, count: int) -> list[str]:
    return sorted(answer.head.image_id for answer in await answers(log, count))


@asynccontextmanager
async def running(*members: Consensus) -> AsyncIterator[None]:
    """Run the members; stop them in good order afterwards."""
    stopping = anyio.Event()
    async with anyio.create_task_group() as tasks:
        for member in members:
            tasks.start_soon(member.run, stopping)
        yield
        stopping.set()


async def lag(log: MemoryLog) -> int:
    return await log.lag(CONSENSUS_GROUP, [VOTES])


SMALL = JoinLimits(window=40, carry_after=8, at_once=8)
