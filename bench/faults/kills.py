"""Kills, at any moment and at chosen ones; ends in order; freezes; and the storm."""

import os
import signal
import time
from pathlib import Path

import anyio

from roadstream.bench.faults.campaign import MEMBERS, Campaign, Standstill
from roadstream.bench.faults.chaos.children import Duty, until
from roadstream.bench.faults.plan import Fault

# A worker comes by every point many times a second while there is load.
POINT_WITHIN = 15.0
DRAIN_BUDGET = 20.0
STORM_GAP = 5.0


async def kill_worker(campaign: Campaign, fault: Fault, injected: anyio.Event) -> None:
    """Kill a worker now."""
    await _kill(campaign, fault, injected, await campaign.take(fault, "worker"))


async def kill_consensus(campaign: Campaign, fault: Fault, injected: anyio.Event) -> None:
    """Kill a consensus process now."""
    await _kill(campaign, fault, injected, await campaign.take(fault, "consensus"))


async def lose_worker(campaign: Campaign, fault: Fault, injected: anyio.Event) -> None:
    """Kill a worker that stays away for longer than the session timeout."""
    away = campaign.setting.session_timeout + fault.seconds
    name = await campaign.take_spared(fault, "worker")
    await _kill(campaign, fault, injected, name, away=away)


async def _kill(
    campaign: Campaign, fault: Fault, injected: anyio.Event, name: str, *, away: float = 0.0
) -> None:
    campaign.ledgers.read()
    group, partitions = campaign.ledgers.owned(name)
    campaign.children.kill(name, away=away)
    campaign.ledgers.read()
    since = time.monotonic()
    injected.set()
    if not away:
        campaign.release(name)
    await campaign.recover(fault, name, Standstill(group, partitions, since))
    if away:
        await until(lambda: not campaign.children.by_name[name].ended, 2 * away)
        campaign.release(name)


async def kill_several(campaign: Campaign, fault: Fault, injected: anyio.Event) -> None:
    """Kill two members or more at the same moment, every third time all of them."""
    names = [await campaign.take(fault, *MEMBERS)]
    others = campaign.free(MEMBERS)[: 1 if fault.target % 3 else None]
    names += [campaign.keep(fault, other) for other in others]
    async with anyio.create_task_group() as tasks:
        for name in names:
            tasks.start_soon(_kill, campaign, fault, injected, name)


async def kill_worker_at(campaign: Campaign, fault: Fault, injected: anyio.Event) -> None:
    """Have a worker kill itself at a point of its work."""
    await _kill_at(campaign, fault, injected, await campaign.take(fault, "worker"))


async def kill_consensus_at(campaign: Campaign, fault: Fault, injected: anyio.Event) -> None:
    """Have a consensus process kill itself at a point of its work."""
    await _kill_at(campaign, fault, injected, await campaign.take(fault, "consensus"))


async def _kill_at(campaign: Campaign, fault: Fault, injected: anyio.Event, name: str) -> None:
    children, panel = campaign.children, campaign.panel
    child = children.by_name[name]
    children.doom(name)
    panel.give(name, f"die {fault.point}")
    if fault.point == "in-take-over":
        # It takes over when it comes back: a second death on top of the first.
        children.kill(name)
    if not await until(lambda: not panel.pending(name), POINT_WITHIN):
        panel.clear(name)
        campaign.note("not carried out", f"fault {fault.number}", f"{name} never {fault.point}")
    await until(lambda: child.ended, 1.0)
    campaign.ledgers.read()
    group, partitions = campaign.ledgers.owned(name)
    since = time.monotonic()
    children.spare(name)
    injected.set()
    campaign.release(name)
    await campaign.recover(fault, name, Standstill(group, partitions, since))


async def terminate(campaign: Campaign, fault: Fault, injected: anyio.Event) -> None:
    """End a member in order: its status is 0, in time; then it is started again."""
    name = await campaign.take(fault, *MEMBERS)
    duty = campaign.children.by_name[name].duty
    injected.set()
    status, seconds = await campaign.children.retire(name)
    campaign.figure("SIGTERM to end", seconds)
    if status != 0 or seconds > DRAIN_BUDGET:
        campaign.note("bad end", name, f"status {status} after {seconds:.1f} s")
    campaign.children.start(duty)
    campaign.release(name)


async def zombie(campaign: Campaign, fault: Fault, injected: anyio.Event) -> None:
    """Freeze a member until its partitions are another's, then let it go on with stale work."""
    name = await campaign.take_spared(fault, *MEMBERS)
    campaign.ledgers.read()
    group, partitions = campaign.ledgers.owned(name)
    campaign.children.freeze(name)
    since = time.monotonic()
    injected.set()
    try:
        await campaign.recover(fault, name, Standstill(group, partitions, since))
        left = since + campaign.setting.session_timeout + fault.seconds - time.monotonic()
        await anyio.sleep(max(0.0, left))
    finally:
        campaign.children.thaw(name)
    # It has to find out, and to take its share again, without disturbing the others.
    await campaign.recover(fault, name, Standstill(group, partitions, time.monotonic()))
    campaign.release(name)


async def storm(campaign: Campaign, fault: Fault, injected: anyio.Event) -> None:
    """Let a member join, or leave, every second; answers never stop for more than seconds."""
    injected.set()
    children = campaign.children
    model = children.by_name[await campaign.take(fault, "worker")].duty
    guests: list[str] = []
    began, turns = time.monotonic(), 0
    while time.monotonic() - began < fault.seconds:
        turns += 1
        if len(guests) < 2 or (len(guests) < 4 and turns % 2):
            guests.append(f"storm-{turns}")
            children.start(_renamed(model, guests[-1]))
        elif turns % 4:
            children.dismiss(guests.pop(0))
        else:
            await children.retire(guests.pop(0))
        await anyio.sleep(max(0.0, began + turns - time.monotonic()))
    gap = campaign.answers.gap_since(began)
    campaign.figure("longest gap in the storm", gap)
    campaign.figure("members that came or went in the storm", turns)
    if gap > STORM_GAP:
        campaign.note("stood still", "storm", f"no answer for {gap:.1f} s")
    for name in guests:
        await children.retire(name)
    campaign.release(model.name)


def _renamed(duty: Duty, name: str) -> Duty:
    arguments = [name if word == duty.name else word for word in duty.arguments]
    return duty._replace(name=name, arguments=arguments)


async def kill_supervisor(campaign: Campaign, fault: Fault, injected: anyio.Event) -> None:
    """Start `roadstream up`, kill it, and see its children end and others go on."""
    setting, children = campaign.setting, campaign.children
    name = f"up{fault.number}"
    duty = Duty(name, "supervisor", "", ["up", "--name", name, *setting.state, *setting.common])
    children.start(duty)
    members = [f"{name}-first-0", f"{name}-second-0", f"{name}-consensus"]
    known = campaign.ledgers.members
    if not await until(lambda: all(member in known for member in members), 30):
        campaign.note("not carried out", name, f"its children never joined: {sorted(known)}")
    pids = [known[member].pid for member in members if member in known]
    await anyio.sleep(fault.seconds)
    children.dismiss(name)
    injected.set()
    if not await until(lambda: not any(map(_lives, pids)), DRAIN_BUDGET):
        campaign.note("orphans", name, f"its children did not end: {pids}")
        for pid in filter(_lives, pids):
            os.kill(pid, signal.SIGKILL)
    await campaign.settled(30)


def _lives(pid: int) -> bool:
    try:
        # The third field of proc(5) stat: a zombie is as good as gone.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
