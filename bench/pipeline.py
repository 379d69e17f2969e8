"""``roadstream score`` against a bare loop over the same pictures, on all cores.

The loop does the same decoding and the same models with the same exits, without log, batching
between processes, votes or answers: what it reaches is what the machine can do, so the ratio says
what the product costs. Starting and loading models are left out on both sides: ``score`` is timed
from the moment its first batch begins to its last answer, the loop from when all its models are
warm. The time of the whole command stands beside it.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import anyio
import msgspec

from bench.bare_loop import run_bare
from bench.harness import machine, show, spread, write_result
from schemas import codec
from streams.run_ledger import RunLedger
from streams.sources.synthetic import write_drive
from workers.rundir import RunFolder


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One contender's run over all pictures."""

    images_per_second: float
    seconds: float
    cpu_milliseconds: float
    exits: dict[str, int]
    command_seconds: float | None = None


def parse() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(prog="python -m bench.pipeline", description=__doc__)
    parser.add_argument("--pictures", type=Path, help="folder of JPEGs; rendered by default")
    parser.add_argument("--images", type=int, default=600, help="pictures to render, or to take")
    parser.add_argument("--cascade", default="lite", help="cascade file or name")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds, in turn")
    parser.add_argument("--name", default="pipeline", help="name of the result")
    return parser.parse_args()


def run_score(folder: Path, cascade: str, images: int, scratch: Path) -> Run:
    """Run the command in fresh processes, and read the times off its answers."""
    out = scratch / "answers.parquet"
    began, cpu = time.perf_counter(), _children_cpu()
    subprocess.run(
        [sys.executable, "-m", "workers.cli", "score", str(folder), "--out", str(out),
         "--cascade", cascade, "--restart"],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    whole = time.perf_counter() - began
    values = anyio.run(_answers, RunFolder(out).ledger)
    answers = [codec.decode_answer(value) for value in values]
    if len(answers) != images or any(a.status != "answered" for a in answers):
        raise SystemExit(f"void: expected {images} images answered, got {len(answers)}")
    first = min(a.head.submitted_at + a.latency.tiers[0].queued for a in answers)
    seconds = max(a.answered_at for a in answers) - first
    return Run(
        images_per_second=images / seconds,
        seconds=seconds,
        cpu_milliseconds=(_children_cpu() - cpu) / images * 1e3,
        exits=dict(Counter(a.exit_tier or "" for a in answers)),
        command_seconds=whole,
    )


async def _answers(ledger: Path) -> list[bytes]:
    async with RunLedger(ledger) as opened:
        return [value for batch in opened.answers(in_order=False) for value in batch]


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


def measure(options: argparse.Namespace, scratch: Path) -> dict[str, list[Run]]:
    """Run both in turn; the first round warms up."""
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
