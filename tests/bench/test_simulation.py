"""The simulation: seeds hold, a seed replays, and a product that breaks a promise is caught."""

from collections.abc import Mapping
from math import inf

import anyio
import msgspec
import pytest

from roadstream.bench.simulation.command import chosen_kinds, rehearse, simulate
from roadstream.bench.simulation.faults import KINDS
from roadstream.bench.simulation.world import Plan, World
from roadstream.schemas import codec
from roadstream.schemas.topics import ANSWERS
from roadstream.sinks.consensus.answered import Content
from roadstream.sinks.consensus.join import Join
from roadstream.streams.log import Log, Output

COUNT = 700
PLAN = Plan(seed=0, images=COUNT, window=512, patience=400.0)
EXPECTED = rehearse(PLAN)
INTERVAL = 60.0


def planned(seed: int, *, atomic: bool = True, count: int = COUNT) -> Plan:
    return msgspec.structs.replace(PLAN, seed=seed, atomic=atomic, images=count)


@pytest.mark.parametrize("atomic", [True, False], ids=["atomic", "kafka-like"])
@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_lost_or_doubled_whatever_happens(seed: int, *, atomic: bool) -> None:
    report = simulate(planned(seed, atomic=atomic), KINDS, INTERVAL, EXPECTED)

    assert report.broken == []
    assert report.faults.total() > 5
    answers = report.tally.statuses.total() - report.tally.doubled_by_zombies
    assert answers >= COUNT - report.taken
    if atomic:
        assert report.tally.doubled_by_zombies == 0


def test_a_seed_does_the_same_again_and_another_one_does_not() -> None:
    first, again, other = (simulate(planned(seed, count=500), KINDS, 40.0, EXPECTED)
                           for seed in (11, 11, 12))  # fmt: skip

    assert (again.digest, again.steps, again.faults) == (first.digest, first.steps, first.faults)
    assert other.digest != first.digest


class Forgetful(World):
    """Its consensus does not read back what was answered."""

    def new_join(self) -> Join:
        class Forgets(Join):
            def assign(
                self, answered: Mapping[int, Mapping[str, Content]], now: float = -inf
            ) -> None:
                super().assign({partition: {} for partition in answered}, now)

        made = super().new_join()
        return Forgets(made.versions, made.limits)


def test_a_consensus_that_forgets_its_answers_is_caught() -> None:
    promises = {
        broken.promise
        for seed in range(3)
        for broken in simulate(
            planned(seed), {"kill": 1}, 30.0, EXPECTED, Forgetful
        ).broken
    }  # fmt: skip
    assert "doubled" in promises


class Hasty(World):
    """A stranger commits what nobody has worked on."""

    async def produce(self, log: Log, stopping: anyio.Event) -> None:
        async with log.producer() as producer:
            await self.submit(producer, self.plan.images, None)
        tp = next(tp for tp, at, end in self._behind() if end)
        self.checker.committed("roadstream.tier.one", "stranger", tp, 1)


def test_a_commit_ahead_of_its_work_is_caught() -> None:
    report = simulate(planned(0, count=100), {}, 1.0, EXPECTED, Hasty)
    assert [broken.promise for broken in report.broken][:1] == ["commit ahead of work"]


class Meddling(World):
    """Somebody appends another answer than the one there is."""

    change: Mapping[str, object] = {}

    async def produce(self, log: Log, stopping: anyio.Event) -> None:
        async with log.producer() as producer:
            await self.submit(producer, self.plan.images, None)
            async with log.reader(ANSWERS, "beginning") as reader:
                polled = await reader.poll(max_records=1, timeout=60)
            ((tp, (record,)),) = polled.items()
            changed = msgspec.structs.replace(
                codec.decode_answer(record.value or b""), **self.change
            )
            await producer.publish([Output(ANSWERS, None, codec.encode(changed), tp.partition)])
        await stopping.wait()


class Diverging(Meddling):
    change: Mapping[str, object] = {"probability": 0.123}


@pytest.mark.parametrize(("world", "promise"), [(Meddling, "doubled"), (Diverging, "divergent")])
def test_a_second_answer_is_caught(world: type[World], promise: str) -> None:
    report = simulate(planned(0, count=100), {}, 1.0, EXPECTED, world)
    assert [broken.promise for broken in report.broken] == [promise]


class Losing(World):
    """The producer takes for acknowledged what it never sent."""

    async def produce(self, log: Log, stopping: anyio.Event) -> None:
        async with log.producer() as producer:
            await self.submit(producer, self.plan.images - 1, None)
        self.submitted = self.plan.images
        await stopping.wait()


def test_a_lost_image_is_caught() -> None:
    report = simulate(planned(0, count=300), {}, 1.0, EXPECTED, Losing)
    assert [broken.promise for broken in report.broken] == ["lost"]


def test_what_retention_took_of_an_image_explains_a_partial_answer() -> None:
    report = simulate(planned(29), {"retention": 1}, 15.0, EXPECTED)

    assert report.broken == []
    assert report.tally.statuses["partial"]
    assert report.virtual_seconds > 300  # until the consensus waits for the votes no longer


def test_only_the_faults_that_were_asked_for_happen() -> None:
    report = simulate(planned(3, count=500), chosen_kinds("kill,poll"), 30.0, EXPECTED)
    assert set(report.faults) == {"kill", "poll"}
    with pytest.raises(SystemExit, match=r"expected kill, freeze, .*, got fire"):
        chosen_kinds("fire,kill")
