"""Faults of order: votes twice, votes in another order, votes late."""

import random

import anyio

from roadstream.bench.faults.campaign import ANSWER_WITHIN, Campaign
from roadstream.bench.faults.plan import Fault
from roadstream.schemas.errors import RunError
from roadstream.schemas.topics import VOTES, tier_group
from roadstream.streams.log import Output

LISTEN = 0.5
MOST_PACKS = 40


async def repeated_votes(campaign: Campaign, fault: Fault, injected: anyio.Event) -> None:
    """Publish votes packs of the last moment once more, shuffled, now or later."""
    packs: list[Output] = []
    log = campaign.load.log
    try:
        async with log.reader(VOTES, "end") as reader, log.producer() as producer:
            with anyio.move_on_after(LISTEN + 10.0):
                while len(packs) < MOST_PACKS:
                    polled = await reader.poll(max_records=MOST_PACKS, timeout=LISTEN)
                    packs += [
                        Output(VOTES, record.key, record.value or b"", tp.partition)
                        for tp, records in polled.items()
                        for record in records
                    ]
            random.Random(fault.target).shuffle(packs)
            injected.set()
            await anyio.sleep(fault.seconds)
            await producer.publish(packs)
    except RunError as error:  # another fault has the log
        campaign.figure(f"repeated votes not published: {type(error).__name__}", 1)


async def held_votes(campaign: Campaign, fault: Fault, injected: anyio.Event) -> None:
    """Let a first-tier worker publish its votes after its escalations: the next tier's overtake."""
    name = await campaign.take(fault, "worker", group=tier_group("first"))
    campaign.panel.give(name, f"hold-votes {fault.seconds}")
    injected.set()
    await anyio.sleep(2 * fault.seconds)
    campaign.panel.clear(name)
    campaign.release(name)
    await campaign.settled(ANSWER_WITHIN)
