"""What the event ledger costs a group member, and what ``verify`` itself costs.

Processor time, not wall clock: on a machine that others use too, the figures hold.
"""

import argparse
import gc
import resource
import tempfile
from pathlib import Path

import anyio
import msgspec

from roadstream.bench.harness import Spread, cpu_seconds, show, spread, write_result
from roadstream.schemas import codec
from roadstream.schemas.cascade.model import Cascade, Member, Tier
from roadstream.schemas.records.answer import Answer, AnswerTier
from roadstream.schemas.records.image import Head, Image, Inline
from roadstream.schemas.records.votes import ImageVotes, MemberRun, VotesPack
from roadstream.schemas.topics import (
    ANSWERS,
    CONSENSUS_GROUP,
    VOTES,
    all_topics,
    images,
    tier_group,
    tier_inputs,
)
from roadstream.sinks.verification.findings import Report
from roadstream.sinks.verification.run import verify
from roadstream.streams.group.member import GroupMember, GroupMemberOptions
from roadstream.streams.ledgers.event_ledger import EventLedger
from roadstream.streams.log import Log, Output
from roadstream.streams.memory.log import MemoryLog

PARTITIONS, BATCH = 16, 64
TOPIC = "work"
TIER = "only"
CASCADE = Cascade(name="b", tiers=[Tier(name=TIER, members=[Member(name="m", engine="noop")])])


class LedgerCost(msgspec.Struct, frozen=True):
    """Processor time a group member takes per batch, in microseconds.

    Attributes:
        batches: Batches per round.
        without: Without a ledger.
        kept: With one.
        bytes_per_batch: Bytes written per batch.
    """

    batches: int
    without: Spread
    kept: Spread
    bytes_per_batch: float


class VerifyCost(msgspec.Struct, frozen=True):
    """What verifying a sound run took.

    Attributes:
        images: Images in the run.
        seconds: Processor time.
        peak_growth: Bytes by which the peak of resident memory grew.
    """

    images: int
    seconds: float
    peak_growth: int


class _Idle:
    """Has no work of its own: what is measured is the bookkeeping."""

    async def take_over(self, partitions: object) -> None:
        pass

    async def give_up(self, partitions: object) -> None:
        pass


async def _batches(count: int, ledger: Path | None) -> float:
    """Have a member do so many batches; return the processor time it took."""
    log = MemoryLog()
    await log.create_topics([TOPIC], PARTITIONS)
    log.append([Output(TOPIC, None, b"", i % PARTITIONS) for i in range(count * BATCH)])
    member = GroupMember(_Idle(), "worker", "bench", [TOPIC], GroupMemberOptions(ledger=ledger))
    async with member.joined(log):
        began, left = cpu_seconds(), count * BATCH
        while left:
            polled = await member.poll(max_records=BATCH, timeout=1.0)
            done = {tp: [record.offset for record in records] for tp, records in polled.items()}
            left -= sum(map(len, done.values()))
            await member.finish([], done, member.epoch)
        return cpu_seconds() - began


def measure_ledger(batches: int, rounds: int, scratch: Path) -> LedgerCost:
    """Measure a member with and without a ledger, turn by turn."""
    figures: dict[bool, list[float]] = {False: [], True: []}
    for number in range(rounds + 1):  # the first warms up
        for kept, found in figures.items():
            folder = scratch / f"{number}" if kept else None
            found.append(1e6 * anyio.run(_batches, batches, folder) / batches)
    size = sum(file.stat().st_size for file in (scratch / "1").iterdir())
    without, with_one = spread(figures[False][1:]), spread(figures[True][1:])
    return LedgerCost(batches, without, with_one, size / batches)


async def _fill(log: Log, count: int) -> None:
    """Append the records of a sound run."""
    await log.create_topics(all_topics(CASCADE.tier_names), PARTITIONS)
    run = MemberRun("m", "1", 1.0, True, 0.01, BATCH)
    async with log.producer() as producer:
        for first in range(0, count, BATCH):
            partition = first // BATCH % PARTITIONS
            heads = [Head(image_id=f"{i:032x}") for i in range(first, min(first + BATCH, count))]
            said = [ImageVotes(head, [1.0], [0.7]) for head in heads]
            pack = VotesPack(
                tier=TIER, cascade="", cascade_hash="", sent_at=0.0, runs=[run], images=said
            )
            tier = AnswerTier(TIER, [run], [1.0], [0.7])
            outputs = [Output(VOTES, None, codec.encode(pack), partition)]
            for head in heads:
                image = codec.encode(Image(head, Inline(b"")))
                answer = Answer(head, "answered", "roadwork", 0.7, 0.4, 0.5, TIER, [tier])
                outputs.append(Output(images("archive"), head.key, image, partition))
                outputs.append(Output(ANSWERS, head.key, codec.encode(answer), partition))
            await producer.publish(outputs)


async def _commit_all(log: Log, ledger: Path) -> None:
    for group, topics in (
        (tier_group(TIER), list(tier_inputs(TIER, first=True))),
        (CONSENSUS_GROUP, [VOTES]),
    ):
        member = GroupMember(_Idle(), "worker", group, topics, GroupMemberOptions(ledger=ledger))
        async with member.joined(log):
            while await log.lag(group, topics):
                polled = await member.poll(max_records=BATCH, timeout=1.0)
                done = {tp: [r.offset for r in records] for tp, records in polled.items()}
                await member.finish([], done, member.epoch)


async def _verified(count: int, scratch: Path) -> VerifyCost:
    log, ledger = MemoryLog(), scratch / "verify"
    await _fill(log, count)
    await _commit_all(log, ledger)
    events = EventLedger(ledger, "producer", log=await log.identity())
    for first in range(0, count, BATCH):
        events.acknowledged([f"{i:032x}" for i in range(first, min(first + BATCH, count))])
    events.close()
    gc.collect()
    peak, began = _peak(), cpu_seconds()
    report: Report = await verify(log, ledger, CASCADE)
    assert report.clean, report
    return VerifyCost(count, cpu_seconds() - began, _peak() - peak)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Measure both and write the result."""
    parser = argparse.ArgumentParser(
        prog="python -m roadstream.bench.parts.verify", description=__doc__
    )
    parser.add_argument("--batches", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=500_000)
    parser.add_argument("--name", default="verify", help="name of the result")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="roadstream-bench-") as folder:
        ledger = measure_ledger(options.batches, options.rounds, Path(folder))
        checked = anyio.run(_verified, options.images, Path(folder))
    show(
        f"A group member, {BATCH} records a batch over {PARTITIONS} partitions, no work",
        ["", "CPU µs per batch"],
        [["without a ledger", ledger.without.text()], ["with one", ledger.kept.text()]],
    )
    each = checked.peak_growth / checked.images
    print(f"{ledger.bytes_per_batch:,.0f} bytes written per batch")
    print(
        f"verify: {checked.images / checked.seconds:,.0f} images/s of CPU, {each:,.0f} bytes each"
    )
    result = {"ledger": ledger, "verify": checked, "bytes_per_image": each}
    print(f"written: {write_result(options.name, result)}")


if __name__ == "__main__":
    main()
