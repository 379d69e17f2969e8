"""The cascade that faults are injected into: which processes, their start, their end in order."""

from roadstream.bench.faults.campaign import Campaign
from roadstream.bench.faults.chaos.children import STOP_BUDGET, Duty, until
from roadstream.bench.faults.chaos.pictures import TIERS
from roadstream.bench.faults.facts import Setting
from roadstream.schemas.errors import RunError
from roadstream.schemas.topics import CONSENSUS_GROUP, tier_group

START_WITHIN = 60.0


def duties(setting: Setting) -> list[Duty]:
    """Return the processes that are there all the time."""
    found = []
    for i in range(setting.processes):
        for tier in TIERS:
            name = f"{tier}-{i}"
            line = ["work", "--tier", tier, "--member", name, *setting.state, *setting.common]
            found.append(Duty(name, "worker", tier_group(tier), line))
        line = ["consensus", "--member", f"consensus-{i}", *setting.common]
        found.append(Duty(f"consensus-{i}", "consensus", CONSENSUS_GROUP, line))
    return found


async def start_all(campaign: Campaign) -> None:
    """Start every process and wait until each has its partitions.

    Raises:
        RunError: One did not come up; its log says why.
    """
    children, ledgers = campaign.children, campaign.ledgers
    started = [children.start(duty) for duty in duties(campaign.setting)]
    children.keeping = True
    idle: list[str] = []

    def ready() -> bool:
        idle[:] = [
            child.duty.name
            for child in started
            if ledgers.pid(child.duty.name) != child.process.pid
            or not ledgers.owned(child.duty.name)[1]
        ]
        return not idle

    if not await until(ready, START_WITHIN):
        said = "; ".join(f"{name}: {children.log_of(name)[-500:]}" for name in idle)
        raise RunError(f"the campaign's processes did not start: {said}")


async def stop_all(campaign: Campaign) -> None:
    """End every process in order, once each has joined; note those that do not end well."""
    children = campaign.children
    # A process that has only just been started would not know yet what SIGTERM asks of it.
    await campaign.joined(START_WITHIN)
    for name, (status, seconds) in (await children.stop()).items():
        campaign.figure("SIGTERM to end", seconds)
        if status != 0 or seconds > STOP_BUDGET:
            campaign.note("bad end", name, f"status {status} after {seconds:.1f} s")
