"""What the event loop spends per image and per vote, and how late it is at worst; before and after.

Time of the loop is processor time of the thread that it runs in: decoding, models and vote math are
in other threads, and not in it. The cascade's members do nothing, the log is the one in memory, so
what is left is the product's own: polling, queue, batches, hand-over to threads, packs, commits;
and at the consensus the join, the pool and the answers. Per vote is the slope between few and many
members.

How late the loop is, a timer tells that wants to wake every 2 ms in a process that runs all tiers
of a cascade with real models, without work and with all it can take: its lateness is what a
heartbeat, a deadline or a request would wait. A millisecond of it is the resolution of the loop's
timers.

Trees run in turn, each measurement in a fresh process. ``--before`` is any revision of this
repository that has the in-memory log.
"""

import argparse
import json
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from roadstream.bench.harness import Spread, show, spread, write_result
from roadstream.bench.models.engines import cascades
from roadstream.bench.revisions import python_in, tree_at

HERE = Path(__file__).resolve().parent
CHILD = HERE / "overhead_child.py"
FEW, MANY = 2, 10
TORCH = "torch resnet18"


def run(tree: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Measure once, in a fresh process that imports from ``tree``.

    Raises:
        SystemExit: It failed, or ran on another tree.
    """
    # Its own, as the names of modules differ between revisions.
    child = next(tree.glob(f"bench/**/{CHILD.name}"), CHILD)
    told = python_in(tree, str(child), json.dumps(options))
    found: dict[str, Any] = json.loads(told.splitlines()[-1])
    if Path(found.pop("tree")).resolve() != tree.resolve():
        raise SystemExit(f"void: expected to measure {tree}")
    return found


def measure(
    trees: dict[str, Path], torch_cascade: Path, options: argparse.Namespace
) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Return per measurement and tree what each round found; the first round warms up."""
    plain = {"what": "loop", "images": options.images, "max_batch": options.max_batch}
    plans = {f"{count} members": {**plain, "members": count} for count in (FEW, MANY)}
    stall = {"what": "stall", "images": options.pictures, "warm": 30, "pictures": 30}
    plans |= {cascade: {**stall, "cascade": cascade} for cascade in options.cascade}
    plans |= {TORCH: {**stall, "cascade": str(torch_cascade)}}
    found: dict[str, dict[str, list[dict[str, Any]]]] = {
        # Older trees need not know the torch engine.
        name: {tree: [] for tree in (trees if name != TORCH else ("after",))}
        for name in plans
    }
    for number in range(options.rounds + 1):
        for name, plan in plans.items():
            for tree in found[name]:
                figures = run(trees[tree], plan)
                print(f"round {number}: {name}: {tree}: {figures}", flush=True)
                if number:
                    found[name][tree].append(figures)
    return found


def per_vote(few: list[dict[str, Any]], many: list[dict[str, Any]], part: str) -> Spread:
    """Return microseconds per vote, paired by round."""
    return spread([(b[part] - a[part]) / (MANY - FEW) for a, b in zip(few, many, strict=True)])


def loop_figures(found: dict[str, dict[str, list[dict[str, Any]]]]) -> dict[str, Any]:
    """Return per tree and part microseconds per image and per vote."""
    few, many = found[f"{FEW} members"], found[f"{MANY} members"]
    return {
        tree: {
            part: {
                f"per_image_of_{FEW}_votes": spread([one[part] for one in few[tree]]),
                f"per_image_of_{MANY}_votes": spread([one[part] for one in many[tree]]),
                "per_vote": per_vote(few[tree], many[tree], part),
            }
            for part in ("worker", "consensus")
        }
        for tree in few
    }


def stall_figures(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how late the loop was; the worst of all rounds beside the median of their worst."""
    found: dict[str, Any] = {
        key: spread([one[key] for one in rounds]) for key in ("images_per_second", "loop_share")
    }
    for when in ("idle", "load"):
        for at in ("p50", "p99", "max"):
            found[f"{when}_{at}"] = spread([one[when][at] for one in rounds])
    return found


def parse() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(
        prog="python -m roadstream.bench.models.overhead", description=__doc__
    )
    parser.add_argument("--before", help="revision to compare with; none by default")
    parser.add_argument("--images", type=int, default=40_000, help="images per loop measurement")
    parser.add_argument("--max-batch", type=int, default=16, help="largest batch of the tier")
    parser.add_argument("--cascade", action="append", default=[], help="for the stalls; repeatable")
    parser.add_argument("--pictures", type=int, default=200, help="pictures per stall measurement")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds, trees in turn")
    parser.add_argument("--name", default="overhead", help="name of the result")
    options = parser.parse_args()
    options.cascade = options.cascade or ["lite"]
    return options


def main() -> None:
    """Measure, print the tables, write the JSON."""
    options = parse()
    with ExitStack() as stack:
        trees = {"after": HERE.parents[1]}
        if options.before:
            old = stack.enter_context(tempfile.TemporaryDirectory(prefix="roadstream-before-"))
            trees = {"before": tree_at(options.before, Path(old)), **trees}
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="roadstream-bench-"))
        found = measure(trees, cascades(Path(folder), options.max_batch)[TORCH], options)
    loop = loop_figures(found)
    stalls = {
        cascade: {tree: stall_figures(rounds) for tree, rounds in found[cascade].items()}
        for cascade in (*options.cascade, TORCH)
    }
    show_loop(loop, options)
    show_stalls(stalls)
    limit = (
        "The loop's own time is Python objects: records decoded, queued, packed, joined, answered. "
        "Its lateness under load is the interpreter's lock, held by other threads for up to the "
        "switch interval each, and the scheduler of a machine whose cores are all taken."
    )
    print(limit)
    result = {
        "options": vars(options),
        "microseconds_of_loop": loop,
        "milliseconds_late": stalls,
        "limit_in_words": limit,
    }
    print(f"written: {write_result(options.name, result)}")


def show_loop(loop: dict[str, Any], options: argparse.Namespace) -> None:
    """Print what the loop spends."""
    rows = [
        [f"{part}, {tree}", *[figure.text(".2f") for figure in figures.values()]]
        for tree, parts in loop.items()
        for part, figures in parts.items()
    ]
    show(
        f"Microseconds of the event loop, batches of {options.max_batch}",
        ["part", f"per image, {FEW} votes", f"per image, {MANY} votes", "per vote"],
        rows,
    )


def show_stalls(stalls: dict[str, Any]) -> None:
    """Print how late the loop is."""
    names = ("idle_p50", "idle_max", "load_p50", "load_p99", "load_max")
    rows = [
        [f"{cascade}, {tree}", *[figures[name].text(".1f") for name in names]]
        for cascade, trees in stalls.items()
        for tree, figures in trees.items()
    ]
    columns = ["cascade", *[name.replace("_", " ") for name in names]]
    show("Milliseconds by which the event loop is late", columns, rows)


if __name__ == "__main__":
    main()
