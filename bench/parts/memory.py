"""Memory of ``roadstream score`` for a small and a large archive: it must not grow with the input.

A cascade whose model does nothing keeps it quick; the pictures are hard links to one tiny JPEG, as
only their number matters. The resident memory of the command's own process, and of its workers, is
sampled while it runs.

Then what a worker of the ``lite`` cascade takes with its real models, on rendered 720p pictures: of
each tier alone, as ``up`` starts them, and of all in one process, as ``score`` does.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np

from roadstream.bench.harness import resident_bytes, show, write_result
from roadstream.cascades import FOLDER
from roadstream.schemas.cascade.loading import load_cascade
from roadstream.stages.decoding.decode import encode_jpeg
from roadstream.workers.demo.render import write_drive

CASCADE = """name = "noop"
[[tiers]]
name = "noop"
max_batch = 256
[[tiers.members]]
name = "nothing"
engine = "noop"
"""
# Hard links to one file are limited (65,000 on ext4), and large folders are slow to list.
LINKS_PER_FILE = 1000
SAMPLE_EVERY = 0.1
# The most that a worker of lite may take: three or four fit into the memory of a small machine.
WORKER_LIMIT = 350e6


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Peaks of resident memory over a run, in bytes.

    Attributes:
        images: Number of pictures.
        seconds: Of the whole command.
        parent: Peak of the process that scans, feeds, joins and writes.
        workers: Peak of the largest worker process.
    """

    images: int
    seconds: float
    parent: int
    workers: int


def make_archive(folder: Path, images: int) -> None:
    """Fill a folder with that many tiny JPEGs."""
    data = encode_jpeg(np.full((16, 16, 3), 128, np.uint8))
    for start in range(0, images, LINKS_PER_FILE):
        part = folder / f"part-{start // LINKS_PER_FILE:05d}"
        part.mkdir(parents=True)
        first = part / "000.jpg"
        first.write_bytes(data)
        for i in range(1, min(LINKS_PER_FILE, images - start)):
            (part / f"{i:03d}.jpg").hardlink_to(first)


def tier_alone(tier: str, folder: Path) -> Path:
    """Write a cascade of one tier of ``lite`` to a folder beside its weights; return its path."""
    shutil.copytree(FOLDER / "lite", folder / "lite", dirs_exist_ok=True)
    head, *tiers = (FOLDER / "lite.toml").read_text().split("[[tiers]]\n")
    alone = next(text for text in tiers if f'name = "{tier}"\nmax_batch' in text)
    path = folder / f"{tier}.toml"
    path.write_text(f"{head}[[tiers]]\n{alone}")
    return path


def grow(images: int, scratch: Path) -> Memory:
    """Score an archive of that size by a cascade that does nothing."""
    archive, cascade = scratch / f"archive-{images}", scratch / "noop.toml"
    cascade.write_text(CASCADE)
    make_archive(archive, images)
    return run(archive, images, str(cascade), scratch)


def models(images: int) -> dict[str, Memory]:
    """Score rendered pictures by each tier of ``lite`` alone and by all, in one worker."""
    with tempfile.TemporaryDirectory(prefix="roadstream-bench-") as folder:
        scratch = Path(folder)
        write_drive(scratch / "drive", images, seed=1)
        cascades = {"all tiers": "lite"} | {
            tier: str(tier_alone(tier, scratch)) for tier in load_cascade("lite").tier_names
        }
        found = {}
        for name, cascade in cascades.items():
            found[name] = run(scratch / "drive", images, cascade, scratch, "--workers", "1")
            print(f"lite, {name}: worker {found[name].workers / 2**20:.0f} MiB", flush=True)
    return found


def run(archive: Path, images: int, cascade: str, scratch: Path, *more: str) -> Memory:
    """Score an archive in fresh processes, sampling memory.

    Raises:
        SystemExit: It failed.
    """
    out = scratch / f"answers-{archive.name}.parquet"
    command = [sys.executable, "-P", "-m", "roadstream.workers.cli", "score", str(archive),
               "--restart", "--cascade", cascade, "--out", str(out), *more]  # fmt: skip
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    parent = workers = 0
    while process.poll() is None:
        parent = max(parent, _resident(process.pid))
        workers = max([workers, *map(_resident, _children(process.pid))])
        time.sleep(SAMPLE_EVERY)
    if process.returncode != 0:
        raise SystemExit(f"void: score ended with status {process.returncode}")
    return Memory(
        images=images, seconds=time.perf_counter() - began, parent=parent, workers=workers
    )


def _children(pid: int) -> list[int]:
    try:
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except FileNotFoundError:
        return []
    return [int(child) for child in listed.split()]


def _resident(pid: int) -> int:
    try:
        return resident_bytes(pid)
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return 0


def show_models(found: dict[str, Memory]) -> None:
    """Print what the workers of ``lite`` took.

    Raises:
        SystemExit: One took more than it may.
    """
    rows = [[name, f"{m.workers / 2**20:.0f}", f"{m.workers / 1e6:.0f}", f"{m.images:,}"]
            for name, m in found.items()]  # fmt: skip
    show("Resident memory of a worker of lite, peak", ["tiers", "MiB", "MB", "images"], rows)
    if (most := max(m.workers for m in found.values())) > WORKER_LIMIT:
        raise SystemExit(f"a worker took {most / 1e6:.0f} MB, more than {WORKER_LIMIT / 1e6:.0f}")


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m roadstream.bench.parts.memory", description=__doc__
    )
    parser.add_argument("--images", type=int, nargs="+", default=[1_000, 100_000])
    parser.add_argument(
        "--pictures", type=int, default=120, help="pictures for the models of lite; 0 for none"
    )
    parser.add_argument("--name", default="memory", help="name of the result")
    options = parser.parse_args()
    runs = []
    for images in options.images:
        with tempfile.TemporaryDirectory(prefix="roadstream-bench-") as scratch:
            runs.append(grow(images, Path(scratch)))
        print(f"{images:,} images: parent {runs[-1].parent / 2**20:.0f} MiB", flush=True)
    growth = runs[-1].parent / runs[0].parent
    show(
        "Resident memory of roadstream score, peak",
        ["images", "parent, MiB", "largest worker, MiB", "images/s, start included"],
        [
            [
                f"{m.images:,}",
                f"{m.parent / 2**20:.0f}",
                f"{m.workers / 2**20:.0f}",
                f"{m.images / m.seconds:,.0f}",
            ]
            for m in runs
        ],
    )
    limit = (
        f"{runs[-1].images // runs[0].images}× the images, {growth:.2f}× the memory; all of them "
        f"as paths alone would be about {runs[-1].images * 200 / 2**20:.0f} MiB"
    )
    print(limit)
    result: dict[str, object] = {"runs": runs, "growth": growth, "limit_in_words": limit}
    found = models(options.pictures) if options.pictures else {}
    result["lite"] = found
    print(f"written: {write_result(options.name, result)}")
    if found:
        show_models(found)


if __name__ == "__main__":
    main()
