"""``roadstream score`` against a bare loop over the same pictures, on all cores.

The loop does the same decoding and the same models with the same exits, without log, batching
between processes, votes or answers: what it reaches is what the machine can do, so the ratio says
what the product costs. Starting and loading models are left out on both sides: ``score`` is timed
from the moment its first batch begins to its last answer, the loop from when all its models are
warm. The time of the whole command stands beside it.

``--before REVISION`` compares ``score`` of the working tree with that of another revision instead,
in turn; the exit status is 1 if it is slower.
"""

import argparse
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import msgspec

from roadstream.bench.harness import machine, show, spread, write_result
from roadstream.bench.parts.bare_loop import run_bare
from roadstream.bench.revisions import (
    LEAST_ROUNDS,
    both_trees,
    check_rounds,
    in_turn,
    run_module,
    verdict,
)
from roadstream.sinks.files.readers import read_answers
from roadstream.workers.demo.render import write_drive

TREE = Path(__file__).resolve().parents[1]


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One contender's run over all pictures."""

    images_per_second: float
    seconds: float
    cpu_milliseconds: float
    exits: dict[str, int]
    command_seconds: float | None = None


def parse() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(
        prog="python -m roadstream.bench.pipeline", description=__doc__
    )
    parser.add_argument("--pictures", type=Path, help="folder of JPEGs; rendered by default")
    parser.add_argument("--images", type=int, default=600, help="pictures to render, or to take")
    parser.add_argument("--cascade", default="lite", help="cascade file or name")
    parser.add_argument("--rounds", type=int, help="timed rounds in turn; 3, or 7 with --before")
    parser.add_argument("--name", help="name of the result; pipeline or pipeline-before by default")
    parser.add_argument("--before", help="revision to compare score with, without the bare loop")
    options = parser.parse_args()
    options.rounds = options.rounds or (LEAST_ROUNDS if options.before else 3)
    options.name = options.name or ("pipeline-before" if options.before else "pipeline")
    return options


def run_score(folder: Path, cascade: str, images: int, scratch: Path, tree: Path = TREE) -> Run:
    """Run a tree's command in fresh processes, and read the times off its answers."""
    out = scratch / "answers.parquet"
    began, cpu = time.perf_counter(), _children_cpu()
    run_module(tree, "roadstream.workers.cli", "score", str(folder), "--out", str(out),
              "--cascade", cascade, "--restart", folder=scratch)  # fmt: skip
    whole = time.perf_counter() - began
    answers = list(read_answers(out))
    if len(answers) != images or any(a["status"] != "answered" for a in answers):
        raise SystemExit(f"void: expected {images} images answered, got {len(answers)}")
    first = min(a["submitted_at"] + a["latency"]["tiers"][0]["queued"] for a in answers)
    seconds = max(a["answered_at"] for a in answers) - first
    return Run(
        images_per_second=images / seconds,
        seconds=seconds,
        cpu_milliseconds=(_children_cpu() - cpu) / images * 1e3,
        exits=dict(Counter(a["exit_tier"] or "" for a in answers)),
        command_seconds=whole,
    )


def run_loop(paths: list[str], cascade: str, cores: int) -> Run:
    """Run the bare loop, one process per core."""
    began = time.perf_counter()
    timings = run_bare(cascade, paths, cores)
    seconds = max(t.ended_at for t in timings) - min(t.began_at for t in timings)
    exits: Counter[str] = Counter()
    for timing in timings:
        exits.update(timing.exits)
    return Run(
        images_per_second=len(paths) / seconds,
        seconds=seconds,
        cpu_milliseconds=sum(t.cpu for t in timings) / len(paths) * 1e3,
        exits=dict(exits),
        command_seconds=time.perf_counter() - began,
    )


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def gather(options: argparse.Namespace, scratch: Path) -> Path:
    """Return a folder with the pictures to be scored, rendered if none are given."""
    folder = scratch / "pictures"
    if options.pictures is None:
        write_drive(folder, options.images, seed=1)
        (folder / "labels.csv").unlink()
    else:
        folder.mkdir()
        found = sorted(
            p for p in options.pictures.rglob("*") if p.suffix.lower() in {".jpg", ".jpeg"}
        )
        for i, path in enumerate(found[: options.images]):
            (folder / f"{i:06d}.jpg").symlink_to(path.resolve())
    return folder


def against(options: argparse.Namespace, scratch: Path) -> int:
    """Compare with another revision, print the table, write the JSON; return the exit status."""
    rounds, folder = check_rounds(options.rounds), gather(options, scratch)
    images = sum(1 for _ in folder.iterdir())

    def speeds(tree: Path) -> dict[str, float]:
        run = run_score(folder, options.cascade, images, scratch, tree)
        per_core_second = 1e3 / run.cpu_milliseconds
        return {"score": run.images_per_second, "score, per CPU second": per_core_second}

    with both_trees(options.before) as trees:
        found = in_turn(trees, rounds, speeds)
    compared, slower = verdict(f"{images:,} pictures, beside {options.before}", found)
    result = {
        "options": {k: str(v) for k, v in vars(options).items()},
        "comparison": compared,
        "images_per_second": found,
        "limit_in_words": "Ratios of rounds; both revisions ran on the same machine in turn.",
    }
    print(f"written: {write_result(options.name, result)}")
    return int(slower)


def measure(options: argparse.Namespace, scratch: Path) -> dict[str, list[Run]]:
    """Run both in turn; the first round warms up."""
    folder = gather(options, scratch)
    paths = sorted(map(str, folder.iterdir()))
    cores = machine().cores
    runs: dict[str, list[Run]] = {"roadstream score": [], "bare loop": []}
    for number in range(options.rounds + 1):
        pair = {
            "roadstream score": run_score(folder, options.cascade, len(paths), scratch),
            "bare loop": run_loop(paths, options.cascade, cores),
        }
        for name, run in pair.items():
            label = f"round {number}" if number else "warm-up"
            print(f"{label}: {name}: {run.images_per_second:.1f}/s {run.exits}", flush=True)
            if number:
                runs[name].append(run)
    return runs


def main() -> None:
    """Measure, print the table, write the JSON."""
    options = parse()
    with tempfile.TemporaryDirectory(prefix="roadstream-bench-") as scratch:
        if options.before:
            sys.exit(against(options, Path(scratch)))
        runs = measure(options, Path(scratch))
    speeds = {name: spread([r.images_per_second for r in found]) for name, found in runs.items()}
    ratio = speeds["roadstream score"].median / speeds["bare loop"].median
    rows = [
        [
            name,
            speeds[name].text(".1f"),
            f"{spread([r.cpu_milliseconds for r in found]).median:.1f}",
            f"{spread([r.command_seconds or 0.0 for r in found]).median:.1f}",
        ]
        for name, found in runs.items()
    ]
    images = sum(runs["bare loop"][0].exits.values())
    show(
        f"{options.cascade} cascade, {images:,} pictures, all cores",
        ["contender", "images/s", "CPU ms per image", "whole command, s"],
        rows,
    )
    limit = f"The bare loop is the limit of this machine; score reaches {ratio:.2f} of it."
    print(limit)
    result = {
        "options": {k: str(v) for k, v in vars(options).items()},
        "ratio": ratio,
        "limit_in_words": limit,
        "images_per_second": speeds,
        "runs": runs,
    }
    print(f"written: {write_result(options.name, result)}")


if __name__ == "__main__":
    main()
