"""What it costs to read files for their ids: in the first pass over a folder, and in later ones.

One thread scans a folder of files that lie in memory: counting them only; reading them for
references; reading them inline; and once more with a ledger that knows them unchanged. The floor of
the first pass is SHA-256 alone over the same bytes.
"""

import argparse
import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import msgspec

from roadstream.bench.harness import Spread, show, spread, write_result
from roadstream.schemas.topics import images
from roadstream.streams.ledgers.run_ledger import RunLedger
from roadstream.streams.memory.log import MemoryLog
from roadstream.streams.sources.places import SETTLING_NS
from roadstream.streams.sources.scan import ScanOptions, count_ahead, scan_places
from roadstream.workers.job.submit import Submitter, next_batch

CASES = ((5000, 30_000), (1000, 300_000), (100, 4_000_000))
WAYS = ("counted only", "first pass, references", "first pass, inline", "unchanged", "SHA-256")


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """Microseconds per file, per way."""

    files: int
    size: int
    microseconds: dict[str, Spread]


def write_files(folder: Path, count: int, size: int) -> None:
    """Write files of random bytes."""
    for number in range(count):
        (folder / f"{number:06}.jpg").write_bytes(os.urandom(size))


def scanned(folder: Path, options: ScanOptions) -> Callable[[], int]:
    """Return a scan of a folder that returns how many places it found."""
    return lambda: sum(1 for _ in scan_places([str(folder)], options))


def hashed(folder: Path) -> Callable[[], int]:
    """Return what hashes the bytes of a folder's files without reading them."""
    data = [path.read_bytes() for path in folder.iterdir()]
    return lambda: sum(len(hashlib.sha256(one).digest()) > 0 for one in data)


async def note(ledger: RunLedger, folder: Path) -> None:
    """Note a folder's files in a ledger as a run does."""
    log = MemoryLog()
    await log.create_topics([images("archive")], 1)
    async with log.producer() as producer:
        submitter = Submitter(producer, ledger, 1)
        places = scan_places([str(folder)], ScanOptions())
        while batch := next_batch(places, 256):
            await submitter.submit_places(batch)


async def measure(folder: Path, ledger: Path, count: int, size: int, rounds: int) -> Cost:
    """Measure all ways in turn."""
    write_files(folder, count, size)
    await anyio.sleep(SETTLING_NS / 1e9 + 0.5)  # younger files are read again
    taken: dict[str, list[float]] = {way: [] for way in WAYS}
    async with RunLedger(ledger) as opened:
        await note(opened, folder)
        ways: tuple[Callable[[], int], ...] = (
            lambda: sum(count_ahead([str(folder)])),
            scanned(folder, ScanOptions()),
            scanned(folder, ScanOptions(carry="inline")),
            scanned(folder, ScanOptions(known=opened.known)),
            hashed(folder),
        )
        for number in range(rounds + 1):  # the first warms up
            for way, work in zip(WAYS, ways, strict=True):
                began = time.perf_counter()
                if work() != count:
                    raise SystemExit(f"void: {way}: expected {count} files")
                if number:
                    taken[way].append((time.perf_counter() - began) / count * 1e6)
    return Cost(files=count, size=size, microseconds={w: spread(t) for w, t in taken.items()})


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m roadstream.bench.parts.hashing", description=__doc__
    )
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds, ways in turn")
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"), help="where files lie")
    parser.add_argument("--name", default="hashing", help="name of the result")
    options = parser.parse_args()
    costs = []
    for count, size in CASES:
        with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
            folder = Path(scratch) / "files"
            folder.mkdir()
            ledger = Path(scratch) / "ledger.db"
            costs.append(anyio.run(measure, folder, ledger, count, size, options.rounds))
    show(
        "Scanning a folder, one thread, µs per file",
        ["files", *WAYS],
        [
            [f"{c.files:,} of {c.size:,} B", *(c.microseconds[way].text(",.0f") for way in WAYS)]
            for c in costs
        ],
    )
    print(f"written: {write_result(options.name, {'costs': costs})}")


if __name__ == "__main__":
    main()
