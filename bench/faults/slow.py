"""What is slow: models, a sink, a consumer. Nobody may be thrown out, and memory stays bounded."""

import time

import anyio

from roadstream.bench.faults.campaign import Campaign
from roadstream.bench.faults.chaos.answers import verdict_is_late
from roadstream.bench.faults.chaos.children import until
from roadstream.bench.faults.plan import Fault
from roadstream.schemas.topics import tier_group
from roadstream.workers.tier.worker import WorkerLimits

# Seconds per picture: with batches of 16, a batch takes longer than the live deadline.
MODEL_SLEEPS = 0.05
LIVE_DEADLINE = 0.5
LIVE_EACH_SECOND = 20
# A live answer comes at its deadline; a batch may have begun before, and the consensus looks then.
LIVE_GRACE = 4.0
SINK_BLOCKS = 0.7
TIMES_TOO_SLOW = 5
LARGE_EACH_SECOND = 10
# Beside its queue a worker holds a poll, two batches of decoded pictures, and what it publishes.
BESIDE_QUEUE = 48 << 20
CATCH_UP_WITHIN = 60.0


async def slow_model(campaign: Campaign, fault: Fault, injected: anyio.Event) -> None:
    """Let the first tier's models sleep, while somebody waits for live images."""
    workers = campaign.of_group(tier_group("first"))
    live: list[str] = []
    with campaign.steady_groups(fault):
        for name in workers:
            campaign.panel.give(name, f"slow-model {MODEL_SLEEPS}")
        injected.set()
        for _ in range(int(fault.seconds)):
            live += campaign.load.add_live(LIVE_EACH_SECOND, LIVE_DEADLINE)
            await anyio.sleep(1.0)
        found = campaign.answers
        await until(lambda: all(i in found.verdicts for i in live), LIVE_GRACE + LIVE_DEADLINE)
        for name in workers:
            campaign.panel.clear(name)
        if missing := [i for i in live if i not in found.verdicts]:
            seen = f"{len(missing)} live images without an answer {LIVE_GRACE:g} s past deadlines"
            campaign.note("deadline ignored", f"fault {fault.number}", seen)
        await campaign.settled(CATCH_UP_WITHIN)
    late = sum(verdict_is_late(found.verdicts[i]) for i in live if i in found.verdicts)
    campaign.figure("live images sent under a slow model", len(live))
    campaign.figure("of them answered partial or expired", late)
    if not late:
        campaign.note("deadline ignored", f"fault {fault.number}", "no live answer was cut short")


async def slow_sink(campaign: Campaign, fault: Fault, injected: anyio.Event) -> None:
    """Let a consensus process block whenever it publishes."""
    name = await campaign.take(fault, "consensus")
    with campaign.steady_groups(fault), campaign.bounded_memory(fault, [name], BESIDE_QUEUE):
        campaign.panel.give(name, f"slow-publish {SINK_BLOCKS}")
        injected.set()
        await anyio.sleep(fault.seconds)
        campaign.panel.clear(name)
        await campaign.settled(CATCH_UP_WITHIN)
    campaign.release(name)


async def slow_consumer(campaign: Campaign, fault: Fault, injected: anyio.Event) -> None:
    """Give the second tier five times what it can do, large pictures among it."""
    workers = campaign.of_group(tier_group("second"))
    # About half of the load is escalated.
    pause = TIMES_TOO_SLOW * len(workers) / (campaign.load.rate / 2 + LARGE_EACH_SECOND)
    budget = WorkerLimits().queue_bytes + BESIDE_QUEUE
    with campaign.steady_groups(fault), campaign.bounded_memory(fault, workers, budget):
        for name in workers:
            campaign.panel.give(name, f"slow-model {pause:.3f}")
        injected.set()
        began = time.monotonic()
        while time.monotonic() - began < fault.seconds:
            campaign.load.add_kinds([f"b{100 + i}" for i in range(LARGE_EACH_SECOND)])
            await anyio.sleep(1.0)
        campaign.figure("images waiting behind a slow consumer", len(campaign.unanswered()))
        for name in workers:
            campaign.panel.clear(name)
        if not await campaign.settled(CATCH_UP_WITHIN):
            campaign.note("slow answer", "slow consumer", f"{len(campaign.unanswered())} wait")
