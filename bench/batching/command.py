"""The batcher against the batching policies of others, in virtual time.

Each scenario has a device whose batches take α·b + β and some noise, a deadline, and arrivals that
are the same for every policy. Goodput is the highest rate at which 99 % of the images are done by
their deadline. In the mixed scenario half of the peak comes live, over an archive backlog without
end: what counts is the live share on time, and the images per second of both lanes. The product's
queue runs all of them, by its port for policies: its own, and small ones after the code or the
paper of the systems they are named for. The defaults take about half a minute on two cores;
``--full`` takes some minutes.

In a third table the batcher has a decoder before its device, with one batch in flight, or two: the
second one bound as soon as there is room for it, or when the first is about to end.
"""

import argparse
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

from rich.progress import track

from roadstream.bench.batching.scenarios import (
    DEADLINES,
    DECODED,
    DECODED_DEADLINE,
    MAX_BATCH,
    MODES,
    OURS,
    POLICIES,
    SERVICES,
    Load,
    Mixed,
    Scenario,
    bound,
    goodput,
    mixed,
    overlapped,
    scenarios,
)
from roadstream.bench.harness import show, write_result

# On time in the mixed scenario.
MIXED_GOAL = 0.97


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m roadstream.bench.batching",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=7, help="seed of all chance (7)")
    parser.add_argument("--full", action="store_true", help="three seeds, more images, finer steps")
    parser.add_argument("--rounds", type=int, help="seeds per scenario, of which the median (1; 3)")
    parser.add_argument("--images", type=int, help="fewest images per run (2,000; 10,000)")
    parser.add_argument("--step", type=float, help="resolution of goodput (0.01; 0.0025)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (2)")
    parser.add_argument("--only", default="", help="only scenarios whose names hold this")
    parser.add_argument("--name", default="batching", help="of the result's file (batching)")
    options = parser.parse_args(arguments)
    rounds, images, step = (3, 10_000, 0.0025) if options.full else (1, 2_000, 0.01)
    options.rounds, options.images = options.rounds or rounds, options.images or images
    options.step = options.step or step
    return options


def row_of_goodput(scenario: Scenario, options: argparse.Namespace) -> dict[str, float]:
    """Return the goodput per policy."""
    found: dict[str, float] = {}
    for name in POLICIES:
        rounds = [
            goodput(scenario, name, Load(options.images, options.seed + i), options.step)
            for i in range(options.rounds)
        ]
        found[name] = statistics.median(rounds)
    return found


def row_of_mixed(place: tuple[int, float], options: argparse.Namespace) -> dict[str, Mixed]:
    """Return the outcome per policy."""
    service, load = SERVICES[place[0]], Load(2 * options.images, options.seed)
    return {name: mixed(service, place[1], name, load, MIXED_GOAL) for name in POLICIES}


def row_of_overlap(index: int, options: argparse.Namespace) -> dict[str, float]:
    """Return the goodput per mode."""
    load = Load(options.images, options.seed)
    return {m.name: overlapped(*DECODED[index], m, load, options.step) for m in MODES}


def main() -> None:
    """Simulate, print the tables, write the JSON."""
    options = parse()
    chosen = [one for one in scenarios() if options.only in one.name]
    places = [
        (i, deadline)
        for i, service in enumerate(SERVICES)
        for deadline in DEADLINES
        if options.only in f"{service.name}, {deadline * 1000:.0f} ms"
    ]
    with ProcessPoolExecutor(options.jobs) as pool:
        live = pool.map(partial(row_of_goodput, options=options), chosen)
        both = pool.map(partial(row_of_mixed, options=options), places)
        behind = pool.map(partial(row_of_overlap, options=options), range(len(DECODED)))
        goodputs = list(track(live, "goodput", len(chosen)))
        outcomes = list(track(both, "mixed", len(places)))
        overlaps = list(track(behind, "decoder before the device", len(DECODED)))
    facts = {
        "seed": options.seed,
        "rounds": options.rounds,
        "images": options.images,
        "step": options.step,
        "max_batch": MAX_BATCH,
        "goodput": report_goodput(chosen, goodputs),
        "mixed": report_mixed(places, outcomes),
        "overlap": report_overlap(overlaps),
    }
    print(f"written: {write_result(options.name, facts)}")


def report_goodput(
    chosen: Sequence[Scenario], goodputs: Sequence[dict[str, float]]
) -> list[dict[str, Any]]:
    """Print the table; return its facts."""
    rows, facts = [], []
    for scenario, found in zip(chosen, goodputs, strict=True):
        best = max(value for name, value in found.items() if name != OURS)
        rows.append([scenario.name, *[f"{100 * value:.1f}" for value in found.values()],
                     f"{100 * (found[OURS] - best):+.1f}"])  # fmt: skip
        facts.append({"scenario": scenario, "goodput": found, "ours_less_best": found[OURS] - best})
    show(
        "Goodput: highest rate with 99 % on time, in % of the peak",
        ["scenario", *[_short(name) for name in POLICIES], "less best"],
        rows,
    )
    return facts


def report_mixed(
    places: Sequence[tuple[int, float]], outcomes: Sequence[dict[str, Mixed]]
) -> list[dict[str, Any]]:
    """Print the table, of the others the best one alone; return its facts."""
    rows, facts = [], []
    for (i, deadline), found in zip(places, outcomes, strict=True):
        service = SERVICES[i]
        most = bound(service, deadline, MIXED_GOAL)
        best = max([name for name in found if name != OURS], key=lambda name: merit(found[name]))
        rows.append([
            f"{service.name}, {deadline * 1000:.0f} ms",
            f"{_short(best)}, {found[best].max_batch}",
            *[f"{100 * one.on_time:.1f} / {100 * one.total:.1f}"
              for one in (found[best], found[OURS])],
            f"{100 * most:.1f}",
        ])  # fmt: skip
        facts.append({"service": service, "deadline": deadline, "outcomes": found, "bound": most})
    show(
        "Half of the peak live over an archive backlog: % on time / total in % of the peak",
        ["scenario", "best of the others, its batch", "its", "ours", f"bound at {MIXED_GOAL:.0%}"],
        rows,
    )
    return facts


def merit(found: Mixed) -> tuple[bool, float]:
    """Return what is compared: of those on time the images, of others what was on time."""
    kept = found.on_time >= MIXED_GOAL
    return kept, found.total if kept else found.on_time


def report_overlap(overlaps: Sequence[dict[str, float]]) -> list[dict[str, Any]]:
    """Print the table; return its facts."""
    rows, facts = [], []
    for (service, each), found in zip(DECODED, overlaps, strict=True):
        rows.append([service.name, *[f"{100 * value:.1f}" for value in found.values()]])
        facts.append({"service": service, "decoding": each, "goodput": found})
    show(
        f"Goodput behind a decoder, {1000 * DECODED_DEADLINE:.0f} ms, in % of the peak",
        ["scenario", *[mode.name for mode in MODES]],
        rows,
    )
    return facts


def _short(name: str) -> str:
    """Return a policy's name without what it stands for: the JSON has it whole."""
    return name.partition(" ")[0]
