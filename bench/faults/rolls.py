"""Rolls of other versions of the cascade, sound ones and others, whatever else goes on."""

import time
from collections.abc import Awaitable, Callable, Sequence

import anyio

from roadstream.bench.faults.campaign import MEMBERS, Campaign
from roadstream.bench.faults.chaos.children import Duty, until
from roadstream.bench.faults.chaos.variants import (
    BASE,
    LONGER,
    SHORTER,
    SOUND,
    THIRD,
    UNSOUND,
    new_version,
)
from roadstream.bench.faults.plan import Fault
from roadstream.schemas.errors import RunError, UsageError
from roadstream.schemas.records.claims import Roll
from roadstream.schemas.topics import tier_group
from roadstream.workers.service.access.roll import roll, roll_back

# Of the sessions, for a candidate.
SHARE = 0.3
ROLLED_WITHIN = 60.0
RETRY_AFTER = 0.5
# The storm: so many images under way, and seconds between two versions, and between two kills.
UNDER_WAY = 20_000
SENT_AT_ONCE = 1000
ROLL_EVERY = 5.0
KILL_EVERY = 3.0
THROUGH_WITHIN = 300.0
_STORM = (LONGER, "threshold", "share", "member", *UNSOUND, "back", SHORTER)


async def roll_version(campaign: Campaign, fault: Fault, injected: anyio.Event) -> None:
    """Roll what the fault says: a sound version, one that cannot be loaded, a share, or back."""
    injected.set()
    await _roll(campaign, fault.point, fault.target)
    await campaign.settled(ROLLED_WITHIN)


async def _roll(campaign: Campaign, what: str, target: int) -> None:
    """Roll, as often as it takes until the log has taken it."""
    log = campaign.load.log
    if what == "back":
        await _insist(campaign, what, lambda: roll_back(log, time.time()))
        return
    name, share = (SOUND[target % len(SOUND)], SHARE) if what == "share" else (what, None)
    version = new_version(name, campaign.next_version(), campaign.setting.folder)
    if name not in UNSOUND:
        campaign.answers.expect(version.cascade.hash, name)
    await _insist(campaign, what, lambda: roll(log, version.cascade, share, time.time()))


async def _insist(campaign: Campaign, what: str, call: Callable[[], Awaitable[Roll]]) -> None:
    give_up_at = time.monotonic() + ROLLED_WITHIN
    while True:
        try:
            await call()
        except UsageError:  # nothing was rolled before
            campaign.figure(f"rolls refused: {what}", 1)
        except RunError as error:  # another fault has the log
            if time.monotonic() < give_up_at:
                await anyio.sleep(RETRY_AFTER)
                continue
            campaign.note("not carried out", f"roll {what}", str(error))
        return


async def roll_storm(campaign: Campaign, fault: Fault, injected: anyio.Event) -> None:
    """Roll a version every few seconds, with very many images under way, while workers and
    consensus are killed; some versions have a tier more, for which one works.
    """
    injected.set()
    campaign.children.start(third := _third(campaign))
    ids = campaign.load.name_ordinary(UNDER_WAY)
    async with anyio.create_task_group() as kills:
        kills.start_soon(_kill_on, campaign, fault)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_send, campaign, ids)
            tasks.start_soon(_roll_on, campaign, fault)
        kills.cancel_scope.cancel()
    await _all_answered(campaign, ids)
    await campaign.settled(ROLLED_WITHIN)
    await campaign.children.retire(third.name)


def _third(campaign: Campaign) -> Duty:
    """Return who works for the tier that only some versions have, started with one of them."""
    setting, name = campaign.setting, f"{THIRD}-0"
    file = new_version(LONGER, campaign.next_version(), setting.folder).file
    common = [*setting.state, *setting.common]
    common[common.index("--cascade") + 1] = str(file)
    line = ["work", "--tier", THIRD, "--member", name, *common]
    return Duty(name, "worker", tier_group(THIRD), line)


async def _send(campaign: Campaign, ids: Sequence[str]) -> None:
    load = campaign.load
    for first in range(0, len(ids), SENT_AT_ONCE):
        load.add([load.catalogue.image(one) for one in ids[first : first + SENT_AT_ONCE]])
        await until(lambda: not load.waiting, ROLLED_WITHIN)


async def _roll_on(campaign: Campaign, fault: Fault) -> None:
    began, turn = time.monotonic(), 0
    while time.monotonic() - began < fault.seconds:
        await _roll(campaign, _STORM[turn % len(_STORM)], fault.target + turn)
        turn += 1
        await anyio.sleep(max(0.0, began + turn * ROLL_EVERY - time.monotonic()))
    await _roll(campaign, BASE, fault.target)
    campaign.figure("versions rolled in the storm", turn + 1)


async def _kill_on(campaign: Campaign, fault: Fault) -> None:
    """Kill a worker or a consensus every few seconds, until it is cancelled."""
    for turn in range(1000):
        await anyio.sleep(KILL_EVERY)
        if found := campaign.free(MEMBERS):
            campaign.children.kill(found[(fault.target + turn) % len(found)])
            campaign.figure("kills in the storm", turn + 1)


async def _all_answered(campaign: Campaign, ids: Sequence[str]) -> None:
    waiting, began = set(ids), time.monotonic()

    def done() -> bool:
        waiting.difference_update(campaign.answers.verdicts.keys() & waiting)
        return not waiting

    if not await until(done, THROUGH_WITHIN):
        campaign.note("slow answer", "the images of the storm", f"{len(waiting)} wait")
    campaign.figure("last roll of the storm to its last answer", time.monotonic() - began)
