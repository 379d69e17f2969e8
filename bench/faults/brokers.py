"""Faults of the brokers: killed, frozen, or behind a network that cuts and silences."""

import os
import signal
import time
from collections.abc import Sequence

import anyio

from roadstream.bench.faults.campaign import Campaign
from roadstream.bench.faults.plan import Fault
from roadstream.workers.broker.cluster import Cluster

# The others find out after 3 s, choose new leaders, and clients learn of them.
ONE_BROKER_WITHIN = 30.0
# Services try again at most every 15 s, and brokers take some seconds to be ready.
ALL_BROKERS_WITHIN = 60.0


async def kill_broker(campaign: Campaign, fault: Fault, injected: anyio.Event) -> None:
    """Kill one broker, and start it again."""
    cluster = _cluster(campaign)
    await _kill_one(campaign, fault, injected, fault.target % len(cluster.processes))


async def kill_controller(campaign: Campaign, fault: Fault, injected: anyio.Event) -> None:
    """Kill the broker that is the controller, and start it again."""
    await _kill_one(campaign, fault, injected, await _cluster(campaign).controller())


async def _kill_one(campaign: Campaign, fault: Fault, injected: anyio.Event, index: int) -> None:
    cluster = _cluster(campaign)
    await cluster.kill(index)
    since = time.monotonic()
    injected.set()
    async with anyio.create_task_group() as tasks:
        # A cluster of several goes on without one; a single broker has to be there again first.
        tasks.start_soon(campaign.go_on, fault, since, ONE_BROKER_WITHIN)
        await anyio.sleep(fault.seconds)
        await cluster.restart(index)


async def kill_brokers(campaign: Campaign, fault: Fault, injected: anyio.Event) -> None:
    """Kill all brokers; start them again after a while."""
    cluster = _cluster(campaign)
    for index in range(len(cluster.processes)):
        await cluster.kill(index)
    injected.set()
    await anyio.sleep(fault.seconds)
    await cluster.start()
    await campaign.go_on(fault, time.monotonic(), ALL_BROKERS_WITHIN)


async def freeze_broker(campaign: Campaign, fault: Fault, injected: anyio.Event) -> None:
    """Stop one broker (SIGSTOP), for longer than its peers wait for it; let it go on."""
    pids = _cluster(campaign).pids
    await _freeze(campaign, fault, injected, [pids[fault.target % len(pids)]])


async def freeze_brokers(campaign: Campaign, fault: Fault, injected: anyio.Event) -> None:
    """Stop all brokers for longer than any request waits; let them go on."""
    await _freeze(campaign, fault, injected, _cluster(campaign).pids)


async def _freeze(
    campaign: Campaign, fault: Fault, injected: anyio.Event, pids: Sequence[int]
) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    injected.set()
    try:
        await anyio.sleep(fault.seconds)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    await campaign.go_on(fault, time.monotonic(), ALL_BROKERS_WITHIN)


async def cut_connection(campaign: Campaign, fault: Fault, injected: anyio.Event) -> None:
    """Cut, or silence, every connection to one broker or to all; let them through again."""
    how, _, whose = fault.point.partition(" ")
    relays = campaign.relays
    chosen = relays if whose == "all" else [relays[fault.target % len(relays)]]
    for relay in chosen:
        relay.set("silent" if how == "silent" else "refused")
    injected.set()
    try:
        await anyio.sleep(fault.seconds)
    finally:
        for relay in chosen:
            relay.set("open")
    await campaign.go_on(fault, time.monotonic(), ALL_BROKERS_WITHIN)


def _cluster(campaign: Campaign) -> Cluster:
    assert campaign.cluster is not None
    return campaign.cluster
