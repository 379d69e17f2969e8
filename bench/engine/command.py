"""The stream alone: two hops that do nothing but move records, against a plain aiokafka program.

Image to two votes to one answer, one process per hop, no decoding, models that do nothing. The
clock runs from the first record that the first hop is given to the last answer that the log has
acknowledged; every image must have been answered exactly once, else the run is void.

``--before REVISION`` compares the working tree with another revision instead, each with its own
benchmark, in turn; the exit status is 1 if it is slower.
"""

import argparse
import sys
import tempfile
import uuid
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import msgspec

from roadstream.bench.engine.contenders import (
    Contender,
    Embedded,
    Memory,
    PlainLoop,
    ProductOnKafka,
    preload_kafka,
)
from roadstream.bench.engine.floor import Floor, measure_floor
from roadstream.bench.engine.plan import Plan
from roadstream.bench.engine.run import Outcome
from roadstream.bench.harness import Spread, show, spread, write_result
from roadstream.bench.revisions import (
    LEAST_ROUNDS,
    both_trees,
    check_rounds,
    in_turn,
    run_module,
    verdict,
)
from roadstream.workers.broker.cluster import BrokerSettings, run_brokers

LOGS = ("embedded", "memory", "kafka")
PEER = "aiokafka loop"
# What another revision's benchmark is told too.
PASSED_ON = ("log", "images", "payload", "partitions", "batch")


def parse() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(prog="python -m roadstream.bench.engine", description=__doc__)
    parser.add_argument("--log", choices=[*LOGS, "all"], default="all", help="which logs to run on")
    parser.add_argument("--images", type=int, default=200_000, help="images per run")
    parser.add_argument("--payload", type=int, default=1024, help="bytes per image, inline")
    parser.add_argument("--rounds", type=int, help="timed rounds in turn; 5, or 7 with --before")
    parser.add_argument("--partitions", type=int, default=4, help="partitions of every topic")
    parser.add_argument("--batch", type=int, default=1000, help="largest batch of the tier")
    parser.add_argument("--no-peer", action="store_true", help="leave the aiokafka loop out")
    parser.add_argument("--no-crc", action="store_true", help="Kafka clients check no checksums")
    parser.add_argument("--folder", type=Path, help="where logs lie; a temporary folder by default")
    parser.add_argument("--name", help="name of the result; made from the options by default")
    parser.add_argument("--before", help="revision to compare with, without the peer")
    options = parser.parse_args()
    options.rounds = options.rounds or (LEAST_ROUNDS if options.before else 5)
    return options


async def contenders(
    options: argparse.Namespace, plan: Plan, stack: AsyncExitStack, folder: Path
) -> list[Contender]:
    """Return the contenders, a broker running and loaded where it is needed."""
    logs = LOGS if options.log == "all" else (options.log,)
    chosen: list[Contender] = []
    if "embedded" in logs:
        chosen.append(Embedded(folder))
    if "memory" in logs:
        chosen.append(Memory())
    peers = not options.no_peer
    if "kafka" in logs or peers:
        cluster = await stack.enter_async_context(
            run_brokers(BrokerSettings(data=folder / "kafka"))
        )
        await preload_kafka(cluster.bootstrap_servers, plan)
        where = cluster.bootstrap_servers, cluster.pids
        if "kafka" in logs:
            chosen.append(ProductOnKafka(*where))
        if peers:
            chosen += [PlainLoop(*where, "asyncio"), PlainLoop(*where, "uvloop")]
    return chosen


async def measure(
    options: argparse.Namespace, plan: Plan, folder: Path
) -> dict[str, list[Outcome]]:
    """Run every contender once to warm up and then in turn, round by round."""
    outcomes: dict[str, list[Outcome]] = {}
    async with AsyncExitStack() as stack:
        field = await contenders(options, plan, stack, folder)
        for number in range(options.rounds + 1):
            for contender in field:
                outcome = await contender.run(plan)
                label = f"round {number}" if number else "warm-up"
                print(
                    f"{label}: {contender.name}: {outcome.images_per_second:,.0f}/s, "
                    f"{outcome.cpu_worker:.1f} + {outcome.cpu_consensus:.1f} µs",
                    flush=True,
                )
                if number:
                    outcomes.setdefault(contender.name, []).append(outcome)
    return outcomes


def main() -> None:
    """Measure, print the table, write the JSON."""
    options = parse()
    if options.before:
        sys.exit(against(options))
    plan = Plan(
        log="",
        images=options.images,
        payload=options.payload,
        partitions=options.partitions,
        max_batch=options.batch,
        check_crcs=not options.no_crc,
    )
    with tempfile.TemporaryDirectory(prefix="roadstream-bench-", dir=options.folder) as folder:
        outcomes = anyio.run(measure, options, plan, Path(folder))
    floor = measure_floor(plan)
    report(options, plan, outcomes, floor)


def against(options: argparse.Namespace) -> int:
    """Compare with another revision, print the table, write the JSON; return the exit status."""
    rounds = check_rounds(options.rounds)
    with both_trees(options.before) as trees:
        found = in_turn(trees, rounds, lambda tree: _speeds(tree, options))
    compared, slower = verdict(f"The stream alone, beside {options.before}", found)
    result = {
        "options": {k: str(v) for k, v in vars(options).items()},
        "comparison": compared,
        "images_per_second": found,
        "limit_in_words": "Ratios of rounds; both revisions ran on the same machine in turn.",
    }
    name = options.name or f"engine-{options.log}-{options.payload}-before"
    print(f"written: {write_result(name, result)}")
    return int(slower)


def _speeds(tree: Path, options: argparse.Namespace) -> dict[str, float]:
    """Run a tree's own benchmark once; return images per second by contender."""
    name = f"scratch-{uuid.uuid4().hex}"
    words = [f"--{key}={getattr(options, key)}" for key in PASSED_ON]
    words += ["--no-crc"] if options.no_crc else []
    words += [f"--folder={options.folder.resolve()}"] if options.folder else []
    run_module(tree, "roadstream.bench.engine", *words, "--no-peer", "--rounds=1", f"--name={name}")
    file = tree / "bench" / "results" / f"{name}.json"
    told = msgspec.json.decode(file.read_bytes())
    file.unlink()
    return {
        contender: facts["images_per_second"]["median"]
        for contender, facts in told["contenders"].items()
    }


def report(
    options: argparse.Namespace, plan: Plan, outcomes: dict[str, list[Outcome]], floor: Floor
) -> None:
    """Print the table and write the JSON."""
    speeds = {n: spread([o.images_per_second for o in found]) for n, found in outcomes.items()}
    peers = [speed.median for name, speed in speeds.items() if name.startswith(PEER)]
    best = max(peers, default=None)
    rows, facts = [], {}
    for name, found in outcomes.items():
        cpu = {
            "worker": spread([o.cpu_worker for o in found]),
            "consensus": spread([o.cpu_consensus for o in found]),
            "both": spread([o.cpu for o in found]),
        }
        broker = [o.cpu_broker for o in found if o.cpu_broker is not None]
        ratio = None if best is None else speeds[name].median / best
        rows.append(_row(name, speeds[name], cpu, broker, ratio))
        facts[name] = {
            "images_per_second": speeds[name],
            "cpu_microseconds_per_image": cpu,
            "cpu_microseconds_of_broker": spread(broker) if broker else None,
            "ratio_to_fastest_peer": ratio,
            "outcomes": found,
        }
    show(
        f"{plan.images:,} images of {plan.payload:,} bytes, two hops, {plan.partitions} partitions",
        ["contender", "images/s", "× peer", "CPU µs: worker", "consensus", "broker"],
        rows,
    )
    print(floor.sentence())
    result = {
        "plan": plan,
        "rounds": options.rounds,
        "contenders": facts,
        "physical_limit": floor,
        "limit_in_words": floor.sentence(),
    }
    name = options.name or f"engine-{options.log}-{plan.payload}"
    print(f"written: {write_result(name, result)}")


def _row(
    name: str, speed: Spread, cpu: dict[str, Spread], broker: list[float], ratio: float | None
) -> list[str]:
    return [
        name,
        speed.text(),
        "" if ratio is None else f"{ratio:.1f}",
        f"{cpu['worker'].median:.1f}",
        f"{cpu['consensus'].median:.1f}",
        f"{spread(broker).median:.1f}" if broker else "",
    ]
