"""Runs a plan of faults against a running cascade, and gathers what came of each."""

import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import anyio

from roadstream.bench.faults.chaos.answers import Anomaly, Answers
from roadstream.bench.faults.chaos.child import CLOCK
from roadstream.bench.faults.chaos.children import Children, until
from roadstream.bench.faults.chaos.controls import SharedClock
from roadstream.bench.faults.chaos.disk import Disk
from roadstream.bench.faults.chaos.ledgers import Ledgers
from roadstream.bench.faults.chaos.load import Load
from roadstream.bench.faults.chaos.pictures import TIERS
from roadstream.bench.faults.facts import Happened, Recovery, Setting
from roadstream.bench.faults.network import Relay
from roadstream.bench.faults.plan import KINDS, Fault
from roadstream.schemas.topics import CONSENSUS_GROUP, tier_group
from roadstream.workers.broker.cluster import Cluster

Scenario = Callable[["Campaign", Fault, anyio.Event], Awaitable[None]]
# The roles of those that are in a group.
MEMBERS = ("worker", "consensus")
# Faults that may go on at the same time.
MOST_AT_ONCE = 5
# Recovery from a kill may take the session timeout and so many seconds.
RECOVERY_MARGIN = 5.0
# An image that a fault brought has to be answered in this time, other faults included.
ANSWER_WITHIN = 30.0
SETTLE_WITHIN = 60.0
# Nobody waits longer than this for a fault: something is wrong then, and is said.
FAULT_TIMEOUT = 180.0


class Standstill(NamedTuple):
    """Partitions of a group that stand still since a moment."""

    group: str
    partitions: set[int]
    since: float


class Campaign:
    """What scenarios work with.

    Attributes:
        cluster: The campaign's own brokers, if it has some.
        relays: What stands between them and everybody, one for each, if connections are cut.
        harmless: Whether the log is somebody else's as well, and must not be harmed.
    """

    def __init__(
        self,
        setting: Setting,
        children: Children,
        load: Load,
        answers: Answers,
        ledgers: Ledgers,
        disk: Disk,
    ) -> None:
        self.setting, self.children, self.panel = setting, children, children.panel
        self.load, self.answers, self.ledgers = load, answers, ledgers
        self.disk = disk
        self.cluster: Cluster | None = None
        self.relays: list[Relay] = []
        self.harmless = False
        self.clock = SharedClock(self.panel.folder / CLOCK)
        self.began = time.monotonic()
        self.anomalies: list[Anomaly] = []
        self.recoveries: list[Recovery] = []
        self.happened: list[Happened] = []
        self.figures: dict[str, float] = {}
        self.running = 0
        self._versions = 0
        self._busy: set[str] = set()
        self._targets: dict[int, list[str]] = {}

    def note(self, name: str, what: str, seen: str) -> None:
        """Note something that must not be."""
        self.anomalies.append(Anomaly(name, what, seen))

    def figure(self, name: str, value: float) -> None:
        """Note a measured value; the largest of a name counts."""
        self.figures[name] = round(max(value, self.figures.get(name, value)), 3)

    def next_version(self) -> int:
        """Return the number of the next version of the cascade."""
        self._versions += 1
        return self._versions

    def free(self, roles: Sequence[str], group: str | None = None) -> list[str]:
        """Return the processes of these roles that run, have joined, and that no fault has."""
        return sorted(
            name
            for name, child in self.children.by_name.items()
            if child.duty.role in roles
            and group in {None, child.duty.group}
            and not child.ended
            and name not in self._busy
            and self.ledgers.pid(name) == child.process.pid
        )

    def spared(self, roles: Sequence[str]) -> list[str]:
        """Return those of the free ones whose group has another member that goes on."""
        found = self.free(roles)
        group = {name: self.children.by_name[name].duty.group for name in found}
        return [name for name in found if list(group.values()).count(group[name]) > 1]

    async def take_spared(self, fault: Fault, *roles: str) -> str:
        """Choose as ``take``, and leave another member of its group at work."""
        if not await until(lambda: bool(self.spared(roles)), FAULT_TIMEOUT):
            raise TimeoutError(f"no {' or '.join(roles)} could be spared for {fault.kind}")
        found = self.spared(roles)
        return self.keep(fault, found[fault.target % len(found)])

    async def take(self, fault: Fault, *roles: str, group: str | None = None) -> str:
        """Choose a process that no other fault has chosen, and keep it until it is released."""
        if not await until(lambda: bool(self.free(roles, group)), FAULT_TIMEOUT):
            raise TimeoutError(f"no {' or '.join(roles)} was free for {fault.kind}")
        found = self.free(roles, group)
        return self.keep(fault, found[fault.target % len(found)])

    def keep(self, fault: Fault, name: str) -> str:
        """Keep this process for a fault until it is released."""
        self._busy.add(name)
        self._targets.setdefault(fault.number, []).append(name)
        return name

    def release(self, name: str) -> None:
        """Let other faults choose the process again."""
        self._busy.discard(name)

    @property
    def parts(self) -> list[Callable[[], Coroutine[None, None, None]]]:
        """What has to run all the time."""
        return [
            self.children.keep,
            self.ledgers.follow,
            self.answers.follow,
            self.answers.follow_letters,
            self.load.run,
        ]

    @property
    def recovery_bound(self) -> float:
        """Seconds in which a group has to go on after the loss of a member."""
        return self.setting.session_timeout + RECOVERY_MARGIN

    async def go_on(self, fault: Fault, since: float, bound: float) -> None:
        """Expect every group to go on in every partition, and what waits to be answered."""
        partitions = set(range(self.setting.partitions))
        async with anyio.create_task_group() as tasks:
            for group in (*map(tier_group, TIERS), CONSENSUS_GROUP):
                tasks.start_soon(
                    self.recover, fault, group, Standstill(group, partitions, since), bound
                )
        if not await self.settled(ANSWER_WITHIN):
            what = f"fault {fault.number} ({fault.kind})"
            self.note("slow answer", what, f"{len(self.unanswered())} images wait")

    async def recover(
        self, fault: Fault, name: str, still: Standstill, bound: float | None = None
    ) -> None:
        """Wait until a group goes on on the partitions that a process had, and measure it."""
        alone, (group, partitions, since) = self.running == 1, still
        if not partitions:
            return
        bound = bound or self.recovery_bound
        went_on = await until(
            lambda: not self.ledgers.idle_since(group, partitions, since), 4 * bound
        )
        seconds = time.monotonic() - since
        alone = alone and self.running == 1
        self.recoveries.append(Recovery(fault.kind, name, round(seconds, 3), alone))
        if not went_on or seconds > bound:
            idle = self.ledgers.idle_since(group, partitions, since)
            self.note(
                "slow recovery",
                f"fault {fault.number} ({fault.kind} {fault.point}) on {name}",
                f"{seconds:.1f} s, expected {bound:.1f}; still idle: {sorted(idle)}",
            )

    async def answered(self, fault: Fault, ids: Sequence[str]) -> None:
        """Wait until these images have their answers."""
        missing = set(ids)

        def done() -> bool:
            missing.difference_update(self.answers.verdicts.keys() & missing)
            return not missing

        if not await until(done, ANSWER_WITHIN):
            self.note(
                "slow answer",
                f"fault {fault.number} ({fault.kind} {fault.point})",
                f"{len(missing)} of {len(ids)} not answered within {ANSWER_WITHIN:g} s: "
                f"{sorted(missing)[:3]}",
            )

    def unanswered(self) -> set[str]:
        """Return the acknowledged images without an answer."""
        return self.load.acknowledged.keys() - self.answers.verdicts.keys()

    def of_group(self, group: str) -> list[str]:
        """Return the processes of a group that run."""
        children = self.children.by_name.values()
        return [c.duty.name for c in children if c.duty.group == group and not c.ended]

    @contextmanager
    def steady_groups(self, fault: Fault) -> Iterator[None]:
        """Note it if an assignment changes meanwhile: somebody was thrown out."""
        before = dict(self.ledgers.assignments)
        yield
        if before != self.ledgers.assignments:
            seen = f"assignments went from {before} to {self.ledgers.assignments}"
            self.note("thrown out", f"fault {fault.number} ({fault.kind})", seen)

    @contextmanager
    def bounded_memory(self, fault: Fault, names: Sequence[str], budget: int) -> Iterator[None]:
        """Note it if the resident memory of a process grows by more than ``budget`` bytes."""
        with self.children.watched(names) as grown:
            yield
        most = max(grown.values(), default=0)
        self.figure(f"memory grown by, MiB: {fault.kind}", most / 2**20)
        if most > budget:
            seen = f"{most:,} bytes more, expected {budget:,} at most"
            self.note("memory", f"fault {fault.number} ({fault.kind})", seen)

    async def fewer_than(self, count: int) -> None:
        """Wait until fewer faults than this go on."""
        await until(lambda: self.running < count, FAULT_TIMEOUT)

    async def settled(self, within: float) -> bool:
        """Wait until hardly more images wait than the load brings in a second or two."""
        return await until(lambda: len(self.unanswered()) <= 2 * self.load.rate + 10, within)

    async def joined(self, within: float) -> bool:
        """Wait until every process is in its group."""
        return await until(lambda: len(self.free(MEMBERS)) == len(self.children.by_name), within)

    async def inject(self, fault: Fault, scenario: Scenario, injected: anyio.Event) -> None:
        """Carry one fault out, to the end of its recovery."""
        began = time.monotonic()
        self.running += 1
        try:
            with anyio.fail_after(FAULT_TIMEOUT + max(fault.seconds, KINDS[fault.kind].seconds)):
                await scenario(self, fault, injected)
        except TimeoutError as error:
            self.note("not carried out", f"fault {fault.number} ({fault.kind})", str(error))
        finally:
            self.running -= 1
            injected.set()
        gap = self.answers.gap_since(began)
        self.happened.append(
            Happened(
                fault.number,
                fault.kind,
                round(began - self.began, 3),
                round(time.monotonic() - began, 3),
                self._targets.pop(fault.number, []),
                round(gap, 3),
            )
        )
        self.figure(f"longest gap: {fault.kind}", gap)


async def run_plan(
    campaign: Campaign,
    plan: Sequence[Fault],
    scenarios: Mapping[str, Scenario],
    seconds: float,
    tell: Callable[[str], None],
) -> None:
    """Inject the faults of a plan, in its order, until it or the time is over."""
    ends_at = time.monotonic() + seconds
    async with anyio.create_task_group() as tasks:
        for fault in plan:
            if time.monotonic() > ends_at:
                break
            alone = KINDS[fault.kind].alone
            await campaign.fewer_than(1 if alone else MOST_AT_ONCE)
            if alone:
                await campaign.joined(SETTLE_WITHIN)
                if not await campaign.settled(SETTLE_WITHIN):
                    tell(f"{len(campaign.unanswered())} images wait still")
            await anyio.sleep(fault.delay)
            injected = anyio.Event()
            at = time.monotonic() - campaign.began
            tell(f"{at:6.1f} s  fault {fault.number}: {fault.kind} {fault.point}")
            tasks.start_soon(campaign.inject, fault, scenarios[fault.kind], injected)
            await injected.wait()
            if not fault.overlap:
                await campaign.fewer_than(1)
