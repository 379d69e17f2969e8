"""What it costs that acknowledged images are on the disk: the embedded log's producer, both ways.

Every publish of a producer ends with the file synced to the disk (``synchronous=FULL``); between
tiers the file is synced only now and then (``NORMAL``). Here the same batches are appended both
ways in turn, to two files on one disk, so that the difference is the sync alone.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from roadstream.bench.harness import Spread, show, spread, write_result
from roadstream.streams.embedded.log import EmbeddedLog
from roadstream.streams.embedded.store import SCHEMA, SCHEMA_VERSION
from roadstream.streams.log import Output

TOPIC = "images.archive"
BOTH = ("full_ms", "normal_ms")
# score's batch of references, produce's of pictures, and one picture alone.
BATCHES = ((256, 300), (64, 30_720), (1, 30_720))


def publish_seconds(log: EmbeddedLog, outputs: Sequence[Output], *, durable: bool) -> float:
    """Return what one publish takes, in seconds (blocking)."""
    database = log.database
    transaction: Callable[[], AbstractContextManager[Any]] = (
        database.durable if durable else database.transaction
    )
    began = time.perf_counter()
    with transaction():
        log.store.append(outputs)
    return time.perf_counter() - began


def measure(folder: Path, images: int, size: int, rounds: int) -> tuple[Spread, Spread]:
    """Return milliseconds per publish, synced and not, in turn."""
    outputs = [Output(TOPIC, b"%d" % i, os.urandom(size), i % 16) for i in range(images)]
    logs: dict[bool, EmbeddedLog] = {}
    for durable in (True, False):
        log = logs[durable] = EmbeddedLog(folder / f"{durable}-{images}-{size}.db")
        log.database.open(SCHEMA, SCHEMA_VERSION)
        log.store.create_topics([TOPIC], 16)
    found: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(rounds):
        for durable, log in logs.items():
            found[durable].append(1000 * publish_seconds(log, outputs, durable=durable))
    for log in logs.values():
        log.database.close()
    return spread(found[True][1:]), spread(found[False][1:])


def sync_seconds(folder: Path, rounds: int) -> float:
    """Return the median of what this disk takes to sync 16 KiB that were appended to a file."""
    taken = []
    with (folder / "sync").open("wb", buffering=0) as file:
        for _ in range(rounds):
            file.write(bytes(16384))
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m roadstream.bench.parts.durability", description=__doc__
    )
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--folder", type=Path, help="folder on the disk to be measured")
    parser.add_argument("--name", default="durability", help="name of the result")
    options = parser.parse_args()
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        for images, size in BATCHES:
            full, normal = measure(Path(scratch), images, size, options.rounds)
            runs.append({"images": images, "bytes": size, "full_ms": full, "normal_ms": normal})
        sync = 1000 * sync_seconds(Path(scratch), options.rounds)
    show(
        "A publish of the embedded log's producer, ms",
        ["images × bytes", "on the disk (FULL)", "not yet (NORMAL)"],
        [
            [
                f"{r['images']} × {r['bytes']:,}",
                *(r[key].text(".2f") for key in BOTH),
            ]
            for r in runs
        ],
    )
    limit = f"a sync of 16 KiB takes {sync:.2f} ms on this disk (median)"
    print(limit)
    print(f"written: {write_result(options.name, {'runs': runs, 'limit_in_words': limit})}")


if __name__ == "__main__":
    main()
