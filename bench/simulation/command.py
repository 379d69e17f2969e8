"""Deterministic simulation: the real workers and consensus, a hostile log, virtual time, one seed.

``python -m roadstream.bench.simulation --records 1000000 --seed 7`` sends so many images through
tier workers, judges and the consensus on an in-memory log, lets random faults happen at random
moments, and checks at every record and every commit that nothing is lost, doubled or divergent, and
no commit is ahead of its work. A run is a function of its seed: a seed that fails, fails again, in
the same way.
"""

import argparse
import gc
import logging
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import anyio
import msgspec
import structlog

from roadstream.bench.harness import show, write_result
from roadstream.bench.simulation.cascade import ALL_LEVELS
from roadstream.bench.simulation.checks import Broken, Expected, Tally
from roadstream.bench.simulation.faults import KINDS, Chaos
from roadstream.bench.simulation.virtual_loop import VirtualRunner
from roadstream.bench.simulation.virtual_time import VirtualClock, virtual_product
from roadstream.bench.simulation.world import Plan, World
from roadstream.sinks.consensus.answered import ANSWERED_WINDOW


class Report(msgspec.Struct, kw_only=True):
    """What came of a run.

    Attributes:
        plan: What was simulated.
        faults: Faults by kind.
        interval: Steps between two of them, on average.
        broken: Promises that did not hold; empty when all is well.
        tally: What was seen on the log.
        answered: Images with an answer.
        taken: Images that retention took, all of them told.
        starts: Times that a process started.
        kills: Processes killed while they ran.
        outages: Times that a process ended because the log failed it.
        fenced: Publishes refused because the partitions had another owner.
        virtual_seconds: How long it took in the world.
        steps: Callbacks run.
        seconds: How long it took here.
        digest: Hash of everything that happened, in order, with its virtual time.
        clocks: Where the product reads the time or starts threads on its own; all of it was taken
            over for the run, so that none of it is real.
    """

    plan: Plan
    faults: Counter[str]
    interval: float
    broken: list[Broken]
    tally: Tally
    answered: int = 0
    taken: int = 0
    starts: int = 0
    kills: int = 0
    outages: int = 0
    fenced: int = 0
    virtual_seconds: float = 0.0
    steps: int = 0
    seconds: float = 0.0
    digest: str = ""
    clocks: list[str] = []


def rehearse(plan: Plan) -> dict[int, Expected]:
    """Return what an undisturbed run says of a picture of each grey level."""
    calm = msgspec.structs.replace(plan, images=len(ALL_LEVELS), live=0.0, again=0.0)
    with virtual_world(calm, None) as (world, runner):
        runner.run(live(world, {}, 1.0, Counter()))
        if world.checker.broken or len(world.checker.learnt) != len(ALL_LEVELS):
            raise SystemExit(f"void: the undisturbed run failed: {world.checker.broken}")
        return world.checker.learnt


@contextmanager
def virtual_world(
    plan: Plan, expected: Mapping[int, Expected] | None, made: type[World] = World
) -> Iterator[tuple[World, VirtualRunner]]:
    """Make a world on a virtual loop; the product reads virtual time as long as it is open."""
    quiet = structlog.make_filtering_bound_logger(logging.CRITICAL)
    before = structlog.get_config()
    structlog.configure(wrapper_class=quiet)
    try:
        with VirtualRunner() as runner:
            clock = VirtualClock(runner.loop)
            world = made(plan, runner.loop, clock, expected)
            with virtual_product(runner.loop, clock, world.threads) as world.clocks:
                yield world, runner
    finally:
        structlog.configure(**before)


async def live(
    world: World, kinds: Mapping[str, int], interval: float, faults: Counter[str]
) -> None:
    """Let the processes live and the faults happen until every image was sent; then heal, drain."""
    await world.prepare()
    async with anyio.create_task_group() as tasks:
        world.populate(tasks)
        world.start(tasks, "producer", world.produce)
        chaos = Chaos(world, tasks, kinds, interval)
        chaos.start()
        await _until(world, lambda: world.submitted >= world.plan.images)
        chaos.stop()
        faults.update(chaos.counts)
        await _until(world, lambda: not world.checker.unanswered(world.plan.images))
        await _until(world, lambda: world.lag() == 0)
        for process in list(world.processes.values()):
            process.stop()


async def _until(world: World, condition: Callable[[], bool]) -> None:
    """Wait; give up when a promise is broken, or when nothing has come for long."""
    progress_at, seen = anyio.current_time(), (-1, -1)
    while not world.checker.broken and not condition():
        await anyio.sleep(0.25)
        world.tidy()
        world.watch(world)
        now = (world.answered, world.lag())
        if now != seen:
            progress_at, seen = anyio.current_time(), now
        if anyio.current_time() - progress_at > world.plan.patience:
            _give_up(world)


def _give_up(world: World) -> None:
    checker = world.checker
    lost = checker.unanswered(world.submitted)
    checker.break_promise("lost", f"{len(lost)} images, such as {lost[:5]}; lag {world.lag()}")


def simulate(
    plan: Plan,
    kinds: Mapping[str, int] = KINDS,
    interval: float = 400.0,
    expected: Mapping[int, Expected] | None = None,
    made: type[World] = World,
    watch: Callable[[World], None] = lambda _: None,
) -> Report:
    """Run a plan in a world of its own and report; ``watch`` may look at it now and then."""
    expected = rehearse(plan) if expected is None else expected
    began = time.perf_counter()
    faults: Counter[str] = Counter()
    with virtual_world(plan, expected, made) as (world, runner):
        world.watch = watch
        try:
            runner.run(live(world, kinds, interval, faults))
            taken = world.checker.check_alarms()
        except Exception as error:
            world.checker.break_promise("crashed", repr(error))
            raise
        checker = world.checker
        processes = [*world.processes.values(), *world.gone]
        return Report(
            plan=plan,
            faults=faults,
            interval=interval,
            broken=checker.broken,
            tally=checker.tally,
            answered=world.answered,
            taken=taken,
            starts=sum(p.starts for p in processes),
            kills=sum(p.kills for p in processes),
            outages=sum(p.outages for p in processes),
            fenced=sum(member.stats.fenced for member in world.members),
            virtual_seconds=runner.loop.time(),
            steps=runner.loop.steps,
            seconds=time.perf_counter() - began,
            digest=checker.digest,
            clocks=world.clocks,
        )


def parse() -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--records", type=int, default=1_000_000, help="images to send")
    parser.add_argument("--seed", type=int, default=None, help="drawn if not given")
    parser.add_argument("--seeds", type=int, default=1, help="so many runs, of seeds in a row")
    parser.add_argument("--interval", type=float, default=400.0, help="steps between faults")
    parser.add_argument("--faults", default="", help="kinds to draw, such as kill,freeze; all")
    parser.add_argument("--log", choices=["atomic", "kafka-like"], default="kafka-like")
    parser.add_argument("--out", default="simulation", help="name of the result")
    return parser.parse_args()


def chosen_kinds(text: str) -> dict[str, int]:
    """Return the kinds named, with their weights; all of them if none is."""
    if not text:
        return KINDS
    names = text.split(",")
    if unknown := set(names) - set(KINDS):
        raise SystemExit(f"--faults: expected {', '.join(KINDS)}, got {', '.join(sorted(unknown))}")
    return {name: KINDS[name] for name in names}


class Progress:
    """Prints how far a run is, at every tenth of it."""

    def __init__(self) -> None:
        self._began, self._tenths = time.perf_counter(), 0

    def __call__(self, world: World) -> None:
        """Look at a world."""
        tenths = 10 * world.answered // world.plan.images
        if tenths > self._tenths:
            self._tenths = tenths
            rate = world.answered / (time.perf_counter() - self._began)
            print(f"{world.answered:,} images answered, {rate:,.0f}/s", flush=True)


def main() -> None:
    """Run, print, write the JSON; exit status 1 if a promise was broken."""
    if os.environ.get("PYTHONHASHSEED") != "0":  # else sets of strings differ from run to run
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(
            sys.executable, [sys.executable, "-m", "roadstream.bench.simulation", *sys.argv[1:]]
        )
    # Millions of live records make full collections dear; what the run leaves behind is little.
    gc.set_threshold(100_000, 50, 1_000)
    options = parse()
    first = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    reports = []
    for seed in range(first, first + options.seeds):
        print(f"seed {seed}", flush=True)
        plan = Plan(
            seed=seed,
            images=options.records,
            atomic=options.log == "atomic",
            max_batch=128,
            backlog=20_000,
            window=ANSWERED_WINDOW,
        )
        report = simulate(plan, chosen_kinds(options.faults), options.interval, watch=Progress())
        reports.append(report)
        print_report(report)
        if report.broken:
            break
    path = write_result(options.out, {"runs": reports})
    print(f"written: {path}")
    raise SystemExit(any(report.broken for report in reports))


def print_report(report: Report) -> None:
    """Print what came of a run."""
    tally, plan = report.tally, report.plan
    rows = [
        ["images", f"{plan.images:,}"],
        ["records on the log", f"{tally.records:,}"],
        ["faults", f"{report.faults.total():,}"],
        ["processes killed", f"{report.kills:,}"],
        ["sessions timed out", f"{tally.evicted:,}"],
        ["publishes fenced", f"{report.fenced:,}"],
        ["answers", ", ".join(f"{n:,} {name}" for name, n in tally.statuses.items())],
        ["identical doubles by zombies", f"{tally.doubled_by_zombies:,}"],
        ["dead letters", f"{tally.dead_letters.total():,}"],
        ["taken by retention, and told", f"{report.taken:,}"],
        ["virtual time", f"{report.virtual_seconds:,.0f} s"],
        ["time", f"{report.seconds:,.1f} s"],
        ["images per second", f"{report.answered / report.seconds:,.0f}"],
        ["digest", report.digest[:16]],
    ]
    show(f"seed {plan.seed}", ["what", "how much"], rows)
    for broken in report.broken[:10]:
        what = f"{broken.promise}: {broken.what[:300]}"
        print(f"BROKEN at {broken.at:.3f} s, step {broken.step}: {what}")
    print(f"taken over: {', '.join(report.clocks)}")
    print("nothing lost, nothing doubled" if not report.broken else "FAILED")
