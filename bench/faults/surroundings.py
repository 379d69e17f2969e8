"""Faults of what is around the processes: the clock, the log's disk, the log's file."""

import subprocess
import sys
import time

import anyio

from roadstream.bench.faults.campaign import ANSWER_WITHIN, Campaign
from roadstream.bench.faults.chaos.children import ROOT, until
from roadstream.bench.faults.plan import Fault

# Services that could not reach the log try again at most every 15 s.
LOG_WITHIN = 20.0


async def clock_step(campaign: Campaign, fault: Fault, injected: anyio.Event) -> None:
    """Step the wall clock of all processes, and back again after a while."""
    campaign.clock.step(float(fault.point))
    injected.set()
    try:
        await anyio.sleep(fault.seconds)
    finally:
        campaign.clock.step(0.0)
    await campaign.go_on(fault, time.monotonic(), campaign.recovery_bound)


async def disk_full(campaign: Campaign, fault: Fault, injected: anyio.Event) -> None:
    """Leave the log no room for a while."""
    pids = [child.process.pid for child in campaign.children.by_name.values()]
    campaign.disk.fill(pids)
    injected.set()
    try:
        await anyio.sleep(fault.seconds)
    finally:
        campaign.disk.free()
    await campaign.go_on(fault, time.monotonic(), LOG_WITHIN)


async def locked(campaign: Campaign, fault: Fault, injected: anyio.Event) -> None:
    """Hold the log's file locked from another process."""
    file = campaign.setting.url.removeprefix("embedded:")
    command = [sys.executable, "-m", "roadstream.bench.faults.chaos.lock", file, f"{fault.seconds}"]
    with subprocess.Popen(command, cwd=ROOT) as process:  # noqa: ASYNC220 (starts in no time)
        injected.set()
        try:
            if not await until(lambda: process.poll() is not None, fault.seconds + ANSWER_WITHIN):
                campaign.note("not carried out", f"fault {fault.number}", "no lock was to be had")
        finally:
            process.kill()
    await campaign.go_on(fault, time.monotonic(), LOG_WITHIN)
