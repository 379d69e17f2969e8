"""The peer: the same two hops as a plain aiokafka program, in the manner of its documentation.

Batches of ``getmany``, one ``send`` per record, the futures gathered, then the commit: at least
once, as its guides on batch consuming and on manual commits have it. Same records, same vote math,
same answers. Lean where the product is not obliged to be: no watch for rebalances, no deadlines,
no late or repeated votes, no dead letters.
"""

import asyncio
import time
from collections.abc import Coroutine
from multiprocessing.connection import Connection
from typing import Any

import msgspec
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from roadstream.bench.engine.plan import Plan, Timing, noop_cascade
from roadstream.bench.harness import cpu_seconds
from roadstream.schemas import codec
from roadstream.schemas.records.answer import Answer, AnswerTier
from roadstream.schemas.records.image import Head
from roadstream.schemas.records.votes import MemberRun
from roadstream.stages.voting.vote import sigmoid, verdict

RAW = 4.0
BATCH = 500


class PlainVote(msgspec.Struct, frozen=True, gc=False):
    """One member's vote on one image, a record of its own."""

    head: Head
    vote: AnswerTier


_decode_vote = msgspec.msgpack.Decoder(PlainVote).decode


def topics(plan: Plan) -> tuple[str, str]:
    """Return the peer's topics for votes and for answers."""
    return f"{plan.prefix}votes", f"{plan.prefix}answers"


class _Hop:
    """A consumer, a producer, and the figures of the process."""

    def __init__(self, plan: Plan, source: str, group: str) -> None:
        servers = plan.log.removeprefix("kafka://")
        self.consumer = AIOKafkaConsumer(
            source,
            bootstrap_servers=servers,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            check_crcs=plan.check_crcs,
        )
        self.producer = AIOKafkaProducer(bootstrap_servers=servers, acks="all")
        self.first_at = self.cpu_first = 0.0

    async def __aenter__(self) -> "_Hop":
        await self.producer.start()
        await self.consumer.start()
        while not self.consumer.assignment():  # noqa: ASYNC110 (aiokafka tells nobody)
            await asyncio.sleep(0.01)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.consumer.stop()
        await self.producer.stop()

    def begin(self) -> None:
        """Note the first records."""
        if not self.first_at:
            self.first_at, self.cpu_first = time.perf_counter(), cpu_seconds()

    def timing(self) -> Timing:
        """Return what was measured until now."""
        return Timing(self.first_at, time.perf_counter(), self.cpu_first, cpu_seconds())


async def _vote(plan: Plan, parent: Connection) -> None:
    votes, _ = topics(plan)
    tier = noop_cascade(plan).tiers[0]
    async with _Hop(plan, "images.archive", f"plain.{plan.tier}") as hop:
        parent.send("ready")
        done = 0
        while done < plan.images:
            found = await hop.consumer.getmany(timeout_ms=1000, max_records=BATCH)
            if not found:
                continue
            hop.begin()
            futures = []
            for records in found.values():
                done += len(records)
                for record in records:
                    image = codec.decode_image(record.value)
                    for m in tier.members:
                        run = MemberRun(m.name, m.model_version, m.weight, False, 0.0, len(records))
                        vote = AnswerTier(tier.name, [run], [RAW], [sigmoid(RAW)])
                        value = codec.encode(PlainVote(image.head, vote))
                        futures.append(await hop.producer.send(votes, value, record.key))
            await asyncio.gather(*futures)
            await hop.consumer.commit()
        timing = hop.timing()
    parent.send(timing)


async def _decide(plan: Plan, parent: Connection) -> None:
    source, answers = topics(plan)
    cascade = noop_cascade(plan)
    judge = verdict(cascade.pool)
    waiting: dict[str, AnswerTier] = {}
    async with _Hop(plan, source, f"plain.{plan.tier}.consensus") as hop:
        parent.send("ready")
        done = 0
        while done < plan.images:
            found = await hop.consumer.getmany(timeout_ms=1000, max_records=BATCH)
            if not found:
                continue
            hop.begin()
            futures = []
            now = time.time()
            for records in found.values():
                for record in records:
                    said = _decode_vote(record.value)
                    head = said.head
                    other = waiting.pop(head.image_id, None)
                    if other is None:
                        waiting[head.image_id] = said.vote
                        continue
                    pair = [other, said.vote]
                    ps = [p for vote in pair for p in vote.probability if p is not None]
                    v = judge(ps, [run.weight for vote in pair for run in vote.runs])
                    answer = Answer(
                        head=head,
                        status="answered",
                        label="roadwork" if v.probability >= cascade.threshold else "none",
                        probability=v.probability,
                        confidence=v.confidence,
                        threshold=cascade.threshold,
                        exit_tier=said.vote.tier,
                        tiers=pair,
                        disagreement=v.disagreement,
                        losing=v.losing,
                        cascade=cascade.name,
                        cascade_hash=cascade.hash,
                        answered_at=now,
                        took=now - head.submitted_at,
                    )
                    futures.append(
                        await hop.producer.send(answers, codec.encode(answer), record.key)
                    )
            await asyncio.gather(*futures)
            await hop.consumer.commit()
            done += len(futures)
        timing = hop.timing()
        parent.send("done")
    parent.send(timing)


def worker_process(plan: Plan, parent: Connection) -> None:
    """Be the first hop: images to two votes each."""
    _run(plan, _vote(plan, parent))


def consensus_process(plan: Plan, parent: Connection) -> None:
    """Be the second hop: pairs of votes to answers."""
    _run(plan, _decide(plan, parent))


def _run(plan: Plan, hop: Coroutine[Any, Any, None]) -> None:
    factory = uvloop.new_event_loop if plan.loop == "uvloop" else None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(hop)
