"""Kills of `roadstream produce` in the middle of an archive."""

from pathlib import Path

import anyio

from roadstream.bench.faults.campaign import ANSWER_WITHIN, Campaign
from roadstream.bench.faults.chaos.children import Duty, until
from roadstream.bench.faults.plan import Fault

ARCHIVE = 400
PRODUCED_WITHIN = 60.0


async def kill_producer(campaign: Campaign, fault: Fault, injected: anyio.Event) -> None:
    """Kill a producer while it sends a folder; started again, it sends what was not sent."""
    name, children = f"produce-{fault.number}", campaign.children
    folder = _archive(campaign, campaign.setting.folder / name)
    note = campaign.setting.folder / f"{name}.sent"
    line = ["produce", str(folder), "--resume", str(note), *campaign.setting.common]
    # The command has no name of its own to be given orders by, so its folder's is used.
    duty = Duty(name, "producer", "", line, once=True)
    if fault.point:
        campaign.panel.give("produce", f"die {fault.point}")
    child = children.start(duty)
    if fault.point:
        await until(lambda: child.ended, PRODUCED_WITHIN)
        campaign.panel.clear("produce")
    else:
        await until(note.exists, PRODUCED_WITHIN)
        await anyio.sleep(fault.delay / 4)
        child.process.kill()
    children.dismiss(name)
    injected.set()
    child = children.start(duty)
    await until(lambda: child.ended, PRODUCED_WITHIN)
    if child.process.returncode != 0:
        campaign.note(
            "bad end", name, f"status {child.process.returncode}: {children.log_of(name)}"
        )
    children.dismiss(name)
    produced = campaign.answers.produced
    if not await until(lambda: produced[str(folder)] >= ARCHIVE, ANSWER_WITHIN):
        seen = f"{produced[str(folder)]} of {ARCHIVE} answered"
        campaign.note("lost", f"the archive of {name}", seen)


def _archive(campaign: Campaign, folder: Path) -> Path:
    folder.mkdir()
    catalogue = campaign.load.catalogue
    for i in range(ARCHIVE):
        kind = catalogue.shades[(7 * i) % len(catalogue.shades)]
        (folder / f"{i:05d}-{kind}.{'png' if kind[0] == 's' else 'jpg'}").write_bytes(
            catalogue.data(kind)
        )
    return folder
