"""The fault campaign: load, faults, drain, and a look at every record for what must not be.

Everything is drawn from the seed beforehand: the same seed, log and minutes give the same plan. The
exit status is 0 only if nothing was lost, doubled or changed, and every recovery came in time.
"""

import argparse
import signal
import sys
import tempfile
from functools import partial
from pathlib import Path

import anyio

from roadstream.bench.faults.chaos.disk import mount_small_disk, unmount_small_disk
from roadstream.bench.faults.plan import KINDS, chosen
from roadstream.bench.faults.report import show_campaign
from roadstream.bench.faults.run import Options, run_campaign
from roadstream.bench.harness import write_result

# Room for an hour's load. The campaign makes it as small as what is on it.
DISK_BYTES = 2 << 30


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(prog="python -m roadstream.bench.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="decides the plan and the pictures")
    parser.add_argument("--minutes", type=float, default=10.0, help="time for faults, about")
    parser.add_argument("--log", choices=["embedded", "kafka"], default="embedded")
    parser.add_argument("--only", nargs="+", default=[], metavar="KIND", help="only these kinds")
    parser.add_argument("--list", action="store_true", help="show the kinds of fault, and end")
    parser.add_argument("--rate", type=float, default=150.0, help="images per second")
    parser.add_argument("--out", help="name of the result; faults-LOG by default")
    parser.add_argument("--keep", type=Path, help="folder to work in, and to keep")
    return parser.parse_args(arguments)


def main() -> None:
    """Run a campaign, show what came of it, write the JSON."""
    options = parse()
    if options.list:
        for kind in KINDS.values():
            print(f"{kind.name:20} {'/'.join(kind.logs):15} {kind.what}")
        return
    try:
        kinds = [kind.name for kind in chosen(options.log, options.only)]
    except ValueError as error:
        sys.exit(f"--only: {error}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends its children like Ctrl-C
    with tempfile.TemporaryDirectory(prefix="roadstream-faults-") as scratch:
        folder = options.keep or Path(scratch)
        small = "disk-full" in kinds and mount_small_disk(folder / "log", DISK_BYTES)
        settings = Options(
            seed=options.seed,
            minutes=options.minutes,
            log=options.log,
            kinds=kinds,
            rate=options.rate,
            folder=folder,
            disk_bytes=DISK_BYTES if small else 0,
        )
        try:
            result = anyio.run(partial(run_campaign, settings, partial(print, flush=True)))
        except KeyboardInterrupt:
            sys.exit(130)
        finally:
            if small:
                unmount_small_disk(folder / "log")
    show_campaign(result)
    print(f"written: {write_result(options.out or f'faults-{options.log}', {'campaign': result})}")
    sys.exit(1 if result.anomalies else 0)
