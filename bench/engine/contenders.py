"""The contenders of the stream benchmark: where their records lie, and how one run is made."""

import os
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from pathlib import Path

import anyio
import msgspec
from aiokafka.admin import AIOKafkaAdminClient
from anyio import to_thread

from roadstream.bench.engine import peer as engine_peer
from roadstream.bench.engine import product as engine_product
from roadstream.bench.engine.plan import Plan, check_answers, preload
from roadstream.bench.engine.run import Outcome, run_alone, run_hops
from roadstream.schemas.topics import ANSWERS, VOTES, all_topics
from roadstream.streams.embedded.log import EmbeddedLog
from roadstream.streams.kafka.log import KafkaLog
from roadstream.streams.kafka.settings import KafkaSettings


class Contender(ABC):
    """Something that answers every image of a plan."""

    name: str
    note = ""

    @abstractmethod
    async def run(self, plan: Plan) -> Outcome:
        """Make one run in fresh processes and check its answers.

        Raises:
            VoidRunError: It did not answer every image once.
        """


class Embedded(Contender):
    """The product on the embedded log; the file with the images is made once and copied."""

    name = "embedded log"
    note = "two processes, one SQLite file (WAL)"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def run(self, plan: Plan) -> Outcome:
        """See ``Contender.run``."""
        template = self._folder / f"template-{plan.images}-{plan.payload}.sqlite"
        if not template.exists():
            await _fill(EmbeddedLog(template), plan)
        place = self._folder / "run"
        place.mkdir()
        try:
            shutil.copy(template, place / "log.sqlite")
            await to_thread.run_sync(os.sync)
            # The group is new in every copy; only the preloaded file knows the tier's topics.
            running = msgspec.structs.replace(plan, log=f"embedded:{place / 'log.sqlite'}")
            outcome = await to_thread.run_sync(
                run_hops, engine_product.worker_process, engine_product.consensus_process, running
            )
            async with EmbeddedLog(place / "log.sqlite") as log:
                await check_answers(log, ANSWERS, plan)
        finally:
            shutil.rmtree(place)
        return outcome


async def _fill(log: EmbeddedLog, plan: Plan) -> None:
    async with log:
        await log.create_topics(all_topics([plan.tier]), plan.partitions)
        async with log.producer() as producer:
            await preload(producer, plan)


class Memory(Contender):
    """The product on the log in memory."""

    name = "in-memory log"
    note = "both hops in one process: it cannot be shared"

    async def run(self, plan: Plan) -> Outcome:
        """See ``Contender.run``."""
        running = msgspec.structs.replace(plan, log="memory")
        return await to_thread.run_sync(run_alone, engine_product.memory_process, running)


class OnKafka(Contender):
    """Someone on a real broker, whose images are loaded once for all contenders and rounds."""

    def __init__(self, servers: str, pids: Sequence[int]) -> None:
        self._servers, self._pids = servers, pids
        self._rounds = 0

    async def fresh(self, topics: Collection[str], partitions: int) -> None:
        """Delete topics and create them anew, empty."""
        async with KafkaLog(KafkaSettings(bootstrap_servers=self._servers)) as log:
            existing = await log.partition_counts(topics)
            if existing:
                admin = AIOKafkaAdminClient(bootstrap_servers=self._servers)
                await admin.start()
                try:
                    await admin.delete_topics(list(existing))
                finally:
                    await admin.close()
                while await log.partition_counts(topics):  # noqa: ASYNC110 (Kafka tells nobody)
                    await anyio.sleep(0.1)
            await log.create_topics(topics, partitions)

    async def check(self, plan: Plan, answers: str) -> None:
        """Check the answers on a topic."""
        async with KafkaLog(KafkaSettings(bootstrap_servers=self._servers)) as log:
            await check_answers(log, answers, plan)

    def next_plan(self, plan: Plan) -> Plan:
        """Return the plan of the next round: a new tier, so that its group is new."""
        self._rounds += 1
        tier = f"{re.sub('[^a-z]+', '-', self.name)}-{self._rounds}"
        return msgspec.structs.replace(plan, log=f"kafka://{self._servers}", tier=tier)


async def preload_kafka(servers: str, plan: Plan) -> None:
    """Load the images of a plan onto a broker."""
    async with KafkaLog(KafkaSettings(bootstrap_servers=servers)) as log:
        await log.create_topics(all_topics([plan.tier]), plan.partitions)
        async with log.producer() as producer:
            await preload(producer, plan)


class ProductOnKafka(OnKafka):
    """The product on a real broker."""

    name = "kafka"
    note = "two processes, real Apache Kafka on the same cores"

    async def run(self, plan: Plan) -> Outcome:
        """See ``Contender.run``."""
        running = self.next_plan(plan)
        await self.fresh([VOTES, ANSWERS], plan.partitions)
        outcome = await to_thread.run_sync(
            run_hops,
            engine_product.worker_process,
            engine_product.consensus_process,
            running,
            self._pids,
        )
        await self.check(running, ANSWERS)
        return outcome


class PlainLoop(OnKafka):
    """The peer on the same broker."""

    note = "getmany(500), send, gather, commit; acks=all"

    def __init__(self, servers: str, pids: Sequence[int], loop: str) -> None:
        super().__init__(servers, pids)
        self._loop = loop
        self.name = f"aiokafka loop, {loop}"

    async def run(self, plan: Plan) -> Outcome:
        """See ``Contender.run``."""
        running = msgspec.structs.replace(self.next_plan(plan), loop=self._loop)
        votes, answers = engine_peer.topics(running)
        await self.fresh([votes, answers], plan.partitions)
        outcome = await to_thread.run_sync(
            run_hops,
            engine_peer.worker_process,
            engine_peer.consensus_process,
            running,
            self._pids,
        )
        await self.check(running, answers)
        return outcome
